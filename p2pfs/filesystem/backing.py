"""The directories behind `shared/`, and the arguments with which system calls reach paths below.

Paths are relative to a directory's descriptor: one joined to an absolute path would pass PATH_MAX
earlier than on a plain disk, and the directory may be renamed while it is mounted. That of
`shared/` itself is open all the time; a directory that is shared where it lies may be unmounted.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final, NamedTuple, Self

from p2pfs.config import MEANT
from p2pfs.filesystem.answers import os_error
from p2pfs.filesystem.removed import RemovedFiles
from p2pfs.filesystem.subtree import Ownership
from p2pfs.protocol import parent_of
from p2pfs.roots import Roots, stepped

_PATH_BYTES: Final = 4095
"""The longest path that a system call takes: PATH_MAX without the closing zero."""

_CHARACTER_BYTES: Final = 4
"""The most that one takes in UTF-8."""

_NO_LINKS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""The kernel has resolved links by now, and opens FIFOs by itself. If one has taken the
place of a file since, it must neither lead out of the share nor block us."""

_LEASE_TRIES: Final = 100
_LEASE_WAIT_S: Final = 0.01
"""A program waits that opens a file for writing on which another holds a lease; with O_NONBLOCK it
gets an error instead. The library takes one for microseconds, to learn whether a file is
written."""


class SyscallTarget(NamedTuple):
    """The arguments with which a system call reaches a file, for the time of a `with` block."""

    directory: int | None
    """For `dir_fd`."""
    name: str
    is_followed: bool = False
    """Whether the name is a link to a file that has none of its own any more."""

    def __enter__(self) -> Self:
        """Have nothing to open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Have nothing to close."""


