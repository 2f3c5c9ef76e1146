"""The tree as a whole: its root, its borders, and what is read-only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.filesystem import FileSystem, Moment
from p2pfs.roots import Roots
from tests.helpers.faketree import FakeCaller, FakeNetwork, FakeShare
from tests.helpers.files import now
from tests.suites.filesystem_suite import errno_of


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[FileSystem]:
    network = FakeNetwork()
    network.add("d/f", b"network", cached=True)
    (tmp_path / "f").write_bytes(b"shared")
    (tmp_path / "d").mkdir()
    tree = FileSystem(Roots(tmp_path), FakeShare(), network, FakeCaller())
    yield tree
    tree.close()


def names(tree: FileSystem, path: str) -> list[str]:
    return [listed.name for listed in now(tree.readdir(path))]


def test_the_root_holds_the_subtrees(tree) -> None:
    assert names(tree, "/") == ["shared", "network", "search", "peers", ".p2pfs"]
    assert stat.S_ISDIR(now(tree.getattr("/")).mode)


def test_inode_numbers_of_the_root_agree_with_its_listing(tree) -> None:
    for listed in now(tree.readdir("/")):
        if listed.name != "shared":
            assert now(tree.getattr("/" + listed.name)).inode == listed.inode


@pytest.mark.parametrize("path", ["/network/d", "/network/d/f"])
def test_attributes_that_others_tell_come_with_the_names(tree, path) -> None:
    assert tree.beside_name(path) == now(tree.getattr(path))


@pytest.mark.parametrize("path", ["/", "/shared", "/network", "/shared/f", "/.p2pfs/status"])
def test_other_attributes_are_asked_for_at_each_look(tree, path) -> None:
    assert tree.beside_name(path) is None


@pytest.mark.parametrize("path", ["/nothing", "/nothing/below", "/sharedx"])
def test_there_is_nothing_else_in_the_root(tree, path) -> None:
    assert errno_of(tree.getattr, path) == errno.ENOENT
    assert errno_of(tree.readdir, path) == errno.ENOENT
    assert errno_of(tree.open, path, os.O_RDONLY) == errno.ENOENT


MUTATIONS = {
    "create": lambda tree, path: tree.create(path, os.O_WRONLY | os.O_CREAT, 0o644),
    "open to write": lambda tree, path: tree.open(path, os.O_WRONLY),
    "open to read and write": lambda tree, path: tree.open(path, os.O_RDWR),
    "open to truncate": lambda tree, path: tree.open(path, os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda tree, path: tree.truncate(path, 0),
    "mknod": lambda tree, path: tree.mknod(path, stat.S_IFREG | 0o644),
    "mkdir": lambda tree, path: tree.mkdir(path, 0o755),
    "unlink": lambda tree, path: tree.unlink(path),
    "rmdir": lambda tree, path: tree.rmdir(path),
    "rename into": lambda tree, path: tree.rename("/shared/f", path),
    "rename within": lambda tree, path: tree.rename(path, path + "2"),
    "link into": lambda tree, path: tree.link("/shared/f", path),
    "symlink": lambda tree, path: tree.symlink(path, "target"),
    "chmod": lambda tree, path: tree.chmod(path, 0o777),
    "chown": lambda tree, path: tree.chown(path, 1, 1),
    "utimens": lambda tree, path: tree.utimens(path, Moment.NOW, Moment.NOW),
    "setxattr": lambda tree, path: tree.setxattr(path, "user.x", b"", 0),
    "removexattr": lambda tree, path: tree.removexattr(path, "user.x"),
}


READ_ONLY = (
    "/network", "/network/d/f", "/network/new", "/search/whale", "/search/whale/new", "/peers",
    "/peers/d", "/peers/d/f", "/.p2pfs", "/.p2pfs/status", "/.p2pfs/new", "/new",
)  # fmt: skip


@pytest.mark.parametrize(
    ("mutation", "path"),
    [
        (mutation, path)
        for mutation in MUTATIONS
        for path in READ_ONLY
        if not (mutation in ("mkdir", "rmdir") and path == "/search/whale")
    ],
)
def test_outside_shared_nothing_can_be_changed(tree, mutation, path) -> None:
    assert errno_of(MUTATIONS[mutation], tree, path) == errno.EROFS


def test_what_leaves_a_readonly_subtree_is_copied(tree) -> None:
    """EXDEV makes `mv` copy; the removal then fails and says so."""
    assert errno_of(tree.rename, "/network/d/f", "/shared/new") == errno.EXDEV
    assert errno_of(tree.link, "/network/d/f", "/shared/new") == errno.EXDEV


def test_the_subtrees_stay_where_they_are(tree) -> None:
    assert errno_of(tree.rmdir, "/shared") == errno.EBUSY
    assert errno_of(tree.rename, "/shared", "/shared/d/below") == errno.EBUSY
    assert errno_of(tree.rename, "/shared/d", "/shared") == errno.EBUSY
    assert errno_of(tree.rename, "/shared", "/other") == errno.EROFS
    assert errno_of(tree.rmdir, "/network") == errno.EROFS


def test_the_top_of_shared_has_attributes_as_any_directory(tree, tmp_path) -> None:
    tree.chmod("/shared", 0o750)
    tree.utimens("/shared", 1, 2)
    tree.setxattr("/shared", "user.x", b"1", 0)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
    assert now(tree.getattr("/shared")).mtime_ns == 2
    assert now(tree.getxattr("/shared", "user.x")) == b"1"


def test_syncing_any_directory_succeeds(tree) -> None:
    for path in ("/", "/shared", "/shared/d", "/network", "/.p2pfs"):
        assert tree.fsyncdir(path) is None


# .p2pfs/


def test_the_status_files_are_listed_and_readable(tree) -> None:
    assert names(tree, "/.p2pfs") == ["config", "events", "peers", "status", "transfers"]
    for name in names(tree, "/.p2pfs"):
        attributes = now(tree.getattr(f"/.p2pfs/{name}"))
        assert stat.S_IMODE(attributes.mode) == 0o444
        file = now(tree.open(f"/.p2pfs/{name}", os.O_RDONLY))
        assert file.direct_io
        assert now(file.read(1000, 0)).startswith(name.encode())
        file.release()


def test_a_status_file_is_rendered_at_open_and_stays(tree) -> None:
    one = now(tree.open("/.p2pfs/status", os.O_RDONLY))
    two = now(tree.open("/.p2pfs/status", os.O_RDONLY))

    assert now(one.read(100, 0)) == b"status 1\n"
    assert now(two.read(100, 0)) == b"status 2\n"
    assert now(one.read(3, 2)) == b"atu"
    assert now(one.read(3, 100)) == b""
    assert one.getattr().size == len("status 1\n")


def test_there_are_no_other_status_files(tree) -> None:
    assert errno_of(tree.getattr, "/.p2pfs/password") == errno.ENOENT
    assert errno_of(tree.open, "/.p2pfs/password", os.O_RDONLY) == errno.ENOENT
    assert errno_of(tree.readdir, "/.p2pfs/status") == errno.ENOTDIR
    assert errno_of(tree.getxattr, "/.p2pfs/status", "user.p2pfs.id") == errno.ENODATA
