"""Rates by the hour: `08:00 512KiB, 23:00 off`."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Final, TypeAlias

from p2pfs.config.values import parse_rate, quoted, size_option

MAX_CHANGES: Final = 96
"""The most changes a day: one each quarter of an hour. No person writes more."""

OFF: Final = "off"
"""The word for no limit, in place of a rate."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """A rate for each time of the day, the same every day, in local time."""

    changes: tuple[tuple[int, int | None], ...]
    """The minute of the day and the rate from then on, in this order. None: no limit."""

    def at(self, minute: int) -> int | None:
        """Return the rate at a minute of the day; before the first change the last one holds."""
        passed = [rate for start, rate in self.changes if start <= minute]
        return passed[-1] if passed else self.changes[-1][1]

    def __str__(self) -> str:
        """Return it as people write it."""
        return ", ".join(
            f"{start // 60:02}:{start % 60:02} {limit_option(rate)}" for start, rate in self.changes
        )


Limit: TypeAlias = int | Timetable | None
"""Bytes a second: a constant, a timetable, or None for no limit."""


def parse_limit(value: object) -> Limit:
    """Return a limit from a rate, "off", or a timetable such as "08:00 512KiB, 23:00 off".

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, str) or not re.match(r"\s*\d+:", value):
        return _rate(value)
    changes = [_change(text) for text in value.split(",")]
    if len({start for start, _ in changes}) < len(changes):
        raise ValueError(f"{quoted(value)} has two rates for one time")
    if len(changes) > MAX_CHANGES:
        raise ValueError(f"a timetable has {MAX_CHANGES} changes a day at most")
    return Timetable(tuple(sorted(changes, key=lambda change: change[0])))


def _change(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"\s*(\d{1,2}):(\d{2})\s+(\S.*?)\s*", text, re.ASCII)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise ValueError(f"{quoted(text.strip())} is not a time and a rate such as 08:00 512KiB")
    return 60 * int(match[1]) + int(match[2]), _rate(match[3])


def _rate(value: object) -> int | None:
    return None if value == OFF else parse_rate(value)


def limit_option(limit: Limit) -> str:
    """Return a limit as people write it; no limit is "off"."""
    if isinstance(limit, Timetable):
        return str(limit)
    return OFF if limit is None else size_option(limit)


def rate_at(limit: Limit, seconds: float) -> int | None:
    """Return the rate that a limit allows at a time, in seconds since 1970."""
    if not isinstance(limit, Timetable):
        return limit
    time.tzset()  # the machine may be in another time zone by now
    local = time.localtime(seconds)
    return limit.at(60 * local.tm_hour + local.tm_min)
