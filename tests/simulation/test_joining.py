"""Many join through one, as when a hall is told one address.

`P2PFS_JOINERS=500 pytest -s --timeout 0 -o faulthandler_timeout=0 tests/simulation/test_joining.py`
is the benchmark of full size.
"""

from __future__ import annotations

import os
import time

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import MAX_NEIGHBOURS, MIN_NEIGHBOURS
from p2pfs.namespace import RemoteFile
from tests.helpers.world import World, open_world

JOINERS = int(os.environ.get("P2PFS_JOINERS", "40"))
"""More than a servent has room for."""

SHARERS = 40
"""The first of them share a file: that is told to everybody, and all of them run on one core."""

JOINED_WITHIN_S = 10.0
HAVE_NEIGHBOURS_WITHIN_S = 15.0
A_LOOK_S = 1.5

SEARCHES = 10
"""By a neighbour of the one, one a second while the others join."""

THE_ONE, NEIGHBOUR = 0, 1


@pytest.mark.slow
async def test_all_who_join_through_one_have_neighbours_and_it_stays_usable(
    autojump_clock: MockClock,
):
    began_real = time.process_time()
    async with open_world(latency_s=0.002) as world:
        await world.start()
        for number in range(SEARCHES):
            await world.share(THE_ONE, wanted(number), b"x")
        await world.start(joins=[THE_ONE], max_neighbours=1)
        await world.linked(1, 1)
        began_at = trio.current_time()
        searched_s: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(search_on, world, searched_s)
            for number in range(1, JOINERS + 1):
                await world.start(joins=[THE_ONE])
                if number <= SHARERS:
                    await world.share(NEIGHBOUR + number, f"p{number}.txt", b"x")
                await trio.sleep_until(began_at + number * JOINED_WITHIN_S / JOINERS)

        await trio.sleep_until(began_at + HAVE_NEIGHBOURS_WITHIN_S)
        degrees = [
            len(servent.overlay.neighbours)
            for number, servent in enumerate(world.servents)
            if number != NEIGHBOUR
        ]
        looked_at = trio.current_time()
        names = await world.names(THE_ONE)
        took_s = trio.current_time() - looked_at
        figures = f"{min(degrees)} to {max(degrees)} neighbours, a look takes {took_s:.2f} s"
        searches = f"its neighbour's searches {max(searched_s):.2f} s at most"
        cost = f"{time.process_time() - began_real:.0f} s of processor"
        print(f"{JOINERS} joined: {figures}, {searches}; {cost}")  # noqa: T201 - the benchmark tells them
        assert min(degrees) >= MIN_NEIGHBOURS
        assert max(degrees) <= MAX_NEIGHBOURS
        assert len(searched_s) == SEARCHES
        assert max(searched_s) <= A_LOOK_S
        assert set(names) == {f"p{number}.txt" for number in range(1, min(JOINERS, SHARERS) + 1)}
        assert took_s <= A_LOOK_S


def wanted(number: int) -> str:
    return f"wanted{number}/it.txt"


async def search_on(world: World, took_s: list[float]) -> None:
    """Let the neighbour of the one search it time and again, and note how long that takes."""
    for number in range(SEARCHES):
        began_at = trio.current_time()
        found = await world[NEIGHBOUR].browser.find(wanted(number))
        assert isinstance(found, RemoteFile)
        took_s.append(trio.current_time() - began_at)
        await trio.sleep_until(began_at + JOINED_WITHIN_S / SEARCHES)
