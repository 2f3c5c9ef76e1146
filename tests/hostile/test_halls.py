"""People in a crowded hall, and strangers of many networks among them who ask without end."""

from __future__ import annotations

import contextlib
import os
import random

import pytest
import trio
from trio.testing import MockClock

from p2pfs.protocol import fields
from p2pfs.protocol import messages as m
from p2pfs.protocol.flood import spreading
from tests.helpers.rogues import RawPeer
from tests.helpers.world import World, open_world
from tests.simulation.test_hall import hall  # noqa: F401 - a fixture

PEOPLE, AS_MANY = 24, 300
"""All of them have addresses in one network, as in a lab."""

NETWORKS = 10
BEFORE_S, PHASE_S = 30.0, 6.0
MOST = 0.8
"""The part of the looks that is whole: links carry little more than so many people ask at first."""

SEED = int(os.environ.get("P2PFS_SEED", "1"))


async def ask(rogue: RawPeer, lock: trio.Lock) -> None:
    """Ask as often as a neighbour may, as if somebody else did."""
    while True:
        guid = fields.Guid(os.urandom(16))
        async with lock:
            await rogue.send(m.Query(guid, 3, 1, m.QueryKind.DIRECTORY, "", 50, 5000))
        await trio.sleep(1 / spreading.QUERIES_PER_S)


async def answer(rogue: RawPeer, lock: trio.Lock) -> None:
    """Answer what is asked, with nothing, so that nobody waits for that."""
    while True:
        message, number = await rogue.receive()
        async with lock:
            if isinstance(message, m.Query):
                await rogue.send(m.Done(message.guid, message.ttl, 1, 0, is_complete=True))
            elif isinstance(message, m.Ping):
                await rogue.send(m.Pong(), number)


async def flood(world: World, network: int, neighbour: int) -> None:
    address = world[neighbour].whereabouts.listen_address
    host = world.net.host(f"10.{60 + network}.6.6")
    rogue, lock = await RawPeer.dial(host, address, m.LinkKind.NEIGHBOUR), trio.Lock()
    with contextlib.suppress(trio.BrokenResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, rogue, lock)
            nursery.start_soon(answer, rogue, lock)


@pytest.mark.slow
async def test_three_hundred_in_one_network_get_on_beside_ten_networks_of_strangers(
    hall,  # noqa: F811 - the fixture
    autojump_clock: MockClock,
):
    rng = random.Random(SEED)
    with hall.crowded(AS_MANY / PEOPLE) as publish_every_s:
        async with open_world(latency_s=hall.LATENCY_S, seed=SEED) as world:
            people = hall.Hall(world, PEOPLE, rng, PHASE_S, publish_every_s)
            await people.come()
            async with trio.open_nursery() as nursery:
                for network, neighbour in enumerate(rng.sample(range(PEOPLE), NETWORKS)):
                    nursery.start_soon(flood, world, network, neighbour)
                await trio.sleep(BEFORE_S)
                await people.look(nursery)
                nursery.cancel_scope.cancel()

    (looks,) = people.looks.values()
    assert len(looks) >= 2 * PEOPLE
    whole = [one for one in looks if one.is_whole]
    print(f"{len(whole)} of {len(looks)} looks are whole")  # noqa: T201 - hostile.md tells it
    assert not [one for one in looks if one.missing]
    assert len(whole) >= MOST * len(looks)
