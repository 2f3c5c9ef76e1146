"""That something is not held up, on a machine that may be busy with other things."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

TRIES: Final = 20
"""A busy machine makes some calls slow. What holds up others makes every one slow."""


def timed(call: Callable[[int], object]) -> Callable[[int], float]:
    """Return a function that makes the call and returns the seconds that it took."""

    def timed_call(number: int) -> float:
        began = time.monotonic()
        call(number)
        return time.monotonic() - began

    return timed_call


def assert_can_take_less_than(limit_s: float, call: Callable[[int], float]) -> None:
    """Assert that one of `TRIES` calls, which return what they took, takes less.

    Each gets its number, so that no two need ask for the same.
    """
    taken: list[float] = []
    while not taken or min(taken) >= limit_s:
        assert len(taken) < TRIES, f"each took more than {limit_s} s: {taken}"
        taken.append(call(len(taken)))
