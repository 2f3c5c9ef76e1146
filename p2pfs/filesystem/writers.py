"""Open files in `shared/`, and the count of writers of each path that the library gets."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from p2pfs.allocation import allocate
from p2pfs.filesystem.answers import Stretch
from p2pfs.filesystem.attributes import Attributes, from_stat
from p2pfs.filesystem.removed import RemovedFiles


class Written(Protocol):
    """The methods of the library that are called here: all are quick, and for any thread."""

    def write_began(self, path: str, *, is_new: bool = False) -> None:
        """Note that one more writer may change this file from now on, or creates it."""
        ...

    def write_ended(self, path: str) -> None:
        """Note that one writer of this file has gone."""
        ...


class OpenShared:
    """A file in `shared/` that somebody has open."""

    keep_cache = False
    direct_io = False
    flushes = True

    def __init__(
        self,
        descriptor: int,
        path: str,
        device: int,
        removed: RemovedFiles,
        writers: Writers | None,
    ) -> None:
        """Own an open descriptor; `writers` are those among whom this one counts, if it does."""
        self._descriptor = descriptor
        self._device = device
        self._removed = removed
        self._writers = writers
        self.path = path
        """Where the file is now: `Writers.moving` changes it when the file is renamed."""
        self.status = removed.opened(descriptor)
        """What the disk said of the file when it was opened."""

    def getattr(self) -> Attributes:
        """Return the attributes of the open file, also when it has been removed."""
        return from_stat(os.fstat(self._descriptor), self._device)

    def read(self, size: int, offset: int) -> bytes | Stretch:
        """Return where the bytes lie; fewer than `size` only at the end of the file.

        If the file is cut in this moment, libfuse gives the reader the bytes that are left.
        """
        length = min(size, os.fstat(self._descriptor).st_size - offset)
        return Stretch(self._descriptor, offset, length) if length > 0 else b""

    def write(self, data: bytes, offset: int) -> int:
        """Write at `offset`, or at the end if the file was opened with O_APPEND."""
        return os.pwrite(self._descriptor, data, offset)

    def truncate(self, size: int) -> None:
        """Cut or extend the file; the writer's own release tells the library."""
        os.ftruncate(self._descriptor, size)

    def allocate(self, mode: int, offset: int, length: int) -> None:
        """Reserve room on the disk for a part of the file, or give it back, as the disk can."""
        allocate(self._descriptor, mode, offset, length)

    def flush(self) -> None:
        """Let the disk report a late error now, as closing a plain file does.

        It asks by a second descriptor. Without one left there is nothing to report: that we
        have too many files open is no reason for close(2) to fail.
        """
        try:
            os.close(os.dup(self._descriptor))
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise

    def fsync(self, *, data_only: bool) -> None:
        """Return when the file is on the disk."""
        (os.fdatasync if data_only else os.fsync)(self._descriptor)

    def release(self) -> None:
        """Close the file; the last writer's release lets the library hash it."""
        self._removed.closing(self.status)
        os.close(self._descriptor)
        if self._writers is not None:
            self._writers.left(self)


class Writers:
    """The writers of all files, each counted at the path where its file is now."""

    def __init__(self, share: Written) -> None:
        self._share = share
        self._lock = threading.Lock()
        """Held while a writer comes, moves or leaves, so that the library's count of the
        writers of a path stays right whatever is renamed meanwhile."""
        self._files: set[OpenShared] = set()

    def come(
        self, path: str, open_file: Callable[[Writers], OpenShared], *, is_new: bool = False
    ) -> OpenShared:
        """Open a file to be written, having told the library first: O_TRUNC changes it at once.

        The opening of one that `is_new` fails if there is a file already.
        """
        with self._lock:
            self._share.write_began(path, is_new=is_new)
            try:
                file = open_file(self)
            except BaseException:
                self._share.write_ended(path)
                raise
            self._files.add(file)
            return file

    def left(self, file: OpenShared) -> None:
        """Tell the library that one writer of a file has gone."""
        with self._lock:
            self._files.discard(file)
            self._share.write_ended(file.path)

    @contextmanager
    def moving(self, *renames: tuple[str, str]) -> Iterator[None]:
        """Rename in the body, and only there; the writers move as well if it succeeds.

        Those at and below the first path of each pair count for the second one then.
        """
        with self._lock, ExitStack() as stack:
            for old, new in renames:
                stack.enter_context(self._moving(old, new))
            yield

    @contextmanager
    def _moving(self, old: str, new: str) -> Iterator[None]:
        below = old + "/"
        moving = {
            file: new + file.path[len(old) :]
            for file in self._files
            if file.path == old or file.path.startswith(below)
        }
        for path in moving.values():
            self._share.write_began(path)
        try:
            yield
        except BaseException:
            for path in moving.values():
                self._share.write_ended(path)
            raise
        for file, path in moving.items():
            self._share.write_ended(file.path)
            file.path = path


def is_writing(flags: int) -> bool:
    """Return whether a file opened with `flags` may be changed by it."""
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC))