class Backing:
    """The directories behind `shared/`, for as long as the mount lasts."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._root = os.open(roots.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.removed: Final = RemovedFiles()
        self.device: Final = os.fstat(self._root).st_dev
        self._owner = Ownership(os.geteuid(), os.getegid())
        # The kernel has applied the caller's umask to every mode that reaches us. Ours would
        # be applied again; `hand_over` gives back what it took.
        self._umask = os.umask(0o077)
        os.umask(self._umask)

    def close(self) -> None:
        """Let go of the directory. Calls that come late get EBADF."""
        # Never a number that something else may be opened under by then.
        descriptor, self._root = self._root, -1
        os.close(descriptor)
        self.removed.close()

    def near(self, path: str) -> AbstractContextManager[SyscallTarget]:
        """Give a place for a call with `dir_fd`, to be used in a `with`: that reaches any depth.

        Programs that step down with `cd` or `openat` get deeper than one path can tell.
        """
        kept = self.removed.descriptor(path)
        if kept is not None:
            return SyscallTarget(None, f"/proc/self/fd/{kept}", is_followed=True)
        if self._roots.of(path) is not None:
            return self._in_root(path)
        return _below(self._root, path)

    @contextmanager
    def _in_root(self, path: str) -> Iterator[SyscallTarget]:
        with self._roots.opened(path) as (root, rest), _below(root, rest) as place:
            yield place

    def statfs(self, path: str) -> os.statvfs_result:
        """Return the room on the disk that a path leads to."""
        if self._roots.of(path) is None:
            return os.fstatvfs(self._root)
        with self._roots.opened(path) as (root, _):
            return os.fstatvfs(root)

    def rename(self, old: str, new: str) -> None:
        """Give `old` the name `new`."""
        with self.near(old) as source, self.near(new) as target:
            os.rename(
                source.name,
                target.name,
                src_dir_fd=source.directory,
                dst_dir_fd=target.directory,
            )

    def link(self, old: str, new: str) -> None:
        """Give the file `old` a second name; of a symbolic link, the link itself."""
        with self.near(old) as source, self.near(new) as target:
            os.link(
                source.name,
                target.name,
                src_dir_fd=source.directory,
                dst_dir_fd=target.directory,
                follow_symlinks=False,
            )

    def lstat(self, path: str) -> os.stat_result:
        """Return the status of the file or link at `path`; no link is followed."""
        with self.near(path) as (place, name, is_followed):
            return os.stat(name, dir_fd=place, follow_symlinks=is_followed)

    def check_access(self, path: str, mode: int) -> None:
        """Raise EACCES unless we may do this to the file at `path`; no link is followed."""
        with self.near(path) as (place, name, is_followed):
            if not os.access(
                name, mode, dir_fd=place, effective_ids=True, follow_symlinks=is_followed
            ):
                os.stat(name, dir_fd=place, follow_symlinks=is_followed)  # it may have gone
                raise os_error(errno.EACCES, path)

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open a path without following a link or waiting at a FIFO."""
        with self.near(path) as (place, name, is_followed):
            flags |= _NO_LINKS & ~os.O_NOFOLLOW if is_followed else _NO_LINKS
            for _ in range(_LEASE_TRIES):
                try:
                    return os.open(name, flags, mode, dir_fd=place)
                except BlockingIOError:
                    time.sleep(_LEASE_WAIT_S)
            return os.open(name, flags, mode, dir_fd=place)

    @contextmanager
    def opened(self, path: str, flags: int) -> Iterator[int]:
        """Open a path for the time of the block."""
        descriptor = self.open(path, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def named(self, path: str) -> Iterator[str]:
        """Yield a short absolute name of a file, for the calls that take no descriptor.

        A descriptor opened with O_PATH needs no permission on the file, which reading an
        attribute of an unreadable file may not have.
        """
        with self.opened(path, os.O_PATH) as descriptor:
            yield f"/proc/self/fd/{descriptor}"

    def remove(self, path: str) -> None:
        """Remove a name that is not a directory's."""
        with self.near(path) as (place, name, _):
            os.unlink(name, dir_fd=place)

    def hand_over(self, path: str, mode: int, owner: Ownership | None) -> None:
        """Give a new file the mode and the owner that were asked for."""
        taken = mode & self._umask
        if owner is not None and not mode & stat.S_IROTH:
            self._mark(path, owner)
        if owner == self._owner:
            owner = None  # it is his already
        if owner is None and not taken:
            return
        status = self.lstat(path)
        held = stat.S_IMODE(status.st_mode)
        is_moved = owner is not None and self._give(path, status, owner)
        if not stat.S_ISLNK(status.st_mode) and (taken or is_moved):
            with self.near(path) as (place, name, _):
                os.chmod(name, held | taken, dir_fd=place)  # the change of owner may take bits

    def opened_to_all(self, path: str) -> None:
        """Note that all may read this now; a user who closes it later means to keep it private."""
        if os.geteuid() == 0:
            with suppress(OSError), self.named(path) as name:
                os.removexattr(name, MEANT)

    def _mark(self, path: str, owner: Ownership) -> None:
        """Note the user who made a file that is shared though not every user may read it."""
        with suppress(OSError), self.named(path) as name:  # not every disk has attributes
            os.setxattr(name, MEANT, str(owner.uid).encode())

    def _give(self, path: str, status: os.stat_result, owner: Ownership) -> bool:
        if (status.st_uid, status.st_gid) == owner:
            return False
        parent = self.lstat(parent_of(path))
        gid = -1 if parent.st_mode & stat.S_ISGID else owner.gid  # it has its directory's group
        with self.near(path) as (place, name, _):
            os.chown(name, owner.uid, gid, dir_fd=place, follow_symlinks=False)
        return True


def _below(root: int, path: str) -> AbstractContextManager[SyscallTarget]:
    """Give the place of a path below an open directory."""
    if len(path) <= _PATH_BYTES // _CHARACTER_BYTES or len(os.fsencode(path)) <= _PATH_BYTES:
        return SyscallTarget(root, path or ".")
    return _stepped(root, path)


@contextmanager
def _stepped(root: int, path: str) -> Iterator[SyscallTarget]:
    """Yield the place of a path that is too long for one call."""
    *above, name = path.split("/")
    with stepped(root, above) as descriptor:
        yield SyscallTarget(descriptor, name)
