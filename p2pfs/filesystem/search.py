"""`search/`: any name is a keyword search, and its results are files.

A name costs nothing until its folder is listed. `search/` itself lists the searches that are
kept: `mkdir` keeps one and `rmdir` drops it, and nothing else can be changed here.

The kernel looks a name up before it creates it, and would say EEXIST of every search, since
each is there already. So a program that is about to create a directory gets ENOENT, unless the
search is kept.
"""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from p2pfs.filesystem.answers import NowOrLater, os_error
from p2pfs.filesystem.attributes import DIRECTORY_MODE, Attributes, Listed, virtual, virtual_inode
from p2pfs.filesystem.caller import Caller
from p2pfs.filesystem.network import Contents, NetworkTree
from p2pfs.filesystem.subtree import OpenFile
from p2pfs.filesystem.xattrs import FileLinks
from p2pfs.namespace import QueryError, View

_LABEL: Final = "search"

_ROOT_MODE: Final = DIRECTORY_MODE | stat.S_IWUSR
"""The kernel itself looks a name up before it lets `mkdir` through."""


class SearchView(View, Protocol):
    """The searches, as the tree sees them. Paths are the text of a search, `/`, a name."""

    def kept(self) -> Sequence[str]:
        """Return the searches that are kept, sorted."""
        ...

    def keep(self, text: str) -> None:
        """Keep a search; QueryError if the text is none, OSError if it cannot be noted."""
        ...

    def drop(self, text: str) -> None:
        """Keep a search no longer; KeyError if it was not, OSError if that cannot be noted."""
        ...


class SearchTree:
    """Keyword searches, as the sub-tree `search/`."""

    def __init__(
        self,
        view: SearchView,
        contents: Contents,
        caller: Caller,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        links: FileLinks | None = None,
    ) -> None:
        self._view = view
        self._caller = caller
        self._results = NetworkTree(view, contents, _LABEL, now_ns=now_ns, links=links)
        self._now_ns = now_ns
        self._changed_ns = now_ns()

    def getattr(self, path: str) -> NowOrLater[Attributes]:
        """Return what `stat` shows: a directory for all that can be searched; ENOENT."""
        if not path:
            return virtual(_ROOT_MODE, virtual_inode(f"{_LABEL}/"), time_ns=self._changed_ns)
        if "/" not in path and self._caller.makes_directory() and path not in self._view.kept():
            raise os_error(errno.ENOENT, path)
        return self._results.getattr(path)

    def beside_name(self, path: str) -> Attributes | None:
        """Return what `stat` shows of a result; see `NetworkTree.beside_name`."""
        return self._results.beside_name(path) if "/" in path else None

    def readdir(self, path: str) -> NowOrLater[list[Listed]]:
        """Return the searches that are kept, or the results of one."""
        if path:
            return self._results.readdir(path)
        return [
            Listed(text, DIRECTORY_MODE, virtual_inode(f"{_LABEL}/{text}"))
            for text in self._view.kept()
        ]

    def open(self, path: str, flags: int) -> NowOrLater[OpenFile]:
        """Open a result."""
        return self._results.open(path, flags)

    def readlink(self, path: str) -> str:
        """Refuse: nothing here is a link."""
        return self._results.readlink(path)

    def getxattr(self, path: str, name: str) -> NowOrLater[bytes]:
        """Return one of the attributes that a result has; see `NetworkTree.getxattr`."""
        return self._results.getxattr(path, name)

    def listxattr(self, path: str) -> NowOrLater[list[str]]:
        """Return no names; see `NetworkTree.listxattr`."""
        return self._results.listxattr(path)

    def mkdir(self, path: str) -> None:
        """Keep a search; EEXIST if it is kept, EINVAL if the name is none, EROFS below one."""
        self._check_top(path)
        if path in self._view.kept():
            raise os_error(errno.EEXIST, path)
        try:
            self._view.keep(path)
        except QueryError as error:
            raise OSError(errno.EINVAL, str(error), path) from error
        self._changed_ns = self._now_ns()

    def rmdir(self, path: str) -> None:
        """Keep a search no longer; ENOENT if it was not kept, EROFS below one."""
        self._check_top(path)
        try:
            self._view.drop(path)
        except KeyError:
            raise os_error(errno.ENOENT, path) from None
        self._changed_ns = self._now_ns()

    def _check_top(self, path: str) -> None:
        if not path or "/" in path:
            raise os_error(errno.EROFS, path)
