"""What was removed in `shared/` while somebody had it open, and so is still there.

libfuse renames such a file to `.fuse_hidden` and sixteen digits, and removes it when the last
one has closed it. A servent that is killed before leaves it in the user's directory. So the
state directory has a note of each file that is hidden and open, and of nothing else: a
user's own file of such a name, from a backup of another FUSE file system, is never removed.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from p2pfs.state import Leftovers

logger = logging.getLogger(__name__)

_HIDDEN: Final = re.compile(r"\.fuse_hidden[0-9a-f]{16}")

_File = tuple[int, int]
"""Device and inode."""


class HiddenFiles:
    """The files that are open in `shared/`, and which of them are hidden. Any thread."""

    def __init__(self, directory: str, leftovers: Leftovers) -> None:
        self._directory = directory
        self._leftovers = leftovers
        self._lock = threading.Lock()
        self._open: set[int] = set()
        self._noted: dict[_File, str] = {}

    def opened(self, descriptor: int) -> None:
        """Note that a file is open under this descriptor."""
        self._open.add(descriptor)

    def closing(self, descriptor: int) -> None:
        """Note that a descriptor is about to be closed; libfuse removes the file after the last."""
        with self._lock:
            self._open.discard(descriptor)
            if self._noted:
                self._unhide(_file_of(os.fstat(descriptor)))

    @contextmanager
    def renaming(self, new: str, status: os.stat_result) -> Iterator[None]:
        """Note a file that gets the name `new`, if that hides it and the body succeeds."""
        file = _file_of(status)
        with self._lock:
            if self._is_open(file):  # else the name is the user's choice
                self._note(file, os.path.join(self._directory, new))
        try:
            yield
        except BaseException:
            with self._lock:
                self._forget(file)
            raise

    def moved(self, old: str, new: str) -> None:
        """Note that a directory was renamed, with what is hidden below it."""
        if not self._noted:
            return
        above = os.path.join(self._directory, old, "")
        with self._lock:
            for file, path in list(self._noted.items()):
                if path.startswith(above):
                    self._note(file, os.path.join(self._directory, new, path[len(above) :]))

    def _note(self, file: _File, path: str) -> None:
        self._forget(file)
        self._noted[file] = path
        try:
            self._leftovers.note(path, file[1])
        except OSError as error:  # it stays if we are killed, and can be removed nevertheless
            logger.warning("no note of a hidden file reason=%s", error)

    def _unhide(self, file: _File) -> None:
        if file in self._noted and not self._is_open(file):
            self._forget(file)

    def _forget(self, file: _File) -> None:
        path = self._noted.pop(file, None)
        if path is not None:
            self._leftovers.forget(path, file[1])

    def _is_open(self, file: _File) -> bool:
        for descriptor in self._open.copy():
            with suppress(OSError):  # it was closed meanwhile
                if _file_of(os.fstat(descriptor)) == file:
                    return True
        return False


def is_hidden(path: str) -> bool:
    """Return whether libfuse may have given this name."""
    return _HIDDEN.fullmatch(path.rpartition("/")[2]) is not None


def _file_of(status: os.stat_result) -> _File:
    return status.st_dev, status.st_ino
