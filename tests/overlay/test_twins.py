"""Two servents with one key are told so, and nobody else is."""

from __future__ import annotations

import shutil

import trio
from trio.testing import MockClock

from p2pfs.journal import Journal
from p2pfs.overlay.twins import SIGNS, SIGNS_APART_S, TEXT, WITHIN_S, Twins
from tests.helpers.world import World, host, open_world


def complaints(world: World, number: int) -> list[str]:
    return [event.text for event in world[number].journal.events() if event.text == TEXT]


async def test_two_servents_with_one_key_are_told_so(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await world.start()
        await world.start(joins=[0])
        await world.linked(1, 1)
        copy = world.config(2).state_directory
        shutil.copy(world[1].config.identity_path, copy)
        await trio.sleep(60)

        await world.start(joins=[0])
        await trio.sleep(900)

        assert world[2].whereabouts.identity.id == world[1].whereabouts.identity.id
        assert complaints(world, 1) or complaints(world, 2)
        assert not complaints(world, 0)


async def test_a_servent_that_is_started_again_and_again_is_told_nothing(
    autojump_clock: MockClock,
):
    async with open_world(latency_s=0.01) as world:
        for _ in range(6):
            await world.start(joins=[0] if world.servents else [])
        await trio.sleep(60)
        for _ in range(8):
            world.net.cut(host(3))
            world.stop(3)
            await trio.sleep(0.5)
            await world.come_back(3)
            await trio.sleep(30)

        assert not any(complaints(world, number) for number in range(6))


def test_signs_that_are_close_together_or_far_apart_are_no_twin():
    journal = Journal(lambda: 0.0)
    twins = Twins(journal)
    for number in range(10 * SIGNS):
        twins.sign(number * SIGNS_APART_S / 100)
    for number in range(2 * SIGNS):
        twins.sign(10_000 + number * WITHIN_S / (SIGNS - 1))

    assert not journal.events()
    for number in range(SIGNS):
        twins.sign(100_000 + number * SIGNS_APART_S)
    assert [event.text for event in journal.events()] == [TEXT]
