"""Each row of the table of errors in file-system.md, produced for real, by real peers.

Each is an errno for the program that reads, a line in `p2pfs events`, the text of
`user.p2pfs.error`, and an exit status of `p2pfs get`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.control import ExitStatus
from tests.helpers.mounted import (
    PATIENCE_S,
    READ_ONLY,
    Rogue,
    Servent,
    Servents,
    errno_name,
    is_mounted,
    until,
)

pytestmark = pytest.mark.fuse

STALL_S = 2.0

SLACK_S = 25.0
"""What a busy machine may add; with it the time is still under the 30 s of who sets none."""

BLOCK = 256 * 1024

SIZE = 40 * BLOCK

FAR = 36 * BLOCK
"""Beyond what is read ahead of a reader of the beginning."""


@pytest.fixture(scope="module")
def source(servents: Servents) -> Rogue:
    """The only one who has the files of most tests."""
    return servents.start_rogue("source")


@pytest.fixture(scope="module")
def reader(servents: Servents, source: Rogue) -> Servent:
    """Who reads, and gives up after two seconds without a byte."""
    return servents.start("reader", "--stall-timeout", str(STALL_S), joins=[source])


@pytest.fixture(scope="module")
def liar(servents: Servents, source: Rogue) -> Rogue:
    """Who sends wrong bytes, always."""
    liar = servents.start_rogue("liar", joins=[source])
    liar.be("lying")
    return liar


@pytest.fixture(scope="module")
def victim(servents: Servents, liar: Rogue, source: Rogue) -> Servent:
    """Who reads from the liar."""
    return servents.start("victim", "--stall-timeout", str(STALL_S), joins=[liar, source])


@pytest.fixture
def honest_again(source: Rogue) -> Iterator[None]:
    yield
    source.be("honest")


def content(path: str) -> bytes:
    """Return what is shared at a path: no content twice, or it would be in the cache."""
    return random.Random(path).randbytes(SIZE)


def read(path: Path, offset: int = 0, length: int = BLOCK) -> bytes:
    """Read past the kernel's read-ahead, so that it is clear what was asked for."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return os.pread(file.fileno(), length, offset)


