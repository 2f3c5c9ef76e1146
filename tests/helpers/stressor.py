"""A program that does random things in a mount for some time, and checks what it reads.

    python -m tests.helpers.stressor MOUNTPOINT NUMBER SECONDS

Prints as JSON how often it did what, and how often which error came of it. Ends with a
traceback if a byte is wrong, if a call fails as it must not, or if a call does not end.

What others share tells by its name what it holds (`content_of`), so that it can be checked
wherever it appears. In `shared/` each program has a folder of its own, and all have one
together, where anything may have happened to a file meanwhile.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import faulthandler
import functools
import json
import mmap
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

HANG_S = 60.0
"""A call that takes this much longer than all was to take hangs."""

OWNED = 40
"""How many files others share."""

LARGEST_BYTES = 8_000_000
"""With so many files of up to that size the smallest cache is too small."""

NAMES = 6
"""Names in a folder of `shared/`; so few that programs and operations meet."""

WORDS = (
    "stress",
    "even",
    "odd",
    "stress ext:bin",
    "stress -odd",
    '"stress even"',
    "stress size:>10k",
)

MISSED = {errno.ENOENT, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ESTALE, errno.EBUSY}
"""What may come of reading from peers that go."""

CROSSED = {
    errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR,
    errno.EPERM,  # to link a directory
}  # fmt: skip
"""What may come of changing what others change."""


@functools.cache
def owned_names() -> tuple[str, ...]:
    """Return the paths of what others share."""
    parity = ("even", "odd")
    return tuple(f"stress {parity[n % 2]}/{n} {parity[n % 2]}.bin" for n in range(OWNED))


def content_of(name: str) -> bytes:
    """Return what a file of this name holds, wherever it is shown."""
    rng = random.Random(name)
    return rng.randbytes(int(LARGEST_BYTES * rng.random() ** 3))


class Stressor:
    """One program."""

    def __init__(self, mountpoint: Path, number: int) -> None:
        self._rng = random.Random(number)
        self._shared = mountpoint / "shared"
        self._mountpoint = mountpoint
        self._mine = self._shared / f"mine {number}"
        self._mine.mkdir(exist_ok=True)
        self._files: dict[Path, bytes] = {}
        for path in self._mine.iterdir():
            path.unlink()
        self.counts: collections.Counter[str] = collections.Counter()

    def run(self, seconds: float) -> None:
        """Do one thing after the other, for so long."""
        ends_at = time.monotonic() + seconds
        steps: list[tuple[Callable[[], None], set[int]]] = [
            (self._change_mine, set()),
            (self._change_mine, set()),
            (self._change_common, CROSSED),
            (self._read_network, MISSED),
            (self._look_around, MISSED),
            (self._search, MISSED | {errno.EEXIST}),
            (self._visit_peers, MISSED),
        ]
        while time.monotonic() < ends_at:
            step, allowed = self._rng.choice(steps)
            name = step.__name__.strip("_")
            self.counts[name] += 1
            try:
                step()
            except OSError as error:
                if error.errno not in allowed:
                    raise
                self.counts[f"{name} {errno.errorcode[error.errno]}"] += 1
        for path, content in self._files.items():
            assert path.read_bytes() == content, path

    # shared/

    def _change_mine(self) -> None:
        path = self._mine / f"{self._rng.randrange(NAMES)}"
        content = self._files.get(path)
        if content is None:
            self._files[path] = self._some_bytes()
            path.write_bytes(self._files[path])
            return
        change = self._rng.choice((self._overwrite, self._truncate, self._rename, self._remove))
        change(path, content)
        for each in {path, *self._rng.sample(sorted(self._files), min(1, len(self._files)))}:
            if each in self._files:
                assert each.stat().st_size == len(self._files[each]), each
                assert self._read(each) == self._files[each], each
        found = {*self._mine.iterdir()}
        assert {*self._files} == found, {*self._files} ^ found

    def _overwrite(self, path: Path, content: bytes) -> None:
        offset, data = self._rng.randrange(len(content) + 1000), self._some_bytes()
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
            if self._rng.random() < 0.1:
                file.flush()
                os.fsync(file.fileno())
        if data:
            content = content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]
        self._files[path] = content

    def _truncate(self, path: Path, content: bytes) -> None:
        size = self._rng.randrange(2 * len(content) + 1)
        os.truncate(path, size)
        self._files[path] = content[:size].ljust(size, b"\0")

    def _rename(self, path: Path, _content: bytes) -> None:
        target = self._mine / f"{self._rng.randrange(NAMES)}"
        path.rename(target)
        self._files[target] = self._files.pop(path)

    def _remove(self, path: Path, content: bytes) -> None:
        with path.open("rb") as file:
            path.unlink()
            assert file.read() == content, path
        del self._files[path]

    def _change_common(self) -> None:
        one, other = (
            self._shared / f"common {self._rng.randrange(2)}" / f"{self._rng.randrange(NAMES)}"
            for _ in range(2)
        )
        change = self._rng.choice(
            (
                lambda: one.write_bytes(self._some_bytes()),
                one.read_bytes,
                lambda: one.rename(other),
                one.unlink,
                one.parent.mkdir,
                one.parent.rmdir,
                lambda: os.link(one, other),
                one.mkdir,
                one.rmdir,
                lambda: list(one.parent.iterdir()),
                lambda: os.utime(one),
            )
        )
        change()

    def _some_bytes(self) -> bytes:
        return self._rng.randbytes(int(300_000 * self._rng.random() ** 4))

    # What others share.

    def _read_network(self) -> None:
        self._check(self._mountpoint / "network" / self._rng.choice(owned_names()))

    def _look_around(self) -> None:
        for directory, _, names in os.walk(self._mountpoint / "network"):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    os.stat(os.path.join(directory, name))
        assert (self._mountpoint / ".p2pfs" / "status").read_bytes()

    def _search(self) -> None:
        search = self._mountpoint / "search" / self._rng.choice(WORDS)
        if self._rng.random() < 0.2:
            self._rng.choice((search.mkdir, search.rmdir))()
        self._check_one_of([path for path in search.iterdir() if path.suffix == ".bin"])

    def _visit_peers(self) -> None:
        peers = list((self._mountpoint / "peers").iterdir())
        if peers:
            folder = self._rng.choice(peers) / Path(self._rng.choice(owned_names())).parent
            self._check_one_of(list(folder.iterdir()))

    def _check_one_of(self, paths: list[Path]) -> None:
        if paths:
            self._check(self._rng.choice(sorted(paths)))

    def _check(self, path: Path) -> None:
        """Read all of a file, or a piece somewhere in it."""
        content = content_of(path.name)
        if self._rng.random() < 0.5:
            assert self._read(path) == content, path
            return
        offset, size = self._rng.randrange(len(content) + 1), self._rng.randrange(200_000)
        with path.open("rb") as file:
            file.seek(offset)
            assert file.read(size) == content[offset : offset + size], (path, offset, size)

    def _read(self, path: Path) -> bytes:
        with path.open("rb") as file:
            # A mapped page that peers do not give would be the end of the program.
            if path.is_relative_to(self._mine) and self._rng.random() < 0.2:
                with contextlib.suppress(ValueError):  # an empty file
                    return bytes(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return file.read()


def main(mountpoint: str, number: str, seconds: str) -> None:
    faulthandler.dump_traceback_later(float(seconds) + HANG_S, exit=True)
    stressor = Stressor(Path(mountpoint), int(number))
    stressor.run(float(seconds))
    json.dump(stressor.counts, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
