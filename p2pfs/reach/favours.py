"""What neighbours do for each other that leads to a servent: who can be asked, and how often.

A hit leaves its way behind: the neighbour that it came from is nearer to the servent that gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import trio

from p2pfs.latest import Latest
from p2pfs.link import Link
from p2pfs.protocol import ServentId
from p2pfs.protocol.flood import LinkId, TokenBucket

PUSHES_PER_S: Final = 0.5
PUSH_BURST: Final = 10
"""What we do of one kind for one neighbour, and ask of one: all who are behind it share it."""

MAX_ROUTES: Final = 4_096
"""Servents of which it is remembered from which neighbour a hit came."""


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
