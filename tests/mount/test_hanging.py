"""While readers wait for the network, nobody else does, and a signal lets each of them go."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.helpers.mountedtree import STUCK_BYTES, MountedTree, mounted_tree
from tests.helpers.promptness import assert_can_take_less_than, timed

pytestmark = pytest.mark.fuse

STUCK_READERS = 60
"""Five times what froze everything with the kernel's default queue of 12."""

PROMPT_S = 1.0
"""What others may notice of them on a busy machine. Who is held up by them waits for ever."""

RELEASE_S = 60.0

FREE_S = 5.0
"""Far above the half second that a signal takes at most where the processor is free. Who is not
freed waits for ever."""


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MountedTree]:
    with mounted_tree(tmp_path_factory.mktemp("mount")) as mounted:
        yield mounted


@contextlib.contextmanager
def waiting(
    mounted: MountedTree, *commands: Sequence[str | Path], output: int = subprocess.DEVNULL
) -> Iterator[list[subprocess.Popen[str]]]:
    """Run programs until all of them wait for the network; kill them in the end.

    One that stayed would hold up those who come later: the kernel looks for a name once, and
    lets nobody interrupt the others who want the same one.
    """
    readers = [
        subprocess.Popen(words, cwd=mounted.mountpoint, text=True, stdout=output,
                         stderr=subprocess.DEVNULL)
        for words in commands
    ]  # fmt: skip
    try:
        assert mounted.ask("waiting", len(readers))
        yield readers
    finally:
        for reader in readers:
            reader.kill()
        for reader in readers:
            reader.communicate(timeout=RELEASE_S)
    assert mounted.ask("waiting", 0)


@pytest.fixture(scope="class")
def crowd(mounted: MountedTree) -> Iterator[MountedTree]:
    """The mount, with sixty readers that wait."""
    with waiting(mounted, *(["cat", f"network/stuck/{n}"] for n in range(STUCK_READERS))):
        yield mounted


def write_and_read(directory: Path, number: int) -> None:
    file = directory / f"prompt-{number}"
    file.write_bytes(b"x" * 200_000)
    assert len(file.read_bytes()) == 200_000


def read_new(path: Path, number: int) -> None:
    with path.open("rb", buffering=0) as file:
        file.seek(number * 50_000)
        assert len(file.read(50_000)) == 50_000


class TestSixtyWaitingReaders:
    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda tree, n: (tree.network / f"stuck/{60 + n}").stat(), id="stat"),
            pytest.param(lambda tree, n: os.listdir(tree.network), id="ls"),
            pytest.param(lambda tree, n: os.listdir(tree.network / "stuck"), id="ls beside them"),
            pytest.param(lambda tree, n: (tree.network / "cached.txt").read_bytes(), id="cached"),
            pytest.param(lambda tree, n: read_new(tree.network / "films/x.bin", n), id="fetched"),
            pytest.param(lambda tree, n: write_and_read(tree.shared, n), id="shared"),
            pytest.param(
                lambda tree, n: (tree.mountpoint / ".p2pfs/status").read_bytes(), id="status"
            ),
            pytest.param(lambda tree, n: os.statvfs(tree.mountpoint), id="df"),
        ],
    )
    def test_hold_up_nobody_else(self, crowd: MountedTree, call) -> None:
        assert_can_take_less_than(PROMPT_S, timed(lambda number: call(crowd, number)))


WAITS = {
    "cat": ["cat", "network/stuck/{n}"],
    "a direct read": ["dd", "if=network/stuck/{n}", "iflag=direct", "bs=4096", "count=1"],
    "stat": ["stat", "network/lost"],
    "open": [sys.executable, "-c", "open('network/lost')"],
    "ls": ["ls", "network/bare"],
}


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
@pytest.mark.parametrize("wait", WAITS)
def test_a_signal_frees_whoever_waits(
    mounted: MountedTree, wait: str, stop: signal.Signals
) -> None:
    def interrupted(number: int) -> float:
        command = [word.format(n=70 + number) for word in WAITS[wait]]
        with waiting(mounted, command) as (reader,):
            began = time.monotonic()
            reader.send_signal(stop)
            assert reader.wait(RELEASE_S) != 0
            assert mounted.ask("waiting", 0)
            return time.monotonic() - began

    assert_can_take_less_than(FREE_S, interrupted)


def test_a_reader_that_handles_the_signal_gets_eintr(mounted: MountedTree) -> None:
    script = """
import errno, os, signal
signal.signal(signal.SIGINT, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
descriptor = os.open("network/stuck/80", os.O_RDONLY)
try:
    os.read(descriptor, 10)
except KeyboardInterrupt:
    print("interrupted")
"""
    command = [sys.executable, "-c", script]
    with waiting(mounted, command, output=subprocess.PIPE) as (reader,):
        reader.send_signal(signal.SIGINT)

        assert reader.communicate(timeout=RELEASE_S)[0] == "interrupted\n"


def test_one_of_two_readers_of_a_file_goes_and_the_other_waits(mounted: MountedTree) -> None:
    """The kernel asks once for both; whoever stays must be served by a request of his own."""
    command = ["dd", "if=network/stuck/81", "iflag=direct", "bs=4096", "count=1"]
    with waiting(mounted, command, command) as (one, two):
        one.send_signal(signal.SIGINT)
        one.wait(RELEASE_S)

        assert mounted.ask("waiting", 1)
        assert two.poll() is None


def test_a_stuck_file_is_shown_whole(mounted: MountedTree) -> None:
    assert (mounted.network / "stuck/90").stat().st_size == STUCK_BYTES


def test_many_threads_read_one_file_rightly(mounted: MountedTree) -> None:
    path = mounted.network / "films/x.bin"
    whole = path.read_bytes()
    wrong = []

    def read(start: int) -> None:
        with path.open("rb") as file:
            file.seek(start)
            if file.read(77_777) != whole[start : start + 77_777]:
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(n * 37_001,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert len(whole) == 1_000_000
