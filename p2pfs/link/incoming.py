"""What arrives on one link: read, decoded, and read no quicker than anybody should send."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final

import trio

from p2pfs.link.allowance import AddressAllowance, Allowance
from p2pfs.link.keepalive import KeepAlive
from p2pfs.protocol import NEED_DATA, Connection, Data, Message, Pong, Received, Unknown

RECEIVE_BYTES: Final = 512 * 1024
"""What one receive takes at most: eight full frames."""

EVENTS_PER_TURN: Final = 32
"""Events handled before other tasks get their turn: 2 ms of full frames."""

_CHARGED: Final = (Message, Unknown)
"""What a link may send only so much of, whatever we asked for."""

TakeReceived = Callable[[Received | Data], object]
"""Takes in a message or a part of an answer; never waits. It may raise RemoteProtocolError."""


class Incoming:
    """The reading end of one link."""

    def __init__(
        self, stream: trio.abc.ReceiveStream, connection: Connection, alive: KeepAlive
    ) -> None:
        """Read `stream` by `connection`; `alive` learns when something came."""
        self._stream = stream
        self._connection = connection
        self._alive = alive
        self._allowance = Allowance()
        self._rest_s = 0.0

    async def run(self, take: TakeReceived, is_over: Callable[[], bool]) -> None:
        """Hand on what arrives until the link is over or the peer has ended the stream.

        Raises:
            RemoteProtocolError: the peer broke the protocol.
            trio.BrokenResourceError: the connection is lost.
        """
        while True:
            await self._take_events(take, is_over)
            if is_over():
                return
            data = await self._stream.receive_some(RECEIVE_BYTES)
            if not data:
                # Not for the connection to judge: a peer that is killed in the middle of a
                # frame has broken no protocol.
                return
            self._alive.got_bytes()
            self._connection.receive_data(data)
            del data  # else a link that rests holds it

    def count_with(self, allowance: AddressAllowance) -> None:
        """Count what comes for an address too, from now on."""
        self._allowance.of_address = allowance

    def read_later(self, rest_s: float) -> None:
        """Read nothing more for a while, once a message has come; what was read goes on."""
        self._rest_s = max(self._rest_s, rest_s)

    async def drain(self) -> None:
        """Read on and drop it until the peer hangs up.

        After our BYE, to close with bytes unread could destroy it on its way.
        """
        while await self._stream.receive_some(RECEIVE_BYTES):
            pass

    async def _take_events(self, take: TakeReceived, is_over: Callable[[], bool]) -> None:
        now = trio.current_time()
        for number in itertools.count(1):
            event = self._connection.next_event()
            if event is NEED_DATA:
                return
            wait_s = 0.0
            if isinstance(event, Data):  # first: there are 17,000 in a GiB
                self._alive.heard(now)
                take(event)
                wait_s = self._allowance.wait_after_data_s(event, now)
            else:
                message = event.message if isinstance(event, Received) else event
                self._alive.heard(now, is_pong=isinstance(message, Pong))
                if isinstance(event, Received):
                    take(event)
                if isinstance(message, _CHARGED):
                    wait_s = max(self._allowance.wait_s(message, now), self._rest_s)
                    self._rest_s = 0.0
            if is_over():
                return
            if wait_s:  # the peer sends more than anybody should
                await trio.sleep(wait_s)
            elif number % EVENTS_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            else:
                continue
            now = trio.current_time()
