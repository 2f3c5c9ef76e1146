"""Real p2pfs processes that do not outlive the test. Used through the fixture `processes`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from p2pfs.control.client import running_servents
from p2pfs.mount import detach
from tests.helpers.leftovers import mounts_below

TIMEOUT_S = 60


class Processes:
    """Runs the command in `directory`; XDG_RUNTIME_DIR must be the test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def p2pfs(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, with a text to read or what the test has."""
        return subprocess.run(
            [sys.executable, "-m", "p2pfs", *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            input=stdin,
        )

    def p2pfs_in_front(self, *arguments: str) -> subprocess.Popen[str]:
        """Run the command, which goes on; `clean_up` ends it if it is a servent."""
        return subprocess.Popen(
            [sys.executable, "-m", "p2pfs", *arguments],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, *arguments: str, state: str = "state") -> subprocess.CompletedProcess[str]:
        """Start a servent in the background, at any free port of loopback."""
        return self.p2pfs(*arguments, "--listen", "127.0.0.1:0", "--state", state)

    def status(self, *arguments: str) -> dict[str, object]:
        """Ask the servent how it is."""
        return json.loads(self.p2pfs("status", "--json", *arguments).stdout)

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process and wait until it is gone."""
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, number)
            assert select.select([process], [], [], TIMEOUT_S)[0], f"process {pid} lives on"
        finally:
            os.close(process)

    def clean_up(self) -> None:
        """Kill what still runs, unmount what is still mounted."""
        for one in running_servents():
            self.kill(one.pid)
        for mount in mounts_below(self.directory):
            detach(mount.split()[1])
