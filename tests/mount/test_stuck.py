"""A source that stops: who waits for it waits alone, can be interrupted, and is let go."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.leftovers import left_below
from tests.helpers.mounted import (
    PATIENCE_S,
    Servent,
    Servents,
    is_mounted,
    open_servents,
    until,
)
from tests.helpers.promptness import TRIES, assert_can_take_less_than, timed

pytestmark = pytest.mark.fuse

READERS = 60

FILES = READERS + 8 * TRIES
"""Each try of a reader that is freed takes one that nobody has asked for."""

PROMPT_S = 1.0
"""What others may notice of them on a busy machine. Who is held up by them waits for as long as
they do: `STALL`."""

FREE_S = 5.0
"""How long a signal may take to free who waits, on a busy machine; without it, it is `STALL`."""

STALL = "120"
"""The seconds after which a read fails of which nothing arrives."""

BLOCK = 256 * 1024


@pytest.fixture(scope="module")
def servents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servents]:
    directory = tmp_path_factory.mktemp("stuck")
    with open_servents(directory) as servents:
        yield servents
    assert left_below(directory) == []


def offer(servents: Servents, name: str, count: int) -> None:
    """Put files and directories where a servent that is started later shares them.

    The files are NAME/NUMBER; the directories NAME/rooms/NUMBER hold nothing.
    """
    place = servents.directory / f"{name}.state" / "shared" / name
    for number in range(count):
        (place / "rooms" / str(number)).mkdir(parents=True)
        content = random.Random(f"{name} {number}").randbytes(2 * BLOCK)
        (place / str(number)).write_bytes(content)


@pytest.fixture(scope="module")
def stopping(servents: Servents) -> Servent:
    """Who is going to stop."""
    offer(servents, "stopping", FILES)
    return servents.start("stopping", mounted=False)


@pytest.fixture(scope="module")
def lively(servents: Servents, stopping: Servent) -> Servent:
    """Who goes on."""
    offer(servents, "lively", 1 + TRIES)
    return servents.start("lively", mounted=False)


@pytest.fixture(scope="module")
def reader(servents: Servents, stopping: Servent, lively: Servent) -> Iterator[Servent]:
    """Who reads from both, and has seen what they share before the one stopped."""
    reader = servents.start("reader", "--stall-timeout", STALL, joins=[stopping, lively])
    reader.sees(f"stopping/{FILES - 1}")
    reader.sees(f"stopping/rooms/{FILES - 1}")
    reader.sees(f"lively/{TRIES}")
    (reader.network / "lively/0").read_bytes()
    stopping.send(signal.SIGSTOP)
    yield reader
    stopping.send(signal.SIGCONT)


@contextlib.contextmanager
def waiting(*commands: list[str | Path]) -> Iterator[list[subprocess.Popen[str]]]:
    """Run programs until all of them wait for the file system; kill them in the end."""
    programs = [
        subprocess.Popen(
            words, env=os.environ | {"LC_ALL": "C"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for words in commands
    ]  # fmt: skip
    try:
        until(lambda: all(is_waiting(program.pid) for program in programs))
        yield programs
    finally:
        for program in programs:
            program.kill()
        for program in programs:
            program.communicate(timeout=PATIENCE_S)


def is_waiting(pid: int) -> bool:
    """Return whether a process waits for an answer from FUSE, or for its page."""
    where = Path(f"/proc/{pid}/wchan").read_text()
    return any(place in where for place in ("request_wait_answer", "wait_bit", "wait_on_page"))


class TestSixtyReadersOfAStoppedSource:
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def crowd(cls, reader: Servent) -> Iterator[None]:
        files = [reader.network / "stopping" / str(number) for number in range(READERS)]
        with waiting(*(["cat", file] for file in files)):
            until(lambda: reader.status()["transfers"] == READERS)
            yield

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda at, n: (at.network / f"stopping/{n}").stat(), id="stat"),
            pytest.param(lambda at, n: os.listdir(at.network), id="ls"),
            pytest.param(lambda at, n: os.listdir(at.network / "stopping"), id="ls beside them"),
            pytest.param(lambda at, n: (at.network / "lively/0").read_bytes(), id="cached"),
            pytest.param(lambda at, n: (at.network / f"lively/{1 + n}").read_bytes(), id="fetched"),
            pytest.param(lambda at, n: write_and_read(at.shared / f"{n}"), id="shared"),
            pytest.param(lambda at, n: os.listdir(at.shared), id="ls shared"),
            pytest.param(lambda at, n: (at.mountpoint / ".p2pfs/status").read_bytes(), id="status"),
            pytest.param(lambda at, n: os.statvfs(at.mountpoint), id="df"),
        ],
    )
    def test_hold_up_nobody_else(self, reader: Servent, call) -> None:
        assert_can_take_less_than(PROMPT_S, timed(lambda number: call(reader, number)))


def write_and_read(file: Path) -> None:
    file.write_bytes(b"x" * BLOCK)
    assert file.read_bytes() == b"x" * BLOCK
    file.rename(file.with_suffix(".renamed"))
    file.with_suffix(".renamed").unlink()


WAITS = {
    "cat": ["cat", "stopping/{n}"],
    "a direct read": ["dd", "if=stopping/{n}", "iflag=direct", "bs=4096", "count=1"],
    "stat": ["stat", "stopping/rooms/{n}/unknown"],
    "open": ["head", "-c1", "stopping/rooms/{n}/unknown"],
}
"""A name in a directory that nobody has looked into is asked for, once."""

fresh = itertools.count(READERS)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
@pytest.mark.parametrize("wait", WAITS)
def test_a_signal_frees_who_waits_for_it(
    reader: Servent, wait: str, stop: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reader.network)

    def freed(_number: int) -> float:
        command = [word.format(n=next(fresh)) for word in WAITS[wait]]
        with waiting(command) as (program,):
            began = time.monotonic()
            program.send_signal(stop)
            assert program.wait(PATIENCE_S) != 0
            return time.monotonic() - began

    assert_can_take_less_than(FREE_S, freed)


# The servent itself goes down.

LET_GO = (
    "Cannot send after transport endpoint shutdown",
    "Transport endpoint is not connected",
    "Software caused connection abort",
)
"""What readers are told, sooner or later in the fall."""


@pytest.mark.parametrize("death", ["bug", "exit"])
def test_when_trio_dies_every_reader_is_told_and_nothing_is_left(
    servents: Servents, death: str
) -> None:
    name = f"before {death}"
    offer(servents, name, 3)
    source = servents.start(name, mounted=False)
    dying = servents.start(death, joins=[source], program="tests.helpers.dyingservent")
    place = dying.sees(f"{name}/2").parent
    dying.sees(f"{name}/rooms/2")
    source.send(signal.SIGSTOP)
    readers = (
        ["cat", place / "0"],
        ["dd", f"if={place}/1", "iflag=direct", "bs=4096", "count=1"],
        ["stat", place / "rooms/0/unknown"],
    )
    with waiting(*readers) as programs:
        (dying.state / "die").write_text(death)

        for program in programs:
            complaint = program.communicate(timeout=PATIENCE_S)[1]
            assert program.returncode == 1
            assert any(text in complaint for text in LET_GO), complaint
    assert dying.wait() != 0
    assert not is_mounted(dying.mountpoint)
    assert left_below(dying.mountpoint) == []
