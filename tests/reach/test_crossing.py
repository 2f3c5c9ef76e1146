"""Servents that dial each other at one moment, or one servent at two addresses, make one link."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pfs.link import Link
from p2pfs.protocol import Address
from tests.helpers.world import PORT, host, open_world


@pytest.mark.parametrize("seed", range(4))
async def test_servents_that_start_together_are_told_of_as_joined_and_never_as_gone(
    autojump_clock: MockClock, seed: int
):
    async with open_world(latency_s=0.01, seed=seed) as world:
        for number in (2, 3):
            world.net.set_latency(host(0), host(number), 0.3)
        await world.start()
        await world.start(joins=[0])
        await world.start(joins=[0, 1])
        await world.start(joins=[0, 1])
        await trio.sleep(20)

        for servent in world.servents:
            assert len(servent.overlay.neighbours) == 3
            assert not [e.text for e in servent.journal.events() if " is gone" in e.text]


@pytest.mark.parametrize("seed", range(4))
async def test_a_servent_with_two_addresses_is_linked_once(autojump_clock: MockClock, seed: int):
    async with open_world(latency_s=0.01, seed=seed) as world:
        await world.start()
        world.net.also_known(host(0), "10.0.9.9")
        await world.start()
        taken: list[Link] = []
        adopt = world[0].overlay.adopt
        world[0].overlay.adopt = lambda link: taken.append(link) or adopt(link)
        for place in (host(0), "10.0.9.9"):
            world[1].overlay.join_later(Address(place, PORT))
        await world.linked(1, 1)
        await trio.sleep(5)

        assert taken == list(world[0].overlay.neighbours)
