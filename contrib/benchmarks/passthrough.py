"""Mount a local directory by the least that fusepy can do.

python passthrough.py ROOT MOUNTPOINT [OPTION=VALUE]...

The yardstick for reads from the block cache: what FUSE and Python cost when there is nothing
else to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from fuse import FUSE, Operations

ATTRIBUTES = ("st_mode", "st_size", "st_mtime", "st_nlink", "st_uid", "st_gid", "st_ino")


class PassThrough(Operations):
    """A read-only view of a directory. Arguments are as fusepy gives them, used or not."""

    def __init__(self, root: str) -> None:
        self.root = root

    def getattr(self, path: str, fh: int | None = None) -> dict[str, object]:
        status = os.lstat(self.root + path) if fh is None else os.fstat(fh)
        return {name: getattr(status, name) for name in ATTRIBUTES}

    def readdir(self, path: str, fh: int) -> Iterator[str]:  # noqa: ARG002
        yield from (".", "..", *os.listdir(self.root + path))

    def open(self, path: str, flags: int) -> int:
        return os.open(self.root + path, flags)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:  # noqa: ARG002
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> None:  # noqa: ARG002
        os.close(fh)


if __name__ == "__main__":
    OPTIONS = dict(option.split("=", 1) for option in sys.argv[3:])
    FUSE(PassThrough(sys.argv[1]), sys.argv[2], foreground=True, **OPTIONS)
