"""What the command opens: what lies at a destination, and what may be published."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from p2pfs.control import ExitStatus, VerbError, opening
from p2pfs.control.opening import (
    NAME_MAX,
    SourceFile,
    Stream,
    WholeFile,
    open_destination,
)
from p2pfs.errors import UsageError
from tests.helpers.powercut import check_cuts, power_may_fail

CONTENT = b"content" * 100_000


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def receive(output: str | Path, content: bytes = CONTENT, *, replace: bool = False) -> None:
    """Do what the servent does: write the whole content into what was opened."""
    with open_destination(str(output), "name", replace=replace) as destination:
        descriptor = os.dup(destination.descriptors[0])
        with open(descriptor, "wb") as file:
            file.write(content)
            if isinstance(destination, WholeFile):
                file.truncate()
        destination.finish(is_there_already=False)


def test_a_missing_file_is_made_as_the_umask_says(tmp_path):
    mask = os.umask(0o027)
    try:
        receive("x")
    finally:
        os.umask(mask)

    assert Path("x").read_bytes() == CONTENT
    assert stat.S_IMODE(os.stat("x").st_mode) == 0o640
    assert os.listdir() == ["x"]


def test_a_directory_takes_the_file(tmp_path):
    os.mkdir("d")
    receive("d")
    receive("d/")

    assert os.listdir("d") == ["name"]
    with pytest.raises(UsageError, match="no directory"):
        receive("e/")
    with pytest.raises(FileNotFoundError):
        receive("e/x")


def test_a_file_has_its_name_only_when_it_is_whole():
    with open_destination("x", "x") as destination:
        os.write(destination.descriptors[0], b"half")
        assert os.listdir() == ["x.part"]
        error = destination.failure(VerbError("gone", ExitStatus.UNREACHABLE))

    assert os.listdir() == ["x.part"]
    assert isinstance(error, VerbError)
    assert str(error) == f"gone; what came is kept in {os.getcwd()}/x.part for the next get"
    assert error.status == ExitStatus.UNREACHABLE


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_power_cut_leaves_the_whole_file_or_what_was_there(before, tmp_path):
    place = tmp_path / "downloads"
    place.mkdir()
    if before is not None:
        (place / "x").write_bytes(before)

    with power_may_fail(place) as cuts:
        receive(place / "x", replace=True)

    def load(disk: Path) -> bytes | None:
        return (disk / "x").read_bytes() if (disk / "x").exists() else None

    check_cuts(cuts, tmp_path / "disks", load, before, CONTENT)


def test_a_directory_that_cannot_be_read_takes_a_file(monkeypatch):
    def refuse(_path: object) -> None:
        raise PermissionError

    monkeypatch.setattr(opening, "sync_directory", refuse)
    receive("x")

    assert Path("x").read_bytes() == CONTENT


def test_a_download_that_brought_nothing_leaves_nothing():
    error = VerbError("gone", ExitStatus.UNREACHABLE)
    with open_destination("x", "x") as destination:
        assert destination.failure(error) is error

    assert os.listdir() == []


def test_permissions_and_owner_stay():
    Path("x").write_text("old")
    os.chmod("x", 0o600)
    if os.geteuid() == 0:
        os.chown("x", 1234, 1234)
    owner = os.stat("x").st_uid
    receive("x", replace=True)

    status = os.stat("x")
    assert Path("x").read_bytes() == CONTENT
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, owner)


def test_what_is_there_already_is_left_alone():
    Path("x").write_text("old")
    with open_destination("x", "x") as destination:
        destination.finish(is_there_already=True)

    assert Path("x").read_text() == "old"
    assert os.listdir() == ["x"]


@pytest.mark.parametrize("has_target", [True, False])
def test_a_link_is_followed(has_target):
    os.mkdir("d")
    if has_target:
        Path("d/target").write_text("old")
    os.symlink("d/target", "link")
    receive("link", replace=True)

    assert Path("d/target").read_bytes() == CONTENT
    assert os.readlink("link") == "d/target"
    assert sorted(os.listdir()) == ["d", "link"]
    assert os.listdir("d") == ["target"]


def test_links_in_a_circle_are_an_error():
    os.symlink("link", "link")
    with pytest.raises(OSError, match="symbolic links"):
        receive("link")


def test_a_fifo_is_written_to():
    os.mkfifo("fifo")
    received = []
    reader = threading.Thread(target=lambda: received.append(Path("fifo").read_bytes()))
    reader.start()
    receive("fifo")
    reader.join()

    assert received == [CONTENT]
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)
    assert os.listdir() == ["fifo"]


def test_a_fifo_that_nobody_reads_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr("p2pfs.control.opening.FIFO_WAIT_S", 0.1)
    os.mkfifo("fifo")
    with pytest.raises(UsageError, match="nobody reads fifo"):
        receive("fifo")


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_device_is_written_to(is_linked):
    try:
        os.mknod("null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        os.close(os.open("null", os.O_WRONLY))
    except PermissionError:
        pytest.skip("only root may make a device")
    os.symlink("null", "link")
    receive("link" if is_linked else "null")

    assert stat.S_ISCHR(os.stat("null").st_mode)
    assert stat.S_IMODE(os.stat("null").st_mode) == 0o600
    assert sorted(os.listdir()) == ["link", "null"]


def test_an_open_file_is_written_to_where_it_is():
    with open("log", "wb") as log:
        log.write(b"before ")
        log.flush()
        receive(f"/dev/fd/{log.fileno()}")
        os.symlink(f"/proc/self/fd/{log.fileno()}", "link")
        receive("link", b" after")

    assert Path("log").read_bytes() == b"before " + CONTENT + b" after"
    assert sorted(os.listdir()) == ["link", "log"]


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_the_standard_output_is_written_to(output):
    saved = os.dup(1)
    try:
        with open("out", "wb") as out:
            os.dup2(out.fileno(), 1)
        receive(output)
    finally:
        os.dup2(saved, 1)
        os.close(saved)

    assert Path("out").read_bytes() == CONTENT
    assert os.listdir() == ["out"]


def test_why_a_stream_could_not_be_written_is_told():
    read_end, write_end = os.pipe()
    os.close(read_end)
    unread = VerbError("nobody reads", ExitStatus.USAGE)
    with open_destination(f"/dev/fd/{write_end}", "x") as destination:
        assert isinstance(destination, Stream)
        os.write(destination.descriptors[0], b"content")
        assert isinstance(destination.failure(unread), BrokenPipeError)
    with open_destination(f"/dev/fd/{write_end}", "x") as destination:
        assert destination.failure(unread) is unread
    os.close(write_end)


def test_one_destination_is_of_one_download(monkeypatch):
    monkeypatch.setattr("p2pfs.control.opening.LOCK_WAIT_S", 0.1)
    with open_destination("x", "x") as first:
        with pytest.raises(UsageError, match="another get"):
            open_destination("x", "x")
        os.write(first.descriptors[0], b"first")
        first.finish(is_there_already=False)
        # It is not in the way of the next one any more, and that does not write into it.
        with open_destination("x", "x") as second:
            os.write(second.descriptors[0], b"SECOND")
            assert Path("x").read_text() == "first"

    assert Path("x").read_text() == "first"


def test_the_lock_is_the_servents_too(monkeypatch):
    monkeypatch.setattr("p2pfs.control.opening.LOCK_WAIT_S", 0.1)
    with open_destination("x", "x") as destination:
        servents = os.dup(destination.descriptors[0])
        os.write(servents, b"some")
    with pytest.raises(UsageError, match="another get"):
        open_destination("x", "x")
    os.close(servents)
    open_destination("x", "x").__exit__()


@pytest.mark.parametrize("has_links", [True, False])
def test_what_came_into_being_meanwhile_is_not_replaced(monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    with open_destination("x", "x") as destination:
        os.write(destination.descriptors[0], b"got")
        Path("x").write_text("mine")
        with pytest.raises(UsageError, match="another file"):
            destination.finish(is_there_already=False)
    os.unlink("x")
    receive("x", b"again")

    assert Path("x").read_bytes() == b"again"


def refuse(*_arguments: object) -> None:
    raise PermissionError(1, "no links here")


def test_what_was_exchanged_meanwhile_is_not_replaced():
    Path("x").write_text("")
    with open_destination("x", "x") as destination:
        os.write(destination.descriptors[0], b"got")
        Path("y").write_text("mine")
        os.replace("y", "x")
        with pytest.raises(UsageError, match="another file"):
            destination.finish(is_there_already=False)

    assert Path("x").read_text() == "mine"


@pytest.mark.parametrize("name", ["x" * NAME_MAX, "ü" * 127, "x" * 251])
def test_the_longest_names_can_be_got(name):
    receive(name)

    assert os.listdir() == [name]


def test_what_is_in_the_way_of_the_partial_file_is_told():
    os.mkfifo("x.part")
    with pytest.raises(UsageError, match=r"x\.part is in the way"):
        open_destination("x", "x")


# Sources.


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_source_has_the_permissions_that_cp_would_give(mask):
    Path("x").write_text("content")
    os.chmod("x", 0o777)
    before = os.umask(mask)
    try:
        with SourceFile("x") as source:
            assert source.mode == 0o777 & ~mask
            assert source.name == "x"
            assert os.pread(source.descriptor, 100, 0) == b"content"
    finally:
        assert os.umask(before) == mask


def test_what_is_no_file_is_no_source():
    os.mkfifo("fifo")
    os.mkdir("d")
    Path("x").write_text("")
    for path, reason in (("d", "d is a directory"), ("fifo", "not a regular file")):
        with pytest.raises(UsageError, match=reason):
            SourceFile(path)
    for path in ("missing", "x/"):
        with pytest.raises(OSError, match=path):
            SourceFile(path)


def test_what_the_user_may_not_read_is_no_source(tmp_path):
    Path("x").write_text("secret")
    os.chmod("x", 0)
    if os.geteuid() == 0:
        pytest.skip("root may read all")
    with pytest.raises(PermissionError):
        SourceFile("x")


def test_an_open_pipe_is_a_source():
    read_end, write_end = os.pipe()
    with SourceFile(f"/dev/fd/{read_end}") as source:
        os.write(write_end, b"content")
        assert os.read(source.descriptor, 100) == b"content"
        assert source.name == str(read_end)
        assert source.mode & 0o111 == 0
    os.close(read_end)
    os.close(write_end)
