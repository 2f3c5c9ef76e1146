"""Lines that fit a terminal of any width: tables, bars, and progress.

A table that is too wide for the terminal becomes a list of records of two lines and more.
Characters alone carry the meaning: colours, of which any eight suffice, only repeat it. Cells are
`Text`, so that no part of a name is taken for markup.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from p2pfs.wording import Estimate, Record, heading, is_number, shown, shown_bytes, shown_time

ID_LENGTH: Final = 8
"""Characters of an id that people are shown."""

FLEXIBLE: Final = ("path", "text", "name", "peers", "address")
"""Columns that may get narrower than their longest value."""

NAMED: Final = (
    "download_bytes_s", "upload_bytes_s", "to", "away", "user", "program", "source",
)  # fmt: skip
"""Fields whose values need their heading in a list; `yes`, `no` and `-` need it always."""

BARE: Final = frozenset({"-", "yes", "no"})

NARROWEST: Final = 12
"""Characters that such a column keeps; with fewer a list reads better than a table."""

SMALLEST_BAR: Final = 8
LARGEST_BAR: Final = 40
BARS_IN_A_ROW: Final = 8
"""A bar in a table takes this part of the width."""

GAP: Final = "  "

UNDER_WAY: Final = "cyan"
COMPLETE: Final = "green"


class Glyphs(NamedTuple):
    """The characters of a bar, and the sign that something was cut."""

    done: str
    left: str
    cut: str


DRAWN: Final = Glyphs("━", "─", "…")
TYPED: Final = Glyphs("#", "-", "...")
"""For terminals whose encoding has no others."""

Fit = Callable[[Text, int], Sequence[Text]]
"""Makes of a cell that is too wide lines of a given width."""


@dataclass(frozen=True)
class Sheet:
    """What lines are laid out on."""

    width: int
    glyphs: Glyphs
    fit: Fit


def wrapping_sheet(console: Console) -> Sheet:
    """Return a sheet for a terminal that scrolls: long lines are wrapped."""

    def wrapped(text: Text, width: int) -> Sequence[Text]:
        return list(text.wrap(console, width, overflow="fold"))

    return Sheet(console.width, glyphs_of(console), wrapped)


def cutting_sheet(width: int, glyphs: Glyphs) -> Sheet:
    """Return a sheet for a screen of fixed height: long lines are cut."""
    return Sheet(width, glyphs, lambda text, room: [cut(text, room, glyphs)])


def glyphs_of(console: Console) -> Glyphs:
    """Return the characters that a terminal can show."""
    return TYPED if console.options.ascii_only else DRAWN


def cut(text: Text, width: int, glyphs: Glyphs) -> Text:
    """Return a text that is no wider than this; where something is missing, it says so."""
    if text.cell_len <= width:
        return text
    sign = glyphs.cut[:width]
    return Text(set_cell_size(text.plain, width - cell_len(sign)) + sign)


def bar(done: int, size: int, width: int, glyphs: Glyphs) -> Text:
    """Return a bar that is full when all is done, and not before; no bytes are all there."""
    is_complete = done >= size
    full = width if is_complete else min(width - 1, done * width // size)
    text = Text(glyphs.done * full, COMPLETE if is_complete else UNDER_WAY)
    return text.append(glyphs.left * (width - full), "default")


# Tables.


@dataclass(frozen=True)
class Table:
    """A table as lines: first those of the titles, then some for each record."""

    head: Sequence[Text]
    rows: Sequence[Sequence[Text]]

    @property
    def lines(self) -> list[Text]:
        """All of it."""
        return [*self.head, *itertools.chain(*self.rows)]


class _Column(NamedTuple):
    title: str
    cells: Sequence[Text]
    is_number: bool = False
    is_flexible: bool = False

    @property
    def width(self) -> int:
        """The width that shows every value whole."""
        return max(cell_len(self.title), *(cell.cell_len for cell in self.cells))


def table(rows: Sequence[Record], names: Sequence[str], sheet: Sheet) -> Table:
    """Lay out records with these columns; where that is too wide, as a list."""
    if not rows:
        return Table((), ())
    columns = [column for name in names for column in _columns(rows, name, sheet)]
    widths = _fitting(columns, sheet.width)
    if widths is None:
        return Table((), [_record(row, names, sheet) for row in rows])
    titles = [Text(column.title, "bold") for column in columns]
    cells_of_rows = zip(*(column.cells for column in columns), strict=True)
    lines = [_row(cells, columns, widths, sheet) for cells in cells_of_rows]
    return Table(_row(titles, columns, widths, sheet), lines)


def _columns(rows: Sequence[Record], name: str, sheet: Sheet) -> Iterable[_Column]:
    cells = [Text(_shown(row, name)) for row in rows]
    yield _Column(heading(name), cells, is_number(name), name in FLEXIBLE)
    if name == "done_bytes":
        width = max(SMALLEST_BAR, min(LARGEST_BAR, sheet.width // BARS_IN_A_ROW))
        yield _Column("", [_bar_of(row, width, sheet) for row in rows])


def _shown(row: Record, name: str) -> str:
    text = shown(name, row.get(name))
    return text[:ID_LENGTH] if name == "id" else text


def _bar_of(row: Record, width: int, sheet: Sheet) -> Text:
    return bar(number_of(row, "done_bytes"), number_of(row, "size"), width, sheet.glyphs)


def number_of(row: Record, key: str) -> int:
    """Return a number of a record, 0 if an older servent did not send it."""
    value = row.get(key)
    return value if isinstance(value, int) else 0


def list_of(row: Record, key: str) -> Sequence[Any]:
    """Return a list of a record, an empty one if an older servent did not send it."""
    value = row.get(key)
    return value if isinstance(value, list) else ()


def _fitting(columns: Sequence[_Column], width: int) -> list[int] | None:
    """Return widths that fit, flexible columns made narrower; None if that is not enough."""
    widths = [column.width for column in columns]
    flexible = [number for number, column in enumerate(columns) if column.is_flexible]
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        widest = max(flexible, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= NARROWEST:
            return None
        widths[widest] -= 1
    return widths


def _row(
    cells: Sequence[Text], columns: Sequence[_Column], widths: Sequence[int], sheet: Sheet
) -> list[Text]:
    """Return the lines of one row."""
    parts = [
        sheet.fit(cell, width) if cell.cell_len > width else [cell]
        for cell, width in zip(cells, widths, strict=True)
    ]
    lines = []
    for of_line in itertools.zip_longest(*parts, fillvalue=Text()):
        padded = []
        for text, column, width in zip(of_line, columns, widths, strict=True):
            space = Text(" " * (width - text.cell_len))
            padded.append(space + text if column.is_number else text + space)
        lines.append(_joined(padded))
    return lines


def _joined(cells: Sequence[Text]) -> Text:
    line = Text(GAP).join(cells)
    line.rstrip()
    return line


def _record(row: Record, names: Sequence[str], sheet: Sheet) -> list[Text]:
    """Return a record as its first field, and below it the others, as many in a line as fit."""
    first, *others = names
    lines = list(sheet.fit(Text(_shown(row, first)), sheet.width))
    cells: list[Text] = []
    for cell in (one for name in others for one in _told(row, name, sheet)):
        for part in sheet.fit(cell, sheet.width - len(GAP)):
            if cells and Text(GAP).join([Text(), *cells, part]).cell_len > sheet.width:
                lines.append(_joined([Text(), *cells]))
                cells = []
            cells.append(part)
    return [*lines, _joined([Text(), *cells])] if cells else lines


def _told(row: Record, name: str, sheet: Sheet) -> Iterable[Text]:
    """Yield a field in the form that it has without a heading above it."""
    text = _shown(row, name)
    if is_number(name) and text.isdigit():
        text += f" {heading(name).removesuffix('s') if text == '1' else heading(name)}"
    yield Text(f"{heading(name)} {text}" if name in NAMED or text in BARE else text)
    if name == "done_bytes":
        yield _bar_of(row, SMALLEST_BAR, sheet)


# How something goes on.


def progress_line(title: str, estimate: Estimate, width: int, glyphs: Glyphs) -> Text:
    """Return title, bar, percent, amounts, rate and remaining time: as many as have room."""
    left_s = estimate.left_s
    by_worth = {
        "percent": f"{estimate.percent} %".rjust(len("100 %")),
        "bar": " " * SMALLEST_BAR,
        "left": "" if left_s is None else f"{shown_time(left_s)} left",
        "rate": f"{shown_bytes(estimate.rate_bytes_s)}/s",
        "amounts": f"{shown_bytes(estimate.done)} of {shown_bytes(estimate.size)}",
    }
    room = width - min(cell_len(title), NARROWEST)
    kept: dict[str, Text] = {}
    for part, text in by_worth.items():
        if text and len(GAP) + len(text) <= room:
            room -= len(GAP) + len(text)
            kept[part] = Text(text)
    spare = room + min(cell_len(title), NARROWEST) - cell_len(title)
    if "bar" in kept:
        longer = max(0, min(spare, LARGEST_BAR - SMALLEST_BAR))
        kept["bar"] = bar(estimate.done, estimate.size, SMALLEST_BAR + longer, glyphs)
    shortened = cut(Text(title), cell_len(title) + min(0, spare), glyphs)
    order = ("bar", "percent", "amounts", "rate", "left")
    return Text(GAP).join([shortened, *(kept[part] for part in order if part in kept)])
