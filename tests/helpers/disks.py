"""Small disks that root can mount, and pull out."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from p2pfs.mount import detach
from tests.helpers.mounted import PROJECT, is_mounted, until


@contextmanager
def mounted_disk(place: Path) -> Iterator[None]:
    """Mount an empty disk for the time of the block; who may not skips the test."""
    command = ["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", place]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def far_disk(content: Path, place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Show a directory at another place, by a process that may be stopped for a while."""
    command = [sys.executable, "-m", "tests.helpers.fardisk", content, place]
    server = subprocess.Popen(command, cwd=PROJECT)
    try:
        until(lambda: is_mounted(place))
        yield server
    finally:
        server.send_signal(signal.SIGCONT)
        detach(str(place))
        server.wait()
