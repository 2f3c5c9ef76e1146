"""Values as people read them: units, times, headings. Plain text; light to import.

What comes from the servent goes through `printable` here: peers wrote it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from p2pfs.journal import printable
from p2pfs.rates import Flow

Record = Mapping[str, object]
"""A JSON object that a verb gave."""

PEER_COLUMNS: Final = ("name", "address", "direction", "connected_s", "rtt_ms", "id")
TRANSFER_COLUMNS: Final = (
    "path", "size", "done_bytes", "rate_bytes_s", "sources", "state", "direction", "peers",
)  # fmt: skip
SHARE_COLUMNS: Final = ("name", "directory", "files", "size", "read_only", "to", "away")
HISTORY_COLUMNS: Final = ("time", "path", "size", "user", "program", "peers")
CONFIG_COLUMNS: Final = ("name", "value", "source", "can_be_set")
EVENT_COLUMNS: Final = ("time", "severity", "text", "path")
"""The fields of a record of each kind that people see, in this order."""

UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
SUFFIXES: Final = ("_bytes_s", "_bytes", "_ms", "_s")


def heading(column: str) -> str:
    """Return what stands above a column."""
    suffix = next((one for one in SUFFIXES if column.endswith(one)), "")
    return column.removesuffix(suffix).replace("_", " ")


def is_number(column: str) -> bool:
    """Return whether a column is read from the right."""
    return column in ("size", "files", "sources") or column.endswith(("percent", *SUFFIXES))


def field_lines(key: str, value: object) -> list[str]:
    """Return a field of a record as lines: of several commands, each has its own."""
    if key == "join_commands" and isinstance(value, list) and value:
        return [f"{heading(key)}:", *(f"  {printable(str(command))}" for command in value)]
    return [f"{heading(key)}: {shown(key, value)}"]


def row_line(row: Record, columns: Sequence[str]) -> str:
    """Return a record as one line, with a tab between two columns.

    A field that is missing, as from a servent of an older version, is shown as not known.
    """
    return "\t".join(shown(column, row.get(column)) for column in columns)


def shown(key: str, value: object) -> str:
    """Return a value as people read it; the ending of its key is its unit."""
    if value is None or value in ("", []):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "peers" and isinstance(value, list):
        return ", ".join(shown("name", peer["name"]) for peer in value)
    if isinstance(value, list):
        return ", ".join(shown("", one) for one in value)
    if isinstance(value, int | float):
        return shown_number(key, value)
    return printable(str(value))


def shown_number(key: str, value: float) -> str:
    """Return a number with the unit that is the ending of its key."""
    if key == "time":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if key == "size" or key.endswith("_bytes"):
        return shown_bytes(value)
    if key.endswith("_bytes_s"):
        return f"{shown_bytes(value)}/s"
    if key.endswith("percent"):
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
        self.done = self.size = 0

    def reached(self, done: int, size: int) -> None:
        """Note that `done` of `size` bytes are done."""
        self._flow.add(done - self.done, time.monotonic())
        self.done, self.size = done, size

    @property
    def percent(self) -> int:
        """How much is done, rounded down."""
        return 100 * self.done // self.size if self.size else 100

    @property
    def rate_bytes_s(self) -> float:
        """What was done lately; 0 after a stop."""
        return self._flow.rate(time.monotonic())

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at this rate; None while nothing goes on."""
        rate = self.rate_bytes_s
        return (self.size - self.done) / rate if rate >= 1 else None

    def text(self) -> str:
        """Return all of it as one line; facts that are not known yet are left out."""
        words = f"{shown_bytes(self.done)} of {shown_bytes(self.size)}"
        if self.left_s is not None:
            words += f", {shown_bytes(self.rate_bytes_s)}/s, {shown_time(self.left_s)} left"
        return words
