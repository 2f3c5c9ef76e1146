"""How many sources a block that a reader waits for is asked of, while none has given it.

A source that has given nothing may be a mere promise, so a reader waits for it only a moment:
after PROBE_AFTER_S two sources are asked for the block, and twice as many in each PROBE_S.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from p2pfs.download.known import MAX_KNOWN_SOURCES

PROBE_AFTER_S: Final = 0.25
"""How long a block that a reader waits for may be with one source that has given nothing yet."""

PROBE_S: Final = 0.1
"""In each such time after that, twice as many sources are asked for it."""

STEPS: Final = (MAX_KNOWN_SOURCES - 1).bit_length()
"""After so many times all sources are asked that are remembered."""

ROUNDING: Final = 1e-6
"""The part of a step that may be missing: an alarm at the time of a step makes that step."""


class Probes:
    """Since when the blocks that readers wait for are asked for in vain."""

    def __init__(self) -> None:
        """Start with none."""
        self._asked_at: dict[int, float] = {}
        self.look_at = math.inf
        """When more sources may be asked for a block counted since this was set to infinity."""

    def begin_anew(self, index: int) -> None:
        """Note that a block has come: if it is asked for again, patience begins anew."""
        self._asked_at.pop(index, None)

    def keep_only(self, demanded: Collection[int]) -> None:
        """Forget all blocks but these."""
        self._asked_at = {i: at for i, at in self._asked_at.items() if i in demanded}

    def count(self, index: int, now: float) -> int:
        """Return how many sources a block may be asked of by now."""
        probe_at = self._asked_at.setdefault(index, now) + PROBE_AFTER_S
        if now < probe_at:
            self.look_at = min(self.look_at, probe_at)
            return 1
        steps = min(int((now - probe_at) / PROBE_S + ROUNDING) + 1, STEPS)
        if steps < STEPS:
            self.look_at = min(self.look_at, probe_at + steps * PROBE_S)
        return min(1 << steps, MAX_KNOWN_SOURCES)
