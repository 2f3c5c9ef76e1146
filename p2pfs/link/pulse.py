"""When to ask a silent peer whether it is there, and when to give it up.

A `Pulse` learns from its caller what happened and at what time; it neither waits nor reads a clock.
A peer that owes nothing may be silent for long. One that owes an answer is asked soon, and
a peer that is asked has a few seconds: a changed address or a pulled cable closes no connection.
"""

from __future__ import annotations

import math
from typing import Final

PING_AFTER_S: Final = 30.0
"""Silence after which we ask; keeps the mappings of common NATs, which last minutes, alive."""

OWN_TURN_S: Final = 4.0
"""How much longer who has asked last waits, and twice that where it was dialled. So both take
turns, and each knows how long the way is; both asked at one moment, and twelve idle neighbours cost
17 MB a day."""

DEAD_AFTER_S: Final = 90.0
"""Silence, or a send that does not end, after which the peer is gone. Two pings may be lost."""

OWED_PING_AFTER_S: Final = 5.0
"""The same where an answer is owed; the peer may be looking for it."""

READING_PING_AFTER_S: Final = 1.0
"""The same where a reader waits for the answer. A peer that says that it is there, and no more, is
asked again after the longer time: a request may wait in a queue."""

OWED_DEAD_AFTER_S: Final = 10.0
"""How long after such a PING the peer is gone: lost packets are sent again by then."""

SILENT_AFTER_S: Final = 2.0
"""Silence where an answer is owed, not broken by a PONG either, after which another way to the
peer is looked for; again whenever so much more has passed."""


class Pulse:
    """When frames came on one link, and until when the next is waited for."""

    def __init__(self, now: float, *, is_reading: bool, own_turn_s: float = 0.0) -> None:
        """Start a link now; `is_reading` says that people wait for its answers."""
        self._own_turn_s = own_turn_s
        self._ask_after_s = READING_PING_AFTER_S if is_reading else OWED_PING_AFTER_S
        self.heard_at = now
        """When a frame came last."""
        self._bytes_at = now
        self._pinged_at = now
        self._owed_since = math.inf
        self._told_at = now
        self._proof_by = math.inf
        self._was_pong = False

    def heard(self, now: float, *, is_pong: bool = False) -> None:
        """Note that a frame came, whole."""
        self.heard_at = now
        self._was_pong = is_pong

    def got_bytes(self, now: float) -> None:
        """Note that a part of a frame came: on a slow line that is no silence.

        It lets nobody live for ever: one could send a frame byte by byte.
        """
        self._bytes_at = now
        self._proof_by = math.inf

    def pinged(self, now: float) -> None:
        """Note that the peer was asked whether it is there."""
        self._pinged_at = now

    def owes(self, now: float, *, is_owed: bool) -> None:
        """Note whether the peer owes an answer."""
        if not is_owed:
            self._owed_since = math.inf
        elif self._owed_since == math.inf:
            self._owed_since, self._was_pong = now, False

    def must_prove(self, by: float) -> None:
        """Give the peer up unless something comes until then."""
        self._proof_by = min(self._proof_by, by)

    def told_silent(self, now: float) -> None:
        """Note that a search for another way to the peer has begun."""
        self._told_at = now

    @property
    def _quiet_since(self) -> float:
        """Since when nothing has come though an answer is owed; never if none is."""
        return max(self._bytes_at, self._owed_since)

    def _silent_from(self) -> float:
        if not self._is_asked:
            return math.inf
        return max(self._quiet_since + SILENT_AFTER_S, self._pinged_at + READING_PING_AFTER_S)

    @property
    def _is_asked(self) -> bool:
        """Whether the peer was asked since it has been silent, though it owes an answer."""
        return self._pinged_at > self._quiet_since

    def ping_at(self) -> float:
        """Return when to ask next if nothing comes."""
        usual_at = max(self.heard_at, self._pinged_at + self._own_turn_s) + PING_AFTER_S
        if self._is_asked:
            return usual_at
        after_s = OWED_PING_AFTER_S if self._was_pong else self._ask_after_s
        return min(usual_at, self._quiet_since + after_s)

    def dead_at(self) -> float:
        """Return when the peer is gone if nothing comes."""
        owed_at = self._pinged_at + OWED_DEAD_AFTER_S if self._is_asked else math.inf
        return min(self.heard_at + DEAD_AFTER_S, owed_at, self._proof_by)

    def silent_at(self) -> float:
        """Return when to search for another way to the peer if nothing comes.

        That is never before it was asked: it may have nothing to say but that it is there.
        """
        return max(self._silent_from(), self._told_at + SILENT_AFTER_S)

    def is_silent(self, now: float) -> bool:
        """Return whether an answer is owed, and the peer says nothing though it was asked."""
        return self._silent_from() <= now

    def next_look_at(self) -> float:
        """Return when time alone will change an answer."""
        return min(self.ping_at(), self.dead_at(), self.silent_at())
