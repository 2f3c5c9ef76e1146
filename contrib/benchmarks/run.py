"""The command line of contrib/bench, and the order in which things are measured."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from benchmarks.contestants import Contestant, P2pfs, PassThrough, Rclone, Sshfs, Torrent
from benchmarks.measures import ALONE, SCENARIOS, Stage
from benchmarks.plot import bar_chart
from benchmarks.report import (
    Results,
    markdown,
    markdown_in_short,
    put_between_marks,
    show,
    shown,
)
from benchmarks.workshop import Workshop, WorkshopError
from p2pfs.config import parse_size

CONTESTANTS: Final[Mapping[str, Callable[[Workshop, Path], Contestant]]] = {
    "p2pfs": P2pfs,
    "sshfs": Sshfs,
    "rclone": Rclone,
    "libtorrent": Torrent,
    "pass-through": PassThrough,
}

ROOT: Final = Path(__file__).parents[2]

FAILURES: Final = (WorkshopError, OSError, subprocess.SubprocessError)
"""What makes one measure fail; the others go on."""

NOTES: Final = (
    "",
    "The files served are in the page cache; cold: a new mount, nothing cached by the reader.",
    "Memory is taken and freed before each cold read of much: no contestant waits for it.",
    "Third read: the kernel's pages of the file in the mount dropped by posix_fadvise.",
    "alone: our encrypted link between two processes, without FUSE, disk and verification;",
    "       BLAKE3 over the same file on one core.",
    "sshfs: reader and its ssh processes together. rclone: over plain http, not encrypted.",
    "libtorrent: no mount; from the start until the second session has the whole file.",
)


def main(arguments: Sequence[str]) -> int:
    """Run what the command line asks for; return the exit status."""
    options = parse(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    if options.saved:
        results, failures = load(options.saved)
    else:
        results, failures = Results(), []
        try:
            with Workshop(options.directory) as workshop:
                failures = run(workshop, options, results)
        except KeyboardInterrupt:
            say("interrupted; everything is ended and removed")
            return 128 + signal.SIGINT
        if options.json:
            settings = {"size": options.size, "repeat": options.repeat, "failures": failures}
            options.json.write_text(json.dumps(results.as_json(settings), indent=2) + "\n")
    if options.document:
        put_between_marks(ROOT / "contrib" / "docs" / "benchmarks.md", markdown(results))
        put_between_marks(ROOT / "README.md", markdown_in_short(results))
        (ROOT / "contrib" / "pictures" / "speed.svg").write_text(bar_chart(results))
    if options.plot:
        options.plot.write_text(bar_chart(results))
    if options.markdown:
        print(markdown(results))
    else:
        show(results, (*NOTES, *failures))
    return 1 if failures else 0


def load(path: Path) -> tuple[Results, list[str]]:
    """Return the figures of an earlier run, and what failed in it."""
    saved = json.loads(path.read_text())
    return Results.from_json(saved), list(saved["settings"]["failures"])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        prog="contrib/bench",
        description="Measure p2pfs side by side with sshfs, rclone, libtorrent and a pass-through.",
    )
    parser.add_argument(
        "--size",
        type=parse_size,
        default="1GiB",
        help="of the file read in sequence, and of the sparse one",
    )
    parser.add_argument(
        "--only", action="append", choices=SCENARIOS, help="measure this alone (repeatable)"
    )
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="rounds; medians count")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--from", dest="saved", type=Path, metavar="FILE", help="measure nothing, show that --json"
    )
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    parser.add_argument(
        "--document", action="store_true", help="put tables and chart into README.md and docs/"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw a bar chart there")
    parser.add_argument(
        "--directory", type=Path, metavar="DIR", help="for the temporary files (several GiB)"
    )
    return parser.parse_args(arguments)


def run(workshop: Workshop, options: argparse.Namespace, results: Results) -> list[str]:
    """Measure round by round, the contestants taking turns; return what failed."""
    scenarios = {name: SCENARIOS[name] for name in options.only or SCENARIOS}
    files = workshop.directory("files")
    say("making files")
    for prepare in dict.fromkeys(make for one in scenarios.values() for make in one.prepare):
        prepare(files, options.size)
    contestants, failures = start_contestants(workshop, files)
    stage = Stage(workshop, files, options.size)
    for number in range(1, options.repeat + 1):
        for name, scenario in scenarios.items():
            for who, function in scenario.by_contestant.items():
                if who not in contestants:
                    continue
                label = f"round {number}: {name}, {who}"
                try:
                    figures = function(stage, contestants[who])
                except FAILURES as error:
                    failures.append(f"{label}: failed: {error}")
                    say(failures[-1])
                    continue
                results.add(who, figures)
                say(f"{label}: " + ", ".join(f"{key} {shown(figures[key])}" for key in figures))
    return failures


def start_contestants(
    workshop: Workshop, files: Path
) -> tuple[dict[str, Contestant | None], list[str]]:
    """Start each with its server. One that is not there is said and left out."""
    contestants: dict[str, Contestant | None] = {ALONE: None}
    failures = []
    for name, start in CONTESTANTS.items():
        say(f"starting {name}")
        try:
            contestants[name] = start(workshop, files)
        except FAILURES as error:
            failures.append(f"{name} is left out: {error}")
            say(failures[-1])
    return contestants, failures


def say(text: str) -> None:
    """Show what is going on."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def leave(number: int, _frame: FrameType | None) -> None:
    """End in an orderly way when told to."""
    raise SystemExit(128 + number)
