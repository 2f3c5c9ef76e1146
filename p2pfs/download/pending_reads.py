"""The reads of one content that wait for blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import trio

from p2pfs.errors import TransferError


@dataclass(eq=False, slots=True)
class Waiter:
    """One read that waits."""

    missing: set[int]
    give_up_at: float
    done: trio.Event = field(default_factory=trio.Event)
    error: TransferError | None = None
    """Why it failed, once it is done."""


class Waiting:
    """All reads that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._waiters: dict[Waiter, None] = {}

    def __bool__(self) -> bool:
        """Return whether any read waits."""
        return bool(self._waiters)

    def add(self, missing: set[int], give_up_at: float) -> Waiter:
        """Note a read that needs these blocks, and how long it may wait in all."""
        waiter = Waiter(missing, give_up_at)
        self._waiters[waiter] = None
        return waiter

    async def wait_for(self, waiter: Waiter) -> None:
        """Return when all its blocks are there; raises what it failed with."""
        try:
            await waiter.done.wait()
        finally:
            self._waiters.pop(waiter, None)
        if waiter.error is not None:
            raise waiter.error

    def demanded(self) -> list[int]:
        """Return the blocks that are waited for, those of the first reads first."""
        blocks = (index for waiter in self._waiters for index in sorted(waiter.missing))
        return list(dict.fromkeys(blocks))

    def give_up_at(self) -> float:
        """Return when the first read has waited long enough; infinity if none waits."""
        return min((waiter.give_up_at for waiter in self._waiters), default=math.inf)

    def block_is_there(self, index: int) -> None:
        """Wake those that waited for this block last."""
        for waiter in tuple(self._waiters):
            waiter.missing.discard(index)
            if not waiter.missing:
                del self._waiters[waiter]
                waiter.done.set()

    def fail(self, error: TransferError, index: int | None = None) -> None:
        """Fail all reads, or those that wait for block `index`."""
        for waiter in tuple(self._waiters):
            if index is None or index in waiter.missing:
                self._fail(waiter, error)

    def fail_overdue(self, error: TransferError, now: float) -> None:
        """Fail the reads that have waited long enough."""
        for waiter in tuple(self._waiters):
            if now >= waiter.give_up_at:
                self._fail(waiter, error)

    def _fail(self, waiter: Waiter, error: TransferError) -> None:
        del self._waiters[waiter]
        waiter.error = type(error)(*error.args)  # tracebacks are not to be shared
        waiter.done.set()
