"""Which servents have told a directory to its end, and at which addresses some tell without end.

A listing without end looks like a long one until it has told more names than are held of anybody.
So of a directory that others have too, no more than a few names are learned from a servent until it
has told all of it once: what it tells is counted, and asked for anew once it has come to its end.
Belongs to the trio thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from p2pfs.latest import Latest
from p2pfs.namespace.claims import FEW_NAMES
from p2pfs.namespace.tellers import AddressGroups, GroupsOf
from p2pfs.protocol import ServentId

MAX_ENDS: Final = 1_000
"""Directories of which it is remembered how many names a servent told, and addresses that told
without end; the latest."""

GROWTH: Final = 1.125
"""How many times as long a directory may become, and FEW_NAMES more, before it is counted again."""

DOUBTED_S: Final = 300.0
LONGEST_DOUBT_S: Final = 7_200.0
"""How long nothing is counted of what servents tell at an address where one told without end, and
how long at most when one does so again and again: twice as long each time. Identities are free, and
to count so many names costs a third of a second of processor."""

UNENDED_NAMES: Final = 50
LEAST_UNENDED_NAMES: Final = 5
"""So many names of a directory that others have too are shown in all of the addresses where one
told without end, and of each in any case. They are in each look, and cost who tells them nothing
any more."""


class _Doubt(NamedTuple):
    """An address is not believed to come to an end."""

    until: float
    lasts_s: float


class Ends:
    """How long the directories of each servent are, as far as they were told to the end."""

    def __init__(self, groups_of: GroupsOf, clock: Callable[[], float]) -> None:
        self._groups_of = groups_of
        self._clock = clock
        self._counts: Latest[tuple[ServentId, str], int] = Latest(MAX_ENDS)
        self._doubts: Latest[AddressGroups, _Doubt] = Latest(MAX_ENDS)

    def reached(self, servent: ServentId, path: str, count: int) -> None:
        """Note that a servent has told a directory to its end."""
        self._counts[servent, path] = count

    def expected(self, servent: ServentId, path: str) -> float:
        """Return how many names are learned at once of a servent; 0 if it has never told all."""
        count = self._counts.get((servent, path))
        return 0 if count is None else count * GROWTH + FEW_NAMES

    def missed(self, servent: ServentId) -> None:
        """Note that a servent tells without end."""
        if not self.is_doubted(servent):  # several may be heard at one time
            address = self._groups_of(servent)
            known = self._doubts.get(address)
            lasts_s = DOUBTED_S if known is None else min(2 * known.lasts_s, LONGEST_DOUBT_S)
            self._doubts[address] = _Doubt(self._clock() + lasts_s, lasts_s)

    def is_doubted(self, servent: ServentId) -> bool:
        """Return whether a servent at its address told without end lately."""
        doubt = self._doubts.get(self._groups_of(servent))
        return doubt is not None and self._clock() < doubt.until

    def unended_names(self) -> int:
        """Return how many names of a directory an address has that tells without end."""
        now = self._clock()
        addresses = sum(now < doubt.until for doubt in self._doubts.values())
        return max(LEAST_UNENDED_NAMES, UNENDED_NAMES // max(1, addresses))
