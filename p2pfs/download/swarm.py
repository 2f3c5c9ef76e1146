"""One content from every peer that has it: read(offset, length) -> verified bytes.

A swarm knows the readers of one content, its sources and the transfers under way. It does
not know queries, links or names: its owner gives it an `Upstream`. The picker decides which
source is asked for which block; the swarm asks, waits, and reports the outcome to it.

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
task, a few blocks at a time (`verifying`). When a read fails, and why, is for `verdicts`. `seeking`
searches when no known source gives what a reader waits for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from p2pfs.cache import CachedFile, expects_nothing
from p2pfs.download.alarm import Alarm
from p2pfs.download.pending_reads import PendingReads
from p2pfs.download.picker import Picker
from p2pfs.download.readahead import ReadAhead
from p2pfs.download.reading import Reading
from p2pfs.download.seeking import Seeking
from p2pfs.download.source import MANIFEST, Request
from p2pfs.download.transfers import Transfers
from p2pfs.download.upstream import Upstream
from p2pfs.download.verdicts import Verdicts
from p2pfs.download.verifying import Verifier
from p2pfs.errors import (
    BugError,
    CorruptError,
    P2pfsError,
    ShutdownError,
    TransferError,
)
from p2pfs.protocol import MIB, Manifest, PeerInfo
from p2pfs.rates import Flow, RateLimit

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

        Requests keep to `limit`, which is shared with other swarms.
        """
        self._cached = cached
        self._upstream = upstream
        self._seeking = Seeking(upstream, cached.file_id, cached.size)
        self._picker = Picker(cached.size, upstream.own_id, limit)
        self._picker.add_sources(sources)
        self._ahead = ReadAhead(cached.size)
        self._reading = Reading(cached, self._ahead, self._wait_for, self.pump)
        self.locate_nowait, self.locate = self._reading.locate_nowait, self._reading.locate
        self.read = self._reading.read
        self._pending = PendingReads()
        self._verdicts = Verdicts(self._pending, self._picker, self._seeking, stall_timeout_s)
        self._verifier = Verifier(self, cached, stall_timeout_s)
        self.source_failed = self._verdicts.source_failed
        self._transfers = Transfers(
            self, upstream, self._picker, self._verifier, cached.file_id, stall_timeout_s
        )
        self._nursery: trio.Nursery | None = None
        self._clock: trio.abc.Clock | None = None
        self._alarm = Alarm()
        self._flow = Flow()
        self.taken: Counter[PeerInfo] = Counter()
        """The bytes that each source has given, right and kept."""
        self.has_heard = False
        """Whether anything has come, or only our own limit let nothing come."""
        self._end_reason: TransferError = ShutdownError("the servent is shutting down")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the transfers until cancelled; then every reader gets ShutdownError.

        A bug ends this swarm alone: then every reader gets BugError.
        """
        self._reading.begin()
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
            self._verdicts.fail(self._end_reason)

    def add_sources(self, sources: Sequence[PeerInfo], readers: Sequence[PeerInfo] = ()) -> None:
        """Use these sources too, from now on, and share the work with these readers."""
        self._picker.add_sources(sources)
        self._picker.add_sources(readers, are_readers=True)
        self.pump()

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be fetched with it any more."""
        return self._nursery is None and self._clock is not None

    @property
    def wants_sources(self) -> bool:
        """Whether something is on its way and further sources would make it quicker."""
        return bool(self._transfers) and not self._picker.has_enough(trio.current_time())

    def statistics(self) -> SwarmStatistics:
        """Return how things stand. From any thread."""
        now = self._clock.current_time() if self._clock else 0.0
        return SwarmStatistics(
            size=self._cached.size,
            done_bytes=self._cached.done_bytes,
            rate_bytes_s=self._flow.rate(now),
            sources=self._picker.source_count,
            state=self._state(now),
            last_error=self._verdicts.last_error,
            givers=self._picker.rates(now),
        )

    def _state(self, now: float) -> str:
        if self._seeking.is_under_way:
            return "searching"
        if self._pending or self._transfers or self._verdicts.is_held_back(now):
            return "reading"
        return "failed" if self._verdicts.has_failed else "idle"

    # Readers

    async def _wait_for(self, missing: set[int]) -> None:
        if self._nursery is None:
            raise type(self._end_reason)(*self._end_reason.args)
        now = trio.current_time()
        if not self._pending:
            self._verdicts.begin(now)
        read = self._pending.add(missing, self._verdicts.overdue_at(now))
        self._verifier.hurry()
        self.pump()
        await self._pending.wait_for(read)

    @property
    def is_urgent(self) -> bool:
        """Whether a reader waits."""
        return bool(self._pending)

    # Deciding

    def pump(self) -> None:
        """Decide anew which blocks to ask for, which reads to fail, and when to do so again."""
        if self._nursery is None:
            return
        now = trio.current_time()
        if not self._transfers and self._picker.is_held_back(now):
            self._verdicts.held_back(now)
            self.has_heard = True
        if self._pending and self._verdicts.judge(now, self._demanded()):
            self._stop()
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
        yield from self._cached.missing(self._ahead.wanted(now))

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

    def _stop(self) -> None:
        """End every batch: no read waits, and the next one begins afresh."""
        self._ahead.clear()
        self._transfers.cancel_all()

    def _set_alarm(self, now: float) -> None:
        times = [self._picker.next_deadline(now), *self._verdicts.next_at(now)]
        if self._pending and self._seeking.next_at > now:
            times.append(self._seeking.next_at)
        self._alarm.set(min(times))

    def _is_search_due(self, now: float) -> bool:
        if not self._pending or not self._seeking.is_due(now):
            return False
        return self._picker.is_starved(now, self._demanded())

    async def _search(self) -> None:
        found, refusal = await self._seeking.search()
        if refusal is not None:
            self._verdicts.last_error = str(refusal)
        self.add_sources(found)

    # Outcomes

    def progressed(self) -> None:
        """Note that a part of a block came."""
        self._heard(trio.current_time())

    def _heard(self, now: float) -> None:
        self._verdicts.progressed(now)
        self.has_heard = True

    def proved(self, manifest: Manifest) -> bool:
        """Take in the right manifest; return whether it has the announced size."""
        self._upstream.proved(manifest.file_id, manifest.size)
        if manifest.size == self._cached.size:
            return True
        # A source that announced another size has lied, and the content is there under its right
        # one. But our readers know this size, and must not be given a part for the whole.
        self._verdicts.fail(CorruptError("the announced size is not that of the content"))
        self._stop()
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
        self._verdicts.last_error = str(error)
        self._upstream.bad_block(request.source, self._cached.file_id)
        self._transfers.cancel(self._picker.lied(request.source))

    def not_kept(self, request: Request, error: TransferError) -> None:
        """Note that a block is right and the cache cannot take it."""
        self._ahead.clear()
        self._verdicts.fail(error, request.index)

    def verified(self, requests: Iterable[Request]) -> None:
        """Note that these requests are over."""
        self._transfers.end(requests)
