"""The numbers by which files, and states of one file, differ without being read."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

_MAX_INT64: Final = 2**63 - 1
"""The largest number that the index and the protocol hold."""


_DEVICES: Final[dict[int, int]] = {}
"""The one object for each number of a device, so that not every file has its own."""

Identity = tuple[int, int]
"""Device and inode: they differ between two files or directories that exist at one time. An
inode alone may not: below one share there may be several file systems."""


class StatKey(Struct, frozen=True, gc=False):
    """The numbers by which two states of a file differ without being read.

    The garbage collector does not track it, as it tracks nothing that every file has one of:
    a collection that goes through a million objects stops every thread for a tenth of a second.
    """

    device: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def identity(self) -> Identity:
        """Which file it is, in whatever state."""
        return self.device, self.ino

    def has_bytes_of(self, other: StatKey) -> bool:
        """Return whether the bytes are the same, by file, size and time of the last write.

        The ctime says less: renaming, linking, chmod and attributes move it as well.
        """
        return (self.device, self.ino, self.size, self.mtime_ns) == (
            other.device,
            other.ino,
            other.size,
            other.mtime_ns,
        )

    def is_written_as(self, other: StatKey) -> bool:
        """Return whether size and time of the last write are the same, whichever files they are."""
        return (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


@dataclass(frozen=True, slots=True)
class Status:
    """The kernel's answer about a path, as far as it matters here."""

    key: StatKey
    mode: int
    uid: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_open_to_all(self) -> bool:
        """Whether every user of this machine may read it, as far as its own mode goes."""
        wanted = stat.S_IROTH | (stat.S_IXOTH if self.is_directory else 0)
        return self.is_link or self.mode & wanted == wanted


def status_of(result: os.stat_result) -> Status:
    """Return what the kernel says of a file, as far as it matters here."""
    return Status(key_of(result), result.st_mode, result.st_uid)


def key_of(result: os.stat_result) -> StatKey:
    """Return the state of a file as numbers that the index can hold."""
    device = result.st_dev & _MAX_INT64
    return StatKey(
        _DEVICES.setdefault(device, device),
        result.st_ino & _MAX_INT64,
        result.st_size,
        _clamped(result.st_mtime_ns),
        _clamped(result.st_ctime_ns),
    )


def _clamped(time_ns: int) -> int:
    """A file may be dated far beyond 2262, where nanoseconds leave 64 bits."""
    return max(-_MAX_INT64, min(time_ns, _MAX_INT64))
