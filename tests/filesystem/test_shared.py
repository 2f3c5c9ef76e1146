"""`shared/` called directly, beside a plain directory, and what it tells the library."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.filesystem import FileSystem, Moment, Ownership
from p2pfs.filesystem.backing import Backing
from p2pfs.filesystem.shared import SharedTree
from p2pfs.roots import Roots
from tests.helpers.faketree import FakeCaller, FakeNetwork, FakeShare, FakeState
from tests.helpers.files import RealFiles, TreeFiles, now
from tests.helpers.limits import no_file_left
from tests.helpers.powercut import check_cuts, power_may_fail
from tests.suites.filesystem_suite import FileSystemSuite, errno_of, get, put


@pytest.fixture
def share() -> FakeShare:
    return FakeShare()


@pytest.fixture
def tree(tmp_path: Path, share: FakeShare) -> Iterator[FileSystem]:
    tree = FileSystem(Roots(tmp_path), share, FakeNetwork(), FakeCaller())
    yield tree
    tree.close()


@pytest.fixture
def files(tree: FileSystem) -> TreeFiles:
    return TreeFiles(tree)


class TestPlainDirectory(FileSystemSuite):
    """The reference: what fails here is the suite's fault."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> Iterator[RealFiles]:
        files = RealFiles(str(tmp_path))
        yield files
        files.close()


class TestTreeCalledDirectly(FileSystemSuite):
    @pytest.fixture
    def files(self, tree: FileSystem) -> TreeFiles:
        return TreeFiles(tree)


def test_closing_needs_no_descriptor(tree: FileSystem) -> None:
    file = tree.create("/shared/x", os.O_RDWR, 0o600)
    with no_file_left():
        file.flush()
    file.release()


# What the library hears.


def test_a_file_is_written_from_its_creation_to_its_release(files, share) -> None:
    handle = files.open("f", os.O_WRONLY | os.O_CREAT)

    assert share.forget() == [("began", "f"), ("created", "f")]
    handle.close()
    assert share.forget() == [("ended", "f")]


def test_a_reader_is_not_heard_of(files, share) -> None:
    put(files, "f")
    share.forget()

    get(files, "f")

    assert share.forget() == []


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_WRONLY | os.O_APPEND])
def test_whoever_may_change_a_file_is_a_writer(files, share, flags) -> None:
    put(files, "f")
    handle = files.open("f", flags)

    assert share.writers == {"f": 1}
    handle.close()
    assert share.writers == {}


def test_a_failed_open_leaves_no_writer(files, share) -> None:
    assert errno_of(files.open, "missing", os.O_WRONLY) == errno.ENOENT
    assert share.writers == {}


def test_truncating_by_path_is_a_write(files, share) -> None:
    put(files, "f", b"abc")
    share.forget()

    files.truncate("f", 1)

    assert share.forget() == [("began", "f"), ("ended", "f")]


@pytest.mark.parametrize(
    ("change", "heard"),
    [
        (lambda files: files.mkdir("new"), ("touched", "new")),
        (lambda files: files.rmdir("d"), ("touched", "d")),
        (lambda files: files.unlink("f"), ("touched", "f")),
        (lambda files: files.rename("f", "g"), ("names", "f g")),
        (lambda files: files.link("f", "g"), ("names", "f g")),
        (lambda files: files.symlink("f", "g"), ("touched", "g")),
        (lambda files: files.mknod("g", stat.S_IFREG | 0o600), ("touched", "g")),
        (lambda files: files.utime("f", (1, 1)), ("attributes", "f")),
        (lambda files: files.chmod("f", 0o600), ("attributes", "f")),
        (lambda files: files.setxattr("f", "user.x", b""), ("attributes", "f")),
    ],
)
def test_every_change_of_a_name_or_an_attribute_is_told(files, share, change, heard) -> None:
    put(files, "f")
    files.mkdir("d")
    share.forget()

    change(files)

    assert share.forget() == [heard]


