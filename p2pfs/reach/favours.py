"""What neighbours do for each other that leads to a servent: who can be asked, and how often.

A hit leaves its way behind: the neighbour that it came from is nearer to the servent that gave it.
What others have us dial costs those who live at that address a packet, so it is counted by the
network that it belongs to, over all who name it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import trio

from p2pfs.latest import Latest
from p2pfs.link import Link
from p2pfs.protocol import Address, ServentId, groups_of
from p2pfs.protocol.flood import LinkId, TokenBucket

PUSHES_PER_S: Final = 0.5
PUSH_BURST: Final = 10
"""What we do of one kind for one neighbour, and ask of one: all who are behind it share it."""

MAX_ROUTES: Final = 4_096
"""Servents of which it is remembered from which neighbour a hit came."""

KNOCKS_PER_MINUTE: Final = 2
KNOCK_BURST: Final = 8
"""Dials to one network (/24, /48) because others name an address of it. What turns out to be the
servent that was named is not counted: only those who live there and are none have to bear it."""

MAX_KNOCKED: Final = 1_024
"""Networks whose dials are counted."""


class Routes:
    """Which neighbour leads to which servent."""

    def __init__(self, neighbours: Callable[[], Mapping[ServentId, Link]]) -> None:
        self.neighbours = neighbours
        """Returns the links to the neighbours, by who they are."""
        self._routes: Latest[ServentId, ServentId] = Latest(MAX_ROUTES)

    def came_from(self, provider: ServentId, neighbour: ServentId) -> None:
        """Note from which neighbour a hit of a servent came: that leads to it."""
        self._routes[provider] = neighbour

    def way_to(self, peer: ServentId) -> Link | None:
        """Return the neighbour that is a servent, or leads to it, if one is known."""
        neighbours = self.neighbours()
        return neighbours.get(peer) or neighbours.get(self._routes.get(peer, ServentId("")))


class Favours:
    """How often a neighbour may ask us for one kind of favour, and we a neighbour."""

    def __init__(self) -> None:
        self._asked: dict[LinkId, TokenBucket] = {}
        self._may_ask: dict[LinkId, TokenBucket] = {}

    def is_within(self, link: Link) -> bool:
        """Charge what a neighbour asks of us, and return whether we do it."""
        return _take(self._asked, link)

    def may_ask(self, link: Link) -> bool:
        """Charge what we ask of a neighbour, and return whether it is to be asked."""
        return _take(self._may_ask, link)

    def forget(self, link: Link) -> None:
        """Forget a neighbour that is gone."""
        self._asked.pop(link.id, None)
        self._may_ask.pop(link.id, None)


def _take(buckets: dict[LinkId, TokenBucket], link: Link) -> bool:
    bucket = buckets.setdefault(link.id, TokenBucket(PUSHES_PER_S, PUSH_BURST))
    return bucket.take(trio.current_time())


class Knocks:
    """How often addresses are dialled that others name."""

    def __init__(self) -> None:
        self._buckets: Latest[str, TokenBucket] = Latest(MAX_KNOCKED)

    def may_knock(self, address: Address) -> bool:
        """Charge a dial, and return whether it may be made."""
        network = groups_of(address.host)[0]
        bucket = self._buckets.get(network) or TokenBucket(KNOCKS_PER_MINUTE / 60, KNOCK_BURST)
        self._buckets[network] = bucket
        return bucket.take(trio.current_time())

    def was_welcome(self, address: Address) -> None:
        """Note that a dial that was charged has led to the servent that was named."""
        bucket = self._buckets.get(groups_of(address.host)[0])
        if bucket is not None:
            bucket.spend(-1)
