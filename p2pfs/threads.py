"""Threads for what may block, in lanes that do not hold each other up.

trio has one pool of 40 threads for the whole process. When 40 verbs read from our own mount they
had all of them, and each waited for a block that needed a thread to be written. So calls that wait
for others have a lane apart from those that others wait for. trio's own pool is left to the
resolving of names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class RunInThread(Protocol):
    """How to run a function that may block: a lane, or a test's own."""

    async def __call__(self, sync_fn: Callable[[*Ts], T], /, *args: *Ts) -> T:
        """Return what `sync_fn(*args)` returns; not abandoned when cancelled."""
        ...


def lane(count: int) -> RunInThread:
    """Return a way to run functions in threads, so many at once, in the order of the calls."""
    limiter = trio.CapacityLimiter(count)

    async def run_in_lane(sync_fn: Callable[[*Ts], T], /, *args: *Ts) -> T:
        return await trio.to_thread.run_sync(sync_fn, *args, limiter=limiter)

    return run_in_lane
