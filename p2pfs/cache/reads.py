"""Reads of one content, on any thread: from memory, from its file, or while it passes.

A read takes no lock. It looks at the states of the blocks before the bytes, and where blocks may
go meanwhile it looks again after them.
"""

from __future__ import annotations

from p2pfs.cache.bitmap import Bitmap
from p2pfs.cache.footprint import Footprint
from p2pfs.cache.passage import Passage
from p2pfs.cache.storage import Located, Storage
from p2pfs.protocol import block_bytes_for, block_range


class Reads:
    """The reads of one content."""

    def __init__(self, size: int, blocks: Bitmap, disk: Footprint, passage: Passage | None) -> None:
        """Read the `blocks` that are verified of a content of `size` bytes."""
        self._size = size
        self._blocks = blocks
        self._disk = disk
        self._passage = passage
        self._block_bytes = block_bytes_for(size)
        self.taken: bytes | None = None
        """All of a small content, verified, as long as the disk does not have it."""

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """Return the bytes at `offset`, or None if a block is missing or not yet verified.

        Fewer than `length` only at the end of the content.
        """
        length = min(length, self._size - offset)
        if length <= 0:
            return b""
        taken = self.taken
        if taken is not None:
            return taken[offset : offset + length]
        if self._passage is not None:
            return self._read_passing(self._passage, offset, length)
        storage = self._disk.storage
        if storage is None or not self._has_all(offset, length):
            return None
        return self.stored(storage, offset, length)

    def _read_passing(self, passage: Passage, offset: int, length: int) -> bytes | None:
        """Read blocks that may go meanwhile, and check afterwards that they have not."""
        blocks = block_range(self._size, offset, length)
        before = passage.losses(blocks)
        storage = self._disk.storage
        if storage is None or not self._has_all(offset, length):
            return None
        data = self.stored(storage, offset, length)
        is_intact = passage.losses(blocks) == before and self._has_all(offset, length)
        return data if is_intact else None

    def locate_nowait(self, offset: int, length: int) -> Located | bytes | None:
        """Return a descriptor that holds these bytes at the same offset; None as `read_nowait`.

        It is good for as long as a handle is held. Of a content that passes through the cache
        nothing stays, so the bytes themselves are returned; so are those that no file has yet.
        There must be such bytes, at least one. A program that cuts the file between this call and
        the reading, some microseconds, makes the reader take that for the end: no test here could
        close that gap, and only programs that may write in the cache directory can do it.
        """
        if self._passage is not None or self.taken is not None:
            return self.read_nowait(offset, length)
        storage = self._disk.storage
        if storage is None or not self._has_all(offset, length):
            return None
        if storage.is_cut():
            self._blocks.clear()
            return None
        return Located(storage.number)

    def _has_all(self, offset: int, length: int) -> bool:
        first, end = offset // self._block_bytes, (offset + length - 1) // self._block_bytes + 1
        return self._blocks.are_verified(first, end)

    def stored(self, storage: Storage, offset: int, length: int) -> bytes | None:
        """Read blocks that are there; those that turn out not to be are to be fetched again."""
        data = storage.read(offset, length)
        if data is None:
            for index in block_range(self._size, offset, length):
                self._blocks.set_missing(index)
        return data
