"""Which queries were seen (PROTOCOL.md, "Flooding").

The table is bounded in age and size, and each neighbour has a bound of its own, so that one
that makes up queries pushes out its own before anybody else's.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

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
    sent_to: set[LinkId] | None = None
    """The links that got copies of it, if it is our own: earlier rings may have left out some."""


class SeenTable:
    """The queries seen lately, oldest first."""

    def __init__(self) -> None:
        # OrderedDict, because taking the oldest out of a plain dict is not O(1).
        self._all: OrderedDict[Guid, Seen] = OrderedDict()
        self._by_link: dict[LinkId, OrderedDict[Guid, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def find(self, guid: Guid, now: float) -> Seen | None:
        """Return what is remembered of a query."""
        self._forget_old(now)
        return self._all.get(guid)

    def add(self, guid: Guid, seen: Seen) -> None:
        """Remember a query that is not remembered yet; the oldest make room."""
        self._all[guid] = seen
        if seen.came_from is not None:
            of_link = self._by_link.setdefault(seen.came_from, OrderedDict())
            of_link[guid] = None
            if len(of_link) > MAX_SEEN_OF_LINK:
                del self._all[of_link.popitem(last=False)[0]]
        if len(self._all) > MAX_SEEN:
            self._forget_oldest()

    def _forget_old(self, now: float) -> None:
        while self._all and next(iter(self._all.values())).at <= now - SEEN_S:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        guid, seen = self._all.popitem(last=False)
        if seen.came_from is not None:
            of_link = self._by_link[seen.came_from]
            del of_link[guid]
            if not of_link:
                del self._by_link[seen.came_from]
