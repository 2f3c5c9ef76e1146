"""Peers that misbehave, each in one way.

The first kind never becomes a servent: a behaviour is a function of the raw channel, for
`serving`. The second kind is a `RawPeer`: it has shaken hands properly and says exactly what
the test makes it say.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from p2pfs.link.sockets import Channel, Listener, Network
from p2pfs.protocol.codec import Received
from p2pfs.protocol.connection import NEED_DATA, Connection, Greeted
from p2pfs.protocol.fields import Address, Message
from p2pfs.protocol.handshake import Role
from p2pfs.protocol.identity import Identity, NetworkKey
from p2pfs.protocol.messages import Hello, LinkKind, Ping, Pong
from p2pfs.protocol.states import State

Behaviour = Callable[[Channel], Awaitable[None]]

RECEIVE_BYTES = 65_536


@asynccontextmanager
async def serving(network: Network, behaviour: Behaviour) -> AsyncIterator[Address]:
    """Listen, and treat everyone who dials with `behaviour`; gives the address."""
    listener = await network.listen(None, 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, listener, behaviour)
        yield listener.address
        nursery.cancel_scope.cancel()
    await listener.aclose()


async def _serve(listener: Listener, behaviour: Behaviour) -> None:
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(_treat, await listener.accept(), behaviour)


async def _treat(channel: Channel, behaviour: Behaviour) -> None:
    async with channel.stream:
        with suppress(trio.BrokenResourceError):  # the victim may hang up
            await behaviour(channel)


async def never_answer(_channel: Channel) -> None:
    """Accept and say nothing."""
    await trio.sleep_forever()


async def hang_up(_channel: Channel) -> None:
    """Accept and close at once."""
    await trio.lowlevel.checkpoint()


async def speak_http(channel: Channel) -> None:
    """Be a web server."""
    await channel.stream.receive_some(RECEIVE_BYTES)
    body = b"<html>400 Bad Request</html>"
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body)
    await channel.stream.send_all(head + body)


async def shout_noise(channel: Channel) -> None:
    """Send bytes without meaning for as long as they are taken."""
    while True:
        await channel.stream.send_all(bytes(range(256)) * 64)


def trickle(identity: Identity, every_s: float) -> Behaviour:
    """Return the behaviour of a good servent whose every byte takes `every_s`."""

    async def behaviour(channel: Channel) -> None:
        connection = Connection(Role.RESPONDER, identity, NetworkKey.open())
        out = connection.start()
        while True:
            for byte in out:
                await channel.stream.send_all(bytes([byte]))
                await trio.sleep(every_s)
            connection.receive_data(await channel.stream.receive_some(RECEIVE_BYTES))
            while connection.next_event() is not NEED_DATA:
                pass
            out = connection.data_to_send()

    return behaviour


def hang_up_after(identity: Identity, length: int) -> Behaviour:
    """Return the behaviour of a good servent that closes after `length` bytes."""

    async def behaviour(channel: Channel) -> None:
        connection = Connection(Role.RESPONDER, identity, NetworkKey.open())
        left, out = length, connection.start()
        while True:
            await channel.stream.send_all(out[:left])
            left -= len(out)
            if left <= 0:
                return
            connection.receive_data(await channel.stream.receive_some(RECEIVE_BYTES))
            while connection.next_event() is not NEED_DATA:
                pass
            out = connection.data_to_send()

    return behaviour


class RawPeer:
    """A servent that has shaken hands and then does only what it is told.

    It answers nothing by itself, no PING either, and reads only in `receive`.
    """

    def __init__(self, channel: Channel, connection: Connection) -> None:
        self.channel = channel
        self.connection = connection

    @classmethod
    async def dial(
        cls,
        network: Network,
        address: Address,
        kind: LinkKind,
        *,
        identity: Identity | None = None,
        hello: bool = True,
    ) -> RawPeer:
        """Dial a servent and greet it; without `hello` stop after the Noise handshake."""
        channel = await network.dial(address)
        identity = identity or Identity.generate()
        peer = cls(channel, Connection(Role.INITIATOR, identity, NetworkKey.open()))
        await peer._shake_hands()
        if hello:
            await peer.send(Hello(kind, "rogue", 0, channel.remote, (), "rogue"))
            await peer.receive()
        return peer

    @classmethod
    async def answer(cls, channel: Channel, *, identity: Identity | None = None) -> RawPeer:
        """Greet one who has dialled us, and say HELLO back."""
        identity = identity or Identity.generate()
        peer = cls(channel, Connection(Role.RESPONDER, identity, NetworkKey.open()))
        await peer._shake_hands()
        hello, _ = await peer.receive()
        assert isinstance(hello, Hello)
        await peer.send(Hello(hello.kind, "rogue", 0, channel.remote, (), "rogue"))
        return peer

    async def _shake_hands(self) -> None:
        await self.channel.stream.send_all(self.connection.start())
        assert isinstance(await self._next_event(), Greeted)

    async def _next_event(self) -> object:
        while True:
            event = self.connection.next_event()
            out = self.connection.data_to_send()
            if out:
                await self.channel.stream.send_all(out)
            if event is not NEED_DATA:
                return event
            self.connection.receive_data(await self.channel.stream.receive_some(RECEIVE_BYTES))

    async def send(self, message: Message, request_id: int = 0) -> None:
        await self.channel.stream.send_all(self.connection.send(message, request_id))

    async def send_out_of_place(self, message: Message) -> None:
        """Send a message that the state table forbids us to send."""
        self.connection.state = State.TRANSFER
        await self.send(message)

    async def send_data(self, request_id: int, data: bytes, *, is_last: bool) -> None:
        sealed = self.connection.send_data(request_id, data, is_last=is_last)
        await self.channel.stream.send_all(sealed)

    async def receive(self) -> tuple[Message, int]:
        """Return the next message and its request id."""
        event = await self._next_event()
        assert isinstance(event, Received), event
        return event.message, event.request_id

    async def receive_a(self, kind: type[Message]) -> tuple[Message, int]:
        """Return the next message of that type, passing over others."""
        while True:
            message, request_id = await self.receive()
            if isinstance(message, kind):
                return message, request_id

    async def answer_pings(self) -> None:
        """Answer each PING and nothing else, until cancelled."""
        while True:
            _, number = await self.receive_a(Ping)
            await self.send(Pong(), number)

    async def shout(self, message: Message) -> None:
        """Send one message again and again, until the victim has had enough."""
        with suppress(trio.BrokenResourceError):
            while True:
                await self.send(message)

    async def hang_up_mid_frame(self, message: Message) -> None:
        """Send all but the last byte of a message and close."""
        await self.channel.stream.send_all(self.connection.send(message)[:-1])
        await self.channel.stream.aclose()

    async def wait_hung_up(self) -> None:
        """Read and forget until the victim closes."""
        with suppress(trio.BrokenResourceError):
            while await self.channel.stream.receive_some(RECEIVE_BYTES):
                pass

    async def aclose(self) -> None:
        await self.channel.stream.aclose()
