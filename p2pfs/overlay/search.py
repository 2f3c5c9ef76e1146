"""One query's life: flooded ring by ring, its hits gathered, its end known.

A search asks TTL 1 first and goes further only while that is not enough (expanding ring,
Lv et al., ICS 2002). DONE gives the exact end of each ring. A servent that owes it delays the
next ring by a measured round trip a hop and no longer; its answer counts until the search ends;
the last ring ends likewise, and is not complete then. Where a missing answer means that
a file is absent, the last ring lasts as long as the search. A hit is believed when its signature
and every name in it hold; entries that fail are dropped and counted one by one.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final, Self

import trio
from msgspec.structs import replace

from p2pfs.errors import NotAskedError, RemoteProtocolError
from p2pfs.protocol import (
    MAX_DEADLINE_MS,
    MAX_RESULTS,
    Address,
    Entry,
    FileId,
    Guid,
    PeerInfo,
    Query,
    QueryHit,
    QueryKind,
    ServentId,
    Terms,
    Wanted,
    are_in,
    check_hit,
    check_path,
    dialable,
    fits_query,
)
from p2pfs.protocol.flood import SEARCHES_PER_S, WIDE_TTL, Finished, Refused, Urgency

log = logging.getLogger(__name__)

MAX_HITS: Final = 500
"""Hits kept of one search, one a servent: more than anybody reads. When there are more, those
that came over one link make room for others': one neighbour that makes up servents must not
crowd out what all others found."""

MIN_HOP_S: Final = 0.1
MAX_HOP_S: Final = 0.5
"""What a ring may take for each of its hops, in bounds: the longest round trip to a neighbour for
the first, the mean of all for each further one, as the first copy comes by the quickest way. A
stopped servent holds up those behind it, and must hold up no others."""

LAST_RING: Final = 1.25
"""How many times its time the last ring may take, since an answer that comes after it does not
count. Each hit prolongs it to MAX_HOP_S from then."""

END_MARGIN_S: Final = 0.05
"""Others end a search so much earlier than we do, so that their last hits still count."""

Flood = Callable[[Query, Urgency], bool]
"""Send a query to every neighbour; False if there is none. Perhaps it is refused instead."""


class Hits(tuple[QueryHit, ...]):
    """The hits of a search: of each link one in turn."""

    busiest: frozenset[ServentId] = frozenset()
    """Whose hits came over the link that brought most files. One neighbour can make up as many
    servents and files as it likes: what they bring is no reason to look no further."""

    @classmethod
    def of(cls, by_link: Sequence[Sequence[QueryHit]]) -> Self:
        """Return the hits that came over each link."""
        rounds = itertools.zip_longest(*by_link)
        hits = cls(hit for some in rounds for hit in some if hit is not None)
        most = max(by_link, key=lambda some: sum(len(hit.entries) for hit in some), default=())
        hits.busiest = frozenset(ServentId(hit.provider.id) for hit in most)
        return hits


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a search."""

    hits: Hits
    servents: int
    """How many servents were asked, as they say."""
    is_complete: bool
    """Whether everybody within the last ring answered in time; not if there was nobody to ask."""
    is_cut: bool = False
    """Whether there were more hits than are kept. Then it is not complete either."""
    skipped: int = 0
    """Over how many links it did not go, as filters say that nothing is there."""
    refusals: int = 0
    """Over how many links its last ring did not go, as budgets are spent: later it might."""

    @property
    def has_asked(self) -> bool:
        """Whether anybody was asked, or was left out because of its filter."""
        return self.servents > 0 or self.skipped > 0