@contextlib.contextmanager
def started(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Start a program that is killed if it still runs at the end of the block."""
    with subprocess.Popen(
        command, env=os.environ | {"LC_ALL": "C"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def complaint(process: subprocess.Popen[str]) -> str:
    """Return what a program says when it has ended, after the last colon."""
    return process.communicate(timeout=PATIENCE_S)[1].strip().rpartition(": ")[2]


def told(reader: Servent, path: str) -> str:
    """Return why the only failed read of a file failed, which the events say once."""
    text = reader.attribute(path, "error")
    assert reader.errors(path) == [text]
    return text


def got(reader: Servent, path: str) -> tuple[int, str]:
    """Return how `p2pfs get` ends, and what it says."""
    done = reader.p2pfs("get", path, "-o", "copy")
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (reader.mountpoint.parent / "copy").exists()
    return done.returncode, done.stderr


def test_enoent_when_nobody_has_the_path(source: Rogue, reader: Servent) -> None:
    assert errno_name(read, reader.network / "nobody/has.this") == "ENOENT"
    assert got(reader, "nobody/has.this")[0] == ExitStatus.NOT_FOUND


@pytest.mark.usefixtures("honest_again")
def test_etimedout_when_nothing_arrives_for_the_stall_time(source: Rogue, reader: Servent) -> None:
    source.share("silent", content("silent"))
    path = reader.sees("silent")
    assert read(path) == content("silent")[:BLOCK]
    source.be("silent")

    began = time.monotonic()
    assert errno_name(read, path, 6 * BLOCK) == "ETIMEDOUT"

    assert STALL_S <= time.monotonic() - began < STALL_S + SLACK_S
    assert told(reader, "silent") == "nothing arrived for the stall time"
    last = reader.p2pfs("events").stdout.splitlines()[-1]
    assert last.endswith("\terror\tnothing arrived for the stall time\tsilent")
    assert got(reader, "silent")[0] == ExitStatus.UNREACHABLE

    source.be("honest")
    assert read(path, FAR) == content("silent")[FAR : FAR + BLOCK]
    assert errno_name(reader.attribute, "silent", "error") == "ENODATA"


@pytest.mark.usefixtures("honest_again")
def test_eintr_frees_a_blocked_cat_at_once(source: Rogue, reader: Servent) -> None:
    source.share("blocked", content("blocked"))
    path = reader.sees("blocked")
    source.be("silent")
    source.forget_served()

    with started("cat", path) as reading:
        until(source.served)
        reading.send_signal(signal.SIGINT)

        assert reading.wait(PATIENCE_S) == -signal.SIGINT
        assert reader.errors("blocked") == []  # it has not waited for the stall time


def test_estale_when_the_holder_changed_it_during_the_read(source: Rogue, reader: Servent) -> None:
    source.share("changed", content("changed"))
    with reader.sees("changed").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert file.read(1000) == content("changed")[:1000]

        source.share("changed", content("changed, later"))

        assert errno_name(os.pread, file.fileno(), BLOCK, FAR) == "ESTALE"
        assert os.pread(file.fileno(), 1000, 0) == content("changed")[:1000]
        assert "changed or unpublished" in told(reader, "changed")
    until(lambda: errno_name(reader.attribute, "changed", "cached") == "returned '0'")
    assert reader.network.joinpath("changed").read_bytes() == content("changed, later")


def test_estale_when_the_holder_unpublished_it_during_the_read(
    source: Rogue, reader: Servent
) -> None:
    shared = source.share("unpublished", content("unpublished"))
    with reader.sees("unpublished").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert file.read(1000) == content("unpublished")[:1000]

        shared.unlink()

        assert errno_name(os.pread, file.fileno(), BLOCK, FAR) == "ESTALE"
        assert "changed or unpublished" in told(reader, "unpublished")
    until(lambda: not reader.shows("unpublished"))


def test_estale_when_an_editor_saved_it_anew_during_the_read(
    source: Rogue, reader: Servent
) -> None:
    shared = source.share("saved", content("saved"))
    with reader.sees("saved").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert file.read(1000) == content("saved")[:1000]

        anew = shared.with_name(".saved.new")
        anew.write_bytes(b"another text")
        anew.rename(shared)

        assert errno_name(os.pread, file.fileno(), BLOCK, FAR) == "ESTALE"
    until(lambda: errno_name(reader.attribute, "saved", "cached") == "returned '0'")
    assert reader.network.joinpath("saved").read_bytes() == b"another text"


def test_ebusy_when_the_holder_refuses_until_the_stall_time_is_over(
    source: Rogue, reader: Servent
) -> None:
    source.share("paused", content("paused"))
    with reader.sees("paused").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert file.read(1000) == content("paused")[:1000]
        try:
            assert source.p2pfs("pause").returncode == 0
            assert errno_name(os.pread, file.fileno(), BLOCK, FAR) == "EBUSY"
            assert told(reader, "paused") == "every holder refuses for now"
        finally:
            assert source.p2pfs("resume").returncode == 0
        until(lambda: errno_name(os.pread, file.fileno(), BLOCK, FAR) != "EBUSY")
        assert os.pread(file.fileno(), BLOCK, FAR) == content("paused")[FAR : FAR + BLOCK]


def test_erofs_for_whoever_writes_where_others_are_shown(source: Rogue, reader: Servent) -> None:
    source.share("theirs", b"theirs")
    theirs = reader.sees("theirs")

    for attempt in (
        lambda: theirs.open("r+b"),
        lambda: os.truncate(theirs, 0),
        theirs.unlink,
        lambda: theirs.rename(reader.network / "mine"),
        (reader.network / "new").touch,
        (reader.network / "new").mkdir,
        (reader.mountpoint / ".p2pfs/new").touch,
        lambda: (reader.mountpoint / ".p2pfs/status").open("w"),
    ):
        assert errno_name(attempt) == READ_ONLY
    assert theirs.read_bytes() == b"theirs"


def test_enospc_when_open_files_hold_the_whole_cache(servents: Servents, source: Rogue) -> None:
    small = servents.start("small", "--cache-size", "64M", joins=[source])
    for name in ("held", "large"):
        with (source.shared / name).open("wb") as file:
            file.write(name.encode())
            file.truncate(40 * 2**20)
        source.wait_published(name)
    source.share("little", content("little"))

    with small.sees("held").open("rb") as held:
        while held.read(2**20):
            pass
        with started("cat", small.sees("large")) as reading:
            assert complaint(reading) == "No space left on device"
        told(small, "large")
        assert got(small, "large")[0] == ExitStatus.FAILED

    assert small.status()["cache_bytes"] <= 64 * 2**20
    assert (small.network / "little").read_bytes() == content("little")


def test_a_file_larger_than_the_cache_is_read_to_its_end(servents: Servents, source: Rogue) -> None:
    small = servents.start("passing", "--cache-size", "64M", joins=[source])
    large = random.Random(3).randbytes(2**20) * 80
    (source.shared / "larger").write_bytes(large)
    source.wait_published("larger")

    with small.sees("larger").open("rb") as file:
        assert file.read() == large
        file.seek(5)
        assert file.read(2**20) == large[5 : 5 + 2**20]

    assert small.status()["cache_bytes"] <= 32 * 2**20


class TestLyingSources:
    def test_eio_when_every_holder_sends_wrong_bytes(self, liar: Rogue, victim: Servent) -> None:
        liar.share("false", content("false"))

        assert errno_name(read, victim.sees("false")) == "EIO"

        assert told(victim, "false") == "every holder sends wrong bytes"
        assert victim.attribute("false", "cached") == "0"

    def test_the_file_arrives_whole_from_an_honest_one(
        self, liar: Rogue, source: Rogue, victim: Servent
    ) -> None:
        for servent in (liar, source):
            servent.share("doubtful", content("doubtful"))
        path = victim.sees("doubtful", sources=2)
        liar.forget_served()

        assert path.read_bytes() == content("doubtful")

        assert liar.served()
        assert victim.errors("doubtful") == []
        warnings = [row["text"] for row in victim.rows("events") if row["severity"] == "warning"]
        assert any(str(text).startswith("liar sent a wrong block") for text in warnings)

    def test_the_command_says_corrupt_and_who_lies_on_is_dropped(
        self, liar: Rogue, victim: Servent
    ) -> None:
        assert "liar" in victim.neighbours()
        liar.share("false too", content("false too"))
        victim.sees("false too")

        assert got(victim, "false too")[0] == ExitStatus.CORRUPT

        until(lambda: "liar" not in victim.neighbours())


class TestTheSourceIsKilled:
    """While `cp` runs: it is slow, so that there is a middle."""

    @contextlib.contextmanager
    def copying(self, reader: Servent, path: str, target: Path) -> Iterator[subprocess.Popen[str]]:
        """Start `cp`, and go on when the first bytes have been copied."""
        with started("cp", reader.sees(path), target) as copying:
            until(lambda: target.exists() and target.stat().st_size)
            assert target.stat().st_size < SIZE
            yield copying

    def test_ehostunreach_if_it_was_the_only_one(
        self, servents: Servents, reader: Servent, tmp_path: Path
    ) -> None:
        mortal = servents.start_rogue("mortal", joins=[reader])
        mortal.share("half", content("half"))
        mortal.be("slow")
        with self.copying(reader, "half", tmp_path / "copy") as copying:
            mortal.kill()
            began = time.monotonic()
            assert complaint(copying) == "No route to host"
            assert time.monotonic() - began < STALL_S + SLACK_S

        assert copying.returncode == 1
        assert reader.errors("half")  # its name may be gone with its only holder
        copied = (tmp_path / "copy").read_bytes()
        assert copied == content("half")[: len(copied)]

    def test_the_command_says_that_it_cannot_be_reached_and_leaves_nothing(
        self, servents: Servents, reader: Servent, tmp_path: Path
    ) -> None:
        mortal = servents.start_rogue("mortal again", joins=[reader])
        mortal.share("in part", content("in part"))
        mortal.be("slow")
        reader.sees("in part")
        p2pfs = [sys.executable, "-m", "p2pfs", "get", "-m", reader.state, "in part"]
        with started(*p2pfs, "-o", tmp_path) as getting:
            until(lambda: os.listdir(tmp_path))
            mortal.kill()
            assert complaint(getting)

        assert getting.returncode == ExitStatus.UNREACHABLE
        assert reader.errors("in part")
        assert os.listdir(tmp_path) == []

    def test_a_second_source_finishes_it_with_the_right_bytes(
        self, servents: Servents, source: Rogue, reader: Servent, tmp_path: Path
    ) -> None:
        mortal = servents.start_rogue("mortal too", joins=[reader])
        for servent in (mortal, source):
            servent.share("twice", content("twice"))
            servent.be("slow")
        reader.sees("twice", sources=2)
        with self.copying(reader, "twice", tmp_path / "copy") as copying:
            until(mortal.served)
            mortal.kill()
            source.be("honest")
            assert complaint(copying) == ""

        assert copying.returncode == 0
        assert (tmp_path / "copy").read_bytes() == content("twice")
        assert reader.errors("twice") == []


class TestTheDiskIsFull:
    """The state directory lies on a file system of its own."""

    @pytest.fixture
    def disk(self, servents: Servents) -> Iterator[Path]:
        disk = servents.directory / "tiny.state"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", disk]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a small disk")
        yield disk
        subprocess.run(["umount", "-l", disk], check=True)

    def test_readers_and_writers_get_enospc_and_all_goes_on_when_there_is_room(
        self, servents: Servents, source: Rogue, disk: Path
    ) -> None:
        source.share("beyond", content("beyond"))
        tiny = servents.start("tiny", "--cache-size", "64M", joins=[source])
        filler = tiny.shared / "filler"
        written = subprocess.run(["cp", "/dev/zero", filler], capture_output=True, check=False)
        assert b"No space left on device" in written.stderr

        assert errno_name(read, tiny.sees("beyond")) == "ENOSPC"
        told(tiny, "beyond")
        assert errno_name((tiny.shared / "more").write_bytes, b"x" * BLOCK) == "ENOSPC"

        filler.unlink()
        until(lambda: errno_name(read, tiny.network / "beyond") != "ENOSPC")
        assert (tiny.network / "beyond").read_bytes() == content("beyond")
        tiny.share("more", b"x" * BLOCK)
        assert source.sees("more").read_bytes() == b"x" * BLOCK
        tiny.remove()


def test_eshutdown_when_the_servent_ends_under_a_reader(
    servents: Servents, source: Rogue, honest_again: None
) -> None:
    source.share("cut short", content("cut short"))
    ending = servents.start("ending", joins=[source])
    path = ending.sees("cut short")
    source.be("silent")
    source.forget_served()
    with started("cat", path) as reading:
        until(source.served)
        ending.unmount()
        assert complaint(reading) == "Cannot send after transport endpoint shutdown"

    assert not is_mounted(ending.mountpoint)
