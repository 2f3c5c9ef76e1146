"""How much of each message is read from one link.

What a message costs its receiver is small, and a stranger can send any number. So each type has
a rate, and how many may come at once. Nothing is refused here: a link that sends more is read
no quicker, so its own messages wait, and nobody else's. The rates are far above what a servent
ever sends. What a query or a walk may cost the network is the router's to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from p2pfs.protocol import (
    Bye,
    Cancel,
    Changed,
    Done,
    Enough,
    Filter,
    GetBlocks,
    GetManifest,
    GetPeers,
    Hello,
    Introduce,
    List,
    Listing,
    Match,
    Message,
    News,
    Peers,
    Ping,
    Pong,
    Push,
    Pushed,
    Query,
    QueryHit,
    Reject,
    Unknown,
    Walk,
)
from p2pfs.protocol.flood import TokenBucket


@dataclass(frozen=True, slots=True)
class Rate:
    """How many a second, and how many at once."""

    per_s: float
    burst: int


RATES: Final[Mapping[type[Message | Unknown], Rate]] = {
    Hello: Rate(1, 1),
    Bye: Rate(1, 1),
    Ping: Rate(5, 50),
    Pong: Rate(5, 50),
    GetPeers: Rate(1, 20),
    Peers: Rate(1, 20),
    Walk: Rate(50, 200),
    Introduce: Rate(20, 200),
    Query: Rate(200, 1_000),
    QueryHit: Rate(200, 2_000),
    Done: Rate(200, 2_000),
    Changed: Rate(5, 200),
    Filter: Rate(50, 1_000),
    News: Rate(100, 1_000),
    Enough: Rate(200, 1_000),
    Push: Rate(50, 200),
    Pushed: Rate(50, 200),
    GetManifest: Rate(500, 1_000),
    GetBlocks: Rate(2_000, 4_000),
    List: Rate(100, 400),
    Listing: Rate(500, 4_000),
    Reject: Rate(2_000, 4_000),
    Cancel: Rate(2_000, 4_000),
    Match: Rate(20, 100),
    Unknown: Rate(10, 100),
}
"""At these rates together a link takes some hundredths of a processor. DATA is bounded by what was
asked for."""


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
