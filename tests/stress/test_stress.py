"""Many programs in all of a mount at once, while peers come and go.

Ten seconds with a few programs, unless the environment wants more:

    P2PFS_STRESS_SECONDS=60 P2PFS_STRESS_PROGRAMS=16 pytest -s tests/stress
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.mounted import PROJECT, Servent, Servents, open_servents, until
from tests.helpers.stressor import HANG_S, OWNED, content_of, owned_names

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SECONDS = float(os.environ.get("P2PFS_STRESS_SECONDS", "10"))
PROGRAMS = int(os.environ.get("P2PFS_STRESS_PROGRAMS", "4"))

WARM_UP = 0.3
"""The part of the time after which memory is counted first."""

GROWTH_KIB = 24 * 1024
"""What a servent may have more in memory at the end than after the warm-up."""

MORE_HELD = 10
"""Descriptors and threads that it may have more: links and threads are kept for a while."""

STAY_S = (0.5, 3.0)
"""A guest is there for as long as this."""


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents


def give(servent_state: Path, names: Sequence[str]) -> None:
    """Put files into what a servent shares before it is started."""
    for name in names:
        file = servent_state / "shared" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content_of(file.name))


def memory_kib(servent: Servent) -> int:
    status = Path(f"/proc/{servent.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])


def held_by(servent: Servent) -> tuple[int, int]:
    """Return how many descriptors and threads a servent has."""
    process = Path(f"/proc/{servent.process.pid}")
    return len(os.listdir(process / "fd")), len(os.listdir(process / "task"))


@contextlib.contextmanager
def guests(servents: Servents, host: Servent) -> Iterator[None]:
    """Let peers with some of the files come and go, politely or not."""
    is_over = threading.Event()

    def come_and_go() -> None:
        rng = random.Random("guests")
        number = 0
        while not is_over.is_set():
            number += 1
            name = f"guest{number % 3}"
            give(servents.directory / f"{name}.state", rng.sample(owned_names(), OWNED // 2))
            guest = servents.start(name, joins=[host], mounted=False)
            is_over.wait(rng.uniform(*STAY_S))
            guest.send(rng.choice((signal.SIGTERM, signal.SIGKILL)))
            guest.wait()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def stress(servent: Servent, seconds: float) -> collections.Counter[str]:
    """Run the programs, and return how often they did what."""
    with ExitStack() as stack:
        programs = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.helpers.stressor",
                     servent.mountpoint, str(number), str(seconds)],
                    cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
            )
            for number in range(PROGRAMS)
        ]  # fmt: skip
        counts: collections.Counter[str] = collections.Counter()
        complaints = ""
        for program in programs:
            try:
                told, complaint = program.communicate(timeout=seconds + 2 * HANG_S)
            except subprocess.TimeoutExpired:
                servent.kill()  # what hangs in it is not to be killed otherwise
                raise
            complaints += complaint
            assert program.returncode == 0 or complaint, program.returncode
            counts.update(json.loads(told or "{}"))
    assert not complaints, complaints
    return counts


def test_programs_everywhere_while_peers_come_and_go(servents: Servents) -> None:
    lasting = owned_names()[: OWNED * 3 // 4]  # the others come and go with the guests
    give(servents.directory / "owner.state", lasting)
    owner = servents.start("owner")
    reader = servents.start(
        "reader", "--stall-timeout", "5", "--cache-size", "64MiB", joins=[owner]
    )
    for name in lasting:
        reader.sees(name)

    with guests(servents, owner):
        counts = stress(reader, SECONDS * WARM_UP)
        memory, held = memory_kib(reader), held_by(reader)
        counts += stress(reader, SECONDS * (1 - WARM_UP))

    def has_given_back() -> bool:
        return all(now <= then + MORE_HELD for now, then in zip(held_by(reader), held, strict=True))

    until(lambda: reader.status()["transfers"] == 0)
    grown = memory_kib(reader) - memory
    report = f"{dict(sorted(counts.items()))}, {memory} + {grown} KiB, {held} {held_by(reader)}"
    print(report)  # noqa: T201 - for who runs it by hand
    until(has_given_back)
    assert grown <= GROWTH_KIB
    assert "Traceback" not in reader.output()
    for step in ("read_network", "look_around", "search", "visit_peers", "change_mine"):
        missed = sum(count for key, count in counts.items() if key.startswith(f"{step} "))
        assert counts[step] > 2 * missed, "most of it must have come to something"
