"""The contents that nobody has open. Not locked: the store guards it."""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from p2pfs.cache.blocks import CachedFile
from p2pfs.cache.key import Key
from p2pfs.cache.storage import Remembered
from p2pfs.latest import Latest

MAX_CLOSED: Final = 1_000
"""Closed contents of which the verified blocks are remembered: 16 KiB each at most. A reopened file
is then read at the speed of the disk; verifying it again cost 3 s of processor time a GiB."""

MAX_RESTING: Final = 64
"""Small contents that stay open after their last handle: a reader of all files of a directory has
each opened twice, to fetch it ahead and to read it. Opening and closing one again takes seven
system calls."""

RESTING_SHARE: Final = 16
"""They take this part of the files that this process may have open, at most. With a limit of 64
those that rested took all that there were, and the servent answered nobody, not even a verb."""


class Shelves:
    """The bytes that closed contents take on the disk, and what makes it quick to open one again.

    A content is on one of two shelves: `kept` if it is in `pinned`, else `closed`. If it was
    closed lately it is in one of two tables as well: a small one rests with its file open, of a
    larger one the verified blocks are remembered. In each table the oldest goes first.
    """

    def __init__(self, pinned: Iterable[Key]) -> None:
        self.closed: OrderedDict[Key, int] = OrderedDict()  # bytes on disk
        self.kept: dict[Key, int] = {}  # bytes on disk
        self.pinned = set(pinned)
        self.remembered: Latest[Key, Remembered] = Latest(MAX_CLOSED)
        self.resting: OrderedDict[Key, CachedFile] = OrderedDict()
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._resting_room = allowed // RESTING_SHARE

    def __iter__(self) -> Iterator[Key]:
        """Yield the contents, least recently used first, then those that are kept."""
        yield from self.closed
        yield from self.kept

    def bytes_of(self, key: Key) -> int | None:
        """Return what a content takes on the disk, None if it is on no shelf."""
        return self.closed.get(key, self.kept.get(key))

    def put(self, key: Key, allocated_bytes: int) -> None:
        """Add a content that takes so many bytes on the disk, as the one used last."""
        self._shelf_of(key)[key] = allocated_bytes

    def put_file(self, file: CachedFile) -> None:
        """Add a file that has no handles; a small one rests until others have come."""
        self.put(file.key, file.allocated_bytes)
        if file.is_small:
            self.resting[file.key] = file
            if len(self.resting) <= min(MAX_RESTING, self._resting_room):
                return
            _, file = self.resting.popitem(last=False)
        verified = file.settle()
        if verified is not None:
            self.remembered[file.key] = verified

    def rouse(self, key: Key) -> CachedFile | None:
        """Take out a file that rests."""
        file = self.resting.pop(key, None)
        if file is not None:
            del self._shelf_of(key)[key]
        return file

    def take(self, key: Key) -> None:
        """Take out a content that was opened again; `load_into` came before."""
        del self._shelf_of(key)[key]

    def load_into(self, file: CachedFile) -> bool:
        """Have a file opened that is on a shelf; return whether its map is sound.

        Raises:
            OSError: it cannot be opened.
        """
        remembered = self.remembered.pop(file.key, None)
        return file.load(self._shelf_of(file.key)[file.key], remembered)

    def take_oldest(self) -> tuple[Key, int] | None:
        """Take out the closed content that was used longest ago, and its bytes on the disk."""
        if not self.closed:
            return None
        key, allocated_bytes = self.closed.popitem(last=False)
        self.remembered.pop(key, None)
        self.resting.pop(key, None)
        return key, allocated_bytes

    def keep(self, key: Key) -> None:
        """Have a content kept, on a shelf or not."""
        self.pinned.add(key)
        if key in self.closed:
            self.kept[key] = self.closed.pop(key)

    def let_go(self, key: Key) -> None:
        """Undo `keep`: the content counts as used just now."""
        self.pinned.discard(key)
        if key in self.kept:
            self.closed[key] = self.kept.pop(key)

    def _shelf_of(self, key: Key) -> dict[Key, int]:
        return self.kept if key in self.pinned else self.closed
