"""The whole tree: which sub-tree each path is in, and the mountpoint itself."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from p2pfs.config import Previews
from p2pfs.filesystem.answers import NowOrLater, os_error
from p2pfs.filesystem.attributes import DIRECTORY_MODE, Attributes, Listed, virtual, virtual_inode
from p2pfs.filesystem.caller import Caller
from p2pfs.filesystem.info import InfoTree
from p2pfs.filesystem.network import Contents, NetworkTree
from p2pfs.filesystem.previews import GuardedContents, Readings
from p2pfs.filesystem.removed import is_hidden
from p2pfs.filesystem.search import SearchTree, SearchView
from p2pfs.filesystem.shared import Share, SharedTree
from p2pfs.filesystem.subtree import OpenFile, Ownership, Subtree, Time
from p2pfs.filesystem.writers import is_writing
from p2pfs.filesystem.xattrs import FileLinks
from p2pfs.namespace import View
from p2pfs.roots import Roots


class Texts(Protocol):
    """The texts below `.p2pfs/`."""

    def render(self, name: str) -> bytes:
        """Return one of the texts. Any thread."""
        ...


class Servent(Protocol):
    """The parts of the servent that the tree needs."""

    @property
    def browser(self) -> View:
        """The view that `network/` shows."""
        ...

    @property
    def results(self) -> SearchView:
        """The view that `search/` shows."""
        ...

    @property
    def shares(self) -> View:
        """The view that `peers/` shows."""
        ...

    @property
    def swarms(self) -> Contents:
        """The bytes of others' files."""
        ...

    @property
    def report(self) -> Texts:
        """The texts below `.p2pfs/`."""
        ...

    @property
    def file_links(self) -> FileLinks:
        """The maker of links to files."""
        ...


