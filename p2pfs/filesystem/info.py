"""`.p2pfs/`: what the servent says of itself, as text files rendered at open."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final

from p2pfs.filesystem.answers import os_error
from p2pfs.filesystem.attributes import (
    DIRECTORY_MODE,
    FILE_MODE,
    Attributes,
    Listed,
    virtual,
    virtual_inode,
)
from p2pfs.filesystem.subtree import ReadOnlyFile

INFO_NAMES: Final = ("config", "events", "peers", "status", "transfers")
"""The files, in the order in which they are listed."""

INODE_PREFIX: Final = ".p2pfs/"


class InfoFile(ReadOnlyFile):
    """One rendering. It stays the same until it is closed, however long that takes."""

    direct_io = True
    """The size was shown as 0: it is not known before the text is rendered."""

    def __init__(self, path: str, text: bytes) -> None:
        self.path = path
        self._text = text

    def getattr(self) -> Attributes:
        """Return the attributes, with the size of this rendering."""
        return _attributes(self.path, len(self._text))

    def read(self, size: int, offset: int) -> bytes:
        """Return a piece of the rendering."""
        return self._text[offset : offset + size]

    def release(self) -> None:
        """Do nothing: the text is all there was."""


class InfoTree:
    """The status files, as the sub-tree `.p2pfs/`."""

    def __init__(self, render: Callable[[str], bytes]) -> None:
        self._render = render

    def getattr(self, path: str) -> Attributes:
        """Return what `stat` shows: size 0, as in /proc."""
        if not path:
            return virtual(DIRECTORY_MODE, virtual_inode(INODE_PREFIX), time_ns=time.time_ns())
        _check(path)
        return _attributes(path, 0)

    def readdir(self, path: str) -> list[Listed]:
        """Return the names of the status files."""
        if path:
            _check(path)
            raise os_error(errno.ENOTDIR, path)
        return [Listed(name, FILE_MODE, virtual_inode(INODE_PREFIX + name)) for name in INFO_NAMES]

    def open(self, path: str, flags: int) -> InfoFile:  # noqa: ARG002 - reading is all there is
        """Render a status file."""
        _check(path)
        return InfoFile(path, self._render(path))

    def readlink(self, path: str) -> str:
        """Refuse: nothing here is a link."""
        raise os_error(errno.EINVAL, path)

    def getxattr(self, path: str, name: str) -> bytes:  # noqa: ARG002 - there are none
        """Refuse: nothing here has extended attributes."""
        raise os_error(errno.ENODATA, path)

    def listxattr(self, path: str) -> list[str]:  # noqa: ARG002 - there are none
        """Return nothing."""
        return []


def _check(path: str) -> None:
    if path not in INFO_NAMES:
        raise os_error(errno.ENOENT, path)


def _attributes(path: str, size: int) -> Attributes:
    inode = virtual_inode(INODE_PREFIX + path)
    return virtual(FILE_MODE, inode, size=size, time_ns=time.time_ns())
