"""One servent that lies about names and sizes, among honest ones: nobody else suffers for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import CorruptError
from p2pfs.library import Page
from p2pfs.namespace.nodes import RemoteDirectory, RemoteFile
from p2pfs.overlay.flooding import Spent
from p2pfs.protocol.messages import Entry, Query, QueryKind
from tests.helpers.libraries import listed
from tests.helpers.world import World, open_world, read_whole

READER, LIAR = 1, 6
FILM = b"film" * 200_000
LATE = 2**62
"""A time far in the future."""

Lie = Callable[[Entry], Sequence[Entry]]


def tell(world: World, number: int, entries: Sequence[Entry]) -> None:
    """Let a servent answer every question for names with these entries."""

    async def answer(query: Query, _spent: Spent) -> tuple[Sequence[Entry], int]:
        return ((), 0) if query.kind is QueryKind.ID else (entries, len(entries))

    world[number].offer.answer = answer
    page = Page(list(entries), 0, len(entries))
    world[number].offer.list_page = lambda _path, _after, _limit: page


async def with_a_liar(world: World, lie: Lie) -> Entry:
    """Four honest holders of film.mkv, a reader that chose one of them, and a liar."""
    await world.start()
    await world.start(joins=[0], max_neighbours=1)
    await world.linked(1, 1)
    for _ in range(2, LIAR + 1):
        await world.start(joins=[0])
    await world.linked(LIAR, 1, *[2] * (LIAR - 1))
    for number in (0, 2, 3, 4):
        await world.share(number, "film.mkv", FILM)
    (honest,) = listed(world[0].library, "")
    tell(world, LIAR, lie(honest))
    await trio.sleep(3)
    return honest


@pytest.mark.parametrize("size", [4096, len(FILM) + 1, 2**40])
async def test_a_wrong_size_is_found_out_before_anybody_reads(size: int, autojump_clock: MockClock):
    async with open_world() as world:
        await with_a_liar(world, lambda e: [Entry(e.path, size, LATE, e.file_id)])
        await world[READER].browser.list("")

        node = await world[READER].browser.find("film.mkv")

        assert isinstance(node, RemoteFile)
        assert node.size == len(FILM)
        assert world[LIAR].whereabouts.identity.id not in [source.id for source in node.sources]
        assert await read_whole(world[READER], node) == FILM
        assert await world.names(READER) == ["film.mkv"]
        assert world[READER].report.status()["bad_blocks"]


async def test_who_goes_on_lying_is_banned(autojump_clock: MockClock):
    async with open_world() as world:
        await with_a_liar(world, lambda e: [Entry(e.path, 4096, LATE, e.file_id)])
        for _ in range(4):
            await world[READER].browser.list("")
            await world[READER].browser.find("film.mkv")
            await trio.sleep(4)

        assert world[READER].peering.is_banned(world[LIAR].whereabouts.identity.id)
        assert await world.read(READER, "film.mkv") == FILM


async def test_a_directory_does_not_hide_a_file(autojump_clock: MockClock):
    def lie(honest: Entry) -> Sequence[Entry]:
        stolen = f"film~{honest.file_id.hex()[:8]}.mkv"
        return [Entry("film.mkv", 0, 1, b""), Entry(stolen, 4, 1, b"lie!" * 8)]

    async with open_world() as world:
        honest = await with_a_liar(world, lie)
        node = await world[READER].browser.find("film.mkv")
        assert isinstance(node, RemoteFile)
        await world[READER].pins.add(node)

        nodes = {node.path: node for node in await world[READER].browser.list("")}

        assert len(nodes) == 3
        kept = nodes["film.mkv"]
        assert isinstance(kept, RemoteFile)
        assert kept.file_id == honest.file_id
        assert isinstance(nodes["film.mkv~dir"], RemoteDirectory)
        assert await world.read(READER, "film.mkv") == FILM


@pytest.mark.parametrize("size", [4096, 2**40])
async def test_a_pinned_file_is_what_it_was(size: int, autojump_clock: MockClock):
    async with open_world() as world:
        honest = await with_a_liar(world, lambda _: [])
        node = await world[READER].browser.find("film.mkv")
        assert isinstance(node, RemoteFile)
        await world[READER].pins.add(node)
        await world.until(
            lambda: world[READER].swarms.cached_percent(node.file_id) == 100, within_s=60
        )
        tell(world, LIAR, [Entry("film.mkv", size, LATE, honest.file_id)])
        for number in (0, 2, 3, 4):
            world.kill(number)
        await world[READER].browser.list("")
        await trio.sleep(4)

        assert await world.names(READER) == ["film.mkv"]
        assert await world.read(READER, "film.mkv") == FILM


async def test_a_size_that_only_a_liar_tells_ends_with_an_error_and_is_dropped(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await with_a_liar(world, lambda e: [Entry("other.mkv", 4096, LATE, e.file_id)])
        node = await world[READER].browser.find("other.mkv")
        assert isinstance(node, RemoteFile)
        assert node.size == 4096

        world[LIAR].offer.manifest = world[0].offer.manifest  # and is found out by its own word
        with pytest.raises(CorruptError, match="announced size"):
            await read_whole(world[READER], node)

        assert await world[READER].browser.find("other.mkv") is None
        assert await world.read(READER, "film.mkv") == FILM


async def test_a_pin_made_on_a_lie_is_put_right(autojump_clock: MockClock):
    async with open_world() as world:
        honest = await with_a_liar(world, lambda e: [Entry("other.mkv", 4096, LATE, e.file_id)])
        node = await world[READER].browser.find("other.mkv")
        assert isinstance(node, RemoteFile)
        world[LIAR].offer.manifest = world[0].offer.manifest
        await world[READER].pins.add(node)
        await trio.sleep(10)

        (pinned,) = world[READER].pins.entries()
        assert (pinned.path, pinned.size) == ("other.mkv", honest.size)
        await world.until(
            lambda: world[READER].swarms.cached_percent(node.file_id) == 100, within_s=60
        )
        assert await world.read(READER, "other.mkv") == FILM
