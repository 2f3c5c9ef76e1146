"""One query's life: flooded ring by ring, its hits gathered, its end known.

A search asks TTL 1 first and goes further only while that is not enough (expanding ring,
Lv et al., ICS 2002). DONE tells the exact end of each ring, so no timer guesses; the
timeout only bounds a network that loses messages. Hits are believed when their signature
and every name in them hold; what fails is dropped and counted, entry by entry.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio
from msgspec.structs import replace

from p2pfs.errors import RemoteProtocolError
from p2pfs.protocol.addresses import dialable
from p2pfs.protocol.decisions import Finished
from p2pfs.protocol.handshake import check_hit
from p2pfs.protocol.messages import (
    MAX_RESULTS,
    Address,
    Entry,
    Guid,
    PeerInfo,
    Query,
    QueryHit,
    QueryKind,
)
from p2pfs.protocol.names import check_path, words_of

log = logging.getLogger(__name__)

MAX_HITS: Final = 500
"""Hits kept of one search, one a servent: more than anybody reads."""

Flood = Callable[[Query], bool]
"""Send a query to every neighbour; False if there is none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search brought."""

    hits: tuple[QueryHit, ...]
    servents: int
    """How many servents were asked."""
    is_complete: bool
    """Whether everybody within the last ring answered in time."""


@dataclass(slots=True)
class _Running:
    """A search under way."""

    kind: QueryKind
    text: str
    hits: dict[str, QueryHit] = field(default_factory=dict)
    ring: Finished | None = None
    news: trio.Event = field(default_factory=trio.Event)

    def tell(self) -> None:
        self.news.set()
        self.news = trio.Event()


class Searches:
    """The searches of this servent that wait for answers."""

    def __init__(self, flood: Flood, new_guid: Callable[[], Guid]) -> None:
        self._flood = flood
        self._new_guid = new_guid
        self._running: dict[bytes, _Running] = {}
        self.bad_hits = 0
        """Hits and entries that were dropped because they broke a rule."""

    async def run(
        self,
        kind: QueryKind,
        text: str,
        *,
        rings: Sequence[int],
        timeout_s: float,
        is_enough: Callable[[Sequence[QueryHit]], bool] = lambda _hits: False,
    ) -> Outcome:
        """Search until it is enough, the horizon is done, or the time is over.

        Never raises for what the network does: a search that found nothing has no hits.
        Cancelling it leaves nothing behind here; answers still on their way are dropped.
        """
        guid = self._new_guid()
        running = self._running[guid] = _Running(kind, text)
        servents = 0
        is_complete = False
        deadline = trio.current_time() + timeout_s
        try:
            with trio.move_on_at(deadline):
                for ttl in rings:
                    is_complete = False
                    left_ms = max(0, int((deadline - trio.current_time()) * 1000))
                    query = Query(guid, ttl, 0, kind, text, MAX_RESULTS, left_ms)
                    if not self._flood(query):
                        is_complete = True
                        break
                    finished = await self._ring_end(running, ttl, is_enough)
                    if finished is None:
                        break
                    servents += finished.servents
                    is_complete = finished.is_complete
                    if not finished.servents and is_complete:
                        break  # the ring reached nobody new: this is the whole network
        finally:
            del self._running[guid]
        return Outcome(tuple(running.hits.values()), servents, is_complete)

    async def _ring_end(
        self, running: _Running, ttl: int, is_enough: Callable[[Sequence[QueryHit]], bool]
    ) -> Finished | None:
        """Wait for the end of a ring; None if the hits were enough before or at it."""
        while True:
            if is_enough(tuple(running.hits.values())):
                return None
            if running.ring is not None and running.ring.ttl == ttl:
                return running.ring
            await running.news.wait()

    def got_hit(self, hit: QueryHit, told_by: Address) -> None:
        """Take in a hit that came back to us over a link; keep the addresses worth a dial."""
        running = self._running.get(hit.guid)
        if running is None or len(running.hits) >= MAX_HITS:
            return
        try:
            check_hit(hit)
        except RemoteProtocolError as error:
            self.bad_hits += 1
            log.warning("hit dropped reason=%s", error)
            return
        good = tuple(e for e in hit.entries if is_answer(running.kind, running.text, e))
        self.bad_hits += len(hit.entries) - len(good)
        if good or running.kind is QueryKind.DIRECTORY:
            addresses = dialable(hit.provider.addresses, told_by)
            provider = PeerInfo(hit.provider.id, hit.provider.name, addresses)
            running.hits[provider.id] = replace(hit, provider=provider, entries=good)
            running.tell()

    def got_finished(self, finished: Finished) -> None:
        """Take in the end of a ring."""
        running = self._running.get(finished.guid)
        if running is not None:
            running.ring = finished
            running.tell()


def is_answer(kind: QueryKind, text: str, entry: Entry) -> bool:
    """Return whether an entry has a name we accept and is what the query asked for."""
    if check_path(entry.path) is not None:
        return False
    if kind is QueryKind.PATH:
        return entry.path == text
    if kind is QueryKind.DIRECTORY:
        return entry.path.rpartition("/")[0] == text
    if kind is QueryKind.ID:
        return entry.file_id.hex() == text
    *whole, last = words_of(text) or [""]
    words = words_of(entry.path)
    return all(word in words for word in whole) and any(word.startswith(last) for word in words)