class FileSystem:
    """The whole tree. Paths begin with `/`, which is the mountpoint."""

    def __init__(
        self,
        roots: Roots,
        share: Share,
        servent: Servent,
        caller: Caller,
        previews: Previews = Previews.SMALL,
        readings: Readings | None = None,
    ) -> None:
        contents = GuardedContents(servent.swarms, caller, previews, readings)
        links = servent.file_links
        self._shared = SharedTree(roots, share, links)
        self._search = SearchTree(servent.results, contents, caller, links=links)
        self._writable: Mapping[str, SharedTree] = {"shared": self._shared}
        self._told_by_others: Mapping[str, NetworkTree | SearchTree] = {
            "network": NetworkTree(servent.browser, contents, links=links),
            "search": self._search,
            "peers": NetworkTree(servent.shares, contents, "peers", links=links),
        }
        below: Mapping[str, Subtree] = {
            "shared": self._shared,
            **self._told_by_others,
            ".p2pfs": InfoTree(servent.report.render),
        }
        self._root = _Root(tuple(below))
        self._subtrees: Mapping[str, Subtree] = {"": self._root, **below}

    def close(self) -> None:
        """Let go of the backing directory. Calls that come late get EBADF."""
        self._shared.close()

    # Questions. `p2pfs.filesystem.subtree` documents each of them.

    def getattr(self, path: str) -> NowOrLater[Attributes]:
        """Return what `stat` shows; a symbolic link is not followed."""
        subtree, rest = self._find(path)
        return subtree.getattr(rest)

    def beside_name(self, path: str) -> Attributes | None:
        """Return what `stat` shows of a name that was just listed, if others tell of it.

        The kernel may believe that for `BELIEVED_S`. None: it must ask, for each name there.
        """
        label, rest = _split(path)
        subtree = self._told_by_others.get(label) if rest else None
        return None if subtree is None else subtree.beside_name(rest)

    def check_access(self, path: str, mode: int) -> bool:
        """Raise what the disk, or EROFS, says to access(2) with this mode; False: ask the mode."""
        label, rest = _split(path)
        if mode & os.W_OK:
            self._writable_at(path)
        if label not in self._writable:
            return False
        self._writable[label].check_access(rest, mode)
        return True

    def readdir(self, path: str) -> NowOrLater[list[Listed]]:
        """Return the names in a directory, without `.` and `..`."""
        subtree, rest = self._find(path)
        return subtree.readdir(rest)

    def readlink(self, path: str) -> str:
        """Return where a symbolic link points."""
        subtree, rest = self._find(path)
        return subtree.readlink(rest)

    def getxattr(self, path: str, name: str) -> NowOrLater[bytes]:
        """Return the value of an extended attribute; ENODATA if there is none.

        Those of the system are not supported: ENOTSUP, after which `ls -l` asks for them no more.
        """
        if not name.startswith("user."):
            raise os_error(errno.ENOTSUP, path)
        subtree, rest = self._find(path)
        return subtree.getxattr(rest, name)

    def listxattr(self, path: str) -> NowOrLater[list[str]]:
        """Return the names of the extended attributes."""
        subtree, rest = self._find(path)
        return subtree.listxattr(rest)

    def statfs(self, path: str) -> os.statvfs_result:
        """Return the room on the disk behind a path in `shared/`, or behind `shared/` itself."""
        label, rest = _split(path)
        return self._shared.statfs(rest if label in self._writable else "")

    # Files.

    def open(self, path: str, flags: int) -> NowOrLater[OpenFile]:
        """Open a file that exists; its content stays the one that was opened."""
        subtree, rest = self._find(path)
        if is_writing(flags):
            subtree, rest = self._writable_at(path)
        return subtree.open(rest, flags)

    def create(self, path: str, flags: int, mode: int, owner: Ownership | None = None) -> OpenFile:
        """Create a file and open it. Without an `owner`, here and below, it belongs to us."""
        subtree, rest = self._writable_at(path)
        return subtree.create(rest, flags, mode, owner)

    def truncate(self, path: str, size: int) -> None:
        """Cut or extend a file that need not be open."""
        subtree, rest = self._writable_at(path)
        subtree.truncate(rest, size)

    # Names.

    def mknod(self, path: str, mode: int, owner: Ownership | None = None) -> None:
        """Create a file, FIFO or socket that is not opened; device nodes are refused: EPERM."""
        subtree, rest = self._writable_at(path)
        subtree.mknod(rest, mode, owner)

    def mkdir(self, path: str, mode: int, owner: Ownership | None = None) -> None:
        """Create a directory, or keep a search."""
        label, rest = _split(path)
        if self._subtrees.get(label) is self._search:
            self._search.mkdir(rest)
        else:
            subtree, rest = self._writable_at(path)
            subtree.mkdir(rest, mode, owner)

    def unlink(self, path: str, aside: str | None = None) -> None:
        """Remove a name that is not a directory's; its file may be `set_aside`."""
        subtree, rest = self._below(path)
        subtree.unlink(rest, _rest(aside))

    def rmdir(self, path: str) -> None:
        """Remove an empty directory, or keep a search no longer."""
        label, rest = _split(path)
        if self._subtrees.get(label) is self._search:
            self._search.rmdir(rest)
        else:
            subtree, rest = self._below(path)
            subtree.rmdir(rest)

    def set_aside(self, path: str, name: str) -> bool:
        """Know a file by another name from now on, too, if it is one that libfuse renames aside.

        It does so with an open file that is about to lose its name: by `unlink`, or by `rename` of
        another file over it; either is then told the name as `aside`, and until then nothing has
        changed. False: this is a rename like any other.
        """
        if not is_hidden(name):
            return False
        subtree, rest = self._same_subtree(path, name)
        return subtree.set_aside(rest, self._below(name)[1])

    def rename(self, old: str, new: str, aside: str | None = None) -> None:
        """Give `old` the name `new`, whose file may be `set_aside`.

        Out of another sub-tree: EXDEV, so that `mv` copies.
        """
        subtree, rest = self._same_subtree(old, new)
        subtree.rename(rest, self._below(new)[1], _rest(aside))

    def link(self, old: str, new: str) -> None:
        """Give the file `old` a second name."""
        subtree, rest = self._same_subtree(old, new)
        subtree.link(rest, self._below(new)[1])

    def symlink(self, path: str, target: str, owner: Ownership | None = None) -> None:
        """Create a symbolic link that points to `target`."""
        subtree, rest = self._writable_at(path)
        subtree.symlink(rest, target, owner)

    def fsyncdir(self, path: str) -> None:
        """Return when the names in a directory are on the disk."""
        label, rest = _split(path)
        if label in self._writable:
            self._writable[label].fsyncdir(rest)

    # Attributes.

    def chmod(self, path: str, mode: int) -> None:
        """Change the permissions."""
        subtree, rest = self._writable_at(path)
        subtree.chmod(rest, mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """Change owner and group; -1 leaves one as it is."""
        subtree, rest = self._writable_at(path)
        subtree.chown(rest, uid, gid)

    def utimens(self, path: str, atime: Time, mtime: Time) -> None:
        """Set the times of access and of modification."""
        subtree, rest = self._writable_at(path)
        subtree.utimens(rest, atime, mtime)

    def setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        """Set an extended attribute of the user's."""
        subtree, rest = self._writable_at(path)
        subtree.setxattr(rest, name, value, flags)

    def removexattr(self, path: str, name: str) -> None:
        """Remove an extended attribute of the user's."""
        subtree, rest = self._writable_at(path)
        subtree.removexattr(rest, name)

    # Inside.

    def _find(self, path: str) -> tuple[Subtree, str]:
        label, rest = _split(path)
        subtree = self._subtrees.get(label)
        return (self._root, path) if subtree is None else (subtree, rest)

    def _writable_at(self, path: str) -> tuple[SharedTree, str]:
        label, rest = _split(path)
        if label not in self._writable:
            raise os_error(errno.EROFS, path)
        self._writable[label].check_writable(rest)
        return self._writable[label], rest

    def _below(self, path: str) -> tuple[SharedTree, str]:
        """Return where `path` is, unless it is a sub-tree or a root: those stay where they are."""
        subtree, rest = self._writable_at(path)
        if subtree.is_root(rest):
            raise os_error(errno.EBUSY, path)
        return subtree, rest

    def _same_subtree(self, old: str, new: str) -> tuple[SharedTree, str]:
        # A read-only target is refused first: EXDEV would only make `mv` fail later, and half-way.
        target, _ = self._below(new)
        if self._subtrees.get(_split(old)[0]) is not target:
            raise os_error(errno.EXDEV, old)
        return self._below(old)


class _Root:
    """The mountpoint itself: it holds the sub-trees and nothing else."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = labels
        self._began_ns = time.time_ns()

    def getattr(self, path: str) -> Attributes:
        self._check(path)
        return virtual(DIRECTORY_MODE, virtual_inode("/"), time_ns=self._began_ns)

    def readdir(self, path: str) -> list[Listed]:
        self._check(path)
        return [Listed(label, DIRECTORY_MODE, virtual_inode(label + "/")) for label in self._labels]

    def open(self, path: str, flags: int) -> OpenFile:  # noqa: ARG002 - the signature is Subtree's
        self._check(path)
        raise os_error(errno.EISDIR, path)

    def readlink(self, path: str) -> str:
        self._check(path)
        raise os_error(errno.EINVAL, path)

    def getxattr(self, path: str, name: str) -> bytes:  # noqa: ARG002 - there are none
        self._check(path)
        raise os_error(errno.ENODATA, path)

    def listxattr(self, path: str) -> list[str]:
        self._check(path)
        return []

    def _check(self, path: str) -> None:
        if path:
            raise os_error(errno.ENOENT, path)


def _rest(path: str | None) -> str | None:
    return None if path is None else _split(path)[1]


def _split(path: str) -> tuple[str, str]:
    """Return the sub-tree's label and the path within it."""
    label, _, rest = path.lstrip("/").partition("/")
    return label, rest
