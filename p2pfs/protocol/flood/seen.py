"""Which queries were seen (PROTOCOL.md, "Flooding").

The table is bounded in age and size, and so is what the neighbours of one network have brought: who
makes up queries pushes out its own before anybody else's, however many links it opens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import Guid
from p2pfs.protocol.flood.decisions import LinkId

SEEN_S: Final = 120.0
"""How long a query is remembered; no copy of it is on its way by then: it is waited for ten seconds
at most, and a line that takes nothing lives for ninety."""

MAX_SEEN: Final = 30_000
"""Queries remembered in all: 11 MB when full (measured). Where all links are full of them some
5,000 come in SEEN_S."""

MAX_SEEN_OF_NETWORK: Final = 10_000
"""Queries remembered of those that neighbours of one network brought first, and no more than its
even share of all when the table is full."""


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
    network: str = ""
    """That of who brought it first."""
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
        self._networks: dict[str, Latest[Guid, None]] = {}
        """What the neighbours of each network brought first, the oldest first."""

    def __len__(self) -> int:
        return len(self._all)

    def find(self, guid: Guid, now: float) -> Seen | None:
        """Return a query as remembered; None if it is not."""
        self._all.forget_while(lambda seen: seen.at <= now - SEEN_S)
        return self._all.get(guid)

    def add(self, guid: Guid, seen: Seen) -> None:
        """Remember a query that is not remembered yet; older ones make room."""
        if len(self._all) >= self._all.limit:
            self._make_room(seen.network)
        self._all[guid] = seen
        if seen.came_from is not None:
            of_network = self._networks.get(seen.network)
            if of_network is None:
                of_network = Latest(MAX_SEEN_OF_NETWORK, lambda oldest, _: self._all.pop(oldest))
                self._networks[seen.network] = of_network
            of_network[guid] = None

    def _make_room(self, network: str) -> None:
        """Forget the oldest query of a network that has more than its share, or else of all."""
        own = self._networks.get(network, ())
        has_most = len(own) * len(self._networks) > self._all.limit
        oldest = next(iter(own if has_most else self._all))
        self._dropped(oldest, self._all.pop(oldest))

    def _dropped(self, guid: Guid, seen: Seen) -> None:
        if seen.came_from is not None:
            of_network = self._networks[seen.network]
            del of_network[guid]
            if not of_network:
                del self._networks[seen.network]
