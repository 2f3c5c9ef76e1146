"""The backing directory of `shared/`, read without ever leaving it.

Every path is walked one label at a time from the directory's own descriptor and no symbolic
link is followed, so a link put in the way at any moment leads nowhere. Only regular files
are read. Nothing is ever written here: that is the tree's work.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import re
import signal
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from p2pfs.protocol import (
    MIB,
    Manifest,
    block_bytes_for,
    block_count_for,
    block_span,
    check_path,
    digest,
    is_private,
)

STEP_BYTES: Final = 16 * MIB
"""Hashed in one go, about 8 ms: how long a shutdown or a small file waits for a large one."""

_MAX_INT64: Final = 2**63 - 1
"""What the index and the protocol hold."""

_STAT_BLOCK_BYTES: Final = 512
"""What `st_blocks` counts in, whatever the file system's blocks are."""

_ROOT_FLAGS: Final = os.O_PATH | os.O_DIRECTORY
_STEP_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_LIST_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
# O_NONBLOCK: a FIFO put in place of a file must not hold the thread until somebody writes.

_TEMPORARY: Final = re.compile(
    r"""  \#.*\#          # Emacs saves itself
      | ~\$.*           # office suites' locks
      | .*~             # backups
      | .*\.sw[a-z]     # Vim's swap files that do not begin with a dot
      | 4913            # Vim tries whether it may write here
      | .*\.part        # downloads of Firefox, KDE, wget's friends
      | .*\.crdownload  # downloads of Chromium
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


class ChangedError(Exception):
    """A file is not, or no longer, the one that was looked at."""


class StatKey(NamedTuple):
    """What tells one state of a file from another without reading it."""

    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int


@dataclass(frozen=True, slots=True)
class Status:
    """What is at a path."""

    key: StatKey
    is_file: bool
    is_directory: bool


@functools.lru_cache(maxsize=4096)  # a look asks a dozen times, a label costs microseconds
def published_path(path: str) -> str | None:
    """Return the path under which others see a local path, or None if it stays private.

    Others accept normal form C alone, so a name in form D (macOS makes them) is offered in C.
    """
    if path == "":
        return path
    if any(_TEMPORARY.fullmatch(label) for label in path.split("/")):
        return None
    published = unicodedata.normalize("NFC", path)
    return published if check_path(published) is None else None


def other_forms(path: str) -> list[str]:
    """Return the paths in the same directory that others cannot tell from this one."""
    directory, slash, name = path.rpartition("/")
    forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")} - {name}
    return [f"{directory}{slash}{form}" for form in sorted(forms)]


def unacceptable(path: str) -> str | None:
    """Return why others would refuse this path, or None if they would not.

    A last label that is private by intent (a leading dot) is no such case.
    """
    if is_private(path.rpartition("/")[2]):
        return None
    try:
        path.encode()
    except UnicodeEncodeError:  # as the file system hands out bytes that are not UTF-8
        return "not UTF-8"
    return check_path(unicodedata.normalize("NFC", path))


class Share:
    """The files below one directory."""

    def __init__(
        self, directory: str, on_listing: Callable[[str, int], object] | None = None
    ) -> None:
        """Prepare; `on_listing` gets path and descriptor of each directory before its names."""
        self._directory = directory
        self._on_listing = on_listing

    def look(self, path: str) -> Status:
        """Return what is at `path`; raises OSError, also when a link stands in the way."""
        if path == "":
            return _status(os.stat(self._directory))
        *above, name = _labels(path)
        with self._walk(above) as parent:
            return _status(os.stat(name, dir_fd=parent, follow_symlinks=False))

    def status(self, path: str) -> Status | None:
        """Return what is at `path`, None if that cannot be told."""
        try:
            return self.look(path)
        except OSError:
            return None

    def names(self, path: str) -> list[str]:
        """Return the names in a directory; raises OSError."""
        with self._walk(_labels(path)) as directory:
            listing = os.open(".", _LIST_FLAGS, dir_fd=directory)
            try:
                if self._on_listing is not None:
                    self._on_listing(path, listing)
                return os.listdir(listing)
            finally:
                os.close(listing)

    def read(self, path: str, key: StatKey, spans: Iterable[tuple[int, int]]) -> list[bytes]:
        """Return what is at each (offset, length) of a file whose state is still `key`.

        Raises:
            ChangedError: it is another file, or another state of it.
            OSError: as the disk says.
        """
        with self.opened(path, key) as descriptor:
            return [_read_exactly(descriptor, offset, length) for offset, length in spans]

    @contextmanager
    def opened(self, path: str, key: StatKey) -> Iterator[int]:
        """Open a file whose state is still `key`, for the time of the block; raises as `read`."""
        *above, name = _labels(path)
        with self._walk(above) as parent:
            descriptor = os.open(name, _FILE_FLAGS, dir_fd=parent)
        try:
            status = _status(os.fstat(descriptor))
            if not status.is_file or status.key != key:
                raise ChangedError
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _walk(self, labels: Sequence[str]) -> Iterator[int]:
        """Open a directory for the time of the block."""
        descriptor = os.open(self._directory, _ROOT_FLAGS)
        try:
            for label in labels:
                below = os.open(label, _STEP_FLAGS, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)


class Hashing:
    """One file on its way to a manifest, a bounded step at a time.

    It holds no descriptor between steps, so it can be dropped at any time.
    """

    def __init__(self, share: Share, path: str, key: StatKey) -> None:
        self._share = share
        self._path = path
        self._key = key
        self._digests = bytearray()
        self._next_block = 0

    def step(self) -> Manifest | None:
        """Hash the next 16 MiB, or one block if that is more; return the manifest at the end.

        Releases the GIL nearly all the time.

        Raises:
            ChangedError: the file changed since it was looked at.
            OSError: as the disk says.
        """
        size = self._key.size
        last_block = block_count_for(size)
        blocks = max(1, STEP_BYTES // block_bytes_for(size))
        stop = min(self._next_block + blocks, last_block)
        with self._share.opened(self._path, self._key) as descriptor:
            if self._next_block == 0 and _has_writer(descriptor):
                raise ChangedError
            is_sparse = os.fstat(descriptor).st_blocks * _STAT_BLOCK_BYTES < size
            buffer = memoryview(bytearray(min(size, block_bytes_for(size))))
            for index in range(self._next_block, stop):
                offset, length = block_span(size, index)
                if is_sparse and _is_hole(descriptor, offset, length):
                    self._digests += _digest_of_zeros(length)
                    continue
                _read_into(descriptor, buffer[:length], offset)
                self._digests += digest(buffer[:length])
        self._next_block = stop
        if stop < last_block:
            return None
        if self._share.look(self._path).key != self._key:
            raise ChangedError
        return Manifest(size, bytes(self._digests))


def _labels(path: str) -> list[str]:
    labels = path.split("/") if path else []
    if any(label in ("", ".", "..") for label in labels):
        raise OSError(errno.EINVAL, "not a path within the share")
    return labels


def _status(result: os.stat_result) -> Status:
    key = StatKey(
        result.st_size,
        _clamped(result.st_mtime_ns),
        _clamped(result.st_ctime_ns),
        result.st_ino & _MAX_INT64,
    )
    return Status(key, stat.S_ISREG(result.st_mode), stat.S_ISDIR(result.st_mode))


def _clamped(time_ns: int) -> int:
    """A file may be dated far beyond 2262, where nanoseconds leave 64 bits."""
    return max(-_MAX_INT64, min(time_ns, _MAX_INT64))


def _has_writer(descriptor: int) -> bool:
    """Return whether anybody on this machine has the file open for writing.

    The tree tells who writes through the mount. For the others, ask for a lease for reading,
    which the kernel grants if there is no writer, and give it back. Whoever opens the file in
    that moment waits for this, and we are told by a signal: by one that nobody minds.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # somebody else's file, or a file system that has no leases
        return False
    return False


def _is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Return whether these bytes are zeros that the disk does not hold.

    Reading a hole fills the page cache: 3.1 s for 1 GiB that hashes in 0.3.
    """
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA) >= offset + length
    except OSError as error:
        return error.errno == errno.ENXIO  # no data up to the end of the file


@functools.lru_cache(maxsize=8)
def _digest_of_zeros(length: int) -> bytes:
    return digest(bytes(length))


def _read_exactly(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) != length:
        raise ChangedError
    return data


def _read_into(descriptor: int, buffer: memoryview, offset: int) -> None:
    """Fill the whole buffer. The kernel gives less than asked only at the end of a file."""
    while buffer:
        count = os.preadv(descriptor, [buffer], offset)
        if count == 0:
            raise ChangedError
        buffer = buffer[count:]
        offset += count
