"""One content from every peer that has it: read(offset, length) -> verified bytes.

A swarm knows the readers of one content, its sources and the transfers under way. It does
not know queries, links or names: its owner gives it an `Upstream`. What to ask of whom is
the picker's to decide; the swarm asks, waits, and tells it what came of it.

All state belongs to the trio thread and is changed between awaits. Whatever happens, be it a
read, some blocks or a deadline, ends in `pump`, which decides everything anew. So no event
has to know what else it may set going, and nothing can be forgotten but a deadline: the
alarm keeps those.

Theory. A reader waits for blocks, and only for a bounded time: for each of them there is at every
moment a request on its way, a pause of a source that ends, a search under way or due, or an error
that is about to be raised. `pump` is where one of these follows from the others, and it runs after
every event, so a reader can be forgotten only by an alarm that was not set. A source is believed
about nothing: a block counts when it is verified and in the file, a size when the manifest gives
it. A source that sends a wrong block loses all its requests at once, and others get them. To
cancel a read takes back nothing that others wait for, since requests belong to the swarm.

A block is one request of the picker's, and some requests to one source are one batch: they
cross the wire, and get a task, together (`transfers`). What arrives is verified and kept by one
task, a few blocks at a time (`verifying`). How long is too long is `patience`, and `seeking`
searches when no known source gives what a reader waits for.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from p2pfs.cache import CachedFile, Located, expects_nothing
from p2pfs.download.alarm import Alarm
from p2pfs.download.patience import Patience
from p2pfs.download.pending_reads import PendingReads
from p2pfs.download.picker import Picker
from p2pfs.download.readahead import ReadAhead
from p2pfs.download.seeking import Seeking
from p2pfs.download.source import MANIFEST, Request, Trouble, error_of, trouble_of
from p2pfs.download.transfers import Transfers
from p2pfs.download.upstream import Upstream
from p2pfs.download.verifying import Verifier
from p2pfs.errors import (
    BugError,
    CorruptError,
    NotAskedError,
    P2pfsError,
    ShutdownError,
    TransferError,
)
from p2pfs.protocol import MIB, Manifest, PeerInfo, block_range
from p2pfs.rates import Flow, RateLimit
from p2pfs.tasks import called

log = logging.getLogger(__name__)

T = TypeVar("T")

QUICK_BYTES_PER_S: Final = 64 * MIB
"""Sources as quick as this, those on a local line, give the surroundings of a random read in an
eighth of a second."""


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
        self._patience = Patience(stall_timeout_s)
        self._seeking = Seeking(upstream, cached.file_id, cached.size)
        self._picker = Picker(cached.size, upstream.own_id, limit)
        self._picker.add_sources(sources)
        self._ahead = ReadAhead(cached.size)
        self._pending = PendingReads()
        self._verifier = Verifier(self, cached, stall_timeout_s)
        self._transfers = Transfers(
            self, upstream, self._picker, self._verifier, cached.file_id, stall_timeout_s
        )
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._clock: trio.abc.Clock | None = None
        self._alarm = Alarm()
        self._flow = Flow()
        self.taken: Counter[PeerInfo] = Counter()
        """The bytes that each source has given, right and kept."""
        self.has_heard = False
        """Whether anything has come, or only our own limit let nothing come."""
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
                nursery.start_soon(self._verifier.run)
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
            self._fail_readers(self._end_reason)

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
        """Return a descriptor that holds these bytes, fetching the missing blocks.

        They lie in it at the same offset until the content's last handle is closed, which the
        caller has one of. Of a content larger than the cache they are returned themselves.
        Unless `ahead` is false, the blocks that will probably be read next are fetched too.

        Never a byte that was not verified. Readers of one block share its batch; cancelling one
        disturbs no other. A read after a failed one tries everything anew.

        Raises:
            NoSourceError: no way ever led to any source: after `patience.OUT_OF_REACH_S`. If one
                has given something, or none is known, after the stall time.
            StalledError: sources are there, and nothing arrived for the stall time.
            BusyError: the sources refused until the stall time was over.
            CorruptError: all sources sent wrong bytes, and a search found no other; or the size
                that was announced is not that of the content.
            StaleError: no source has it any more, and a search found no other.
            NotAskedError: no known source gives it, and no search may begin, until the stall time
                was over.
            CacheFullError: a block cannot be kept.
            TooManyFilesError: this process may not open more files: the cache could not, or no
                link could be opened until the stall time was over.
            ShutdownError: it must be fetched, and `run` is not running.
            BugError: it must be fetched, and a bug of ours has ended `run`.
        """
        return await self._available(offset, length, self._cached.locate_nowait, ahead=ahead)

    async def read(self, offset: int, length: int) -> bytes:
        """Return the bytes at `offset`, fetching the missing blocks.

        Fewer than `length` only at the end of the content. Otherwise as `locate`.
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
        if self._seeking.is_under_way:
            return "searching"
        if self._pending or self._transfers or self._patience.is_held_back(now):
            return "reading"
        return "failed" if self._has_failed else "idle"

    # Readers

    async def _wait_for(self, missing: set[int]) -> None:
        if self._nursery is None:
            raise type(self._end_reason)(*self._end_reason.args)
        now = trio.current_time()
        if not self._pending:
            self._begin_waiting(now)
        read = self._pending.add(missing, self._patience.overdue_at(now))
        self._verifier.hurry()
        self.pump()
        await self._pending.wait_for(read)

    def _begin_waiting(self, now: float) -> None:
        self._patience.begin(now)
        self._seeking.begin_anew(now)
        if self._has_failed:
            self._picker.forgive()
            self._has_failed = False

    def _noticed(self, offset: int, length: int) -> None:
        self._ahead.advance(offset, length, trio.current_time())
        self.pump()

    def _fail_readers(self, error: TransferError, index: int | None = None) -> None:
        """Fail the readers, or only those that wait for block `index`."""
        self._pending.fail(error, index)
        self._has_failed = True
        self._last_error = str(error)

    def _give_up(self, error: TransferError) -> None:
        """Fail every reader and end every batch: the next read begins afresh."""
        self._fail_readers(error)
        self._ahead.clear()
        self._transfers.cancel_all()

    @property
    def is_urgent(self) -> bool:
        """Whether a reader waits."""
        return bool(self._pending)

    # What is to be done now

    def pump(self) -> None:
        """Decide anew which blocks to ask for, which reads to fail, and when to do so again."""
        if self._nursery is None:
            return
        now = trio.current_time()
        if not self._transfers and self._picker.is_held_back(now):
            self._patience.held_back(now)
            self.has_heard = True
        self._judge(now)
        requests = self._picker.next_requests(now, self._demanded(), self._wanted_ahead(now))
        for _batch in range(self._transfers.add(requests)):
            self._nursery.start_soon(self._transfers.run_next)
        if self._is_search_due(now):
            self._seeking.is_under_way = True
            self._nursery.start_soon(self._search)
        self._set_alarm(now)

    def _demanded(self) -> list[int]:
        if not self._pending:
            return []
        first = [] if self._verifier.has_manifest else [MANIFEST]
        return first + self._pending.demanded()

    def _wanted_ahead(self, now: float) -> Iterator[int]:
        if not self._verifier.has_manifest and not self._pending:
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
        if not self._pending:
            return
        demanded = self._demanded()
        error = self._why(demanded)
        if now >= self._patience.stalled_at:
            self._give_up(error)
        self._pending.fail_overdue(error, now)
        if self._seeking.count and not self._seeking.is_under_way:
            self._give_up_hope(demanded, error, is_late=now >= self._patience.out_of_reach_at)

    def _why(self, demanded: Sequence[int]) -> TransferError:
        """Return why these blocks do not come, and nothing of holders that were not asked for."""
        trouble = self._picker.verdict(demanded)
        if trouble in (Trouble.STALE, Trouble.CORRUPT) and not self._seeking.count:
            return NotAskedError("no known holder gives it, and others may not be asked for now")
        return error_of(trouble, self._no_way if trouble is Trouble.UNREACHABLE else "")

    def _give_up_hope(
        self, demanded: Sequence[int], error: TransferError, *, is_late: bool
    ) -> None:
        """Fail the reads of blocks that no source has any more, after a search found no other."""
        for index in demanded:
            if self._picker.is_hopeless(index, is_late=is_late):
                self._fail_readers(error, None if index == MANIFEST else index)

    def _set_alarm(self, now: float) -> None:
        times = [self._picker.next_deadline(now)]
        if self._pending:
            times += [self._pending.give_up_at(), self._patience.stalled_at]
            times += [
                time
                for time in (self._patience.out_of_reach_at, self._seeking.next_at)
                if time > now
            ]
        self._alarm.set(min(times))

    def _is_search_due(self, now: float) -> bool:
        if not self._pending or not self._seeking.is_due(now):
            return False
        return self._picker.is_starved(now, self._demanded())

    async def _search(self) -> None:
        found, refusal = await self._seeking.search()
        if refusal is not None:
            self._last_error = str(refusal)
        self.add_sources(found)

    # What came

    def progressed(self) -> None:
        """Note that a part of a block came."""
        self._heard(trio.current_time())

    def _heard(self, now: float) -> None:
        self._patience.begin(now)
        self.has_heard = True

    def source_failed(self, error: P2pfsError) -> None:
        """Note why a source did not give what it was asked for."""
        self._last_error = str(error)
        is_unreachable = trouble_of(error) is Trouble.UNREACHABLE
        self._no_way = str(error) if is_unreachable else ""

    def proved(self, manifest: Manifest) -> bool:
        """Take in the right manifest; return whether it has the size that readers were told."""
        self._upstream.proved(manifest.file_id, manifest.size)
        if manifest.size == self._cached.size:
            return True
        # A source that announced another size has lied, and the content is there under its right
        # one. But our readers were told this size, and must not be given a part for the whole.
        self._give_up(CorruptError("the announced size is not that of the content"))
        return False

    def got(self, request: Request) -> None:
        """Note that a block, or the manifest, is verified and in the cache."""
        now = trio.current_time()
        self._flow.add(request.length, now)
        if request.index != MANIFEST:
            self.taken[request.source] += request.length
        self._ahead.is_quick = self._flow.rate(now) > QUICK_BYTES_PER_S
        self._heard(now)
        self._seeking.progressed()
        self._ahead.arrived(request.index)
        self._pending.block_is_there(request.index)
        self._transfers.cancel(self._picker.rivals(request))

    def lied(self, request: Request, error: P2pfsError) -> None:
        """Note that a source gave wrong bytes: it loses all its requests at once."""
        if self._picker.has_lied(request.source):
            return  # its wrong blocks came together, and count once
        self._last_error = str(error)
        self._upstream.bad_block(request.source, self._cached.file_id)
        self._transfers.cancel(self._picker.lied(request.source))

    def not_kept(self, request: Request, error: TransferError) -> None:
        """Note that a block is right and the cache cannot take it."""
        self._ahead.clear()
        self._fail_readers(error, request.index)

    def verified(self, requests: Iterable[Request]) -> None:
        """Note that these requests are over."""
        self._transfers.end(requests)
