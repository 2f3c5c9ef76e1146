"""What a terminal shows beyond lines of text: tables, progress bars, the live screen of `top`.

Importing it takes longer than all the rest of a verb, so it is imported where it is needed.
Cells are `Text`, so that nothing in a name is taken for markup.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from p2pfs.cli.wording import Estimate, Record, heading, is_number, shown, shown_bytes
from p2pfs.journal import printable

ID_LENGTH: Final = 8
"""Characters of an id that people are shown."""

BAR_WIDTH: Final = 16
"""Characters of a bar in a table."""

REFRESH_S: Final = 1.0
"""Between two looks of `top`: what changes faster cannot be read."""

TRANSFER_COLUMNS: Final = ("path", "size", "done_bytes", "rate_bytes_s", "sources", "state")
PEER_COLUMNS: Final = ("name", "address", "direction", "connected_s", "rtt_ms")


def show_table(rows: Iterable[Record], columns: Sequence[str]) -> None:
    """Print a table as wide as the terminal."""
    Console().print(_table(rows, columns))


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr, with rate and remaining time; the function given moves it."""
    estimate = Estimate()
    columns = (
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
        BarColumn(bar_width=BAR_WIDTH),
        TaskProgressColumn(),
        _EstimateColumn(estimate),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as progress:
        task = progress.add_task(printable(title), total=None)

        def on_progress(done: int, size: int) -> None:
            estimate.reached(done, size)
            progress.update(task, completed=done, total=size)

        yield on_progress


def watch(
    ask_status: Callable[[], Record],
    ask_transfers: Callable[[], Sequence[Record]],
    ask_peers: Callable[[], Sequence[Record]],
) -> None:
    """Fill the terminal with what a servent does, anew each second, until interrupted.

    Whatever ends it, be it an error of what is asked, the terminal is as it was before.
    """
    rates = _Rates()
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        while True:
            status = ask_status()
            summary = _summary(status, rates.words(status))
            transfers = _part("transfers", ask_transfers(), TRANSFER_COLUMNS)
            peers = _part("peers", ask_peers(), PEER_COLUMNS)
            live.update(Group(summary, *transfers, *peers), refresh=True)
            time.sleep(REFRESH_S)


class _EstimateColumn(ProgressColumn):
    """Done, rate and remaining time; looked at anew with each refresh, so a stop is seen."""

    def __init__(self, estimate: Estimate) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._estimate = estimate

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else self._estimate.text())


class _Rates:
    """What goes in and out, from the counters of one status and the next."""

    KEYS: Final = {"downloaded_bytes": "down", "uploaded_bytes": "up"}

    def __init__(self) -> None:
        self._last: Record | None = None
        self._at = 0.0

    def words(self, status: Record) -> str:
        now, last = time.monotonic(), self._last or status
        passed_s = max(now - self._at, 0.001)
        self._last, self._at = status, now
        rates = ((_count(status, key) - _count(last, key)) / passed_s for key in self.KEYS)
        words = (f"{w} {shown_bytes(r)}/s" for w, r in zip(self.KEYS.values(), rates, strict=True))
        return ", ".join(words)


def _count(status: Record, key: str) -> int:
    value = status[key]
    assert isinstance(value, int)
    return value


def _summary(status: Record, rates: str) -> Text:
    told = {key: shown(key, value) for key, value in status.items()}
    return Text(
        "{name} at {listen}: {rates}\n"
        "{shared_files} files shared, {cache_bytes} of {cache_limit_bytes} cached\n".format(
            rates=rates, **told
        )
    )


def _part(title: str, rows: Sequence[Record], columns: Sequence[str]) -> list[RenderableType]:
    if not rows:
        return [Text(f"no {title}\n")]
    return [Text(title, style="bold underline"), _table(rows, columns), Text()]


def _table(rows: Iterable[Record], columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(heading(column), justify="right" if is_number(column) else "left")
        if column == "done_bytes":
            table.add_column("")
    for row in rows:
        table.add_row(*(cell for column in columns for cell in _cells(row, column)))
    return table


def _cells(row: Record, column: str) -> list[RenderableType]:
    text = shown(column, row[column])
    if column == "id":
        return [Text(text[:ID_LENGTH])]
    if column == "done_bytes":
        return [Text(text), _bar(_count(row, "done_bytes"), _count(row, "size"))]
    return [Text(text)]


def _bar(done: int, size: int) -> ProgressBar:
    # A file of no bytes is all there.
    return ProgressBar(total=size or 1, completed=done if size else 1, width=BAR_WIDTH)
