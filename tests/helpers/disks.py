"""Small disks that root can mount, and pull out."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


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
