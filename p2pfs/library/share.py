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
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from p2pfs.config import IDENTITY, LOCK, MEANT
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
from p2pfs.roots import Roots

STEP_BYTES: Final = 16 * MIB
"""Hashed in one go, about 8 ms: how long a shutdown or a small file waits for a large one."""

_MAX_INT64: Final = 2**63 - 1
"""What the index and the protocol hold."""

_STAT_BLOCK_BYTES: Final = 512
"""What `st_blocks` counts in, whatever the file system's blocks are."""

_STEP_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
_LIST_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
# O_NONBLOCK: a FIFO put in place of a file must not hold the thread until somebody writes.

_NO_LABELS: Final = frozenset({"", ".", ".."})

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


class MovedError(ChangedError):
    """Another file is where it was, or something that is no file."""


Identity = tuple[int, int]
"""Device and inode: what tells one file or directory from another while both are there. An
inode alone does not: below one share there may be several file systems."""


class StatKey(Struct, frozen=True, gc=False):
    """What tells one state of a file from another without reading it.

    Untracked, as all that there is one of for each file: a collection that goes through a
    million objects stops every thread for a tenth of a second.
    """

    device: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @property
    def identity(self) -> Identity:
        """Which file it is, in whatever state."""
        return self.device, self.ino

    def has_bytes_of(self, other: StatKey) -> bool:
        """Return whether the bytes are the same, by file, size and time of the last write.

        The ctime says less: renaming, linking, chmod and attributes move it as well.
        """
        return (self.device, self.ino, self.size, self.mtime_ns) == (
            other.device,
            other.ino,
            other.size,
            other.mtime_ns,
        )


@dataclass(frozen=True, slots=True)
class Status:
    """What is at a path."""

    key: StatKey
    mode: int
    uid: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_open_to_all(self) -> bool:
        """Whether every user of this machine may read it, as far as its own mode goes."""
        wanted = stat.S_IROTH | (stat.S_IXOTH if self.is_directory else 0)
        return self.is_link or self.mode & wanted == wanted


@functools.lru_cache(maxsize=4096)  # a look asks a dozen times, a label costs microseconds
def published_path(path: str) -> str | None:
    """Return the path under which others see a local path, or None if it stays private.

    Others accept normal form C alone, so a name in form D (macOS makes them) is offered in C.
    """
    return None if why_private(path) is not None else unicodedata.normalize("NFC", path)


def why_private(path: str) -> str | None:
    """Return why a local path stays private by its name, or None if it does not.

    A leading dot is meant to keep it private, and needs no reason: the text is empty.
    """
    if path == "":
        return None
    labels = path.split("/")
    if any(is_private(label) for label in labels):
        return ""
    if any(_TEMPORARY.fullmatch(label) for label in labels):
        return "its name is that of a temporary file"
    if IDENTITY in labels:
        return "its name is that of a servent's secret key"
    try:
        path.encode()
    except UnicodeEncodeError:  # as the file system hands out bytes that are not UTF-8
        return "its name is not UTF-8"
    return check_path(unicodedata.normalize("NFC", path))


def first_private(path: str) -> tuple[str, str]:
    """Return the highest part of a local path that stays private by its name, and why."""
    labels = path.split("/")
    for depth in range(1, len(labels) + 1):
        part = "/".join(labels[:depth])
        reason = why_private(part)
        if reason is not None:
            return part, reason
    return path, ""


def holds_state(names: Collection[str]) -> bool:
    """Return whether a directory with these names is the state directory of a servent."""
    return IDENTITY in names and LOCK in names


def other_forms(path: str) -> list[str]:
    """Return the paths in the same directory that others cannot tell from this one."""
    directory, slash, name = path.rpartition("/")
    forms = {unicodedata.normalize(form, name) for form in ("NFC", "NFD")} - {name}
    return [f"{directory}{slash}{form}" for form in sorted(forms)]