@dataclass(slots=True)
class _RunningSearch:
    """A search under way."""

    kind: QueryKind
    text: str
    wanted: Wanted
    quiet_s: float
    """How far apart hits may come that keep it going."""
    hits: dict[ServentId, tuple[Address, QueryHit]] = field(default_factory=dict)
    """By provider: the link that it came over, named by its far end, and the hit."""
    is_cut: bool = False
    is_complete: bool = False
    """Whether everybody within the ring that went out last has answered."""
    servents: int = 0
    skipped: int = 0
    """The most of any ring."""
    refusals: int = 0
    """Those of the ring that went out last."""
    ends: dict[int, Finished] = field(default_factory=dict)
    """The ends of these that have come, by TTL."""
    refused: Refused | None = None
    patience: trio.CancelScope = field(default_factory=trio.CancelScope)
    last_ring: trio.CancelScope | None = None
    """The time of the last ring, once that is on its way."""
    ends_at: float = -math.inf
    """When it ends, unless hits keep it going."""
    last_at: float = -math.inf
    """When it ends, whatever comes."""
    changed: trio.Event = field(default_factory=trio.Event)

    def is_answered_by(self, entry: Entry) -> bool:
        """Return whether an entry answers the query."""
        if self.kind is QueryKind.WORDS:
            return is_match(self.wanted, entry)
        return is_answer(self.kind, self.text, entry)

    def found(self) -> Hits:
        """Return the hits: of each link one, then of each another, and so on."""
        by_teller: dict[Address, list[QueryHit]] = {}
        for told_by, hit in self.hits.values():
            by_teller.setdefault(told_by, []).append(hit)
        return Hits.of(list(by_teller.values()))

    def put(self, hit: QueryHit, told_by: Address) -> bool:
        """Keep a hit; return whether there is room for it.

        What came first over one link stays that link's: honest neighbours pass on in a later ring
        what a liar has told us, and would be crowded out by it.
        """
        told_by, _ = self.hits.get(hit.provider.id, (told_by, hit))
        if len(self.hits) >= MAX_HITS and hit.provider.id not in self.hits:
            self.is_cut = True
            count = Counter(address for address, _ in self.hits.values())
            (busiest, most), *_rest = count.most_common(1)
            if count[told_by] + 1 >= most:
                return False
            last = next(i for i in reversed(self.hits) if self.hits[i][0] == busiest)
            del self.hits[last]
        self.hits[hit.provider.id] = (told_by, hit)
        return True

    def go_on(self, now: float) -> None:
        """Wait a while longer: a hit has come."""
        at = min(now + self.quiet_s, self.last_at)
        self.patience.deadline = max(self.patience.deadline, at)
        if self.last_ring is not None:
            self.last_ring.deadline = max(self.last_ring.deadline, now + MAX_HOP_S)

    def wake(self) -> None:
        """Wake the search: a hit, or the end of a ring, has come."""
        self.changed.set()
        self.changed = trio.Event()

    def outcome(self) -> Outcome:
        """Return what the search has found by now."""
        is_complete = self.is_complete and not self.is_cut
        told = (self.servents, is_complete, self.is_cut, self.skipped, self.refusals)
        return Outcome(self.found(), *told)


class Searches:
    """The searches of this servent that wait for answers."""

    def __init__(
        self,
        flood: Flood,
        new_guid: Callable[[], Guid],
        round_trips_s: Callable[[], Sequence[float]] = lambda: (),
        on_refused: Callable[[NotAskedError], object] = lambda _error: None,
        on_end: Callable[[Guid], object] = lambda _guid: None,
    ) -> None:
        """Prepare; `round_trips_s` returns how long each neighbour takes for an answer.

        `on_refused` is called when a person waits for a search that may not begin now, `on_end`
        when a search is over, whatever answers are still on their way.
        """
        self._on_end = on_end
        self._flood = flood
        self._new_guid = new_guid
        self._round_trips_s = round_trips_s
        self._on_refused = on_refused
        self._running: dict[bytes, _RunningSearch] = {}
        self.is_withheld: Callable[[FileId], bool] = lambda _file_id: False
        """Returns whether a content must not be named in a search: others would learn of it."""
        self.bad_hits = 0
        """Hits and entries that were dropped because they broke a rule."""

    async def run(
        self,
        kind: QueryKind,
        text: str,
        *,
        rings: Sequence[int],
        timeout_s: float,
        quiet_s: float = 0.0,
        is_enough: Callable[[Hits], bool] = lambda _hits: False,
        urgency: Urgency = Urgency.PERSON,
        terms: Terms | None = None,
        is_patient: bool = False,
    ) -> Outcome:
        """Search until it is enough, the horizon is done, or the time is over.

        Each ring ends when its own time is over, and then it is not complete. With `is_patient`
        the last one is waited for to the end of the search: the caller takes a missing answer for
        an absent file.

        With `quiet_s` it goes on after that time while hits come no further apart, for as long
        as others remember a query. A search that found nothing has no hits. What `fits_query`
        refuses is not asked for. Cancelling it leaves nothing behind here, and servents that still
        owe an answer get ENOUGH.

        Raises:
            NotAskedError: our budget of searches does not allow one as urgent now, or not one
                neighbour has taken it: nothing is known of what others have.
        """
        if not fits_query(text, terms) or self._names_withheld(kind, text):
            return Outcome(Hits(), 0, is_complete=False)
        guid, now = self._new_guid(), trio.current_time()
        running = self._running[guid] = _RunningSearch(kind, text, Wanted(text, terms), quiet_s)
        running.ends_at = running.last_at = now + timeout_s
        if quiet_s:
            running.last_at = now + MAX_DEADLINE_MS / 1000
        try:
            with trio.move_on_at(running.ends_at) as running.patience:
                for number, ttl in enumerate(rings, 1):
                    running.is_complete, running.refusals = False, 0
                    if not self._flood(_query(guid, ttl, running, terms), urgency):
                        break
                    further = len(rings) - number
                    if await self._run_ring(running, ttl, further, is_enough, is_patient):
                        break
        except NotAskedError as error:
            if urgency is Urgency.PERSON:
                self._on_refused(error)
            raise
        finally:
            del self._running[guid]
            self._on_end(guid)
        return running.outcome()

    async def _run_ring(
        self,
        running: _RunningSearch,
        ttl: int,
        further: int,
        is_enough: Callable[[Hits], bool],
        is_patient: bool,
    ) -> bool:
        """Wait for a ring, with so many to come; return whether the search is over then."""
        ends: Sequence[Finished] | None = ()
        ends_at = self._ring_ends_at(ttl, further, running.ends_at)
        with trio.move_on_at(math.inf if is_patient and not further else ends_at) as scope:
            running.last_ring = None if further else scope
            ends = await self._ring_end(running, ttl, is_enough)
        if ends is None:
            return True
        if not ends:
            return False  # its time is over, though answers are owed
        running.refusals = sum(one.refusals for one in ends)
        if running.refusals and not running.servents:
            raise _not_asked(1 / SEARCHES_PER_S)
        running.is_complete = all(one.is_complete for one in ends)
        # A complete ring that reached nobody new was the whole network.
        return running.is_complete and not any(one.servents or one.skipped for one in ends)

    def _names_withheld(self, kind: QueryKind, text: str) -> bool:
        if kind is not QueryKind.ID:
            return False
        try:
            return self.is_withheld(FileId(bytes.fromhex(text)))
        except ValueError:  # it names no content
            return False

    def _ring_ends_at(self, ttl: int, further: int, ends_at: float) -> float:
        """Return until when a ring that begins now is waited for.

        It leaves as much time to each of the further ones. On a machine that has too much to do,
        the search may be over by now.
        """
        now = trio.current_time()
        hops_s = [min(max(one, MIN_HOP_S), MAX_HOP_S) for one in self._round_trips_s()]
        slowest_s, mean_s = max(hops_s, default=MIN_HOP_S), fmean(hops_s or [MIN_HOP_S])
        ring_s = slowest_s + (ttl - 1) * mean_s
        if not further:
            return now + ring_s * LAST_RING
        return now + min(ring_s, (ends_at - now) / (further + 1))

    async def _ring_end(
        self, running: _RunningSearch, ttl: int, is_enough: Callable[[Hits], bool]
    ) -> Sequence[Finished] | None:
        """Wait for the ends of a ring's parts; None if the hits were enough before or at them."""
        while True:
            if running.refused is not None:
                raise _not_asked(running.refused.wait_s)
            if is_enough(running.found()):
                return None
            if running.ends.keys() >= {*_parts(ttl)}:
                return [running.ends[one] for one in _parts(ttl)]
            await running.changed.wait()

    def got_hit(self, hit: QueryHit, told_by: Address) -> None:
        """Take in a hit that came back to us over a link; keep the addresses worth a dial."""
        running = self._running.get(hit.guid)
        if running is None:
            return
        try:
            check_hit(hit)
        except RemoteProtocolError as error:
            self.bad_hits += 1
            log.info("hit dropped told_by=%s reason=%s", told_by, error)
            return
        good = tuple(entry for entry in hit.entries if running.is_answered_by(entry))
        self.bad_hits += len(hit.entries) - len(good)
        if good or running.kind is QueryKind.DIRECTORY:
            addresses = dialable(hit.provider.addresses, told_by)
            provider = PeerInfo(hit.provider.id, hit.provider.name, addresses)
            if running.put(replace(hit, provider=provider, entries=good), told_by):
                running.wake()
            running.go_on(trio.current_time())

    def got_finished(self, finished: Finished) -> None:
        """Take in the end of a ring."""
        running = self._running.get(finished.guid)
        if running is not None:
            running.ends[finished.ttl] = finished
            running.servents += finished.servents
            running.skipped = max(running.skipped, finished.skipped)
            running.wake()

    def got_refused(self, refused: Refused) -> None:
        """Take in that a search was not begun."""
        running = self._running.get(refused.guid)
        if running is not None:
            running.refused = refused
            running.wake()


