"""One alarm clock for many deadlines."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio


class Alarm:
    """Rings at the earliest time that was set since it last rang."""

    def __init__(self) -> None:
        self._at = math.inf
        self._changed = trio.Event()

    def set(self, at: float) -> None:
        """Ring at this time, or earlier: the owner then does whatever is due, and sets it anew."""
        if at < self._at:
            self._at = at
            self._changed.set()

    async def run(self, ring: Callable[[], None]) -> None:
        """Call `ring` whenever it is time, until cancelled."""
        while True:
            with trio.move_on_at(self._at):
                await self._changed.wait()
            self._changed = trio.Event()
            if trio.current_time() >= self._at:
                self._at = math.inf
                ring()
