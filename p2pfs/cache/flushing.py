"""When the bitmap of one content is written, and when all of it is synced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from p2pfs.protocol import MIB
from p2pfs.threads import RunInThread

FLUSH_BYTES: Final = 8 * MIB
"""Bytes of one file at which its bitmap is written: a crash of ours may cost as many."""

FLUSH_S: Final = 5.0
"""Time after which fewer bytes are noted too, and all is synced: a crash of the machine may cost
the bytes that came in so long a time. Synced with each bitmap, a fast download took a tenth more
processor time, and the disk had no rest. A bitmap ahead of its blocks costs nothing: each claim is
verified."""


class Flushing:
    """Counts bytes that were written since the bitmap was. All but `wrote` belongs to trio."""

    def __init__(self) -> None:
        self.unflushed_bytes = 0
        """Written, and not in the bitmap on the disk."""
        self._wanted = trio.Event()
        self._due = trio.Event()

    def wrote(self, count: int) -> None:
        """Count bytes that were written; `schedule` comes after it."""
        self.unflushed_bytes += count

    def schedule(self) -> None:
        """Have `go_on` write the bitmap in time."""
        if self.unflushed_bytes:
            self._wanted.set()
        if self.unflushed_bytes >= FLUSH_BYTES:
            self._due.set()

    async def go_on(
        self, run_in_thread: RunInThread, flush: Callable[[], None], sync: Callable[[], None]
    ) -> None:
        """Call `flush` as bytes come in, and `sync` now and then, until cancelled."""
        self.schedule()  # for what one that was cancelled has left
        while True:
            await self._wanted.wait()
            with trio.move_on_after(FLUSH_S):
                while True:
                    await self._due.wait()
                    self._due = trio.Event()
                    await run_in_thread(flush)
            self._wanted = trio.Event()
            await run_in_thread(sync)
