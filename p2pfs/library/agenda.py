"""Which paths have to be looked at, and which files are being written.

Not locked: the library guards it. Files being written are known by inode, because a rename
in mid-write changes the path, and a hard link gives the same bytes another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Look:
    """One look at a path, from the taking of its status to the offer."""

    path: str
    inode: int | None = None
    """Once it is known."""
    is_void: bool = False
    """Something happened to the path meanwhile: what was seen must not be offered."""


@dataclass(slots=True)
class _Writers:
    """Those who opened one path.

    Its inodes count as written until the last of them has closed, since who closes says by
    path alone which file it was.
    """

    count: int = 0
    inodes: set[int] = field(default_factory=set)


class Agenda:
    """What the worker has to do."""

    def __init__(self) -> None:
        self._due: dict[str, None] = {}
        self._due_large: dict[str, None] = {}
        self._later: dict[str, None] = {}
        self._looks: dict[str, Look] = {}
        self._open: dict[str, _Writers] = {}
        self._written: dict[int, int] = {}
        self._waiting: dict[int, dict[str, None]] = {}
        self._doubted: set[int] = set()

    def __len__(self) -> int:
        """Return how many paths are not settled, those put off included."""
        return len(self._due) + len(self._due_large) + len(self._later) + len(self._looks)

    # What is to be done.

    def touch(self, path: str) -> None:
        """Note that `path` has to be looked at, with all below it; looks under way are void."""
        prefix = f"{path}/" if path else ""
        for look in self._looks.values():
            if look.path == path or look.path.startswith(prefix):
                self._void(look)
        self._due[path] = None

    def add(self, path: str) -> None:
        """Note that `path` has to be looked at; unlike a touch it says nothing of a change."""
        self._due[path] = None

    def add_large(self, path: str) -> None:
        """Note that `path` has to be hashed in steps, behind all that is quick."""
        self._due_large[path] = None

    def put_off(self, path: str) -> None:
        """Note that `path` has to be looked at, but not at once."""
        self._later[path] = None

    def has_put_off(self) -> bool:
        """Return whether paths wait for a better time."""
        return bool(self._later)

    def recall(self) -> None:
        """Make all that was put off due."""
        self._due |= self._later
        self._later.clear()

    def has_due(self) -> bool:
        """Return whether `take` would give a look."""
        return bool(self._due)

    def has_due_large(self) -> bool:
        """Return whether `take_large` would give a look."""
        return bool(self._due_large)

    def take(self) -> Look | None:
        """Begin to look at the next path."""
        return self._begin(self._due)

    def take_large(self) -> Look | None:
        """Begin to hash the next large file."""
        return self._begin(self._due_large)

    def finish(self, look: Look) -> None:
        """End a look."""
        if self._looks.get(look.path) is look:
            del self._looks[look.path]

    def _begin(self, due: dict[str, None]) -> Look | None:
        if not due:
            return None
        path = next(iter(due))
        del due[path]
        look = self._looks[path] = Look(path)
        return look

    def _void(self, look: Look) -> None:
        look.is_void = True
        if look.inode is not None:
            self.doubt(look.inode)

    # What its times do not vouch for.

    def doubt(self, inode: int) -> None:
        """Note that this inode may have changed within one tick of the clock: hash it anew."""
        self._doubted.add(inode)

    def is_doubted(self, inode: int) -> bool:
        """Return whether the index must not be believed about this inode."""
        return inode in self._doubted

    def believe(self, inode: int) -> None:
        """Note that the inode has been hashed anew."""
        self._doubted.discard(inode)

    # Who writes.

    def write_began(self, path: str, inode: int | None) -> None:
        """Count a writer."""
        writers = self._open.setdefault(path, _Writers())
        writers.count += 1
        for look in self._looks.values():
            if look.path == path or (look.inode == inode and inode is not None):
                self._void(look)
                self._due[look.path] = None
        if inode is not None:
            self._count(writers, inode)

    def identify(self, path: str, inode: int) -> None:
        """Note which file is at `path` now: a writer may have come before there was one."""
        writers = self._open.get(path)
        if writers is not None:
            self._count(writers, inode)

    def write_ended(self, path: str) -> None:
        """Count a writer out; after the last one, all paths of its file are due."""
        writers = self._open.get(path)
        if writers is not None:
            writers.count -= 1
            if writers.count:
                return
            del self._open[path]
            for inode in writers.inodes:
                self._close(inode)
        self.touch(path)

    def _count(self, writers: _Writers, inode: int) -> None:
        if inode not in writers.inodes:
            writers.inodes.add(inode)
            self._written[inode] = self._written.get(inode, 0) + 1

    def _close(self, inode: int) -> None:
        self._written[inode] -= 1
        if not self._written[inode]:
            del self._written[inode]
            for path in self._waiting.pop(inode, ()):
                self.touch(path)

    def is_open(self, path: str) -> bool:
        """Return whether somebody has opened this path to write."""
        return path in self._open

    def is_written(self, path: str, inode: int) -> bool:
        """Return whether somebody writes the file, under this or another name."""
        return inode in self._written or path in self._open

    def wait_for_writer(self, inode: int, path: str) -> None:
        """Look at `path` when the last writer of its file has closed."""
        self._waiting.setdefault(inode, {})[path] = None
