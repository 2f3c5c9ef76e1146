"""The ages up to which listings are believed, the same in every view, and their renewal."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from p2pfs.latest import Latest
from p2pfs.tasks import Tasks

FIND_TIMEOUT_S: Final = 2.0
"""The longest that it may take to find a name, or the servents that are there."""

FIRST_LISTING_S: Final = 1.5
"""The longest that the first listing of a directory, or of a search, may take if nothing comes.
It goes on in the background, and the next listing shows more."""

LEAST_LOOK_S: Final = 0.25
"""What a look waits for what may be new, in any case: hardly anybody notices it, and most who have
just come have answered."""

REFRESH_AFTER_S: Final = 3.0
"""A listing older than this is shown at once and asked for again in the background. So each file
that is published within the horizon is listed within five seconds."""

TRUST_S: Final = 30.0
"""How long the holders found by a flood are taken for all holders of what lies below, and how long
a name of one peer is believed before its directory is listed again in the background."""

MAX_TIMES: Final = 1_000
"""Keys of one `Times` for which a time is remembered; the oldest are forgotten."""

K = TypeVar("K", bound=Hashable)


def look_s(took_s: float) -> float:
    """Return how long a look waits for answers that took so long before."""
    return min(max(LEAST_LOOK_S, 2 * took_s), FIRST_LISTING_S)


class Times(Generic[K]):
    """The time of the latest event of each key, such as a directory."""

    def __init__(self) -> None:
        self._at: Latest[K, float] = Latest(MAX_TIMES)

    def get(self, key: K) -> float:
        """Return the time, or minus infinity. Any thread."""
        return self._at.get(key, -math.inf)

    def put(self, key: K, at: float) -> None:
        """Note the time. Any thread."""
        self._at[key] = at


class Renewals(Generic[K]):
    """Renews old listings in the background after they were shown."""

    def __init__(
        self, tasks: Tasks, clock: Callable[[], float], ask: Callable[[K], object]
    ) -> None:
        """Prepare; `ask` begins the question, on the trio thread, and does not wait for it."""
        self._tasks = tasks
        self._clock = clock
        self._ask = ask
        self._asked_at: Times[K] = Times()

    def look(self, listing: K, age_s: float, after_s: float) -> None:
        """Renew a listing that is shown, if its age is above `after_s`. Any thread.

        One listing is renewed at most once in REFRESH_AFTER_S, also if that fails.
        """
        if age_s > after_s and self._clock() - self._asked_at.get(listing) > REFRESH_AFTER_S:
            self._tasks.soon(self._start, listing, idempotent=True)

    def _start(self, listing: K) -> None:
        self._asked_at.put(listing, self._clock())
        if self._tasks.are_running:
            self._ask(listing)
