"""A servent whose network changes, on a network in memory: addresses, cables, sleep."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pfs.journal import Journal
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import Identity
from p2pfs.reach.changes import CLOCK_S, SETTLE_S, NetworkChanges
from tests.helpers.contents import Content
from tests.helpers.memnet import MemoryHost, MemoryNetwork
from tests.helpers.world import World, host, open_world

FILM = Content.of(12_000_000)

RATE_BYTES_S = 1_000_000

BACK_WITHIN_S = 3.0

LONGEST_WAIT_S = 5.0


async def waits_of_read(world: World, number: int) -> list[float]:
    """Read the film as it comes, and return how long each read waited."""
    node = await world[number].browser.find("film.mkv")
    assert isinstance(node, RemoteFile)
    reader = world[number].swarms.open(node)
    waits = []
    try:
        for offset in range(0, node.size, 128 * 1024):
            length = min(128 * 1024, node.size - offset)
            began_at = trio.current_time()
            if reader.locate_nowait(offset, length) is None:
                await reader.locate(offset, length)
            waits.append(trio.current_time() - began_at)
    finally:
        reader.close()
    return waits


def identities(world: World, *, first_is_smaller: bool) -> None:
    """Give servents 0 and 1 identities, in this order."""
    made = sorted((Identity.generate() for _ in range(2)), key=lambda one: one.id)
    for number, identity in enumerate(made if first_is_smaller else reversed(made)):
        world.config(number).identity_path.write_bytes(identity.to_bytes())


async def two_that_share_a_film(world: World) -> None:
    await world.start()
    await world.start(joins=[0])
    await world.linked(1, 1)
    await world.share(0, "film.mkv", FILM.data)
    world.net.set_upload_rate(host(0), RATE_BYTES_S)
    await trio.sleep(70)


@pytest.mark.parametrize("who", [0, 1], ids=["source", "reader"])
async def test_a_read_goes_on_when_an_address_changes(autojump_clock: MockClock, who: int):
    async with open_world(latency_s=0.01) as world, trio.open_nursery() as nursery:
        await two_that_share_a_film(world)
        waits: list[float] = []

        async def read() -> None:
            waits.extend(await waits_of_read(world, 1))

        nursery.start_soon(read)
        await trio.sleep(3)
        world.net.host(host(who)).move("10.0.9.9")

    assert sum(waits) >= 10
    assert max(waits) <= LONGEST_WAIT_S


@pytest.mark.parametrize("age_s", [0.1, 0.6, 3.0])
@pytest.mark.parametrize("first_is_smaller", [False, True], ids=["larger", "smaller"])
@pytest.mark.parametrize("who", [0, 1], ids=["source", "reader"])
async def test_an_address_may_change_when_the_link_is_young(
    autojump_clock: MockClock, who: int, first_is_smaller: bool, age_s: float
):
    async with open_world(latency_s=0.01) as world, trio.open_nursery() as nursery:
        identities(world, first_is_smaller=first_is_smaller)
        await world.start()
        await world.share(0, "film.mkv", FILM.data)
        world.net.set_upload_rate(host(0), RATE_BYTES_S)
        await world.start(joins=[0])
        await world.linked(1, 1)
        waits: list[float] = []

        async def read() -> None:
            waits.extend(await waits_of_read(world, 1))

        nursery.start_soon(read)
        await trio.sleep(age_s)
        world.net.host(host(who)).move("10.0.9.9")

    assert sum(waits) >= 10
    assert max(waits) <= LONGEST_WAIT_S


async def test_a_source_two_links_away_may_move_too(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world, trio.open_nursery() as nursery:
        await world.start(max_neighbours=1)
        await world.start(joins=[0], max_neighbours=2)
        await world.linked(1, 1)
        await world.start(joins=[1], max_neighbours=1)
        await world.linked(1, 2, 1)
        await world.share(0, "film.mkv", FILM.data)
        world.net.set_upload_rate(host(0), RATE_BYTES_S)
        await trio.sleep(70)
        waits: list[float] = []

        async def read() -> None:
            waits.extend(await waits_of_read(world, 2))

        nursery.start_soon(read)
        await trio.sleep(3)
        world.net.host(host(0)).move("10.0.9.9")

    assert max(waits) <= LONGEST_WAIT_S


@pytest.mark.parametrize("who", [0, 1])
async def test_after_an_outage_of_minutes_neighbours_are_back_at_once(
    autojump_clock: MockClock, who: int
):
    async with open_world(latency_s=0.01) as world:
        await two_that_share_a_film(world)
        cable = world.net.host(host(who))
        cable.unplug()
        await trio.sleep(150)
        assert not world[0].overlay.neighbours
        assert not world[1].overlay.neighbours

        cable.plug_in()

        await world.linked(1, 1, within_s=BACK_WITHIN_S)


async def test_a_lease_that_is_renewed_is_no_change(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await two_that_share_a_film(world)
        world.net.host(host(0)).tell_of_change()
        await trio.sleep(SETTLE_S + 1)

        assert not any("has changed" in event.text for event in world[0].journal.events())


class Sleeper:
    """A machine, its clock, and what it was told to do with its links."""

    def __init__(self, network: MemoryHost) -> None:
        self.slept_s = 0.0
        self.fresh_starts = 0
        self.changes = NetworkChanges(
            network, lambda: (), self._start_afresh, Journal(trio.current_time), self.clock
        )

    def clock(self) -> float:
        return trio.current_time() + self.slept_s

    def _start_afresh(self) -> None:
        self.fresh_starts += 1


@pytest.mark.parametrize(("slept_s", "fresh_starts"), [(120, 1), (4, 0)])
async def test_a_machine_that_has_slept_begins_afresh(
    autojump_clock: MockClock, slept_s: float, fresh_starts: int
):
    machine = Sleeper(MemoryNetwork().host("10.0.0.1"))
    async with trio.open_nursery() as nursery:
        await nursery.start(machine.changes.run)
        await trio.sleep(2 * CLOCK_S + 1)
        machine.slept_s = slept_s
        await trio.sleep(CLOCK_S + 1)
        nursery.cancel_scope.cancel()

    assert machine.fresh_starts == fresh_starts
