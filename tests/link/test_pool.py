"""The pool of transfer links: one a peer, shared, closed when idle, dialled with restraint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import LinkClosedError, RejectedError, StalledError, UnreachableError
from p2pfs.link import First, Link, dial_servent
from p2pfs.link import pool as transfers_module
from p2pfs.link.pool import IDLE_S, MAX_LINKS, PAGE_SILENCE_S, TransferLinks
from p2pfs.link.replays import Replays
from p2pfs.link.unreached import REDIAL_AFTER_S
from p2pfs.overlay.bans import LIES_BAN_S, Bans
from p2pfs.protocol import CONTENTS, pack_contents
from p2pfs.protocol.manifest import FileId
from p2pfs.protocol.messages import (
    Address,
    Bye,
    ByeCode,
    Cancel,
    Entry,
    GetContents,
    GetManifest,
    LinkKind,
    List,
    Listing,
    Message,
    PeerInfo,
    Reject,
    RejectCode,
)
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.servents import HalfServent, answering, hang_up, rejecting, silent

FILE = FileId(bytes(32))
PAGE = Listing((Entry("a", 1, 0, bytes(32)),), has_more=False)
US = "10.0.0.1"


def page(link: Link, _message: Message, number: int) -> None:
    link.post(PAGE, number)


class Pool:
    """Our transfer links, on a network of half servents."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.net = MemoryNetwork(latency_s=0.01)
        self.bans = Bans()
        us = HalfServent(self.net, US)

        async def connect(peer: PeerInfo, addresses: Sequence[Address], first: First) -> Link:
            return await dial_servent(
                us.host, addresses, us, LinkKind.TRANSFER, peer.id, first=first
            )

        self.links = TransferLinks(
            connect, lambda peer: self.bans.is_banned(peer, trio.current_time())
        )
        self._nursery = nursery
        self._count = 1

    def absent(self) -> HalfServent:
        """A servent that is known of and not there."""
        self._count += 1
        return HalfServent(self.net, f"10.0.{self._count // 250}.{self._count % 250 + 1}")

    async def peer(self, answer: Callable[[Link, Message, int], None] = page) -> HalfServent:
        return await self.serving(answering(answer))

    async def serving(self, serve) -> HalfServent:
        peer = self.absent()
        await self._nursery.start(peer.listen, serve)
        return peer

    async def list(self, peer: HalfServent) -> Listing:
        (page,) = await self.pages(peer.info)
        return page

    async def pages(self, peer: PeerInfo) -> list[Listing]:
        got: list[Listing] = []
        await self.links.list_pages(peer, "", "", got.append)
        return got


@asynccontextmanager
async def open_pool() -> AsyncIterator[Pool]:
    async with trio.open_nursery() as nursery:
        pool = Pool(nursery)
        await nursery.start(pool.links.run)
        yield pool
        nursery.cancel_scope.cancel()


async def test_many_requests_share_one_dial_and_one_link(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer()

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(pool.list, peer)
        assert await pool.list(peer) == PAGE

        assert len(peer.links) == 1


async def test_one_who_waits_for_a_dial_may_be_cancelled_and_the_others_go_on(
    autojump_clock: MockClock,
):
    async with open_pool() as pool:
        peer = await pool.peer()
        got = []

        async def ask() -> None:
            got.append(await pool.list(peer))

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.001):
                async with trio.open_nursery() as hasty:
                    hasty.start_soon(pool.list, peer)
                    nursery.start_soon(ask)
                    await trio.sleep_forever()

        assert got == [PAGE]
        assert len(peer.links) == 1


