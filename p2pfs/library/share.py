"""The backing directory of `shared/`, read without ever leaving it.

Every path is walked one label at a time from the directory's own descriptor and no symbolic
link is followed, so a link put in the way at any moment leads nowhere. Only regular files
are read. Nothing is ever written here: that is the tree's work.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from p2pfs.config import MEANT
from p2pfs.library.status import Identity, StatKey, Status, key_of, status_of
from p2pfs.roots import STEP_FLAGS, Roots, stepped

_LIST_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
# O_NONBLOCK: a FIFO put in place of a file must not hold the thread until somebody writes.

_NO_LABELS: Final = frozenset({"", ".", ".."})


GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors that say that nothing is there; the last one, that no file can have such a name."""

PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})
"""Errors that say nothing of the file, and may not come again."""


class ChangedError(Exception):
    """A file is another one than that which was looked at, or has changed since."""


class MovedError(ChangedError):
    """Another file is where it was, or something that is no file."""


class Share:
    """The files behind `shared/`, wherever they lie."""

    def __init__(
        self, roots: Roots, on_listing: Callable[[str, int], object] | None = None
    ) -> None:
        """Prepare; `on_listing` gets path and descriptor of each directory before its names."""
        self._roots = roots
        self._on_listing = on_listing
        self._here = threading.local()

    def look(self, path: str) -> Status:
        """Return the status of `path`; raises OSError, also when a link stands in the way."""
        with self._near(path) as (parent, name):
            return status_of(os.stat(name, dir_fd=parent, follow_symlinks=False))

    def is_meant(self, path: str, uid: int) -> bool:
        """Return whether this user made the file at `path` through a mount of root's."""
        try:
            with self._near(path) as (parent, name):
                descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=parent)
            try:
                return os.getxattr(f"/proc/self/fd/{descriptor}", MEANT) == str(uid).encode()
            finally:
                os.close(descriptor)
        except OSError:
            return False

    def status(self, path: str) -> Status | None:
        """Return the status of `path`, None if it cannot be seen."""
        try:
            return self.look(path)
        except OSError:
            return None

    def names(self, path: str) -> list[str]:
        """Return the names in a directory; raises OSError."""
        with self._near(path) as (parent, name):
            listing = os.open(name, _LIST_FLAGS, dir_fd=parent)
            try:
                if self._on_listing is not None:
                    self._on_listing(path, listing)
                names = os.listdir(listing)
            finally:
                os.close(listing)
        return self._roots.listed(names) if path == "" else names

    def present(self, path: str, names: Iterable[str]) -> list[str]:
        """Return which of these names there are in a directory; raises OSError."""
        with self._listed(path) as directory:
            return [name for name in names if _lstat(name, directory) is not None]

    def keys(self, path: str, names: Iterable[str]) -> dict[str, StatKey]:
        """Return the state of each of these names in a directory that is a file."""
        with self._listed(path) as directory:
            found = {name: _lstat(name, directory) for name in names}
        return {
            name: key_of(result)
            for name, result in found.items()
            if result is not None and stat.S_ISREG(result.st_mode)
        }

    @contextmanager
    def _listed(self, path: str) -> Iterator[int]:
        """Open a directory for the time of the block."""
        with self._near(path) as (parent, name):
            descriptor = os.open(name, STEP_FLAGS, dir_fd=parent)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def read(
        self, path: str, identity: Identity, spans: Iterable[tuple[int, int]]
    ) -> tuple[StatKey, list[bytes]]:
        """Return the state of a file, and the bytes at each (offset, length) of it.

        Raises:
            MovedError: another file is there.
            ChangedError: it is too short.
            OSError: as the disk says.
        """
        with self.opened(path, identity) as (descriptor, key):
            return key, [_read_exactly(descriptor, offset, length) for offset, length in spans]

    def text(self, path: str, most: int) -> str:
        """Return the text of a small file.

        Raises:
            ValueError: it is no file, too long, or not UTF-8.
            OSError: as the disk says, also of a link.
        """
        with self._near(path) as (parent, name):
            descriptor = os.open(name, _FILE_FLAGS, dir_fd=parent)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ValueError("it is no file")
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"it has more than {most} bytes")
        return data.decode()

    @contextmanager
    def opened(self, path: str, identity: Identity) -> Iterator[tuple[int, StatKey]]:
        """Open this file for the time of the block; yields descriptor and state.

        Raises:
            MovedError: another file is there.
            OSError: as the disk says.
        """
        with self._near(path) as (parent, name):
            descriptor = os.open(name, _FILE_FLAGS, dir_fd=parent)
        try:
            status = status_of(os.fstat(descriptor))
            if not status.is_file or status.key.identity != identity:
                raise MovedError
            yield descriptor, status.key
        finally:
            os.close(descriptor)

    @contextmanager
    def staying(self) -> Iterator[None]:
        """For the time of the block, keep the directory open that this thread walked to last.

        Looks at many files of one directory cost one walk to it. The walk may then be older than
        the look by the length of the block: keep it to some milliseconds.
        """
        self._here.place = _Place()
        try:
            yield
        finally:
            self._here.place.leave()
            self._here.place = None

    @contextmanager
    def _near(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the directory that holds `path` for the time of the block; yields it and a name."""
        _check_labels(path)
        directory, _, name = path.rpartition("/")
        place = getattr(self._here, "place", None)
        if place is None or not name or (not directory and self._roots.of(path) is not None):
            with self._walked_to(path) as (descriptor, name):
                yield descriptor, name
            return
        if place.directory != directory:
            with self._walked_to(path) as (descriptor, _):
                place.move(directory, descriptor)
        yield place.descriptor, name

    @contextmanager
    def _walked_to(self, path: str) -> Iterator[tuple[int, str]]:
        with self._roots.opened(path) as (root, rest):
            *above, name = rest.split("/") if rest else ["."]
            with stepped(root, above) as descriptor:
                yield descriptor, name


class _Place:
    """A directory that is kept open, if any is."""

    def __init__(self) -> None:
        self.directory: str | None = None
        self.descriptor = -1

    def move(self, directory: str, descriptor: int) -> None:
        """Keep a copy of this descriptor, and none of the former directory."""
        self.leave()
        self.descriptor = os.dup(descriptor)
        self.directory = directory

    def leave(self) -> None:
        """Keep nothing open."""
        if self.directory is not None:
            self.directory = None
            os.close(self.descriptor)


def _lstat(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None


def _check_labels(path: str) -> None:
    if path and not _NO_LABELS.isdisjoint(path.split("/")):
        raise OSError(errno.EINVAL, "not a path within the share")


def _read_exactly(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) != length:
        raise ChangedError
    return data
