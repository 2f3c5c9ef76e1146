"""Whoever tells directories, or the room, of places where nobody is hides nobody who is there."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

import pytest
import trio
from trio.testing import MockClock

from p2pfs.link import Channel
from p2pfs.link.knocks import KNOCK_BURST, NAMED_BURST, NAMED_PER_MINUTE
from p2pfs.protocol import MIN_PORT, Address, FileId, NetworkKey, Subject, directory_key
from p2pfs.reach.beyond import ALONE_S, ENTER_EVERY_S, MAX_MET
from p2pfs.reach.lan import MAX_NEARBY, Lan, _Announced
from tests.helpers.directories import Shelf
from tests.helpers.watched import watched_machine
from tests.helpers.world import PORT, World, host, open_world

WATCHED_S = 120.0

MOST = NAMED_BURST + NAMED_PER_MINUTE * WATCHED_S / 60 + 1


def listen_in(world: World, number: int = 0) -> list[Address]:
    """Return the addresses that a servent of the world dials, as it does."""
    dialled: list[Address] = []
    network = world.net.host(host(number))
    dial = network.dial

    async def heard(address: Address) -> Channel:
        dialled.append(address)
        return await dial(address)

    network.dial = heard  # type: ignore[method-assign]
    return dialled


# Directories.

NETWORK = directory_key(NetworkKey.open(), Subject.NETWORK, b"")


def lies(networks: int) -> list[Address]:
    """Return a thousand addresses, some at ports that are not dialled."""
    places = itertools.cycle(f"9.{66 + number}.9.6" for number in range(networks))
    return [Address(next(places), port) for port in range(1_000, 4_000, 3)]


@pytest.mark.parametrize("networks", [1, 4])
async def test_a_directory_full_of_lies_of_few_networks_hides_nobody(
    autojump_clock: MockClock, networks: int
):
    async with open_world() as world:
        await world.start()
        await world.start()
        shelf = Shelf()
        shelf.told[NETWORK] = [*lies(networks), Address(host(1), PORT)]
        with ExitStack() as stack:
            directory = shelf.directory_at(Address(host(0), PORT))
            stack.enter_context(world[0].beyond.using(directory, is_public=False))
            dialled = listen_in(world)
            await world.linked(1, 1, within_s=ALONE_S + 2 * ENTER_EVERY_S)

    assert len(dialled) <= 3 * MAX_MET
    assert all(one.port >= MIN_PORT for one in dialled)


async def test_who_lies_in_a_directory_has_hardly_a_packet_sent(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        shelf = Shelf()
        shelf.told[NETWORK] = [
            Address(place, 5000)
            for number in range(250)
            for place in (f"9.{number}.9.1", f"10.{number}.9.1", f"127.0.{number}.1", "224.0.0.7")
        ]
        with ExitStack() as stack:
            directory = shelf.directory_at(Address(host(0), PORT))
            stack.enter_context(world[0].beyond.using(directory, is_public=False))
            dialled = listen_in(world)
            for number in range(60):
                content = FileId(bytes([number] * 32))
                key = directory_key(NetworkKey.open(), Subject.FILE, content)
                shelf.told[key] = shelf.told[NETWORK]
                await world[0].beyond.meet(content, ())
                await trio.sleep(WATCHED_S / 60)

    assert 1 <= len(dialled) <= MOST + MAX_MET
    assert all(one.host.startswith("9.") for one in dialled)


# The room.


async def test_a_room_full_of_lies_keeps_nobody_from_joining(autojump_clock: MockClock):
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        await world.start()
        dialled = listen_in(world)

        async def announce() -> None:
            for number in itertools.count():
                place = f"10.{66 + number // 250 % 100}.{number % 250}.1"
                world.net.host(place).is_behind_router = True  # it swallows what comes
                world[0].overlay.came_near(str(number), (Address(place, 5000),))
                world[0].overlay.went_away(str(number - MAX_NEARBY))
                await trio.sleep(0.1)

        nursery.start_soon(announce)
        await trio.sleep(30)
        world[0].overlay.join_later(Address(host(1), PORT))
        await world.linked(1, 1, within_s=5)
        await trio.sleep(WATCHED_S - 35)
        nursery.cancel_scope.cancel()

    assert KNOCK_BURST <= len([one for one in dialled if one.host != host(1)]) <= MOST


async def test_who_announces_others_in_the_room_has_hardly_a_packet_sent(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start()
        dialled = listen_in(world)
        for number in range(int(10 * WATCHED_S)):
            place = f"10.{66 + number // 250}.{number % 250}.1"  # where nobody is
            world[0].overlay.came_near(str(number), (Address(place, 5000),))
            world[0].overlay.went_away(str(number - MAX_NEARBY))
            await trio.sleep(0.1)

    assert KNOCK_BURST <= len(dialled) <= MOST


class Room:
    """A meeting that notes what it is told."""

    def __init__(self) -> None:
        self.here: set[str] = set()

    def came_near(self, name: str, _addresses: object) -> None:
        self.here.add(name)

    def went_away(self, name: str) -> None:
        self.here.discard(name)


def test_who_comes_into_a_room_full_of_lies_is_heard():
    lan, room = Lan(NetworkKey.open(), lambda: (), watched_machine()[1]), Room()
    place = (Address("192.168.1.2", PORT),)
    for number in range(3 * MAX_NEARBY):
        lan.take(_Announced(str(number), place), room)

    lan.take(_Announced("honest", place), room)

    assert "honest" in room.here
    assert len(room.here) == MAX_NEARBY
