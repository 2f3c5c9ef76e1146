"""What distance costs: a line with a delay and a rate between the source and its reader.

    PYTHONPATH=.:contrib .venv/bin/python -m benchmarks.distance [--only NAME]... [--repeat N]

Each contestant is read through a mount made that second, or by curl, which has none. What is not
installed is left out. The lines: 50 ms for a round trip at 25 MB/s, 150 ms at 12.5 MB/s, and the
first again with one of a hundred connections standing still for two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.contestants import (
    HOST,
    Contestant,
    Mounted,
    Rclone,
    Sshfs,
    find_program,
)
from benchmarks.line import Distance, FarP2pfs
from benchmarks.measures import MB, MIB, first_byte_ms, make_file, make_small
from benchmarks.run import FAILURES, say
from benchmarks.workshop import Workshop, WorkshopError

SMALL_S: Final = 30.0
"""Small files are copied for so long at most, and counted then: sshfs would take two minutes."""

READ_S: Final = 10.0
"""A file is read in sequence that the line carries in this time."""

FIRST_BYTES: Final = 4 * MIB

FIGURES: Final = {
    "rate": "in sequence (MB/s)",
    "small": "10 KiB files by cp -r (files/s)",
    "new": "first byte, new link (ms)",
    "open": "first byte, open link (ms)",
}


DISTANCES: Final = (
    Distance("50 ms, 25 MB/s", 50, 25),
    Distance("150 ms, 12.5 MB/s", 150, 12.5),
    Distance("50 ms, 25 MB/s, 1 % stalling", 50, 25, 0.01),
)


class FarSshfs(Sshfs):
    """sshfs over the line, in its best configuration for the row: untuned."""

    options = "kernel_cache"

    def __init__(self, workshop: Workshop, files: Path, distance: Distance) -> None:
        super().__init__(workshop, files)
        self._port = distance.start(workshop, str(self._port))


class FarRclone(Rclone):
    """rclone over the line."""

    def __init__(self, workshop: Workshop, files: Path, distance: Distance) -> None:
        super().__init__(workshop, files)
        port = distance.start(workshop, self._url.rpartition(":")[2].rstrip("/"))
        self._url = f"http://{HOST}:{port}/"


class FarCurl(FarRclone):
    """curl, from the server of rclone: no mount, and each file by its name."""

    name = "curl"

    def __init__(self, workshop: Workshop, files: Path, distance: Distance) -> None:
        find_program("curl")
        super().__init__(workshop, files, distance)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Mounted]:
        """Refuse: there is none."""
        raise WorkshopError("curl has no mount")
        yield  # a generator, as `contextmanager` needs

    def rate(self, size: int) -> float:
        """Return the MB/s of one file."""
        started = time.perf_counter()
        subprocess.run(["curl", "-sf", "-o", "/dev/null", self._url + "sequential"], check=True)
        return size / MB / (time.perf_counter() - started)


CONTESTANTS: Final[Mapping[str, Callable[[Workshop, Path, Distance], Contestant]]] = {
    "p2pfs": FarP2pfs,
    "sshfs": FarSshfs,
    "rclone": FarRclone,
    "curl": FarCurl,
}


def measure(contestant: Contestant, workshop: Workshop, size: int) -> dict[str, float]:
    """Measure one contestant over one line, each figure through a mount of its own."""
    if isinstance(contestant, FarCurl):
        return {"rate": contestant.rate(size)}
    with contestant.mounted() as mounted:
        rate = read_rate(mounted.root / "sequential", size)
    with contestant.mounted() as mounted:
        names = sorted(os.listdir(mounted.root / "first"))
        first, *others = [first_byte_ms(mounted.root / "first" / name, 0) for name in names]
    with contestant.mounted() as mounted:
        small = copy_rate(mounted, workshop.directory("copy"))
    return {"rate": rate, "new": first, "open": median(others), "small": small}


def read_rate(path: Path, size: int) -> float:
    """Read a file to its end; return MB/s."""
    started, got = time.perf_counter(), 0
    with open(path, "rb", buffering=0) as file:
        while part := file.read(MIB):
            got += len(part)
    if got != size:
        raise WorkshopError(f"{got} of {size} bytes")
    return size / MB / (time.perf_counter() - started)


def copy_rate(mounted: Mounted, target: Path) -> float:
    """Copy small files with `cp -r` for a while; return how many a second are whole."""
    started = time.perf_counter()
    copying = subprocess.Popen(["cp", "-r", mounted.root / "small", target])
    try:
        copying.wait(SMALL_S)
    except subprocess.TimeoutExpired:
        copying.kill()
        copying.wait()
    seconds = time.perf_counter() - started
    count = sum(1 for entry in os.scandir(target / "small") if entry.stat().st_size)
    return count / seconds


def make_files(files: Path, size: int) -> None:
    """Make what is served."""
    make_small(files, 0)
    make_file(files / "sequential", size)
    (files / "first").mkdir()
    for number in range(6):
        make_file(files / "first" / str(number), FIRST_BYTES)


def run(workshop: Workshop, distance: Distance, repeat: int) -> dict[str, dict[str, list[float]]]:
    """Measure all contestants over one line, taking turns; return their figures."""
    size = int(distance.mb_per_s * MB * READ_S)
    files = workshop.directory("files")
    make_files(files, size)
    figures: dict[str, dict[str, list[float]]] = {}
    for name, start in CONTESTANTS.items():
        try:
            contestant = start(workshop, files, distance)
            for _ in range(repeat):
                for key, value in measure(contestant, workshop, size).items():
                    figures.setdefault(name, {}).setdefault(key, []).append(value)
                say(f"{distance.name}, {name}: " + shown(figures[name]))
        except FAILURES as error:
            say(f"{distance.name}, {name}: failed: {error}")
    return figures


def shown(figures: Mapping[str, list[float]]) -> str:
    """Return the latest figures as one line."""
    return ", ".join(f"{key} {values[-1]:.1f}" for key, values in figures.items())


def table(distance: Distance, figures: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Return the medians as a table in Markdown."""
    head = f"| {distance.name} | " + " | ".join(figures) + " |"
    lines = [head, "| --- |" + " ---: |" * len(figures)]
    for key, text in FIGURES.items():
        cells = [f"{median(one[key]):.3g}" if key in one else "-" for one in figures.values()]
        lines.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="what distance costs")
    parser.add_argument("--only", action="append", choices=[one.name for one in DISTANCES])
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="medians count")
    options = parser.parse_args()
    for distance in DISTANCES:
        if options.only is None or distance.name in options.only:
            with Workshop() as workshop:
                print(table(distance, run(workshop, distance, options.repeat)), flush=True)


if __name__ == "__main__":
    main()
