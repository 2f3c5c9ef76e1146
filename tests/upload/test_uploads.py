"""What others fetch from us: slots, queues, refusals, listings by the page."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import msgspec
import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import (
    CacheFullError,
    LinkClosedError,
    NotFoundError,
    NotYetError,
    RejectedError,
    StaleError,
)
from p2pfs.library import Page
from p2pfs.link import Link, RefusedError
from p2pfs.protocol import MAX_CONTENT_BYTES, ContentsCutter
from p2pfs.protocol.handshake import Identity
from p2pfs.protocol.manifest import FileId, Manifest
from p2pfs.protocol.messages import (
    MAX_LISTING,
    ByeCode,
    Entry,
    GetBlocks,
    GetContents,
    GetManifest,
    LinkKind,
    List,
    Listing,
    Match,
    RejectCode,
)
from p2pfs.upload import visitors
from p2pfs.upload import visitors as visitors_module
from p2pfs.upload.pages import MATCH_BURST, MATCHES_PER_S, MAX_PAGE_BYTES
from p2pfs.upload.together import TOGETHER, TOGETHER_BYTES
from p2pfs.upload.under_way import LINGER_S, MAX_LINGERING
from p2pfs.upload.uploads import (
    GRACE_S,
    MAX_QUEUE,
    MIN_RATE_BYTES_PER_S,
    NOT_YET_MS,
    UNQUEUED_BYTES,
    UPLOAD_SLOTS,
    Uploads,
)
from p2pfs.upload.visitors import (
    MAX_LINKS_PER_PEER,
    MAX_VISITORS,
    QUICK_TURN_BYTES,
    TURN_BYTES,
)
from tests.helpers.contents import Content
from tests.helpers.dialling import dial_link
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.servents import HalfServent, silent

BLOCK = 256 * 1024
LARGE = Content.of(3 * BLOCK, seed=1)
HUGE = Content.of(9 * BLOCK, seed=3)
SMALL = Content.of(UNQUEUED_BYTES, seed=2)

HOP_S = 0.001
"""What reading small contents takes."""


class Shelf:
    """Contents to serve, each block given out when the test says so."""

    def __init__(self) -> None:
        self.contents = {content.file_id: content for content in (LARGE, SMALL)}
        self.is_paused = False
        self.entries: list[Entry] = []
        self.error: Exception | None = None
        self.lacks: set[int] = set()
        """Blocks that are not there, of any content."""
        self.goes = trio.Event()
        self.goes.set()
        self.reading: list[FileId] = []
        """Blocks that are being read now."""
        self.most = 0
        self.read: list[int] = []
        """The indexes of all blocks that were read."""
        self.turns: list[int] = []
        """How many blocks were read at once."""
        self.together: list[int] = []
        """How many small contents were read in one hop."""

    def size_of(self, file_id: FileId) -> int | None:
        content = self.contents.get(file_id)
        return content and content.size

    def limited_labels(self, path: str) -> tuple[str, ...]:
        return ()

    def list_page(self, path: str, after: str, limit: int) -> Page | None:
        if path != "":
            return None
        start = sum(entry.path <= after for entry in self.entries)
        return Page(self.entries[start : start + limit], start, len(self.entries))

    async def matches(self, wanted: Match) -> tuple[Sequence[Entry], int]:
        await trio.lowlevel.checkpoint()
        found = [e for e in self.entries if wanted.text in e.path and e.path > wanted.after]
        return found[: wanted.limit], len(found)

    async def manifest(self, file_id: FileId) -> Manifest:
        await trio.lowlevel.checkpoint()
        if file_id not in self.contents:
            raise NotFoundError("this content is not shared here")
        return self.contents[file_id].manifest

    async def read_blocks(self, file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        self.reading.append(file_id)
        self.read += indexes
        self.turns.append(len(indexes))
        self.most = max(self.most, len(self.reading))
        try:
            if self.contents[file_id].size > UNQUEUED_BYTES:
                await self.goes.wait()
            await trio.lowlevel.checkpoint()
            if self.error is not None:
                raise self.error
            blocks: list[bytes] = []
            for index in indexes:
                if index in self.lacks:
                    break
                blocks.append(self.contents[file_id].block(index))
            if not blocks:
                raise NotFoundError("that block is not here")
            return blocks
        finally:
            self.reading.remove(file_id)

    async def read_small(self, file_ids: Sequence[FileId]) -> list[bytes | None]:
        self.together.append(len(file_ids))
        await trio.sleep(HOP_S)
        return [
            None if self.error is not None or self.lacks else self.contents[file_id].block(0)
            for file_id in file_ids
        ]


class Shop:
    """A servent that serves a shelf, and those who come to it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.net = MemoryNetwork(latency_s=0.01)
        self.shelf = Shelf()
        self.uploads = Uploads(self.shelf)
        self.servent = HalfServent(self.net, "10.0.0.1")
        self.servent._judge = lambda peer, _hello, remote: self.uploads.judge(peer, remote)
        self._nursery = nursery
        self._customers = 0

    async def enter(self, identity: Identity | None = None) -> Link:
        """Return a running transfer link of a peer, a new one unless an identity is given."""
        self._customers += 1
        customer = HalfServent(self.net, f"10.0.1.{self._customers}")
        customer.identity = identity or customer.identity
        link = await dial_link(
            customer.host, self.servent.address, customer, LinkKind.TRANSFER, self.servent.id
        )
        self._nursery.start_soon(link.run, silent)
        return link

    def hold(self) -> None:
        """Let large blocks wait from now on."""
        self.shelf.goes = trio.Event()

    def ask_at_once(self, link: Link, numbers: Iterable[int], content: Content) -> None:
        """Ask for blocks in one request, and look at nothing that comes."""
        self._nursery.start_soon(self._fetch, link, GetBlocks(content.file_id, tuple(numbers)))

    def ask(self, link: Link, *numbers: int, content: Content = LARGE) -> None:
        """Ask for blocks, and look at nothing that comes."""
        for number in numbers:
            self._nursery.start_soon(self._fetch, link, GetBlocks(content.file_id, (number,)))

    async def _fetch(self, link: Link, message: GetBlocks) -> None:
        with suppress(RejectedError, LinkClosedError):
            await link.ask.fetch(message, size_limit=len(message.indexes) * BLOCK)


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    async with trio.open_nursery() as nursery:
        shop = Shop(nursery)
        await nursery.start(shop.servent.listen, shop.uploads.serve)
        yield shop
        nursery.cancel_scope.cancel()


