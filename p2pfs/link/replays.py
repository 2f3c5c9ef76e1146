"""Messages that a peer sends before it is answered are heard once.

Theory. An eavesdropper that records the first message of a link can send it again, and it decrypts:
nothing in it is ours. So it carries the time at which it was said, and of each servent only a later
message than all before is taken. A message from before we started, or older than one that was
forgotten, is not taken either: so none is taken twice. A refusal costs its sender one round trip
and no more, so clocks that are wrong, and strangers that push others out of the table, do no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import ServentId

MAX_SPEAKERS: Final = 4_096
"""Servents of which it is known when they spoke last: 1 MB."""

EARLY_AHEAD_S: Final = 60.0
"""How far a peer's clock may be ahead of ours: a forgotten message shuts out others no longer."""


class Replays:
    """When each servent has spoken early last."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Begin at this time by `clock`, which gives seconds since 1970."""
        self._clock = clock
        self._since = clock() * 1_000_000
        self._told: Latest[ServentId, int] = Latest(MAX_SPEAKERS, self._forgot)

    def take(self, peer: ServentId, told_at_us: int) -> bool:
        """Return whether a message that a servent has proven to send, at this time, is new."""
        latest = (self._clock() + EARLY_AHEAD_S) * 1_000_000
        if not max(self._since, self._told.get(peer, 0)) < told_at_us <= latest:
            return False
        self._told[peer] = told_at_us
        return True

    def _forgot(self, _peer: ServentId, told_at_us: int) -> None:
        self._since = max(self._since, told_at_us)
