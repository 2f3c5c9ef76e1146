"""`shared/` over several directories, called directly."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.config import shared_directory
from p2pfs.filesystem import FileSystem
from p2pfs.roots import Roots
from tests.helpers.disks import mounted_disk
from tests.helpers.faketree import FakeCaller, FakeNetwork, FakeShare
from tests.helpers.files import TreeFiles
from tests.suites.filesystem_suite import FileSystemSuite, errno_of, get, put


@pytest.fixture
def music(tmp_path: Path) -> Path:
    (tmp_path / "Music").mkdir()
    return tmp_path / "Music"


@pytest.fixture
def roots(tmp_path: Path, music: Path) -> Roots:
    (tmp_path / "own").mkdir()
    roots = Roots(tmp_path / "own")
    roots.add(shared_directory(music))
    return roots


@pytest.fixture
def share() -> FakeShare:
    return FakeShare()


@pytest.fixture
def files(roots: Roots, share: FakeShare) -> Iterator[TreeFiles]:
    tree = FileSystem(roots, share, FakeNetwork(), FakeCaller())
    yield TreeFiles(tree)
    tree.close()


class TestASharedDirectory(FileSystemSuite):
    """It is as much of a file system as `shared/` itself."""

    @pytest.fixture
    def files(self, files: TreeFiles) -> TreeFiles:
        return files.below("Music")


def test_what_is_written_lies_where_it_is_shared_and_the_library_hears(
    files: TreeFiles, share: FakeShare, music: Path
) -> None:
    put(files, "Music/song", b"la")

    assert (music / "song").read_bytes() == b"la"
    assert ("ended", "Music/song") in share.forget()
    assert sorted(files.listdir("")) == ["Music"]
    assert files.stat("Music").st_ino == music.stat().st_ino


def test_its_name_stays(files: TreeFiles) -> None:
    put(files, "own", b"own")
    files.mkdir("d")

    assert errno_of(files.rmdir, "Music") == errno.EBUSY
    assert errno_of(files.unlink, "Music") == errno.EBUSY
    assert errno_of(files.rename, "Music", "other") == errno.EBUSY
    assert errno_of(files.rename, "d", "Music") == errno.EBUSY
    assert errno_of(files.mkdir, "Music") == errno.EEXIST
    assert errno_of(files.open, "Music", os.O_WRONLY | os.O_CREAT) == errno.EISDIR
    assert errno_of(files.symlink, "target", "Music") == errno.EEXIST


def test_what_is_on_one_disk_can_be_moved_and_linked_from_one_to_the_other(
    files: TreeFiles, share: FakeShare, music: Path
) -> None:
    put(files, "song", b"la")
    share.forget()

    files.rename("song", "Music/song")
    files.link("Music/song", "again")

    assert share.forget() == [("names", "song Music/song"), ("names", "Music/song again")]
    assert (music / "song").stat().st_nlink == 2
    assert get(files, "again") == b"la"


def test_what_is_read_only_can_be_read_only(files: TreeFiles, roots: Roots, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "f").write_bytes(b"f")
    roots.add(shared_directory(tmp_path / "photos", is_read_only=True))
    put(files, "own", b"own")

    assert get(files, "photos/f") == b"f"
    for call in (
        lambda: files.open("photos/f", os.O_WRONLY),
        lambda: files.open("photos/new", os.O_WRONLY | os.O_CREAT),
        lambda: files.truncate("photos/f", 0),
        lambda: files.unlink("photos/f"),
        lambda: files.mkdir("photos/d"),
        lambda: files.rmdir("photos/d"),
        lambda: files.rename("photos/f", "f"),
        lambda: files.rename("own", "photos/own"),
        lambda: files.link("own", "photos/own"),
        lambda: files.symlink("own", "photos/own"),
        lambda: files.chmod("photos/f", 0o600),
        lambda: files.chown("photos/f", -1, -1),
        lambda: files.utime("photos/f", None),
        lambda: files.setxattr("photos/f", "user.x", b"x"),
        lambda: files.removexattr("photos/f", "user.x"),
        lambda: files.rmdir("photos"),
    ):
        assert errno_of(call) == errno.EROFS
    assert os.listdir(tmp_path / "photos") == ["f"]


def test_what_is_away_is_not_there(files: TreeFiles, roots: Roots, music: Path) -> None:
    put(files, "Music/song", b"la")
    music.rename(music.with_name("away"))
    roots.look()

    assert files.listdir("") == []
    assert errno_of(files.stat, "Music") == errno.ENOENT
    assert errno_of(files.stat, "Music/song") == errno.ENOENT
    assert errno_of(files.mkdir, "Music") == errno.ENOENT
    assert errno_of(files.open, "Music/new", os.O_WRONLY | os.O_CREAT) == errno.ENOENT

    music.with_name("away").rename(music)
    roots.look()
    assert get(files, "Music/song") == b"la"


def test_nothing_of_it_is_held_open(files: TreeFiles, music: Path) -> None:
    """Or nobody could unmount the disk that it is on."""
    put(files, "Music/song", b"la")
    files.listdir("Music")

    held = [os.readlink(f"/proc/self/fd/{one}") for one in _descriptors()]

    assert [place for place in held if place.startswith(str(music))] == []


def _descriptors() -> list[str]:
    return [one for one in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{one}")]


def test_the_room_is_that_of_its_disk(files: TreeFiles, music: Path) -> None:
    shown, real = files.below("Music").statvfs(), os.statvfs(music)

    assert (shown.f_blocks, shown.f_files) == (real.f_blocks, real.f_files)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount disks")
def test_what_is_below_a_mountpoint_is_neither_seen_nor_written(
    files: TreeFiles, roots: Roots, tmp_path: Path, music: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted_disk(disk):
        (disk / "f").write_bytes(b"f")
        roots.add(shared_directory(disk))
        assert get(files, "disk/f") == b"f"
        assert files.below("disk").statvfs().f_blocks == os.statvfs(disk).f_blocks
        assert errno_of(files.rename, "disk/f", "Music/f") == errno.EXDEV

    assert errno_of(files.open, "disk/new", os.O_WRONLY | os.O_CREAT) == errno.ENOENT
    assert roots.look() == ["disk"]
    assert errno_of(files.stat, "disk") == errno.ENOENT
    assert os.listdir(disk) == []
