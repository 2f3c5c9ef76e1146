"""Servents behind routers: they dial others, and nobody can dial them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import NoSourceError, TransferError
from p2pfs.namespace import RemoteFile
from tests.helpers.routed import FILM, behind_router
from tests.helpers.world import host, read_whole

FIRST_BYTE_S = 1.0

ERROR_S = 5.0


async def test_a_neighbour_reads_from_behind_the_router(autojump_clock: MockClock):
    async with behind_router() as world:
        began_at = trio.current_time()
        assert await world.read(0, "film.mkv") == FILM.data
        assert trio.current_time() - began_at <= FIRST_BYTE_S


async def test_one_farther_away_has_it_asked_by_their_neighbour(autojump_clock: MockClock):
    async with behind_router(readers=2) as world:
        began_at = trio.current_time()
        assert await world.read(2, "film.mkv") == FILM.data
        assert trio.current_time() - began_at <= FIRST_BYTE_S


async def test_the_link_is_used_again_and_lives_as_long_as_it_is_used(autojump_clock: MockClock):
    async with behind_router(readers=2) as world:
        await world.read(2, "film.mkv")
        dialled = world[1].ways.pushes.counters["dialled"]
        await world.share(1, "second.mkv", FILM.data[:-1])

        assert await world.read(2, "second.mkv") == FILM.data[:-1]
        assert world[1].ways.pushes.counters["dialled"] == dialled == 1


@pytest.mark.parametrize("reader", [0, 2])
async def test_both_behind_routers_are_told_so_in_seconds(autojump_clock: MockClock, reader: int):
    async with behind_router(readers=2) as world:
        world.net.host(host(reader)).is_behind_router = True
        world.net.host(host(reader)).is_symmetric = True
        began_at = trio.current_time()
        with pytest.raises(NoSourceError) as caught:
            await world.read(reader, "film.mkv")

        assert trio.current_time() - began_at <= ERROR_S
        text = str(caught.value)
        assert f"servent-1 at {host(1)}:4774 cannot be dialled" in text
        assert "it seems to be behind a router" in text
        assert "dial back" in text


async def test_without_anybody_to_ask_the_error_says_so(autojump_clock: MockClock):
    async with behind_router(readers=2) as world:
        node = await world[2].browser.find("film.mkv")
        assert isinstance(node, RemoteFile)
        world.kill(0)
        await trio.sleep(100)
        with pytest.raises(TransferError, match="no neighbour is known"):
            await read_whole(world[2], node)


async def test_a_token_of_another_servent_gives_no_link(autojump_clock: MockClock):
    async with behind_router(readers=2) as world, trio.open_nursery() as nursery:
        world.net.host(host(0)).is_behind_router = True
        nursery.start_soon(world.read, 0, "film.mkv")
        await trio.sleep(0.5)
        (awaited,) = world[0].ways.pushes._awaited.items()
        (stranger,) = (
            link for link in world[0].overlay.neighbours if link.peer.name != "servent-1"
        )
        world[0].ways.pushes.pushed(stranger, awaited[0])

        assert awaited[1].link is None
        nursery.cancel_scope.cancel()
