"""Who takes slowly, or nothing, waits for nobody but himself, however many he pretends to be."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import RejectedError
from p2pfs.link import FIRST_DATA_BYTES, Link, RefusedError
from p2pfs.protocol import MAX_CONTENTS_ASKED
from p2pfs.protocol.handshake import Identity
from p2pfs.protocol.messages import Bye, GetBlocks, GetContents, LinkKind, List, Pong
from p2pfs.upload import Uploads
from p2pfs.upload import turns as turns_module
from p2pfs.upload.pages import PAGES_BURST, PAGES_PER_S
from p2pfs.upload.refusals import REFUSAL_BURST, REFUSALS_PER_S
from p2pfs.upload.turns import MAX_HELD_BYTES, Turn
from p2pfs.upload.uploads import MAX_QUEUE
from p2pfs.upload.visitors import MAX_LINKS_PER_PEER, MAX_VISITORS, RESTING_S, VISITOR_IDLE_S
from tests.helpers.contents import Content
from tests.helpers.dialling import dial_link
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.rogues import RawPeer
from tests.helpers.servents import HalfServent, silent
from tests.hostile.test_messages import forget_all
from tests.upload.test_uploads import BLOCK, SMALL, Shelf

FILM = Content.of(16 * BLOCK, seed=7)
NOTE = Content.of(BLOCK // 8, seed=8)
PAGE = Content.of(3 * BLOCK // 4, seed=9)
SLOW_BYTES_PER_S = 10_000
ATTACKER = "10.6.6.6"
LINE_BYTES_PER_S = 10_000_000
LIMIT_BYTES_PER_S = 2_000_000


class Shop:
    """A servent that serves one film, its honest customers and the others."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.net = MemoryNetwork(latency_s=0.01)
        self.net.set_upload_rate("10.0.0.1", LINE_BYTES_PER_S)
        self.shelf = Shelf()
        for content in (FILM, NOTE, PAGE):
            self.shelf.contents[content.file_id] = content
        self.uploads = Uploads(self.shelf)
        self.servent = HalfServent(self.net, "10.0.0.1")
        self.servent._judge = lambda peer, _hello, remote: self.uploads.judge(peer, remote)
        self._nursery = nursery

    async def enter(self, host: str, identity: Identity | None = None) -> Link:
        """Return a running transfer link of an honest peer."""
        customer = HalfServent(self.net, host)
        customer.identity = identity or customer.identity
        link = await dial_link(
            customer.host, self.servent.address, customer, LinkKind.TRANSFER, self.servent.id
        )
        self._nursery.start_soon(link.run, silent)
        return link

    async def sneak_in(self, host: str, identity: Identity | None = None) -> RawPeer:
        """Return a transfer link that does what an attacker likes."""
        dialler, at = self.net.host(host), self.servent.address
        return await RawPeer.dial(dialler, at, LinkKind.TRANSFER, identity=identity)

    async def ask_and_dawdle(self, host: str) -> None:
        """Ask for blocks without end, as one more identity, and take them at 10 KB/s."""
        peer = await self.sneak_in(host)
        for number in range(1, 65):
            await peer.send(GetBlocks(FILM.file_id, tuple(range(16))), number)
        self._nursery.start_soon(self._dawdle, peer)

    async def _dawdle(self, peer: RawPeer) -> None:
        while await peer.channel.stream.receive_some(SLOW_BYTES_PER_S):
            await trio.sleep(1)


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    async with trio.open_nursery() as nursery:
        shop = Shop(nursery)
        await nursery.start(shop.servent.listen, shop.uploads.serve)
        yield shop
        nursery.cancel_scope.cancel()


async def seconds_to_fetch(link: Link) -> float:
    """Return how long an honest reader needs for the whole film."""
    began_at = trio.current_time()
    with trio.fail_after(120):
        data = await link.ask.fetch(
            GetBlocks(FILM.file_id, tuple(range(16))), size_limit=16 * BLOCK
        )
    assert data == b"".join(FILM.block(index) for index in range(16))
    return trio.current_time() - began_at


