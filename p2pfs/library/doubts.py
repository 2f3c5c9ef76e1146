"""Which files may have changed since they were hashed, judged by the signs of a change.

A file is hashed once and then believed, as long as its times and its size say that nobody wrote
to it. Three tables say how far: `Sign` what a look does in the end, `VERDICTS` what happens to an
offer at once, and `TRUST` how far the times of one file are believed. Nothing here is locked.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping
from typing import Final, NamedTuple

from p2pfs.library.status import Identity, StatKey


class Sign(enum.IntEnum):
    """How much a change may mean, by its sign; of two signs, the larger one counts.

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
    """A name came or went, or somebody else set attributes."""
    FOUND = 2
    """A look found the change: the servent was down, or missed the event."""
    WRITTEN = 3
    """Somebody wrote, or may have written."""


class Difference(enum.Enum):
    """How a file at a path differs from the one that is offered there."""

    NOTHING = enum.auto()
    CTIME = enum.auto()
    """The ctime alone: renaming, linking, chmod and attributes move it as well."""
    MTIME = enum.auto()
    SIZE = enum.auto()
    FILE = enum.auto()
    """Another file is there, or nothing."""


class Verdict(enum.Enum):
    """What becomes of an offer at once, before the worker has looked at the file."""

    KEEP = enum.auto()
    """It stays, unless the file is in doubt already."""
    KEEP_IF_OLD = enum.auto()
    """Likewise, and unless the file is so fresh that its times would not show a second write."""
    RETIME = enum.auto()
    """It stays with the new time."""
    DOUBT = enum.auto()
    """It is withdrawn, and the file is hashed anew whatever its times say."""
    WITHDRAW = enum.auto()
    """It is withdrawn; the look that follows compares the times."""


_NO_WRITE: Final[Mapping[Difference, Verdict]] = {
    Difference.NOTHING: Verdict.KEEP,
    Difference.CTIME: Verdict.KEEP,
    Difference.MTIME: Verdict.WITHDRAW,
    Difference.SIZE: Verdict.WITHDRAW,
    Difference.FILE: Verdict.WITHDRAW,
}

VERDICTS: Final[Mapping[Sign, Mapping[Difference, Verdict]]] = {
    Sign.ATTRIBUTES: {**_NO_WRITE, Difference.MTIME: Verdict.RETIME},
    Sign.NAMES: _NO_WRITE,
    Sign.FOUND: _NO_WRITE,
    Sign.WRITTEN: {
        **_NO_WRITE,
        Difference.NOTHING: Verdict.KEEP_IF_OLD,
        Difference.CTIME: Verdict.DOUBT,
    },
}


def difference(former: StatKey, key: StatKey | None) -> Difference:
    """Return the largest difference between the state of a file and the present one, if any."""
    if key is None or key.identity != former.identity:
        return Difference.FILE
    if key.size != former.size:
        return Difference.SIZE
    if key.mtime_ns != former.mtime_ns:
        return Difference.MTIME
    return Difference.NOTHING if key == former else Difference.CTIME


class Trust(enum.Enum):
    """How far the size and the times of a file are believed."""

    FULL = enum.auto()
    """Size and mtime tell whether its bytes are the same."""
    WARY = enum.auto()
    """Somebody may write it: its ctime must be the same as well."""
    NONE = enum.auto()
    """It may have changed within one tick of the clock: it is hashed anew."""


class Cause(enum.Enum):
    """The events that change the trust in a file."""

    SUSPECT = enum.auto()
    """A writer came, or may have come."""
    DOUBT = enum.auto()
    """It was seen in a state that a second write could leave as well."""
    BELIEVE = enum.auto()
    """It was hashed, or is the same beyond doubt, or nothing is known of it any more."""


TRUST: Final[Mapping[Trust, Mapping[Cause, Trust]]] = {
    Trust.FULL: {
        Cause.SUSPECT: Trust.WARY,
        Cause.DOUBT: Trust.NONE,
        Cause.BELIEVE: Trust.FULL,
    },
    Trust.WARY: {
        Cause.SUSPECT: Trust.WARY,
        Cause.DOUBT: Trust.NONE,
        Cause.BELIEVE: Trust.FULL,
    },
    Trust.NONE: {
        Cause.SUSPECT: Trust.NONE,
        Cause.DOUBT: Trust.NONE,
        Cause.BELIEVE: Trust.FULL,
    },
}


class _Doubt(NamedTuple):
    trust: Trust
    number: int
    """For each file, a number that is another one after each new reason to doubt it."""


_CERTAIN: Final = _Doubt(Trust.FULL, 0)


class Doubts:
    """The files that are not trusted fully, and how far they are."""

    def __init__(self) -> None:
        self._doubts: dict[Identity, _Doubt] = {}
        self._numbers = itertools.count(1)

    def __bool__(self) -> bool:
        """Return whether any file is not trusted fully."""
        return bool(self._doubts)

    def suspect(self, file: Identity) -> None:
        """Note that somebody may write a file."""
        self._take(file, Cause.SUSPECT)

    def doubt(self, file: Identity) -> None:
        """Note that a file may have changed within one tick of the clock."""
        self._take(file, Cause.DOUBT)

    def believe(self, file: Identity) -> None:
        """Note that a file was hashed anew, or is the same beyond doubt."""
        self._take(file, Cause.BELIEVE)

    def trust(self, file: Identity) -> Trust:
        """Return how far the times of a file are believed."""
        return self._doubts.get(file, _CERTAIN).trust

    def suspicion(self, file: Identity) -> int:
        """Return 0 if a file is trusted fully; else a number that each new reason changes."""
        return self._doubts.get(file, _CERTAIN).number

    def files(self) -> list[Identity]:
        """Return the files that are not trusted fully."""
        return list(self._doubts)

    def _take(self, file: Identity, cause: Cause) -> None:
        trust = TRUST[self.trust(file)][cause]
        if trust is Trust.FULL:
            self._doubts.pop(file, None)
        else:
            self._doubts[file] = _Doubt(trust, next(self._numbers))
