"""Every message has a budget: who sends without end waits himself, and nobody else."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import LinkClosedError
from p2pfs.link import Link, accept_links, allowance
from p2pfs.link.allowance import (
    MESSAGE_BURST,
    MESSAGES_PER_S,
    REQUEST_BURST,
    REQUESTS_PER_S,
    SMALL_DATA_BURST,
    SMALL_DATA_PER_S,
)
from p2pfs.link.live import LAST_WORDS_S
from p2pfs.protocol import fields
from p2pfs.protocol import messages as m
from p2pfs.protocol.codec import Unknown
from p2pfs.protocol.registry import MESSAGE_TYPES, RATES
from tests.helpers.contents import Content
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.rogues import RawPeer
from tests.helpers.servents import PORT, HalfServent, answering
from tests.protocol.test_document import rows, section, wire_name

BLOCK = m.GetBlocks(Content.of(5).file_id, (0,))
SIXTEEN = m.GetContents(tuple(bytes([number] * 32) for number in range(16)))
FLOOD_S = 3.0

NEIGHBOUR = [
    m.Ping(),
    m.GetPeers(),
    m.Peers(()),
    m.Walk(fields.Guid(bytes(16)), 3),
    m.Query(fields.Guid(bytes(16)), 3, 1, m.QueryKind.WORDS, "x", 5, 1000),
    m.Done(fields.Guid(bytes(16)), 3, 1, 1, is_complete=True),
    m.Changed(),
]
TRANSFER = [m.Ping(), BLOCK, m.GetManifest(bytes(32)), m.List("", ""), m.Cancel()]


@asynccontextmanager
async def flooded(kind: m.LinkKind) -> AsyncIterator[tuple[RawPeer, list[fields.Message]]]:
    """Give a peer linked to a servent, and what that has taken in of it."""
    net = MemoryNetwork(latency_s=0.01)
    victim = HalfServent(net, "10.0.0.1")
    taken: list[fields.Message] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(
            victim.listen, answering(lambda _link, message, _number: taken.append(message))
        )
        yield await RawPeer.dial(net.host("10.6.6.6"), victim.address, kind), taken
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("kind", "message"),
    [(m.LinkKind.NEIGHBOUR, one) for one in NEIGHBOUR]
    + [(m.LinkKind.TRANSFER, one) for one in TRANSFER],
    ids=lambda one: type(one).__name__ if not isinstance(one, m.LinkKind) else one.name,
)
async def test_a_flood_of_one_message_is_read_at_its_rate(
    kind: m.LinkKind, message: fields.Message, autojump_clock: MockClock
):
    async with flooded(kind) as (rogue, taken), trio.open_nursery() as nursery:
        asks = kind is m.LinkKind.TRANSFER or isinstance(message, m.Ping)
        nursery.start_soon(forget_all, rogue)
        read = count_sent(rogue)
        with trio.move_on_after(FLOOD_S):
            number = 0
            while True:
                number += 1
                await rogue.send(message, number if asks else 0)
        nursery.cancel_scope.cancel()

        rate = RATES[type(message)]
        on_the_way = 3 * 65_536 / len(rogue.connection.send(message, 1))  # in buffers
        assert read() <= rate.burst + rate.per_s * FLOOD_S + on_the_way
        assert len(taken) <= rate.burst + rate.per_s * (FLOOD_S + 1) + 1


def count_sent(rogue: RawPeer) -> Callable[[], int]:
    """Count the messages that leave a peer from now on."""
    sent = 0
    send = rogue.send

    async def counted(message: fields.Message, request_id: int = 0) -> None:
        nonlocal sent
        await send(message, request_id)
        sent += 1

    rogue.send = counted
    return lambda: sent


async def forget_all(rogue: RawPeer) -> None:
    with contextlib.suppress(trio.BrokenResourceError, AssertionError):
        while True:
            await rogue.channel.stream.receive_some(65_536)


async def test_who_leaves_much_to_be_read_and_hangs_up_does_not_keep_its_place(
    autojump_clock: MockClock,
):
    net = MemoryNetwork(latency_s=0.01)
    victim = HalfServent(net, "10.0.0.1")

    async with trio.open_nursery() as nursery:
        await nursery.start(victim.listen, answering(lambda *_: None))
        rogue = await RawPeer.dial(net.host("10.6.6.6"), victim.address, m.LinkKind.NEIGHBOUR)
        (link,) = victim.links
        for _ in range(200):  # at one a second
            await rogue.send(m.GetPeers())
        await trio.aclose_forcefully(rogue.channel.stream)
        with trio.move_on_after(1 + LAST_WORDS_S + 1):
            while link.ended is None:
                link.post(m.Changed())
                await trio.sleep(0.1)
        nursery.cancel_scope.cancel()

    assert link.ended == "connection lost"


@asynccontextmanager
async def crowded(
    kind: m.LinkKind, count: int
) -> AsyncIterator[tuple[list[RawPeer], list[fields.Message]]]:
    """Give peers at one address that are linked to a servent, and what that has taken in."""
    net = MemoryNetwork(latency_s=0.01)
    victim = HalfServent(net, "10.0.0.1")
    taken: list[fields.Message] = []

    async def take(link: Link) -> None:
        await link.run(lambda _link, message, _number: taken.append(message))

    async with trio.open_nursery() as nursery:
        listener = await victim.host.listen(None, PORT)
        nursery.start_soon(accept_links, listener, victim, victim._judge, take)
        crowd = net.host("10.6.6.6")
        yield [await RawPeer.dial(crowd, victim.address, kind) for _ in range(count)], taken
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("kind", "messages", "burst", "per_s"),
    [
        (m.LinkKind.NEIGHBOUR, (NEIGHBOUR[4], NEIGHBOUR[5]), MESSAGE_BURST, MESSAGES_PER_S),
        (m.LinkKind.TRANSFER, (m.Cancel(),), MESSAGE_BURST, MESSAGES_PER_S),
        (m.LinkKind.TRANSFER, (BLOCK,), REQUEST_BURST, REQUESTS_PER_S),
        (m.LinkKind.TRANSFER, (SIXTEEN,), REQUEST_BURST / 16, REQUESTS_PER_S / 16),
    ],
    ids=["queries and echoes", "cancels", "requests", "requests for sixteen contents"],
)
async def test_many_links_of_one_address_are_read_no_quicker_together(
    kind: m.LinkKind,
    messages: tuple[fields.Message, ...],
    burst: float,
    per_s: float,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(allowance, "MESSAGE_BURST", MESSAGE_BURST // 20)
    monkeypatch.setattr(allowance, "MESSAGES_PER_S", MESSAGES_PER_S / 20)
    monkeypatch.setattr(allowance, "REQUEST_BURST", REQUEST_BURST // 20)
    monkeypatch.setattr(allowance, "REQUESTS_PER_S", REQUESTS_PER_S / 20)

    async def flood(rogue: RawPeer) -> None:
        for number, message in enumerate(itertools.cycle(messages), 1):
            await rogue.send(message, number if kind is m.LinkKind.TRANSFER else 0)

    async with crowded(kind, 10) as (rogues, taken):
        with trio.move_on_after(FLOOD_S):
            async with trio.open_nursery() as nursery:
                for rogue in rogues:
                    nursery.start_soon(forget_all, rogue)
                    nursery.start_soon(flood, rogue)

    assert burst / 20 <= len(taken) <= (burst + per_s * FLOOD_S) / 20 + len(rogues)


async def test_an_answer_in_tiny_parts_is_read_at_a_rate(autojump_clock: MockClock):
    net = MemoryNetwork(latency_s=0.01)
    victim = HalfServent(net, "10.0.0.1")
    parts: list[memoryview] = []

    async def serve(link: Link) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, link)
            await link.run(lambda *_: None)

    async def ask(link: Link) -> None:
        await link.ask.stream(BLOCK, size_limit=1 << 20, take=parts.append)

    async with trio.open_nursery() as nursery:
        await nursery.start(victim.listen, serve)
        rogue = await RawPeer.dial(net.host("10.6.6.6"), victim.address, m.LinkKind.TRANSFER)
        _, number = await rogue.receive_a(m.GetBlocks)
        with trio.move_on_after(FLOOD_S):
            while True:
                await rogue.channel.stream.send_all(
                    rogue.connection.send_data(number, b"x", is_last=False)
                )
        nursery.cancel_scope.cancel()

    assert len(parts) <= SMALL_DATA_BURST + FLOOD_S * SMALL_DATA_PER_S + 1


async def asked_of_rogue(
    answer: Callable[[RawPeer, int], object], *, cancel_first: bool = False
) -> str | None:
    """Ask a rogue for 10 bytes, let it answer as it likes, and return how the link ended."""
    net = MemoryNetwork(latency_s=0.01)
    victim = HalfServent(net, "10.0.0.1")
    links = []

    async def serve(link) -> None:
        links.append(link)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, link)
            await link.run(lambda *_: None)
            nursery.cancel_scope.cancel()

    async def ask(link) -> None:
        with contextlib.suppress(LinkClosedError), trio.move_on_after(1 if cancel_first else 60):
            await link.ask.fetch(BLOCK, size_limit=10)

    async with trio.open_nursery() as nursery:
        await nursery.start(victim.listen, serve)
        rogue = await RawPeer.dial(net.host("10.6.6.6"), victim.address, m.LinkKind.TRANSFER)
        _, number = await rogue.receive_a(m.GetBlocks)
        if cancel_first:
            await rogue.receive_a(m.Cancel)
        with contextlib.suppress(trio.BrokenResourceError):
            await answer(rogue, number)
        await trio.sleep(1)
        ended = links[0].ended
        nursery.cancel_scope.cancel()
    return ended


async def test_data_after_the_whole_answer_ends_the_link(autojump_clock: MockClock):
    async def answer(rogue: RawPeer, number: int) -> None:
        await rogue.send_data(number, b"x", is_last=True)
        await rogue.send_data(number, b"y" * 1000, is_last=False)

    ended = await asked_of_rogue(answer)

    assert ended == "broke the protocol: DATA answers what was answered already"


async def test_data_that_nobody_asked_for_ends_the_link(autojump_clock: MockClock):
    async def answer(rogue: RawPeer, number: int) -> None:
        await rogue.send_data(number + 1000, b"x", is_last=False)

    assert await asked_of_rogue(answer) == "broke the protocol: answers what was never asked"


@pytest.mark.parametrize(("size", "is_over"), [(10, False), (11, True)])
async def test_no_more_comes_late_than_was_asked_for(
    size: int, is_over: bool, autojump_clock: MockClock
):
    async def answer(rogue: RawPeer, number: int) -> None:
        for _ in range(size):
            await rogue.send_data(number, b"x", is_last=False)

    ended = await asked_of_rogue(answer, cancel_first=True)

    assert (ended is not None) == is_over


def test_every_message_has_a_rate():
    assert set(RATES) == {*MESSAGE_TYPES.values(), Unknown}


def test_the_rates_are_those_of_the_document():
    table = [row for row in rows(section("Budgets")) if len(row) == 3]
    assert table == [
        [wire_name(kind), f"{rate.per_s:,}", f"{rate.burst:,}"] for kind, rate in RATES.items()
    ]