def test_a_change_that_failed_is_not_told(files, share) -> None:
    assert errno_of(files.unlink, "missing") == errno.ENOENT
    assert errno_of(files.rename, "missing", "new") == errno.ENOENT
    assert share.heard == []


def test_a_writer_is_counted_where_its_file_is_now(files, share) -> None:
    files.mkdir("d")
    handle = files.open("d/f", os.O_WRONLY | os.O_CREAT)

    files.rename("d/f", "d/g")
    assert share.writers == {"d/g": 1}
    files.rename("d", "e")
    assert share.writers == {"e/g": 1}
    handle.close()
    assert share.writers == {}
    assert share.heard[-1] == ("ended", "e/g")


def test_a_writer_with_a_similar_name_stays(files, share) -> None:
    files.mkdir("d")
    handle = files.open("d2", os.O_WRONLY | os.O_CREAT)

    files.rename("d", "e")

    assert share.writers == {"d2": 1}
    handle.close()


def test_a_failed_rename_moves_no_writer(files, share) -> None:
    handle = files.open("f", os.O_WRONLY | os.O_CREAT)
    files.mkdir("d")

    assert errno_of(files.rename, "f", "d") == errno.EISDIR

    assert share.writers == {"f": 1}
    handle.close()
    assert share.writers == {}


# What is refused.


@pytest.mark.parametrize("kind", [stat.S_IFBLK, stat.S_IFCHR])
def test_device_nodes_are_refused(files, kind) -> None:
    assert errno_of(files.mknod, "device", kind | 0o600) == errno.EPERM
    assert files.listdir("") == []


@pytest.mark.parametrize(
    "create",
    [
        lambda files, name: files.open(name, os.O_WRONLY | os.O_CREAT),
        lambda files, name: files.mkdir(name),
        lambda files, name: files.symlink("x", name),
        lambda files, name: files.mknod(name, stat.S_IFIFO | 0o600),
        lambda files, name: files.rename("f", name),
        lambda files, name: files.link("f", name),
    ],
)
def test_a_name_that_is_not_utf8_cannot_be_created(files, create, expect_log) -> None:
    expect_log("not UTF-8")
    put(files, "f")

    assert errno_of(create, files, "\udcff") == errno.EILSEQ
    assert files.listdir("") == ["f"]


def test_a_name_that_is_not_utf8_but_there_can_be_used_and_removed(files, tmp_path) -> None:
    (tmp_path / "\udcff").write_bytes(b"foreign")

    assert files.listdir("") == ["\udcff"]
    assert get(files, "\udcff") == b"foreign"
    files.rename("\udcff", "good")
    assert files.listdir("") == ["good"]