@pytest.mark.parametrize("crowd", [8, 24])
async def test_slow_readers_hold_up_nobody(crowd: int, autojump_clock: MockClock):
    async with open_shop() as shop:
        before = await seconds_to_fetch(await shop.enter("10.0.1.1"))
        for _ in range(crowd):
            await shop.ask_and_dawdle(ATTACKER)
        await trio.sleep(5)

        during = [await seconds_to_fetch(await shop.enter(f"10.0.2.{n}")) for n in range(1, 9)]

        assert max(during) <= 2 * before


async def test_slow_readers_take_little_of_a_limit_before_they_are_noticed(
    autojump_clock: MockClock,
):
    async with open_shop() as shop:
        shop.uploads.limit.change(LIMIT_BYTES_PER_S)
        for _ in range(24):
            await shop.ask_and_dawdle(ATTACKER)
        await trio.sleep(2)

        took_s = await seconds_to_fetch(await shop.enter("10.0.1.1"))

        assert took_s <= 1.1 * 16 * BLOCK / LIMIT_BYTES_PER_S


async def test_an_honest_reader_at_the_same_address_is_served_too(autojump_clock: MockClock):
    async with open_shop() as shop:
        before = await seconds_to_fetch(await shop.enter("10.0.1.1"))
        for _ in range(24):
            await shop.ask_and_dawdle(ATTACKER)
        await trio.sleep(5)

        assert await seconds_to_fetch(await shop.enter(ATTACKER)) <= 2 * before


async def test_many_quick_readers_of_one_address_get_the_share_of_one(autojump_clock: MockClock):
    async with open_shop() as shop:
        before = await seconds_to_fetch(await shop.enter("10.0.1.1"))
        async with trio.open_nursery() as crowd:
            for _ in range(40):
                greedy = await shop.enter(ATTACKER)
                crowd.start_soon(fetch_without_end, greedy)
            await trio.sleep(5)

            during = await seconds_to_fetch(await shop.enter("10.0.2.1"))
            crowd.cancel_scope.cancel()

        assert during <= 2.5 * before  # half of the line, once what is on its way is gone


async def fetch_without_end(link: Link) -> None:
    while True:
        await link.ask.fetch(GetBlocks(FILM.file_id, tuple(range(16))), size_limit=16 * BLOCK)


