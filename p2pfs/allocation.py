"""Room on the disk for a part of a file: reserved before it is written, or given back."""

from __future__ import annotations

import ctypes
import os
from typing import Final

PUNCH_HOLE: Final = 0x02
KEEP_SIZE: Final = 0x01
# FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE of <linux/falloc.h>.

_libc: Final = ctypes.CDLL(None, use_errno=True)
_fallocate: Final = getattr(_libc, "fallocate64", None) or _libc.fallocate  # musl has the one alone
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def allocate(descriptor: int, mode: int, offset: int, length: int) -> None:
    """Do to a part of an open file what `mode` says, see fallocate(2).

    Raises:
        OSError: as the disk says; EOPNOTSUPP if its file system has no such mode.
    """
    if _fallocate(descriptor, mode, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