def test_a_link_that_takes_a_files_place_is_not_followed(files, tmp_path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")

    assert errno_of(files.open, "link", os.O_RDONLY) == errno.ELOOP
    assert errno_of(files.truncate, "link", 0) == errno.ELOOP


def test_a_fifo_that_takes_a_files_place_blocks_nobody(files, tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert errno_of(files.open, "fifo", os.O_WRONLY) == errno.ENXIO


@pytest.mark.parametrize("name", ["security.capability", "system.posix_acl_access", "trusted.x"])
def test_the_systems_attributes_are_answered_without_a_look(tree, name) -> None:
    assert errno_of(tree.getxattr, "/shared/missing", name) == errno.ENOTSUP


# Our own attributes.


def test_the_id_and_the_state_of_a_file_are_shown(files, tree, share) -> None:
    put(files, "f")

    assert files.getxattr("f", "user.p2pfs.state") == b"published"
    assert files.getxattr("f", "user.p2pfs.id") == b"07" * 32
    link = (
        b"p2pfs:file/" + b"07" * 32 + b"?own&name=f&size=%d" % now(tree.getattr("/shared/f")).size
    )
    assert files.getxattr("f", "user.p2pfs.link") == link


def test_a_file_that_is_not_offered_has_no_id(files, share) -> None:
    put(files, "f")
    share.state = FakeState("hashing", None)

    assert files.getxattr("f", "user.p2pfs.state") == b"hashing"
    assert errno_of(files.getxattr, "f", "user.p2pfs.id") == errno.ENODATA


def test_what_is_meant_to_be_private_gives_no_reason(files, share) -> None:
    put(files, ".f")
    share.state = FakeState("private", None)

    assert files.getxattr(".f", "user.p2pfs.state") == b"private"
    assert errno_of(files.getxattr, ".f", "user.p2pfs.reason") == errno.ENODATA


def test_what_is_private_says_why(files, share) -> None:
    put(files, "f.part")
    files.mkdir("d")
    share.state = FakeState("private", None, "too deep")

    for path in ("f.part", "d"):
        assert files.getxattr(path, "user.p2pfs.state") == b"private"
        assert files.getxattr(path, "user.p2pfs.reason") == b"too deep"
    assert errno_of(files.getxattr, "absent", "user.p2pfs.state") == errno.ENOENT


def test_our_attributes_are_not_listed_so_that_no_program_carries_them(files, tree) -> None:
    put(files, "f")
    files.setxattr("f", "user.mine", b"1")

    assert now(tree.listxattr("/shared/f")) == ["user.mine"]


def test_setting_and_removing_our_attributes_is_borne_and_changes_nothing(files, share) -> None:
    put(files, "f")
    share.forget()

    files.setxattr("f", "user.p2pfs.id", b"forged")
    files.removexattr("f", "user.p2pfs.state")

    assert files.getxattr("f", "user.p2pfs.id") == b"07" * 32
    assert files.getxattr("f", "user.p2pfs.state") == b"published"
    assert share.forget() == []


def test_our_attributes_are_those_of_what_is_there(files) -> None:
    assert errno_of(files.setxattr, "absent", "user.p2pfs.id", b"") == errno.ENOENT
    assert errno_of(files.removexattr, "absent", "user.p2pfs.id") == errno.ENOENT


def test_attributes_of_the_system_cannot_be_set(files) -> None:
    put(files, "f")

    assert errno_of(files.setxattr, "f", "trusted.p2pfs", b"x") == errno.ENOTSUP
    assert errno_of(files.removexattr, "f", "trusted.p2pfs") == errno.ENOTSUP


# Times that are left to us.


def test_one_time_can_be_left_alone(files, tree) -> None:
    put(files, "f")
    files.utime("f", (10, 20))

    tree.utimens("/shared/f", Moment.OMIT, 30)
    assert (files.stat("f").st_atime_ns, files.stat("f").st_mtime_ns) == (10, 30)

    tree.utimens("/shared/f", 40, Moment.OMIT)
    assert (files.stat("f").st_atime_ns, files.stat("f").st_mtime_ns) == (40, 30)


def test_one_time_can_be_now(files, tree) -> None:
    put(files, "f")
    files.utime("f", (10, 20))

    tree.utimens("/shared/f", Moment.OMIT, Moment.NOW)
    put(files, "later")

    assert files.stat("f").st_atime_ns == 10
    assert 20 < files.stat("f").st_mtime_ns <= files.stat("later").st_mtime_ns


# The umask.


def test_our_own_umask_takes_nothing_from_the_callers_mode(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        tree = FileSystem(Roots(tmp_path), FakeShare(), FakeNetwork(), FakeCaller())
        files = TreeFiles(tree)
        files.open("f", os.O_WRONLY | os.O_CREAT, 0o664).close()
        files.mkdir("d", 0o775)
    finally:
        os.umask(umask)

    assert stat.S_IMODE(files.stat("f").st_mode) == 0o664
    assert stat.S_IMODE(files.stat("d").st_mode) == 0o775
    tree.close()


def test_a_closed_tree_touches_no_directory(tree, tmp_path) -> None:
    second = FileSystem(Roots(tmp_path), FakeShare(), FakeNetwork(), FakeCaller())

    second.close()

    assert errno_of(second.getattr, "/shared/f") == errno.EBADF


# What was removed while it was open.

HIDDEN = ".fuse_hidden0000001300000002"
"""libfuse renames to such a name what is removed while it is open."""


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_what_is_removed_while_it_is_open_leaves_its_directory_at_once(
    files, share, tmp_path, flags
) -> None:
    files.mkdir("d")
    put(files, "d/f", b"content")
    handle = files.open("d/f", flags)
    share.forget()

    files.remove_open("d/f", f"d/{HIDDEN}")

    assert files.listdir("d") == []
    assert ("touched", "d/f") in share.forget()
    files.rmdir("d")
    assert handle.read(100, 0) == b"content"
    handle.close()


def test_all_that_can_be_done_to_an_open_file_can_be_done_to_a_removed_one(files) -> None:
    """Without a handle too: the kernel asks so for fstat, and opens /proc/PID/fd/N so."""
    put(files, "f", b"content")
    handle = files.open("f", os.O_RDWR)
    files.remove_open("f", HIDDEN)

    assert (files.stat(HIDDEN).st_size, files.stat(HIDDEN).st_nlink) == (7, 0)
    files.chmod(HIDDEN, 0o640)
    files.chown(HIDDEN, -1, -1)
    files.utime(HIDDEN, (1, 2_000_000_000))
    files.setxattr(HIDDEN, "user.colour", b"red")
    assert files.getxattr(HIDDEN, "user.colour") == b"red"
    assert stat.S_IMODE(files.stat(HIDDEN).st_mode) == 0o640
    assert files.stat(HIDDEN).st_mtime_ns == 2_000_000_000
    files.truncate(HIDDEN, 3)
    second = files.open(HIDDEN, os.O_RDWR)
    second.write(b"!", 3)
    assert handle.read(100, 0) == b"con!"
    second.close()
    handle.close()


def test_after_the_last_close_nothing_is_left_of_it(files) -> None:
    put(files, "f", b"x")
    first, last = files.open("f", os.O_RDONLY), files.open("f", os.O_RDONLY)
    files.remove_open("f", HIDDEN)

    first.close()
    assert files.stat(HIDDEN).st_size == 1
    last.close()

    assert errno_of(files.stat, HIDDEN) == errno.ENOENT
    assert errno_of(files.unlink, HIDDEN) == errno.ENOENT


def test_when_libfuse_removes_it_nothing_is_left_of_it(files) -> None:
    put(files, "f", b"x")
    handle = files.open("f", os.O_RDONLY)
    files.remove_open("f", HIDDEN)

    files.unlink(HIDDEN)

    assert errno_of(files.stat, HIDDEN) == errno.ENOENT
    handle.close()


def test_a_removed_file_keeps_its_names_when_they_change(files) -> None:
    files.mkdir("d")
    put(files, "d/f")
    handle = files.open("d/f", os.O_RDONLY)
    files.remove_open("d/f", f"d/{HIDDEN}")
    other = HIDDEN.replace("2", "3")

    files.rename(f"d/{HIDDEN}", f"d/{other}")
    files.rename("d", "e")

    assert files.stat(f"e/{other}").st_nlink == 0
    handle.close()


def test_another_name_of_a_removed_file_stays(files) -> None:
    put(files, "f", b"x")
    files.link("f", "g")
    handle = files.open("f", os.O_RDWR)
    files.remove_open("f", HIDDEN)
    handle.write(b"y", 0)
    handle.close()

    assert files.listdir("") == ["g"]
    assert get(files, "g") == b"y"


@pytest.mark.parametrize("name", [HIDDEN, f"d/{HIDDEN}"])
def test_a_users_own_file_of_such_a_name_stays(files, tmp_path, name) -> None:
    """From a backup of another FUSE disk: written there, or renamed when it was whole."""
    files.mkdir("d")
    put(files, name, b"the only copy")
    put(files, ".tmp", b"the only copy")
    files.rename(".tmp", name.replace("2", "3"))
    files.open(name, os.O_RDONLY).close()

    assert (tmp_path / name).read_bytes() == b"the only copy"
    assert (tmp_path / name.replace("2", "3")).read_bytes() == b"the only copy"


def test_a_removal_that_fails_removes_nothing(files, tmp_path, monkeypatch) -> None:
    put(files, "f", b"x")
    handle = files.open("f", os.O_RDONLY)

    def refuse(_name: str, *, dir_fd: int) -> None:
        raise OSError(errno.EPERM, "it is immutable")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        assert errno_of(files.remove_open, "f", HIDDEN) == errno.EPERM

    assert (tmp_path / "f").read_bytes() == b"x"
    assert files.stat(HIDDEN).st_nlink == 1  # libfuse knows it so by then
    handle.close()
    assert (tmp_path / "f").read_bytes() == b"x"
    assert errno_of(files.stat, HIDDEN) == errno.ENOENT


def test_an_open_file_is_replaced_by_one_call_and_goes_on(files, tmp_path, monkeypatch) -> None:
    put(files, "f", b"old content")
    put(files, "f.new", b"new")
    handle = files.open("f", os.O_RDWR)
    calls = []
    for name in ("rename", "unlink", "link"):
        call = getattr(os, name)

        def noted(*arguments, _name=name, _call=call, **options):
            calls.append(_name)
            return _call(*arguments, **options)

        monkeypatch.setattr(os, name, noted)

    files.replace_open("f.new", "f", HIDDEN)

    assert calls == ["rename"]
    assert files.listdir("") == ["f"]
    assert get(files, "f") == b"new"
    assert (files.stat(HIDDEN).st_size, files.stat(HIDDEN).st_nlink) == (11, 0)
    handle.write(b"OLD", 0)
    assert handle.read(100, 0) == b"OLD content"
    handle.close()
    assert get(files, "f") == b"new"


def test_who_writes_a_replaced_file_writes_nothing_of_the_new_one(files, share) -> None:
    put(files, "f", b"old")
    put(files, "f.new", b"new")
    old, new = files.open("f", os.O_WRONLY), files.open("f.new", os.O_WRONLY)
    share.forget()

    files.replace_open("f.new", "f", HIDDEN)

    assert share.writers == {"f": 1, HIDDEN: 1}
    old.close()
    assert share.writers == {"f": 1}
    new.close()


def test_a_replacement_that_fails_replaces_nothing(files, tmp_path, share) -> None:
    put(files, "f", b"x")
    files.mkdir("d")
    handle = files.open("f", os.O_WRONLY)

    assert errno_of(files.replace_open, "d", "f", HIDDEN) == errno.ENOTDIR

    assert (tmp_path / "f").read_bytes() == b"x"
    assert share.writers == {"f": 1}
    handle.close()


def test_what_nobody_has_open_is_not_set_aside(files, tree) -> None:
    put(files, "f", b"x")

    assert not tree.set_aside("/shared/f", f"/shared/{HIDDEN}")
    assert not tree.set_aside("/shared/f", "/shared/g")
    assert errno_of(tree.set_aside, "/network/f", f"/network/{HIDDEN}") == errno.EROFS


def test_what_is_appended_goes_behind_what_others_have_written_meanwhile(files, tmp_path) -> None:
    """The kernel's offset is where it believes the end to be."""
    put(files, "f", b"begin ")
    handle = files.open("f", os.O_WRONLY | os.O_APPEND)
    with open(tmp_path / "f", "ab") as file:
        file.write(b"middle ")

    handle.write(b"end", len(b"begin "))
    handle.close()

    assert get(files, "f") == b"begin middle end"


# What is on the disk when fsync has returned.


def names_and_contents(disk: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in disk.rglob("*") if path.is_file()}


@pytest.mark.parametrize("data_only", [False, True])
def test_a_synced_file_in_a_synced_directory_survives_a_power_cut(
    files, tmp_path, tmp_path_factory, data_only
) -> None:
    with power_may_fail(tmp_path) as cuts:
        handle = files.open("f", os.O_WRONLY | os.O_CREAT)
        handle.write(b"precious", 0)
        handle.fsync(data_only=data_only)
        files.fsyncdir("")
        handle.close()

    for disk in cuts[-1].disks(tmp_path_factory.mktemp("disks")):
        assert names_and_contents(disk) == {"f": b"precious"}


def test_replacing_a_file_as_editors_and_databases_do_survives_a_power_cut(
    files, tmp_path, tmp_path_factory
) -> None:
    files.mkdir("d")
    put(files, "d/f", b"old")

    with power_may_fail(tmp_path) as cuts:
        handle = files.open("d/f.tmp", os.O_WRONLY | os.O_CREAT)
        handle.write(b"new", 0)
        handle.fsync(data_only=False)
        handle.close()
        files.rename("d/f.tmp", "d/f")
        files.fsyncdir("d")

    check_cuts(
        cuts,
        tmp_path_factory.mktemp("disks"),
        lambda disk: names_and_contents(disk)["f"],
        b"old",
        b"new",
    )


# To whom what is made belongs.

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")

NOBODY = Ownership(65_534, 65_533)

MAKERS = {
    "create": lambda tree, path: tree.create(path, os.O_WRONLY, 0o4640, NOBODY).release(),
    "mkdir": lambda tree, path: tree.mkdir(path, 0o1750, NOBODY),
    "mknod": lambda tree, path: tree.mknod(path, stat.S_IFIFO | 0o640, NOBODY),
    "symlink": lambda tree, path: tree.symlink(path, "target", NOBODY),
}


@needs_root
@pytest.mark.parametrize("make", MAKERS)
def test_what_another_user_makes_is_his(tree, tmp_path, make) -> None:
    MAKERS[make](tree, "/shared/new")

    status = (tmp_path / "new").lstat()
    assert (status.st_uid, status.st_gid) == NOBODY
    mode = {"create": 0o4640, "mkdir": 0o1750, "mknod": 0o640, "symlink": 0o777}[make]
    assert stat.S_IMODE(status.st_mode) == mode


@needs_root
@pytest.mark.parametrize("make", MAKERS)
def test_a_directory_may_give_its_group_to_what_is_made_in_it(tree, tmp_path, make) -> None:
    (tmp_path / "d").mkdir()
    os.chown(tmp_path / "d", 0, 1234)
    (tmp_path / "d").chmod(0o2777)

    MAKERS[make](tree, "/shared/d/new")

    status = (tmp_path / "d" / "new").lstat()
    assert (status.st_uid, status.st_gid) == (NOBODY.uid, 1234)
    if make == "mkdir":
        assert stat.S_IMODE(status.st_mode) == 0o3750


def test_a_writer_waits_for_who_asked_whether_there_is_one(files, tmp_path) -> None:
    """The library asks by a lease, which it gives back at once; a busy machine may take a while."""
    put(files, "f", b"old")
    with (tmp_path / "f").open("rb") as asking:
        fcntl.fcntl(asking, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(asking, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        answered = threading.Timer(0.05, fcntl.fcntl, (asking, fcntl.F_SETLEASE, fcntl.F_UNLCK))
        answered.start()

        put(files, "f", b"new")
        answered.join()

    assert (tmp_path / "f").read_bytes() == b"new"


def test_a_file_that_cannot_be_handed_over_is_not_left_open(tmp_path, monkeypatch) -> None:
    """Its writer would count for ever, and it would never be published."""
    share = FakeShare()
    tree = SharedTree(Roots(tmp_path), share)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not on this disk")

    monkeypatch.setattr(Backing, "hand_over", refuse)
    before = len(os.listdir("/proc/self/fd"))

    assert errno_of(tree.create, "f", os.O_WRONLY | os.O_CREAT, 0o644, None) == errno.EPERM

    assert (share.writers, len(os.listdir("/proc/self/fd"))) == ({}, before)
    tree.close()
