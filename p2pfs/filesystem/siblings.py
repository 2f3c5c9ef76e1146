"""Which small files will be opened next, when those of a directory are opened one by one.

`cp -r`, `tar`, `rsync` and `grep -r` read a directory file by file, in the order of names or in
that of inode numbers (coreutils sort by them), and wait for each. `Siblings` is given each file
that is opened, and returns those to fetch before they are opened. It fetches nothing itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pfs.latest import Latest
from p2pfs.namespace import Knowledge, Node, RemoteFile
from p2pfs.protocol import MIB, MIN_BLOCK_BYTES, parent_of

SIBLING_BYTES: Final = MIN_BLOCK_BYTES
"""A content of one block: it comes in one exchange, and one fetched in vain costs little."""

OPENED_IN_ORDER: Final = 3
"""Files opened one behind the other before the next are fetched: a pair may be chance."""

LARGEST_STEP: Final = 4
"""Files in a row that may be left out: those that the program does not want."""

AHEAD_FILES: Final = 16
MAX_AHEAD_FILES: Final = 256
AHEAD_BYTES: Final = 2 * MIB
"""Files fetched ahead: few at first, so that little is lost if the reader stops. Then as many as it
has opened in order, for a distant source gives no more in each round trip: with 16, 132 files a
second came over 50 ms, and with half as many and 96 at most 172 over 150 ms."""

MAX_DIRECTORY: Final = 5_000
"""A directory with more names is left alone: to sort them takes tens of milliseconds."""

MAX_DIRECTORIES: Final = 16
"""Directories that are remembered, those opened in last."""


class _Order:
    """The small files of a directory in one order, and how far a reader has come in it."""

    def __init__(self, files: Sequence[RemoteFile]) -> None:
        self._files = files
        self._positions = {file.path: position for position, file in enumerate(files)}
        self._last = -1
        self._streak = 0
        self._end = 0  # behind the last file that was named

    def __contains__(self, path: str) -> bool:
        return path in self._positions

    @property
    def _ahead(self) -> int:
        """How many files ahead of the reader are to be ready."""
        return min(max(AHEAD_FILES, self._streak), MAX_AHEAD_FILES)

    def opened(self, path: str) -> list[RemoteFile]:
        """Return the files to fetch ahead now that a program has opened this one."""
        position = self._positions.get(path)
        if position is None:
            return []
        if not 0 < position - self._last <= LARGEST_STEP:
            self._streak, self._end = 0, 0
        self._last, self._streak = position, self._streak + 1
        is_due = self._end - position <= self._ahead // 2
        return self._next(position + 1) if self._streak >= OPENED_IN_ORDER and is_due else []

    def _next(self, first: int) -> list[RemoteFile]:
        begin, self._end = max(first, self._end), first
        room = AHEAD_BYTES
        for file in self._files[first : first + self._ahead]:
            room -= file.size
            if room < 0:
                break
            self._end += 1
        return list(self._files[begin : self._end])


@dataclass(slots=True)
class _OpenDirectory:
    opened: list[str] = field(default_factory=list)
    """The paths that were opened before its files were in order, the last few."""
    orders: tuple[_Order, ...] = field(default=())
    is_unordered: bool = True
    """Whether its files are yet to be put in order: at the next opening, if they are known then."""
    listed: Sequence[Node] = ()
    """The names that a program was given last."""


class Siblings:
    """Directories in which files are being opened. Any thread."""

    def __init__(
        self,
        children: Callable[[str], Sequence[Node] | Knowledge],
        inode: Callable[[Node], int],
    ) -> None:
        self._children = children
        self._inode = inode
        self._lock = threading.Lock()
        self._directories: Latest[str, _OpenDirectory] = Latest(MAX_DIRECTORIES)

    def listed(self, path: str, nodes: Sequence[Node]) -> None:
        """Note which names of a directory a program was given."""
        if len(nodes) <= MAX_DIRECTORY:
            with self._lock:
                self._directory(path).listed = nodes

    def opened(self, file: RemoteFile) -> list[RemoteFile]:
        """Note that a file was opened; return the small ones to have ready, in order."""
        if not 0 < file.size <= SIBLING_BYTES:
            return []
        path = parent_of(file.path)
        with self._lock:
            directory = self._directory(path)
            if directory.orders and file.path not in directory.orders[0]:
                self._directories[path] = directory = _OpenDirectory()  # it came later: order anew
            opened = [file.path]
            if directory.is_unordered:
                opened = directory.opened = [*directory.opened, file.path][-OPENED_IN_ORDER:]
                if len(opened) == OPENED_IN_ORDER:
                    self._put_in_order(directory, path)
            for order in directory.orders:
                ahead = [order.opened(one) for one in opened][-1]
                if ahead:
                    return ahead
            return []

    def _directory(self, path: str) -> _OpenDirectory:
        directory = self._directories.setdefault(path, _OpenDirectory())
        self._directories.move_to_end(path)
        return directory

    def _put_in_order(self, directory: _OpenDirectory, path: str) -> None:
        nodes = self._children(path)
        if isinstance(nodes, Knowledge):
            # It may be listed anew for as long as a program takes that has been given all names.
            nodes = directory.listed
        directory.is_unordered = not nodes
        if len(nodes) <= MAX_DIRECTORY:
            small = [n for n in nodes if isinstance(n, RemoteFile) and 0 < n.size <= SIBLING_BYTES]
            directory.orders = _Order(small), _Order(sorted(small, key=self._inode))
