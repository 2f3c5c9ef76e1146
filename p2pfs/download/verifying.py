"""Blocks that have arrived and were not verified yet, gathered so that hops are worth it."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from p2pfs.download.source import Request

TAKEN_AT_ONCE: Final = 8
"""Blocks verified and written in one go: readers of the first wait for the last, 1 ms."""

GATHER_S: Final = 0.01
"""How long what arrived may wait for company, if no reader waits for it."""

Arrival = tuple[Request, bytes]


class Arrivals:
    """Blocks in the order of their arrival. Their number is bounded by what is asked for."""

    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._has_some, self._is_enough = trio.Event(), trio.Event()

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._arrivals)

    def put(self, request: Request, data: bytes, *, is_urgent: bool) -> None:
        """Take in what came for a request."""
        self._arrivals.append((request, data))
        self._has_some.set()
        if is_urgent or len(self._arrivals) >= TAKEN_AT_ONCE:
            self._is_enough.set()

    def hurry(self) -> None:
        """Let what is there wait no longer: somebody needs it."""
        self._is_enough.set()

    async def wait(self) -> None:
        """Wait until there is something, and it is enough or has waited long enough."""
        await self._has_some.wait()
        with trio.move_on_after(GATHER_S):
            await self._is_enough.wait()
        self._has_some, self._is_enough = trio.Event(), trio.Event()

    def take(self) -> list[Arrival]:
        """Return the next ones, at most TAKEN_AT_ONCE of them."""
        count = min(len(self._arrivals), TAKEN_AT_ONCE)
        return [self._arrivals.popleft() for _ in range(count)]
