"""Which paths have to be looked at, and which looks are under way.

Not locked: the books guard it.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from p2pfs.library.doubts import Doubts, Sign
from p2pfs.library.status import Identity, StatKey


class Stage(enum.Enum):
    """How far a look at a path has come."""

    NONE = enum.auto()
    """No look is under way."""
    LOOKING = enum.auto()
    """A look is under way and does not know yet which file is at the path."""
    KNOWN = enum.auto()
    """A look is under way at a known file."""
    AGAIN = enum.auto()
    """Likewise, and another look has to follow."""
    VOID = enum.auto()
    """A look is under way whose finding must not be offered."""


class PathEvent(enum.Enum):
    """What happens to a path."""

    ADD = enum.auto()
    """A look is wanted although no change is known."""
    TOUCH = enum.auto()
    """Something changed at the path."""
    TOUCH_ABOVE = enum.auto()
    """Something changed at a directory above it."""
    WRITE = enum.auto()
    """A writer opened its file."""
    IDENTIFY = enum.auto()
    """The look has found out which file is there."""
    END = enum.auto()
    """The look has ended, with an offer or without."""


class Effect(NamedTuple):
    """The effect of an event on a path."""

    stage: Stage
    is_due: bool = False
    """Whether the path is put among those that are due."""


EFFECTS: Final[Mapping[Stage, Mapping[PathEvent, Effect]]] = {
    Stage.NONE: {
        PathEvent.ADD: Effect(Stage.NONE, is_due=True),
        PathEvent.TOUCH: Effect(Stage.NONE, is_due=True),
        PathEvent.END: Effect(Stage.NONE),
    },
    Stage.LOOKING: {
        PathEvent.ADD: Effect(Stage.LOOKING, is_due=True),
        PathEvent.TOUCH: Effect(Stage.VOID, is_due=True),
        PathEvent.TOUCH_ABOVE: Effect(Stage.VOID),
        PathEvent.WRITE: Effect(Stage.VOID, is_due=True),
        PathEvent.IDENTIFY: Effect(Stage.KNOWN),
        PathEvent.END: Effect(Stage.NONE),
    },
    Stage.KNOWN: {
        PathEvent.ADD: Effect(Stage.AGAIN),
        PathEvent.TOUCH: Effect(Stage.VOID, is_due=True),
        PathEvent.TOUCH_ABOVE: Effect(Stage.VOID),
        PathEvent.WRITE: Effect(Stage.VOID, is_due=True),
        PathEvent.IDENTIFY: Effect(Stage.KNOWN),
        PathEvent.END: Effect(Stage.NONE),
    },
    Stage.AGAIN: {
        PathEvent.ADD: Effect(Stage.AGAIN),
        PathEvent.TOUCH: Effect(Stage.VOID, is_due=True),
        PathEvent.TOUCH_ABOVE: Effect(Stage.VOID, is_due=True),
        PathEvent.WRITE: Effect(Stage.VOID, is_due=True),
        PathEvent.IDENTIFY: Effect(Stage.AGAIN),
        PathEvent.END: Effect(Stage.NONE, is_due=True),
    },
    Stage.VOID: {
        PathEvent.ADD: Effect(Stage.VOID, is_due=True),
        PathEvent.TOUCH: Effect(Stage.VOID, is_due=True),
        PathEvent.TOUCH_ABOVE: Effect(Stage.VOID),
        PathEvent.WRITE: Effect(Stage.VOID, is_due=True),
        PathEvent.IDENTIFY: Effect(Stage.VOID),
        PathEvent.END: Effect(Stage.NONE),
    },
}


@dataclass(slots=True, eq=False)
class Look:
    """One look at a path, from the taking of its status to the offer."""

    path: str
    sign: Sign = Sign.FOUND
    key: StatKey | None = None
    """The state of the file, once it is known."""
    stage: Stage = Stage.LOOKING
    again: Sign = Sign.ATTRIBUTES
    """The sign with which the next look begins, if another one has to follow."""

    @property
    def is_void(self) -> bool:
        """Whether something happened to the path meanwhile: the finding must not be offered."""
        return self.stage is Stage.VOID


def _no_look_at(path: str) -> Look:
    return Look(path, stage=Stage.NONE)


class _Due:
    """Paths that wait for the next look.

    First come those to which something happened, in that order: a file that is copied in does not
    wait for a hundred thousand that were found before it. Of those that were found, the last one is
    first, so that a directory is gone through before the next one is opened: of 300,000 files in
    3,000 directories all waited at once, and to find the first in a dict whose first hundred
    thousand are gone took longer than the look at it.
    """

    def __init__(self) -> None:
        self._happened: OrderedDict[str, Sign] = OrderedDict()
        self._found: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._happened) + len(self._found)

    def __contains__(self, path: str) -> bool:
        return path in self._happened or path in self._found

    @property
    def queues(self) -> Sequence[Collection[str]]:
        """The two parts of it."""
        return self._happened, self._found

    def put(self, path: str, sign: Sign) -> None:
        """Have a path wait, with the larger sign if it does so already."""
        if sign is Sign.FOUND and path not in self._happened:
            self._found[path] = None
        else:
            known = self._happened.get(path, sign)
            self._happened[path] = max(sign, known, Sign.FOUND if path in self._found else known)
            self._found.pop(path, None)

    def take(self) -> tuple[str, Sign] | None:
        """Return the next path, which waits no more."""
        if self._happened:
            return self._happened.popitem(last=False)
        if not self._found:
            return None
        path, _ = self._found.popitem()
        if not self._found:
            self._found.clear()  # else it takes as much memory as when it had the most
        return path, Sign.FOUND


class Agenda:
    """The work that the worker has to do.

    A look at a path is at one `Stage`, and `EFFECTS` is the table of what each event makes of it.
    Beside that, a path waits in up to three queues:

    =====  =========================================================================
    queue  what its paths wait for
    =====  =========================================================================
    due    the next look: first those to which something happened, then those that were found
    large  a look that hashes in steps, when nothing is due
    later  `recall`, which makes them due: they could not be looked at now
    =====  =========================================================================

    A path at no stage and in no queue is settled: it is offered, refused, or gone.

    .. code-block:: text

        settled --add, touch--> due --take--> LOOKING --identify--> KNOWN --finish--> settled
                                LOOKING --add--> LOOKING and due
                                KNOWN --add, touch with ATTRIBUTES--> AGAIN --finish--> due
        LOOKING, KNOWN, AGAIN --touch, write_began--> VOID and due --finish--> due
        LOOKING, KNOWN --touch of a directory above--> VOID --finish--> settled
        the end of any look --put_off--> later --recall--> due
        the end of any look --put_aside--> large --take_large--> LOOKING
    """

    def __init__(self, doubts: Doubts) -> None:
        self._doubts = doubts
        self._due = _Due()
        self._due_large: OrderedDict[str, Sign] = OrderedDict()
        self._later: dict[str, Sign] = {}
        self._unchecked: OrderedDict[str, None] = OrderedDict()
        self._looks: dict[str, Look] = {}

    def __len__(self) -> int:
        """Return how many paths are not settled, those put off included."""
        due = len(self._due) + len(self._due_large) + len(self._later)
        return due + len(self._unchecked) + len(self._looks)

    # Events.

    def add(self, path: str, sign: Sign = Sign.FOUND) -> None:
        """Have a path looked at; unlike a touch it says nothing of a change."""
        self._happens(self._looks.get(path) or _no_look_at(path), PathEvent.ADD, sign)

    def touch(self, path: str, sign: Sign) -> None:
        """Have a path looked at, with all below it; looks under way are void.

        New attributes leave the bytes as they are, and so the looks.
        """
        if sign is Sign.ATTRIBUTES:
            self.add(path, sign)
            return
        at_path = self._looks.get(path) or _no_look_at(path)
        self._happens(at_path, PathEvent.TOUCH, sign)
        below = [look for look in self._looks_below(path) if look is not at_path]
        for look in below:
            self._happens(look, PathEvent.TOUCH_ABOVE, sign)
        if sign >= Sign.FOUND:
            for look in (at_path, *below):
                self._doubt(look)

    def write_began(self, path: str, file: Identity | None) -> None:
        """Make the looks at a path void, and those at its file, which is written from now on."""
        for look in self._looks.values():
            is_same = look.key is not None and look.key.identity == file
            if look.path == path or is_same:
                self._happens(look, PathEvent.WRITE, look.sign)
                self._doubt(look)

    def identify(self, look: Look, key: StatKey) -> None:
        """Note which file a look has found, and in which state."""
        look.key = key
        self._happens(look, PathEvent.IDENTIFY, look.sign)

    def finish(self, look: Look) -> bool:
        """End a look; return whether it was not void, so that its finding may be offered."""
        if self._looks.get(look.path) is look:
            del self._looks[look.path]
        is_valid = not look.is_void
        self._happens(look, PathEvent.END, look.again)
        return is_valid

    def put_off(self, look: Look) -> None:
        """End a look, and have another one later."""
        self.finish(look)
        self._later[look.path] = look.sign

    def put_aside(self, look: Look) -> None:
        """End a look at a large file, and have another one after all quick looks."""
        self.finish(look)
        self._due_large[look.path] = look.sign

    def recall(self) -> None:
        """Make all paths due that were put off."""
        for path, sign in self._later.items():
            self.add(path, sign)
        self._later.clear()

    def _happens(self, look: Look, event: PathEvent, sign: Sign) -> None:
        step = EFFECTS[look.stage][event]
        look.stage = step.stage
        sign = max(sign, look.again)
        if step.is_due:
            self._due.put(look.path, sign)
        elif step.stage is Stage.AGAIN:
            look.again = sign

    def _doubt(self, look: Look) -> None:
        if look.key is not None:
            self._doubts.doubt(look.key.identity)

    def _looks_below(self, path: str) -> Iterator[Look]:
        prefix = f"{path}/" if path else ""
        for look in self._looks.values():
            if look.path == path or look.path.startswith(prefix):
                yield look

    # The next piece of work.

    def take(self) -> Look | None:
        """Begin to look at the next path."""
        taken = self._due.take()
        return None if taken is None else self._begin(*taken)

    def take_large(self) -> Look | None:
        """Begin to hash the next large file."""
        return self._begin(*self._due_large.popitem(last=False)) if self._due_large else None

    def _begin(self, path: str, sign: Sign) -> Look:
        look = self._looks[path] = Look(path, sign)
        return look

    def add_check(self, path: str) -> None:
        """Have a file compared with its first and last block: it was believed without a proof."""
        self._unchecked[path] = None

    def take_check(self) -> str | None:
        """Return the path of a file that has to be compared with its manifest."""
        return self._unchecked.popitem(last=False)[0] if self._unchecked else None

    def has_put_off(self) -> bool:
        """Return whether paths wait for a better time."""
        return bool(self._later)

    def has_due(self) -> bool:
        """Return whether `take` would give a look."""
        return bool(self._due)

    def has_due_large(self) -> bool:
        """Return whether `take_large` would give a look."""
        return bool(self._due_large)

    def has_checks(self) -> bool:
        """Return whether `take_check` would give a path."""
        return bool(self._unchecked)

    def has_looks(self) -> bool:
        """Return whether a look at any path is to come or under way."""
        return any(self._queues)

    def known(self, paths: Collection[str]) -> set[str]:
        """Return which of these paths will be looked at, or are looked at now."""
        return {path for queue in self._queues if queue for path in paths if path in queue}

    def knows(self, path: str) -> bool:
        """Return whether a path will be looked at, or is looked at now."""
        return any(path in queue for queue in self._queues)

    @property
    def _queues(self) -> Sequence[Collection[str]]:
        """Where a path is that will be looked at, or is looked at now."""
        return *self._due.queues, self._due_large, self._later, self._looks