async def block(link: Link, index: int = 0, content: Content = LARGE) -> bytes:
    return bytes(await link.ask.fetch(GetBlocks(content.file_id, (index,)), size_limit=BLOCK))


async def manifest(link: Link, content: Content = LARGE) -> bytes:
    return bytes(await link.ask.fetch(GetManifest(content.file_id), size_limit=BLOCK))


async def rejection(link: Link, index: int = 0, content: Content = LARGE) -> RejectCode:
    with pytest.raises(RejectedError) as caught:
        await block(link, index, content)
    return RejectCode(caught.value.code)


# Slots and queues.


async def test_blocks_and_manifests_come_as_they_are(autojump_clock: MockClock):
    async with open_shop() as shop:
        link = await shop.enter()

        assert await manifest(link) == LARGE.manifest.to_bytes()
        assert [await block(link, index) for index in range(3)] == [
            LARGE.block(index) for index in range(3)
        ]
        assert await block(link, content=SMALL) == SMALL.block(0)


async def test_blocks_of_what_is_known_cost_no_look_into_the_index(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    async def refuse(_file_id: FileId) -> Manifest:
        raise AssertionError("the index was asked")

    async with open_shop() as shop:
        link = await shop.enter()
        monkeypatch.setattr(shop.shelf, "manifest", refuse)

        assert await block(link, 1) == LARGE.block(1)


async def test_several_blocks_come_in_the_order_asked_for(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.contents[HUGE.file_id] = HUGE
        link = await shop.enter()
        order = [8, 0, 7, 3, 2, 6]

        data = await link.ask.fetch(GetBlocks(HUGE.file_id, tuple(order)), size_limit=6 * BLOCK)

        assert data == b"".join(HUGE.block(index) for index in order)


async def test_blocks_come_up_to_the_first_that_is_not_here(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.contents[HUGE.file_id] = HUGE
        shop.shelf.lacks = {5}
        link = await shop.enter()
        got: list[bytes] = []

        with pytest.raises(RejectedError) as caught:
            await link.ask.stream(
                GetBlocks(HUGE.file_id, (1, 2, 5, 3)),
                size_limit=4 * BLOCK,
                take=got.extend,
            )

        assert caught.value.code == RejectCode.NOT_FOUND
        assert b"".join(got) == HUGE.block(1) + HUGE.block(2)


async def test_no_block_comes_if_one_is_beyond_the_last(autojump_clock: MockClock):
    async with open_shop() as shop:
        link = await shop.enter()

        with pytest.raises(RejectedError):
            await link.ask.fetch(GetBlocks(LARGE.file_id, (0, 3)), size_limit=2 * BLOCK)

        assert shop.shelf.read == []


async def test_two_who_want_much_take_turns(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.contents[HUGE.file_id] = HUGE
        shop.uploads = Uploads(shop.shelf)
        links = [await shop.enter() for _ in range(2)]
        for link in links:
            shop.ask_at_once(link, range(9), content=HUGE)
        await trio.sleep(5)

        a_turn = TURN_BYTES // BLOCK
        assert shop.shelf.turns[:4] == [a_turn] * 4
        assert shop.shelf.read[:a_turn] == shop.shelf.read[a_turn : 2 * a_turn]


async def test_who_takes_its_turns_at_once_has_longer_ones_until_it_is_slow(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    wide = Content.of(16 * BLOCK, seed=5)
    async with open_shop() as shop:
        shop.shelf.contents[wide.file_id] = wide
        link = await shop.enter()
        a_turn = TURN_BYTES // BLOCK
        every = GetBlocks(wide.file_id, tuple(range(16)))

        monkeypatch.setattr(visitors, "QUICK_TURN_S", 10.0)
        for _ in range(2):
            await link.ask.fetch(every, size_limit=wide.size)
        assert shop.shelf.turns == [a_turn, 2 * a_turn, a_turn, 4 * a_turn]
        assert QUICK_TURN_BYTES == 4 * TURN_BYTES

        monkeypatch.setattr(visitors, "QUICK_TURN_S", 0.0)
        del shop.shelf.turns[:]
        for _ in range(2):
            await link.ask.fetch(every, size_limit=wide.size)
        assert shop.shelf.turns == [4 * a_turn, *[a_turn] * 4]


async def test_no_more_large_blocks_than_slots_are_sent_at_once(autojump_clock: MockClock):
    assert UPLOAD_SLOTS == 8
    async with open_shop() as shop:
        shop.hold()
        for _ in range(UPLOAD_SLOTS + 2):
            shop.ask(await shop.enter(), 0)
        await trio.sleep(1)
        assert len(shop.shelf.reading) == UPLOAD_SLOTS

        shop.shelf.goes.set()
        await trio.sleep(5)

        assert shop.shelf.reading == []
        assert shop.shelf.most == UPLOAD_SLOTS


async def test_a_peer_has_one_large_block_at_a_time_over_all_its_links(
    autojump_clock: MockClock,
):
    async with open_shop() as shop:
        shop.hold()
        greedy, modest = Identity.generate(), await shop.enter()
        for _ in range(MAX_LINKS_PER_PEER):
            shop.ask(await shop.enter(greedy), 0, 1, 2)
        shop.ask(modest, 0)
        await trio.sleep(1)

        assert len(shop.shelf.reading) == 2


async def test_small_things_pass_those_who_wait_for_a_slot(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.hold()
        links = [await shop.enter() for _ in range(UPLOAD_SLOTS + 1)]
        for link in links:
            shop.ask(link, 0, 1)
        await trio.sleep(1)

        with trio.fail_after(1):
            for link in (links[0], links[-1]):  # one that has a slot, one that has none
                assert await block(link, content=SMALL) == SMALL.block(0)
                assert await manifest(link) == LARGE.manifest.to_bytes()
                assert await link.ask.request(List("", ""), timeout_s=1) == Listing((), False)


async def test_one_byte_more_than_small_waits_for_a_slot(autojump_clock: MockClock):
    larger = Content.of(UNQUEUED_BYTES + 1)
    async with open_shop() as shop:
        shop.shelf.contents[larger.file_id] = larger
        shop.hold()
        for _ in range(UPLOAD_SLOTS):
            shop.ask(await shop.enter(), 0)
        await trio.sleep(1)

        with trio.move_on_after(10) as patience:
            await block(await shop.enter(), content=larger)

        assert patience.cancelled_caught


async def test_more_requests_than_a_queue_holds_are_told_to_come_back(autojump_clock: MockClock):
    assert MAX_QUEUE == 128
    async with open_shop() as shop:
        shop.hold()
        identity = Identity.generate()
        one, other = await shop.enter(identity), await shop.enter(identity)
        shop.ask(one, *[0] * (MAX_QUEUE // 2 + 1))  # one of them is being answered
        shop.ask(other, *[0] * (MAX_QUEUE // 2 + 1))
        await trio.sleep(1)

        with pytest.raises(RejectedError) as caught:
            await block(one)

        assert caught.value.code == RejectCode.BUSY
        assert caught.value.retry_after_s > 0
        shop.shelf.goes.set()
        assert await block(await shop.enter()) == LARGE.block(0)


async def test_a_request_that_is_cancelled_gives_its_place_to_the_next(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.hold()
        link = await shop.enter()
        with trio.move_on_after(1):
            await block(link, 0)
        await trio.sleep(1)
        assert shop.shelf.reading == []
        shop.shelf.goes.set()

        assert await block(link, 1) == LARGE.block(1)


async def test_a_request_that_is_cancelled_in_the_queue_is_never_read(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.hold()
        link = await shop.enter()
        shop.ask(link, 0)
        await trio.sleep(0.1)
        with trio.move_on_after(1):
            await block(link, 1)
        await trio.sleep(0.1)

        shop.shelf.goes.set()
        await trio.sleep(1)

        assert shop.shelf.read == [0]


# Small contents that are asked for in a row.

NOTES = [Content.of(10_000, seed=100 + number) for number in range(40)]


async def answers(shop: Shop, link: Link, contents: Sequence[Content]) -> list[bytes | RejectCode]:
    """Ask for contents all at once, and return what comes for each."""
    shop.shelf.contents.update((content.file_id, content) for content in contents)
    got: dict[int, bytes | RejectCode] = {}

    async def ask(number: int) -> None:
        try:
            got[number] = await block(link, content=contents[number])
        except RejectedError as error:
            got[number] = RejectCode(error.code)

    async with trio.open_nursery() as nursery:
        for number in range(len(contents)):
            nursery.start_soon(ask, number)
    return [got[number] for number in range(len(contents))]


async def test_small_contents_asked_for_in_a_row_are_read_together(autojump_clock: MockClock):
    async with open_shop() as shop:
        link = await shop.enter()

        assert await answers(shop, link, NOTES) == [note.data for note in NOTES]
        assert sum(shop.shelf.together) + shop.shelf.read.count(0) == len(NOTES)
        assert max(shop.shelf.together) == TOGETHER
        assert len(shop.shelf.together) + shop.shelf.read.count(0) <= 5


async def test_no_more_bytes_are_read_together_than_a_link_may_hold(autojump_clock: MockClock):
    notes = [Content.of(TOGETHER_BYTES // 3, seed=number) for number in range(7)]
    large = Content.of(TOGETHER_BYTES + 1)
    async with open_shop() as shop:
        link = await shop.enter()

        assert await answers(shop, link, [*notes, large]) == [*(n.data for n in notes), large.data]
        assert max(shop.shelf.together) == 3


async def test_what_cannot_be_read_with_others_is_answered_as_if_it_were_alone(
    autojump_clock: MockClock, expect_log
):
    expect_log("upload failed")
    async with open_shop() as shop:
        link = await shop.enter()
        shop.shelf.lacks = {0}

        assert await answers(shop, link, NOTES[:5]) == [RejectCode.NOT_FOUND] * 5
        shop.shelf.error = OSError(errno.EIO, "the disk")
        assert await answers(shop, link, NOTES[:5]) == [RejectCode.FAILED] * 5


async def test_what_was_read_with_others_is_forgotten_with_its_request(autojump_clock: MockClock):
    async with open_shop() as shop:
        link = await shop.enter()
        shop.shelf.contents.update((note.file_id, note) for note in NOTES)
        async with trio.open_nursery() as impatient:
            for note in NOTES[:TOGETHER]:
                impatient.start_soon(partial(block, link, content=note))
            await trio.sleep(HOP_S)
            impatient.cancel_scope.cancel()
        await trio.sleep(1)

        (client,) = next(iter(shop.uploads._visitors._peers.values())).clients
        assert not client.quick.together._read
        assert await block(link, content=NOTES[-1]) == NOTES[-1].data


async def test_a_link_that_ends_gives_its_slot_back(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.hold()
        for _ in range(UPLOAD_SLOTS):
            shop.ask(await shop.enter(), 0)
        await trio.sleep(1)

        for number in range(UPLOAD_SLOTS):
            shop.net.cut(f"10.0.1.{number + 1}")
        await trio.sleep(1)

        assert shop.shelf.reading == []
        shop.shelf.goes.set()
        assert await block(await shop.enter()) == LARGE.block(0)


async def test_who_takes_a_block_too_slowly_loses_its_link_and_its_slot(
    autojump_clock: MockClock,
):
    async with open_shop() as shop:
        shop.net.set_upload_rate("10.0.0.1", MIN_RATE_BYTES_PER_S / 8)
        link = await shop.enter()
        shop.ask(link, 0, 1, 2)
        await trio.sleep(GRACE_S)
        assert link.ended is None
        with trio.fail_after(GRACE_S + 2 * BLOCK / MIN_RATE_BYTES_PER_S):
            while shop.servent.open_links:
                await trio.sleep(1)

        assert shop.shelf.reading == []


# Refusals.


async def test_while_sharing_is_paused_everything_is_rejected(autojump_clock: MockClock):
    async with open_shop() as shop:
        link = await shop.enter()
        shop.shelf.is_paused = True

        assert await rejection(link) == RejectCode.PAUSED
        assert await rejection(link, content=SMALL) == RejectCode.PAUSED
        with pytest.raises(RejectedError):
            await link.ask.request(List("", ""), timeout_s=1)


async def test_what_is_being_fetched_may_be_asked_for_again(autojump_clock: MockClock):
    async with open_shop() as shop:
        link = await shop.enter()
        shop.shelf.error = NotYetError("not here yet")

        with pytest.raises(RejectedError) as caught:
            await block(link)
        assert caught.value.retry_after_s == NOT_YET_MS / 1000


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("no such content"), RejectCode.NOT_FOUND),
        (NotYetError("not here yet"), RejectCode.NOT_FOUND),
        (StaleError("it changed"), RejectCode.STALE),
        (OSError(5, "Input/output error"), RejectCode.FAILED),
        (CacheFullError("no descriptors left"), RejectCode.FAILED),
    ],
)
async def test_what_goes_wrong_is_told_and_the_link_lives_on(
    autojump_clock: MockClock, error: Exception, code: RejectCode, expect_log
):
    expect_log("upload failed")
    async with open_shop() as shop:
        link = await shop.enter()
        shop.shelf.error = error

        assert await rejection(link) == code
        shop.shelf.error = None
        assert await block(link) == LARGE.block(0)


async def test_blocks_and_contents_that_are_not_there_are_not_found(autojump_clock: MockClock):
    async with open_shop() as shop:
        link = await shop.enter()

        assert await rejection(link, index=3) == RejectCode.NOT_FOUND
        assert await rejection(link, content=Content.of(5)) == RejectCode.NOT_FOUND
        with pytest.raises(RejectedError):
            await manifest(link, Content.of(5))


async def test_one_peer_gets_no_more_links_than_a_few(autojump_clock: MockClock):
    assert MAX_LINKS_PER_PEER == 4
    async with open_shop() as shop:
        greedy = Identity.generate()
        links = [await shop.enter(greedy) for _ in range(MAX_LINKS_PER_PEER)]

        with pytest.raises(RefusedError) as caught:
            await shop.enter(greedy)
        assert caught.value.bye.code is ByeCode.DUPLICATE

        await shop.enter()  # others are welcome
        links[0].close()
        await trio.sleep(2)
        await shop.enter(greedy)


async def test_one_peer_that_dials_all_its_links_at_once_gets_no_more(autojump_clock: MockClock):
    async with open_shop() as shop, trio.open_nursery() as nursery:
        greedy = Identity.generate()

        async def enter() -> None:
            with suppress(RefusedError):
                await shop.enter(greedy)

        for _ in range(3 * MAX_LINKS_PER_PEER):
            nursery.start_soon(enter)
        await trio.sleep(3)

        assert len(shop.servent.open_links) == MAX_LINKS_PER_PEER


async def test_all_peers_together_get_no_more_links_than_there_may_be(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    assert MAX_VISITORS == 200
    monkeypatch.setattr(visitors_module, "MAX_VISITORS", 3)
    async with open_shop() as shop:
        for _ in range(3):
            await shop.enter()

        with pytest.raises(RefusedError) as caught:
            await shop.enter()

        assert caught.value.bye.code is ByeCode.FULL


# Listings.


def entries(count: int, *, name_length: int = 8) -> list[Entry]:
    names = sorted(f"{number:0{name_length}}" for number in range(count))
    return [Entry(name, number, 1, bytes(32)) for number, name in enumerate(names, 1)]


async def pages(link: Link) -> list[Listing]:
    got: list[Listing] = []
    after = ""
    while not got or got[-1].has_more:
        page = await link.ask.request(List("", after), timeout_s=5)
        assert isinstance(page, Listing)
        got.append(page)
        after = page.entries[-1].path
    return got


async def test_a_directory_of_20_000_files_is_listed_by_pages_of_500(autojump_clock: MockClock):
    assert MAX_LISTING == 500
    async with open_shop() as shop:
        shop.shelf.entries = entries(20_000)

        got = await pages(await shop.enter())

        assert [len(page.entries) for page in got] == [MAX_LISTING] * 40
        assert [entry for page in got for entry in page.entries] == shop.shelf.entries


async def test_a_page_of_long_names_ends_where_the_frame_is_full(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.entries = entries(700, name_length=255)

        got = await pages(await shop.enter())

        assert [entry for page in got for entry in page.entries] == shop.shelf.entries
        for page in got:
            assert sum(len(msgspec.msgpack.encode(e)) for e in page.entries) <= MAX_PAGE_BYTES
        assert len(got[0].entries) < MAX_LISTING


async def match(link: Link, after: str, limit: int = MAX_LISTING) -> Listing:
    page = await link.ask.request(Match("1", None, after, limit), timeout_s=5)
    assert isinstance(page, Listing)
    return page


async def test_further_matches_come_by_pages(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.entries = entries(700, name_length=255)
        link = await shop.enter()
        page = await match(link, "")
        got = [*page.entries]
        while page.has_more:
            page = await match(link, got[-1].path)
            got += page.entries

        assert got == [entry for entry in shop.shelf.entries if "1" in entry.path]
        assert [e.path for e in (await match(link, "", 3)).entries] == [e.path for e in got[:3]]


async def test_who_searches_too_often_is_told_to_wait(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.entries = entries(10)
        link = await shop.enter()
        for _ in range(MATCH_BURST):
            await match(link, "")
        with pytest.raises(RejectedError) as caught:
            await match(link, "")
        assert caught.value.code == RejectCode.BUSY

        await trio.sleep(1 / MATCHES_PER_S)
        await match(link, "")


async def test_nothing_matches_while_sharing_is_paused(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.is_paused = True
        with pytest.raises(RejectedError) as caught:
            await match(await shop.enter(), "")

        assert caught.value.code == RejectCode.PAUSED


async def test_listings_asked_for_all_at_once_come_all(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.entries = entries(500, name_length=100)
        link = await shop.enter()
        got = []

        async def ask() -> None:
            got.append(await link.ask.request(List("", ""), timeout_s=5))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)

        assert len(got) == 50
        assert link.ended is None


async def test_pages_are_sent_one_behind_the_other_without_a_gap(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.entries = entries(5 * MAX_LISTING + 1)
        link = await shop.enter()
        pages: list[Listing] = []

        await link.ask.list_pages(List("", "", 4), silence_s=5, take=pages.append)
        assert [len(page.entries) for page in pages] == [MAX_LISTING] * 4
        assert [page.has_more for page in pages] == [True] * 4
        assert [page.is_last for page in pages] == [False, False, False, True]

        after = pages[-1].entries[-1].path.rpartition("/")[2]
        await link.ask.list_pages(List("", after, 4), silence_s=5, take=pages.append)
        assert [entry for page in pages for entry in page.entries] == shop.shelf.entries
        assert (pages[-1].has_more, pages[-1].is_last) == (False, True)


async def test_a_page_begins_behind_the_last_name_whatever_has_changed(
    autojump_clock: MockClock,
):
    async with open_shop() as shop:
        all_entries = entries(4 * MAX_LISTING)
        shop.shelf.entries = all_entries
        link = await shop.enter()
        pages: list[Listing] = []

        def take(page: Listing) -> None:
            pages.append(page)
            shop.shelf.entries = all_entries[1:]  # the first one is gone

        await link.ask.list_pages(List("", "", 8), silence_s=5, take=take)

        assert [entry for page in pages for entry in page.entries] == all_entries


async def test_who_asks_for_many_pages_lets_others_of_the_same_link_pass(
    autojump_clock: MockClock,
):
    async with open_shop() as shop:
        shop.shelf.entries = entries(8 * MAX_LISTING)
        link = await shop.enter()
        came: list[str] = []

        async def ask() -> None:
            await link.ask.list_pages(
                List("", "", 8), silence_s=5, take=lambda _: came.append("page")
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.lowlevel.checkpoint()
            await manifest(link)
            came.append("manifest")

        assert came.index("manifest") < 8


async def test_pages_that_are_not_wanted_any_more_are_not_sent(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.entries = entries(8 * MAX_LISTING, name_length=100)
        shop.net.set_upload_rate("10.0.0.1", 50_000)
        link = await shop.enter()
        came: list[Listing] = []
        with trio.move_on_after(1.5):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    wanted = partial(link.ask.list_pages, silence_s=5, take=came.append)
                    nursery.start_soon(wanted, List("", "", 8))
        await trio.sleep(60)

        assert 0 < link.statistics().messages_in < 16


async def test_a_listing_after_the_last_name_is_empty(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.shelf.entries = entries(3)
        link = await shop.enter()

        assert await link.ask.request(List("", "zzz"), timeout_s=1) == Listing((), False)
        with pytest.raises(RejectedError):
            await link.ask.request(List("nowhere", ""), timeout_s=1)


# What people see of it.


def told(shop: Shop) -> list[tuple[str, int, int, str]]:
    """Return peer, size, bytes sent and state of each upload."""
    uploads = shop.uploads.under_way.statistics(trio.current_time())
    return [(one.peer.name, one.size, one.sent_bytes, one.state) for one in uploads]


async def test_an_upload_is_told_from_its_first_request_until_a_while_after_its_last(
    autojump_clock: MockClock,
):
    async with open_shop() as shop:
        link = await shop.enter()
        assert told(shop) == []

        shop.hold()
        shop.ask(link, 0)
        await trio.sleep(1)
        assert told(shop) == [("half", LARGE.size, 0, "waiting")]
        shop.shelf.goes.set()
        await trio.sleep(1)
        assert told(shop) == [("half", LARGE.size, BLOCK, "sending")]
        assert shop.uploads.under_way.statistics(trio.current_time())[0].rate_bytes_s > 0
        assert await block(link, 1)
        assert told(shop) == [("half", LARGE.size, 2 * BLOCK, "sending")]

        await trio.sleep(LINGER_S - 0.1)
        assert told(shop) != []
        await trio.sleep(0.2)
        assert told(shop) == []


async def test_what_is_sent_twice_is_no_more_than_all(autojump_clock: MockClock):
    async with open_shop() as shop:
        link = await shop.enter()

        for _ in range(2):
            for index in range(3):
                assert await block(link, index)

        assert told(shop) == [("half", LARGE.size, LARGE.size, "sending")]


async def test_small_contents_asked_for_at_once_come_in_order_with_gaps_for_the_others(
    autojump_clock: MockClock,
):
    small = [Content.of(1000 + seed, seed) for seed in range(3)]
    async with open_shop() as shop:
        shop.shelf.contents |= {content.file_id: content for content in small}
        link = await shop.enter()
        nothing = FileId(bytes(32))
        asked = [small[0].file_id, nothing, LARGE.file_id, small[1].file_id, small[2].file_id]

        given = await contents(link, asked)

        assert given == [small[0].data, None, None, small[1].data, small[2].data]
        assert shop.shelf.together == [3]
        assert {size for _, size, *_ in told(shop)} == {one.size for one in small}


async def test_small_contents_asked_for_at_once_are_read_a_few_at_a_time(
    autojump_clock: MockClock,
):
    each = TOGETHER_BYTES // 2 - 1
    small = [Content.of(each, seed) for seed in range(4)]
    async with open_shop() as shop:
        shop.shelf.contents |= {content.file_id: content for content in small}
        link = await shop.enter()

        given = await contents(link, [content.file_id for content in small])

        assert given == [content.data for content in small]
        assert shop.shelf.together == [2, 2]


async def test_what_cannot_be_read_with_others_is_a_gap(autojump_clock: MockClock):
    small = Content.of(1000)
    async with open_shop() as shop:
        shop.shelf.contents[small.file_id] = small
        shop.shelf.error = OSError()
        link = await shop.enter()

        assert await contents(link, [small.file_id, small.file_id]) == [None, None]


async def contents(link: Link, file_ids: Sequence[FileId]) -> list[bytes | None]:
    """Ask for small contents at once."""
    taken: list[bytes | None] = []
    cutter = ContentsCutter(len(file_ids), taken.append)
    most = len(file_ids) * MAX_CONTENT_BYTES
    await link.ask.stream(GetContents(tuple(file_ids)), size_limit=most, take=cutter.receive)
    return taken


async def test_who_waits_for_a_slot_is_told_apart(autojump_clock: MockClock):
    async with open_shop() as shop:
        shop.hold()
        for _ in range(UPLOAD_SLOTS + 1):
            shop.ask(await shop.enter(), 0)
        await trio.sleep(1)
        assert [state for *_, state in told(shop)] == ["waiting"] * (UPLOAD_SLOTS + 1)

        shop.shelf.goes.set()
        await trio.sleep(1)
        assert [state for *_, state in told(shop)] == ["sending"] * (UPLOAD_SLOTS + 1)


async def test_a_peer_that_fetches_thousands_of_files_takes_no_room_for_it(
    autojump_clock: MockClock,
):
    async with open_shop() as shop:
        link = await shop.enter()
        for number in range(2 * MAX_LINGERING):
            small = Content.of(10, seed=number)
            shop.shelf.contents[small.file_id] = small
            assert await link.ask.fetch(GetBlocks(small.file_id, (0,)), size_limit=BLOCK)

        assert len(told(shop)) <= MAX_LINGERING + 1


async def test_a_link_that_ends_ends_its_uploads(autojump_clock: MockClock):
    async with open_shop() as shop:
        link = await shop.enter()
        shop.hold()
        shop.ask(link, 0)
        await trio.sleep(1)

        link.close()
        await trio.sleep(LINGER_S + 1)

        assert told(shop) == []
