"""The figures that a reader of the README looks for first, as one bar chart in SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from benchmarks.report import Results, shown

FIGURES: Final = {
    "cold": "sequential read, cold",
    "second": "second read",
    "dropped": "third read",
    "small files": "small files",
    "random reads": "random reads",
}
"""All of them rates: the longer bar is the faster one."""

YARDSTICK: Final = "sshfs"

COLOURS: Final = {
    "p2pfs": "#e8590c",
    "sshfs": "#868e96",
    "rclone": "#1c7ed6",
    "libtorrent": "#2f9e44",
    "pass-through": "#ae3ec9",
}
"""In the middle between white and black, so that they stand out from both."""

STYLE: Final = (
    "text{font:13px sans-serif;fill:#24292f}line{stroke:#24292f;stroke-dasharray:3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}line{stroke:#e6edf3}}"
)

WIDTH, LEFT, RIGHT, TOP = 760, 170, 90, 60
BAR, LINE, GAP = 14, 18, 14
"""Pixels: the height of a bar, from bar to bar, and between two groups of them."""

LONGEST: Final = 4.0
"""Times the yardstick. A longer bar is cut there and its number says how long it is."""

Bars = list[tuple[str, float]]


def bar_chart(results: Results) -> str:
    """Return the chart: a group of bars for each figure, as multiples of sshfs's median."""
    groups = list(relative(results))
    height = TOP + sum(LINE * len(bars) + GAP for _, bars in groups)
    names = {name for _, bars in groups for name, _ in bars}
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>Speed as a multiple of tuned sshfs</title><style>{STYLE}</style>",
        text(10, 20, f"times tuned {YARDSTICK} (longer is faster)"),
        *legend([name for name in COLOURS if name in names]),
    ]
    y = TOP
    for title, bars in groups:
        lines.append(text(LEFT - 10, y + LINE * len(bars) / 2 + 3, title, "end"))
        for name, value in bars:
            lines += bar(y, name, value)
            y += LINE
        y += GAP
    x = place(1.0)
    lines.append(f'<line x1="{x:g}" x2="{x:g}" y1="{TOP - 6}" y2="{height - GAP}"/>')
    return "\n".join((*lines, "</svg>", ""))


def relative(results: Results) -> Iterator[tuple[str, Bars]]:
    """Yield what can be compared: a title, and who has how many times the yardstick."""
    for figure, title in FIGURES.items():
        if unit := results.median(figure, YARDSTICK):
            values = ((name, results.median(figure, name)) for name in COLOURS)
            yield title, [(name, value / unit) for name, value in values if value is not None]


def legend(names: list[str]) -> Iterator[str]:
    """Yield a square and a name for each contestant."""
    for number, name in enumerate(names):
        x = LEFT + number * 112
        yield f'<rect x="{x}" y="31" width="12" height="12" fill="{COLOURS[name]}"/>'
        yield text(x + 18, 42, name)


def bar(y: float, name: str, value: float) -> Iterator[str]:
    """Yield one bar and its number."""
    end = place(min(value, LONGEST))
    width = max(end - LEFT, 1)
    yield f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" fill="{COLOURS[name]}"/>'
    yield text(end + 6, y + BAR - 2, shown(value) + (" →" if value > LONGEST else ""))


def place(value: float) -> float:
    """Return where a multiple of the yardstick ends."""
    return LEFT + value / LONGEST * (WIDTH - LEFT - RIGHT)


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """Return one line of text."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'
