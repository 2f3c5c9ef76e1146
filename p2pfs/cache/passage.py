"""Contents that are larger than the whole cache: they pass through it.

Nothing is evicted of a content that fits, as long as somebody has it open. One that does not fit
could then not be read to its end; of it only the latest blocks are kept, in at most half of the
cache, and those before give their place on the disk back. Its bytes are therefore never left to be
read by others: the reader tests, before and after, whether they were there.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Iterable
from typing import Final

from p2pfs.allocation import KEEP_SIZE, PUNCH_HOLE, allocate
from p2pfs.errors import CacheFullError
from p2pfs.protocol import MIB, block_bytes_for, block_count_for

SHARE: Final = 2
"""Such a content takes at most the cache divided by this: others are read meanwhile."""

LEAST_BYTES: Final = 32 * MIB
LEAST_BLOCKS: Final = 4
"""With less, read-ahead would push out what the reader is just about to read."""

_at_once: Final = ctypes.PyDLL(None)
_lseek: Final = getattr(_at_once, "lseek64", None) or _at_once.lseek  # musl has the one alone
_lseek.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int]
_lseek.restype = ctypes.c_int64


class Passage:
    """The blocks that are kept of one such content, in the order in which they came."""

    def __init__(self, limit_bytes: int, size: int) -> None:
        self.limit_bytes = limit_bytes
        """Bytes of it that may be on the disk at once."""
        self._order: deque[int] = deque()
        self._losses = bytearray(block_count_for(size))

    @classmethod
    def through(cls, limit_bytes: int, size: int) -> Passage | None:
        """Return the passage of a content through a cache; None if it fits, or not even passes."""
        share = limit_bytes // SHARE
        if size <= limit_bytes or share < max(LEAST_BYTES, LEAST_BLOCKS * block_bytes_for(size)):
            return None
        return cls(share, size)

    def found(self, indexes: Iterable[int]) -> None:
        """Note the blocks that an earlier run left."""
        self._order.extend(indexes)

    def came(self, index: int) -> None:
        """Note a block that was written."""
        self._order.append(index)

    def oldest(self) -> int | None:
        """Return the block that is to go next, and count it as gone; None if there is none."""
        return self._order.popleft() if self._order else None

    def lost(self, index: int) -> None:
        """Note that a block is about to go."""
        self._losses[index] = (self._losses[index] + 1) % 256

    def losses(self, indexes: range) -> bytes:
        """Return a value that differs if one of these blocks has gone since and come again."""
        return bytes(self._losses[indexes.start : indexes.stop])


def punch(descriptor: int, offset: int, length: int) -> None:
    """Give back the room of a part of a file, which reads as zeros from then on.

    Raises:
        CacheFullError: this file system cannot.
    """
    try:
        allocate(descriptor, PUNCH_HOLE | KEEP_SIZE, offset, length)
    except OSError as error:
        raise CacheFullError(
            f"the content is larger than the cache, and cannot pass: {error.strerror}"
        ) from error


def size_at_hand(descriptor: int) -> int:
    """Return the size of an open file as the kernel knows it, or -1.

    Unlike os.fstat it keeps the interpreter: to wait for that again can take a reader longer
    than the read. The place in the file changes; nothing here uses it.
    """
    return int(_lseek(descriptor, 0, os.SEEK_END))
