"""How many bytes may pass in a second, and how many do.

The caller gives the time, in seconds of any monotonic clock; nothing here waits.
"""

from __future__ import annotations

import math
from typing import Final

WINDOW_S: Final = 5.0
"""No stretch of this length, nor a longer one, sees more than the limit allows."""

AIM: Final = 0.99
"""A limit is refilled at this part of it. The rest of the limit, over a window, is the burst."""

PIECE_S: Final = 0.01
"""Time's worth of bytes that pass together, where they can be cut: fine enough to be smooth,
and a hundred wake-ups a second are nothing."""

MIN_PIECE_BYTES: Final = 1024
"""Of a very low limit; smaller pieces would be mostly headers."""


SHORTEST_WAIT_S: Final = 0.001
"""Less is no wait: no timer is finer, and a clock that has run for weeks could not tell."""


LOOK_AGAIN_S: Final = 1.0
"""How long a caller that waits for a limit sleeps at most: a change of it holds so soon."""

FLOW_S: Final = 2.0
"""Bytes that have passed so long ago count 1/e."""

FLOW_FORGOTTEN_S: Final = 5.0
"""Nothing has passed for so long: the flow has ended, and the next begins anew."""

MIN_FLOW_S: Final = 0.25
"""A flow that has just begun counts as this old: nobody can tell a rate from one block."""


class RateLimit:
    """Let a rate of bytes pass, or all, by a token bucket that all callers share.

    A caller that finds the limit open passes a whole piece and charges it; the debt is what the
    next one waits for. What passes late is made up for. What cannot be cut into pieces of
    `piece_bytes`, such as the block that a request asks for, may exceed a window by itself.
    """

    def __init__(self, limit_bytes_s: float | None = None) -> None:
        """Start open, with nothing owed; without a rate all may pass, always."""
        self.change(limit_bytes_s)

    def change(self, limit_bytes_s: float | None) -> None:
        """Let another rate pass from now on; the debt under the former one is forgotten."""
        self.limit_bytes_s = limit_bytes_s
        """None: all may pass."""
        rate = limit_bytes_s or 0.0
        self.piece_bytes = max(MIN_PIECE_BYTES, int(rate * PIECE_S))
        """What to charge at once if there is a choice."""
        self._rate = AIM * rate
        spare = rate * (1 - AIM) * WINDOW_S
        self._burst = max(0.0, spare - self.piece_bytes - rate * SHORTEST_WAIT_S)
        self._balance = self._burst
        self._at = 0.0

    @property
    def is_set(self) -> bool:
        """Whether there is a limit."""
        return self.limit_bytes_s is not None

    def wait_s(self, now: float) -> float:
        """Return how long nothing may pass, 0 if something may now.

        The limit may change before that: a caller that waits asks again after LOOK_AGAIN_S.
        """
        if not self.is_set:
            return 0.0
        self._earn(now)
        wait_s = -self._balance / self._rate
        return wait_s if wait_s >= SHORTEST_WAIT_S else 0.0

    def charge(self, count: int, now: float) -> None:
        """Note that `count` bytes pass."""
        self._earn(now)
        self._balance -= count

    def refund(self, count: int) -> None:
        """Note that bytes that were charged did not pass."""
        self._balance += count

    def _earn(self, now: float) -> None:
        self._balance = min(self._burst, self._balance + (now - self._at) * self._rate)
        self._at = now


class Flow:
    """How many bytes a second pass, as seen over the last few seconds.

    One task adds; anybody may look, from any thread.
    """

    def __init__(self) -> None:
        self._weight = 0.0  # of the bytes so far, old ones counting less
        self._began_at = self._at = -math.inf

    def add(self, count: int, now: float) -> None:
        """Note that `count` bytes have passed."""
        if now - self._at > FLOW_FORGOTTEN_S:
            self._began_at, self._weight = now, 0.0
        else:
            self._weight *= math.exp((self._at - now) / FLOW_S)
        self._weight += count
        self._at = now

    def rate(self, now: float) -> float:
        """Return the bytes a second; 0 when nothing has passed for a while."""
        if now - self._at > FLOW_FORGOTTEN_S:
            return 0.0
        watched_s = max(now - self._began_at, MIN_FLOW_S)
        seen_s = FLOW_S * (1 - math.exp(-watched_s / FLOW_S))
        return self._weight * math.exp((self._at - now) / FLOW_S) / seen_s
