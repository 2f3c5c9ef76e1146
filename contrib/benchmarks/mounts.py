"""A hall on this machine: mounts whose users look around while one file a second is published.

Each servent is a process of its own with a mount. Everybody looks at `network/` and at a directory
that is new to it, time and again. A look is whole if it shows every name that was there for a
while. All processors are shared by the servents, so what they take while nobody looks is told too,
and what all else on this machine takes.

PYTHONPATH=.:contrib .venv/bin/python -m benchmarks.mounts [MOUNTS [SECONDS]]
"""

from __future__ import annotations

import contextlib
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.contestants import HOST, P2PFS
from benchmarks.workshop import TICKS_PER_S, Process, Workshop
from p2pfs.control.client import Running, ask, servent_of

MOUNTS: Final = 40
LOOKING_S: Final = 60.0
LOOK_EVERY_S: Final = 2.0
PUBLISH_EVERY_S: Final = 1.0

FILES_EACH: Final = 3
"""In the directory that each shares from the start."""

SHOWN_WITHIN_S: Final = 5.0
"""A file that was published so long ago must be in a look that is whole."""

STARTED_AT_ONCE: Final = 4
START_S: Final = 300.0
SETTLE_S: Final = 30.0
IDLE_S: Final = 30.0


@dataclass(frozen=True)
class Look:
    """What one saw of one directory."""

    path: str
    took_s: float
    missing: frozenset[str]


@dataclass
class Guest:
    """A servent with a mount, and what its user does."""

    number: int
    mountpoint: Path
    running: Running
    process: Process

    @property
    def directory(self) -> str:
        """The name of the directory that it shares."""
        return f"d{self.number}"


