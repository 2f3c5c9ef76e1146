"""Which queries were seen (PROTOCOL.md, "Flooding").

The table is bounded in age and size, and each neighbour has a bound of its own, so that one
that makes up queries pushes out its own before anybody else's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import Guid
from p2pfs.protocol.flood.decisions import LinkId

SEEN_S: Final = 600.0
"""How long a query is remembered; no copy of it is on its way by then (Shareaza, RetroShare)."""

MAX_SEEN: Final = 100_000
"""Queries remembered in all: 36 MB when full (measured)."""

MAX_SEEN_OF_LINK: Final = 10_000
"""Queries remembered of those that one neighbour brought first."""


@dataclass(slots=True)
class Seen:
    """A query that was seen."""

    came_from: LinkId | None
    """Who brought it first; None if it is our own."""
    question: int
    """The hash of its question: another question under the same GUID is a collision."""
    ttl: int
    """The largest TTL of its copies so far."""
    at: float
    copies: float = 0.0
    """What it has cost the address that brought it first (`askers.Askers`)."""
    is_shared: bool = False
    """Whether another address has brought it too."""
    askers: tuple[tuple[LinkId, int], ...] = ()
    """The links whose copies were passed on, each with the TTL that it gave."""
    sent_to: set[LinkId] | None = None
    """The links that got copies of it, if it is our own: earlier rings may have left out some."""


class SeenTable:
    """The queries seen lately, oldest first."""

    def __init__(self) -> None:
        self._all: Latest[Guid, Seen] = Latest(MAX_SEEN, self._dropped)
        self._by_link: dict[LinkId, Latest[Guid, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def find(self, guid: Guid, now: float) -> Seen | None:
        """Return a query as remembered; None if it is not."""
        self._all.forget_while(lambda seen: seen.at <= now - SEEN_S)
        return self._all.get(guid)

    def add(self, guid: Guid, seen: Seen) -> None:
        """Remember a query that is not remembered yet; the oldest make room."""
        self._all[guid] = seen
        if seen.came_from is not None:
            of_link = self._by_link.get(seen.came_from)
            if of_link is None:
                of_link = Latest(MAX_SEEN_OF_LINK, lambda oldest, _: self._all.pop(oldest))
                self._by_link[seen.came_from] = of_link
            of_link[guid] = None

    def _dropped(self, guid: Guid, seen: Seen) -> None:
        if seen.came_from is not None:
            of_link = self._by_link[seen.came_from]
            of_link.pop(guid, None)  # it is not there yet if it is the only one that may be
            if not of_link:
                del self._by_link[seen.came_from]
