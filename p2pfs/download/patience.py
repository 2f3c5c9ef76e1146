"""How long the reads of one content wait in vain before they fail.

Theory. A reader may wait as long as something comes: so the times count from the last progress,
or from the first reader if that came later, and nothing that a source merely says moves them.
While our own limit holds everything back, no source is to blame and the stall time stands still.
"""

from __future__ import annotations

import math
from typing import Final

OUT_OF_REACH_S: Final = 4.5
"""After this long a read fails because no way leads to any source, if none ever has: each was
tried by then. A source that has given something is waited for as long as one that is silent."""

HELD_BACK_S: Final = 1.0
"""A swarm that our own limit has held back within this time is still at work."""

MAX_STALLS: Final = 10
"""Stall times after which a reader gives up though others are still being served."""


class Patience:
    """Since when readers wait in vain."""

    def __init__(self, stall_s: float) -> None:
        """Start without readers; `stall_s` without progress is too long."""
        self._stall_s = stall_s
        self._progress_at = 0.0  # something came, or the first reader
        self._held_back_at = -math.inf  # nothing was asked for, because of our own limit

    def begin(self, now: float) -> None:
        """Note that something came, or the first reader."""
        self._progress_at = now

    def held_back(self, now: float) -> None:
        """Note that nothing is asked for because of our own limit."""
        self._held_back_at = now

    def is_held_back(self, now: float) -> bool:
        """Return whether our own limit held everything back a moment ago."""
        return now - self._held_back_at < HELD_BACK_S

    def overdue_at(self, now: float) -> float:
        """Return when a reader that comes now gives up, whatever comes for others."""
        return now + MAX_STALLS * self._stall_s

    @property
    def stalled_at(self) -> float:
        """When all readers have waited long enough, if nothing comes."""
        return max(self._progress_at, self._held_back_at) + self._stall_s

    @property
    def out_of_reach_at(self) -> float:
        """When those that could not be reached are not hoped for any more."""
        return self._progress_at + OUT_OF_REACH_S
