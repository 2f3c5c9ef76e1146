"""Files that were removed in `shared/` while a program had them open: they go on without a name.

libfuse does not remove such a file: it renames it to `.fuse_hidden` and sixteen digits, works on
under that name, and removes it when the last one has closed it. On the disk that would keep the
directory from being removed, and a listing would show the file. So the name is ours alone: the file
is removed at once, and calls by the name reach a descriptor.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from typing import Final

from p2pfs.protocol import name_of

_HIDDEN: Final = re.compile(r"\.fuse_hidden[0-9a-f]{16}")

_File = tuple[int, int]
"""Device and inode."""


class RemovedFiles:
    """The files that are open in `shared/`, and those of them that were removed. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[_File] = Counter()
        self._kept: dict[str, int] = {}
        """Descriptors of the removed ones, by the names that libfuse gave them."""

    def opened(self, descriptor: int) -> os.stat_result:
        """Note that a file is open under this descriptor, and return its status."""
        status = os.fstat(descriptor)
        with self._lock:
            self._open[status.st_dev, status.st_ino] += 1
        return status

    def closing(self, status: os.stat_result) -> None:
        """Note that a descriptor is about to be closed; after the last one the file has gone."""
        file = (status.st_dev, status.st_ino)
        with self._lock:
            self._open[file] -= 1
            if not self._open[file]:
                del self._open[file]
                self._drop([path for path, kept in self._kept.items() if _file_of(kept) == file])

    def is_open(self, status: os.stat_result) -> bool:
        """Return whether somebody has this file open."""
        return (status.st_dev, status.st_ino) in self._open

    def keep(self, path: str, descriptor: int) -> None:
        """Know a removed file by this name from now on; its descriptor is ours to close."""
        with self._lock:
            self._kept[path] = descriptor

    def descriptor(self, path: str) -> int | None:
        """Return the descriptor of the removed file to which libfuse gave this name, if any."""
        return self._kept.get(path) if self._kept else None

    def forget(self, path: str) -> bool:
        """Forget a removed file; return whether there was one of this name."""
        with self._lock:
            is_known = path in self._kept
            self._drop([path] if is_known else [])
            return is_known

    def moved(self, old: str, new: str) -> None:
        """Note that libfuse has a new name for a file, or for all files below a directory."""
        if not self._kept:
            return
        with self._lock:
            for path in [one for one in self._kept if one == old or one.startswith(old + "/")]:
                self._kept[new + path[len(old) :]] = self._kept.pop(path)

    def close(self) -> None:
        """Close all descriptors."""
        with self._lock:
            self._drop(list(self._kept))

    def _drop(self, paths: list[str]) -> None:
        for path in paths:
            os.close(self._kept.pop(path))


def is_hidden(path: str) -> bool:
    """Return whether libfuse may have given this name."""
    return _HIDDEN.fullmatch(name_of(path)) is not None


def _file_of(descriptor: int) -> _File:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
