"""What was simulated, as tables in Markdown and as charts in SVG."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from simulation.graph import Shape
from simulation.network import Result

Table = Mapping[tuple[str, str], Sequence[Result]]
"""By question and contestant."""

COLOURS: Final = {
    "p2pfs": "#e8590c",
    "without filters": "#f59f00",
    "flooding": "#868e96",
    "ring": "#1c7ed6",
    "walkers": "#2f9e44",
    "dynamic": "#ae3ec9",
}

STYLE: Final = (
    "text{font:13px sans-serif;fill:#24292f}"
    "line,polyline{fill:none;stroke-width:2}.axis{stroke:#868e96;stroke-width:1}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}"
)

WIDTH, HEIGHT, MARGIN = 760, 360, 60


def shape_table(shapes: Mapping[int, Shape]) -> str:
    """Return a row for each size of network."""
    lines = [
        "| servents | mean degree | largest | clustering | path | reach of TTL 1 | 2 | 3 | 4 | 5 |",
        "|" + " ---: |" * 10,
    ]
    for servents, one in shapes.items():
        reach = " | ".join(f"{part:.1%}" for part in one.reach[:5])
        lines.append(
            f"| {servents:,} | {one.degree:.1f} | {one.most} | {one.clustering:.3f} |"
            f" {one.path:.2f} | {reach} |"
        )
    return "\n".join(lines)


def result_table(table: Table) -> str:
    """Return a row for each question and contestant."""
    lines = [
        "| looked for | how | success | messages | 95 % | first answer (s) | end, 95 % (s) |",
        "| --- | --- |" + " ---: |" * 5,
    ]
    for (question, contestant), results in table.items():
        messages = [result.messages for result in results]
        first = [result.first_s for result in results if result.first_s is not None]
        ends = [result.end_s for result in results]
        lines.append(
            f"| {question} | {contestant} | {success(results):.0%} |"
            f" {statistics.fmean(messages):,.0f} | {quantile(messages, 0.95):,.0f} |"
            f" {f'{statistics.median(first):.2f}' if first else '-'} | {quantile(ends, 0.95):.2f} |"
        )
    return "\n".join(lines)


def success(results: Sequence[Result]) -> float:
    """Return the part of what was there that was found."""
    wanted = sum(result.wanted for result in results)
    found = sum(min(result.found, result.wanted) for result in results)
    return found / wanted if wanted else 1.0


def quantile(values: Sequence[float], part: float) -> float:
    """Return the value below which that part lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def success_chart(table: Table, question: str) -> str:
    """Return a chart of success against messages, each contestant a point."""
    points = {
        contestant: (statistics.fmean(result.messages for result in results), success(results))
        for (asked, contestant), results in table.items()
        if asked == question
    }
    most = max(messages for messages, _ in points.values())
    marks = []
    for contestant, (messages, part) in points.items():
        x, y = MARGIN + messages / most * (WIDTH - 3 * MARGIN), at_height(part)
        marks.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="6" fill="{COLOURS[contestant]}"/>')
        marks.append(text(x + 10, y + 4, f"{contestant}, {messages:,.0f} messages"))
    return chart(f"success against messages: {question}", "found", marks)


def latency_chart(table: Table, question: str) -> str:
    """Return a chart of how many searches had their first answer by when."""
    lines = []
    longest = 3.0
    for number, ((asked, contestant), results) in enumerate(table.items()):
        if asked != question:
            continue
        first = sorted(result.first_s for result in results if result.first_s is not None)
        steps = [(0.0, 0.0)]
        for count, at in enumerate(first, 1):
            steps += [(at, (count - 1) / len(results)), (at, count / len(results))]
        steps.append((longest, len(first) / len(results)))
        scale = (WIDTH - 2 * MARGIN) / longest
        path = " ".join(
            f"{MARGIN + min(at, longest) * scale:.0f},{at_height(part):.0f}" for at, part in steps
        )
        lines.append(f'<polyline points="{path}" stroke="{COLOURS[contestant]}"/>')
        lines.append(
            f'<text x="{WIDTH - 150}" y="{HEIGHT / 2 + 18 * (number % len(COLOURS))}"'
            f' style="fill:{COLOURS[contestant]}">{escape(contestant)}</text>'
        )
    return chart(f"first answer within 0 to {longest:.0f} s: {question}", "searches", lines)


def at_height(part: float) -> float:
    """Return where a part of the whole is drawn."""
    return HEIGHT - MARGIN - part * (HEIGHT - 2 * MARGIN)


def chart(title: str, what: str, marks: Sequence[str]) -> str:
    """Return a chart with axes."""
    left, bottom = MARGIN, HEIGHT - MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{escape(title)}</title><style>{STYLE}</style>",
            text(MARGIN, 24, title),
            text(8, MARGIN, f"100 % {what}"),
            f'<line class="axis" x1="{left}" y1="{bottom}" x2="{WIDTH - MARGIN}" y2="{bottom}"/>',
            f'<line class="axis" x1="{left}" y1="{MARGIN}" x2="{left}" y2="{bottom}"/>',
            *marks,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str) -> str:
    """Return a line of text."""
    return f'<text x="{x:.0f}" y="{y:.0f}">{escape(words)}</text>'
