"""How much a neighbour may send (PROTOCOL.md, "Budgets").

A flood multiplies what one servent says by the size of the network, so each neighbour has a
budget, and what it forwards is charged to it: nobody can tell whether a hop count is true.
Twenty flooders among 20,000 servents that had none doubled the traffic of all (DD-POLICE).
Time is passed in, in seconds of any monotonic clock.
"""

from __future__ import annotations

import enum
from typing import Final

FLOOD_FACTOR: Final = 5
"""Times its budget that a neighbour may try before it is banned (the rule of aMule's Kad)."""

FLOOD_WINDOW_S: Final = 60.0
"""Over which time that is counted: a burst after a pause is no attack."""


class TokenBucket:
    """Let `rate_per_s` things pass on average, and `burst` at once."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Take one token; return False, and take nothing, if there is none."""
        earned = 0.0 if self._at is None else (now - self._at) * self._rate_per_s
        self._tokens = min(self._burst, self._tokens + earned)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Charge(enum.Enum):
    """What a message does to the budget of its sender."""

    WITHIN = enum.auto()
    OVER = enum.auto()
    """Refuse it."""
    FLOOD = enum.auto()
    """Refuse it and ban the sender. Said once in a window."""


class Budget:
    """What one neighbour may send of one kind of message."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._bucket = TokenBucket(rate_per_s, burst)
        self._flood_at = int(FLOOD_FACTOR * rate_per_s * FLOOD_WINDOW_S) + 1
        self._window_began_at: float | None = None
        self._count = 0

    def charge(self, now: float) -> Charge:
        """Charge one message, whether or not it will be refused."""
        if self._window_began_at is None or now - self._window_began_at >= FLOOD_WINDOW_S:
            self._window_began_at, self._count = now, 0
        self._count += 1
        if self._count == self._flood_at:
            return Charge.FLOOD
        return Charge.WITHIN if self._bucket.take(now) else Charge.OVER
