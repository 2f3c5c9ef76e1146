"""kill -9 at any moment: what is in `shared/`, and what is offered of it, is still right."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from p2pfs.control import VerbError
from p2pfs.protocol.manifest import Manifest
from tests.helpers.leftovers import left_below
from tests.helpers.mounted import Servent, Servents, open_servents, until

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

MOMENTS = 50

VICTIMS = ("crashing", "falling")

LATEST_S = 0.25
"""The writer is cut off after a random part of this, in the midst of some hundred operations."""

DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
"""The last is the kernel's for a call that was just being copied to or from the killed process
(`fuse_dev_do_read` and `fuse_dev_do_write` in fs/fuse/dev.c)."""

FOLDERS = ("", "one/", "two/")
NAMES = 5
LARGEST = 300_000
"""More than the 128 KiB that the kernel writes in one call."""

Files = dict[str, bytes]


def common_beginning(one: bytes, other: bytes) -> bytes:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return one[:index]
    return min(one, other, key=len)


def overwritten(content: bytes, offset: int, data: bytes) -> bytes:
    """Return what a file holds after a write that changes nothing but where it writes."""
    if not data:
        return content
    return content[:offset].ljust(offset, b"\0") + data + content[offset + len(data) :]


class Writer:
    """Changes files below a directory, and keeps what a file system would hold."""

    def __init__(self, directory: Path, word: str, rng: random.Random) -> None:
        self._directory = directory
        self._word = word
        self._rng = rng
        self.files: Files = {}
        """If every operation that returned has happened."""
        self._under_way: list[Files] = []
        """What the one under way may leave, if it is cut off or has just not returned."""
        self._write: tuple[str, int, bytes] | None = None
        """If that is a write: then any beginning of its bytes may have been written."""
        self._held = -1

    def unlike(self, found: Files) -> list[str]:
        """Return the paths that hold what no file system would; none if all is well."""
        possible = [self.files, *self._under_way]
        if self._write is not None:
            path, offset, data = self._write
            begun = common_beginning(found.get(path, b"")[offset:], data)
            possible.append(self.files | {path: overwritten(self.files[path], offset, begun)})
        if found in possible:
            return []
        return sorted(path for path, _ in found.items() ^ self.files.items())

    def resume(self, found: Files) -> None:
        """Take what has been found for what there is."""
        self.files = found
        self._under_way = []
        self._write = None
        self._held = -1

    def work(self, killed: threading.Event) -> None:
        """Go on until the file system dies, which it may only do when it is killed."""
        operations = (
            self._copy_in, self._copy_in, self._replace, self._replace, self._rename,
            self._truncate, self._overwrite, self._append, self._remove, self._hold,
        )  # fmt: skip
        try:
            while True:
                self._rng.choice(operations)()
        except OSError as error:
            if error.errno not in DEAD or not killed.is_set():
                raise
        finally:
            self._let_go()

    # What it does.

    def _copy_in(self) -> None:
        self._fill(self._any_path())

    def _replace(self) -> None:
        """As rsync and editors do: a temporary name first."""
        temporary, path = self._any_path("new "), self._any_path()
        self._fill(temporary)
        self._move(temporary, path)

    def _rename(self) -> None:
        path, target = self._a_file(), self._any_path()
        if path not in ("", target):
            self._move(path, target)

    def _truncate(self) -> None:
        if path := self._a_file():
            size = self._rng.randrange(LARGEST)
            after = self.files[path][:size].ljust(size, b"\0")
            self._do(self.files | {path: after}, os.truncate, self._directory / path, size)

    def _overwrite(self) -> None:
        if path := self._a_file():
            offset = self._rng.randrange(len(self.files[path]) + 1)
            with self._opened(path, 0) as descriptor:
                self._write_all(descriptor, path, offset)

    def _append(self) -> None:
        if path := self._a_file():
            with self._opened(path, os.O_APPEND) as descriptor:
                self._write_all(descriptor, path, len(self.files[path]))

    def _remove(self) -> None:
        if path := self._a_file():
            self._do(self._without(path), os.unlink, self._directory / path)

    def _hold(self) -> None:
        """Have a file open while others rename, replace and remove it."""
        self._let_go()
        if path := self._a_file():
            self._held = os.open(self._directory / path, os.O_RDONLY)

    # How.

    def _do(self, after: Files, call: Callable[..., object], *arguments: object) -> object:
        self._under_way = [after]
        result = call(*arguments)
        self.files = after
        return result

    def _fill(self, path: str) -> None:
        with self._opened(path, os.O_CREAT | os.O_TRUNC) as descriptor:
            for _ in range(self._rng.randrange(4)):
                self._write_all(descriptor, path, len(self.files[path]))

    @contextlib.contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        after = self.files
        if flags & os.O_CREAT:
            after = after | {path: b""}
        descriptor = self._do(after, os.open, self._directory / path, os.O_WRONLY | flags, 0o644)
        assert isinstance(descriptor, int)
        try:
            yield descriptor
        finally:
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _write_all(self, descriptor: int, path: str, offset: int) -> None:
        data = self._rng.randbytes(self._rng.randrange(1, LARGEST))
        while data:
            before = self.files[path]
            self._write = path, offset, data
            count = os.pwrite(descriptor, data, offset)
            self.files = self.files | {path: overwritten(before, offset, data[:count])}
            offset, data = offset + count, data[count:]
        self._write = None

    def _move(self, path: str, target: str) -> None:
        after = self._without(path) | {target: self.files[path]}
        self._do(after, os.rename, self._directory / path, self._directory / target)

    def _let_go(self) -> None:
        if self._held >= 0:
            with contextlib.suppress(OSError):
                os.close(self._held)
            self._held = -1

    def _without(self, path: str) -> Files:
        return {other: content for other, content in self.files.items() if other != path}

    def _any_path(self, prefix: str = "") -> str:
        return f"{self._rng.choice(FOLDERS)}{prefix}{self._word} {self._rng.randrange(NAMES)}.bin"

    def _a_file(self) -> str:
        return self._rng.choice(sorted(self.files)) if self.files else ""


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents
    assert left_below(tmp_path) == []


def found_below(directory: Path) -> Files:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def offered_of(observer: Servent, word: str) -> dict[object, object]:
    """Return the file id of every path with this word that another servent is offered."""
    answers: list[dict[str, object]] = []

    def is_answered() -> bool:
        try:
            answers.append(observer.ask("search", words=word))
        except VerbError as error:
            if "too many searches" in str(error):
                return False
            raise
        return True

    until(is_answered)
    return {row["path"]: row["id"] for row in answers[-1]["files"]}


def ids_of(files: Files) -> dict[object, object]:
    return {
        path: Manifest.of(len(content), lambda o, n, c=content: c[o : o + n]).file_id.hex()
        for path, content in files.items()
    }


def kill(victim: Servent, killed: threading.Event) -> None:
    killed.set()
    victim.process.kill()


def crash(servents: Servents, observer: Servent, name: str) -> None:
    """Kill one servent again and again; look at it after each start."""
    rng = random.Random(name)
    victim = servents.start(name, joins=[observer])
    for folder in FOLDERS[1:]:
        (victim.shared / folder).mkdir()
    writer = Writer(victim.shared, name, rng)

    for _ in range(MOMENTS // len(VICTIMS)):
        killed = threading.Event()
        killing = threading.Timer(rng.uniform(0, LATEST_S), kill, (victim, killed))
        killing.start()
        writer.work(killed)
        killing.join()
        victim.wait()

        victim = servents.start(name, joins=[observer])
        found = found_below(victim.shared)
        assert writer.unlike(found) == []
        ids = ids_of(found)

        def is_all_offered(ids: dict[object, object] = ids) -> bool:
            offered = offered_of(observer, name)
            assert offered.items() <= ids.items()
            return offered == ids

        until(is_all_offered)
        writer.resume(found)


def test_fifty_crashes_lose_no_file_and_offer_no_wrong_one(servents: Servents) -> None:
    observer = servents.start("observer", mounted=False)
    with ThreadPoolExecutor() as pool:  # starting takes most of the time, on one core each
        crashes = [pool.submit(crash, servents, observer, name) for name in VICTIMS]
    for done in crashes:
        done.result()