class Published:
    """Which names are there, and since when. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[str, dict[str, float]] = {"": {}}

    def put(self, directory: str, name: str) -> None:
        """Note that a name is there from now on."""
        with self._lock:
            now = time.monotonic()
            self._since[""].setdefault(directory, now)
            self._since.setdefault(directory, {}).setdefault(name, now)

    def before(self, directory: str, at: float) -> frozenset[str]:
        """Return the names of a directory that were there then."""
        with self._lock:
            names = self._since[directory].items()
            return frozenset(name for name, since in names if since <= at)


class Room:
    """The guests, and all that they saw."""

    def __init__(self, guests: Sequence[Guest]) -> None:
        self._guests = guests
        self._published = Published()
        self._random = random.Random(1)
        self.looks: list[Look] = []

    def share(self) -> None:
        """Let each have a directory to share."""
        for guest in self._guests:
            for number in range(FILES_EACH):
                self._publish(guest, f"f{number}.txt")

    def live(self, seconds: float) -> None:
        """Let all look around while one after the other publishes, for so long."""
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(len(self._guests) + 1) as pool:
            publishing = pool.submit(self._publish_on, until)
            for done in [pool.submit(self._look_around, one, until) for one in self._guests]:
                done.result()
            publishing.result()

    def _publish_on(self, until: float) -> None:
        for number, at in enumerate(_moments(time.monotonic(), PUBLISH_EVERY_S, until)):
            time.sleep(max(0.0, at - time.monotonic()))
            self._publish(self._random.choice(self._guests), f"new{number}.txt")

    def _publish(self, guest: Guest, name: str) -> None:
        path = guest.mountpoint / "shared" / guest.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        self._published.put(guest.directory, name)

    def _look_around(self, guest: Guest, until: float) -> None:
        others = [one.directory for one in self._guests if one is not guest]
        rng = random.Random(guest.number)
        rng.shuffle(others)
        began_at = time.monotonic() + rng.uniform(0, LOOK_EVERY_S)
        for number, at in enumerate(_moments(began_at, LOOK_EVERY_S, until)):
            time.sleep(max(0.0, at - time.monotonic()))
            self._look(guest, "")
            self._look(guest, others[number % len(others)])

    def _look(self, guest: Guest, directory: str) -> None:
        began_at = time.monotonic()
        expected = self._published.before(directory, began_at - SHOWN_WITHIN_S)
        try:
            names = os.listdir(guest.mountpoint / "network" / directory)
        except OSError:
            names = []
        took_s = time.monotonic() - began_at
        own = {guest.directory} if not directory else set()
        self.looks.append(Look(directory, took_s, expected - own - {*names}))


def _moments(at: float, every_s: float, until: float) -> Iterator[float]:
    """Yield every moment from one on; those that were missed are made up for."""
    while at < until:
        yield at
        at += every_s


def main(arguments: Sequence[str]) -> None:
    """Measure, and print a row for each kind of look and one for what it cost."""
    count = int(arguments[0]) if arguments else MOUNTS
    looking_s = float(arguments[1]) if len(arguments) > 1 else LOOKING_S
    with Workshop() as workshop, contextlib.ExitStack() as stack:
        os.environ.update(workshop.environment())
        guests = gather(workshop, stack, count)
        room = Room(guests)
        room.share()
        time.sleep(SETTLE_S)
        with costs(guests) as idle:
            time.sleep(IDLE_S)
        with costs(guests) as looking:
            room.live(looking_s)
        degrees = [int(ask(one.running, "status", {})["neighbours"]) for one in guests]
    print(f"{count} mounts with {min(degrees)} to {max(degrees)} neighbours")
    print(f"\n{table(room.looks)}\n")
    print(f"idle: {cost_of(idle, count)}")
    print(f"while they look: {cost_of(looking, count)}")


def gather(workshop: Workshop, stack: contextlib.ExitStack, count: int) -> list[Guest]:
    """Start so many servents with a mount; all join through the first."""
    first = start(workshop, stack, 0)
    address = str(ask(first.running, "status", {})["listen"])
    with ThreadPoolExecutor(STARTED_AT_ONCE) as pool:
        others = pool.map(lambda n: start(workshop, stack, n, address), range(1, count))
        return [first, *others]


def start(workshop: Workshop, stack: contextlib.ExitStack, number: int, *joins: str) -> Guest:
    """Start a servent with a mount, and wait until it listens."""
    state, mountpoint = workshop.directory("state"), workshop.directory("mount")
    command = (*P2PFS, "mount", mountpoint, "--foreground", "--state", state)
    options = ("--listen", f"{HOST}:0", "--name", f"guest-{number}")
    joining = [word for one in joins for word in ("--join", one)]
    mounted = workshop.mounted((*command, *options, *joining), mountpoint)
    process = stack.enter_context(mounted)
    process.wait_for(lambda: "listening on " in process.output(), "readiness", START_S)
    return Guest(number, mountpoint, servent_of(os.fspath(mountpoint)), process)


@contextlib.contextmanager
def costs(guests: Sequence[Guest]) -> Iterator[dict[str, float]]:
    """Yield what will be there at the end: cores taken by the servents and all, and messages."""
    spent: dict[str, float] = {}
    before, began_at = _spent(guests), time.monotonic()
    yield spent
    seconds = time.monotonic() - began_at
    spent |= {name: (late - before[name]) / seconds for name, late in _spent(guests).items()}


def _spent(guests: Sequence[Guest]) -> Mapping[str, float]:
    return {
        "servents": sum(one.process.cpu_s() for one in guests),
        "machine": _machine_cpu_s(),
        "messages": sum(int(ask(one.running, "status", {})["messages_out"]) for one in guests),
    }


def _machine_cpu_s() -> float:
    """Return the seconds of processor that all on this machine has taken."""
    user, nice, system, _idle, _wait, *interrupts = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]
    )
    return (user + nice + system + sum(interrupts)) / TICKS_PER_S


def cost_of(spent: Mapping[str, float], count: int) -> str:
    """Return in words what was spent a second."""
    each = spent["servents"] / count
    return (
        f"{each:.2%} of a core for each servent, {spent['messages'] / count:.1f} messages a second"
        f" from each; all together {spent['servents']:.2f} cores of {spent['machine']:.2f}"
        f" that were busy of {os.cpu_count()}; load {os.getloadavg()[0]:.0f}"
    )


def table(looks: Sequence[Look]) -> str:
    """Return a row for each kind of look."""
    lines = [
        "| looks at | looks | whole | names missing | median (s) | 95 % (s) | longest (s) |",
        "| --- |" + " ---: |" * 6,
    ]
    for kind, some in (
        ("the root", [one for one in looks if not one.path]),
        ("a new directory", [one for one in looks if one.path]),
    ):
        took_s = sorted(one.took_s for one in some)
        whole = sum(not one.missing for one in some) / len(some)
        missing = sum(len(one.missing) for one in some)
        lines.append(
            f"| {kind} | {len(some)} | {whole:.1%} | {missing} | {statistics.median(took_s):.2f} |"
            f" {took_s[int(len(took_s) * 0.95)]:.2f} | {took_s[-1]:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
