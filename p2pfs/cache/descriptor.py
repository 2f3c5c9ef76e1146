"""The open file of one content on the disk, and what goes wrong with it."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple, NewType

from p2pfs.errors import CacheFullError, TooManyFilesError, TransferError

Located = NewType("Located", int)
"""The descriptor of a cache file in which the bytes that were asked for lie at their own offset."""


class Remembered(NamedTuple):
    """What was verified of a content when its last handle went, and the file as we left it."""

    states: bytes
    mtime_ns: int
    ctime_ns: int
    inode: int


class Descriptor:
    """An open file, closed when nobody refers to it.

    A reader on another thread holds a reference through its `pread`, so the number cannot
    be closed and re-used for another content under it.
    """

    def __init__(self, path: str, flags: int) -> None:
        self.number = os.open(path, flags | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def remember(self, states: bytes) -> Remembered:
        """Return what was verified of the content, and the file as it is now."""
        status = os.fstat(self.number)
        return Remembered(states, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def cannot(verb: str, error: OSError) -> TransferError:
    """Return the error that tells why a cache file cannot be used."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TooManyFilesError(f"cannot {verb} a cache file: {error.strerror}")
    return CacheFullError(f"cannot {verb} a cache file: {error.strerror}")
