"""`shared/` through a real mount: the same suite that a plain directory passes."""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.files import RealFiles
from tests.helpers.mountedtree import MountedTree, mounted_tree
from tests.suites.filesystem_suite import FileSystemSuite, errno_of

pytestmark = pytest.mark.fuse

directories = itertools.count()

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
# Of renameat2(2), which Python does not offer.


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedTree]:
    with mounted_tree(tmp_path_factory.mktemp("mount")) as mounted:
        yield mounted
        assert mounted.ask("released")


class TestMountedTree(FileSystemSuite):
    @pytest.fixture
    def files(self, mounted: MountedTree) -> Iterator[RealFiles]:
        directory: Path = mounted.shared / str(next(directories))
        directory.mkdir()
        files = RealFiles(str(directory))
        yield files
        files.close()


def test_a_directory_of_twenty_thousand_files_is_listed_whole(mounted: MountedTree) -> None:
    backing = mounted.backing / "many"
    backing.mkdir()
    names = {f"file number {number}" for number in range(20_000)}
    for name in names:
        (backing / name).touch()

    with os.scandir(mounted.shared / "many") as entries:
        assert {entry.name for entry in entries if entry.is_file()} == names
    (mounted.shared / "many" / "one more").touch()
    assert len(os.listdir(mounted.shared / "many")) == 20_001


# What libfuse 2 does not pass on must fail, and change nothing.


def test_two_files_are_exchanged_by_none_and_lost_by_none(mounted: MountedTree) -> None:
    """A file system that took it for a plain rename would lose one of them."""
    one, two = mounted.shared / "one", mounted.shared / "two"
    one.write_text("1")
    two.write_text("2")
    libc = ctypes.CDLL(None, use_errno=True)

    for flag, code in [(RENAME_EXCHANGE, errno.EINVAL), (RENAME_NOREPLACE, errno.EEXIST)]:
        done = libc.renameat2(-1, bytes(one), -1, bytes(two), flag)
        assert done == -1
        assert ctypes.get_errno() in (code, errno.EINVAL)

    assert (one.read_text(), two.read_text()) == ("1", "2")


def test_room_that_cannot_be_reserved_is_refused_or_there(mounted: MountedTree) -> None:
    with (mounted.shared / "f").open("w+b") as file:
        code = errno_of(os.posix_fallocate, file.fileno(), 0, 10_000)

        assert code in (None, errno.EOPNOTSUPP)
        assert os.fstat(file.fileno()).st_size == (10_000 if code is None else 0)


def test_holes_can_be_asked_for(mounted: MountedTree) -> None:
    """`cp` does; to be told that all is data is right as well."""
    with (mounted.shared / "holes").open("w+b") as file:
        file.truncate(1_000_000)
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) <= 1_000_000
        assert errno_of(os.lseek, file.fileno(), 1_000_000, os.SEEK_DATA) == errno.ENXIO


def test_a_range_is_copied_between_files(mounted: MountedTree) -> None:
    (mounted.shared / "source").write_bytes(b"0123456789" * 1000)
    source, target = mounted.shared / "source", mounted.shared / "target"
    with source.open("rb") as reader, target.open("wb") as writer:
        count = os.copy_file_range(reader.fileno(), writer.fileno(), 10_000)

    assert target.read_bytes() == (b"0123456789" * 1000)[:count]
    assert count


def test_a_mapped_file_is_written_through(mounted: MountedTree) -> None:
    path = mounted.shared / "mapped"
    path.write_bytes(bytes(100_000))

    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[50_000:50_004] = b"here"
        mapped.flush()

    assert path.read_bytes()[49_999:50_005] == b"\0here\0"
    assert (mounted.backing / "mapped").read_bytes() == path.read_bytes()


def test_the_room_shown_is_that_of_the_disk_behind(mounted: MountedTree) -> None:
    mine, behind = os.statvfs(mounted.shared), os.statvfs(mounted.backing)

    for field in ("f_frsize", "f_blocks", "f_files", "f_namemax"):
        assert getattr(mine, field) == getattr(behind, field)
