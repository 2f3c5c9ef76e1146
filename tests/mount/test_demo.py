"""contrib/demo does what it says and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

DEMO = Path(__file__).parents[2] / "contrib" / "demo"
PATIENCE_S = 500


@pytest.fixture
def directory() -> Iterator[Path]:
    """A temporary directory with a short path: sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="p2pfs-") as path:
        yield Path(path).resolve()


def start(directory: Path) -> subprocess.Popen[str]:
    """Start the demo in a process group of its own, as a terminal would."""
    return subprocess.Popen(
        # A test run in the background may have been told to ignore SIGINT, and bash would too.
        ["env", "--default-signal=INT", DEMO],
        env=os.environ | {"TMPDIR": os.fspath(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if f" {directory}/" in line]


def processes_below(directory: Path) -> list[str]:
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"={directory}/".encode() in environ.read_bytes():
                found.append(environ.parent.name)
        except OSError:  # it has just ended, or belongs to somebody else
            continue
    return found


def assert_nothing_is_left(directory: Path) -> None:
    assert mounts_below(directory) == []
    assert processes_below(directory) == []
    assert list(directory.iterdir()) == []


def test_every_step_works_and_nothing_is_left(directory):
    with start(directory) as demo:
        output, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 0, output
    assert "That was all." in output
    assert "\n$ ls 'eve/search/whale ext:txt'\n" in output, (
        "a command is shown as one would type it"
    )
    assert_nothing_is_left(directory)


@pytest.mark.parametrize(
    "moment",
    ["$ p2pfs mount cleo", "$ cp dan/network/whale.mkv"],
    ids=["mounting", "copying"],
)
def test_ctrl_c_leaves_nothing(directory, moment):
    with start(directory) as demo:
        assert demo.stdout is not None
        assert any(line.startswith(moment) for line in demo.stdout)
        os.killpg(demo.pid, signal.SIGINT)
        output, _ = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 128 + signal.SIGINT, output
    assert_nothing_is_left(directory)
