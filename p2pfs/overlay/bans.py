"""Peers that are banned for a while, and peers that have sent wrong blocks so far.

A ban holds for a servent's id, which its owner can change at no cost: it ends the transfers
of this moment, no more. It holds for every kind of link, dialled by either side. No clock is
read here: `now` is in seconds of any monotonic clock.
"""

from __future__ import annotations

from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import ServentId

FLOOD_BAN_S: Final = 600.0
"""How long a peer that floods is banned."""

LIES_BAN_S: Final = 3_600.0
"""How long a peer that sends wrong blocks is banned."""

MAX_LIES: Final = 3
"""Wrong blocks, of whatever files, after which a peer is banned."""

MAX_BANS: Final = 10_000
"""Bans, and peers that lied, remembered; the oldest is forgotten first. Two megabytes."""


class Bans:
    """The banned peers, each until some time."""

    def __init__(self) -> None:
        self._until: Latest[ServentId, float] = Latest(MAX_BANS)
        self._lies: Latest[ServentId, int] = Latest(MAX_BANS)
        self.lies = 0
        """Wrong blocks of all peers together."""

    def ban(self, peer: ServentId, now: float, for_s: float) -> None:
        """Ban a peer from now on, for no less than it is banned already."""
        self._until[peer] = max(now + for_s, self._until.get(peer, 0.0))

    def is_banned(self, peer: ServentId, now: float) -> bool:
        """Return whether a peer is banned now."""
        return self._until.get(peer, 0.0) > now

    def lied(self, peer: ServentId, now: float) -> bool:
        """Note a wrong block; return whether it was one too many and the peer is banned now."""
        self.lies += 1
        count = self._lies.pop(peer, 0) + 1
        if count >= MAX_LIES:
            self.ban(peer, now, LIES_BAN_S)
            return True
        self._lies[peer] = count
        return False
