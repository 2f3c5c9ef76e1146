"""A file system whose server is a process: `python -m tests.helpers.fardisk CONTENT PLACE`.

Stopped, it answers nobody, as a file server in a network that has gone. Its inode numbers do not
last: each process gives others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import fuse

ATTRIBUTES = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_mtime", "st_ctime")


class FarDisk(fuse.Operations):
    """Shows a directory, to be read only."""

    def __init__(self, content: str) -> None:
        self._content = content

    def getattr(self, path: str, _handle: int | None = None) -> Mapping[str, object]:
        try:
            status = os.lstat(self._content + path)
        except OSError as error:
            raise fuse.FuseOSError(error.errno) from error
        shown = {name: getattr(status, name) for name in ATTRIBUTES}
        return shown | {"st_ino": status.st_ino + (os.getpid() << 32)}

    def readdir(self, path: str, _handle: int) -> list[str]:
        return [".", "..", *os.listdir(self._content + path)]

    def open(self, path: str, _flags: int) -> int:
        return os.open(self._content + path, os.O_RDONLY)

    def read(self, _path: str, size: int, offset: int, handle: int) -> bytes:
        return os.pread(handle, size, offset)

    def release(self, _path: str, handle: int) -> None:
        os.close(handle)


if __name__ == "__main__":
    options = {"foreground": True, "use_ino": True, "attr_timeout": 0, "entry_timeout": 0}
    fuse.FUSE(FarDisk(sys.argv[1]), sys.argv[2], **options)
