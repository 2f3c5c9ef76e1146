"""Whatever a call raises, its caller gets an errno and the mount lives on."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.mountedtree import EXCEPTIONS, MountedTree, expected_errno, mounted_tree
from tests.suites.filesystem_suite import errno_of

pytestmark = pytest.mark.fuse

numbers = itertools.count()


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedTree]:
    with mounted_tree(tmp_path_factory.mktemp("mount")) as mounted:
        yield mounted


class Stage:
    """One fresh file, directory and link, made behind the kernel's back, and a free name."""

    def __init__(self, mounted: MountedTree) -> None:
        name = str(next(numbers))
        backing = mounted.backing / name
        backing.mkdir()
        (backing / "file").write_bytes(b"0123456789" * 10)
        (backing / "directory").mkdir()
        (backing / "link").symlink_to("target")
        os.setxattr(backing / "file", "user.x", b"1")
        self.directory: Path = mounted.shared / name
        self.file = self.directory / "file"
        self.free = self.directory / "free"
        assert self.file.stat().st_size == 100

    def with_file(self, use: Callable[[int], object], flags: int = os.O_RDWR) -> None:
        descriptor = os.open(self.file, flags)
        try:
            use(descriptor)
        finally:
            os.close(descriptor)


CALLS: dict[str, Callable[[Stage], object]] = {
    "getattr": lambda stage: os.stat(stage.directory / "link", follow_symlinks=False),
    "readdir": lambda stage: os.listdir(stage.directory),
    "readlink": lambda stage: os.readlink(stage.directory / "link"),
    "getxattr": lambda stage: os.getxattr(stage.file, "user.x"),
    "listxattr": lambda stage: os.listxattr(stage.file),
    "statfs": lambda stage: os.statvfs(stage.directory),
    "open": lambda stage: os.open(stage.file, os.O_RDONLY),
    "create": lambda stage: os.open(stage.free, os.O_WRONLY | os.O_CREAT),
    "truncate": lambda stage: os.truncate(stage.file, 5),
    "mknod": lambda stage: os.mkfifo(stage.free),
    "mkdir": lambda stage: stage.free.mkdir(),
    "unlink": lambda stage: stage.file.unlink(),
    "rmdir": lambda stage: (stage.directory / "directory").rmdir(),
    "rename": lambda stage: stage.file.rename(stage.free),
    "link": lambda stage: stage.free.hardlink_to(stage.file),
    "symlink": lambda stage: stage.free.symlink_to("target"),
    "chmod": lambda stage: stage.file.chmod(0o600),
    "chown": lambda stage: os.chown(stage.file, os.geteuid(), os.getegid()),
    "utimens": lambda stage: os.utime(stage.file),
    "setxattr": lambda stage: os.setxattr(stage.file, "user.y", b""),
    "removexattr": lambda stage: os.removexattr(stage.file, "user.x"),
    "fsyncdir": lambda stage: fsync_directory(stage.directory),
    "file.getattr": lambda stage: os.open(stage.free, os.O_WRONLY | os.O_CREAT),
    "file.read": lambda stage: stage.with_file(lambda descriptor: os.pread(descriptor, 100, 0)),
    "file.write": lambda stage: stage.with_file(lambda descriptor: os.pwrite(descriptor, b"x", 0)),
    "file.truncate": lambda stage: stage.with_file(lambda descriptor: os.ftruncate(descriptor, 1)),
    "file.flush": lambda stage: stage.with_file(lambda descriptor: None),
    "file.fsync": lambda stage: stage.with_file(os.fsync),
}

LATE_CALLS = ("getattr", "readdir", "getxattr", "listxattr", "open", "file.read")
"""Those that may wait for the network."""

LATE_KINDS = [kind for kind, make in EXCEPTIONS.items() if isinstance(make(), Exception)]
"""The rest ends trio, and the mount with it: that has tests of its own."""


def fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def errno_of_fault(
    mounted: MountedTree, operation: str, kind: str, stage: Stage, *, is_late: bool
) -> int | None:
    """Return the errno of a call in which the tree, or the wait for it, raises an exception."""
    mounted.ask("fault", operation, kind, is_late)
    try:
        return errno_of(CALLS[operation], stage)
    finally:
        mounted.ask("fault", "", "", False)


@pytest.mark.parametrize("operation", CALLS)
def test_every_exception_of_a_call_becomes_its_errno(mounted: MountedTree, operation: str) -> None:
    for kind in EXCEPTIONS:
        stage = Stage(mounted)

        code = errno_of_fault(mounted, operation, kind, stage, is_late=False)

        assert (kind, code) == (kind, expected_errno(kind))
        assert stage.directory.stat()


@pytest.mark.parametrize("operation", LATE_CALLS)
def test_every_exception_of_a_wait_becomes_its_errno(mounted: MountedTree, operation: str) -> None:
    for kind in LATE_KINDS:
        stage = Stage(mounted)

        code = errno_of_fault(mounted, operation, kind, stage, is_late=True)

        assert (kind, code) == (kind, expected_errno(kind))


@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (5, 16), reason="the kernel always asks"
)
def test_a_file_that_nobody_writes_is_closed_without_a_question(mounted: MountedTree) -> None:
    path = mounted.shared.parent / "network" / "cached.txt"

    mounted.ask("fault", "file.flush", "an errno", False)
    data = path.read_bytes()
    with open(path, "rb") as file:
        os.close(os.dup(file.fileno()))
    code = errno_of(CALLS["file.flush"], Stage(mounted))
    mounted.ask("fault", "", "", False)

    assert data == b"cached"
    assert code == expected_errno("an errno")


def test_a_failed_release_is_nobodys_business(mounted: MountedTree) -> None:
    stage = Stage(mounted)

    mounted.ask("fault", "file.release", "KeyboardInterrupt", False)
    stage.with_file(lambda descriptor: os.pread(descriptor, 1, 0))
    mounted.ask("fault", "", "", False)

    assert stage.file.read_bytes() == b"0123456789" * 10


def test_a_copy_that_fails_in_the_middle_says_so(mounted: MountedTree) -> None:
    """A short read would end `cat` with success and a wrong file."""
    stage = Stage(mounted)
    with stage.file.open("ab") as file:
        file.truncate(1_000_000)
    descriptor = os.open(stage.file, os.O_RDONLY)
    assert len(os.read(descriptor, 300_000)) == 300_000

    mounted.ask("fault", "file.read", "a timeout without errno", False)
    code = errno_of(os.pread, descriptor, 300_000, 700_000)
    mounted.ask("fault", "", "", False)

    assert code == errno.EIO
    assert os.fstat(descriptor).st_size == 1_000_000
    os.close(descriptor)


def test_bugs_are_logged_with_their_traceback(mounted: MountedTree) -> None:
    stage = Stage(mounted)

    mounted.ask("fault", "mkdir", "RecursionError", False)
    errno_of(stage.free.mkdir)
    mounted.ask("fault", "", "", False)

    assert "operation=mkdir" in mounted.log()
    assert "RecursionError" in mounted.log()
