"""Files found by their ids alone: whoever has them, whatever is said of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import NoSourceError
from p2pfs.namespace import RemoteFile
from p2pfs.overlay.flooding import Spent
from p2pfs.protocol import Entry, FileId, Query, QueryKind
from tests.helpers.world import World, chain, open_world, read_whole

FILM = b"film" * 200_000


async def id_of(world: World, number: int, path: str) -> FileId:
    """Return the id of a file that a servent shares."""
    entry = world[number].library.find_path(path)
    assert entry is not None
    return FileId(entry.file_id)


def tell_of_id(world: World, number: int, entry: Entry) -> None:
    """Let a servent say to have any content that it is asked for, as this entry has it."""

    async def answer(query: Query, _spent: Spent) -> tuple[Sequence[Entry], int]:
        return ((entry,), 1) if query.kind is QueryKind.ID else ((), 0)

    world[number].offer.answer = answer


async def test_a_file_is_found_by_its_id_anywhere_within_the_horizon(autojump_clock: MockClock):
    async with open_world() as world:
        await chain(world, 4)
        await world.share(3, "films/film.mkv", FILM)
        file_id = await id_of(world, 3, "films/film.mkv")

        file = await world[0].find_content(file_id)

        assert isinstance(file, RemoteFile)
        assert (file.path, file.size, file.file_id) == ("films/film.mkv", len(FILM), file_id)
        assert await read_whole(world[0], file) == FILM


@asynccontextmanager
async def only_in_the_cache_of_the_last(servents: int) -> AsyncIterator[tuple[World, FileId]]:
    """Open a chain whose last servent has fetched a film from one that is gone."""
    async with open_world() as world:
        await chain(world, servents + 1)
        await world.share(servents, "film.mkv", FILM)
        file_id = await id_of(world, servents, "film.mkv")
        await world.read(servents - 1, "film.mkv")
        world.kill(servents)
        await trio.sleep(120)
        yield world, file_id


async def test_who_has_it_in_the_cache_alone_is_a_source_and_knows_no_name(
    autojump_clock: MockClock,
):
    async with only_in_the_cache_of_the_last(2) as (world, file_id):
        file = await world[0].find_content(file_id)

        assert file is not None
        assert (file.path, file.size) == (file_id.hex(), len(FILM))
        assert await read_whole(world[0], file) == FILM
        assert file_id.hex() not in await world.names(0)


async def test_what_is_whole_in_the_cache_needs_nobody(autojump_clock: MockClock):
    async with only_in_the_cache_of_the_last(1) as (world, file_id):
        file = await world[0].find_content(file_id)

        assert file is not None
        assert (file.path, file.size) == ("film.mkv", len(FILM))
        assert await read_whole(world[0], file) == FILM


@pytest.mark.parametrize("size", [4096, len(FILM) + 1, 2**40])
async def test_a_wrong_size_is_not_believed(size: int, autojump_clock: MockClock):
    async with open_world() as world:
        await chain(world, 3)  # who lies is nearer than who has it
        await world.share(2, "film.mkv", FILM)
        file_id = await id_of(world, 2, "film.mkv")
        tell_of_id(world, 1, Entry("lie.mkv", size, 0, file_id))

        file = await world[0].find_content(file_id)

        assert file is not None
        assert (file.path, file.size) == ("film.mkv", len(FILM))
        assert await read_whole(world[0], file) == FILM


async def test_who_says_to_have_it_and_does_not_is_no_source(autojump_clock: MockClock):
    async with open_world() as world:
        await chain(world, 2)
        file_id = FileId(bytes(31) + b"\1")
        tell_of_id(world, 1, Entry("lie.mkv", 4096, 0, file_id))

        with pytest.raises(NoSourceError):
            await world[0].find_content(file_id)


async def test_one_honest_holder_among_liars_is_enough(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        for _ in range(4):
            await world.start(joins=[0])
        await world.linked(4, 1, 1, 1, 1)
        await world.share(4, "film.mkv", FILM)
        file_id = await id_of(world, 4, "film.mkv")
        for number in (1, 2, 3):
            tell_of_id(world, number, Entry("lie.mkv", 4096, 0, file_id))

        file = await world[0].find_content(file_id)

        assert file is not None
        assert file.size == len(FILM)
        assert await read_whole(world[0], file) == FILM


async def test_what_nobody_has_is_none(autojump_clock: MockClock):
    async with open_world() as world:
        await chain(world, 3)

        assert await world[0].find_content(FileId(bytes(31) + b"\1")) is None


async def test_alone_nothing_is_found(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()

        assert await world[0].find_content(FileId(bytes(31) + b"\1")) is None
