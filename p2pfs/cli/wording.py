"""How values are told to people: units, times, headings. Plain text; light to import.

What comes from the servent goes through `printable` here: peers wrote it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from p2pfs.journal import printable
from p2pfs.rates import Flow

Record = Mapping[str, object]
"""A JSON object that a verb gave."""

UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
SUFFIXES: Final = ("_bytes_s", "_bytes", "_ms", "_s")


def heading(column: str) -> str:
    """Return what stands above a column."""
    suffix = next((one for one in SUFFIXES if column.endswith(one)), "")
    return column.removesuffix(suffix).replace("_", " ")


def is_number(column: str) -> bool:
    """Return whether a column is read from the right."""
    return column in ("size", "sources", "percent") or column.endswith(SUFFIXES)


def shown(key: str, value: object) -> str:
    """Return a value as people read it; its key tells the unit."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "peers" and isinstance(value, list):
        return ", ".join(shown("name", peer["name"]) for peer in value)
    if isinstance(value, int | float):
        return shown_number(key, value)
    return printable(str(value))


def shown_number(key: str, value: float) -> str:
    """Return a number with the unit that its key tells."""
    if key == "time":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if key == "size" or key.endswith("_bytes"):
        return shown_bytes(value)
    if key.endswith("_bytes_s"):
        return f"{shown_bytes(value)}/s"
    if key == "percent":
        return f"{value} %"
    if key.endswith("_ms"):
        return f"{value:.1f} ms"
    if key.endswith("_s"):
        return shown_time(value)
    return str(value)


def shown_bytes(count: float) -> str:
    """Return 1536 as 1.5 KiB."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.1f} {UNITS[unit]}" if unit else f"{count:.0f} B"


def shown_time(seconds: float) -> str:
    """Return 3723 as 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class Estimate:
    """How far something is, how fast it goes and how long it will take."""

    def __init__(self) -> None:
        self._flow = Flow()
        self._flow.add(0, time.monotonic())
        self._done = self._size = 0

    def reached(self, done: int, size: int) -> None:
        """Note that `done` of `size` bytes are done."""
        self._flow.add(done - self._done, time.monotonic())
        self._done, self._size = done, size

    def text(self) -> str:
        """Return all of it as one line; what is not known yet is left out."""
        words = f"{shown_bytes(self._done)} of {shown_bytes(self._size)}"
        rate = self._flow.rate(time.monotonic())
        if rate >= 1:
            left_s = (self._size - self._done) / rate
            words += f", {shown_bytes(rate)}/s, {shown_time(left_s)} left"
        return words