async def test_what_parked_turns_hold_is_bounded_and_the_largest_group_pays(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(turns_module, "MAX_HELD_BYTES", 32 * BLOCK)
    async with open_shop() as shop:
        honest_slow = await shop.sneak_in("10.0.1.1")
        await honest_slow.send(GetBlocks(FILM.file_id, tuple(range(16))), 1)
        await trio.sleep(1)
        for _ in range(24):
            await shop.ask_and_dawdle(ATTACKER)
        await trio.sleep(2)

        turns = shop.uploads._turns
        assert sum(turn.held_bytes for turn in turns._parked) <= 32 * BLOCK

        await seconds_to_fetch(await shop.enter("10.0.2.1"))
        assert "10.0.1.1" in {link.remote.host for link in shop.servent.open_links}


async def test_what_is_read_of_small_contents_and_not_taken_is_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(turns_module, "MAX_HELD_BYTES", 32 * BLOCK)
    async with open_shop() as shop:
        for _ in range(40):
            peer = await shop.sneak_in(ATTACKER)
            for number in range(1, 65):
                await peer.send(GetBlocks(SMALL.file_id, (0, 1) * 8), number)
        await trio.sleep(1)

        assert len(shop.shelf.read) <= 32

        reader = await shop.enter("10.0.2.1")
        with trio.fail_after(2):
            await reader.ask.fetch(GetBlocks(SMALL.file_id, (0, 1)), size_limit=SMALL.size)


async def test_nothing_is_kept_read_for_a_link_that_takes_nothing(autojump_clock: MockClock):
    async with open_shop() as shop:
        peer = await shop.sneak_in(ATTACKER)
        for number in range(1, 65):
            await peer.send(GetBlocks(NOTE.file_id, (0,)), number)
        await trio.sleep(10)

        (of_peer,) = shop.uploads._visitors._peers.values()
        assert of_peer.clients[0].quick.waiting
        assert not of_peer.clients[0].quick.together._read


async def ask_and_take_nothing(shop: Shop, hosts: Sequence[str], wanted: GetBlocks) -> None:
    """Fill all places, each link having shown before that it takes much."""
    for number in range(MAX_VISITORS - 4):
        peer = await shop.sneak_in(hosts[number % len(hosts)])
        await peer.send(GetBlocks(FILM.file_id, (0, 1)), 1)
        taken = 0
        while taken < 2 * BLOCK:
            taken += len(await peer.channel.stream.receive_some(BLOCK))
        for request in range(2, 34):
            await peer.send(wanted, request)


@pytest.mark.parametrize(
    "wanted",
    [
        GetBlocks(FILM.file_id, tuple(range(16))),
        GetBlocks(SMALL.file_id, (0, 1)),
        GetBlocks(PAGE.file_id, (0,)),
        GetBlocks(NOTE.file_id, (0,)),
    ],
    ids=["film", "small", "page", "note"],
)
async def test_what_waits_to_be_sent_is_charged_whoever_takes_nothing(
    wanted: GetBlocks, autojump_clock: MockClock
):
    async with open_shop() as shop:
        before = await seconds_to_fetch(await shop.enter("10.0.1.1"))
        hosts = [ATTACKER, "10.7.7.7", "10.8.8.8"]
        await ask_and_take_nothing(shop, hosts, wanted)
        await trio.sleep(2)

        links = shop.servent.open_links
        held = sum(turn.held_bytes for turns in shop.uploads._turns._holding for turn in turns)
        in_turns = {turn.link for turns in shop.uploads._turns._holding for turn in turns}
        besides = sum(link._out._outbox._size for link in links if link not in in_turns)
        assert held <= MAX_HELD_BYTES
        assert besides <= MAX_VISITORS * 2 * FIRST_DATA_BYTES
        during = [await seconds_to_fetch(await shop.enter(f"10.0.2.{n}")) for n in range(1, 4)]
        assert max(during) <= 2 * before


async def test_who_waits_for_room_is_looked_at_by_address(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(turns_module, "MAX_HELD_BYTES", 8 * BLOCK)
    async with open_shop() as shop:
        for _ in range(MAX_VISITORS - 4):
            peer = await shop.sneak_in(ATTACKER)
            await peer.send(GetBlocks(FILM.file_id, tuple(range(16))), 1)
        turns, looked = shop.uploads._turns, 0
        who_gives_way = turns._who_gives_way

        def count(turn: Turn) -> Turn | None:
            nonlocal looked
            looked += 1
            return who_gives_way(turn)

        turns._who_gives_way = count  # type: ignore[method-assign]
        turns._begin_those_who_may()

        assert len(turns._waiting) > 100
        assert looked <= 1


async def test_refusals_are_counted_by_address(autojump_clock: MockClock):
    async with open_shop() as shop:
        refused = 0
        refuse = shop.uploads._refuse

        def count(*refusal: object) -> None:
            nonlocal refused
            refused += 1
            refuse(*refusal)

        shop.uploads._refuse = count

        await be_asked_by_eight(shop, ask_for_nothing)

        assert refused <= REFUSAL_BURST + 3 * REFUSALS_PER_S + 8 * MAX_QUEUE


async def test_contents_that_are_not_here_are_refusals_too(autojump_clock: MockClock):
    async with open_shop() as shop:
        answered = 0
        send = shop.uploads._send_contents

        async def count(*question: object) -> None:
            nonlocal answered
            answered += MAX_CONTENTS_ASKED
            await send(*question)

        shop.uploads._send_contents = count

        await be_asked_by_eight(shop, ask_for_much_of_nothing)

        most = REFUSAL_BURST + 3 * REFUSALS_PER_S + 8 * MAX_QUEUE * MAX_CONTENTS_ASKED
        assert answered <= most


async def be_asked_by_eight(shop: Shop, ask: Callable[[RawPeer], Awaitable[None]]) -> None:
    """Have eight identities of one address ask at once, for three seconds."""
    async with trio.open_nursery() as crowd:
        for _ in range(8):
            rogue = await shop.sneak_in(ATTACKER)
            crowd.start_soon(forget_all, rogue)
            crowd.start_soon(ask, rogue)
        await trio.sleep(3)
        crowd.cancel_scope.cancel()


async def ask_for_much_of_nothing(rogue: RawPeer) -> None:
    """Ask without end for many contents at once that are not here."""
    for number in itertools.count(1):
        ids = [(number * MAX_CONTENTS_ASKED + i).to_bytes(32) for i in range(MAX_CONTENTS_ASKED)]
        await rogue.send(GetContents(tuple(ids)), number)


async def ask_for_nothing(rogue: RawPeer) -> None:
    """Ask without end for what is not there."""
    for number in itertools.count(1):
        await rogue.send(GetBlocks(number.to_bytes(32), (0,)), number)


async def idle_crowd(shop: Shop) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_VISITORS // MAX_LINKS_PER_PEER):
            identity = Identity.generate()
            for _ in range(MAX_LINKS_PER_PEER):
                nursery.start_soon(shop.sneak_in, ATTACKER, identity)


async def test_idle_links_lock_nobody_out(autojump_clock: MockClock):
    async with open_shop() as shop:
        await idle_crowd(shop)
        assert len(shop.servent.open_links) == MAX_VISITORS

        links = [await shop.enter(f"10.0.2.{number}") for number in range(1, 21)]

        await trio.sleep(1)
        assert len(shop.servent.open_links) == MAX_VISITORS
        assert [link.ended for link in links] == [None] * 20


async def test_an_idle_link_gives_way_to_one_of_its_own_network(autojump_clock: MockClock):
    async with open_shop() as shop:
        await idle_crowd(shop)
        with pytest.raises(RefusedError):
            await shop.enter(ATTACKER)
        await trio.sleep(RESTING_S)

        await shop.enter(ATTACKER)


async def test_the_serving_side_closes_what_is_not_used(autojump_clock: MockClock):
    async with open_shop() as shop:
        rogue, honest = await shop.sneak_in(ATTACKER), await shop.enter("10.0.1.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pong_for_ever, rogue)
            for _ in range(4):
                await trio.sleep(VISITOR_IDLE_S / 2)
                with pytest.raises(RejectedError):
                    await honest.ask.fetch(GetBlocks(Content.of(5).file_id, (0,)), size_limit=BLOCK)
            nursery.cancel_scope.cancel()

        assert [link.remote.host for link in shop.servent.open_links] == ["10.0.1.1"]


async def pong_for_ever(peer: RawPeer) -> None:
    """Look alive and ask for nothing."""
    with suppress(trio.BrokenResourceError):
        while True:
            message, number = await peer.receive()
            if isinstance(message, Bye):
                return
            await peer.send(Pong(), number)


async def test_pages_of_listings_are_counted_by_address(autojump_clock: MockClock):
    async with open_shop() as shop:
        got = 0

        async def list_without_end() -> None:
            nonlocal got
            link = await shop.enter(ATTACKER)
            while True:
                await link.ask.request(List("", ""), timeout_s=1000)
                got += 1

        async with trio.open_nursery() as crowd:
            for _ in range(8):
                crowd.start_soon(list_without_end)
            await trio.sleep(60)
            began_at = trio.current_time()
            await (await shop.enter("10.0.1.1")).ask.request(List("", ""), timeout_s=10)
            assert trio.current_time() - began_at < 0.2
            crowd.cancel_scope.cancel()

        assert got <= PAGES_BURST + 61 * PAGES_PER_S
