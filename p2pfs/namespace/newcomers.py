"""Neighbours that came or went lately, and whether the next look waits for what that changes.

With each of them anything may be new, so every listing is old. But identities are free: one that
comes, says nothing and goes again, under a new id each time, would let every look wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from p2pfs.latest import Latest
from p2pfs.namespace.tellers import AddressGroups, GroupsOf
from p2pfs.protocol import ServentId
from p2pfs.protocol.flood import TokenBucket

NOT_AWAITED_S: Final = 600.0
"""How long nobody at an address is waited for after a look has waited in vain for somebody there.
New names show when listings are refreshed, three seconds later."""

MOVES_PER_S: Final = 1 / 30
MOVES_BURST: Final = 8
"""How often neighbours at one address may come or go for which looks wait. Each is a search more:
thirty joins a second used up all that a servent may search, and `ls` failed."""

MAX_NEWCOMERS: Final = 1_000
"""Neighbours that came since the last whole listing, and addresses that are not awaited."""


class Newcomers:
    """Who came or went since the last listing that everybody has answered."""

    def __init__(self, groups_of: GroupsOf, clock: Callable[[], float]) -> None:
        self._groups_of = groups_of
        self._clock = clock
        self._new: Latest[AddressGroups, None] = Latest(MAX_NEWCOMERS)
        self._not_awaited: Latest[AddressGroups, float] = Latest(MAX_NEWCOMERS)
        """Until when."""
        self._moves: Latest[AddressGroups, TokenBucket] = Latest(MAX_NEWCOMERS)

    def moved(self, peer: ServentId) -> bool:
        """Note that a neighbour came or went; return whether looks wait for what that changes."""
        address, now = self._groups_of(peer), self._clock()
        moves = self._moves.renew(address, _new_bucket)
        if not moves.take(now) or now < self._not_awaited.get(address, -math.inf):
            return False
        self._new[address] = None
        return True

    def were_late(self) -> None:
        """Note that a look has waited in vain: it was for those that came since the last one."""
        until = self._clock() + NOT_AWAITED_S
        for address in self._new:
            self._not_awaited[address] = until
        self._new.clear()

    def have_answered(self) -> None:
        """Note that everybody has answered."""
        self._new.clear()


def _new_bucket() -> TokenBucket:
    return TokenBucket(MOVES_PER_S, MOVES_BURST)
