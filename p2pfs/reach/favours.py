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
from p2pfs.protocol import GUID_BYTES, Guid, Guide, Punch, Relay, ServentId
from p2pfs.protocol.flood import LinkId, TokenBucket

PUSHES_PER_S: Final = 0.5
PUSH_BURST: Final = 10
"""What we do of one kind for one neighbour, and ask of one: all who are behind it share it."""

MAX_ROUTES: Final = 4_096
"""Servents of which the neighbour is remembered that brought a hit of theirs."""


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
        """Charge a request of a neighbour, and return whether we do it."""
        return _take(self._asked, link)

    def may_ask(self, link: Link) -> bool:
        """Charge a request to a neighbour, and return whether it may be sent."""
        return _take(self._may_ask, link)

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


def _take(buckets: dict[LinkId, TokenBucket], link: Link) -> bool:
    bucket = buckets.setdefault(link.id, TokenBucket(PUSHES_PER_S, PUSH_BURST))
    return bucket.take(trio.current_time())
