"""How much of each message is read from one link.

A message costs its receiver little, but a stranger can send any number. So each type has
a rate, and how many may come at once. Nothing is refused here: a link that sends more is read
no quicker, so its own messages wait, and nobody else's. The rates are far above what a servent
ever sends. The router judges how much of the network's work queries and walks may cost.
"""

from __future__ import annotations

from p2pfs.protocol import RATES, Message, Unknown
from p2pfs.protocol.flood import TokenBucket


class Allowance:
    """What one link may still send."""

    def __init__(self) -> None:
        """Start with all bursts unspent."""
        self._buckets: dict[type[Message | Unknown], TokenBucket] = {}

    def wait_s(self, message: Message | Unknown, now: float) -> float:
        """Charge a message, and return how long nothing more is to be read."""
        kind = type(message)
        bucket = self._buckets.get(kind)
        if bucket is None:
            rate = RATES[kind]
            bucket = self._buckets[kind] = TokenBucket(rate.per_s, rate.burst)
        wait_s = bucket.wait_s(now)
        bucket.take(now + wait_s)
        return wait_s