def _parts(ttl: int) -> Sequence[int]:
    """Return the TTLs that reach everybody within a ring: a far one goes over some links alone."""
    return (ttl,) if ttl <= WIDE_TTL else (WIDE_TTL, ttl)


def _query(guid: Guid, ttl: int, running: _RunningSearch, terms: Terms | None) -> Query:
    left_s = running.last_at - END_MARGIN_S - trio.current_time()
    left_ms = max(0, int(left_s * 1000))
    return Query(guid, ttl, 0, running.kind, running.text, MAX_RESULTS, left_ms, terms)


def _not_asked(wait_s: float) -> NotAskedError:
    return NotAskedError(f"too many searches: try again in {math.ceil(wait_s)} s", wait_s)


def is_match(wanted: Wanted, entry: Entry) -> bool:
    """Return whether an entry is a file that a keyword query finds, under a name we accept."""
    is_named = not entry.is_directory and check_path(entry.path) is None
    return is_named and wanted.accepts(entry.path, entry.size)


def is_answer(kind: QueryKind, text: str, entry: Entry) -> bool:
    """Return whether an entry has a name we accept and answers the query."""
    if check_path(entry.path) is not None:
        return False
    if kind is QueryKind.PATH:
        return entry.path == text
    if kind is QueryKind.DIRECTORY:
        return entry.path.rpartition("/")[0] == text
    if kind is QueryKind.ID:
        return entry.file_id.hex() == text
    return is_match(Wanted(text), entry)


def answers_in(directory: str, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return those of some entries that answer a query for a directory, as `is_answer` has it."""
    if are_in(directory, [entry.path for entry in entries]):
        return entries
    return [one for one in entries if is_answer(QueryKind.DIRECTORY, directory, one)]
