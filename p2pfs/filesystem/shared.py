"""`shared/`: an ordinary POSIX file system over a backing directory.

Every operation is one system call. The tree tells the library what happened and decides
nothing about publishing.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Protocol

from p2pfs.filesystem.answers import Stretch, os_error
from p2pfs.filesystem.attributes import OWN_PREFIX, Attributes, Listed, from_stat, shown_inode
from p2pfs.filesystem.backing import Backing
from p2pfs.filesystem.subtree import Moment, Owner, Time
from p2pfs.protocol import FileId, name_of
from p2pfs.roots import Roots

logger = logging.getLogger(__name__)

_OPEN_FLAGS: Final = (
    os.O_ACCMODE | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_SYNC | os.O_DSYNC
)
"""The flags that are passed on. O_DIRECT is the kernel's own affair: on the backing file it
would need buffers with an alignment that ours do not have."""

_CLOCK_REALTIME_COARSE: Final = 5
"""The clock that stamps files (linux/time.h); the finer one runs ahead of it, and a file
touched with it would be newer than one written right after."""

_ID: Final = OWN_PREFIX + "id"
_LINK: Final = f"{OWN_PREFIX}link"
_STATE: Final = OWN_PREFIX + "state"
_REASON: Final = OWN_PREFIX + "reason"


class FileState(Protocol):
    """How one file stands; `p2pfs.library.FileState` is the real class."""

    @property
    def state(self) -> str:
        """One word: hashing, published, paused or private."""
        ...

    @property
    def file_id(self) -> FileId | None:
        """The content that is offered, if any is."""
        ...

    @property
    def reason(self) -> str:
        """Why it is private; nothing if it is meant to be."""
        ...


class Links(Protocol):
    """Makes links to files, for people."""

    def to_own(self, file_id: FileId, name: str, size: int) -> str:
        """Return a link to a file that is shared here."""
        ...


class Share(Protocol):
    """The methods of the library that the tree calls: all are quick, and for any thread."""

    def write_began(self, path: str) -> None:
        """Note that one more writer may change this file from now on."""
        ...

    def write_ended(self, path: str) -> None:
        """Note that one writer of this file has gone."""
        ...

    def touched(self, path: str) -> None:
        """Note that something at or below this path changed: look again."""
        ...

    def attributes_changed(self, path: str) -> None:
        """Note that mode, owner, times or extended attributes were set, and no byte."""
        ...

    def names_changed(self, old: str, new: str) -> None:
        """Note that something was renamed, or has a second name, and no byte was changed."""
        ...

    def file_state(self, path: str) -> FileState:
        """Return whether a file is offered, and as what."""
        ...


class SharedFile:
    """A file in `shared/` that somebody has open."""

    keep_cache = False
    direct_io = False

    def __init__(self, tree: SharedTree, descriptor: int, path: str, *, is_writer: bool) -> None:
        self._tree = tree
        self._descriptor = descriptor
        tree.removed.opened(descriptor)
        self.path = path
        """Where the file is now: the tree changes it when the file is renamed."""
        self.is_writer = is_writer

    def getattr(self) -> Attributes:
        """Return the attributes of the open file, also when it has been removed."""
        return from_stat(os.fstat(self._descriptor), self._tree.device)

    def read(self, size: int, offset: int) -> bytes | Stretch:
        """Return where the bytes lie; fewer than `size` only at the end of the file.

        If the file is cut in this moment, libfuse gives the reader the bytes that are left.
        """
        length = min(size, os.fstat(self._descriptor).st_size - offset)
        return Stretch(self._descriptor, offset, length) if length > 0 else b""

    def write(self, data: bytes, offset: int) -> int:
        """Write at `offset`, or at the end if the file was opened with O_APPEND."""
        return os.pwrite(self._descriptor, data, offset)

    def truncate(self, size: int) -> None:
        """Cut or extend the file; the writer's own release tells the library."""
        os.ftruncate(self._descriptor, size)

    def flush(self) -> None:
        """Let the disk report a late error now, as closing a plain file does.

        It asks by a second descriptor. Without one left there is nothing to report: that we
        have too many files open is no reason for close(2) to fail.
        """
        try:
            os.close(os.dup(self._descriptor))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise

    def fsync(self, *, data_only: bool) -> None:
        """Return when the file is on the disk."""
        (os.fdatasync if data_only else os.fsync)(self._descriptor)

    def release(self) -> None:
        """Close the file; the last writer's release lets the library hash it."""
        self._tree.removed.closing(self._descriptor)
        os.close(self._descriptor)
        if self.is_writer:
            self._tree.writer_left(self)


