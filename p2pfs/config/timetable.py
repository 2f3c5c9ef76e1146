"""Rates by the hour. How people write them is among the `values`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_CHANGES: Final = 96
"""The most changes a day: one each quarter of an hour. No person writes more."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """A rate for each time of the day, the same every day, in local time."""

    changes: tuple[tuple[int, int | None], ...]
    """The minute of the day and the rate from then on, in this order. None: no limit."""

    def at(self, minute: int) -> int | None:
        """Return the rate at a minute of the day; before the first change the last one holds."""
        passed = [rate for start, rate in self.changes if start <= minute]
        return passed[-1] if passed else self.changes[-1][1]


Limit: TypeAlias = int | Timetable | None
"""Bytes a second: a constant, a timetable, or None for no limit."""


def rate_at(limit: Limit, seconds: float) -> int | None:
    """Return the rate that a limit allows at a time, in seconds since 1970."""
    if not isinstance(limit, Timetable):
        return limit
    time.tzset()  # the machine may be in another time zone by now
    local = time.localtime(seconds)
    return limit.at(60 * local.tm_hour + local.tm_min)
