"""The file of one content on the disk: its bytes at their own offsets, and its map behind them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple, NewType

from p2pfs.cache.key import Key
from p2pfs.cache.passage import size_at_hand
from p2pfs.errors import CacheFullError, TooManyFilesError, TransferError
from p2pfs.protocol import Manifest, manifest_bytes_for

PAGE_BYTES: Final = 4096
"""The unit by which file systems allocate, hence that of the accounts."""

FSTAT_EVERY_S: Final = 0.1
"""The time between two calls of fstat for one file: a reader gives up the interpreter for each, and
waits to have it back. In between, lseek tells the size without that."""

Located = NewType("Located", int)
"""The descriptor of a cache file in which the bytes that were asked for lie at their own offset."""

log = logging.getLogger(__name__)


class Remembered(NamedTuple):
    """The verified blocks of a content when its last handle went, and the file as we left it."""

    states: bytes
    mtime_ns: int
    ctime_ns: int
    inode: int


class Storage:
    """An open cache file, closed when nobody refers to it. Any thread may use it.

    A reader on another thread holds a reference through its `pread`, so the number cannot
    be closed and re-used for another content under it.
    """

    def __init__(self, path: str, key: Key, flags: int = 0) -> None:
        """Open the file; raises OSError."""
        self.number = os.open(path, flags | os.O_RDWR | os.O_CLOEXEC, 0o600)
        """The descriptor."""
        self.map_offset = whole_pages(key.size)
        """Where the manifest begins, and behind it the bitmap."""
        self._key = key
        self._manifest_bytes = manifest_bytes_for(key.size)
        self._look_at = 0.0

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def remember(self, states: bytes) -> Remembered:
        """Return these states of the blocks, and the times of the file as they are now."""
        status = os.fstat(self.number)
        return Remembered(states, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def manifest(self) -> Manifest:
        """Return the manifest as it was stored; raises RemoteProtocolError if it is damaged."""
        stored = os.pread(self.number, self._manifest_bytes, self.map_offset)
        return Manifest.from_bytes(stored, self._key.file_id)

    def bitmap(self, byte_count: int) -> bytes:
        """Return the bitmap as it was stored: a claim, not a proof."""
        return os.pread(self.number, byte_count, self.map_offset + self._manifest_bytes)

    def write_bitmap(self, bitmap: bytes) -> None:
        """Store which blocks are there; raises OSError."""
        os.pwrite(self.number, bitmap, self.map_offset + self._manifest_bytes)

    def sync(self) -> None:
        """Return when the disk has all of the file; raises OSError."""
        os.fdatasync(self.number)

    def mark_used(self) -> None:
        """Set the time by which eviction goes after a restart; raises OSError."""
        os.utime(self.number)

    def read(self, offset: int, length: int) -> bytes | None:
        """Return these bytes, or None if the disk does not give all of them."""
        try:
            data = os.pread(self.number, length, offset)
        except OSError as error:
            log.warning("cache: %s cannot be read: %s", self._key.name, error)
            return None
        return data if len(data) == length else None

    def write(self, data: bytes, offset: int, make_room: Callable[[], None]) -> None:
        """Write all of `data`; each time the disk is full, `make_room` is called first.

        Raises:
            CacheFullError: the disk fails, or `make_room` raised it.
            TooManyFilesError: because this process may not open more files.
        """
        left = memoryview(data)
        while left:
            try:
                count = os.pwrite(self.number, left, offset)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise cannot("write", error) from error
                make_room()
            else:
                left, offset = left[count:], offset + count

    def is_cut(self) -> bool:
        """Return whether somebody has cut the file; then it is as long again, with holes.

        A reader that is given the descriptor would take a file that is too short for the end.
        """
        now = time.monotonic()
        if now >= self._look_at:
            size = os.fstat(self.number).st_size
            self._look_at = now + FSTAT_EVERY_S
        else:
            size = size_at_hand(self.number)
        if size >= self.map_offset:
            return False
        with contextlib.suppress(OSError):  # else blocks that come anew would be thought cut too
            os.ftruncate(self.number, self.map_offset)
        return True


def whole_pages(count: int) -> int:
    """Return how many bytes so many take on the disk."""
    return -(-count // PAGE_BYTES) * PAGE_BYTES


def cannot(verb: str, error: OSError) -> TransferError:
    """Return the error that tells why a cache file cannot be used."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TooManyFilesError(f"cannot {verb} a cache file: {error.strerror}")
    return CacheFullError(f"cannot {verb} a cache file: {error.strerror}")
