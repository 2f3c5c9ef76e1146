"""How a mount begins and ends, also when it ends badly: no reader hangs, nothing stays mounted."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from p2pfs.errors import UsageError
from p2pfs.filesystem import BELIEVED_S, FileSystem
from p2pfs.mount import (
    check_fuse,
    check_mountpoint,
    new_mountpoint_undone,
    serve_mount,
    session,
    stale_mounts,
)
from p2pfs.mount.heard import libfuse_heard
from p2pfs.mount.mountpoint import detach, fusermount
from p2pfs.roots import Roots
from tests.helpers.faketree import FakeCaller, FakeNetwork, FakeShare
from tests.helpers.mountedtree import LISTED, STOP_TIMEOUT_S, MountedTree, mounted_tree
from tests.suites.filesystem_suite import errno_of

pytestmark = pytest.mark.fuse

READ_ONLY = "Read-only file system" if os.geteuid() == 0 else "Permission denied"
"""To all but root the kernel itself refuses changes, as the modes do."""

READ_AND_TELL = """
import errno, os, sys
try:
    os.read(os.open(sys.argv[1], os.O_RDONLY), 10)
except OSError as error:
    print(errno.errorcode[error.errno])
else:
    print("read")
"""


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[MountedTree]:
    with mounted_tree(tmp_path) as mounted:
        yield mounted


class Reader:
    """A process that waits in a read, and says how that ended."""

    def __init__(self, mounted: MountedTree, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", READ_AND_TELL, str(mounted.mountpoint / path)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ended_with(self) -> str:
        return self._process.communicate(timeout=STOP_TIMEOUT_S)[0].strip()


def two_waiting_readers(mounted: MountedTree) -> list[Reader]:
    readers = []
    for count, path in enumerate(["network/stuck/1", "network/lost"], start=1):
        readers.append(Reader(mounted, path))
        assert mounted.ask("waiting", count)
    return readers


# One waits for another only if it must.


def test_a_lookup_that_takes_long_holds_up_nothing_in_its_directory(mounted: MountedTree) -> None:
    lookup = Reader(mounted, "network/lost")
    assert mounted.ask("waiting", 1)

    assert "stuck" in os.listdir(mounted.network)
    assert errno_of(os.stat, mounted.network / "absent") == errno.ENOENT
    second = subprocess.Popen(["stat", mounted.network / "lost too"], stderr=subprocess.DEVNULL)
    assert mounted.ask("waiting", 2)
    second.kill()
    assert second.wait(STOP_TIMEOUT_S) == -signal.SIGKILL

    mounted.process.send_signal(signal.SIGTERM)
    assert lookup.ended_with() == "ESHUTDOWN"


# Ends.


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_idle_mount_ends_with_a_signal(mounted: MountedTree, stop: signal.Signals) -> None:
    mounted.process.send_signal(stop)

    assert mounted.process.wait(STOP_TIMEOUT_S) == 0
    assert not mounted.is_mounted()


def test_waiting_readers_are_told_of_the_shutdown(mounted: MountedTree) -> None:
    readers = two_waiting_readers(mounted)

    mounted.process.terminate()

    assert [reader.ended_with() for reader in readers] == ["ESHUTDOWN", "ESHUTDOWN"]
    assert mounted.process.wait(STOP_TIMEOUT_S) == 0
    assert not mounted.is_mounted()


def test_a_program_that_sits_in_the_mount_does_not_hold_it(mounted: MountedTree) -> None:
    held = os.open(mounted.network / "cached.txt", os.O_RDONLY)
    sitter = subprocess.Popen(["sleep", "60"], cwd=mounted.shared)

    mounted.process.terminate()

    assert mounted.process.wait(STOP_TIMEOUT_S) == 0
    assert not mounted.is_mounted()
    assert errno_of(os.pread, held, 1, 0) in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, None)
    with suppress(OSError):
        os.close(held)
    sitter.kill()
    sitter.wait()


def test_unmounting_from_outside_ends_the_servent(mounted: MountedTree) -> None:
    subprocess.run([fusermount(), "-u", str(mounted.mountpoint)], check=True)

    assert mounted.process.wait(STOP_TIMEOUT_S) == 0


def test_a_lazy_unmount_from_outside_ends_it_when_the_last_file_is_closed(
    mounted: MountedTree,
) -> None:
    file = (mounted.shared / "f").open("w")
    subprocess.run([fusermount(), "-u", "-z", str(mounted.mountpoint)], check=True)

    file.write("to the end")
    file.close()

    assert mounted.process.wait(STOP_TIMEOUT_S) == 0
    assert (mounted.backing / "f").read_text() == "to the end"


@pytest.mark.parametrize("crash", ["crash a task", "crash trio"])
def test_when_trio_dies_readers_are_let_go_and_the_mount_is_gone(
    mounted: MountedTree, crash: str
) -> None:
    readers = two_waiting_readers(mounted)
    assert mounted.process.stdin is not None

    mounted.process.stdin.write(f'["{crash}"]\n')
    mounted.process.stdin.flush()

    assert mounted.process.wait(STOP_TIMEOUT_S) == 1
    assert not mounted.is_mounted()
    for reader in readers:
        assert reader.ended_with() in ("ESHUTDOWN", "ENOTCONN", "ECONNABORTED")


def test_a_killed_mount_leaves_an_errno_and_the_next_one_cleans_up(
    mounted: MountedTree, tmp_path: Path
) -> None:
    reader = Reader(mounted, "network/stuck/1")
    assert mounted.ask("waiting", 1)
    (mounted.shared / "f").write_text("kept")

    mounted.process.kill()
    mounted.process.wait()

    assert reader.ended_with() in ("ENOTCONN", "ECONNABORTED")
    assert errno_of(os.statvfs, mounted.mountpoint) == errno.ENOTCONN
    with mounted_tree(tmp_path) as again:
        assert (again.shared / "f").read_text() == "kept"
    assert not mounted.is_mounted()


# Begins.


def test_this_machine_can_mount() -> None:
    assert check_fuse() is None


def test_a_second_mount_on_the_same_place_is_refused(mounted: MountedTree) -> None:
    with pytest.raises(UsageError, match="already mounted by a running p2pfs"):
        check_mountpoint(str(mounted.mountpoint))
    assert mounted.is_mounted()


def test_a_mount_that_is_stuck_is_refused_and_holds_up_nobody(mounted: MountedTree) -> None:
    look = f"from p2pfs.mount import *; check_mountpoint({str(mounted.mountpoint)!r})"
    mounted.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(BELIEVED_S)  # for as long the kernel answers in its place
        looker = subprocess.run(
            [sys.executable, "-c", look],
            capture_output=True, text=True, timeout=STOP_TIMEOUT_S, check=False,
        )  # fmt: skip
    finally:
        mounted.process.send_signal(signal.SIGCONT)

    assert "already mounted by a running p2pfs" in looker.stderr
    assert mounted.is_mounted()


def test_the_name_of_the_mount_cannot_add_options(mounted: MountedTree) -> None:
    mounts = Path("/proc/mounts").read_text()

    assert f"p2pfs:test__name {mounted.mountpoint} fuse.p2pfs" in mounts


async def test_libfuses_refusal_is_said_in_one_line(tmp_path: Path) -> None:
    """Here the place has gone between the check and the mount."""
    tree = FileSystem(Roots(tmp_path), FakeShare(), FakeNetwork(), FakeCaller())
    missing = str(tmp_path / "missing")

    with trio.fail_after(STOP_TIMEOUT_S), pytest.raises(UsageError) as refusal:
        await serve_mount(tree, missing, name="test")
    tree.close()

    assert str(refusal.value).startswith(f"cannot mount on {missing}: fuse: bad mount point ")
    assert "No such file or directory" in str(refusal.value)


def test_what_others_write_while_libfuse_is_listened_to_is_passed_on(capfd) -> None:
    with libfuse_heard() as said:
        os.write(2, b"a log line\nfuse: no\nfusermount3: because\nlast")

    assert said() == "fuse: no; fusermount3: because"
    assert capfd.readouterr().err == "a log line\nlast"
    os.write(2, b"later")
    assert capfd.readouterr().err == "later"


def test_libfuse_is_heard_without_a_standard_error_output(capfd) -> None:
    kept = os.dup(2)
    os.close(2)
    try:
        with libfuse_heard() as said:
            os.write(2, b"fuse: no\n")
        is_closed = not os.path.exists("/proc/self/fd/2")
    finally:
        os.dup2(kept, 2)
        os.close(kept)

    assert (said(), is_closed) == ("fuse: no", True)


def is_ignored(number: signal.Signals) -> bool:
    """Ask the kernel: Python remembers only what it did itself."""
    status = Path("/proc/self/status").read_text()
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored.split()[1], 16) >> (number - 1) & 1)


async def test_a_mount_within_this_process_comes_and_goes(tmp_path: Path) -> None:
    """And a write to a peer that has hung up is still an error, not the end of the process."""
    (tmp_path / "backing").mkdir()
    tree = FileSystem(Roots(tmp_path / "backing"), FakeShare(), FakeNetwork(), FakeCaller())
    mountpoint = check_mountpoint(str(tmp_path / "mnt"))

    async def mount(task_status: trio.TaskStatus[None]) -> None:
        await serve_mount(tree, mountpoint, name="test", task_status=task_status)

    for _ in range(3):
        with trio.fail_after(STOP_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                await nursery.start(mount)
                status = trio.Path(mountpoint, ".p2pfs", "status")
                assert (await status.read_bytes()).startswith(b"status ")
                nursery.cancel_scope.cancel()
            assert await trio.to_thread.run_sync(os.listdir, mountpoint) == []
        assert is_ignored(signal.SIGPIPE)
    tree.close()


# The kernel's caches, which only the kernel can show.


def test_an_open_file_never_mixes_versions(mounted: MountedTree) -> None:
    path = mounted.network / "version.txt"
    assert mounted.ask("replace", "version.txt", "old " * 20_000)
    with path.open("rb", buffering=0) as reader:
        first = reader.read(1000)

        assert mounted.ask("replace", "version.txt", "newer " * 20_000)
        with path.open("rb") as other:
            assert other.read() == b"old " * 20_000
        rest = reader.read()

    assert first + rest == b"old " * 20_000
    assert mounted.ask("released")
    assert path.read_bytes() == b"newer " * 20_000


@pytest.mark.parametrize("text", ["shorter", "much longer " * 50_000])
def test_a_new_version_is_read_whole_at_once(mounted: MountedTree, text: str) -> None:
    """Though the kernel still holds the size of the old one for valid."""
    path = mounted.network / "version.txt"
    assert mounted.ask("replace", "version.txt", "old " * 20_000)
    assert path.read_bytes() == b"old " * 20_000
    assert mounted.ask("released")

    assert mounted.ask("replace", "version.txt", text)

    assert path.read_bytes() == text.encode()


def test_a_search_is_made_once_for_a_name_that_is_absent(mounted: MountedTree) -> None:
    for _ in range(5):
        assert errno_of(os.stat, mounted.network / "absent.txt") == errno.ENOENT

    assert mounted.ask("statistics")["searched"] == ["absent.txt"]


def test_finding_files_by_type_searches_for_none_of_them(mounted: MountedTree) -> None:
    command = ["find", str(mounted.network / "many"), "-type", "f"]

    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)

    assert len(found.stdout.splitlines()) == LISTED
    assert mounted.ask("statistics")["searched"] == []


def test_a_name_that_is_not_utf8_is_refused_and_hides_no_other(mounted: MountedTree) -> None:
    (mounted.backing / "\udcff").touch()
    (mounted.backing / "good").touch()

    assert sorted(os.listdir(mounted.shared)) == ["good", "\udcff"]
    assert errno_of((mounted.shared / "\udcfe").touch) == errno.EILSEQ
    assert errno_of(os.stat, mounted.network / "\udcff") == errno.ENOENT
    os.unlink(mounted.shared / "\udcff")
    assert os.listdir(mounted.shared) == ["good"]


def test_mv_copies_out_of_the_network_and_not_into_it(mounted: MountedTree) -> None:
    def mv(source: str, target: str) -> str:
        command = ["mv", source, target]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, cwd=mounted.mountpoint, env=environment,
                              stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
        return done.stderr

    (mounted.shared / "f").write_text("mine")

    assert READ_ONLY in mv("network/cached.txt", "shared/copy")
    if os.geteuid() == 0:  # others may not take the name away: mv tries no more
        assert (mounted.shared / "copy").read_text() == "cached"
    assert READ_ONLY in mv("shared/f", "network/f")
    assert (mounted.shared / "f").read_text() == "mine"


# Where one can mount.


def test_a_missing_mountpoint_is_made(tmp_path: Path) -> None:
    assert check_mountpoint(str(tmp_path / "a/b")) == str(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()


def test_a_mountpoint_that_was_made_is_removed_unless_it_was_mounted(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for place in ("there", "there/a/b"):
        with suppress(UsageError), new_mountpoint_undone(str(tmp_path / place)):
            check_mountpoint(str(tmp_path / place))
            raise UsageError("it cannot be mounted")
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]

    with new_mountpoint_undone(str(tmp_path / "up")) as keep:
        check_mountpoint(str(tmp_path / "up"))
        keep()
    with new_mountpoint_undone(str(tmp_path / "used/up")):
        check_mountpoint(str(tmp_path / "used/up"))
        (tmp_path / "used/theirs").touch()
    assert (tmp_path / "up").is_dir()
    assert [one.name for one in (tmp_path / "used").iterdir()] == ["theirs"]


@pytest.mark.parametrize("is_device", [True, False])
def test_what_is_at_the_place_of_the_device_must_be_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_device: bool
) -> None:
    place = "/dev/null" if is_device else str(tmp_path / "fuse")
    (tmp_path / "fuse").touch()
    monkeypatch.setattr("p2pfs.mount.mountpoint._DEVICE", place)

    with pytest.raises(UsageError, match=r"is not the device of FUSE.* c 10 229"):
        check_fuse()


def test_a_mountpoint_is_known_by_its_real_name(tmp_path: Path) -> None:
    (tmp_path / "real dir").mkdir()
    (tmp_path / "link").symlink_to("real dir")

    assert check_mountpoint(str(tmp_path / "link")) == str(tmp_path / "real dir")


def test_a_full_directory_is_not_mounted_on(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    with pytest.raises(UsageError, match="is not empty: name an empty directory"):
        check_mountpoint(str(tmp_path))


def test_a_file_is_not_mounted_on(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    for path in ("f", "f/below"):
        with pytest.raises(UsageError, match="is not a directory"):
            check_mountpoint(str(tmp_path / path))


def test_detaching_what_is_not_mounted_does_nothing(tmp_path: Path) -> None:
    detach(str(tmp_path))

    assert tmp_path.is_dir()


def test_only_the_mounts_that_are_meant_are_asked(
    mounted: MountedTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has read a question and gives no answer would keep us from ending."""
    asked: list[str] = []
    monkeypatch.setattr("p2pfs.mount.mountpoint._is_stale", asked.append)

    stale_mounts(set(), among={"/elsewhere"})
    assert asked == []
    stale_mounts(set(), among={"/elsewhere", str(mounted.mountpoint)})
    assert asked == [str(mounted.mountpoint)]


async def test_a_mount_that_is_being_made_is_there_before_it_is_taken_down(monkeypatch):
    monkeypatch.setattr(session, "fusermount", lambda: "fusermount")
    thread = session._FuseThread("/nowhere")
    was_there = []

    async def unmount(*_options: str) -> bool:
        was_there.append(thread.mounted.is_set())
        thread.ended.set()
        return True

    monkeypatch.setattr(thread, "_unmount", unmount)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread.take_down)
        await trio.testing.wait_all_tasks_blocked()
        thread.mounted.set()

    assert was_there == [True]
