"""One content from every peer that has it: read(offset, length) -> verified bytes.

A swarm knows the readers of one content, its sources and the transfers under way. It does
not know queries, links or names: its owner gives it an `Upstream`. What to ask of whom is
the picker's to decide; the swarm asks, waits, and tells it what came of it.

All state belongs to the trio thread and is changed between awaits. Whatever happens, be it a
read, some blocks or a deadline, ends in `pump`, which looks at everything anew. So no event
has to know what else it may set going, and nothing can be forgotten but a deadline: the
alarm keeps those.

Theory. A reader waits for blocks, and only for a bounded time: for each of them there is at every
moment a request on its way, a pause of a source that ends, a search under way or due, or an error
that is about to be raised. `pump` is where one of these follows from the others, and it runs after
every event, so a reader can be forgotten only by an alarm that was not set. A source is believed
about nothing: a block counts when it is verified and in the file, a size when the manifest gives
it. Whoever sends what is wrong loses all its requests at once, and they are asked of others. Who
cancels a read takes back nothing that others wait for, since requests belong to the swarm.

A block is one request of the picker's, and some requests to one source are one batch: they
cross the wire, and get a task, together. What arrives is verified and kept by one task,
`_keep`, a few blocks at a time.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from p2pfs.cache import CachedFile, Located, NotKeptError, expects_nothing
from p2pfs.download.alarm import Alarm
from p2pfs.download.pending_reads import Waiting
from p2pfs.download.picker import Picker
from p2pfs.download.readahead import ReadAhead
from p2pfs.download.source import BACK_OFF_S, MANIFEST, Request, Trouble, error_of, trouble_of
from p2pfs.download.transfers import Transfers
from p2pfs.download.upstream import Upstream
from p2pfs.download.verifying import Arrival, Arrivals
from p2pfs.errors import (
    BadBlockError,
    BugError,
    CorruptError,
    NotAskedError,
    P2pfsError,
    RemoteProtocolError,
    ShutdownError,
    TransferError,
)
from p2pfs.protocol import MIB, Manifest, PeerInfo, block_range
from p2pfs.protocol.flood import Urgency
from p2pfs.rates import Flow, RateLimit
from p2pfs.tasks import called

log = logging.getLogger(__name__)

T = TypeVar("T")

SEARCH_TIMEOUT_S: Final = 10.0
"""How long a search for sources may take; a flood is over by then."""

QUICK_BYTES_PER_S: Final = 64 * MIB
"""Sources as quick as this, those on a local line, give the surroundings of a random read in an
eighth of a second."""

OUT_OF_REACH_S: Final = 4.5
"""After this long a reader is told that no way leads to any source, if none ever has: each was
tried by then. A source that has given something is waited for as long as one that is silent."""

HELD_BACK_S: Final = 1.0
"""A swarm that our own limit has held back within this time is still at work."""

MAX_STALLS: Final = 10
"""Stall times after which a reader gives up though others are still being served."""


@dataclass(frozen=True, slots=True)
class SwarmStatistics:
    """A swarm at one instant."""

    size: int
    done_bytes: int
    """Bytes of the content in the cache."""
    rate_bytes_s: float
    """What arrived lately; 0 when nothing did for a while."""
    sources: int
    """Peers that may still be asked."""
    state: str
    """`searching`, `reading`, `failed` or `idle`."""
    last_error: str | None
    """Why the last failed read failed, or the last source; for people."""
    givers: Sequence[tuple[PeerInfo, float]]
    """The sources that give something, or are asked for it, and how many bytes a second."""


class Swarm:
    """The sources of one content, its readers, and the transfers between them."""

    def __init__(
        self,
        cached: CachedFile,
        sources: Sequence[PeerInfo],
        upstream: Upstream,
        stall_timeout_s: float,
        limit: RateLimit | None = None,
    ) -> None:
        """Serve reads of `cached`, which the owner opened and closes after `run` has ended.

        What is asked for keeps to `limit`, which is shared with other swarms.
        """
        self._cached = cached
        self._upstream = upstream
        self._stall_s = stall_timeout_s
        self._picker = Picker(cached.size, upstream.own_id, limit)
        self._picker.add_sources(sources)
        self._ahead = ReadAhead(cached.size)
        self._waiting = Waiting()
        self._arrivals = Arrivals()
        self._transfers = Transfers(
            self, upstream, self._picker, self._arrivals, cached.file_id, self._stall_s
        )
        self._manifest_known = trio.Event()
        if cached.manifest is not None:
            self._manifest_known.set()
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._clock: trio.abc.Clock | None = None
        self._progress_at = 0.0  # a block arrived, or the first reader came
        self._held_back_at = -math.inf  # nothing was asked for, because of our own limit
        self._alarm = Alarm()
        self._searches = 0  # since the last progress
        self._search_at = 0.0
        self._is_searching = False
        self._flow = Flow()
        self._has_failed = False
        self._last_error: str | None = None
        self._no_way = ""
        """Why the last source that could not be reached could not."""
        self._end_reason: TransferError = ShutdownError("the servent is shutting down")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the transfers until cancelled; then every reader gets ShutdownError.

        A bug ends this swarm alone: then every reader gets BugError.
        """
        self._token = trio.lowlevel.current_trio_token()
        self._clock = trio.lowlevel.current_clock()
        expects = self._cached.expects = self._expects
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._cached.keep_flushed)
                nursery.start_soon(self._keep)
                nursery.start_soon(self._alarm.run, self.pump)
                task_status.started()
                self.pump()
        except Exception:
            log.exception("a bug of ours ended the swarm of %s", self._cached.file_id.hex())
            self._end_reason = BugError("a bug of ours: see the log")
        finally:
            self._nursery = None
            if self._cached.expects is expects:  # else a later swarm of this content has begun
                self._cached.expects = expects_nothing
            self._release_readers(self._end_reason)

    def add_sources(self, sources: Sequence[PeerInfo], readers: Sequence[PeerInfo] = ()) -> None:
        """Use these sources too, from now on, and share the work with these readers."""
        self._picker.add_sources(sources)
        self._picker.add_sources(readers, are_readers=True)
        self.pump()

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be fetched with it any more."""
        return self._nursery is None and self._token is not None

    @property
    def wants_sources(self) -> bool:
        """Whether something is on its way and further sources would make it quicker."""
        return bool(self._transfers) and not self._picker.has_enough(trio.current_time())

    def locate_nowait(self, offset: int, length: int) -> Located | bytes | None:
        """Return what `locate` would if all is in the cache, else None. From any thread.

        Read-ahead follows the reads that are answered here.
        """
        found = self._cached.locate_nowait(offset, length)
        if found is not None and self._token is not None:
            blocks = block_range(self._cached.size, offset, length)
            if not self._ahead.tripwires.isdisjoint(blocks):
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(called, self._noticed, offset, length)
        return found

    async def locate(self, offset: int, length: int, *, ahead: bool = True) -> Located | bytes:
        """Return a descriptor that holds these bytes, fetching what is missing.

        They lie in it at the same offset until the content's last handle is closed, which the
        caller has one of. Of a content larger than the cache they are returned themselves.
        Unless `ahead` is false, what will probably be read next is fetched too. Otherwise as
        `read`.
        """
        return await self._available(offset, length, self._cached.locate_nowait, ahead=ahead)

    async def read(self, offset: int, length: int) -> bytes:
        """Return the bytes at `offset`, fetching what is missing.

        Fewer than `length` only at the end of the content, and never a byte that was not
        verified. Readers of one block share its batch; cancelling one disturbs no other.
        A read after a failed one tries everything anew.

        Raises:
            NoSourceError: no source could be reached until the stall time was over.
            StalledError: sources are there, and nothing arrived for the stall time.
            BusyError: the sources refused until the stall time was over.
            CorruptError: all sources sent wrong bytes, and a search found no other.
            StaleError: no source has it any more, and a search found no other.
            CacheFullError: a block cannot be kept.
            ShutdownError: it must be fetched, and `run` is not running.
        """
        length = min(length, self._cached.size - offset)
        if length <= 0:
            return b""
        return await self._available(offset, length, self._cached.read_nowait)

    async def _available(
        self,
        offset: int,
        length: int,
        look: Callable[[int, int], T | None],
        *,
        ahead: bool = True,
    ) -> T:
        """Return what `look` finds in the cache, once all of it is there."""
        blocks = block_range(self._cached.size, offset, length)
        if ahead:
            self._ahead.advance(offset, length, trio.current_time())
        while True:
            for index in blocks:
                if self._cached.claims(index):
                    await self._cached.prepare(index)
            found = look(offset, length)
            if found is not None:
                self.pump()
                return found
            missing = {index for index in blocks if not self._cached.has(index)}
            if missing:
                await self._wait_for(missing)
            else:  # it went and came again while it was read
                await trio.lowlevel.checkpoint()

    def statistics(self) -> SwarmStatistics:
        """Return how things stand. From any thread."""
        now = self._clock.current_time() if self._clock else 0.0
        return SwarmStatistics(
            size=self._cached.size,
            done_bytes=self._cached.done_bytes,
            rate_bytes_s=self._flow.rate(now),
            sources=self._picker.source_count,
            state=self._state(now),
            last_error=self._last_error,
            givers=self._picker.rates(now),
        )

    def _state(self, now: float) -> str:
        if self._is_searching:
            return "searching"
        if self._waiting or self._transfers or now - self._held_back_at < HELD_BACK_S:
            return "reading"
        return "failed" if self._has_failed else "idle"

    # Readers

    async def _wait_for(self, missing: set[int]) -> None:
        if self._nursery is None:
            raise type(self._end_reason)(*self._end_reason.args)
        now = trio.current_time()
        if not self._waiting:
            self._begin_waiting(now)
        waiter = self._waiting.add(missing, now + MAX_STALLS * self._stall_s)
        self._arrivals.hurry()
        self.pump()
        await self._waiting.wait_for(waiter)

    def _begin_waiting(self, now: float) -> None:
        self._progress_at = now
        self._searches, self._search_at = 0, now
        if self._has_failed:
            self._picker.forgive()
            self._has_failed = False

    def _noticed(self, offset: int, length: int) -> None:
        self._ahead.advance(offset, length, trio.current_time())
        self.pump()

    def _release_readers(self, error: TransferError, index: int | None = None) -> None:
        """Fail the readers, or only those that wait for block `index`."""
        self._waiting.fail(error, index)
        self._has_failed = True
        self._last_error = str(error)

    def _give_up(self, error: TransferError) -> None:
        """Fail every reader and end every batch: the next read begins afresh."""
        self._release_readers(error)
        self._ahead.clear()
        self._transfers.cancel_all()

    @property
    def is_urgent(self) -> bool:
        """Whether a reader waits."""
        return bool(self._waiting)

    # What is to be done now

    def pump(self) -> None:
        """Look at everything anew: what to ask for, whom to fail, when to look again."""
        if self._nursery is None:
            return
        now = trio.current_time()
        if not self._transfers and self._picker.is_held_back(now):
            self._held_back_at = now
        self._judge(now)
        requests = self._picker.next_requests(now, self._demanded(), self._wanted_ahead(now))
        for _batch in range(self._transfers.add(requests)):
            self._nursery.start_soon(self._transfers.run_next)
        if self._is_search_due(now):
            self._is_searching = True
            self._nursery.start_soon(self._search)
        self._set_alarm(now)

    def _demanded(self) -> list[int]:
        if not self._waiting:
            return []
        first = [] if self._manifest_known.is_set() else [MANIFEST]
        return first + self._waiting.demanded()

    def _wanted_ahead(self, now: float) -> Iterator[int]:
        if not self._manifest_known.is_set() and not self._waiting:
            return  # blocks that cannot be verified would only be held
        for index in self._ahead.wanted(now):
            if not self._cached.has(index) and not self._cached.claims(index):
                yield index

    def _expects(self, index: int) -> bool:
        """Return whether a block that is missing will be here soon, as another reader asks.

        If the block is assigned to us, it is fetched now for the peer that asks, even ahead of
        our own readers. Otherwise every reader downloads it from the source: of 96 MiB the
        source sent 300 to ten readers, in 31 s; now 116, in 12.5.
        """
        if not self._picker.is_ours(index):
            return False
        if self._ahead.wants(index, trio.current_time()) or index in self._demanded():
            return True
        is_promised = self._ahead.promise(index)
        if is_promised:
            self.pump()
        return is_promised

    def _judge(self, now: float) -> None:
        """Fail the readers that have waited long enough."""
        if not self._waiting:
            return
        demanded = self._demanded()
        error = self._why(demanded)
        if now >= self._stalled_at():
            self._give_up(error)
        self._waiting.fail_overdue(error, now)
        if self._searches and not self._is_searching:
            self._give_up_hope(demanded, error, is_late=now >= self._late_at())

    def _why(self, demanded: Sequence[int]) -> TransferError:
        """Return why these blocks do not come, and nothing of holders that were not asked for."""
        trouble = self._picker.verdict(demanded)
        if trouble in (Trouble.STALE, Trouble.CORRUPT) and not self._searches:
            return NotAskedError("no known holder gives it, and others may not be asked for now")
        return error_of(trouble, self._no_way if trouble is Trouble.UNREACHABLE else "")

    def _give_up_hope(
        self, demanded: Sequence[int], error: TransferError, *, is_late: bool
    ) -> None:
        """Fail the readers of what no source has any more, after a search found no other."""
        for index in demanded:
            if self._picker.is_hopeless(index, is_late=is_late):
                self._release_readers(error, None if index == MANIFEST else index)

    # Deadlines

    def _stalled_at(self) -> float:
        return max(self._progress_at, self._held_back_at) + self._stall_s

    def _late_at(self) -> float:
        return self._progress_at + OUT_OF_REACH_S

    def _set_alarm(self, now: float) -> None:
        alarm_at = self._picker.next_deadline(now)
        if self._waiting:
            if self._late_at() > now:
                alarm_at = min(alarm_at, self._late_at())
            alarm_at = min(alarm_at, self._waiting.give_up_at(), self._stalled_at())
            if self._search_at > now:
                alarm_at = min(alarm_at, self._search_at)
        self._alarm.set(alarm_at)

    # Searching

    def _is_search_due(self, now: float) -> bool:
        if self._is_searching or now < self._search_at or not self._waiting:
            return False
        return self._picker.is_starved(now, self._demanded())

    async def _search(self) -> None:
        found: Sequence[PeerInfo] = ()
        pause_s = BACK_OFF_S[min(self._searches, len(BACK_OFF_S) - 1)]
        # The first is what a reader waits for; the next only look for who has come since.
        urgency = Urgency.SOURCES if self._searches else Urgency.PERSON
        try:
            with trio.move_on_after(SEARCH_TIMEOUT_S):
                content = self._cached.file_id, self._cached.size
                found = await self._upstream.find_sources(*content, urgency)
            self._searches += 1
        except NotAskedError as error:
            pause_s = max(pause_s, error.wait_s)
            self._last_error = str(error)
        self._is_searching = False
        self._search_at = trio.current_time() + pause_s
        self.add_sources(found)

    # Keeping

    def progressed(self) -> None:
        """Note that a part of a block came."""
        self._progress_at = trio.current_time()

    async def _keep(self) -> None:
        """Verify and keep what arrives, until cancelled."""
        while True:
            await self._arrivals.wait()
            with trio.move_on_after(self._stall_s):
                await self._manifest_known.wait()
            while self._arrivals:
                some = self._arrivals.take()
                if self._manifest_known.is_set():  # else no reader waits for them any more
                    await self._keep_some(some)
                self._transfers.end(request for request, _ in some)
            self.pump()

    async def _keep_some(self, some: Sequence[Arrival]) -> None:
        outcomes = await self._cached.put([(request.index, data) for request, data in some])
        for (request, _), outcome in zip(some, outcomes, strict=True):
            self._kept(request, outcome)

    def _kept(self, request: Request, outcome: NotKeptError | None) -> None:
        if outcome is None:
            self._got(request)
        elif isinstance(outcome, BadBlockError):
            self._lied(request, outcome)
        else:
            self._ahead.clear()
            self._release_readers(outcome, request.index)

    def manifest_arrived(self, request: Request, data: bytes) -> None:
        """Take in what a source sent for the manifest."""
        try:
            self._keep_manifest(Manifest.from_bytes(data, self._cached.file_id))
        except RemoteProtocolError as error:
            self._lied(request, error)
        else:
            self._got(request)

    def source_failed(self, error: P2pfsError) -> None:
        """Note why a source did not give what it was asked for."""
        self._last_error = str(error)
        is_unreachable = trouble_of(error) is Trouble.UNREACHABLE
        self._no_way = str(error) if is_unreachable else ""

    def _keep_manifest(self, manifest: Manifest) -> None:
        self._upstream.proved(manifest.file_id, manifest.size)
        if manifest.size != self._cached.size:
            # Who said so has lied, and the content is there under its right size. But our readers
            # were told this one, and must not be given a part for the whole.
            self._give_up(CorruptError("the announced size is not that of the content"))
            return
        self._cached.put_manifest(manifest)
        self._manifest_known.set()

    def _got(self, request: Request) -> None:
        """Note that what was asked for is here, and right."""
        now = trio.current_time()
        self._flow.add(request.length, now)
        self._ahead.is_quick = self._flow.rate(now) > QUICK_BYTES_PER_S
        self._progress_at = now
        self._searches = 0
        self._ahead.arrived(request.index)
        self._waiting.block_is_there(request.index)
        self._transfers.cancel(self._picker.rivals(request))

    def _lied(self, request: Request, error: P2pfsError) -> None:
        if self._picker.has_lied(request.source):
            return  # its wrong blocks came together, and count once
        self._last_error = str(error)
        self._upstream.bad_block(request.source, self._cached.file_id)
        self._transfers.cancel(self._picker.lied(request.source))
