"""Small contents that readers have from memory, and the disk a moment later.

To make a file takes the processor some 30 us, and 500 where many were removed a moment ago (ext4
passes over their inodes for a minute): as much as all else that a small content costs. So nobody
waits for it. What has come is verified and read at once, and is written when no more comes.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Final

import trio

from p2pfs.cache import FLUSH_S, BlockCache, CachedFile
from p2pfs.protocol import MIB
from p2pfs.tasks import Tasks

MAX_BEHIND_BYTES: Final = 16 * MIB
MAX_BEHIND: Final = 2_048
"""Contents that are in memory at once. Further ones are written before they are read."""

BEHIND_ENOUGH: Final = 3 / 4
"""The part of these at which writing begins, though more comes: that has room meanwhile."""

NO_MORE_S: Final = 0.2
"""The time without a further content after which writing begins."""

WRITTEN_AT_ONCE: Final = 64
"""Contents written in one hop to a thread."""

ENDING_S: Final = 2.0
"""How long a servent that ends goes on writing those that are left."""


class WriteBehind:
    """The contents that are yet to be written, each with a handle. For trio's thread."""

    def __init__(self, cache: BlockCache, tasks: Tasks) -> None:
        """Write in a task of the owner's."""
        self._cache = cache
        self._tasks = tasks
        self._files: deque[CachedFile] = deque()
        self._bytes = 0
        self._came = 0
        self._is_enough = trio.Event()
        self._is_writing = False
        self._turn = trio.Lock()

    async def keep(self, file: CachedFile, data: bytes) -> None:
        """Have a content kept: when this returns, readers have it if it is right.

        When cancelled, it is kept or not, but whole.

        Raises:
            BadBlockError: it is not what was announced.
        """
        if not self.take(file, data):
            await self._write_those_here()
            await file.put([(0, data)])

    def take(self, file: CachedFile, data: bytes) -> bool:
        """Have a content kept likewise, if that needs no waiting; return whether it did not."""
        is_taken = self._tasks.are_running and self._has_room and file.take(data)
        if is_taken:
            self._add(file)
        return is_taken

    @property
    def _has_room(self) -> bool:
        return self._bytes < MAX_BEHIND_BYTES and len(self._files) < MAX_BEHIND

    def _add(self, file: CachedFile) -> None:
        self._cache.retain(file)  # its reader may go
        self._files.append(file)
        self._bytes += file.size
        self._came += 1
        if max(self._bytes / MAX_BEHIND_BYTES, len(self._files) / MAX_BEHIND) >= BEHIND_ENOUGH:
            self._is_enough.set()
        if not self._is_writing:
            self._tasks.start(self._write_all)
            self._is_writing = True

    async def _write_all(self) -> None:
        try:
            while self._files:
                await self._wait()
                await self._write_those_here()
        finally:
            self._is_writing = False
            with trio.move_on_after(ENDING_S, shield=True):
                await self._write_those_here()

    async def _wait(self) -> None:
        """Wait until no more comes, or enough is there, or the first has waited for long."""
        self._is_enough = trio.Event()
        with trio.move_on_after(FLUSH_S):
            came = -1
            while came != self._came and not self._is_enough.is_set():
                came = self._came
                with trio.move_on_after(NO_MORE_S):
                    await self._is_enough.wait()

    async def _write_those_here(self) -> None:
        """Write those that are here now, each whole even if this is cancelled."""
        count = len(self._files)
        async with self._turn:
            while count > 0 and self._files:
                some = list(itertools.islice(self._files, WRITTEN_AT_ONCE))
                await self._cache.write_taken(some)
                for file in some:
                    self._files.popleft()
                    self._bytes -= file.size
                count -= len(some)
