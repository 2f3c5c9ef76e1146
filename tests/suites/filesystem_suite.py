"""What an ordinary directory does, and `shared/` must do as well.

Subclass `FileSystemSuite` and give it `files`: a plain directory, the tree called directly,
or a real mount. The plain directory keeps the suite honest.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import Protocol

import pytest

from tests.helpers.mounted import until

BEYOND_4_GIB = 5 * 1024**3
"""Larger than 32 bits count."""

LONGEST_NAME = "n" * 255
"""NAME_MAX of Linux."""


CLOCK_S = 0.05
"""Some ticks of the clock that file systems take their times from."""


class Handle(Protocol):
    """An open file."""

    def read(self, size: int, offset: int) -> bytes: ...
    def write(self, data: bytes, offset: int) -> int: ...
    def truncate(self, size: int) -> None: ...
    def size(self) -> int: ...
    def fsync(self, *, data_only: bool) -> None: ...
    def close(self) -> None: ...


class Files(Protocol):
    """What a program may do to files; what fails raises `OSError` with the system's errno."""

    def open(self, path: str, flags: int, mode: int = 0o644) -> Handle: ...
    def stat(self, path: str) -> os.stat_result: ...
    def listdir(self, path: str) -> list[str]: ...
    def mkdir(self, path: str, mode: int = 0o755) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def link(self, old: str, new: str) -> None: ...
    def symlink(self, target: str, path: str) -> None: ...
    def readlink(self, path: str) -> str: ...
    def mknod(self, path: str, mode: int) -> None: ...
    def chmod(self, path: str, mode: int) -> None: ...
    def chown(self, path: str, uid: int, gid: int) -> None: ...
    def truncate(self, path: str, size: int) -> None: ...
    def utime(self, path: str, times: tuple[int, int] | None) -> None: ...
    def setxattr(self, path: str, name: str, value: bytes, flags: int = 0) -> None: ...
    def getxattr(self, path: str, name: str) -> bytes: ...
    def removexattr(self, path: str, name: str) -> None: ...
    def below(self, path: str) -> Files:
        """Return the same for a sub-directory, reached without a longer path."""
        ...

    def statvfs(self) -> os.statvfs_result: ...


def put(files: Files, path: str, data: bytes = b"") -> None:
    """Write a file, in place of what was there."""
    handle = files.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert handle.write(data, 0) == len(data)
    handle.close()


def get(files: Files, path: str) -> bytes:
    """Return what is in a file."""
    handle = files.open(path, os.O_RDONLY)
    data = handle.read(1024 * 1024, 0)
    handle.close()
    return data


