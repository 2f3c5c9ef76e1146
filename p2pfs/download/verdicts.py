"""When the reads of one content fail, and with which error.

Theory. A read fails for one of four reasons: nothing has come for the stall time, it has waited
longer than anyone may, no source has its block any more, or the block cannot be kept. The first
three are checked again after every event. The error names the trouble of all sources together; it
says that no holder has the content only after a search for others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from p2pfs.download.patience import Patience
from p2pfs.download.pending_reads import PendingReads
from p2pfs.download.picker import Picker
from p2pfs.download.seeking import Seeking
from p2pfs.download.source import MANIFEST
from p2pfs.download.standing import Trouble, error_of, trouble_of
from p2pfs.errors import NotAskedError, P2pfsError, TransferError


class Verdicts:
    """The verdicts on the reads of one content that wait. Belongs to the trio thread."""

    def __init__(
        self, pending: PendingReads, picker: Picker, seeking: Seeking, stall_s: float
    ) -> None:
        """Judge the reads that are `pending`, by what `picker` knows of their sources."""
        self._pending = pending
        self._picker = picker
        self._seeking = seeking
        self._patience = Patience(stall_s)
        self.has_failed = False
        """Whether a read has failed since one began to wait."""
        self.last_error: str | None = None
        """Why the last failed read failed, or the last source; for people."""
        self._no_way = ""
        """Why the last source that could not be reached could not."""

    def begin(self, now: float) -> None:
        """Note that a read waits, and none did: all sources and a search are tried anew."""
        self._patience.begin(now)
        self._seeking.begin_anew(now)
        if self.has_failed:
            self._picker.forgive()
            self.has_failed = False

    def overdue_at(self, now: float) -> float:
        """Return when a read that begins to wait now gives up, whatever comes for others."""
        return self._patience.overdue_at(now)

    def progressed(self, now: float) -> None:
        """Note that something came."""
        self._patience.begin(now)

    def held_back(self, now: float) -> None:
        """Note that nothing is asked for because of our own limit."""
        self._patience.held_back(now)

    def is_held_back(self, now: float) -> bool:
        """Return whether our own limit held everything back a moment ago."""
        return self._patience.is_held_back(now)

    def source_failed(self, error: P2pfsError) -> None:
        """Note why a source did not give what it was asked for."""
        self.last_error = str(error)
        is_unreachable = trouble_of(error) is Trouble.UNREACHABLE
        self._no_way = str(error) if is_unreachable else ""

    def fail(self, error: TransferError, index: int | None = None) -> None:
        """Fail all reads, or only those that wait for block `index`."""
        self._pending.fail(error, index)
        self.has_failed = True
        self.last_error = str(error)

    def judge(self, now: float, demanded: Sequence[int]) -> bool:
        """Fail the reads that have waited long enough; return whether that ends all of them.

        `demanded` are the blocks that are waited for, with the manifest if that is missing.
        """
        error = self._why(demanded, now)
        is_stalled = now >= self._patience.stalled_at
        if is_stalled:
            self.fail(error)
        self._pending.fail_overdue(error, now)
        if self._seeking.count and not self._seeking.is_under_way:
            self._give_up_hope(demanded, error, is_late=now >= self._patience.out_of_reach_at)
        return is_stalled

    def _why(self, demanded: Sequence[int], now: float) -> TransferError:
        """Return why these blocks do not come, and nothing of holders that were not asked for."""
        trouble = self._picker.verdict(demanded, now)
        if trouble in (Trouble.STALE, Trouble.CORRUPT) and not self._seeking.count:
            if self._seeking.is_under_way:
                return error_of(Trouble.SILENT)
            return NotAskedError("no known holder gives it, and others may not be asked for now")
        return error_of(trouble, self._no_way if trouble is Trouble.UNREACHABLE else "")

    def _give_up_hope(
        self, demanded: Sequence[int], error: TransferError, *, is_late: bool
    ) -> None:
        """Fail the reads of blocks that no source has any more, after a search found no other."""
        for index in demanded:
            if self._picker.is_hopeless(index, is_late=is_late):
                self.fail(error, None if index == MANIFEST else index)

    def next_at(self, now: float) -> Iterator[float]:
        """Yield when to judge again, if nothing happens before."""
        if self._pending:
            yield self._pending.give_up_at()
            yield self._patience.stalled_at
            if self._patience.out_of_reach_at > now:
                yield self._patience.out_of_reach_at
