"""`shared/` through a real mount: the same suite that a plain directory passes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from p2pfs.allocation import KEEP_SIZE, PUNCH_HOLE, allocate
from tests.helpers.files import RealFiles
from tests.helpers.mountedtree import MountedTree, mounted_tree
from tests.suites.filesystem_suite import FileSystemSuite, errno_of

pytestmark = pytest.mark.fuse

directories = itertools.count()

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
# Of renameat2(2), which Python does not offer.

FS_IOC_SETFLAGS = 0x40086602
FS_APPEND_FL = 0x20
# Of <linux/fs.h>.


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


# Who may do what. The mount is its user's alone, and the kernel asks us.


def test_access_is_what_the_disk_says(mounted: MountedTree) -> None:
    program = mounted.shared / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    assert os.access(program, os.R_OK | os.W_OK)
    assert not os.access(program, os.X_OK)
    program.chmod(0o755)
    assert os.access(program, os.X_OK)
    assert os.access(mounted.shared, os.R_OK | os.W_OK | os.X_OK)


def test_access_to_what_others_share_is_for_reading(mounted: MountedTree) -> None:
    network = mounted.mountpoint / "network"
    assert os.access(network / "cached.txt", os.R_OK)
    assert not os.access(network / "cached.txt", os.W_OK)
    assert not os.access(network / "cached.txt", os.X_OK)
    assert os.access(network / "films", os.R_OK | os.X_OK)
    assert not os.access(network, os.W_OK)
    assert not os.access(mounted.mountpoint, os.W_OK)


CAPABILITY = struct.pack("<IIIII", 0x0200_0001, 1 << 10, 0, 0, 0)
"""The extended attribute that lets a program open ports below 1024 (linux/capability.h)."""


def test_a_program_that_is_written_has_no_privileges_any_more(mounted: MountedTree) -> None:
    backing = mounted.backing / "privileged"
    backing.write_bytes(b"old")
    try:
        os.setxattr(backing, "security.capability", CAPABILITY)
    except OSError as error:
        pytest.skip(f"only root gives privileges, on a disk that has them: {error.strerror}")

    with open(mounted.shared / "privileged", "r+b", buffering=0) as file:
        file.write(b"n")
        file.write(b"e")

    assert backing.read_bytes() == b"ned"
    assert "security.capability" not in os.listxattr(backing)


@pytest.mark.parametrize("name", ["security.selinux", "system.posix_acl_access"])
def test_a_program_learns_at_once_that_the_system_has_no_attributes(
    mounted: MountedTree, name: str
) -> None:
    """`ls -l` asks for both of the first file, and of no other after ENOTSUP."""
    (mounted.shared / "file").touch()
    for path in (mounted.shared / "file", mounted.mountpoint / "network" / "cached.txt"):
        assert errno_of(os.getxattr, path, name) == errno.ENOTSUP


# Room that is reserved, and given back.


def test_room_is_reserved_and_given_back_as_on_the_disk(mounted: MountedTree) -> None:
    """Each call to the mount has the result that it has on the disk, whatever that can do."""
    content = os.urandom(100_000)
    seen = []
    for directory in (mounted.shared, mounted.backing):
        path = directory / f"room of {directory.name}"
        path.write_bytes(content)
        with path.open("r+b") as file:
            codes = [
                errno_of(allocate, file.fileno(), mode, offset, length)
                for mode, offset, length in (
                    (0, 0, 200_000),
                    (KEEP_SIZE, 0, 400_000),
                    (PUNCH_HOLE | KEEP_SIZE, 8_192, 8_192),
                    (PUNCH_HOLE, 0, 4_096),
                    (0, 0, 0),
                    (0, -1, 10),
                    (0, 0, 2**62),
                )
            ]
            file.seek(0)
            status = os.fstat(file.fileno())
            seen.append((codes, status.st_size, status.st_blocks, file.read()))
        with path.open("rb") as file:
            seen[-1][0].append(errno_of(allocate, file.fileno(), 0, 0, 10))

    assert seen[0] == seen[1]
    assert seen[0][0][:3] == [None, None, None]
    assert seen[0][3][:16_384] == content[:8_192] + bytes(8_192)


def test_room_may_be_reserved_in_a_file_that_was_removed(mounted: MountedTree) -> None:
    path = mounted.shared / "removed"
    with path.open("w+b") as file:
        path.unlink()
        os.posix_fallocate(file.fileno(), 0, 10_000)

        assert os.fstat(file.fileno()).st_size == 10_000


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


# What is open and loses its name.


@contextlib.contextmanager
def changes_of(directory: Path) -> Iterator[list[str]]:
    """Give a list that holds, after the block, what happened to the names in a directory."""
    changes: list[str] = []
    with INotify() as watch:
        watch.add_watch(directory, flags.MOVED_FROM | flags.MOVED_TO | flags.DELETE | flags.CREATE)
        yield changes
        changes += [
            f"{one.name} {event.name}"
            for event in watch.read(timeout=0)
            for one in flags.from_mask(event.mask)
        ]


def test_a_file_that_is_open_is_replaced_by_one_rename_on_the_disk(mounted: MountedTree) -> None:
    """So whenever the servent is killed, the old content has that name, or the new one."""
    (mounted.shared / "replaced").mkdir()
    document, draft = (mounted.shared / "replaced" / name for name in ("document", "draft"))
    document.write_bytes(b"old")
    draft.write_bytes(b"new one")

    with document.open("r+b", buffering=0) as opened:
        with changes_of(mounted.backing / "replaced") as changes:
            draft.rename(document)

        assert changes == ["MOVED_FROM draft", "MOVED_TO document"]
        assert document.read_bytes() == b"new one"
        assert opened.read() == b"old"
        opened.write(b" still")
        assert (os.fstat(opened.fileno()).st_size, os.fstat(opened.fileno()).st_nlink) == (9, 0)
        assert os.pread(opened.fileno(), 100, 0) == b"old still"
    assert os.listdir(mounted.backing / "replaced") == ["document"]


def test_a_file_that_is_open_is_removed_by_the_time_that_unlink_returns(
    mounted: MountedTree,
) -> None:
    (mounted.shared / "removed").mkdir()
    document = mounted.shared / "removed" / "document"
    document.write_bytes(b"content")

    with document.open("r+b", buffering=0) as opened:
        with changes_of(mounted.backing / "removed") as changes:
            document.unlink()

        assert changes == ["DELETE document"]
        assert os.fstat(opened.fileno()).st_nlink == 0
        document.parent.rmdir()
        os.ftruncate(opened.fileno(), 4)
        assert opened.read() == b"cont"


def test_what_is_open_and_cannot_be_replaced_stays(mounted: MountedTree) -> None:
    document = mounted.shared / "kept"
    document.write_bytes(b"content")

    with document.open("rb", buffering=0) as opened:
        (mounted.shared / "a directory").mkdir()
        assert errno_of(os.rename, mounted.shared / "gone", document) == errno.ENOENT
        assert errno_of(os.rename, mounted.shared / "a directory", document) == errno.ENOTDIR
        assert opened.read() == b"content"
        assert os.fstat(opened.fileno()).st_nlink == 1
    assert document.read_bytes() == b"content"


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_what_is_open_and_stays_on_the_disk_is_told_so(mounted: MountedTree, change: str) -> None:
    """The kernel cannot know that the disk will refuse it."""
    name = f"locked {change}"
    backing, directory = mounted.backing / name, mounted.shared / name
    directory.mkdir()
    (directory / "document").write_bytes(b"content")
    (directory / "draft").write_bytes(b"new")

    with (directory / "document").open("r+b", buffering=0) as opened, append_only(backing):
        if change == "removed":
            assert errno_of((directory / "document").unlink) == errno.EPERM
        else:
            draft = directory / "draft"
            assert errno_of(draft.rename, directory / "document") == errno.EPERM
        assert (backing / "document").read_bytes() == b"content"
        assert (directory / "document").read_bytes() == b"content"
        assert os.fstat(opened.fileno()).st_size == len(b"content")
        assert opened.read() == b"content"
    assert (backing / "document").read_bytes() == b"content"


@contextlib.contextmanager
def append_only(directory: Path) -> Iterator[None]:
    """Let no name in a directory be removed nor taken, as `chattr +a` does."""
    change_attributes(directory, set_them=FS_APPEND_FL)
    try:
        yield
    finally:
        change_attributes(directory, set_them=0)


def change_attributes(directory: Path, *, set_them: int) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("=i", set_them))
    except OSError as error:
        pytest.skip(f"needs root and a disk that knows it: {error}")
    finally:
        os.close(descriptor)
