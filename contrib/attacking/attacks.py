"""The attacks, each a process of its own: python -m attacking.attacks NAME SOURCE READER FILM.

SOURCE and READER are the ports of two honest servents on loopback, FILM the id of what one shares
and the other reads. An attack goes on until its process is ended.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import trio

from p2pfs.errors import P2pfsError
from p2pfs.link.sockets import Channel, TcpNetwork
from p2pfs.protocol import fields
from p2pfs.protocol import messages as m
from p2pfs.protocol.connection import Connection
from p2pfs.protocol.handshake import Role
from p2pfs.protocol.identity import Identity, NetworkKey
from p2pfs.protocol.signatures import sign_hit, sign_news
from tests.helpers.rogues import RawPeer

HOST: Final = "127.66.6.6"
THIRD_PARTY: Final = "127.99.9.9"
ENDED: Final = (P2pfsError, OSError, AssertionError, trio.BrokenResourceError)
SMALL_BUFFER_BYTES: Final = 2304
SLOW_BYTES_PER_S: Final = 10_000


class FromHost(TcpNetwork):
    """The Internet as one address sees it, or one with hardly any room for what comes."""

    def __init__(self, buffer_bytes: int = 0) -> None:
        self._buffer_bytes = buffer_bytes

    async def dial(self, address: fields.Address) -> Channel:
        sock = trio.socket.socket()
        if self._buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        await sock.bind((HOST, 0))
        await sock.connect((address.host, address.port))
        return Channel(trio.SocketStream(sock), address, fields.Address(*sock.getsockname()))


class Stranger:
    """One identity: neighbour of a servent, and dialled by others. It knows nothing."""

    def __init__(self, name: str = "stranger") -> None:
        self.identity = Identity.generate()
        self.name = name
        self.me = fields.PeerInfo(self.identity.id, name, ())

    def answers(self, message: fields.Message) -> Iterable[fields.Message]:
        """Return what it says to a message; nobody has anything."""
        if isinstance(message, m.Query):
            return [m.Done(message.guid, message.ttl, 1, 0, is_complete=True)]
        return []

    async def run(self, port: int) -> None:
        """Listen, be a neighbour of the servent at that port, and stay."""
        listener = await TcpNetwork().listen(HOST, 0)
        self.me = fields.PeerInfo(self.identity.id, self.name, (listener.address,))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._join, port)
            while True:
                nursery.start_soon(self._serve, await listener.accept())

    async def be_dead(self) -> None:
        """Listen, take whoever dials, and never say a word."""
        listener = await TcpNetwork().listen(HOST, 0)
        self.me = fields.PeerInfo(self.identity.id, self.name, (listener.address,))
        taken = []
        while True:
            taken.append(await listener.accept())

    async def dial(self, port: int, kind: m.LinkKind, network: TcpNetwork | None = None) -> RawPeer:
        """Dial a servent and greet it."""
        there = fields.Address("127.0.0.1", port)
        peer = await RawPeer.dial(
            network or FromHost(), there, kind, identity=self.identity, hello=False
        )
        at = self.me.addresses
        await peer.send(m.Hello(kind, self.name, at[0].port if at else 0, there, at, "stranger"))
        await peer.receive_a(m.Hello)
        return peer

    async def _join(self, port: int) -> None:
        with contextlib.suppress(*ENDED):
            await self.converse(await self.dial(port, m.LinkKind.NEIGHBOUR))

    async def _serve(self, channel: Channel) -> None:
        with contextlib.suppress(*ENDED):
            await self.converse(await RawPeer.answer(channel, identity=self.identity))

    async def converse(self, peer: RawPeer) -> None:
        while True:
            message, number = await peer.receive()
            if isinstance(message, m.Ping):
                await peer.send(m.Pong(), number)
            for answer in self.answers(message):
                is_asked = isinstance(answer, m.Listing | m.Peers)
                await peer.send(answer, number if is_asked else 0)

    def hit(self, query: m.Query, entries: Iterable[fields.Entry], total: int) -> m.QueryHit:
        return sign_hit(self.identity, query.guid, query.ttl, self.me, list(entries), total)


class Bomb(Stranger):
    """Its directories have no end."""

    def answers(self, message: fields.Message) -> Iterable[fields.Message]:
        if isinstance(message, m.List):
            label = message.after.rpartition("/")[2]
            begin = int(label[1:9]) + 1 if label[:1] == "n" else 0
            return [m.Listing(tuple(self._entries(message.path, begin, 450)), has_more=True)]
        if isinstance(message, m.Query) and message.kind is m.QueryKind.DIRECTORY:
            hit = self.hit(message, self._entries(message.text, 0, 50), 10**6)
            return [hit, m.Done(message.guid, message.ttl, 1, 1, is_complete=True)]
        return super().answers(message)

    def _entries(self, path: str, begin: int, count: int) -> Iterable[fields.Entry]:
        start = f"{path}/" if path else ""
        for number in range(begin, begin + count):
            name = f"{start}n{number:08d}{'p' * 60}"
            yield fields.Entry(name, 12345, 10**18, os.urandom(32))


class Faker(Stranger):
    """Answers each search with files of 25 others, fifty each."""

    def __init__(self) -> None:
        super().__init__("faker")
        self._others = [Stranger(f"user {number}") for number in range(25)]

    def answers(self, message: fields.Message) -> Iterable[fields.Message]:
        if not isinstance(message, m.Query) or message.kind is not m.QueryKind.WORDS:
            return super().answers(message)
        hits: list[fields.Message] = []
        for other in self._others:
            other.me = fields.PeerInfo(other.identity.id, other.name, self.me.addresses)
            names = (f"{message.text} {other.name} {number}.txt" for number in range(50))
            entries = [fields.Entry(name, 700_000_000, 10**18, os.urandom(32)) for name in names]
            hits.append(other.hit(message, entries, 50))
        return [*hits, m.Done(message.guid, message.ttl, 1, 25, is_complete=True)]


class Promiser(Stranger):
    """Says that 63 others have the film; they listen and say nothing."""

    def __init__(self, film: bytes) -> None:
        super().__init__("promiser")
        self._film = film
        self._dead = [Stranger(f"dead {number}") for number in range(63)]

    async def run(self, port: int) -> None:
        async with trio.open_nursery() as nursery:
            for one in self._dead:
                nursery.start_soon(one.be_dead)
            await super().run(port)

    def answers(self, message: fields.Message) -> Iterable[fields.Message]:
        if not isinstance(message, m.Query) or message.kind is m.QueryKind.WORDS:
            return super().answers(message)
        entry = fields.Entry("film.bin", FILM_BYTES, 10**18, self._film)
        hits: list[fields.Message] = [one.hit(message, [entry], 1) for one in self._dead]
        return [*hits, m.Done(message.guid, message.ttl, 64, 63, is_complete=True)]


class Reflector(Stranger):
    """Names a third party whenever somebody asks for addresses."""

    def answers(self, message: fields.Message) -> Iterable[fields.Message]:
        if isinstance(message, m.GetPeers):
            return [m.Peers(tuple(self._nobody() for _ in range(16)))]
        if isinstance(message, m.Walk):
            return [m.Introduce(message.guid, self._nobody())]
        return super().answers(message)

    def _nobody(self) -> fields.PeerInfo:
        return fields.PeerInfo(Identity.generate().id, "x", (fields.Address(THIRD_PARTY, 4774),))


FILM_BYTES: Final = 240 * 1024 * 1024
Attack = Callable[[int, int, bytes], Awaitable[None]]
ATTACKS: Final[dict[str, tuple[str, Attack]]] = {}


def attack(title: str) -> Callable[[Attack], Attack]:
    """Note an attack under the name of its function."""

    def note(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (title, function)
        return function

    return note


async def _together(*tasks: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(_quietly, task)


async def _quietly(task: Callable[[], Awaitable[None]]) -> None:
    """Do it again and again, each time after a moment."""
    while True:
        with contextlib.suppress(*ENDED):
            await task()
        await trio.sleep(0.2)


@attack("nobody")
async def nobody(_source: int, _reader: int, _film: bytes) -> None:
    await trio.sleep_forever()


@attack("1 listing without end")
async def bomb(_source: int, reader: int, _film: bytes) -> None:
    await Bomb("bomb").run(reader)


@attack("10 listings without end")
async def bombs(_source: int, reader: int, _film: bytes) -> None:
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(Bomb(f"bomb {number}").run, reader)


@attack("1,250 fakes for each search")
async def fakes(_source: int, reader: int, _film: bytes) -> None:
    await Faker().run(reader)


@attack("24 readers of 10 KB/s")
async def slow(source: int, _reader: int, film: bytes) -> None:
    async def dawdle() -> None:
        peer = await Stranger().dial(source, m.LinkKind.TRANSFER, FromHost(SMALL_BUFFER_BYTES))
        for number in range(1, 9):
            await peer.send(m.GetBlocks(film, tuple(range(16))), number)
        async for _ in peer.channel.stream:
            await trio.sleep(SMALL_BUFFER_BYTES / SLOW_BYTES_PER_S)

    await _together(*[dawdle] * 24)


@attack("200 idle transfer links of 50")
async def idle(source: int, _reader: int, _film: bytes) -> None:
    async def rest(one: Stranger) -> None:
        await (await one.dial(source, m.LinkKind.TRANSFER)).wait_hung_up()

    people = [Stranger() for _ in range(50)]
    await _together(*[lambda one=one: rest(one) for one in people for _ in range(4)])


@attack("40 neighbours of one host, at both")
async def sybils(source: int, reader: int, _film: bytes) -> None:
    async with trio.open_nursery() as nursery:
        for port in [source, reader] * 20:
            nursery.start_soon(Stranger().run, port)


@attack("63 dead sources of the film")
async def dead(_source: int, reader: int, film: bytes) -> None:
    await Promiser(film).run(reader)


@attack("CHANGED and NEWS in a loop, a new identity every 3 s")
async def changer(_source: int, reader: int, _film: bytes) -> None:
    async def cry() -> None:
        one = Stranger("crier")
        peer = await one.dial(reader, m.LinkKind.NEIGHBOUR)
        with trio.move_on_after(3):
            for version in itertools.count(1):
                await peer.send(m.Changed())
                news = sign_news(one.identity, 3, one.me, version, [""], is_all=True)
                await peer.send(news)
                await trio.sleep(0.1)
        await peer.aclose()

    await _together(cry)


@attack("a third party is named, by 4")
async def reflector(source: int, reader: int, _film: bytes) -> None:
    async with trio.open_nursery() as nursery:
        for port in [source, reader] * 2:
            nursery.start_soon(Reflector().run, port)


@attack("hits that nobody asked for, 8 links")
async def hits(_source: int, reader: int, _film: bytes) -> None:
    async def flood() -> None:
        one = Stranger()
        query = m.Query(fields.Guid(os.urandom(16)), 3, 1, m.QueryKind.WORDS, "x", 50, 1000)
        names = (f"{'d' * 200}/{number}{'x' * 200}" for number in range(50))
        hit = one.hit(query, [fields.Entry(name, 5, 1, bytes(range(32))) for name in names], 99)
        await (await one.dial(reader, m.LinkKind.NEIGHBOUR)).shout(hit)

    await _together(*[flood] * 8)


@attack("queries at the budget, 12 links")
async def queries(_source: int, reader: int, _film: bytes) -> None:
    async def ask() -> None:
        peer = await Stranger().dial(reader, m.LinkKind.NEIGHBOUR)
        while True:
            guid = fields.Guid(os.urandom(16))
            await peer.send(m.Query(guid, 3, 1, m.QueryKind.WORDS, "film", 50, 5000))
            await trio.sleep(1 / 19)

    await _together(*[ask] * 12)


@attack("24 neighbours that ask and read nothing, and one that answers them")
async def deaf(_source: int, reader: int, _film: bytes) -> None:
    async def ask() -> None:
        one = Stranger("deaf")
        peer = await one.dial(reader, m.LinkKind.NEIGHBOUR, FromHost(SMALL_BUFFER_BYTES))
        for number in itertools.count():
            guid = fields.Guid(os.urandom(16))
            await peer.send(m.Query(guid, 3, 1, m.QueryKind.WORDS, f"film {number}", 50, 5000))
            await trio.sleep(1 / 19)

    await _together(*[ask] * 24, functools.partial(Faker().run, reader))


@attack("links opened and dropped, a new identity each")
async def joins(_source: int, reader: int, _film: bytes) -> None:
    async def come_and_go() -> None:
        peer = await Stranger().dial(reader, m.LinkKind.NEIGHBOUR)
        await peer.aclose()

    await _together(*[come_and_go] * 6)


@attack("handshakes begun and left, 8 at a time")
async def greetings(source: int, reader: int, _film: bytes) -> None:
    async def begin(port: int) -> None:
        first = Connection(Role.INITIATOR, Identity.generate(), NetworkKey.open()).start()
        channel = await FromHost().dial(fields.Address("127.0.0.1", port))
        async with channel.stream:
            await channel.stream.send_all(first)
            with trio.move_on_after(1):
                await channel.stream.receive_some()

    async with trio.open_nursery() as nursery:
        for port in [source, reader] * 4:
            nursery.start_soon(_without_pause, begin, port)


async def _without_pause(task: Callable[[int], Awaitable[None]], port: int) -> None:
    while True:
        with contextlib.suppress(*ENDED):
            await task(port)
        await trio.sleep(0.002)


def main(name: str, source: str, reader: str, film: str) -> None:
    trio.run(ATTACKS[name][1], int(source), int(reader), bytes.fromhex(film))


if __name__ == "__main__":
    main(*sys.argv[1:])
