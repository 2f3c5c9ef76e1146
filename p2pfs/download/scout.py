"""Search for further sources of contents that are being fetched.

Swarms that could use more sources get those that the catalogue has come to know, and
the network is asked for others, one search at a time. A search that may not be made now
counts for nothing and is made later.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.download.swarm import Swarm
from p2pfs.download.upstream import NetworkUpstream
from p2pfs.errors import NotAskedError
from p2pfs.namespace import Catalogue
from p2pfs.protocol import FileId, PeerInfo, QueryHit, ServentId
from p2pfs.protocol.flood import Urgency

ASK_CATALOGUE_S: Final = 0.5
"""How often the catalogue is asked for sources that others' searches and listings found."""

LOOK_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""When the network is asked for further sources of a content that is being fetched: after the
first, then the second, ... of these pauses, and again after each last one. A content that takes
a second to fetch costs no search."""


@dataclass(eq=False, slots=True)
class Wanting:
    """A swarm that may want further sources, and what was done about it."""

    swarm: Swarm
    file_id: FileId
    size: int
    told: set[ServentId] = field(default_factory=set)
    """Sources that the catalogue knew and that were handed to the swarm."""
    searches: int = 0
    """Searches for further sources so far."""
    search_at: float = 0.0
    """When the next of them is due."""
    not_before: float = 0.0
    """When the first of them may be made, whatever happens: most downloads are over by then."""


class Scout:
    """Gives swarms further sources."""

    def __init__(self, catalogue: Catalogue, upstream: NetworkUpstream) -> None:
        self._catalogue = catalogue
        self._upstream = upstream
        self._wanting: set[Wanting] = set()
        self._begun = trio.lowlevel.ParkingLot()
        """Where `run` waits while nothing is fetched: an idle servent does not wake."""

    def watch(
        self, swarm: Swarm, content: tuple[FileId, int], known: Iterable[PeerInfo]
    ) -> Wanting:
        """Search for a swarm that knows these sources, until `forget`."""
        told = {source.id for source in known}
        search_at = trio.current_time() + LOOK_PAUSES_S[0]
        wanting = Wanting(swarm, *content, told, search_at=search_at, not_before=search_at)
        self._wanting.add(wanting)
        self._begun.unpark_all()
        return wanting

    def forget(self, wanting: Wanting) -> None:
        """Search for a swarm no more."""
        self._wanting.discard(wanting)

    def look_soon(self) -> None:
        """Note that a servent has come, or shares something new: it may be a source."""
        for wanting in self._wanting:
            wanting.search_at = wanting.not_before

    async def run(self) -> None:
        """Give the swarms further sources, until cancelled; one search at a time."""
        while True:
            while not self._wanting:
                await self._begun.park()
            await trio.sleep(ASK_CATALOGUE_S)
            wanting = [one for one in self._wanting if one.swarm.wants_sources]
            for one in wanting:
                self._tell_known(one)
            now = trio.current_time()
            due = [one for one in wanting if one.search_at <= now]
            if due:
                await self._search(min(due, key=lambda one: one.search_at))

    def _tell_known(self, wanting: Wanting) -> None:
        known = self._catalogue.offers.sources_of(wanting.file_id, wanting.size)
        fresh = [source for source in known if source.id not in wanting.told]
        if fresh:
            wanting.told.update(source.id for source in fresh)
            wanting.swarm.add_sources(fresh)

    async def _search(self, wanting: Wanting) -> None:
        """Search for further sources; if that may not be now, it counts for nothing."""
        wanting.searches += 1
        pause_s = LOOK_PAUSES_S[min(wanting.searches, len(LOOK_PAUSES_S) - 1)]
        wanting.search_at = trio.current_time() + pause_s
        try:
            found = functools.partial(_tell_found, wanting)
            await self._upstream.search(wanting.file_id, wanting.size, Urgency.SOURCES, found)
        except NotAskedError as error:
            wanting.searches -= 1
            wanting.search_at = trio.current_time() + error.wait_s


def _tell_found(wanting: Wanting, hits: Sequence[QueryHit]) -> None:
    """Give a swarm each source as a search finds it: the search may end seconds later."""
    wanting.swarm.add_sources(*_sources_and_readers(hits, wanting.file_id))


def _sources_and_readers(
    hits: Sequence[QueryHit], file_id: FileId
) -> tuple[list[PeerInfo], list[PeerInfo]]:
    """Separate the providers that share a content from those that have some of it cached."""
    readers = [hit.provider for hit in hits if _is_of_reader(hit, file_id)]
    return [hit.provider for hit in hits if not _is_of_reader(hit, file_id)], readers


def _is_of_reader(hit: QueryHit, file_id: FileId) -> bool:
    """Return whether a hit names a content in a cache, under no name but its id."""
    return all(entry.path == file_id.hex() for entry in hit.entries)
