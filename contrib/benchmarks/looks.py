"""What `ls` of what others share costs: processor of reader, source and program, and requests.

A servent shares DIRECTORIES directories of FILES files and one of MANY names; another mounts. The
same is done in a bare pass-through of fusepy with the same time-outs. All is told in seconds of
processor, since that depends least on what else the machine does.

PYTHONPATH=.:contrib .venv/bin/python -m benchmarks.looks [--repeat N] [--directory DIR]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.contestants import P2pfs
from benchmarks.workshop import Process, Workshop

DIRECTORIES: Final = 100
FILES: Final = 100
MANY: Final = 20_000

OLD_S: Final = 5.0
"""After this time the reader holds its listings for old."""

LOOKS: Final[Mapping[str, tuple[float, Sequence[str]]]] = {
    "ls -lR, first": (0, ("ls", "-lR", "tree")),
    "at once again": (0, ("ls", "-lR", "tree")),
    "later again": (OLD_S, ("ls", "-lR", "tree")),
    "find -size": (OLD_S, ("find", "tree", "-size", "+1k")),
    "find -type f": (OLD_S, ("find", "tree", "-type", "f")),
    "ls of many, first": (0, ("ls", "-f", "many")),
    "ls of many, again": (0, ("ls", "-f", "many")),
}
"""What is done, after a while, in the order in which it is done."""

PASS_THROUGH: Final = Path(__file__).with_name("passthrough.py")
TIME_OUTS: Final = ("entry_timeout=1", "attr_timeout=0.001", "negative_timeout=1")


@dataclass(frozen=True)
class Cost:
    """What one look took: seconds of processor, reads of the mount's server, and by the clock."""

    server_s: float
    source_s: float
    program_s: float
    reads: float
    seconds: float

    def __str__(self) -> str:
        whole = self.server_s + self.source_s + self.program_s
        return (
            f"{whole:.2f} | {self.server_s:.2f} | {self.source_s:.2f} | {self.program_s:.2f}"
            f" | {self.reads:,.0f} | {self.seconds:.2f}"
        )


def main(arguments: Sequence[str]) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args(arguments)
    costs: dict[tuple[str, str], list[Cost]] = {}
    with Workshop(options.directory) as workshop:
        files = made(workshop.directory("files"))
        p2pfs = P2pfs(workshop, files)
        for _ in range(options.repeat):
            for system, cost in (*through_us(p2pfs), *through_bare(workshop, files)):
                costs.setdefault(system, []).append(cost)
    print(table(costs))


def made(root: Path) -> Path:
    """Make the files, each with a content of its own."""
    paths = [f"tree/d{n:03}/file {i:03}.txt" for n in range(DIRECTORIES) for i in range(FILES)]
    paths += [f"many/file number {i:05}.txt" for i in range(MANY)]
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def through_us(p2pfs: P2pfs) -> Iterator[tuple[tuple[str, str], Cost]]:
    """Look through a mount of ours that was made a moment ago."""
    with p2pfs.mounted() as mounted:
        mounted.process.wait_for((mounted.root / "tree").is_dir, "directory")
        for what, cost in looks(mounted.root, mounted.process, p2pfs.source):
            yield ("p2pfs", what), cost


def through_bare(workshop: Workshop, files: Path) -> Iterator[tuple[tuple[str, str], Cost]]:
    """Look through a pass-through."""
    mountpoint = workshop.directory("bare")
    command = (sys.executable, PASS_THROUGH, files, mountpoint, *TIME_OUTS)
    with workshop.mounted(command, mountpoint) as process:
        for what, cost in looks(mountpoint, process, None):
            yield ("bare", what), cost


def looks(root: Path, server: Process, source: Process | None) -> Iterator[tuple[str, Cost]]:
    """Yield what each look takes."""
    for what, (after_s, command) in LOOKS.items():
        time.sleep(after_s)
        yield what, cost_of(command, root, server, source)


def cost_of(command: Sequence[str], root: Path, server: Process, source: Process | None) -> Cost:
    """Run a program in a mount, and return what that took."""

    def spent() -> tuple[float, float, float, float, float]:
        children = os.times()
        of_programs = children.children_user + children.children_system
        of_source = 0.0 if source is None else source.cpu_s()
        return server.cpu_s(), of_source, of_programs, reads(server.pid), time.monotonic()

    before = spent()
    with open(os.devnull, "wb") as nowhere:
        subprocess.run(command, cwd=root, stdout=nowhere, check=True)
    return Cost(*(late - early for late, early in zip(spent(), before, strict=True)))


def reads(pid: int) -> int:
    """Return how many reads a process has made: nearly all are requests of the kernel."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("syscr:"))


def table(costs: Mapping[tuple[str, str], Sequence[Cost]]) -> str:
    """Return a row of medians for each look through each system."""
    lines = [
        "| | through | all (s) | server | source | program | reads | by the clock (s) |",
        "| --- | --- |" + " ---: |" * 6,
    ]
    for (system, what), some in costs.items():
        middle = Cost(*(median(each) for each in zip(*map(values, some), strict=True)))
        lines.append(f"| {what} | {system} | {middle} |")
    return "\n".join(lines)


def values(cost: Cost) -> tuple[float, ...]:
    """Return the numbers of a cost in their order."""
    return tuple(vars(cost).values())


if __name__ == "__main__":
    main(sys.argv[1:])
