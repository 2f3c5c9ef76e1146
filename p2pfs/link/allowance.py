"""How much of each message is read from one link.

A message costs its receiver little, but a stranger can send any number. So each type has
a rate, and how many may come at once. Nothing is refused here: a link that sends more is read
no quicker, so its own messages wait, and nobody else's. The rates are far above what a servent
ever sends. The router judges how much of the network's work queries and walks may cost.
"""

from __future__ import annotations

from typing import Final

from p2pfs.protocol import RATES, Data, Message, Unknown
from p2pfs.protocol.flood import TokenBucket

FULL_DATA_BYTES: Final = 4_096
SMALL_DATA_PER_S: Final = 500.0
SMALL_DATA_BURST: Final = 1_000
"""Parts of answers that are shorter, and not the last, which are read in a second, and at once: one
costs as much as a full one. A servent sends one in a megabyte."""


class Allowance:
    """What one link may still send."""

    def __init__(self) -> None:
        """Start with all bursts unspent."""
        self._buckets: dict[type[Message | Unknown], TokenBucket] = {}
        self._small_data = TokenBucket(SMALL_DATA_PER_S, SMALL_DATA_BURST)

    def wait_s(self, message: Message | Unknown, now: float) -> float:
        """Charge a message, and return how long nothing more is to be read."""
        kind = type(message)
        bucket = self._buckets.get(kind)
        if bucket is None:
            rate = RATES[kind]
            bucket = self._buckets[kind] = TokenBucket(rate.per_s, rate.burst)
        return bucket.take_ahead(now)

    def wait_after_data_s(self, data: Data, now: float) -> float:
        """Charge a part of an answer if it is short, and return how long nothing is to be read."""
        if data.is_last or data.size >= FULL_DATA_BYTES:
            return 0.0
        return self._small_data.take_ahead(now)
