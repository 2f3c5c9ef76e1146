"""The kernel's table of mounts, as proc(5) describes it."""

from __future__ import annotations

import os

import pytest

from p2pfs import mounts
from p2pfs.mounts import Mount, is_within, mount_of, mount_on, read_mounts

TABLE = r"""
20 21 0:21 / /proc rw,relatime - proc proc rw
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 21 0:35 / /home/anna/p2p rw,nosuid - fuse.p2pfs p2pfs:anna rw,user_id=0
41 21 0:35 /network/music /mnt/with\040a\011blank\134 ro master:2 - fuse.p2pfs p2pfs rw
42 21 7:0 / /mnt/disk rw - iso9660 /dev/loop0 ro
43 42 0:50 / /mnt/disk/deep rw - tmpfs none rw
44 21 7:1 / /mnt rw - ext4 /dev/loop1 rw
"""


@pytest.fixture(autouse=True)
def _table(tmp_path, monkeypatch):
    (tmp_path / "mountinfo").write_text(TABLE.lstrip())
    monkeypatch.setattr(mounts, "MOUNTINFO", str(tmp_path / "mountinfo"))


def test_the_table_is_read():
    assert read_mounts()[2] == Mount("/home/anna/p2p", "fuse.p2pfs", os.makedev(0, 35))
    assert [mount.kind for mount in read_mounts() if mount.is_ours] == ["fuse.p2pfs"] * 2


def test_blanks_in_a_place_are_what_they_were():
    assert mount_on("/mnt/with a\tblank\\").is_ours


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/home/anna/p2p/shared/x", "/home/anna/p2p"),
        ("/home/anna/p2p", "/home/anna/p2p"),
        ("/home/anna/p2p2", "/"),
        ("/etc", "/"),
        ("/proc/self", "/proc"),
        ("/mnt/disk/deep/er", "/mnt"),
    ],
)
def test_a_path_lies_in_the_last_mount_that_holds_it(path, place):
    """What was mounted over the others hides them; but the root may be there later than some."""
    assert mount_of(path).place == place


def test_nothing_is_mounted_on_most_paths():
    assert mount_on("/home/anna") is None


@pytest.mark.parametrize(
    ("path", "directory", "is_so"),
    [("/a/b", "/a", True), ("/a", "/a", True), ("/ab", "/a", False), ("/a", "/", True)],
)
def test_a_path_is_within_a_directory(path, directory, is_so):
    assert is_within(path, directory) is is_so


def test_the_real_table_has_a_root(monkeypatch):
    monkeypatch.undo()

    assert mount_of("/").place == "/"
