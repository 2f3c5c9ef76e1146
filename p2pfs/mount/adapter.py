"""From libfuse's call-backs to the tree: the object that fusepy calls, see `p2pfs.mount.binding`.

fusepy takes an `OSError` without errno, or anything that is not an `Exception`, for an
uninitialised number, which can be an empty, successful read. So one guard stands around every call,
and nothing but an `OSError` with an errno gets out; the most frequent operations have their guard
in the binding.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import resource
import stat
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from p2pfs.filesystem import (
    Attributes,
    FileSystem,
    Later,
    Listed,
    Moment,
    OpenFile,
    Ownership,
    Stretch,
    Time,
    os_error,
)
from p2pfs.mount.plus import shown_in_page
from p2pfs.mount.portal import Portal
from p2pfs.mount.replies import Aside, Replies

log = logging.getLogger(__name__)

RESERVED_FILES: Final = 1024
"""Of the files that this process may have open, those that are not for the programs that use
the mount: links, the cache, listings, verbs. If it may have few, a quarter of them."""

LEAST_RESERVED_FILES: Final = 48
"""But so many, or half of them: an idle servent has 23 open."""

_EXECUTABLE: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH

_UTIME_NOW: Final = (1 << 30) - 1
_UTIME_OMIT: Final = (1 << 30) - 2
# UTIME_NOW and UTIME_OMIT of <sys/stat.h>, which arrive with 0 seconds.


class FileInfo(Protocol):
    """The fields of libfuse's `struct fuse_file_info` that we use."""

    flags: int
    fh: int
    keep_cache: int
    direct_io: int


