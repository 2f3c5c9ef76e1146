"""`shared/`: an ordinary POSIX file system over a backing directory.

Every operation is one system call. The tree tells the library what happened and decides
nothing about publishing.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from contextlib import suppress
from typing import Final, Protocol

from p2pfs.filesystem.answers import os_error
from p2pfs.filesystem.attributes import Attributes, Listed, from_stat, shown_inode
from p2pfs.filesystem.backing import Backing
from p2pfs.filesystem.subtree import Moment, Ownership, Time
from p2pfs.filesystem.writers import OpenShared, Writers, Written, is_writing
from p2pfs.filesystem.xattrs import Attributed, FileLinks, SharedXattrs
from p2pfs.roots import Roots

log = logging.getLogger(__name__)

_OPEN_FLAGS: Final = (
    os.O_ACCMODE | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_SYNC | os.O_DSYNC
)
"""The flags that are passed on. O_DIRECT is the kernel's own affair: on the backing file it
would need buffers with an alignment that ours do not have."""

_CLOCK_REALTIME_COARSE: Final = 5
"""The clock that stamps files (linux/time.h); the finer one runs ahead of it, and a file
touched with it would be newer than one written right after."""


class Share(Written, Attributed, Protocol):
    """The methods of the library that the tree calls: all are quick, and for any thread."""

    def created(self, path: str, status: os.stat_result) -> None:
        """Note that a writer that has begun created this file."""
        ...

    def touched(self, path: str, lost: os.stat_result | None = None) -> None:
        """Note that something at or below this path changed: look again.

        `lost` is the state in which a file was that has lost this name.
        """
        ...

    def names_changed(self, old: str, new: str, lost: os.stat_result | None = None) -> None:
        """Note that something was renamed, or has a second name, and no byte was changed.

        `lost` is the state in which a file was that had the new name.
        """
        ...


class SharedTree:
    """The backing directory, as the sub-tree `shared/`."""

    def __init__(self, roots: Roots, share: Share, links: FileLinks | None = None) -> None:
        self._roots = roots
        self._backing = Backing(roots)
        self.device = self._backing.device
        """Of the share itself; file systems that are mounted below it have others."""
        self._share = share
        self._xattrs = SharedXattrs(self._backing, share, links)
        self._writers = Writers(share)
        self.removed = self._backing.removed

    def close(self) -> None:
        """Let go of the backing directory. Calls that come late get EBADF."""
        self._backing.close()

    # Looking.

    def getattr(self, path: str) -> Attributes:
        """Return the attributes of a path; a symbolic link is not followed."""
        return from_stat(self._backing.lstat(path), self.device)

    def check_access(self, path: str, mode: int) -> None:
        """Raise EACCES, or what else the disk says, unless we may do this to a file."""
        self._backing.check_access(path, mode)

    def readdir(self, path: str) -> list[Listed]:
        """Return the names in a directory."""
        flags = os.O_RDONLY | os.O_DIRECTORY
        with self._backing.opened(path, flags) as descriptor, os.scandir(descriptor) as entries:
            device = os.fstat(descriptor).st_dev
            listed = [
                Listed(entry.name, _type_of(entry), shown_inode(device, entry.inode(), self.device))
                for entry in entries
            ]
        return self._with_roots(listed) if path == "" and self._roots else listed

    def _with_roots(self, listed: list[Listed]) -> list[Listed]:
        """Return these names, with those of directories that are shared where they lie."""
        roots = {root.name: shown_inode(*root.identity, self.device) for root in self._roots}
        own = {one.name: one for one in listed}
        names = self._roots.listed(list(own))
        return [own.get(name) or Listed(name, stat.S_IFDIR, roots.get(name, 0)) for name in names]

    def readlink(self, path: str) -> str:
        """Return where a symbolic link points, unresolved."""
        with self._backing.near(path) as (place, name, _):
            return os.readlink(name, dir_fd=place)

    def statfs(self, path: str) -> os.statvfs_result:
        """Return the room on the disk that a path lies on."""
        return self._backing.statfs(path)

    def check_writable(self, path: str) -> None:
        """Raise EROFS if a path is in a directory that is shared to be read only."""
        self._roots.check_writable(path)

    def is_root(self, path: str) -> bool:
        """Return whether a path is a directory that stays where it is, with its name."""
        return path == "" or ("/" not in path and self._roots.of(path) is not None)

    # Files.

    def open(self, path: str, flags: int) -> OpenShared:
        """Open a file that exists, with the flags that the caller gave."""
        return self._open(path, flags & ~(os.O_CREAT | os.O_EXCL))

    def create(
        self, path: str, flags: int, mode: int, owner: Ownership | None = None
    ) -> OpenShared:
        """Create a file and open it; without O_EXCL one that has come meanwhile will do."""
        _check_name(path)
        try:
            file = self._open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return self.open(path, flags)
        try:
            self._backing.hand_over(path, mode, owner)
        except BaseException:
            file.release()
            raise
        self._share.created(path, file.status)
        return file

    def truncate(self, path: str, size: int) -> None:
        """Cut or extend a file that need not be open."""
        file = self._open(path, os.O_WRONLY)
        try:
            file.truncate(size)
        finally:
            file.release()

    # Names.

    def mknod(self, path: str, mode: int, owner: Ownership | None = None) -> None:
        """Create a file, FIFO or socket. Device nodes are refused: EPERM."""
        _check_name(path)
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            raise os_error(errno.EPERM, path)
        with self._backing.near(path) as (place, name, _):
            os.mknod(name, mode, dir_fd=place)
        self._backing.hand_over(path, mode, owner)
        self._share.touched(path)

    def mkdir(self, path: str, mode: int, owner: Ownership | None = None) -> None:
        """Create a directory."""
        _check_name(path)
        with self._backing.near(path) as (place, name, _):
            os.mkdir(name, mode, dir_fd=place)
        self._backing.hand_over(path, mode, owner)
        self._share.touched(path)

    def unlink(self, path: str, aside: str | None = None) -> None:
        """Remove a name that is not a directory's; its file may be `set_aside`."""
        if aside is None and self.removed.forget(path):
            return
        lost = self._backing.lstat(path)
        with self._writers.moving(*[] if aside is None else [(path, aside)]):
            self._backing.remove(path)
        self._share.touched(path, lost)

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        with self._backing.near(path) as (place, name, _):
            os.rmdir(name, dir_fd=place)
        self._share.touched(path)

    def set_aside(self, path: str, name: str) -> bool:
        """Know an open file by a name of libfuse's, too; False: it is not open, or not here.

        On the disk nothing changes. A user may call a file so as well: that one is not open.
        """
        if self.removed.descriptor(path) is not None:
            return False
        descriptor = self._backing.open(path, os.O_PATH)
        if not self.removed.is_open(os.fstat(descriptor)):
            os.close(descriptor)
            return False
        self.removed.keep(name, descriptor)
        return True

    def rename(self, old: str, new: str, aside: str | None = None) -> None:
        """Give `old` the name `new`, whose file may be `set_aside`; writers move with theirs."""
        _check_name(new)
        replaced = [] if aside is None else [(new, aside)]
        lost = self._replaced(old, new)
        with self._writers.moving(*replaced, (old, new)):
            if self.removed.descriptor(old) is None:
                self._backing.rename(old, new)
            self.removed.moved(old, new)
        self._share.names_changed(old, new, lost)

    def link(self, old: str, new: str) -> None:
        """Give the file `old` a second name."""
        _check_name(new)
        self._backing.link(old, new)
        self._share.names_changed(old, new)

    def symlink(self, path: str, target: str, owner: Ownership | None = None) -> None:
        """Create a symbolic link; it works here and is never published."""
        _check_name(path)
        with self._backing.near(path) as (place, name, _):
            os.symlink(target, name, dir_fd=place)
        self._backing.hand_over(path, 0, owner)
        self._share.touched(path)

    def fsyncdir(self, path: str) -> None:
        """Return when the names in a directory are on the disk."""
        with self._backing.opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            os.fsync(descriptor)

    # Attributes. To set one ends no read that others have begun.

    def chmod(self, path: str, mode: int) -> None:
        """Change the permissions."""
        with self._backing.near(path) as (place, name, _):
            os.chmod(name, mode, dir_fd=place)
        if mode & stat.S_IROTH:
            self._backing.opened_to_all(path)
        self._share.attributes_changed(path)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Change owner and group; -1 leaves one as it is."""
        with self._backing.near(path) as (place, name, is_followed):
            os.chown(name, uid, gid, dir_fd=place, follow_symlinks=is_followed)
        self._share.attributes_changed(path)

    def utimens(self, path: str, atime: Time, mtime: Time) -> None:
        """Set the times of access and of modification."""
        with self._backing.near(path) as (place, name, is_followed):
            if atime is Moment.NOW and mtime is Moment.NOW:
                os.utime(name, dir_fd=place, follow_symlinks=is_followed)
            elif not isinstance(atime, Moment) and not isinstance(mtime, Moment):
                os.utime(name, ns=(atime, mtime), dir_fd=place, follow_symlinks=is_followed)
            else:
                held = os.stat(name, dir_fd=place, follow_symlinks=is_followed)
                times = _resolved(atime, held.st_atime_ns), _resolved(mtime, held.st_mtime_ns)
                os.utime(name, ns=times, dir_fd=place, follow_symlinks=is_followed)
        self._share.attributes_changed(path)

    def getxattr(self, path: str, name: str) -> bytes:
        """Return the value of an extended attribute; the library knows those of p2pfs."""
        return self._xattrs.get(path, name)

    def listxattr(self, path: str) -> list[str]:
        """Return the names of the user's extended attributes."""
        return self._xattrs.names(path)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Set an extended attribute of the user's; one of ours stays what it is."""
        self._xattrs.set(path, name, value, flags)

    def removexattr(self, path: str, name: str) -> None:
        """Remove an extended attribute of the user's; one of ours stays what it is."""
        self._xattrs.remove(path, name)

    # Inside.

    def _replaced(self, old: str, new: str) -> os.stat_result | None:
        """Return the state of the file whose name another takes; two names of one both stay."""
        with suppress(OSError):
            held = self._backing.lstat(new)
            if not os.path.samestat(held, self._backing.lstat(old)):
                return held
        return None

    def _open(self, path: str, flags: int, mode: int = 0) -> OpenShared:
        flags = flags & _OPEN_FLAGS

        def opened(writers: Writers | None) -> OpenShared:
            descriptor = self._backing.open(path, flags, mode)
            return OpenShared(descriptor, path, self.device, self.removed, writers)

        if not is_writing(flags):
            return opened(None)
        return self._writers.come(path, opened, is_new=bool(flags & os.O_EXCL))


def _check_name(path: str) -> None:
    """Refuse to create a name that is not UTF-8: it could not be published nor shown."""
    try:
        path.encode()
    except UnicodeEncodeError:
        log.warning("refused a name that is not UTF-8: path=%r", path)
        raise os_error(errno.EILSEQ, path) from None


def _type_of(entry: os.DirEntry[str]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0


def _resolved(wanted: Time, held_ns: int) -> int:
    if wanted is Moment.OMIT:
        return held_ns
    if wanted is Moment.NOW:
        return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
    return wanted
