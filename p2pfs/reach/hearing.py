"""How much of what is said in the room is heard.

Theory. zeroconf parses and remembers whatever comes, at ten times the cost of saying it, and
anybody in the room may speak, in the name of any address. So datagrams have a rate, and those of
one address a smaller one. What one address says beyond its own is dropped unread. What all say
beyond theirs is read later: the thread of zeroconf rests, and the kernel drops what does not fit.
Who was heard before stays known; others are found when they speak again, as they do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from zeroconf import Zeroconf

from p2pfs.latest import Latest
from p2pfs.protocol.flood import TokenBucket

HEARD_PER_S: Final = 200
HEARD_BURST: Final = 1_000
"""Parts of datagrams that are heard: a hall of three hundred that all begin at once is heard in
twenty seconds, and a storm takes a few hundredths of a core."""

OF_ONE_PER_S: Final = 20
OF_ONE_BURST: Final = 200
"""The same of one address: a servent says some thirty in its first minute, and then hardly one."""

PART_BYTES: Final = 256
"""A longer datagram counts as several: it may have hundreds of records."""

DROPPED_WEIGHT: Final = 0.1
"""What a datagram counts that was read and dropped: it costs so much less."""

MAX_SPEAKERS: Final = 512
"""Addresses whose rates are remembered."""


class Hearing:
    """The rates of what is heard in one room. From the thread of zeroconf alone."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], object] = time.sleep,
    ) -> None:
        self._clock = clock
        self._rest = rest
        self._all = TokenBucket(HEARD_PER_S, HEARD_BURST)
        self._speakers: Latest[str, TokenBucket] = Latest(MAX_SPEAKERS)

    def attend(self, room: Zeroconf) -> None:
        """Stand between a room and its sockets."""
        for reader in room.engine.readers:
            transport = reader.transport
            transport.set_protocol(_Rationed(transport.get_protocol(), self))

    def hears(self, host: str, size: int) -> bool:
        """Charge a datagram of an address, and return whether it is heard; rest before, if need be.

        Whoever speaks too much is dropped, and costs others little of what they may say.
        """
        wait_s = self._all.wait_s(self._clock())
        if wait_s:
            self._rest(wait_s)
        speaker = self._speakers.renew(host, _speaker)
        is_heard = speaker.wait_s(self._clock()) == 0.0
        weight = 1 + size // PART_BYTES if is_heard else DROPPED_WEIGHT
        self._all.spend(weight)
        if is_heard:
            speaker.spend(weight)
        return is_heard


def _speaker() -> TokenBucket:
    return TokenBucket(OF_ONE_PER_S, OF_ONE_BURST)


class _Rationed(asyncio.DatagramProtocol):
    """What asyncio hands datagrams to, in place of the listener of zeroconf."""

    def __init__(self, listener: Any, hearing: Hearing) -> None:  # noqa: ANN401
        self._listener = listener
        self._hearing = hearing

    def error_received(self, error: Exception) -> None:
        """Hand on that something could not be sent."""
        self._listener.error_received(error)

    def connection_lost(self, error: Exception | None) -> None:
        """Hand on the end of a socket."""
        self._listener.connection_lost(error)

    def datagram_received(self, data: bytes, sender: tuple[Any, ...]) -> None:
        """Hand on what is heard."""
        if self._hearing.hears(sender[0], len(data)):
            self._listener.datagram_received(data, sender)
