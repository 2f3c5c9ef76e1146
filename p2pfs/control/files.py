"""The user's own files: what `get` writes, `publish` copies, `unpublish` removes.

Everything here may block, and may wait for our own mount: a destination or a source can lie
in it. So it is called in threads, never on the trio thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from io import FileIO
from pathlib import Path
from typing import Final

from p2pfs.control.paths import Id, Subtree, TreePath
from p2pfs.errors import BadBlockError, NotFoundError, UsageError
from p2pfs.protocol import Manifest, block_bytes_for, block_range, block_span

CHUNK_BYTES: Final = 1024**2
"""Bytes between two looks at progress and cancellation."""

PART_SUFFIX: Final = ".part"
"""Of a file that is not complete yet. Files of this name are never published."""

_TEMPORARY_BYTES: Final = 8
_TEMPORARY: Final = re.compile(rf"\.p2pfs-[0-9a-f]{{{2 * _TEMPORARY_BYTES}}}")
"""The name of a copy that is not whole yet. No dotfile is ever published."""


class Incoming:
    """A download on its way to `destination`, or into it if that is a directory.

    It grows under the name `destination.part`, so that a whole file is a complete one. What an
    earlier download left there, or under the destination's own name, is used as far as it is
    right. What is not complete stays for the next one.
    """

    def __init__(self, destination: str, path: str) -> None:
        """Open the partial file; UsageError if another download is writing it."""
        if os.path.isdir(destination):
            destination = os.path.join(destination, path.rpartition("/")[2])
        self.destination = destination
        self._part = destination + PART_SUFFIX
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = FileIO(os.open(self._part, flags, 0o666), "r+")
        self._is_finished = False
        try:
            # Unlike O_EXCL, a lock does not mind what a killed servent left behind.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UsageError(f"another get is writing {destination}") from error
        earlier = _open_regular(destination)
        self._leftovers = [self._file] if earlier is None else [self._file, earlier]

    @property
    def has_leftovers(self) -> bool:
        """Whether there is anything of an earlier download that may be right."""
        return any(_size(file) for file in self._leftovers)

    @property
    def kept_at(self) -> str | None:
        """Where there is something for the next download, if this one does not go on."""
        return self._part if _size(self._file) else None

    def missing(self, manifest: Manifest, offset: int, length: int) -> list[tuple[int, int]]:
        """Take over what is there of a stretch of whole blocks; return where the others are."""
        spans = (block_span(manifest.size, i) for i in block_range(manifest.size, offset, length))
        return [span for span in spans if not self._take_over(manifest, *span)]

    def _take_over(self, manifest: Manifest, offset: int, length: int) -> bool:
        index = offset // block_bytes_for(manifest.size)
        for file in self._leftovers:
            data = os.pread(file.fileno(), length, offset)
            with contextlib.suppress(BadBlockError):
                manifest.verify(index, data)
                if file is not self._file:
                    self.write(offset, data)
                return True
        return False

    def write(self, offset: int, data: bytes) -> None:
        """Write a piece of the file."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(self._file.fileno(), rest, offset)
            rest, offset = rest[count:], offset + count

    def finish(self, size: int) -> None:
        """Give the complete file its name, in place of what had it."""
        self._file.truncate(size)
        os.replace(self._part, self.destination)
        self._is_finished = True

    def close(self) -> None:
        """Let go of the file, and remove it if there is nothing in it for the next download."""
        if not self._is_finished:
            with contextlib.suppress(OSError):
                if not _size(self._file):
                    os.unlink(self._part)
        for file in self._leftovers:
            with contextlib.suppress(OSError):  # a close that fails after a write that did
                file.close()


def _open_regular(path: str) -> FileIO | None:
    """Open a file to read it, if there is one that is no link, device or FIFO."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = FileIO(os.open(path, flags), "r")
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        return None
    return file


def _size(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


class Copying:
    """A file on its way into the share, under a private name until it is whole."""

    def __init__(self, source: str, target: Path) -> None:
        """Open both ends.

        Raises:
            UsageError: the source is not a regular file.
            OSError: one of them cannot be opened.
        """
        if target.is_dir():
            raise UsageError(f"{target.name} is the name of a directory in shared/")
        self.done_bytes = 0
        self._target = target
        self._temporary = target.with_name(f".p2pfs-{secrets.token_hex(_TEMPORARY_BYTES)}")
        # Not to wait for the other end of a FIFO.
        self._source = os.fdopen(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
        status = os.fstat(self._source.fileno())
        self.size = status.st_size
        try:
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{source} is not a regular file")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._copy = os.fdopen(os.open(self._temporary, flags, status.st_mode & 0o777), "wb")
        except BaseException:
            self._source.close()
            raise

    def step(self) -> bool:
        """Copy one chunk; return whether there is more."""
        sent = os.sendfile(self._copy.fileno(), self._source.fileno(), None, CHUNK_BYTES)
        self.done_bytes += sent
        return sent > 0

    def finish(self) -> None:
        """Give the copy its name, in place of what had it."""
        os.replace(self._temporary, self._target)

    def discard(self) -> None:
        """Let go of both files, and remove the copy unless it is finished."""
        self._source.close()
        self._copy.close()
        self._temporary.unlink(missing_ok=True)


def remove_temporaries(share: Path) -> None:
    """Remove what was on its way into the share when a servent was killed."""
    for path in share.glob(".p2pfs-*"):
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def find_shared(root: Path, target: TreePath | Id) -> str:
    """Return the path below the share, without symbolic links, of a file that is to go.

    Raises:
        NotFoundError: there is none, or only behind a link that leaves the share.
        UsageError: it is a directory, or is no path in the share.
    """
    if not isinstance(target, TreePath) or target.subtree is not Subtree.SHARED:
        raise UsageError(f"{target} is not below shared/")
    share = os.path.realpath(root)
    parent, name = os.path.split(os.path.join(share, target.path))
    file = os.path.join(os.path.realpath(parent), name)
    if os.path.commonpath([share, file]) != share or not os.path.lexists(file):
        raise NotFoundError(f"{target.path}: no such file in shared/")
    if os.path.isdir(file) and (target.must_be_directory or not os.path.islink(file)):
        raise UsageError(f"{target.path} is a directory: remove it in the mount")
    if target.must_be_directory:
        raise UsageError(f"{target.path} is a file, not a directory")
    return os.path.relpath(file, share)
