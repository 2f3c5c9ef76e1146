"""Which servents have told a directory to its end, and at which addresses some tell without end.

A listing without end looks like a long one until it has told more names than are held of anybody.
So of a directory that others have too, no more than a few names are learned from a servent until it
has told all of it once: what it tells is counted, and asked for anew once it has come to its end.
Belongs to the trio thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from p2pfs.latest import Latest
from p2pfs.namespace.claims import FEW_NAMES
from p2pfs.namespace.tellers import Groups, GroupsOf
from p2pfs.protocol import ServentId

MAX_ENDS: Final = 1_000
"""Directories of which it is remembered how many names a servent told, and addresses that told
without end; the latest."""

GROWTH: Final = 1.125
"""How many times as long a directory may become, and FEW_NAMES more, before it is counted again."""

DOUBTED_S: Final = 300.0
"""How long nothing is counted of what servents tell at an address where one told without end:
identities are free, and to count so many names costs half a second of processor."""


class Ends:
    """How long the directories of each servent are, as far as they were told to the end."""

    def __init__(self, groups_of: GroupsOf, clock: Callable[[], float]) -> None:
        self._groups_of = groups_of
        self._clock = clock
        self._counts: Latest[tuple[ServentId, str], int] = Latest(MAX_ENDS)
        self._doubted_until: Latest[Groups, float] = Latest(MAX_ENDS)

    def reached(self, servent: ServentId, path: str, count: int) -> None:
        """Note that a servent has told a directory to its end."""
        self._counts[servent, path] = count

    def expected(self, servent: ServentId, path: str) -> float:
        """Return how many names are learned at once of a servent; 0 if it has never told all."""
        count = self._counts.get((servent, path))
        return 0 if count is None else count * GROWTH + FEW_NAMES

    def missed(self, servent: ServentId) -> None:
        """Note that a servent tells without end."""
        self._doubted_until[self._groups_of(servent)] = self._clock() + DOUBTED_S

    def is_doubted(self, servent: ServentId) -> bool:
        """Return whether a servent at its address told without end lately."""
        return self._clock() < self._doubted_until.get(self._groups_of(servent), -math.inf)
