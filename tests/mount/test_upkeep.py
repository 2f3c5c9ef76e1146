"""What a servent opens it closes again, and what a full disk held up it makes up for."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.cache.shelves import MAX_RESTING
from tests.helpers.leftovers import left_below
from tests.helpers.mounted import Rogue, Servent, Servents, errno_name, open_servents, until

pytestmark = pytest.mark.fuse

BLOCK = 256 * 1024

FILES = 200
FAILURES = 20


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents
    assert left_below(tmp_path) == []


# Descriptors and threads.


def held_by(servent: Servent) -> tuple[int, int]:
    """Return how many descriptors and threads a servent has.

    Each thread of libfuse that moved bytes keeps two pipes for as long as it lives: not counted.
    """
    threads = len(os.listdir(f"/proc/{servent.process.pid}/task"))
    return sum(not path.startswith("pipe:") for path in descriptors_of(servent)), threads


def cached_by(servent: Servent) -> int:
    """Return how many files of its cache a servent has open."""
    return sum(path.startswith(f"{servent.state}/cache/") for path in descriptors_of(servent))


def descriptors_of(servent: Servent) -> list[str]:
    """Return what is behind each descriptor of a servent; some close meanwhile."""
    found = []
    for one in Path(f"/proc/{servent.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(one))
    return found


def open_and_read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read()


def cat_at_once(paths: list[Path]) -> None:
    programs = [subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL) for path in paths]
    for program in programs:
        assert program.wait() == 0


def test_descriptors_and_threads_are_given_back(servents: Servents) -> None:
    source = servents.start_rogue("source")
    content = random.Random(7).randbytes(BLOCK)
    for number in range(FILES):
        (source.shared / f"{number}").write_bytes(content[number:])
    (source.shared / "failing").mkdir()  # nobody fetches them ahead, as they would their siblings
    for number in range(FAILURES):
        (source.shared / f"failing/{number}").write_bytes(content[FILES + number :])
    reader = servents.start("reader", "--stall-timeout", "1", joins=[source])
    for name in (f"{FILES - 1}", f"failing/{FAILURES - 1}"):
        source.wait_published(name)
        reader.sees(name)
    # As many at once as will fail below: threads are kept for a while for the next time.
    cat_at_once([reader.network / f"{number}" for number in range(FAILURES)])
    for number in range(MAX_RESTING):  # and as many files: so many stay open
        open_and_read(reader.network / f"{number}")
    until(lambda: cached_by(reader) == MAX_RESTING)  # small ones are written a while later
    before = held_by(reader)

    for number in range(FILES):
        assert open_and_read(reader.network / f"{number}") == content[number:]
    fail_to_read(reader, source)

    until(lambda: all(now <= then for now, then in zip(held_by(reader), before, strict=True)))
    until(lambda: reader.status()["transfers"] == 0)


def fail_to_read(reader: Servent, source: Rogue) -> None:
    source.be("silent")
    paths = [reader.network / f"failing/{number}" for number in range(FAILURES)]
    programs = [subprocess.Popen(["cat", path], stderr=subprocess.DEVNULL) for path in paths]
    for program in programs:
        assert program.wait() == 1


# A crash.


def test_a_publish_that_was_killed_leaves_nothing(servents: Servents, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(4 * 2**30)
    killed = servents.start("servent", mounted=False)
    share = killed.state / "shared"
    users_own = f".p2pfs-{'0' * 16}"  # from a backup of another share, say
    (share / users_own).touch()
    command = [sys.executable, "-m", "p2pfs", "publish", "-m", killed.state, large]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as publishing:
        noted = killed.state / "leftovers"
        until(lambda: noted.exists() and os.listdir(noted))
        killed.kill()
        assert publishing.wait() != 0
    assert len(os.listdir(share)) > 1

    servents.start("servent", mounted=False)

    assert os.listdir(share) == [users_own]
    assert os.listdir(noted) == []


def test_a_tree_in_use_is_removed_as_on_a_disk(servents: Servents) -> None:
    servent = servents.start("servent")
    (servent.shared / "project" / "lib").mkdir(parents=True)
    file = servent.shared / "project" / "lib" / "f"
    file.write_bytes(b"in use")
    with file.open("r+b") as in_use:
        subprocess.run(["rm", "-rf", servent.shared / "project"], check=True)

        assert os.listdir(servent.shared) == []
        assert in_use.read() == b"in use"
        in_use.write(b", still")
        in_use.flush()
        os.fsync(in_use.fileno())
        in_use.seek(0)
        assert in_use.read() == b"in use, still"
    assert os.listdir(servent.state / "shared") == []


def test_a_file_that_was_removed_or_replaced_while_open_is_still_a_file(servents: Servents) -> None:
    servent = servents.start("servent")
    (servent.shared / "f").write_bytes(b"old")
    with (servent.shared / "f").open("r+b") as file:
        (servent.shared / "f").unlink()
        assert os.listdir(servent.shared) == []
        assert (os.fstat(file.fileno()).st_nlink, os.fstat(file.fileno()).st_size) == (0, 3)
        os.fchmod(file.fileno(), 0o600)
        os.ftruncate(file.fileno(), 2)
        assert Path(f"/proc/self/fd/{file.fileno()}").read_bytes() == b"ol"
        (servent.shared / "f").write_bytes(b"new")
        with (servent.shared / "f").open("rb") as replaced:
            (servent.shared / "g").write_bytes(b"newest")
            (servent.shared / "g").rename(servent.shared / "f")
            assert os.fstat(replaced.fileno()).st_size == 3
            assert replaced.read() == b"new"
    assert (servent.shared / "f").read_bytes() == b"newest"
    assert os.listdir(servent.state / "shared") == ["f"]


# The disk.


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk for the state directory of the servent `tiny`."""
    disk = tmp_path / "tiny.state"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", disk]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(file: Path, leave_bytes: int) -> None:
    """Let a file take all the room of its disk but a little."""
    room = os.statvfs(file.parent)
    with file.open("wb") as filler:
        filler.write(bytes(room.f_bavail * room.f_bsize - leave_bytes))


def test_what_the_index_had_no_room_for_is_published_when_there_is(
    disk: Path, servents: Servents
) -> None:
    neighbour = servents.start("neighbour", mounted=False)
    tiny = servents.start("tiny", joins=[neighbour])
    for number in range(20):
        tiny.share(f"early {number}", b"early")
    fill(disk / "filler", leave_bytes=8192)
    files = {f"late {number}": b"%d" % number for number in range(60)}
    written = {}
    for name, content in files.items():
        with contextlib.suppress(OSError):
            (tiny.shared / name).write_bytes(content)
            written[name] = content
    assert written
    assert len(written) < len(files)
    assert errno_name((tiny.shared / "more").write_bytes, b"x") == "ENOSPC"
    assert (tiny.shared / "early 0").read_bytes() == b"early"
    until(lambda: "index failed" in tiny.output())
    assert "Logging error" not in tiny.output()
    assert "nothing new is published: the index fails" in str(tiny.ask("events"))

    (disk / "filler").unlink()

    for name, content in written.items():
        tiny.wait_published(name)
        assert (tiny.shared / name).read_bytes() == content
    assert len(neighbour.ask("search", words="late")["files"]) >= len(written)
    tiny.send(signal.SIGTERM)
    assert tiny.wait() == 0
