"""What is gone is not listed for ever, whatever a neighbour withholds; what is there stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pfs.namespace.confirming import CONFIRM_EVERY_S, CONFIRM_S, STRIKES
from p2pfs.protocol.messages import Address, LinkKind
from tests.helpers.rogues import RawPeer
from tests.helpers.world import PORT, World, host, open_world

HOUR_S = 3_600.0
WITHHOLDER = "10.9.0.1"


async def answer_pings_alone(world: World) -> None:
    """Be a neighbour of servent 0 that takes every query and never says that it is done."""
    address = Address(host(0), PORT)
    peer = await RawPeer.dial(world.net.host(WITHHOLDER), address, LinkKind.NEIGHBOUR)
    await peer.answer_pings()


@asynccontextmanager
async def withholding(**changes: object) -> AsyncIterator[World]:
    """Give 0 - 1 - 2, where 1 and 2 share a file each, and a neighbour of 0 that says nothing."""
    async with open_world(latency_s=0.01) as world, trio.open_nursery() as nursery:
        await world.start(max_neighbours=3)
        await world.start(joins=[0], max_neighbours=2)
        await world.linked(1, 1)
        await world.start(joins=[1], max_neighbours=1)
        await world.linked(1, 2, 1)
        await world.share(2, "gone.txt", b"x" * 1000)
        await world.share(1, "here.txt", b"y" * 1000)
        nursery.start_soon(answer_pings_alone, world)
        await trio.sleep(10)
        assert await world.names(0) == ["gone.txt", "here.txt"]
        yield world
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_killed", [False, True])
async def test_what_has_no_holder_is_not_listed_an_hour_later(
    is_killed: bool, autojump_clock: MockClock
):
    async with withholding() as world:
        (world.kill if is_killed else world.stop)(2)
        await trio.sleep(HOUR_S)
        assert await world.names(0) == ["here.txt"]


async def test_nor_while_somebody_looks_all_the_time(autojump_clock: MockClock):
    async with withholding() as world:
        world.stop(2)
        for _look in range(60):
            await world.names(0)
            await trio.sleep(60)
        assert await world.names(0) == ["here.txt"]


async def test_what_is_there_stays_though_nobody_tells_of_it(autojump_clock: MockClock):
    async with withholding() as world:
        await trio.sleep(HOUR_S)
        assert await world.names(0) == ["gone.txt", "here.txt"]


async def test_one_that_cannot_be_reached_once_is_not_forgotten(autojump_clock: MockClock):
    async with withholding() as world:
        await trio.sleep(CONFIRM_S + CONFIRM_EVERY_S / 2)
        world.net.partition([host(0), WITHHOLDER], [host(2)])
        await trio.sleep((STRIKES - 1) * CONFIRM_EVERY_S)
        world.net.heal()
        await trio.sleep(HOUR_S)
        node = world[0].namespace.browser._catalogue.shown.lookup("gone.txt", trio.current_time())
        assert node.sources[0].id == world[2].whereabouts.identity.id


async def test_alone_nobody_is_forgotten(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await world.start(max_neighbours=1)
        await world.start(joins=[0], max_neighbours=1)
        await world.linked(1, 1)
        await world.share(1, "here.txt", b"y" * 1000)
        assert await world.names(0) == ["here.txt"]
        world.kill(1)
        await trio.sleep(HOUR_S)
        shown = world[0].namespace.browser.known_children("")
        assert [node.path for node in shown] == ["here.txt"]
