"""What this process asks of its machine: open files, memory, and when garbage is collected."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import resource
import time
from collections.abc import Callable
from typing import Final

import trio

from p2pfs.protocol import MIB
from p2pfs.threads import lane

MAX_OPEN_FILES: Final = 2**20
"""The default of Linux for the files that one process may open (fs.nr_open)."""

COLLECT_AFTER: Final = (10_000, 20, 100)
"""The thresholds of Python's cyclic garbage collector: new objects, and how many collections of
one generation cause one of the next. There is little cyclic garbage here. The defaults took half
of the processor time of listing 110,000 names, 2.9 s instead of 1.6, and paused everything for
0.28 s instead of 0.05."""

KEPT_BYTES: Final = 8 * MIB
"""Freed memory that may stay with the process, in each of the C library's arenas. By itself the
library gives it back, and takes it anew page by page, at each turn of blocks: a twelfth of the
processor time of a fast source."""

MAPPED_BYTES: Final = 4 * MIB
"""An allocation of so many bytes is still given back at once."""

LOOK_S: Final = 60.0
"""How often a look is taken whether a time of much work is over. So free memory is given back every
other minute at most, and an idle servent pays for the look alone."""

BUSY_S: Final = 1.0
IDLE_S: Final = 0.6
"""Seconds of processor in that time, at least and at most: much work, and hardly any. A read of 1
GiB takes three, and a servent that only has neighbours 0.2."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# Of <malloc.h>.


def settle() -> None:
    """Set the limits of this process, once."""
    _raise_file_limit()
    _keep_memory()
    gc.set_threshold(*COLLECT_AFTER)


def _raise_file_limit() -> None:
    """Let this process open as many files as it is allowed to ask for.

    The soft limit is 1,024 for the sake of programs that use select(2), which we do not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # less than the kernel's own limit it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _keep_memory() -> None:
    """Have glibc keep the memory of freed blocks and frames for the next ones."""
    with contextlib.suppress(AttributeError):  # musl has no such thing
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


async def give_memory_back() -> None:
    """Give free memory back to the system whenever much work is over, until cancelled.

    After a read of 1 GiB that is 18 MiB of 93, for a millisecond of the processor. By itself the C
    library looks at the end of each of its arenas alone.
    """
    trim = _trim()
    if trim is not None:
        await after_much_work(trim, time.process_time)


async def after_much_work(act: Callable[[], object], spent_s: Callable[[], float]) -> None:
    """Call a function in a thread whenever much work is over, by the processor time spent."""
    run_in_thread = lane(1)
    before_s, has_worked = spent_s(), False
    while True:
        await trio.sleep(LOOK_S)
        now_s = spent_s()
        took_s, before_s = now_s - before_s, now_s
        if took_s >= BUSY_S:
            has_worked = True
        elif has_worked and took_s <= IDLE_S:
            await run_in_thread(act)
            has_worked = False


def _trim() -> Callable[[], object] | None:
    """Return how to give free memory back; None where the C library has no way to ask for it."""
    with contextlib.suppress(AttributeError):  # musl has no such thing
        return functools.partial(ctypes.CDLL(None).malloc_trim, 0)
    return None
