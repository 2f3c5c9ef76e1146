"""Readers of `network/` and their swarms, among real servents in memory."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from p2pfs.cache import expects_nothing
from p2pfs.config import Endpoint
from p2pfs.download.reader import FAILURE_STANDS_S, Reader
from p2pfs.download.swarms import MAX_ERRORS, Swarms
from p2pfs.errors import CorruptError, NoSourceError, ShutdownError, TransferError
from p2pfs.journal import Journal
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.overlay.bans import LIES_BAN_S, MAX_LIES
from p2pfs.protocol.manifest import FileId
from p2pfs.protocol.messages import Entry, QueryKind
from p2pfs.servent import Servent
from tests.helpers.contents import Content
from tests.helpers.world import PORT, World, host, open_world, read_whole

FILM = Content.of(600_000)
LARGE = Content.of(20_000_000)


@asynccontextmanager
async def two(*paths: str) -> AsyncIterator[World]:
    """Give a world where 0 shares the film at these paths, and 1 is its neighbour."""
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0])
        for number, path in enumerate(paths):
            await world.share(0, path, Content.of(FILM.size, seed=number).data)
        await world.linked(1, 1)
        yield world


async def seen(world: World, path: str) -> RemoteFile:
    node = await world[1].browser.find(path)
    assert isinstance(node, RemoteFile)
    return node


async def each_alone(file_ids: Sequence[FileId]) -> list[bytes | None]:
    """Have each of some small contents read alone, by `read_blocks`."""
    return [None for _ in file_ids]


def lie(servent: Servent) -> None:
    """Let a servent send wrong blocks from now on."""
    honest = servent.offer.read_blocks

    async def read_blocks(file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        return [bytes(len(block)) for block in await honest(file_id, indexes)]

    servent.offer.read_blocks, servent.offer.read_small = read_blocks, each_alone


async def test_a_swarm_ends_with_its_last_reader_however_many_reads_began_it(
    autojump_clock: MockClock,
):
    async with two("film") as world:
        reader = world[1].swarms.open(await seen(world, "film"))
        async with trio.open_nursery() as nursery:
            for offset in range(0, 600_000, 100_000):
                nursery.start_soon(reader.read, offset, 100_000)
        assert len(world[1].report.transfers()) == 1

        reader.close()
        await trio.sleep(0.1)

        assert world[1].report.transfers() == []


class ClosedInBetween(Reader):
    """Another thread closes it as soon as it has looked whether it is closed."""

    @property
    def _is_closed(self) -> bool:
        was_closed = self.__dict__["_is_closed"]
        if not was_closed and self.__dict__.pop("is_armed", False):
            self.close()
        return was_closed

    @_is_closed.setter
    def _is_closed(self, value: bool) -> None:
        self.__dict__["_is_closed"] = value


async def test_a_swarm_that_is_joined_while_its_reader_is_closed_ends(autojump_clock: MockClock):
    async with two("film") as world:
        reader = world[1].swarms.open(await seen(world, "film"))
        reader.__class__ = ClosedInBetween
        reader.__dict__["is_armed"] = True

        with pytest.raises(ShutdownError):
            await reader.read(0, 1_000)
        await trio.sleep(0.1)

        assert "is_armed" not in reader.__dict__
        assert world[1].report.transfers() == []
        assert not [event for event in world[1].journal.events() if event.path == "film"]


@pytest.mark.parametrize("seed", range(5))
async def test_who_opens_a_content_again_at_once_still_tells_others_what_is_coming(
    autojump_clock: MockClock, seed: int
):
    """The swarm that ends and the one that begins share a cached file, and run in any order."""
    async with two("film") as world:
        random.seed(seed)
        file = await seen(world, "film")
        first = world[1].swarms.open(file)
        await first.read(0, 1_000)
        first.close()
        await trio.lowlevel.checkpoint()
        again = world[1].swarms.open(file)
        await again.read(FILM.size - 1_000, 1_000)
        await trio.sleep(1)

        (running,) = world[1].swarms._running.values()
        assert running.cached.expects is not expects_nothing
        again.close()
        await trio.sleep(1)
        assert running.cached.expects is expects_nothing


NOTE = Content.of(10_000, seed=99)


async def note_at(world: World, *numbers: int) -> RemoteFile:
    for number in numbers:
        await world.share(number, "note", NOTE.data)
    with trio.fail_after(30):
        while len((note := await seen(world, "note")).sources) < len(numbers):
            await trio.sleep(1)
            await world.names(1)
    return note


async def located(reader: Reader, offset: int, length: int) -> bytes:
    found = await reader.locate(offset, length)
    return found if isinstance(found, bytes) else os.pread(found, length, offset)


async def test_a_small_content_needs_one_exchange_and_no_swarm(autojump_clock: MockClock):
    async with two("film") as world:
        node = await note_at(world, 0)
        asked = count_uploads(world[0])
        readers = [world[1].swarms.open(node) for _ in range(3)]
        got: list[bytes] = []

        async def read(reader: Reader) -> None:
            got.append(await located(reader, 100, 1000))

        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(read, reader)

        assert got == [NOTE.data[100:1100]] * 3
        assert world[1].swarms.path_of(NOTE.file_id) == "note"
        assert asked == [0]
        assert world[1].report.transfers() == []
        for reader in readers:
            reader.close()


async def test_a_small_content_comes_from_another_source_if_the_first_lies(
    autojump_clock: MockClock,
):
    async with two("film") as world:
        await world.start(joins=[0])
        await world.linked(1, 2)
        node = await note_at(world, 0, 2)
        assert len(node.sources) == 2
        lie(world[0])

        reader = world[1].swarms.open(node)
        assert await located(reader, 0, NOTE.size) == NOTE.data

        reader.close()


async def test_a_small_content_comes_from_another_source_if_the_first_is_silent(
    autojump_clock: MockClock,
):
    async with two("film") as world:
        await world.start(joins=[0])
        await world.linked(1, 2)
        node = await note_at(world, 0, 2)
        await world.read(1, "film")  # so that there is a link to 0, which is asked first
        world.stall(0)

        reader = world[1].swarms.open(node)
        with trio.fail_after(5):
            assert await located(reader, 0, NOTE.size) == NOTE.data

        reader.close()


async def test_a_small_content_that_is_other_than_announced_is_never_shown(
    autojump_clock: MockClock,
):
    async with two("film") as world:
        node = await note_at(world, 0)
        for size in (NOTE.size - 1, NOTE.size + 1):
            reader = world[1].swarms.open(replace(node, size=size))
            with pytest.raises(TransferError):
                await reader.locate(0, 100)
            reader.close()

        assert world[1].report.status()["bad_blocks"] == 0  # the size was wrong, not the source


async def test_small_contents_are_fetched_ahead_once(autojump_clock: MockClock):
    async with two("film") as world:
        node = await note_at(world, 0)
        asked = count_uploads(world[0])

        world[1].swarms.fetch_ahead([node])
        await trio.sleep(1)
        assert asked == [0]
        reader = world[1].swarms.open(node)
        assert reader.locate_nowait(0, NOTE.size) is not None
        world[1].swarms.fetch_ahead([node])
        await trio.sleep(1)

        assert asked == [0]
        reader.close()


async def test_a_read_that_was_given_up_leaves_no_swarm_behind(autojump_clock: MockClock):
    async with two("film") as world:
        node = await seen(world, "film")
        world.stall(0)
        reader = world[1].swarms.open(node)
        with trio.move_on_after(1):
            await reader.read(0, 100)

        reader.close()
        await trio.sleep(0.1)

        assert world[1].report.transfers() == []


async def test_why_a_read_failed_is_remembered_until_one_works(autojump_clock: MockClock):
    async with two("film") as world:
        node = await seen(world, "film")
        lie(world[0])
        reader = world[1].swarms.open(node)
        with pytest.raises(CorruptError):
            await reader.read(0, 100)
        assert "wrong bytes" in world[1].swarms.last_error("film")

        reader.close()  # a swarm does not trust again who has lied to it
        del world[0].offer.read_blocks
        await trio.sleep(FAILURE_STANDS_S)
        reader = world[1].swarms.open(node)
        await reader.read(0, 100)

        assert world[1].swarms.last_error("film") is None
        reader.close()


async def test_reads_that_fail_together_are_one_failure(autojump_clock: MockClock):
    """The kernel reads ahead at several places at once, and asks again for what failed."""
    async with two("film") as world:
        node = await seen(world, "film")
        lie(world[0])
        reader = world[1].swarms.open(node)

        async def fails(offset: int) -> None:
            with pytest.raises(CorruptError):
                await reader.read(offset, 100)

        async with trio.open_nursery() as nursery:
            for offset in (300_000, 0, 500_000):
                nursery.start_soon(fails, offset)
        await fails(0)

        told = [event for event in world[1].journal.events() if event.path == "film"]
        assert len(told) == 1
        reader.close()


def test_no_more_failures_are_remembered_than_a_thousand(tmp_path):
    swarms = Swarms(
        None,
        None,
        None,
        None,
        Journal(),
        ttl=1,
        stall_timeout_s=1,
        own_id="",
        on_bad_block=lambda _peer: None,
    )
    for number in range(MAX_ERRORS + 1):
        swarms.failed(f"film {number}", TransferError("no"))

    assert swarms.last_error("film 0") is None
    assert swarms.last_error("film 1") == swarms.last_error(f"film {MAX_ERRORS}") == "no"


async def test_the_third_wrong_block_bans_its_sender_for_an_hour(autojump_clock: MockClock):
    names = [f"film {number}" for number in range(MAX_LIES + 1)]
    async with two(*names) as world:
        nodes = [await seen(world, name) for name in names]
        lie(world[0])

        for count, node in enumerate(nodes[:MAX_LIES], 1):
            reader = world[1].swarms.open(node)
            with pytest.raises(CorruptError):
                await reader.read(0, 100)
            reader.close()
            assert world[1].report.status()["bad_blocks"] == count

        await world.until(lambda: not world[1].report.peers(), within_s=2)
        await trio.sleep(LIES_BAN_S / 2)
        assert world[1].report.peers() == []
        assert world[0].report.peers() == []

        reader = world[1].swarms.open(nodes[-1])
        with pytest.raises(NoSourceError):
            await reader.read(0, 100)
        reader.close()
        assert world[1].report.status()["bad_blocks"] == MAX_LIES  # it was not even asked


async def test_after_the_hour_a_banned_servent_is_dealt_with_again(autojump_clock: MockClock):
    async with two("film") as world:
        for _ in range(MAX_LIES):
            world[1].peering.lied(world[0].whereabouts.identity.id)
        await world.until(lambda: not world[1].report.peers(), within_s=2)

        await trio.sleep(LIES_BAN_S + 800)  # those ten minutes of the last re-dial, and jitter

        assert len(world[1].report.peers()) == 1
        assert await world.read(1, "film") == Content.of(FILM.size, seed=0).data


# Further sources


@asynccontextmanager
async def reading_slowly(world: World) -> AsyncIterator[None]:
    """Let servent 1 read a large film, of which servent 0 can send 1 MB a second."""
    await world.start()
    await world.start(joins=[0])
    await world.share(0, "large", LARGE.data)
    await world.linked(1, 1)
    world.net.set_upload_rate(host(0), 1e6)
    node = await seen(world, "large")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_whole, world[1], node)
        await trio.sleep(2)
        yield
        nursery.cancel_scope.cancel()


def count_uploads(servent: Servent) -> list[int]:
    """Return the indexes of the blocks that a servent gives to others from now on."""
    given: list[int] = []
    honest = servent.offer.read_blocks

    async def read_blocks(file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        given.extend(indexes)
        return await honest(file_id, indexes)

    servent.offer.read_blocks, servent.offer.read_small = read_blocks, each_alone
    return given


async def test_a_neighbour_that_publishes_a_file_is_a_source_within_two_seconds(
    autojump_clock: MockClock,
):
    async with open_world() as world, reading_slowly(world):
        await world.start(joins=[0, 1])
        await world.linked(2, 2, 2)
        given = count_uploads(world[2])
        await world.share(2, "copy of it", LARGE.data)

        await world.until(lambda: bool(given), within_s=2)


async def test_a_servent_that_joins_in_the_middle_is_a_source_within_two_seconds(
    autojump_clock: MockClock,
):
    async with open_world() as world, reading_slowly(world):
        await world.start()
        await world.share(2, "copy of it", LARGE.data)
        given = count_uploads(world[2])
        await world[2].join(Endpoint(host(1), PORT))

        await world.until(lambda: bool(given), within_s=2)


async def test_a_source_that_a_listing_shows_is_used_within_two_seconds(
    autojump_clock: MockClock,
):
    async with open_world() as world, reading_slowly(world):
        await world.start(joins=[0])
        await world.share(2, "copy of it", LARGE.data)
        given = count_uploads(world[2])
        world[1].namespace.catalogue.learn(
            world[2].whereabouts.info(), [Entry("x", LARGE.size, 0, LARGE.file_id)]
        )

        await world.until(lambda: bool(given), within_s=2)


async def test_searches_for_further_sources_are_bounded(autojump_clock: MockClock):
    searches: list[float] = []
    async with open_world() as world, reading_slowly(world):
        run = world[1].message_router.searches.run

        async def counted(kind, text, **rest):
            outcome = await run(kind, text, **rest)
            if kind is QueryKind.ID:
                searches.append(trio.current_time())
            return outcome

        world[1].message_router.searches.run = counted
        for _ in range(20):
            world[1].swarms.look_soon()
            await trio.sleep(0.5)

    assert 9 <= len(searches) <= 12  # nine at once, and one for each seven seconds
