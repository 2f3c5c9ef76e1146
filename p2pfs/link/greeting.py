"""Opening a link: prefaces, the Noise handshake, HELLO both ways, or a refusal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from p2pfs.errors import HandshakeError, LinkError, RemoteProtocolError, UnreachableError
from p2pfs.link.incoming import RECEIVE_BYTES
from p2pfs.link.live import BYE_TEXTS, Link
from p2pfs.link.requests import Asked, Requests
from p2pfs.link.sockets import Channel
from p2pfs.protocol import (
    NEED_DATA,
    Address,
    Bye,
    Connection,
    Greeted,
    Hello,
    Identity,
    LinkKind,
    Message,
    NetworkKey,
    Prepared,
    Received,
    Role,
    ServentId,
    TakeEarly,
    Ticket,
    preface_of,
    presentation,
)

PREFACE_S: Final = 5.0
"""A servent sends its preface at once: a peer that is silent for this long is none."""

HANDSHAKE_S: Final = 10.0
"""For everything from the connection to HELLO: three flights and four slow curve operations."""


class LocalServent(Protocol):
    """The servent that a link belongs to, as far as the link needs it."""

    @property
    def identity(self) -> Identity:
        """Our key pair."""

    @property
    def network_key(self) -> NetworkKey:
        """The network that we belong to."""

    def hello(self, kind: LinkKind, observed: Address) -> Hello:
        """Return our HELLO for a peer that appears to be at `observed`."""


Judge = Callable[[ServentId, Hello, Address], Bye | None]
"""Decides whether a greeted peer at an address may stay; a Bye is the refusal."""


BeforeHello = Callable[[ServentId], Awaitable[None]]
"""Called before our HELLO goes to a peer that we dialled; a LinkError ends the greeting."""


class RefusedError(LinkError):
    """A servent answered and said no; its BYE holds the reason and other peers to try."""

    def __init__(self, text: str, bye: Bye, peer_id: ServentId, remote: Address) -> None:
        super().__init__(text)
        self.bye = bye
        self.peer_id = peer_id
        self.remote = remote
        """Where the other side is: addresses it names are judged by that."""


@dataclass(frozen=True, slots=True)
class First:
    """What a link is dialled for: it is asked without waiting for the link."""

    public_key: bytes | None = None
    """Of the servent that is dialled. Who it is known of is asked with the first bytes."""
    asking: Callable[[], Sequence[Asked]] = tuple
    """Returns the requests to be made; called as late as may be."""


ASKS_NOTHING: Final = First()
"""For links that are dialled for later."""


class _Opening:
    """What we say before the peer has said HELLO: our own, and what we ask at once."""

    def __init__(self, connection: Connection, hello: Hello, first: First) -> None:
        self._connection = connection
        self._first = first
        self._said = [connection.prepare(hello)]
        self.requests = Requests()

    def start(self) -> bytes:
        """Return the first bytes; all that has room is among them, if the peer's key is known."""
        key = self._first.public_key
        if key is None:
            return self._connection.start()
        return self._connection.start_early(key, time.time_ns() // 1000, self._all())

    def rest(self) -> bytes:
        """Return the bytes of what the peer has not taken yet, after the handshake."""
        rest: list[Prepared] = self._all()[self._connection.said_early :]
        return b"".join(map(self._connection.seal, rest))

    def _all(self) -> list[Prepared]:
        for asked in self._first.asking():
            if asked.by is not self.requests:
                self.requests.open(asked)
                self._said.append(self._connection.prepare(asked.message, asked.request_id))
        return self._said


async def greet(
    channel: Channel,
    address: str,
    local: LocalServent,
    kind: LinkKind,
    expected_id: ServentId | None,
    claim: BeforeHello | None = None,
    first: First = ASKS_NOTHING,
) -> Link:
    """Make a link of a connection that we have dialled; the caller must `run` it.

    The requests of `first` are with the link already when it is run. A peer that is dialled with a
    `claim` is told nothing early.

    Takes at most HANDSHAKE_S. The text of each error is one line for people. No connection is
    left behind when it fails or is cancelled.

    Raises:
        UnreachableError: nobody answers any more.
        HandshakeError: what answers is no servent, of another network, another one than
            `expected_id`, or ourselves.
        RefusedError: the servent does not want this link.
    """
    async with _greeting(channel, address):
        connection = Connection(Role.INITIATOR, local.identity, local.network_key)
        opening = _Opening(connection, local.hello(kind, channel.remote), first)
        start = connection.start() if claim is not None else opening.start()
        greeted = await _first_event(channel, connection, start)
        assert isinstance(greeted, Greeted)
        peer_id = greeted.peer_id
        if peer_id == local.identity.id:
            raise HandshakeError("that is this servent itself")
        if expected_id is not None and peer_id != expected_id:
            raise HandshakeError("that is not the servent that it was said to be")
        if claim is not None:
            await claim(peer_id)
        if not connection.said_early:
            await channel.stream.send_all(opening.rest())
        answer = await _next_message(channel, connection)
        if isinstance(answer, Bye):
            text = f"{address} refused: {BYE_TEXTS[answer.code]}"
            raise RefusedError(text, answer, peer_id, channel.remote)
        hello = _checked_hello(answer)
        if connection.said_early:  # not before: a BYE would be lost if its sender has hung up
            await channel.stream.send_all(opening.rest())
        return Link(channel, connection, "out", peer_id, hello, opening.requests)


@dataclass(frozen=True, slots=True)
class Presented:
    """A connection on which somebody has presented a ticket, in place of a handshake."""

    channel: Channel
    ticket: bytes
    rest: bytes
    """What has come behind the ticket."""


async def answer_link(channel: Channel, local: LocalServent, judge: Judge) -> Link:
    """Greet a peer that has dialled us; the caller must `run` the link, which also closes it.

    Takes at most HANDSHAKE_S. Cancelling it leaves no connection behind.

    Raises:
        UnreachableError: it says nothing.
        HandshakeError: it is no servent, or of another network, or wants to pass through us.
        RefusedError: `judge` refused it, and it got the BYE.
    """
    answered = await answer_any(channel, local, judge)
    if isinstance(answered, Link):
        return answered
    await trio.aclose_forcefully(channel.stream)
    raise HandshakeError(f"{channel.remote}: it presents a ticket")


async def answer_any(
    channel: Channel,
    local: LocalServent,
    judge: Judge,
    began: Callable[[Connection], object] = lambda _connection: None,
    take_early: TakeEarly | None = None,
) -> Link | Presented:
    """Greet a peer that has dialled us, as `answer_link`, or take the ticket that it presents.

    `began` is given the connection, whose state tells how far the greeting is. What the peer says
    early is heard if `take_early` says so.

    A connection with a ticket is left open, for the caller to close.
    """
    async with _greeting(channel, str(channel.remote)):
        connection = Connection(Role.RESPONDER, local.identity, local.network_key, take_early)
        began(connection)
        first = await _first_event(channel, connection, connection.start())
        if isinstance(first, Ticket):
            return Presented(channel, first.ticket, first.rest)
        assert isinstance(first, Greeted)
        peer_id = first.peer_id
        hello = _checked_hello(await _next_message(channel, connection))
        refusal = judge(peer_id, hello, channel.remote)
        if refusal is not None:
            await channel.stream.send_all(connection.send(refusal))
            text = f"we refused {channel.remote}: {refusal.text}"
            raise RefusedError(text, refusal, peer_id, channel.remote)
        answer = connection.send(local.hello(hello.kind, channel.remote))
        await channel.stream.send_all(answer)
        return Link(channel, connection, "in", peer_id, hello)


@contextlib.asynccontextmanager
async def _greeting(channel: Channel, who: str) -> AsyncIterator[None]:
    """Bound a greeting in time, close the stream unless it succeeds, and say what went wrong."""
    try:
        with trio.fail_after(HANDSHAKE_S):
            yield
    except BaseException as error:
        await trio.aclose_forcefully(channel.stream)
        match error:
            case trio.TooSlowError():
                text = f"it did not finish the handshake within {HANDSHAKE_S:.0f} s"
            case trio.BrokenResourceError():
                text = "it hung up during the handshake"
            case HandshakeError():
                text = str(error)
            case RemoteProtocolError():
                text = f"it broke the protocol: {error}"
            case _:
                raise
        raise HandshakeError(f"{who}: {text}") from error


async def present(channel: Channel, local: LocalServent, ticket: bytes) -> None:
    """Present a ticket on a connection that we have dialled; what follows is not for its servent.

    Takes at most HANDSHAKE_S. No connection is left behind when it fails or is cancelled.

    Raises:
        HandshakeError: what answers is no servent of our network.
    """
    async with _greeting(channel, str(channel.remote)):
        await channel.stream.send_all(presentation(local.network_key, ticket))
        expected, got = preface_of(local.network_key), b""
        while len(got) < len(expected):
            part = await channel.stream.receive_some(len(expected) - len(got))
            if not part:
                raise HandshakeError("it hung up during the handshake")
            got += part
        if got != expected:
            raise HandshakeError("that is not a servent of this network")


async def _first_event(channel: Channel, connection: Connection, start: bytes) -> object:
    """Exchange prefaces, and return what comes of what follows them."""
    await channel.stream.send_all(start)
    with trio.move_on_after(PREFACE_S) as patience:
        connection.receive_data(await channel.stream.receive_some(RECEIVE_BYTES))
    if patience.cancelled_caught:
        raise UnreachableError(f"no answer from {channel.remote} within {PREFACE_S:.0f} s")
    return await _next_event(channel, connection)


async def _next_event(channel: Channel, connection: Connection) -> object:
    """Return the next event of a greeting, sending what the connection wants sent."""
    while True:
        try:
            event = connection.next_event()
        finally:  # also when it raises: the answer may say why
            out = connection.data_to_send()
            if out:
                await channel.stream.send_all(out)
        if event is not NEED_DATA:
            return event
        connection.receive_data(await channel.stream.receive_some(RECEIVE_BYTES))


async def _next_message(channel: Channel, connection: Connection) -> Message:
    event = await _next_event(channel, connection)
    if not isinstance(event, Received):
        raise HandshakeError("it hung up during the handshake")
    return event.message


def _checked_hello(message: Message) -> Hello:
    if not isinstance(message, Hello):
        raise RemoteProtocolError(f"{type(message).__name__} where HELLO belongs")
    return message