class SharedTree:
    """The backing directory, as the sub-tree `shared/`."""

    def __init__(self, roots: Roots, share: Share, links: Links | None = None) -> None:
        self._roots = roots
        self._links = links
        self._backing = Backing(roots)
        self.device = self._backing.device
        """Of the share itself; file systems that are mounted below it have others."""
        self._share = share
        self.removed = self._backing.removed
        self._lock = threading.Lock()
        """Held while a writer comes, moves or leaves, so that the library's count of the
        writers of a path stays right whatever is renamed meanwhile."""
        self._writers: set[SharedFile] = set()

    def close(self) -> None:
        """Let go of the backing directory. Calls that come late get EBADF."""
        self._backing.close()

    # Looking.

    def getattr(self, path: str) -> Attributes:
        """Return the attributes of a path; a symbolic link is not followed."""
        return from_stat(self._backing.lstat(path), self.device)

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

    def open(self, path: str, flags: int) -> SharedFile:
        """Open a file that exists, with the flags that the caller gave."""
        return self._open(path, flags & ~(os.O_CREAT | os.O_EXCL))

    def create(self, path: str, flags: int, mode: int, owner: Owner | None = None) -> SharedFile:
        """Create a file and open it; without O_EXCL one that has come meanwhile will do."""
        _check_name(path)
        try:
            file = self._open(path, flags | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            return self.open(path, flags)
        self._backing.hand_over(path, mode, owner)
        self._share.touched(path)
        return file

    def truncate(self, path: str, size: int) -> None:
        """Cut or extend a file that need not be open."""
        file = self._open(path, os.O_WRONLY)
        try:
            file.truncate(size)
        finally:
            file.release()

    def writer_left(self, file: SharedFile) -> None:
        """Tell the library that one writer of a file has gone. For `SharedFile.release`."""
        with self._lock:
            self._writers.discard(file)
            self._share.write_ended(file.path)

    # Names.

    def mknod(self, path: str, mode: int, owner: Owner | None = None) -> None:
        """Create a file, FIFO or socket. Device nodes are refused: EPERM."""
        _check_name(path)
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            raise os_error(errno.EPERM, path)
        with self._backing.near(path) as (place, name, _):
            os.mknod(name, mode, dir_fd=place)
        self._backing.hand_over(path, mode, owner)
        self._share.touched(path)

    def mkdir(self, path: str, mode: int, owner: Owner | None = None) -> None:
        """Create a directory."""
        _check_name(path)
        with self._backing.near(path) as (place, name, _):
            os.mkdir(name, mode, dir_fd=place)
        self._backing.hand_over(path, mode, owner)
        self._share.touched(path)

    def unlink(self, path: str, aside: str | None = None) -> None:
        """Remove a name that is not a directory's; its file may be `set_aside`."""
        if aside is not None:
            with self._lock, self._writers_moving(path, aside):
                self._backing.remove(path)
            self._share.names_changed(path, aside)
        elif not self.removed.forget(path):
            self._backing.remove(path)
            self._share.touched(path)

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
        with self._lock, ExitStack() as moving:
            if aside is not None:
                moving.enter_context(self._writers_moving(new, aside))
            moving.enter_context(self._writers_moving(old, new))
            if self.removed.descriptor(old) is None:
                self._backing.rename(old, new)
            self.removed.moved(old, new)
        self._share.names_changed(old, new)

    def link(self, old: str, new: str) -> None:
        """Give the file `old` a second name."""
        _check_name(new)
        self._backing.link(old, new)
        self._share.names_changed(old, new)

    def symlink(self, path: str, target: str, owner: Owner | None = None) -> None:
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
            else:
                held = os.stat(name, dir_fd=place, follow_symlinks=is_followed)
                times = _resolved(atime, held.st_atime_ns), _resolved(mtime, held.st_mtime_ns)
                os.utime(name, ns=times, dir_fd=place, follow_symlinks=is_followed)
        self._share.attributes_changed(path)

    def getxattr(self, path: str, name: str) -> bytes:
        """Return the value of an extended attribute; the library knows those of p2pfs."""
        if name.startswith(OWN_PREFIX):
            value = self._own_xattrs(path).get(name)
            if value is None:
                raise os_error(errno.ENODATA, path)
            return value
        with self._backing.named(path) as name_of_file:
            return os.getxattr(name_of_file, name)

    def listxattr(self, path: str) -> list[str]:
        """Return the names of the user's extended attributes.

        Ours are answered by name alone. If they were listed, `rsync -X` would try to remove them,
        since its source does not have them, and fail at every run.
        """
        with self._backing.named(path) as name_of_file:
            return [name for name in os.listxattr(name_of_file) if _is_users(name)]

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Set an extended attribute of the user's; one of ours stays what it is.

        Copies that were made while ours were listed carry them along, and `rsync -X` fails
        where it cannot set what its source has.
        """
        if self._is_others(path, name):
            return
        with self._backing.named(path) as name_of_file:
            os.setxattr(name_of_file, name, value, flags)
        self._share.attributes_changed(path)

    def removexattr(self, path: str, name: str) -> None:
        """Remove an extended attribute of the user's; one of ours stays what it is."""
        if self._is_others(path, name):
            return
        with self._backing.named(path) as name_of_file:
            os.removexattr(name_of_file, name)
        self._share.attributes_changed(path)

    # Inside.

    def _is_others(self, path: str, name: str) -> bool:
        """Return whether an attribute is ours; ENOTSUP for one that is not the user's either."""
        if name.startswith(OWN_PREFIX):
            self._backing.lstat(path)
            return True
        if not _is_users(name):
            raise os_error(errno.ENOTSUP, path)
        return False

    def _own_xattrs(self, path: str) -> dict[str, bytes]:
        status = self._backing.lstat(path)
        state = self._share.file_state(path)
        own = {_STATE: state.state.encode()}
        if state.reason:
            own[_REASON] = state.reason.encode()
        if state.file_id is not None:
            own[_ID] = state.file_id.hex().encode()
            if self._links is not None:
                name = name_of(path)
                own[_LINK] = self._links.to_own(state.file_id, name, status.st_size).encode()
        return own

    def _open(self, path: str, flags: int, mode: int = 0) -> SharedFile:
        flags = flags & _OPEN_FLAGS
        if not is_writing(flags):
            descriptor = self._backing.open(path, flags, mode)
            return SharedFile(self, descriptor, path, is_writer=False)
        with self._lock:
            # Before the call: with O_TRUNC it changes the file at once.
            self._share.write_began(path)
            try:
                descriptor = self._backing.open(path, flags, mode)
            except BaseException:
                self._share.write_ended(path)
                raise
            file = SharedFile(self, descriptor, path, is_writer=True)
            self._writers.add(file)
            return file

    @contextmanager
    def _writers_moving(self, old: str, new: str) -> Iterator[None]:
        """Count the writers at and below `old` for `new`, if the body succeeds."""
        below = old + "/"
        moving = {
            file: new + file.path[len(old) :]
            for file in self._writers
            if file.path == old or file.path.startswith(below)
        }
        for path in moving.values():
            self._share.write_began(path)
        try:
            yield
        except BaseException:
            for path in moving.values():
                self._share.write_ended(path)
            raise
        for file, path in moving.items():
            self._share.write_ended(file.path)
            file.path = path


def is_writing(flags: int) -> bool:
    """Return whether a file opened with `flags` may be changed by it."""
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC))


def _is_users(name: str) -> bool:
    return name.startswith("user.") and not name.startswith(OWN_PREFIX)


def _check_name(path: str) -> None:
    """Refuse to create a name that is not UTF-8: it could not be published nor shown."""
    try:
        path.encode()
    except UnicodeEncodeError:
        logger.warning("refused a name that is not UTF-8: path=%r", path)
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
