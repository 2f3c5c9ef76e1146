"""Tables, progress bars and the live screen of `top`, for terminals.

Importing it takes longer than all the rest of a verb, so it is imported where it is needed.
`layout` decides what fits.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

from p2pfs.cli.layout import glyphs_of, number_of, progress_line, table, wrapping_sheet
from p2pfs.cli.page import Snapshot, page
from p2pfs.journal import printable
from p2pfs.wording import Estimate, Record

REFRESH_S: Final = 1.0
"""The time between two refreshes of `top`: nobody can read faster changes."""

END_KEYS: Final = b"qQ"

_KEYS_READ: Final = 64


def show_table(rows: Sequence[Record], columns: Sequence[str]) -> None:
    """Print a table as wide as the terminal. Nothing is cut: long values are wrapped."""
    console = Console()
    lines = table(rows, columns, wrapping_sheet(console)).lines
    console.print(*lines, sep="\n", soft_wrap=True)


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on stderr, with rate and remaining time; the function given moves it."""
    estimate = Estimate()
    console = Console(stderr=True)
    line = _ProgressLine(printable(title), estimate, console)
    with Progress(line, console=console) as progress:
        task = progress.add_task("", total=None)

        def on_progress(done: int, size: int) -> None:
            estimate.reached(done, size)
            progress.update(task, completed=done, total=size)

        yield on_progress


def watch(
    ask_status: Callable[[], Record],
    ask_transfers: Callable[[], Sequence[Record]],
    ask_peers: Callable[[], Sequence[Record]],
) -> None:
    """Show on the whole terminal what a servent does, once a second, until `q` or an interrupt.

    However it ends, also by an error of the servent, the terminal is restored.
    """
    rates = _Rates()
    console = Console()
    with _keys() as is_ended, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            status = ask_status()
            look = Snapshot(status, ask_transfers(), ask_peers(), *rates.of(status))
            lines = page(look, console.width, console.height, glyphs_of(console))
            live.update(Text("\n", no_wrap=True).join(lines), refresh=True)
            if is_ended(REFRESH_S):
                return


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits some seconds and returns whether `q` was pressed."""
    keyboard = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    if keyboard is None:
        yield _sleep
        return
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)  # each key by itself, not shown; Ctrl-C interrupts nevertheless
        yield lambda seconds: _is_end_pressed(keyboard, seconds)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _is_end_pressed(keyboard: int, seconds: float) -> bool:
    """Wait for a key that ends; others are read and change nothing."""
    ends_at = time.monotonic() + seconds
    while (left_s := ends_at - time.monotonic()) > 0:
        if select.select([keyboard], [], [], left_s)[0]:
            keys = os.read(keyboard, _KEYS_READ)
            if not keys:  # the terminal has gone
                return True
            if any(key in END_KEYS for key in keys):
                return True
    return False


class _ProgressLine(ProgressColumn):
    """A line that is made anew with each refresh, so that the rate falls when data stops."""

    def __init__(self, title: str, estimate: Estimate, console: Console) -> None:
        super().__init__()
        self._title = title
        self._estimate = estimate
        self._console = console

    def render(self, task: Task) -> Text:
        width = self._console.width
        if task.total is None:
            return Text(self._title, no_wrap=True, overflow="ellipsis")
        return progress_line(self._title, self._estimate, width, glyphs_of(self._console))


class _Rates:
    """Rates down and up, from the counters of one status and the next."""

    KEYS: Final = ("downloaded_bytes", "uploaded_bytes")

    def __init__(self) -> None:
        self._last: Record | None = None
        self._at = 0.0

    def of(self, status: Record) -> tuple[float, float]:
        """Return bytes a second down and up since the last status."""
        now, last = time.monotonic(), self._last or status
        passed_s = max(now - self._at, 0.001)
        self._last, self._at = status, now
        down, up = ((number_of(status, key) - number_of(last, key)) / passed_s for key in self.KEYS)
        return down, up