class Adapter:
    """The object that fusepy calls: one method for each of libfuse's operations that we have.

    It is no subclass of fusepy's `Operations`: that has defaults of its own. libfuse answers ENOSYS
    for operations that are missing here; the kernel then does locks by itself.
    """

    use_ns = True
    flag_utime_omit_ok = 1
    flag_nullpath_ok = 1
    """Open files go by their handles, so they may be removed, or the directory that they are in."""

    def __init__(
        self,
        tree: FileSystem,
        portal: Portal,
        on_init: Callable[[], object],
        caller: Callable[[], Ownership | None] = lambda: None,
    ) -> None:
        self._tree = tree
        self.shown_in_page = partial(shown_in_page, tree)
        """What `getattr` gives for a name in a page of READDIRPLUS."""
        self._settle, self._wait_for_read = portal.settle, portal.wait_for_read
        self._caller = caller
        self._on_init = on_init
        self._files: dict[int, OpenFile] = {}
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        few = max(allowed // 4, min(LEAST_RESERVED_FILES, allowed // 2))
        self._max_files = allowed - min(RESERVED_FILES, few)
        self._handles = itertools.count(1)
        self.replies = Replies()
        """What libfuse's answers go through while something is put off until then."""

    def __call__(self, operation: str, *arguments: object) -> object:
        """Run one operation. Whatever it raises, an `OSError` with an errno comes out."""
        try:
            return getattr(self, operation)(*arguments)
        except BaseException as error:  # noqa: BLE001 - fusepy would make garbage of it
            raise os_error(errno_of(operation, error)) from None

    def init(self, _path: str) -> None:
        """Note that the kernel has made its first call: it is mounted."""
        self._on_init()

    # Looking.

    def getattr(self, path: str, info: FileInfo | None = None) -> Attributes:
        """Return what `stat` shows of a path, or of an open file, which may have lost its name."""
        if info is not None:
            return self._file(info).getattr()
        return self._settle(self._tree.getattr(path))

    def readdir(self, path: str | None) -> list[Listed]:
        """Return the names in a directory; the binding adds `.` and `..`."""
        if path is None:  # it was removed
            return []
        return self._settle(self._tree.readdir(path))

    def readlink(self, path: str) -> str:
        """Return where a symbolic link points."""
        return self._tree.readlink(path)

    def access(self, path: str, mode: int) -> None:
        """Say whether the user may do this; asked only in a mount that is his alone."""
        if self._tree.check_access(path, mode):
            return
        if mode & os.X_OK and not self.getattr(path).mode & _EXECUTABLE:
            raise os_error(errno.EACCES, path)

    def getxattr(self, path: str, name: str) -> bytes:
        """Return an extended attribute; the binding has refused those of the system."""
        return self._settle(self._tree.getxattr(path, name))

    def listxattr(self, path: str) -> list[str]:
        """Return the names of the extended attributes."""
        return self._settle(self._tree.listxattr(path))

    def statfs(self, path: str) -> dict[str, int]:
        """Return the room on the disk behind a path, by the names of `struct statvfs`."""
        room = self._tree.statfs(path)
        return {name: getattr(room, name) for name in _STATFS_FIELDS}

    # Files.

    def open(self, path: str, info: FileInfo) -> None:
        """Open a file that exists, and put its handle into `info`."""
        self._check_room(path)
        self._opened(self._settle(self._tree.open(path, info.flags)), info)

    def create(self, path: str, mode: int, info: FileInfo) -> None:
        """Create a file for the caller, open it, and put its handle into `info`."""
        self._check_room(path)
        self._opened(self._tree.create(path, info.flags, mode, self._caller()), info)

    def read(self, _path: str, size: int, offset: int, info: FileInfo) -> bytes | Stretch:
        """Return `size` bytes, or where they lie; fewer only at the end of the file."""
        answer = self._file(info).read(size, offset)
        data = self._wait_for_read(answer) if isinstance(answer, Later) else answer
        if len(data) > size:
            raise AssertionError(f"read gave {len(data)} bytes for {size}")
        return data

    read_buf = read  # under this name libfuse takes a Stretch: see p2pfs.mount.binding

    def write(self, _path: str, data: bytes, offset: int, info: FileInfo) -> int:
        """Write, and return how many bytes were taken."""
        return self._file(info).write(data, offset)

    def truncate(self, path: str, size: int, info: FileInfo | None = None) -> None:
        """Cut or extend a file, which need not be open."""
        if info is not None:
            self._file(info).truncate(size)
        else:
            self._tree.truncate(path, size)

    def fallocate(self, mode: int, offset: int, length: int, info: FileInfo) -> None:
        """Reserve room on the disk for a part of a file, or give it back."""
        self._file(info).allocate(mode, offset, length)

    def flush(self, _path: str, info: FileInfo) -> None:
        """Let a close of one of its descriptors report what the disk has to complain of."""
        self._file(info).flush()

    def fsync(self, _path: str, data_only: int, info: FileInfo) -> None:
        """Return when a file is on the disk."""
        self._file(info).fsync(data_only=bool(data_only))

    def release(self, _path: str, info: FileInfo) -> None:
        """Close a handle, whose last descriptor is closed by now; nobody hears of an error."""
        self._files.pop(info.fh).release()

    # Names.

    def mknod(self, path: str, mode: int, _device: int) -> None:
        """Create a file, a FIFO or a socket for the caller."""
        self._tree.mknod(path, mode, self._caller())

    def mkdir(self, path: str, mode: int) -> None:
        """Create a directory for the caller."""
        self._tree.mkdir(path, mode, self._caller())

    def unlink(self, path: str) -> None:
        """Remove a name that is not a directory's."""
        self._tree.unlink(path)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._tree.rmdir(path)

    def rename(self, old: str, new: str) -> None:
        """Rename; what libfuse renames aside goes when it answers, or when its name is taken."""
        if self._tree.set_aside(old, new):
            aside = Aside(old, new)
            if not self.replies.put_off(aside, partial(self._tree.unlink, old, aside=new)):
                self._tree.unlink(old, aside=new)
        else:
            taken = self.replies.taken(new)
            self._tree.rename(old, new, aside=None if taken is None else taken.name)

    def link(self, new: str, old: str) -> None:
        """Give a file a second name. In this order fusepy has them."""
        self._tree.link(old, new)

    def symlink(self, path: str, target: str) -> None:
        """Create a symbolic link for the caller."""
        self._tree.symlink(path, target, self._caller())

    def fsyncdir(self, path: str | None, _data_only: int, _handle: int) -> None:
        """Return when the names in a directory, unless it was removed, are on the disk."""
        if path is not None:
            self._tree.fsyncdir(path)

    # Attributes.

    def chmod(self, path: str, mode: int) -> None:
        """Change the permissions."""
        self._tree.chmod(path, stat.S_IMODE(mode))

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Change owner and group; -1 leaves one as it is."""
        self._tree.chown(path, uid, gid)

    def utimens(self, path: str, times: tuple[int, int] | None) -> None:
        """Set the times of access and of modification, in nanoseconds; without any, to now."""
        atime, mtime = times or (_UTIME_NOW, _UTIME_NOW)
        self._tree.utimens(path, _as_time(atime), _as_time(mtime))

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Set an extended attribute."""
        self._tree.setxattr(path, name, value, flags)

    def removexattr(self, path: str, name: str) -> None:
        """Remove an extended attribute."""
        self._tree.removexattr(path, name)

    # Inside.

    def _check_room(self, path: str) -> None:
        """Refuse to open a file for which we would need the last of our own descriptors."""
        if len(self._files) >= self._max_files:
            raise os_error(errno.EMFILE, path)

    def _opened(self, file: OpenFile, info: FileInfo) -> None:
        info.fh = next(self._handles)
        info.keep_cache = file.keep_cache
        info.direct_io = file.direct_io
        self._files[info.fh] = file
        if not file.flushes:
            self.replies.open_unflushed()

    def _file(self, info: FileInfo) -> OpenFile:
        file = self._files.get(info.fh)
        if file is None:
            raise os_error(errno.EBADF)
        return file


_STATFS_FIELDS: Final = (
    "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail",
    "f_namemax",
)  # fmt: skip


def errno_of(operation: str, error: BaseException) -> int:
    """Return the errno that answers an operation with an error; a bug of ours is logged."""
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return error.errno
    log.error("a bug in a call from the kernel: operation=%s", operation, exc_info=error)
    return errno.EIO


def _as_time(value: int) -> Time:
    if value == _UTIME_NOW:
        return Moment.NOW
    return Moment.OMIT if value == _UTIME_OMIT else value
