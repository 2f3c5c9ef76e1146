"""The reads of one content that wait for blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import trio

from p2pfs.errors import TransferError


@dataclass(eq=False, slots=True)
class PendingRead:
    """One read that waits."""

    missing: set[int]
    give_up_at: float
    done: trio.Event = field(default_factory=trio.Event)
    error: TransferError | None = None
    """Why it failed, once it is done."""


class PendingReads:
    """All reads that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._reads: dict[PendingRead, None] = {}

    def __bool__(self) -> bool:
        """Return whether any read waits."""
        return bool(self._reads)

    def add(self, missing: set[int], give_up_at: float) -> PendingRead:
        """Note a read that needs these blocks, and how long it may wait in all."""
        read = PendingRead(missing, give_up_at)
        self._reads[read] = None
        return read

    async def wait_for(self, read: PendingRead) -> None:
        """Return when all its blocks are there; raise the error that it failed with."""
        try:
            await read.done.wait()
        finally:
            self._reads.pop(read, None)
        if read.error is not None:
            raise read.error

    def demanded(self) -> list[int]:
        """Return the blocks that are waited for, those of the first reads first."""
        blocks = (index for read in self._reads for index in sorted(read.missing))
        return list(dict.fromkeys(blocks))

    def give_up_at(self) -> float:
        """Return when the first read has waited long enough; infinity if none waits."""
        return min((read.give_up_at for read in self._reads), default=math.inf)

    def block_is_there(self, index: int) -> None:
        """Wake those that waited for this block last."""
        for read in tuple(self._reads):
            read.missing.discard(index)
            if not read.missing:
                del self._reads[read]
                read.done.set()

    def fail(self, error: TransferError, index: int | None = None) -> None:
        """Fail all reads, or those that wait for block `index`."""
        for read in tuple(self._reads):
            if index is None or index in read.missing:
                self._fail(read, error)

    def fail_overdue(self, error: TransferError, now: float) -> None:
        """Fail the reads that have waited long enough."""
        for read in tuple(self._reads):
            if now >= read.give_up_at:
                self._fail(read, error)

    def _fail(self, read: PendingRead, error: TransferError) -> None:
        del self._reads[read]
        read.error = type(error)(*error.args)  # tracebacks are not to be shared
        read.done.set()
