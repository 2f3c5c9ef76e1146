"""A disk whose power can fail: what was synced is there afterwards, and any part of the rest.

`power_may_fail` looks at real files before and after each system call that makes, names or syncs
one. A file that was not synced may be empty, zeros, half there, either half, or whole;
a directory that was not synced may have any of the names that it has had since it was. `Cut`
writes each such disk into a directory of its own.

Calls are seen that go through `os`: what SQLite or a buffered file writes is seen at the next.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

Contents = Mapping[str, int] | bytes
"""The names in a directory and the inodes behind them, or the bytes of a file."""

Tree = bytes | dict[str, "Tree"]
"""The same with what is behind the names."""

LOOKED_AT = ("open", "write", "pwrite", "ftruncate", "replace", "rename", "unlink", "link", "mkdir")
"""Calls before and after which the power may fail."""

SYNCS = ("fsync", "fdatasync")


@dataclass
class _Inode:
    """Everything that the disk may hold of a file or directory."""

    since_sync: list[Contents]
    """The first is sure to be there, unless a later one is."""

    def saw(self, contents: Contents) -> None:
        if contents != self.since_sync[-1]:
            self.since_sync.append(contents)

    def synced(self) -> None:
        del self.since_sync[:-1]

    def possible(self) -> list[Contents]:
        last = self.since_sync[-1]
        if isinstance(last, bytes) and len(self.since_sync) > 1:
            half = len(last) // 2
            torn = [bytes(len(last)), last[:half], bytes(half) + last[half:]]
            return [*self.since_sync, *torn]
        return list(self.since_sync)


@dataclass
class Cut:
    """One moment at which the power may fail."""

    root: int
    inodes: dict[int, list[Contents]]
    is_done: bool
    """Whether the action had returned by then."""

    def disks(self, place: Path) -> Iterator[Path]:
        """Write each disk that is possible into a new directory below `place`."""
        for number, tree in enumerate(self._trees(self.root)):
            disk = place / str(number)
            _write(disk, tree)
            yield disk

    def _trees(self, inode: int) -> Iterator[Tree]:
        for contents in self.inodes[inode]:
            if isinstance(contents, bytes):
                yield contents
                continue
            below = [list(self._trees(child)) for child in contents.values()]
            for chosen in itertools.product(*below):
                yield dict(zip(contents, chosen, strict=True))


def _write(path: Path, tree: Tree) -> None:
    if isinstance(tree, bytes):
        path.write_bytes(tree)
        path.chmod(0o600)
        return
    path.mkdir(mode=0o700, parents=True)
    for name, below in tree.items():
        _write(path / name, below)


@dataclass
class Recorder:
    """Looks at one directory while something is done in it."""

    directory: Path
    names: Collection[str] = ()
    cuts: list[Cut] = field(default_factory=list)
    _inodes: dict[int, _Inode] = field(default_factory=dict)
    _held: list[int] = field(default_factory=list)
    """Descriptors of all that was seen, so that no inode's number is given away anew."""
    _is_looking: bool = False

    def start(self) -> None:
        """Take what is there for synced."""
        self.look()
        for inode in self._inodes.values():
            inode.synced()
        self.cuts.clear()

    def synced(self, descriptor: int) -> None:
        """Note that what a descriptor stands for has reached the disk as it is now."""
        inode = self._inodes.get(os.fstat(descriptor).st_ino)
        if inode is not None:
            inode.synced()

    def close(self) -> None:
        for descriptor in self._held:
            os.close(descriptor)

    def look(self, *, is_done: bool = False) -> None:
        """Note that the power may fail now."""
        if self._is_looking:
            return
        self._is_looking = True
        try:
            root = self._look_at(self.directory)
        finally:
            self._is_looking = False
        inodes = {number: inode.possible() for number, inode in self._inodes.items()}
        self.cuts.append(Cut(root, inodes, is_done))

    def _names_in(self, path: Path) -> list[str]:
        names = sorted(below.name for below in path.iterdir())
        is_all = path != self.directory or not self.names
        return names if is_all else [name for name in names if name in self.names]

    def _look_at(self, path: Path) -> int:
        status = path.lstat()
        contents: Contents
        if stat.S_ISDIR(status.st_mode):
            contents = {name: self._look_at(path / name) for name in self._names_in(path)}
        else:
            contents = path.read_bytes()
        if status.st_ino in self._inodes:
            self._inodes[status.st_ino].saw(contents)
        else:
            self._held.append(os.open(path, os.O_RDONLY))
            empty: Contents = b"" if isinstance(contents, bytes) else {}
            self._inodes[status.st_ino] = _Inode([empty])
            self._inodes[status.st_ino].saw(contents)
        return status.st_ino


@contextlib.contextmanager
def power_may_fail(directory: Path, names: Collection[str] = ()) -> Iterator[list[Cut]]:
    """Yield a list that at the end holds each moment at which the power may have failed.

    The last is the one after the block. What is in `directory` before it is on the disk. With
    `names`, only these are looked at in the directory; give the temporary ones too.
    """
    recorder = Recorder(directory, names)
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(recorder):
        recorder.start()
        for name in LOOKED_AT:
            patch.setattr(os, name, _looked_at(getattr(os, name), recorder))
        for name in SYNCS:
            patch.setattr(os, name, _syncing(getattr(os, name), recorder))
        yield recorder.cuts
        patch.undo()
        recorder.look(is_done=True)


Found = TypeVar("Found")


def check_cuts(
    cuts: Sequence[Cut], place: Path, load: Callable[[Path], Found], old: Found, new: Found
) -> None:
    """Assert that each disk holds what was there before, or what was written; at last the latter.

    The disks are written below `place`, and `load` is given the directory on each of them.
    """
    for number, cut in enumerate(cuts):
        for disk in cut.disks(place / str(number)):
            found = load(disk)
            assert found == new or (found == old and not cut.is_done), (number, disk)


def _looked_at(call: Callable[..., Any], recorder: Recorder) -> Callable[..., Any]:
    def looked_at(*arguments: object, **options: object) -> object:
        recorder.look()
        result = call(*arguments, **options)
        recorder.look()
        return result

    return looked_at


def _syncing(call: Callable[[int], None], recorder: Recorder) -> Callable[[int], None]:
    def syncing(descriptor: int) -> None:
        recorder.look()
        call(descriptor)
        recorder.synced(descriptor)
        recorder.look()

    return syncing
