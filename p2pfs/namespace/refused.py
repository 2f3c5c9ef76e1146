"""Searches that did not go everywhere because budgets are spent, as those between us say.

Who was not asked may have what was looked for, and may be asked a moment later: what was not found
so is not absent. But any servent within the horizon can say that of every search, and programs
that look for a name which is not there must go on. So few are believed; of the others nothing is
concluded, as if somebody had been silent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2pfs.overlay import Outcome
from p2pfs.protocol.flood import TokenBucket

REFUSED_PER_S: Final = 0.03
REFUSED_BURST: Final = 10
"""Searches that did not go everywhere and are believed to be so."""


class Refused:
    """How many more of them are believed. Belongs to the trio thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._believed = TokenBucket(REFUSED_PER_S, REFUSED_BURST)

    def is_believed(self, outcome: Outcome) -> bool:
        """Return whether it is believed that a search did not go everywhere; count that."""
        return outcome.refusals > 0 and self._believed.take(self._clock())