@pytest.mark.parametrize("hears_early", [True, False])
@pytest.mark.parametrize("is_known", [True, False])
async def test_the_first_byte_on_a_new_link_takes_two_round_trips_to_whom_is_known(
    is_known: bool, hears_early: bool, autojump_clock: MockClock
):
    async with open_pool() as pool:
        peer = await pool.peer(sending(b"abc"))
        peer.replays = Replays() if hears_early else None
        if is_known:
            pool.links.learnt(peer.id, peer.identity.public_key)
        began_at = trio.current_time()

        assert await pool.links.fetch_small(peer.info, FILE) == b"abc"

        round_trips = (trio.current_time() - began_at) / (2 * pool.net.latency_s)
        assert round_trips == pytest.approx(2 if is_known and hears_early else 3)


async def test_all_that_waits_for_a_dial_is_asked_with_it_and_the_rest_behind_it(
    autojump_clock: MockClock,
):
    async with open_pool() as pool:
        peer = await pool.peer()
        pool.links.learnt(peer.id, peer.identity.public_key)
        ended: list[float] = []

        async def list_one(path: str) -> None:
            await pool.links.list_pages(peer.info, path, "", bool)
            ended.append(trio.current_time())

        began_at = trio.current_time()
        paths = ["a", "b" * 400, "c" * 400, "d"]
        async with trio.open_nursery() as nursery:
            for path in paths:
                nursery.start_soon(list_one, path)

        round_trips = [(at - began_at) / (2 * pool.net.latency_s) for at in ended]
        assert all(2 <= round(one, 3) <= 3 for one in round_trips)
        assert min(round_trips) == pytest.approx(2)
        assert len(peer.links) == 1


async def test_who_gives_up_during_a_dial_says_so_and_others_get_theirs(autojump_clock: MockClock):
    async with open_pool() as pool:
        said: list[tuple[type[Message], int]] = []

        def answer(link: Link, message: Message, number: int) -> None:
            said.append((type(message), number))
            if number == 2:
                page(link, message, number)

        peer = await pool.peer(answer)
        pool.links.learnt(peer.id, peer.identity.public_key)

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(1.2 * 2 * pool.net.latency_s):
                async with trio.open_nursery() as hasty:
                    hasty.start_soon(pool.links.fetch_manifest, peer.info, FILE)
                    await trio.sleep(0.001)
                    nursery.start_soon(pool.list, peer)
                    await trio.sleep_forever()
        await trio.sleep(1)

        assert said == [(GetManifest, 1), (List, 2), (Cancel, 1)]
        assert not pool.links.links[0].awaits_answers


async def test_a_refusal_answers_what_was_said_early_too(autojump_clock: MockClock):
    async with open_pool() as pool:
        asked: list[Message] = []
        peer = await pool.peer(lambda _link, message, _number: asked.append(message))
        peer.refusal = Bye(ByeCode.FULL, "too many transfer links")
        pool.links.learnt(peer.id, peer.identity.public_key)

        with pytest.raises(RejectedError):
            await pool.list(peer)

        assert asked == []


