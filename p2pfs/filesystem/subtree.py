"""The interface of each part of the tree: the questions that it must answer.

`shared/` answers more, since it alone can be changed: see `p2pfs.filesystem.shared`.
Paths are relative to the sub-tree; its own root is the empty path. Every call is made on a
kernel thread, many at once, and raises `OSError` with an errno.
"""

from __future__ import annotations

import enum
import errno
from typing import NamedTuple, Protocol, TypeAlias

from p2pfs.filesystem.answers import NowOrLater, Stretch, os_error
from p2pfs.filesystem.attributes import Attributes, Listed


class Moment(enum.Enum):
    """A time that the caller of `utimens` leaves to us."""

    NOW = enum.auto()
    OMIT = enum.auto()


Time: TypeAlias = int | Moment
"""Nanoseconds since 1970, or one of the above."""


class Ownership(NamedTuple):
    """The owner of a new file."""

    uid: int
    gid: int


class OpenFile(Protocol):
    """A file that somebody has open. `release` is called exactly once, and last."""

    @property
    def keep_cache(self) -> bool:
        """Whether the kernel may keep the pages that it has cached of this path."""
        ...

    @property
    def direct_io(self) -> bool:
        """Whether the kernel must not cache the bytes, nor believe the size that it was given."""
        ...

    @property
    def flushes(self) -> bool:
        """Whether `flush` may have something to report."""
        ...

    def getattr(self) -> Attributes:
        """Return the attributes of the file that was opened, even if another has its path now."""
        ...

    def read(self, size: int, offset: int) -> NowOrLater[bytes | Stretch]:
        """Return exactly `size` bytes, or where they lie; fewer only at the end of the file."""
        ...

    def write(self, data: bytes, offset: int) -> int:
        """Write at `offset` and return how many bytes were taken."""
        ...

    def truncate(self, size: int) -> None:
        """Cut or extend the file."""
        ...

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """Reserve room for a part of the file, or give it back: fallocate(2) says how."""
        ...

    def flush(self) -> None:
        """Report errors that are not reported yet: one of perhaps several descriptors closes."""
        ...

    def fsync(self, *, data_only: bool) -> None:
        """Return when all that was written is on the disk."""
        ...

    def release(self) -> None:
        """Let go of everything that the open file holds."""
        ...


class ReadOnlyFile:
    """The part of `OpenFile` that all read-only files have in common."""

    keep_cache = False
    direct_io = False
    flushes = False
    path: str

    def write(self, data: bytes, offset: int) -> int:  # noqa: ARG002 - the signature is OpenFile's
        """Refuse: it was opened for reading."""
        raise os_error(errno.EBADF, self.path)

    def truncate(self, size: int) -> None:  # noqa: ARG002 - the signature is OpenFile's
        """Refuse: it was opened for reading."""
        raise os_error(errno.EBADF, self.path)

    def allocate(self, mode: int, offset: int, length: int) -> None:  # noqa: ARG002 - likewise
        """Refuse: it was opened for reading."""
        raise os_error(errno.EBADF, self.path)

    def flush(self) -> None:
        """Do nothing: nothing was written."""

    def fsync(self, *, data_only: bool) -> None:
        """Do nothing: nothing was written."""


class Subtree(Protocol):
    """A directory below the mountpoint, and all below that."""

    def getattr(self, path: str) -> NowOrLater[Attributes]:
        """Return what `stat` shows; a symbolic link is not followed."""
        ...

    def readdir(self, path: str) -> NowOrLater[list[Listed]]:
        """Return the names in a directory, without `.` and `..`."""
        ...

    def open(self, path: str, flags: int) -> NowOrLater[OpenFile]:
        """Open a file that exists."""
        ...

    def readlink(self, path: str) -> str:
        """Return where a symbolic link points."""
        ...

    def getxattr(self, path: str, name: str) -> NowOrLater[bytes]:
        """Return the value of an extended attribute whose name begins with `user.`."""
        ...

    def listxattr(self, path: str) -> NowOrLater[list[str]]:
        """Return the names of the extended attributes."""
        ...