def errno_of(call: Callable[..., object], *arguments: object) -> int | None:
    """Return the errno with which a call fails, or None if it succeeds."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    return None


class FileSystemSuite:
    """The contract of a directory on a disk."""

    @pytest.fixture
    def files(self) -> Files:
        """An empty directory."""
        raise NotImplementedError

    # Bytes.

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 300_000])
    def test_what_was_written_is_read(self, files: Files, size: int) -> None:
        data = os.urandom(size)

        put(files, "f", data)

        assert get(files, "f") == data
        assert files.stat("f").st_size == size

    def test_a_write_in_the_middle_changes_nothing_around_it(self, files: Files) -> None:
        put(files, "f", b"0123456789")
        handle = files.open("f", os.O_RDWR)

        handle.write(b"xyz", 4)
        handle.close()

        assert get(files, "f") == b"0123xyz789"

    def test_a_gap_reads_as_zeroes(self, files: Files) -> None:
        handle = files.open("f", os.O_RDWR | os.O_CREAT)

        handle.write(b"end", 10_000)

        assert handle.read(10_003, 0) == bytes(10_000) + b"end"
        handle.close()

    def test_a_read_ends_with_the_file(self, files: Files) -> None:
        put(files, "f", b"abc")
        handle = files.open("f", os.O_RDONLY)

        assert handle.read(100, 1) == b"bc"
        assert handle.read(100, 3) == b""
        assert handle.read(100, 1_000_000) == b""
        handle.close()

    def test_a_sparse_file_may_be_huge(self, files: Files) -> None:
        put(files, "f")

        files.truncate("f", BEYOND_4_GIB)
        handle = files.open("f", os.O_RDWR)
        handle.write(b"far", BEYOND_4_GIB - 3)

        assert files.stat("f").st_size == BEYOND_4_GIB
        assert files.stat("f").st_blocks < 10_000
        assert handle.read(10, BEYOND_4_GIB - 5) == b"\0\0far"
        handle.close()

    def test_two_handles_see_one_file(self, files: Files) -> None:
        one = files.open("f", os.O_RDWR | os.O_CREAT)
        two = files.open("f", os.O_RDWR)

        one.write(b"one", 0)

        assert two.read(10, 0) == b"one"
        one.close()
        two.close()

    @pytest.mark.parametrize("data_only", [True, False])
    def test_fsync_succeeds(self, files: Files, data_only: bool) -> None:
        handle = files.open("f", os.O_WRONLY | os.O_CREAT)
        handle.write(b"x", 0)

        handle.fsync(data_only=data_only)

        handle.close()
        assert get(files, "f") == b"x"

    # Open flags.

    def test_a_missing_file_is_not_opened(self, files: Files) -> None:
        assert errno_of(files.open, "f", os.O_RDONLY) == errno.ENOENT

    def test_creating_anew_refuses_what_is_there(self, files: Files) -> None:
        put(files, "f", b"old")

        assert errno_of(files.open, "f", os.O_WRONLY | os.O_CREAT | os.O_EXCL) == errno.EEXIST
        assert get(files, "f") == b"old"

    def test_creating_opens_what_is_there(self, files: Files) -> None:
        put(files, "f", b"old")

        files.open("f", os.O_WRONLY | os.O_CREAT).close()

        assert get(files, "f") == b"old"

    def test_opening_can_truncate(self, files: Files) -> None:
        put(files, "f", b"old")

        files.open("f", os.O_WRONLY | os.O_TRUNC).close()

        assert files.stat("f").st_size == 0

    def test_appending_writes_at_the_end(self, files: Files) -> None:
        put(files, "f", b"begin ")
        handle = files.open("f", os.O_WRONLY | os.O_APPEND)

        handle.write(b"end", 6)
        handle.close()

        assert get(files, "f") == b"begin end"

    def test_a_file_created_without_write_permission_can_be_written_by_its_creator(
        self, files: Files
    ) -> None:
        handle = files.open("f", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)

        handle.write(b"once", 0)
        handle.close()

        assert get(files, "f") == b"once"

    @pytest.mark.parametrize("mode", [0o666, 0o600, 0o444, 0o755, 0o777])
    def test_a_new_file_has_the_mode_that_was_asked_for(self, files: Files, mode: int) -> None:
        files.open("f", os.O_WRONLY | os.O_CREAT, mode).close()

        assert stat.S_IMODE(files.stat("f").st_mode) == mode

    def test_a_link_out_of_the_directory_is_not_written_through(self, files: Files) -> None:
        files.symlink("/dev/full", "link")

        assert errno_of(files.open, "link", os.O_WRONLY | os.O_NOFOLLOW) == errno.ELOOP

    # Truncating.

    @pytest.mark.parametrize("size", [0, 3, 10, 5000])
    def test_truncating_cuts_or_extends(self, files: Files, size: int) -> None:
        put(files, "path", b"0123456789")
        put(files, "handle", b"0123456789")
        expected = b"0123456789"[:size].ljust(size, b"\0")

        files.truncate("path", size)
        handle = files.open("handle", os.O_RDWR)
        handle.truncate(size)

        assert handle.size() == size
        handle.close()
        assert get(files, "path") == get(files, "handle") == expected

    def test_a_missing_file_is_not_truncated(self, files: Files) -> None:
        assert errno_of(files.truncate, "f", 0) == errno.ENOENT

    # Directories.

    def test_a_directory_lists_what_is_in_it(self, files: Files) -> None:
        files.mkdir("d")
        put(files, "d/file")
        files.mkdir("d/directory")
        files.symlink("nowhere", "d/link")
        files.mknod("d/fifo", stat.S_IFIFO | 0o600)

        assert sorted(files.listdir("d")) == ["directory", "fifo", "file", "link"]

    def test_a_directory_may_hold_many_files(self, files: Files) -> None:
        files.mkdir("d")
        names = [f"file-{number:04}" for number in range(500)]
        for name in names:
            put(files, f"d/{name}")

        assert sorted(files.listdir("d")) == names

    @pytest.mark.parametrize("mode", [0o755, 0o700, 0o777, 0o1777])
    def test_a_new_directory_has_the_mode_that_was_asked_for(self, files: Files, mode: int) -> None:
        files.mkdir("d", mode)

        assert stat.S_IMODE(files.stat("d").st_mode) == mode
        assert stat.S_ISDIR(files.stat("d").st_mode)

    def test_what_is_there_is_not_made_again(self, files: Files) -> None:
        files.mkdir("d")

        assert errno_of(files.mkdir, "d") == errno.EEXIST

    def test_a_directory_with_files_stays(self, files: Files) -> None:
        files.mkdir("d")
        put(files, "d/f", b"kept")

        assert errno_of(files.rmdir, "d") == errno.ENOTEMPTY
        assert get(files, "d/f") == b"kept"

    def test_an_empty_directory_goes(self, files: Files) -> None:
        files.mkdir("d")

        files.rmdir("d")

        assert errno_of(files.stat, "d") == errno.ENOENT

    def test_a_file_is_no_directory(self, files: Files) -> None:
        put(files, "f")

        assert errno_of(files.rmdir, "f") == errno.ENOTDIR
        assert errno_of(files.stat, "f/below") == errno.ENOTDIR
        assert errno_of(files.mkdir, "f/below") == errno.ENOTDIR

    def test_a_directory_is_not_unlinked(self, files: Files) -> None:
        files.mkdir("d")

        assert errno_of(files.unlink, "d") == errno.EISDIR

    def test_a_directory_is_not_opened_for_writing(self, files: Files) -> None:
        files.mkdir("d")

        assert errno_of(files.open, "d", os.O_WRONLY) == errno.EISDIR

    # Removing.

    def test_an_unlinked_file_is_gone(self, files: Files) -> None:
        put(files, "f")

        files.unlink("f")

        assert files.listdir("") == []
        assert errno_of(files.unlink, "f") == errno.ENOENT

    def test_an_open_file_outlives_its_name(self, files: Files) -> None:
        handle = files.open("f", os.O_RDWR | os.O_CREAT)
        handle.write(b"still here", 0)

        files.unlink("f")
        handle.write(b"!", 10)

        assert errno_of(files.stat, "f") == errno.ENOENT
        assert handle.read(100, 0) == b"still here!"
        assert handle.size() == 11
        handle.close()
        assert "f" not in files.listdir("")

    # Renaming.

    def test_a_renamed_file_keeps_its_bytes(self, files: Files) -> None:
        put(files, "old", b"same")
        files.mkdir("d")

        files.rename("old", "d/new")

        assert get(files, "d/new") == b"same"
        assert files.listdir("") == ["d"]

    def test_renaming_replaces_a_file_at_once(self, files: Files) -> None:
        put(files, "draft", b"new")
        put(files, "document", b"old")

        files.rename("draft", "document")

        assert get(files, "document") == b"new"
        assert files.listdir("") == ["document"]

    def test_an_open_file_outlives_its_replacement(self, files: Files) -> None:
        put(files, "document", b"old")
        put(files, "draft", b"new")
        reader = files.open("document", os.O_RDONLY)

        files.rename("draft", "document")

        assert reader.read(10, 0) == b"old"
        assert get(files, "document") == b"new"
        reader.close()

    def test_an_open_file_follows_its_name(self, files: Files) -> None:
        handle = files.open("old", os.O_RDWR | os.O_CREAT)

        files.rename("old", "new")
        handle.write(b"after", 0)
        handle.close()

        assert get(files, "new") == b"after"

    def test_a_directory_is_renamed_with_all_below_it(self, files: Files) -> None:
        files.mkdir("old")
        files.mkdir("old/deep")
        put(files, "old/deep/f", b"x")

        files.rename("old", "new")

        assert get(files, "new/deep/f") == b"x"
        assert errno_of(files.stat, "old/deep/f") == errno.ENOENT

    def test_renaming_keeps_to_the_rules(self, files: Files) -> None:
        put(files, "f")
        files.mkdir("d")
        files.mkdir("full")
        put(files, "full/f")

        assert errno_of(files.rename, "missing", "x") == errno.ENOENT
        assert errno_of(files.rename, "f", "d") == errno.EISDIR
        assert errno_of(files.rename, "d", "f") == errno.ENOTDIR
        assert errno_of(files.rename, "d", "full") == errno.ENOTEMPTY
        assert errno_of(files.rename, "d", "d/below") == errno.EINVAL

    # Links.

    def test_a_hard_link_is_the_same_file(self, files: Files) -> None:
        put(files, "one", b"1")

        files.link("one", "two")
        put(files, "two", b"22")

        until(lambda: get(files, "one") == b"22")
        until(lambda: files.stat("one").st_nlink == 2)
        assert files.stat("one").st_ino == files.stat("two").st_ino
        assert errno_of(files.link, "one", "two") == errno.EEXIST

    def test_what_is_done_under_one_name_shows_under_the_other(self, files: Files) -> None:
        put(files, "one", b"old")
        files.link("one", "two")
        assert files.stat("two").st_size == 3

        handle = files.open("one", os.O_WRONLY | os.O_APPEND)
        handle.write(b" and new", 3)
        handle.close()
        files.chmod("one", 0o604)

        until(lambda: get(files, "two") == b"old and new")
        until(lambda: stat.S_IMODE(files.stat("two").st_mode) == 0o604)
        files.unlink("one")
        until(lambda: files.stat("two").st_nlink == 1)

    @pytest.mark.parametrize("target", ["f", "../out", "/absolute", "x" * 4095, "nön-äscii"])
    def test_a_symbolic_link_points_where_it_was_told(self, files: Files, target: str) -> None:
        files.symlink(target, "link")

        assert files.readlink("link") == target
        assert stat.S_ISLNK(files.stat("link").st_mode)

    def test_only_links_are_read_as_links(self, files: Files) -> None:
        put(files, "f")

        assert errno_of(files.readlink, "f") == errno.EINVAL

    # Other kinds.

    @pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK])
    def test_files_fifos_and_sockets_can_be_made(self, files: Files, kind: int) -> None:
        files.mknod("special", kind | 0o640)

        assert stat.S_IFMT(files.stat("special").st_mode) == kind
        assert stat.S_IMODE(files.stat("special").st_mode) == 0o640

    # Attributes.

    @pytest.mark.parametrize("mode", [0o000, 0o400, 0o666, 0o777, 0o1777, 0o4755])
    def test_a_mode_is_kept(self, files: Files, mode: int) -> None:
        files.mkdir("f") if mode & 0o1000 else put(files, "f")

        files.chmod("f", mode)

        assert stat.S_IMODE(files.stat("f").st_mode) == mode

    @pytest.mark.parametrize("change", ["chmod", "chown", "link", "rename", "setxattr", "write"])
    def test_every_change_moves_the_time_of_change(self, files: Files, change: str) -> None:
        put(files, "f", b"x")
        before = files.stat("f").st_ctime_ns
        time.sleep(CLOCK_S)

        match change:
            case "chmod":
                files.chmod("f", 0o600)
            case "chown":
                files.chown("f", os.getuid(), os.getgid())
            case "link":
                files.link("f", "g")
            case "rename":
                files.rename("f", "g")
                files.rename("g", "f")
            case "setxattr":
                files.setxattr("f", "user.x", b"1")
            case "write":
                put(files, "f", b"y")
        time.sleep(CLOCK_S)

        assert files.stat("f").st_ctime_ns > before

    def test_a_directory_changes_with_its_names(self, files: Files) -> None:
        files.mkdir("d")
        before = files.stat("d").st_mtime_ns
        time.sleep(CLOCK_S)

        put(files, "d/f")

        assert files.stat("d").st_mtime_ns > before
        assert files.stat("d").st_nlink >= 1

    def test_a_change_of_owner_takes_the_set_user_bit(self, files: Files) -> None:
        put(files, "f", b"x")
        files.chmod("f", 0o4711)

        files.chown("f", os.getuid(), os.getgid())

        assert stat.S_IMODE(files.stat("f").st_mode) == 0o711

    def test_an_owner_is_kept(self, files: Files) -> None:
        put(files, "f")

        files.chown("f", os.getuid(), os.getgid())
        files.chown("f", -1, -1)

        assert (files.stat("f").st_uid, files.stat("f").st_gid) == (os.getuid(), os.getgid())

    @pytest.mark.parametrize(
        "times",
        [(1, 2), (1_234_567_890_123_456_789, 987_654_321), (4_000_000_000_000_000_000, 0)],
    )
    def test_times_are_kept_to_the_nanosecond(self, files: Files, times: tuple[int, int]) -> None:
        put(files, "f")

        files.utime("f", times)

        assert (files.stat("f").st_atime_ns, files.stat("f").st_mtime_ns) == times

    def test_touching_sets_the_time_to_now(self, files: Files) -> None:
        put(files, "old")
        files.utime("old", (1, 1))

        files.utime("old", None)
        put(files, "later")

        assert 1 < files.stat("old").st_mtime_ns <= files.stat("later").st_mtime_ns

    def test_a_write_changes_the_time(self, files: Files) -> None:
        put(files, "f")
        files.utime("f", (1, 1))

        put(files, "f", b"x")

        assert files.stat("f").st_mtime_ns > 1

    def test_a_links_own_time_can_be_set(self, files: Files) -> None:
        put(files, "f")
        files.symlink("f", "link")
        before = files.stat("f").st_mtime_ns

        files.utime("link", (7, 7))

        assert files.stat("link").st_mtime_ns == 7
        assert files.stat("f").st_mtime_ns == before

    def test_the_users_extended_attributes_are_kept(self, files: Files) -> None:
        put(files, "f")

        files.setxattr("f", "user.colour", b"blue\0green")

        assert files.getxattr("f", "user.colour") == b"blue\0green"
        assert errno_of(files.setxattr, "f", "user.colour", b"", os.XATTR_CREATE) == errno.EEXIST
        assert errno_of(files.setxattr, "f", "user.new", b"", os.XATTR_REPLACE) == errno.ENODATA
        files.removexattr("f", "user.colour")
        assert errno_of(files.getxattr, "f", "user.colour") == errno.ENODATA
        assert errno_of(files.removexattr, "f", "user.colour") == errno.ENODATA

    def test_an_attribute_of_a_closed_file_can_be_read_by_root_alone(self, files: Files) -> None:
        put(files, "f")
        files.setxattr("f", "user.colour", b"blue")

        files.chmod("f", 0)

        if os.geteuid() == 0:
            assert files.getxattr("f", "user.colour") == b"blue"
        else:
            assert errno_of(files.getxattr, "f", "user.colour") == errno.EACCES

    def test_the_disks_room_is_shown(self, files: Files) -> None:
        room = files.statvfs()

        assert room.f_blocks > 0
        assert room.f_bsize > 0
        assert room.f_namemax == 255

    # Names.

    @pytest.mark.parametrize(
        "name",
        [" ", "a b", "-rf", "ä", "a\N{COMBINING DIAERESIS}", "名前", "\N{PILE OF POO}", "new\nline",
         "\x1b[31m", ".hidden", "...", "~", "*?[", LONGEST_NAME, "é" * 127],
    )  # fmt: skip
    def test_any_name_is_kept_as_it_is(self, files: Files, name: str) -> None:
        put(files, name, b"x")

        assert files.listdir("") == [name]
        assert get(files, name) == b"x"
        files.rename(name, "plain")
        assert files.listdir("") == ["plain"]

    def test_a_longer_name_is_refused(self, files: Files) -> None:
        assert errno_of(files.mkdir, LONGEST_NAME + "n") == errno.ENAMETOOLONG
        assert errno_of(files.stat, LONGEST_NAME + "n") == errno.ENAMETOOLONG

    def test_a_deep_tree_can_be_reached(self, files: Files) -> None:
        path = ""
        for _ in range(14):
            path = f"{path}/{LONGEST_NAME}".lstrip("/")
            files.mkdir(path)

        put(files, path + "/f", b"deep")

        assert get(files, path + "/f") == b"deep"

    def test_a_tree_may_be_deeper_than_one_path_can_tell(self, files: Files) -> None:
        for _ in range(20):
            files.mkdir(LONGEST_NAME)
            files = files.below(LONGEST_NAME)

        put(files, "f", b"deep")
        files.symlink("f", "link")
        files.link("f", "other")
        files.rename("other", "renamed")
        files.chmod("f", 0o640)
        files.utime("f", (1, 2))

        assert get(files, "renamed") == b"deep"
        assert files.readlink("link") == "f"
        assert files.stat("f").st_mtime_ns == 2
        files.unlink("renamed")
        files.mkdir("d")
        files.rmdir("d")
        assert errno_of(files.stat, "renamed") == errno.ENOENT