async def test_an_idle_link_is_closed_and_opened_again_when_needed(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer()
        await pool.list(peer)

        await trio.sleep(2 * IDLE_S + 1)
        assert peer.open_links == []

        assert await pool.list(peer) == PAGE
        assert len(peer.links) == 2


async def test_a_link_that_waits_for_an_answer_is_not_idle(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer(silent)

        with trio.move_on_after(3 * IDLE_S):
            await pool.links.fetch_manifest(peer.info, FILE)

        assert len(peer.open_links) == 1


async def test_a_peer_that_could_not_be_reached_is_not_dialled_again_for_a_moment(
    autojump_clock: MockClock,
):
    async with open_pool() as pool:
        peer = pool.absent()
        with pytest.raises(UnreachableError, match="refused"):
            await pool.list(peer)

        before = trio.current_time()
        with pytest.raises(UnreachableError, match="refused"):
            await pool.list(peer)
        assert trio.current_time() == before  # from memory

        await trio.sleep(REDIAL_AFTER_S)
        with pytest.raises(UnreachableError):
            await pool.list(peer)
        assert trio.current_time() > before + REDIAL_AFTER_S


async def test_a_peer_that_hangs_up_at_once_is_not_dialled_in_a_loop(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.serving(hang_up)

        deadline = trio.current_time() + 10
        while trio.current_time() < deadline:
            with pytest.raises((UnreachableError, LinkClosedError)):
                await pool.list(peer)
            await trio.sleep(0.01)

        assert len(peer.links) <= 10 / REDIAL_AFTER_S + 1


async def test_a_full_peer_is_busy_and_not_gone(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer()
        peer.refusal = Bye(ByeCode.FULL, "too many transfer links")

        with pytest.raises(RejectedError) as caught:
            await pool.list(peer)

        assert caught.value.code == RejectCode.BUSY


async def test_a_banned_peer_is_neither_dialled_nor_asked(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer()
        pool.bans.ban(peer.id, trio.current_time(), LIES_BAN_S)

        with pytest.raises(UnreachableError, match="banned"):
            await pool.links.fetch_blocks(peer.info, FILE, {0: 1}, list)
        assert peer.links == []

        await trio.sleep(LIES_BAN_S)
        assert await pool.list(peer) == PAGE


def sending(*parts: bytes, end: Message | None = None) -> Callable[[Link, Message, int], None]:
    """Answer with these parts of data, a frame each, and maybe with a message as the end."""

    def answer(link: Link, _message: Message, number: int) -> None:
        for position, part in enumerate(parts):
            is_last = end is None and position == len(parts) - 1
            link._out._outbox.put(link._connection.send_data(number, part, is_last=is_last))
        if end is not None:
            link.post(end, number)

    return answer


WANTED = {7: 3, 2: 5, 9: 1}


@pytest.mark.parametrize(
    ("parts", "blocks"),
    [
        ([b"abcdefghi"], [b"abc", b"defgh", b"i"]),
        ([b"a", b"b", b"cdefgh", b"i"], [b"abc", b"defgh", b"i"]),
        ([b"abcd", b"efghi"], [b"abc", b"defgh", b"i"]),
        ([b"abcde"], [b"abc", b"de"]),  # the end came too early
        ([b"abc"], [b"abc", b""]),
        ([b""], [b""]),
    ],
)
async def test_blocks_are_cut_where_they_end_whatever_the_frames(
    parts: list[bytes], blocks: list[bytes], autojump_clock: MockClock
):
    async with open_pool() as pool:
        peer = await pool.peer(sending(*parts))
        got: list[bytes] = []

        await pool.links.fetch_blocks(peer.info, FILE, WANTED, got.append)

        assert got == blocks


async def test_a_refusal_in_the_middle_leaves_the_blocks_that_came(autojump_clock: MockClock):
    async with open_pool() as pool:
        refusal = Reject(RejectCode.NOT_FOUND, "no such block")
        peer = await pool.peer(sending(b"abcd", end=refusal))
        got: list[bytes] = []

        with pytest.raises(RejectedError):
            await pool.links.fetch_blocks(peer.info, FILE, WANTED, got.append)

        assert got == [b"abc"]


async def test_more_than_was_asked_for_ends_the_link(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer(sending(b"abcdefghi+"))

        with pytest.raises(LinkClosedError):
            await pool.links.fetch_blocks(peer.info, FILE, WANTED, list)

        await trio.sleep(1)
        assert peer.open_links == []


async def test_a_peer_that_is_dropped_loses_its_link(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer(silent)

        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(LinkClosedError):
                    await pool.links.fetch_manifest(peer.info, FILE)

            nursery.start_soon(ask)
            await trio.sleep(1)
            pool.links.drop(peer.id, Bye(ByeCode.BANNED, "lies"))

        await trio.sleep(1)
        assert peer.open_links == []


async def test_an_answer_that_does_not_come_ends_the_wait(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer(silent)

        with pytest.raises(StalledError), trio.fail_after(PAGE_SILENCE_S + 1):
            await pool.list(peer)


async def test_a_listing_of_what_is_not_there_is_rejected(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer(rejecting(RejectCode.NOT_FOUND))

        with pytest.raises(RejectedError):
            await pool.list(peer)


async def test_more_links_than_there_may_be_close_the_one_unused_longest(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    assert MAX_LINKS == 200
    monkeypatch.setattr(transfers_module, "MAX_LINKS", 2)
    async with open_pool() as pool:
        peers = [await pool.peer() for _ in range(3)]

        for peer in peers:
            await pool.list(peer)
        await trio.sleep(2)

        assert [len(peer.open_links) for peer in peers] == [0, 1, 1]


async def test_each_of_some_dials_closes_a_link_of_its_own(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transfers_module, "MAX_LINKS", 2)
    async with open_pool() as pool:
        first = [await pool.peer() for _ in range(2)]
        later = [await pool.peer() for _ in range(4)]
        for peer in first:
            await pool.list(peer)

        refused = 0

        async def ask(peer: HalfServent) -> None:
            nonlocal refused
            try:
                await pool.list(peer)
            except UnreachableError:
                refused += 1

        async with trio.open_nursery() as nursery:
            for peer in later:
                nursery.start_soon(ask, peer)
                await trio.sleep(0.004)  # no link that was closed is gone by then
        await trio.sleep(2)

        assert refused == 2
        assert [len(peer.open_links) for peer in first] == [0, 0]
        assert sum(len(peer.open_links) for peer in later) == 2


async def test_with_all_links_in_use_one_more_peer_cannot_be_reached(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transfers_module, "MAX_LINKS", 1)
    async with open_pool() as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.links.fetch_manifest, (await pool.peer(silent)).info, FILE)
        await trio.sleep(1)

        with pytest.raises(UnreachableError, match="too many"):
            await pool.list(await pool.peer())
        nursery.cancel_scope.cancel()


async def test_a_peer_without_an_address_cannot_be_reached(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer()

        with pytest.raises(UnreachableError, match="no address"):
            await pool.pages(PeerInfo(peer.id, "nowhere", ()))


async def test_another_servent_at_the_address_is_not_taken_for_the_peer(
    autojump_clock: MockClock,
):
    async with open_pool() as pool:
        peer, other = await pool.peer(), pool.absent()

        with pytest.raises(UnreachableError, match="not the servent"):
            await pool.pages(PeerInfo(other.id, "other", (peer.address,)))


# Several small contents at once.


async def given(pool: Pool, peer: HalfServent, count: int = 2) -> list[bytes | None]:
    """Ask a peer for contents at once, over a link that is open."""
    await pool.links.fetch_small(peer.info, FILE)
    taken: list[bytes | None] = []
    await pool.links.fetch_contents(peer.info, [FILE] * count, taken.append)
    return taken


def contents_or_block(answer: bytes) -> Callable[[Link, Message, int], None]:
    """Answer GET_BLOCKS with a byte, and GET_CONTENTS with these."""

    def reply(link: Link, message: Message, number: int) -> None:
        sending(answer if isinstance(message, GetContents) else b"x")(link, message, number)

    return reply


async def test_contents_are_asked_for_at_once_of_a_linked_peer_that_knows_how(
    autojump_clock: MockClock,
):
    async with open_pool() as pool:
        peer = await pool.peer(contents_or_block(pack_contents([b"hello", None])))
        peer.knows = (CONTENTS,)
        assert not pool.links.gives_contents(peer.info)

        assert await given(pool, peer) == [b"hello", None]

        assert pool.links.gives_contents(peer.info)


async def test_an_older_peer_is_not_asked_for_contents_at_once(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer(contents_or_block(b""))

        with pytest.raises(UnreachableError):
            await given(pool, peer)

        assert not pool.links.gives_contents(peer.info)


async def test_more_contents_than_were_asked_for_end_the_link(autojump_clock: MockClock):
    async with open_pool() as pool:
        peer = await pool.peer(contents_or_block(pack_contents([b"a", b"b", b"c"])))
        peer.knows = (CONTENTS,)

        with pytest.raises(LinkClosedError):
            await given(pool, peer)
