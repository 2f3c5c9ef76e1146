"""Figures as tables for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from rich.console import Console
from rich.table import Table

COLUMNS: Final = ("p2pfs", "sshfs", "rclone", "libtorrent", "pass-through", "alone")

TITLES: Final[Mapping[str, str]] = {
    "cold": "sequential read, cold (MB/s)",
    "second": "second read, from the page cache (MB/s)",
    "dropped": "third read, page cache dropped (MB/s)",
    "cpu": "processor time of the reader, cold (s/GiB)",
    "memory": "peak memory of the reader (MiB)",
    "first byte, new link": "first byte, first file of a mount (ms)",
    "first byte": "first byte of a known file (ms)",
    "first byte, middle": "first byte in the middle of 4 GiB (ms)",
    "far first byte": "first byte on a new link, 200 ms away (round trips)",
    "small files": "cp -r of 1,000 files of 10 KiB (files/s)",
    "random reads": "random 4 KiB reads, cold (reads/s)",
    "unpacking": "tar x of 2,000 files of 4 KiB (s)",
    "small writes": "writes of 4 KiB (MB/s)",
    "publishing": "publishing: from close to published (MB/s)",
    "slowest read, hashing": "slowest small read in `shared/` while 1 GiB is hashed (ms)",
    "slowest read, idle": "the same while nothing is (ms)",
    "slowest answer, hashing": "slowest block for a peer while 1 GiB is hashed (ms)",
    "slowest answer, idle": "the same while nothing is (ms)",
    "visible": "from cp to a neighbour's ls (s)",
    "four sources": "four sources of 20 MB/s (MB/s)",
    "one killed": "one of four killed in the middle: the rest (MB/s)",
    "standstill, killed": "the same: longest standstill (s)",
    "one stopped": "one of four stopped in the middle: the rest (MB/s)",
    "standstill, stopped": "the same: longest standstill (s)",
    "ten readers": "ten readers of one source of 10 MB/s (times one reader)",
    "memory, sparse": "peak memory of one who reads a sparse file (MiB)",
    "memory, passing": "the same with a cache of a sixteenth of the file (MiB)",
    "memory, source": "peak memory of its source, with eight readers (MiB)",
}
"""The figures in the order in which they are shown."""

IN_SHORT: Final = ("cold", "second", "small files", "random reads", "four sources")
OTHERS_IN_SHORT: Final = ("p2pfs", "sshfs", "rclone", "libtorrent")
"""What the README shows."""

_MARKED: Final = re.compile(r"(?<=<!-- bench -->\n).*?(?=<!-- /bench -->)", re.DOTALL)


Row = tuple[str, ...]
"""One line of a table, as text."""


@dataclass(frozen=True)
class Target:
    """What a figure of p2pfs must reach: a bound, times another one's figure if that is named."""

    figure: str
    bound: float
    than: str | None = None
    is_upper: bool = False


TARGETS: Final = (
    Target("cold", 1.25, "sshfs"),
    Target("cold", 0.60, "alone"),
    Target("second", 0.90, "sshfs"),
    Target("dropped", 0.90, "pass-through"),
    Target("cpu", 4.0, is_upper=True),
    Target("memory", 200.0, is_upper=True),
    Target("first byte", 20.0, is_upper=True),
    Target("first byte, middle", 20.0, is_upper=True),
    Target("far first byte", 2.1, is_upper=True),
    Target("small files", 1.0, "sshfs"),
    Target("random reads", 1.0, "sshfs"),
    Target("unpacking", 2.0, is_upper=True),
    Target("small writes", 150.0),
    Target("publishing", 0.80, "alone"),
    Target("slowest read, hashing", 50.0, is_upper=True),
    Target("slowest answer, hashing", 50.0, is_upper=True),
    Target("visible", 1.0, is_upper=True),
    Target("four sources", 76.0),
    Target("one killed", 57.0),
    Target("one stopped", 54.0),
    Target("standstill, stopped", 1.5, is_upper=True),
    Target("ten readers", 2.0, is_upper=True),
    Target("memory, sparse", 200.0, is_upper=True),
    Target("memory, passing", 200.0, is_upper=True),
    Target("memory, source", 200.0, is_upper=True),
)


