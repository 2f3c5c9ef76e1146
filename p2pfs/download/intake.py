"""Things that come one by one and are cheaper to deal with together, gathered for a moment."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Intake(Generic[T]):
    """A queue that lets its taker wait until a batch is worth its while."""

    def __init__(self, enough: int, wait_s: float) -> None:
        """Give at most `enough` at once, and let none wait for others longer than `wait_s`."""
        self._enough = enough
        self._wait_s = wait_s
        self._items: deque[T] = deque()
        self._has_some, self._is_enough = trio.Event(), trio.Event()

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._items)

    def put(self, item: T, *, is_urgent: bool) -> None:
        """Take in one more; one that is urgent, and all before it, wait no longer."""
        self._items.append(item)
        self._has_some.set()
        if is_urgent or len(self._items) >= self._enough:
            self._is_enough.set()

    def hurry(self) -> None:
        """Let those that are there wait no longer: somebody needs one."""
        self._is_enough.set()

    async def wait(self) -> None:
        """Wait until there is one, and there are enough or it has waited long enough."""
        if not self._items:
            await self._has_some.wait()
        with trio.move_on_after(self._wait_s):
            if len(self._items) < self._enough:
                await self._is_enough.wait()
        self._has_some, self._is_enough = trio.Event(), trio.Event()

    def take(self) -> list[T]:
        """Return the next ones in the order in which they came, not more than are enough."""
        count = min(len(self._items), self._enough)
        return [self._items.popleft() for _ in range(count)]
