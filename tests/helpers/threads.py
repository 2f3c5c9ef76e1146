"""A stand-in for threads, which do not go together with a virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def run_directly(sync_fn: Callable[[*Ts], T], /, *args: *Ts) -> T:
    """Call the function here and now, after one checkpoint."""
    await trio.lowlevel.checkpoint()
    return sync_fn(*args)
