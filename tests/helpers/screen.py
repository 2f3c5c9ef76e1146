"""A virtual screen, for programs that want one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def virtual_screen() -> Iterator[None]:
    """Run an X server that programs started by the test find in their environment."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1200x900x24"]
    with subprocess.Popen(
        command, pass_fds=[writing], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            os.close(writing)
            with open(reading) as told, pytest.MonkeyPatch.context() as patch:
                patch.setenv("DISPLAY", f":{told.readline().strip()}")
                yield
        finally:
            process.terminate()


@contextmanager
def desktop_program(home: Path, *command: str | Path) -> Iterator[None]:
    """Run a program of the desktop with a home of its own, until the block ends."""
    places = {"HOME": home, "XDG_CACHE_HOME": home / "cache", "XDG_CONFIG_HOME": home / "config"}
    environment = os.environ | {name: str(place) for name, place in places.items()}
    arguments: Sequence[str] = [str(word) for word in command]
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()
