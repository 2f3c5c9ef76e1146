"""A real servent that everything is thrown at, at once, takes no more memory than it may."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.mounted import PROJECT, Servents, open_servents, until

pytestmark = pytest.mark.fuse

ATTACKS = ("bombs", "hits", "fakes", "slow", "idle", "queries", "greetings", "deaf")
"""Of contrib/attacking; those that fill something."""

ATTACKED_S = 15.0
MOST_KIB = 200 * 1024


@contextmanager
def attacked(name: str, source: str, reader: str, film: str) -> Iterator[None]:
    """Let one of contrib/hostile's attackers have at two servents for the length of the block."""
    ports = [address.rpartition(":")[2] for address in (source, reader)]
    process = subprocess.Popen(
        [sys.executable, "-m", "attacking.attacks", name, *ports, film], cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": f"{PROJECT}:{PROJECT / 'contrib'}"},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
        assert process.poll() is None, "the attacker gave up"
    finally:
        process.terminate()
        process.wait()


def peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents


def test_memory_is_bounded_whatever_strangers_do(servents: Servents):
    source = servents.start("source")
    source.share("film.bin", os.urandom(20 * 1024 * 1024))
    reader = servents.start("reader", joins=[source])
    until(lambda: reader.shows("film.bin"))
    film = reader.attribute("film.bin", "id")

    with contextlib.ExitStack() as attacks:
        for name in ATTACKS:
            attacks.enter_context(attacked(name, source.address, reader.address, film))
        ends_at = time.monotonic() + ATTACKED_S
        while time.monotonic() < ends_at:
            with contextlib.suppress(OSError):  # searches may be too many
                os.listdir(reader.mountpoint / "search" / "film")
            assert "film.bin" in os.listdir(reader.network)
            time.sleep(0.1)
        assert int(reader.attribute("film.bin", "sources")) >= 1

    for servent in (source, reader):
        assert peak_kib(servent.process.pid) < MOST_KIB
