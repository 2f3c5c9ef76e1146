"""Favours of neighbours that lead to a servent: which neighbour is asked, and how often.

A hit leaves its way behind: the neighbour that it came from is nearer to the servent that gave it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import trio

from p2pfs.latest import Latest
from p2pfs.link import Link
from p2pfs.protocol import GUID_BYTES, Guid, Guide, Punch, Relay, ServentId, groups_of
from p2pfs.protocol.flood import LinkId, TokenBucket

PUSHES_PER_S: Final = 0.5
PUSH_BURST: Final = 10
"""What we do of one kind for one neighbour, and ask of one: all who are behind it share it."""

PASSED_ON: Final = 2
"""What is passed on to one neighbour for the servents of one address is one part in so many of what
that takes: else one that asks all the time leaves nothing to others, and to ourselves."""

MAX_PASSED_ON: Final = 1_024
"""Neighbours and addresses between which is counted what was passed on."""

MAX_ROUTES: Final = 4_096
"""Servents of which the neighbours are remembered that brought a hit of theirs."""


class Routes:
    """Which neighbour leads to which servent."""

    def __init__(self, neighbours: Callable[[], Mapping[ServentId, Link]]) -> None:
        self.neighbours = neighbours
        """Returns the links to the neighbours, by who they are."""
        self._routes: Latest[ServentId, tuple[ServentId, ...]] = Latest(MAX_ROUTES)
        """Two at most, the better one first."""
        self._doubted: Latest[ServentId, ServentId] = Latest(MAX_ROUTES)
        """The neighbour by which a servent was not reached."""

    def came_from(self, provider: ServentId, neighbour: ServentId) -> None:
        """Note from which neighbour a hit of a servent came: that leads to it."""
        others = [one for one in self._routes.get(provider, ()) if one != neighbour][:1]
        is_doubted = self._doubted.get(provider) == neighbour
        self._routes[provider] = (*others, neighbour) if is_doubted else (neighbour, *others)

    def led_nowhere(self, peer: ServentId) -> None:
        """Note that a servent was not reached: who brought a hit before shows the way from now on.

        Anybody can bring the hits of others last, and do nothing else for them.
        """
        way = self.way_to(peer)
        if way is not None and way.peer.id != peer:
            self._doubted[peer] = neighbour = ServentId(way.peer.id)
            self.came_from(peer, neighbour)

    def way_to(self, peer: ServentId) -> Link | None:
        """Return the neighbour that is a servent, or leads to it, if one is known."""
        neighbours = self.neighbours()
        ways = (neighbours.get(one) for one in (peer, *self._routes.get(peer, ())))
        return next(filter(None, ways), None)


class Favours:
    """How often a neighbour may ask us for one kind of favour, and we a neighbour."""

    def __init__(self) -> None:
        self._asked: dict[LinkId, TokenBucket] = {}
        self._may_ask: dict[LinkId, TokenBucket] = {}
        self._passed_on: Latest[tuple[LinkId, str], TokenBucket] = Latest(MAX_PASSED_ON)

    def is_within(self, link: Link) -> bool:
        """Charge a request of a neighbour, and return whether we do it."""
        return _take(self._asked, link)

    def may_ask(self, link: Link) -> bool:
        """Charge a request to a neighbour, and return whether it may be sent."""
        return _take(self._may_ask, link)

    def may_pass_on(self, asker: Link, link: Link) -> bool:
        """Charge a request that a neighbour has for another one, and return whether it is sent.

        Never straight back.
        """
        if asker is link:
            return False
        _, address = groups_of(asker.remote.host)
        share = self._passed_on.renew((link.id, address), _share)
        return share.take(trio.current_time()) and self.may_ask(link)

    def forget(self, link: Link) -> None:
        """Forget a neighbour that is gone."""
        self._asked.pop(link.id, None)
        self._may_ask.pop(link.id, None)


Favour = TypeVar("Favour", Guide, Punch, Relay)


@dataclass(slots=True)
class _Asked(Generic[Favour]):
    """A request to a neighbour about a third servent."""

    way: LinkId
    peer: ServentId
    told: Favour | None = None
    is_told: trio.Event = field(default_factory=trio.Event)


class Questions(Generic[Favour]):
    """The requests to neighbours, each with a token that its answer brings back."""

    def __init__(self, make: Callable[[Guid, ServentId], Favour], within_s: float) -> None:
        """Ask with messages that `make` makes, and wait so long for an answer."""
        self._make: Callable[[Guid, ServentId], Favour] = make
        self._within_s = within_s
        self._asked: dict[Guid, _Asked[Favour]] = {}

    async def ask(self, way: Link, peer: ServentId) -> Favour | None:
        """Ask a neighbour about a servent; None if it says nothing in time."""
        token = Guid(secrets.token_bytes(GUID_BYTES))
        asked = self._asked[token] = _Asked[Favour](way.id, peer)
        try:
            way.post(self._make(token, peer))
            with trio.move_on_after(self._within_s):
                await asked.is_told.wait()
        finally:
            del self._asked[token]
        return asked.told

    def is_answer(self, link: Link, message: Favour) -> bool:
        """Return whether a message answers a question of ours, and take it in then."""
        asked = self._asked.get(Guid(message.token))
        if asked is None or (asked.way, asked.peer) != (link.id, message.peer):
            return False
        asked.told = message
        asked.is_told.set()
        return True


def _share() -> TokenBucket:
    return TokenBucket(PUSHES_PER_S / PASSED_ON, PUSH_BURST // PASSED_ON)


def _take(buckets: dict[LinkId, TokenBucket], link: Link) -> bool:
    bucket = buckets.setdefault(link.id, TokenBucket(PUSHES_PER_S, PUSH_BURST))
    return bucket.take(trio.current_time())
