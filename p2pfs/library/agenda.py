"""Which paths have to be looked at, which files are being written, and whom to believe.

Not locked: the register guards it. Files being written are known by device and inode, because
a rename in mid-write changes the path, and a hard link gives the same bytes another one.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from p2pfs.library.status import Identity, StatKey


class Sign(enum.IntEnum):
    """What is known of a change, by what it leaves in doubt; of two, the larger one counts.

    ==========  ========================  =====================  =====================
    sign        size or mtime differ      ctime alone differs    nothing differs
    ==========  ========================  =====================  =====================
    ATTRIBUTES  mtime: taken over         believed               believed
    NAMES       hashed anew               believed               believed
    FOUND       hashed anew               believed, and checked  believed
    WRITTEN     hashed anew               hashed anew            hashed if it is fresh
    ==========  ========================  =====================  =====================
    """

    ATTRIBUTES = 0
    """Through the mount, attributes were set, times among them."""
    NAMES = 1
    """A name came or went, or attributes were set by somebody else."""
    FOUND = 2
    """Nobody told: it is only so now. The servent was down, or missed what happened."""
    WRITTEN = 3
    """Somebody wrote, or may have written."""


@dataclass(slots=True, eq=False)
class Look:
    """One look at a path, from the taking of its status to the offer."""

    path: str
    sign: Sign = Sign.FOUND
    key: StatKey | None = None
    """The state of the file, once it is known."""
    is_void: bool = False
    """Something happened to the path meanwhile: what was seen must not be offered."""
    again: Sign | None = None
    """Another look has to follow, for what has happened meanwhile and does no harm."""


@dataclass(slots=True)
class _Writers:
    """Those who opened one path.

    Its files count as written until the last of them has closed, since who closes says by
    path alone which file it was.
    """

    count: int = 0
    files: set[Identity] = field(default_factory=set)


class Agenda:
    """What the worker has to do.

    A path is at one or more of these stages, and tests/library/test_agenda.py has each step as a
    row:

    =======  ======================================================================
    stage    what it means
    =======  ======================================================================
    settled  nothing is to be done: it is offered, refused, or gone
    due      it will be looked at
    large    it will be hashed in steps, behind all that is quick
    later    it will be due again at `recall`, since it could not be looked at now
    looking  a look is under way, and has not found out yet which file is there
    known    a look is under way at a known file
    again    likewise, and another look has to follow
    void     a look is under way, and what it sees must not be offered
    =======  ======================================================================

    .. code-block:: text

        settled --add, touch--> due --take--> looking --> known --finish--> settled
                                looking --add--> looking and due
                                known --add, touch with ATTRIBUTES--> again --finish--> due
        looking, known, again --touch, write_began--> void and due --finish--> due
        looking, known, again --touch of a directory above--> void --finish--> settled
        the end of any look --put_off--> later --recall--> due
        the end of any look --add_large--> large --take_large--> looking
        any --write_ended--> due
    """

    def __init__(self) -> None:
        self._due: dict[str, Sign] = {}
        self._due_large: dict[str, Sign] = {}
        self._later: dict[str, Sign] = {}
        self._unchecked: dict[str, None] = {}
        self._looks: dict[str, Look] = {}
        self._open: dict[str, _Writers] = {}
        self._written: dict[Identity, int] = {}
        self._waiting: dict[Identity, dict[str, None]] = {}
        self._suspects: dict[Identity, int] = {}
        self._suspicions = itertools.count(1)
        self._doubted: set[Identity] = set()

    def __len__(self) -> int:
        """Return how many paths are not settled, those put off included."""
        due = len(self._due) + len(self._due_large) + len(self._later)
        return due + len(self._unchecked) + len(self._looks)

    # What is to be done.

    def touch(self, path: str, sign: Sign) -> None:
        """Note that `path` has to be looked at, with all below it; looks under way are void."""
        if sign is not Sign.ATTRIBUTES:
            for look in self._looks_below(path):
                self._void(look, is_doubtful=sign >= Sign.FOUND)
        self.add(path, sign)

    def add(self, path: str, sign: Sign = Sign.FOUND) -> None:
        """Note that `path` has to be looked at; unlike a touch it says nothing of a change."""
        look = self._looks.get(path)
        if look is not None and look.key is not None and not look.is_void:
            look.again = sign if look.again is None else max(sign, look.again)
        else:
            self._due[path] = max(sign, self._due.get(path, sign))

    def add_large(self, look: Look) -> None:
        """Note that a file has to be hashed in steps, behind all that is quick."""
        self._due_large[look.path] = look.sign

    def put_off(self, look: Look) -> None:
        """Note that a path has to be looked at, but not at once."""
        self._later[look.path] = look.sign

    def has_put_off(self) -> bool:
        """Return whether paths wait for a better time."""
        return bool(self._later)

    def recall(self) -> None:
        """Make all that was put off due."""
        for path, sign in self._later.items():
            self.add(path, sign)
        self._later.clear()

    def add_check(self, path: str) -> None:
        """Note that a file was believed that nobody vouches for."""
        self._unchecked[path] = None

    def take_check(self) -> str | None:
        """Return the path of a file to compare with what is known of it."""
        path = next(iter(self._unchecked), None)
        if path is not None:
            del self._unchecked[path]
        return path

    def has_due(self) -> bool:
        """Return whether `take` would give a look."""
        return bool(self._due)

    def has_due_large(self) -> bool:
        """Return whether `take_large` would give a look."""
        return bool(self._due_large)

    def has_checks(self) -> bool:
        """Return whether `take_check` would give a path."""
        return bool(self._unchecked)

    def knows(self, path: str) -> bool:
        """Return whether `path` will be looked at, be it when its writer has closed."""
        is_due = path in self._due or path in self._due_large or path in self._later
        return is_due or path in self._looks or path in self._open

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
        if look.again is not None:
            self.add(look.path, look.again)

    def _begin(self, due: dict[str, Sign]) -> Look | None:
        if not due:
            return None
        path = next(iter(due))
        look = self._looks[path] = Look(path, due.pop(path))
        return look

    def _looks_below(self, path: str) -> Iterator[Look]:
        prefix = f"{path}/" if path else ""
        for look in self._looks.values():
            if look.path == path or look.path.startswith(prefix):
                yield look

    def _void(self, look: Look, *, is_doubtful: bool) -> None:
        look.is_void = True
        if look.key is not None and is_doubtful:
            self.doubt(look.key.identity)

    # Whom to believe.

    def suspect(self, file: Identity) -> None:
        """Note that somebody may write it: only if its ctime stands as well it is the same."""
        self._suspects[file] = next(self._suspicions)

    def doubt(self, file: Identity) -> None:
        """Note that it may have changed within one tick of the clock: hash it anew."""
        self._doubted.add(file)
        self.suspect(file)

    def suspicion(self, file: Identity) -> int:
        """Return 0 if the ctime does not count; else another number after each new reason."""
        return self._suspects.get(file, 0)

    def is_doubted(self, file: Identity) -> bool:
        """Return whether the index must not be believed about this file."""
        return file in self._doubted

    def believe(self, file: Identity) -> None:
        """Note that it has been hashed anew, or is the same beyond doubt."""
        self._suspects.pop(file, None)
        self._doubted.discard(file)

    def stale_doubts(self) -> list[Identity]:
        """Return files in doubt that no look will come to, as far as is known now."""
        if len(self):
            return []
        return [f for f in self._suspects if f not in self._written and f not in self._waiting]

    # Who writes.

    def write_began(self, path: str, file: Identity | None) -> None:
        """Count a writer."""
        writers = self._open.setdefault(path, _Writers())
        writers.count += 1
        for look in self._looks.values():
            is_same = look.key is not None and look.key.identity == file
            if look.path == path or is_same:
                self._void(look, is_doubtful=True)
                self.add(look.path, look.sign)
        if file is not None:
            self.suspect(file)
            self._count(writers, file)

    def identify(self, path: str, file: Identity) -> None:
        """Note which file is at `path` now: a writer may have come before there was one."""
        writers = self._open.get(path)
        if writers is not None:
            self.suspect(file)
            self._count(writers, file)

    def write_ended(self, path: str) -> None:
        """Count a writer out; after the last one, all paths of its file are due."""
        writers = self._open.get(path)
        if writers is not None:
            writers.count -= 1
            if writers.count:
                return
            del self._open[path]
            for file in writers.files:
                self._close(file)
        self.touch(path, Sign.WRITTEN)

    def _count(self, writers: _Writers, file: Identity) -> None:
        if file not in writers.files:
            writers.files.add(file)
            self._written[file] = self._written.get(file, 0) + 1

    def _close(self, file: Identity) -> None:
        self._written[file] -= 1
        if not self._written[file]:
            del self._written[file]
            for path in self._waiting.pop(file, ()):
                self.touch(path, Sign.WRITTEN)

    def is_open(self, path: str) -> bool:
        """Return whether somebody has opened this path to write."""
        return path in self._open

    def is_written(self, path: str, file: Identity) -> bool:
        """Return whether somebody writes the file, under this or another name."""
        return file in self._written or path in self._open

    def wait_for_writer(self, file: Identity, path: str) -> None:
        """Look at `path` when the last writer of its file has closed."""
        self._waiting.setdefault(file, {})[path] = None
