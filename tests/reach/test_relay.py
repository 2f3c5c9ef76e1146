"""Two who cannot reach each other pass through a neighbour of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import NoSourceError
from p2pfs.link import Channel, Presented
from p2pfs.protocol import MIB, Address, Guid, Relay
from p2pfs.protocol.connection import presentation
from p2pfs.reach.favours import PUSH_BURST
from p2pfs.reach.relays import (
    JOIN_S,
    MAX_CIRCUITS,
    MAX_CIRCUITS_OF_ONE,
    RELAY_BYTES_PER_S,
    RELAY_IDLE_S,
)
from tests.helpers.contents import Content
from tests.helpers.routed import between_routers
from tests.helpers.world import World, host, open_world

FILM = Content.of(300_000)

FIRST_BYTE_S = 5.0

SHOWN_ELSEWHERE_S = 3.0
"""Where the neighbour sees one of both at another port than that at which it listens."""

BOTH = (1, 2)


@asynccontextmanager
async def symmetric(**changes: object) -> AsyncIterator[World]:
    """Give 0 in the open, 1 with a film behind a symmetric router, 2 behind another router."""
    async with open_world(latency_s=0.05) as world:
        await world.start(**changes)
        for number in BOTH:
            world.net.host(host(number)).is_behind_router = True
            world.net.host(host(number)).is_symmetric = number == 1
            await world.start(joins=[0], max_neighbours=1)
        await world.linked(2, 1, 1)
        await world.share(1, "film.mkv", FILM.data)
        yield world


async def test_the_file_is_read_through_the_neighbour(autojump_clock: MockClock):
    async with symmetric() as world:
        began_at = trio.current_time()
        assert await world.read(2, "film.mkv") == FILM.data

        assert trio.current_time() - began_at <= FIRST_BYTE_S
        status = world[0].report.status()
        assert status["circuits"] == 1
        assert status["relayed_bytes"] > len(FILM.data)


@pytest.mark.parametrize("reader", BOTH)
async def test_who_may_meet_in_vain_asks_for_a_relay_meanwhile(
    autojump_clock: MockClock, reader: int
):
    async with symmetric() as world:
        await world.share(2, "answer.txt", b"thanks")
        began_at = trio.current_time()
        await world.read(reader, "answer.txt" if reader == 1 else "film.mkv")

        assert trio.current_time() - began_at <= SHOWN_ELSEWHERE_S


async def test_who_meets_asks_for_no_relay(autojump_clock: MockClock):
    async with between_routers() as world:
        await world.read(2, "film.mkv")

        assert not world[0].ways.relays.counters


async def test_who_is_seen_at_a_port_of_one_link_is_met_before_a_relay_is_asked(
    autojump_clock: MockClock,
):
    async with open_world(latency_s=0.05) as world:
        for number in range(4):
            world.net.host(host(number)).is_behind_router = number in BOTH
            await world.start()
        for number, through in ((1, 0), (1, 3), (2, 3)):  # 3 is not who sees where 1 listens
            await world[number].join(world.endpoint(through))
        await world.share(1, "film.mkv", FILM.data)

        assert await world.read(2, "film.mkv") == FILM.data
        assert world[3].ways.punches.counters["arranged"] == 1
        assert not world[3].ways.relays.counters


@pytest.mark.parametrize("who", BOTH)
async def test_a_packet_that_is_lost_at_the_relays_door_is_not_waited_for(
    autojump_clock: MockClock, who: int
):
    async with symmetric() as world:
        lossy, lost = world.net.host(host(who)), []
        dial = lossy.dial

        async def dial_and_lose(address: Address) -> Channel:
            if address.host == host(0) and not lost:
                lost.append(address)
                await trio.sleep(1)  # until it is sent again
            return await dial(address)

        lossy.dial = dial_and_lose
        began_at = trio.current_time()
        assert await world.read(2, "film.mkv") == FILM.data

        assert lost
        assert trio.current_time() - began_at <= SHOWN_ELSEWHERE_S + 0.5


async def test_both_ask_on_the_link(autojump_clock: MockClock):
    async with symmetric() as world:
        await world.share(2, "answer.txt", b"thanks")
        await world.read(2, "film.mkv")

        assert await world.read(1, "answer.txt") == b"thanks"
        assert world[0].ways.relays.counters == {"granted": 1}


async def test_a_circuit_keeps_to_its_rate(autojump_clock: MockClock):
    async with symmetric() as world:
        large = Content.of(8 * MIB)
        await world.share(1, "large.mkv", large.data)
        await world.read(2, "film.mkv")
        before, began_at = world[0].ways.relays.passed_bytes, trio.current_time()
        assert await world.read(2, "large.mkv") == large.data
        passed = world[0].ways.relays.passed_bytes - before
        rate = passed / (trio.current_time() - began_at)

        assert 0.9 * RELAY_BYTES_PER_S <= rate <= 1.05 * RELAY_BYTES_PER_S


async def test_all_circuits_keep_to_the_limit_of_uploads(autojump_clock: MockClock):
    limit = 256 * 1024
    async with symmetric(upload_limit_bytes_s=limit) as world:
        large = Content.of(2 * MIB)
        await world.share(1, "large.mkv", large.data)
        await world.read(2, "film.mkv")
        before, began_at = world[0].ways.relays.passed_bytes, trio.current_time()
        await world.read(2, "large.mkv")
        passed = world[0].ways.relays.passed_bytes - before

        assert passed / (trio.current_time() - began_at) <= 1.05 * limit


class Altering:
    """A stream in which one byte comes out wrong, once so many have passed."""

    def __init__(self, stream: trio.abc.HalfCloseableStream, after: int) -> None:
        self._stream = stream
        self._after = after

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._stream.receive_some(max_bytes))
        was_before = self._after > 0
        self._after -= len(data)
        if was_before and self._after <= 0 and data:
            return bytes([data[0] ^ 1]) + data[1:]
        return data


async def test_a_relay_that_alters_a_byte_is_noticed(autojump_clock: MockClock):
    async with symmetric() as world:
        relays, links = world[0].ways.relays, []

        def presented(presented: Presented) -> None:
            channel = presented.channel
            if not links and channel.remote.host == host(1):
                channel = replace(channel, stream=Altering(channel.stream, after=150_000))
                links.append(channel)
            relays.presented(replace(presented, channel=channel))

        world[0].ways.presented = presented
        ended: list[str] = []
        keep = world[2].ways._shared.keep

        async def kept(link) -> None:
            await keep(link)
            ended.append(link.ended)

        world[2].ways._shared.keep = kept
        assert await world.read(2, "film.mkv") == FILM.data

        assert ended == ["broke the protocol: a frame does not decrypt"]
        assert relays.counters == {"granted": 2}


async def test_a_relay_that_leads_to_somebody_else_is_noticed(autojump_clock: MockClock):
    async with symmetric() as world:
        await world.start(joins=[0], max_neighbours=1)
        await world.linked(3, 1, 1, 1)
        relays, liar = world[0].ways.relays, world[3].whereabouts.identity.id
        neighbours = relays._routes.neighbours
        relays._routes.neighbours = lambda: dict.fromkeys(neighbours(), neighbours()[liar])
        with pytest.raises(NoSourceError, match="not the servent that it was said to be"):
            await world.read(2, "film.mkv")

        assert world[3].ways.circuits.counters["entered"] == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"relay": False}, "it does not relay"), ({}, "it relays as much as it may")],
    ids=["switched off", "full"],
)
async def test_who_does_not_relay_says_why(
    autojump_clock: MockClock, changes: dict[str, object], why: str
):
    async with symmetric(**changes) as world:
        relays = world[0].ways.relays
        if not changes:
            relays._circuits.extend(object() for _ in range(MAX_CIRCUITS))
            monkey = relays._refusal
            relays._refusal = lambda link, other: (
                why if len(relays._circuits) else monkey(link, other)
            )
        began_at = trio.current_time()
        with pytest.raises(NoSourceError) as caught:
            await world.read(2, "film.mkv")

        assert trio.current_time() - began_at <= FIRST_BYTE_S
        text = str(caught.value)
        assert f"servent-0 was asked to relay: {why}" in text
        assert "it seems to be behind a router" in text
        assert "dial back" in text
        assert "dialled at once" in text


def relay(number: int, peer: str, ticket: bytes = b"", refusal: str = "") -> Relay:
    return Relay(Guid(bytes([number] * 16)), peer, ticket, refusal)


async def test_one_neighbour_has_few_circuits_and_they_end(autojump_clock: MockClock):
    async with symmetric() as world:
        relays, link = world[0].ways.relays, world[0].overlay.neighbours[0]
        other = world[0].overlay.neighbours[1]
        for number in range(MAX_CIRCUITS_OF_ONE + 1):
            relays.got_request(link, relay(number, other.peer.id))
        assert relays.circuits == MAX_CIRCUITS_OF_ONE
        assert relays.counters["refused: it relays as much as it may"] == 1

        for number in BOTH:
            world.stall(number)
        await trio.sleep(JOIN_S + 0.1)
        assert relays.circuits == 0


async def test_only_neighbours_are_relayed_for(autojump_clock: MockClock):
    async with symmetric() as world:
        link = world[0].overlay.neighbours[0]
        for number, peer in enumerate(("a" * 32, link.peer.id)):
            world[0].ways.circuits.got_relay(link, relay(number, peer))

        assert world[0].ways.relays.counters == {"refused: it is not linked to both": 2}


async def test_a_neighbour_that_asks_too_often_is_not_heard(autojump_clock: MockClock):
    async with symmetric() as world:
        link = world[1].overlay.neighbours[0]
        for number in range(PUSH_BURST + 5):
            world[1].ways.circuits.got_relay(link, relay(number, "a" * 32))

        assert world[1].ways.circuits.counters["dropped: over budget"] == 5


async def test_a_ticket_of_nobody_is_hung_up_on(autojump_clock: MockClock):
    async with symmetric() as world:
        channel = await world.net.host("10.0.9.9").dial(world[0].whereabouts.listen_address)
        key = world[0].whereabouts.network_key
        await channel.stream.send_all(presentation(key, bytes(16)) + b"what is not for it")
        got = b""
        with trio.fail_after(1):
            while part := await channel.stream.receive_some(1000):
                got += part

        assert got.startswith(b"p2pf")
        assert len(got) == 25


async def test_an_idle_circuit_is_ended(autojump_clock: MockClock):
    async with symmetric() as world:
        await world.read(2, "film.mkv")
        world.stall(1)
        world.stall(2)
        await trio.sleep(RELAY_IDLE_S + 1)

        assert world[0].ways.relays.circuits == 0
