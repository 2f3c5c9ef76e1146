"""The front door: how many may stand in it, and who has to go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
from trio.testing import MockClock

from p2pfs.link import MAX_GREETINGS, First, Link, OnMessage, accept_links, greet
from p2pfs.link.requests import Asked
from p2pfs.protocol.connection import PREFACE_BYTES
from p2pfs.protocol.handshake import EARLY_ANSWER_BYTES
from p2pfs.protocol.manifest import FileId
from p2pfs.protocol.messages import GetBlocks, LinkKind, Message
from tests.helpers.dialling import dial_link
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.servents import PORT, HalfServent, silent


class Door:
    """A servent that accepts links, and hosts that knock."""

    def __init__(self) -> None:
        self.net = MemoryNetwork(latency_s=0.01)
        self.servent = HalfServent(self.net, "10.0.0.1")
        self.taken: list[Link] = []
        self.mute: list[trio.abc.Stream] = []
        self.answer: OnMessage = silent

    async def take(self, link: Link) -> None:
        self.taken.append(link)
        await link.run(self.answer)

    async def knock(self, host: str) -> None:
        """Connect and say nothing."""
        channel = await self.net.host(host).dial(self.servent.address)
        self.mute.append(channel.stream)

    async def enter(self, host: str) -> Link:
        dialler = HalfServent(self.net, host)
        return await dial_link(
            dialler.host, self.servent.address, dialler, LinkKind.NEIGHBOUR, self.servent.id
        )

    async def refused(self) -> int:
        """How many of the mute have been hung up on by now."""
        count = 0
        for stream in self.mute:
            with trio.move_on_after(0.01):
                while await stream.receive_some():
                    pass  # the preface
                count += 1
        return count


@asynccontextmanager
async def open_door() -> AsyncIterator[Door]:
    door = Door()
    listener = await door.servent.host.listen(None, PORT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_links, listener, door.servent, door.servent._judge, door.take)
        yield door
        nursery.cancel_scope.cancel()


async def test_as_many_as_may_stand_in_the_door_are_let_stand(autojump_clock: MockClock):
    assert MAX_GREETINGS == 64
    async with open_door() as door:
        for _ in range(MAX_GREETINGS):
            await door.knock("10.0.0.2")
        await trio.sleep(0.1)

        assert await door.refused() == 0


async def test_one_more_than_may_stand_in_the_door_pushes_out_the_oldest(
    autojump_clock: MockClock,
):
    async with open_door() as door:
        for _ in range(MAX_GREETINGS + 3):
            await door.knock("10.0.0.2")
        await trio.sleep(0.1)

        assert await door.refused() == 3


async def test_who_says_nothing_shuts_nobody_else_out(autojump_clock: MockClock):
    async with open_door() as door:
        await door.knock("10.0.0.3")  # slow, but one of few of its host
        async with trio.open_nursery() as nursery:

            async def knock_for_ever() -> None:
                while True:
                    await door.knock("10.0.0.2")

            nursery.start_soon(knock_for_ever)
            await trio.sleep(2)
            link = await door.enter("10.0.0.4")
            nursery.cancel_scope.cancel()

        assert link.peer.id == door.servent.id
        assert [taken.remote.host for taken in door.taken] == ["10.0.0.4"]


async def test_a_link_that_was_taken_stands_in_the_door_no_more(autojump_clock: MockClock):
    async with open_door() as door:
        for number in range(MAX_GREETINGS + 1):
            await door.enter(f"10.0.1.{number}")
        await trio.sleep(0.1)

        assert all(link.ended is None for link in door.taken)
        assert len(door.taken) == MAX_GREETINGS + 1


async def test_when_it_ends_the_listener_is_closed(autojump_clock: MockClock):
    async with open_door() as door:
        pass

    listener = await door.servent.host.listen(None, PORT)  # the port is free again
    await listener.aclose()
    assert door.taken == []


class Tapped:
    """A stream of which somebody keeps what is sent."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self._stream = stream
        self.sent: list[bytes] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    async def send_all(self, data: bytes) -> None:
        self.sent.append(bytes(data))
        await self._stream.send_all(data)


async def test_what_was_said_early_and_is_repeated_asks_for_nothing(autojump_clock: MockClock):
    async with open_door() as door:
        asked: list[Message] = []
        door.answer = lambda _link, message, _number: asked.append(message)
        ours = HalfServent(door.net, "10.0.0.2")
        channel = await ours.host.dial(door.servent.address)
        tapped = Tapped(channel.stream)
        wanted = Asked(GetBlocks(FileId(bytes(32)), (0,)), 1)
        first = First(door.servent.identity.public_key, lambda: [wanted])
        async with trio.open_nursery() as nursery:
            link = await greet(
                replace(channel, stream=tapped), "", ours, LinkKind.TRANSFER, None, first=first
            )
            nursery.start_soon(link.run, silent)
            await trio.sleep(1)
            assert asked == [wanted.message]

            for _ in range(3):
                stranger = await door.net.host("10.0.0.3").dial(door.servent.address)
                await stranger.stream.send_all(tapped.sent[0])
                answer = b""
                while len(answer) < PREFACE_BYTES + 2:
                    answer += await stranger.stream.receive_some()
                length = int.from_bytes(answer[PREFACE_BYTES:][:2], "big")
                assert length > EARLY_ANSWER_BYTES  # message 2 of XX, which proves nothing of it
            await trio.sleep(1)
            nursery.cancel_scope.cancel()

        assert asked == [wanted.message]