@dataclass
class Results:
    """All figures of a run: figure -> contestant -> one value a round."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, contestant: str, figures: Mapping[str, float]) -> None:
        """Take in what one measure gave."""
        for figure, value in figures.items():
            self.values.setdefault(figure, {}).setdefault(contestant, []).append(value)

    def median(self, figure: str, contestant: str) -> float | None:
        """Return the median over the rounds, if there is one."""
        values = self.values.get(figure, {}).get(contestant)
        return statistics.median(values) if values else None

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Self:
        """Return what `as_json` was made of. KeyError if there are no figures in it."""
        return cls(dict(saved["values"]))

    def columns(self) -> list[str]:
        """Return who has figures."""
        measured = {name for by_name in self.values.values() for name in by_name}
        return [name for name in COLUMNS if name in measured]

    def as_json(self, settings: Mapping[str, object]) -> dict[str, object]:
        """Return everything, with the machine that it was measured on."""
        return {
            "machine": machine(),
            "settings": dict(settings),
            "values": self.values,
            "medians": {
                figure: {name: statistics.median(values) for name, values in by_name.items()}
                for figure, by_name in self.values.items()
            },
            "targets": [vars(target) | verdict for target, verdict in self.verdicts()],
        }

    def verdicts(self) -> Iterable[tuple[Target, dict[str, float | bool]]]:
        """Compare with each target that can be judged from what was measured."""
        for target in TARGETS:
            value = self.median(target.figure, "p2pfs")
            other = 1.0 if target.than is None else self.median(target.figure, target.than)
            if value is not None and other:
                ratio = value / other
                is_met = ratio <= target.bound if target.is_upper else ratio >= target.bound
                yield target, {"value": ratio, "is_met": is_met}


def show(results: Results, notes: Sequence[str]) -> None:
    """Print both tables, and what must be known to read them."""
    console = Console(width=None if os.isatty(1) else 110)
    console.print(figures_table(results))
    console.print(targets_table(results))
    for note in notes:
        console.print(note, markup=False, highlight=False)


def figures_table(results: Results) -> Table:
    """Return the figures, a line each, a column for each contestant."""
    columns = results.columns()
    return terminal_table("medians", columns, figures_rows(results, TITLES, columns))


def targets_table(results: Results) -> Table:
    """Return what p2pfs must reach and what it does."""
    return terminal_table("\ntarget", ("\nis", "\nmust be", "\n"), targets_rows(results))


def terminal_table(title: str, headings: Iterable[str], rows: Iterable[Row]) -> Table:
    """Return a table for a terminal, the figures to the right."""
    table = Table(title, box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def markdown(results: Results) -> str:
    """Return both tables as they stand in contrib/docs/benchmarks.md."""
    columns = results.columns()
    medians = markdown_table(("median", *columns), figures_rows(results, TITLES, columns))
    targets = markdown_table(("target", "is", "must be", "met"), targets_rows(results))
    return f"{medians}\n\n{targets}"


def markdown_in_short(results: Results) -> str:
    """Return the table that stands in the README."""
    columns = [name for name in results.columns() if name in OTHERS_IN_SHORT]
    return markdown_table(("median", *columns), figures_rows(results, IN_SHORT, columns))


def put_between_marks(document: Path, text: str) -> None:
    """Replace what stands between the marks of a document.

    Raises:
        ValueError: it has no marks.
    """
    old = document.read_text()
    new, count = _MARKED.subn(lambda _: f"\n{text}\n\n", old)
    if count != 1:
        raise ValueError(f"{document} has not one pair of marks")
    document.write_text(new)


def markdown_table(headings: Sequence[str], rows: Iterable[Row]) -> str:
    """Return a table in Markdown, the figures to the right."""
    rule = ("---", *("---:" for _ in headings[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *rows))


def figures_rows(results: Results, figures: Iterable[str], columns: Sequence[str]) -> Iterator[Row]:
    """Yield each of these figures that was measured: its title and the medians."""
    for figure in figures:
        if figure in results.values:
            medians = (shown(results.median(figure, name)) for name in columns)
            yield (TITLES[figure], *medians)


def targets_rows(results: Results) -> Iterator[Row]:
    """Yield each target that can be judged: its title, what is, what must be, and the verdict."""
    for target, verdict in results.verdicts():
        sign = "<=" if target.is_upper else ">="
        than = f" x {target.than}" if target.than else ""
        reached = shown(float(verdict["value"])) + than
        mark = "ok" if verdict["is_met"] else "MISSED"
        yield TITLES[target.figure], reached, f"{sign} {target.bound:g}{than}", mark


def shown(value: float | None) -> str:
    """Return a figure with three digits that count."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    return {
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "architecture": platform.machine(),
    }
