"""What ends a servent, and what does not."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import pytest

from p2pfs.host.lifetime import ENDING, UNHEEDED
from p2pfs.host.process import MAX_OPEN_FILES
from tests.helpers.leftovers import mounts_below
from tests.helpers.processes import Processes


def test_signals_that_mean_nothing_leave_it_alone(processes: Processes):
    processes.start("serve")
    pid = int(str(processes.status()["pid"]))
    for number in UNHEEDED:
        os.kill(pid, number)

    assert processes.status()["pid"] == pid


@pytest.mark.parametrize("number", sorted(ENDING))
def test_signals_that_end_it_end_it_in_order(processes: Processes, number: signal.Signals):
    processes.start("serve")
    processes.kill(int(str(processes.status()["pid"])), number)

    assert (processes.directory / "state" / "p2pfs.log").read_text().endswith("ended\n")


@pytest.mark.fuse
def test_no_signal_leaves_a_dead_mount(processes: Processes):
    mountpoint = processes.directory / "mnt"
    processes.start("mount", "mnt")
    pid = int(str(processes.status()["pid"]))
    for number in UNHEEDED:
        os.kill(pid, number)
    assert "shared" in os.listdir(mountpoint)

    processes.kill(pid, signal.SIGQUIT)

    assert not mounts_below(processes.directory)


def test_it_may_open_as_many_files_as_it_is_allowed(processes: Processes):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    try:
        processes.start("serve")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    pid = int(str(processes.status()["pid"]))

    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == min(hard, MAX_OPEN_FILES)


FAILS_LATE = """
from p2pfs.errors import UsageError
from p2pfs.host import lifetime

async def fail(*_arguments, **_named):
    raise UsageError("no room for a socket")

lifetime.serve_control = fail
from p2pfs.__main__ import main
main()
"""


@pytest.mark.parametrize(
    "verb", [["serve"], pytest.param(["mount", "new/mnt"], marks=pytest.mark.fuse)]
)
def test_a_first_start_that_fails_late_leaves_nothing(processes: Processes, verb: list[str]):
    arguments = [*verb, "--foreground", "--listen", "127.0.0.1:0", "--state", "state"]
    done = subprocess.run(
        [sys.executable, "-c", FAILS_LATE, *arguments],
        cwd=processes.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "no room for a socket" in done.stderr
    assert done.returncode == 1
    assert not (processes.directory / "state").exists()
    assert not (processes.directory / "new").exists()