class Share:
    """The files behind `shared/`, wherever they lie."""

    def __init__(
        self, roots: Roots, on_listing: Callable[[str, int], object] | None = None
    ) -> None:
        """Prepare; `on_listing` gets path and descriptor of each directory before its names."""
        self._roots = roots
        self._on_listing = on_listing

    def look(self, path: str) -> Status:
        """Return what is at `path`; raises OSError, also when a link stands in the way."""
        with self._near(path) as (parent, name):
            return _status(os.stat(name, dir_fd=parent, follow_symlinks=False))

    def is_meant(self, path: str, uid: int) -> bool:
        """Return whether this user made what is at `path` through a mount of root's."""
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
        """Return what is at `path`, None if that cannot be told."""
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
        """Return the states of those of these names in a directory that are files."""
        with self._listed(path) as directory:
            found = {name: _lstat(name, directory) for name in names}
        return {
            name: _status(result).key
            for name, result in found.items()
            if result is not None and stat.S_ISREG(result.st_mode)
        }

    @contextmanager
    def _listed(self, path: str) -> Iterator[int]:
        """Open a directory for the time of the block."""
        with self._near(path) as (parent, name):
            descriptor = os.open(name, _STEP_FLAGS, dir_fd=parent)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def read(
        self, path: str, identity: Identity, spans: Iterable[tuple[int, int]]
    ) -> tuple[StatKey, list[bytes]]:
        """Return the state of a file, and what is at each (offset, length) of it.

        Raises:
            MovedError: another file is there.
            ChangedError: it is too short.
            OSError: as the disk says.
        """
        with self.opened(path, identity) as (descriptor, key):
            return key, [_read_exactly(descriptor, offset, length) for offset, length in spans]

    def text(self, path: str, most: int) -> str:
        """Return what a small file of text holds.

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
            status = _status(os.fstat(descriptor))
            if not status.is_file or status.key.identity != identity:
                raise MovedError
            yield descriptor, status.key
        finally:
            os.close(descriptor)

    @contextmanager
    def _near(self, path: str) -> Iterator[tuple[int, str]]:
        """Open the directory that holds `path` for the time of the block; yields it and a name."""
        _check_labels(path)
        with self._roots.opened(path) as (root, rest):
            *above, name = rest.split("/") if rest else ["."]
            descriptor = os.dup(root) if above else root
            try:
                for label in above:
                    below = os.open(label, _STEP_FLAGS, dir_fd=descriptor)
                    os.close(descriptor)
                    descriptor = below
                yield descriptor, name
            finally:
                if above:
                    os.close(descriptor)


class Hashing:
    """One file on its way to a manifest, a bounded step at a time.

    It holds no descriptor between steps, so it can be dropped at any time.
    """

    def __init__(self, share: Share, path: str, key: StatKey, suspicion: int) -> None:
        self._share = share
        self.path = path
        """Where the file is; to be changed when it has been renamed meanwhile."""
        self.key = key
        """The state that is hashed."""
        self.suspicion = suspicion
        """What was suspected of the file when this began; see `Agenda`."""
        self._digests = bytearray()
        self._next_block = 0

    def step(self) -> Manifest | None:
        """Hash the next 16 MiB, or one block if that is more; return the manifest at the end.

        Releases the GIL nearly all the time.

        Raises:
            ChangedError: the file changed since it was looked at.
            OSError: as the disk says.
        """
        size = self.key.size
        last_block = block_count_for(size)
        blocks = max(1, STEP_BYTES // block_bytes_for(size))
        stop = min(self._next_block + blocks, last_block)
        with self._share.opened(self.path, self.key.identity) as (descriptor, key):
            if not key.has_bytes_of(self.key) or (
                self._next_block == 0 and _has_writer(descriptor)
            ):
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
        key = self._share.look(self.path).key
        if not key.has_bytes_of(self.key):
            raise ChangedError
        self.key = key  # it may have been renamed or linked meanwhile
        return Manifest(size, bytes(self._digests))


def _lstat(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return None


def _check_labels(path: str) -> None:
    if path and not _NO_LABELS.isdisjoint(path.split("/")):
        raise OSError(errno.EINVAL, "not a path within the share")


def _status(result: os.stat_result) -> Status:
    key = StatKey(
        result.st_dev & _MAX_INT64,
        result.st_ino & _MAX_INT64,
        result.st_size,
        _clamped(result.st_mtime_ns),
        _clamped(result.st_ctime_ns),
    )
    return Status(key, result.st_mode, result.st_uid)


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
