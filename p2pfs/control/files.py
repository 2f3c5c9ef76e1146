"""The user's own files: those that `get` writes, `publish` copies and `unpublish` removes.

Outside the share they come as descriptors that the client has opened (see `opening`), and
stay the caller's to close. Everything here may block, and may wait for our own mount: a
destination or a source can lie in it. So it is called in threads, never on the trio thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Final

from p2pfs.control.paths import Id, SubtreeName, TreePath
from p2pfs.errors import BadBlockError, NotFoundError, UsageError
from p2pfs.mounts import is_within, read_mounts
from p2pfs.protocol import Manifest, block_bytes_for, block_range, block_span
from p2pfs.roots import Roots
from p2pfs.state import Leftovers, sync_directory

REMOVED_AT_ONCE: Final = 1_000
"""Files that are removed between two checks for cancellation."""

CHUNK_BYTES: Final = 1024**2
"""Bytes that are copied between two reports of progress and checks for cancellation."""

_COPY_PREFIX: Final = ".p2pfs-"
_COPY_SUFFIX_BYTES: Final = 8
"""The prefix of the name of an unfinished copy: dotfiles are never published."""


class DownloadTarget:
    """A download on its way into a file that the client has opened.

    Right blocks of an earlier download, there or at the destination, are used.
    """

    def __init__(self, files: Sequence[int]) -> None:
        """Take the descriptors of the partial file and, if there is any, the destination.

        Raises:
            UsageError: one of them is no regular file.
        """
        self._part = files[0]
        self._leftovers = files
        sizes = [status.st_size for status in map(os.fstat, files) if stat.S_ISREG(status.st_mode)]
        if len(sizes) < len(files):
            raise UsageError("a download goes into a regular file")
        self.has_earlier = len(files) > 1
        """Whether there is anything at the destination."""
        self.earlier_bytes = sizes[-1] if self.has_earlier else 0

    @property
    def has_leftovers(self) -> bool:
        """Whether there are bytes of an earlier download that may be right."""
        return any(os.fstat(file).st_size for file in self._leftovers)

    def earlier_is_right(self, manifest: Manifest) -> bool:
        """Return whether all whole blocks at the destination are right."""
        for index in block_range(manifest.size, 0, self.earlier_bytes):
            offset, length = block_span(manifest.size, index)
            if offset + length <= self.earlier_bytes:
                try:
                    manifest.verify(index, os.pread(self._leftovers[-1], length, offset))
                except BadBlockError:
                    return False
        return True

    def earlier_tail(self, size: int) -> tuple[int, bytes]:
        """Return the offset and the bytes of the last, cut block at the destination."""
        whole = self.earlier_bytes // block_bytes_for(size) * block_bytes_for(size)
        if self.earlier_bytes == size:
            return whole, b""
        return whole, os.pread(self._leftovers[-1], self.earlier_bytes - whole, whole)

    def missing(self, manifest: Manifest, offset: int, length: int) -> list[tuple[int, int]]:
        """Take over the right blocks of a stretch; return the offsets and lengths of the others."""
        spans = (block_span(manifest.size, i) for i in block_range(manifest.size, offset, length))
        return [span for span in spans if not self._take_over(manifest, *span)]

    def _take_over(self, manifest: Manifest, offset: int, length: int) -> bool:
        index = offset // block_bytes_for(manifest.size)
        for file in self._leftovers:
            data = os.pread(file, length, offset)
            with contextlib.suppress(BadBlockError):
                manifest.verify(index, data)
                if file is not self._part:
                    self.write(offset, data)
                return True
        return False

    def write(self, offset: int, data: bytes) -> None:
        """Write a piece of the file."""
        rest = memoryview(data)
        while rest:
            count = os.pwrite(self._part, rest, offset)
            rest, offset = rest[count:], offset + count

    def finish(self, size: int) -> None:
        """Cut off bytes of an earlier download behind the end."""
        os.ftruncate(self._part, size)


class Copying:
    """A file on its way into the share, under a private name until it is whole."""

    def __init__(
        self, source: int, roots: Roots, path: str, mode: int, leftovers: Leftovers
    ) -> None:
        """Open the copy of a descriptor's content; directories above it are made.

        `leftovers` has a note of it until it has its name or is gone.

        Raises:
            UsageError: `path` leads out of the share, or is a directory.
            OSError: the copy cannot be made.
        """
        roots.check_writable(path)
        root, rest = roots.locate(path)
        share = os.path.realpath(root)
        parent = os.path.realpath(os.path.join(share, os.path.dirname(rest)))
        self._target = os.path.join(parent, os.path.basename(rest))
        if os.path.commonpath([share, parent]) != share:
            raise UsageError(f"{path} is not below shared/")
        if os.path.isdir(self._target):
            raise UsageError(f"{path} is the name of a directory in shared/")
        self._new_names_in = [parent]
        while not os.path.isdir(self._new_names_in[-1]):
            self._new_names_in.append(os.path.dirname(self._new_names_in[-1]))
        os.makedirs(parent, exist_ok=True)
        self._source = source
        self.done_bytes = 0
        self.replaced: os.stat_result | None = None
        """The state in which the file was that had the name."""
        status = os.fstat(source)
        self.is_pipe = not stat.S_ISREG(status.st_mode)
        """Whether the source is a pipe, which must be waited for before a read."""
        self.size = status.st_size
        self._temporary = Path(parent, f"{_COPY_PREFIX}{secrets.token_hex(_COPY_SUFFIX_BYTES)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._copy = FileIO(os.open(self._temporary, flags, 0o600), "w")
        self._leftovers = leftovers
        self._inode = os.fstat(self._copy.fileno()).st_ino
        try:
            leftovers.note(os.fspath(self._temporary), self._inode)
            os.fchmod(self._copy.fileno(), mode & 0o777)  # the umask is the client's, and is in it
        except BaseException:
            self.discard()
            raise

    def step(self) -> bool:
        """Copy one chunk; return whether there is more."""
        if self.size:
            copy, source = self._copy.fileno(), self._source
            sent = os.sendfile(copy, source, self.done_bytes, CHUNK_BYTES)
        else:  # a pipe, or one of the files of /proc, which have no size
            data = os.read(self._source, CHUNK_BYTES)
            sent = len(data)
            rest = memoryview(data)
            while rest:
                rest = rest[self._copy.write(rest) :]
        self.done_bytes += sent
        return sent > 0

    def finish(self) -> None:
        """Give the copy its name. Both are on the disk then; a power cut before leaves neither."""
        os.fsync(self._copy.fileno())
        with contextlib.suppress(FileNotFoundError):
            self.replaced = os.lstat(self._target)
        os.replace(self._temporary, self._target)
        for directory in self._new_names_in:
            with contextlib.suppress(PermissionError):  # it may be written to and not be read
                sync_directory(directory)

    def discard(self) -> None:
        """Let go of the copy, and remove it unless it is finished."""
        with contextlib.suppress(OSError):  # a close that fails after a write that did
            self._copy.close()
        self._temporary.unlink(missing_ok=True)
        self._leftovers.forget(os.fspath(self._temporary), self._inode)


def is_temporary(name: str) -> bool:
    """Return whether a file has the name of a copy under way, which no user has given."""
    return name.startswith(_COPY_PREFIX)


class Removal:
    """A file, or a directory with all that is in it, on its way out of the share as by `rm -r`."""

    def __init__(self, roots: Roots, target: TreePath | Id) -> None:
        """Find it; nothing is removed yet.

        Raises:
            NotFoundError: there is none, or only behind a link that leaves the share.
            UsageError: it is the share itself, or no path in it; something is mounted there.
            OSError: it lies in a share that is read only, or whose directory is not there now.
        """
        place, self.path = find_shared(roots, target)
        """Its local path, without symbolic links."""
        self.files = 0
        """How many have gone."""
        self.lost: os.stat_result | None = None
        """The state in which it was, if it is a file."""
        for mount in read_mounts():
            if is_within(mount.place, place):  # a link: its target is outside the share
                raise UsageError(f"{self.path}: {mount.place} is mounted there: unmount it first")
        self._steps = self._remove(place)

    def step(self) -> bool:
        """Remove some of it; return whether there is more.

        Raises:
            OSError: something could not be removed; the rest stays.
        """
        return next(self._steps, False)

    def _remove(self, place: str) -> Iterator[bool]:
        if not os.path.isdir(place) or os.path.islink(place):
            self.lost = os.lstat(place)
            os.unlink(place)
            self.files = 1
            return
        for above, directories, files, at in os.fwalk(place, topdown=False, onerror=_fail):
            for name in files:
                _remove_one(above, name, at)
                self.files += 1
                if self.files % REMOVED_AT_ONCE == 0:
                    yield True
            for name in directories:
                _remove_one(above, name, at)
        os.rmdir(place)


def find_shared(roots: Roots, target: TreePath | Id) -> tuple[str, str]:
    """Return the place and the local path of a file to remove, both without symbolic links.

    Raises:
        NotFoundError: there is none, or only behind a link that leaves the share.
        UsageError: it is the share itself, or no path in it; it is a directory of the user's own.
        OSError: it lies in a share that is read only, or whose directory is not there now.
    """
    if not isinstance(target, TreePath) or target.subtree is not SubtreeName.SHARED:
        raise UsageError(f"{target} is not below shared/")
    roots.check_writable(target.path)
    root, rest = roots.locate(target.path)
    if not rest and target.path:
        raise UsageError(f"{target.path} is shared where it lies: p2pfs unshare {target.path}")
    share = os.path.realpath(root)
    parent, name = os.path.split(os.path.join(share, rest))
    file = os.path.join(os.path.realpath(parent), name)
    if os.path.commonpath([share, file]) != share or not os.path.lexists(file):
        raise NotFoundError(f"{target.path}: no such file in shared/")
    if not target.path:
        raise UsageError("shared/ itself stays: name what is in it")
    if target.must_be_directory and (os.path.islink(file) or not os.path.isdir(file)):
        raise UsageError(f"{target.path} is not a directory")
    if rest != target.path and os.path.isdir(file) and not os.path.islink(file):
        raise UsageError(
            f"{target.path} is a directory that is shared where it lies: remove it there"
        )
    above = target.path.removesuffix(rest)
    return file, above + os.path.relpath(file, share)


def _remove_one(above: str, name: str, at: int) -> None:
    """Remove a name in an open directory: a file, a link, or a directory that is empty by now.

    If something else has taken the place of the directory meanwhile, it stays.
    """
    try:
        try:
            os.unlink(name, dir_fd=at)
        except IsADirectoryError:
            os.rmdir(name, dir_fd=at)
    except OSError as error:
        error.filename = os.path.join(above, name)
        raise


def _fail(error: OSError) -> None:
    raise error
