"""How much a neighbour may send (PROTOCOL.md, "Budgets").

A flood multiplies what one servent says by the size of the network, so each neighbour has a
budget, and messages that it forwards are charged to it: nobody can tell whether a hop count is
true. Twenty flooders among 20,000 servents that had none doubled the traffic of all (DD-POLICE).
Time is passed in, in seconds of any monotonic clock.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

FLOOD_FACTOR: Final = 5
"""Times its budget that a neighbour may try before it is banned (the rule of aMule's Kad)."""

FLOOD_WINDOW_S: Final = 60.0
"""Over which time that is counted: a burst after a pause is no attack."""


SENDING_SHARE: Final = 0.9
"""How much of a neighbour's budget we use ourselves: the network may bunch messages that were sent
evenly."""

ROUNDING: Final = 1e-6
"""The part of a token that may be missing: a caller that has waited for `wait_s` may go on."""


class TokenBucket:
    """Let `rate_per_s` things pass on average, and `burst` at once."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now: float, spare: float = 0.0) -> bool:
        """Take one token; return False, and take nothing, if none is left beside the spare ones."""
        if self.wait_s(now, spare) > 0.0:
            return False
        self._tokens -= 1.0
        return True

    def spend(self, tokens: float) -> None:
        """Take tokens that are not there yet, for work that cost more than was known before."""
        self._tokens -= tokens

    def give_back(self, tokens: float) -> None:
        """Put tokens back that were spent for what turns out to be worth less."""
        self._tokens += tokens

    def top_up(self, tokens: float) -> None:
        """Forget what was spent in advance, and put tokens beside those that are left."""
        self._tokens = max(0.0, self._tokens) + tokens

    def take_ahead(self, now: float, tokens: int = 1) -> float:
        """Take tokens, which may not be there yet; return in how many seconds one will be."""
        wait_s = self.wait_s(now)
        self._tokens -= tokens
        return wait_s

    def wait_s(self, now: float, spare: float = 0.0) -> float:
        """Return in how many seconds there will be a token beside the spare ones; 0 if now."""
        earned = 0.0 if self._at is None else (now - self._at) * self._rate_per_s
        self._tokens = min(self._burst, self._tokens + earned)
        self._at = now
        missing = 1.0 + spare - self._tokens
        return missing / self._rate_per_s if missing > ROUNDING else 0.0


class Urgency(enum.Enum):
    """The purpose of a search that we begin; the first go before the others."""

    PERSON = enum.auto()
    """Somebody waits for the answer: a path, a verb, a listing, a read that has no source."""
    REFRESH = enum.auto()
    """Names that are shown from memory are asked for again behind."""
    SOURCES = enum.auto()
    """A download under way would be quicker with more sources."""


_SHARES: Final[Mapping[Urgency, float]] = {
    Urgency.PERSON: 1.0,
    Urgency.REFRESH: 2 / 3,
    Urgency.SOURCES: 1 / 3,
}
"""The part of rate and burst that each may take: it leaves the rest to those before it, and a
neighbour that gives reasons to search without end makes the network no busier than this."""


class SearchBudget:
    """The searches that we begin: no more than every neighbour accepts, the urgent ones first."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self._burst = burst
        self._all = TokenBucket(rate_per_s, burst)
        self._shares = {
            urgency: TokenBucket(rate_per_s * share, int(burst * share))
            for urgency, share in _SHARES.items()
        }

    def take(self, urgency: Urgency, now: float) -> float:
        """Take one search and return 0, or return in how many seconds there may be one."""
        share, spare = self._shares[urgency], self._burst * (1 - _SHARES[urgency])
        wait_s = max(share.wait_s(now), self._all.wait_s(now, spare))
        if wait_s == 0.0:
            share.take(now)
            self._all.take(now, spare)
        return wait_s


class Charge(enum.Enum):
    """The effect of a message on the budget of its sender."""

    WITHIN = enum.auto()
    OVER = enum.auto()
    """Refuse it."""
    FLOOD = enum.auto()
    """Refuse it and ban the sender. Said once in a window."""


class Budget:
    """How many messages of one kind one neighbour may send."""

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
