"""What this process asks of its machine: open files, memory, and when garbage is collected."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from typing import Final

from p2pfs.protocol import MIB

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
