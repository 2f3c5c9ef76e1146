"""Many join through one, as when a hall is told one address.

`P2PFS_JOINERS=500 pytest -s tests/simulation/test_joining.py` is the benchmark of full size.
"""

from __future__ import annotations

import os

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import MAX_NEIGHBOURS, MIN_NEIGHBOURS
from tests.helpers.world import open_world

JOINERS = int(os.environ.get("P2PFS_JOINERS", "40"))
"""More than a servent has room for."""

JOINED_WITHIN_S = 10.0
HAVE_NEIGHBOURS_WITHIN_S = 15.0
A_LOOK_S = 1.5


@pytest.mark.slow
async def test_all_who_join_through_one_have_neighbours_and_it_stays_usable(
    autojump_clock: MockClock,
):
    async with open_world(latency_s=0.002) as world:
        await world.start()
        began_at = trio.current_time()
        for number in range(1, JOINERS + 1):
            await world.start(joins=[0])
            await world.share(number, f"p{number}.txt", b"x")
            await trio.sleep_until(began_at + number * JOINED_WITHIN_S / JOINERS)

        await trio.sleep_until(began_at + HAVE_NEIGHBOURS_WITHIN_S)
        degrees = [len(servent.overlay.neighbours) for servent in world.servents]
        looked_at = trio.current_time()
        names = await world.names(0)
        took_s = trio.current_time() - looked_at
        figures = f"{min(degrees)} to {max(degrees)} neighbours, a look takes {took_s:.2f} s"
        print(f"{JOINERS} joined: {figures}")  # noqa: T201 - the benchmark tells them
        assert min(degrees) >= MIN_NEIGHBOURS
        assert max(degrees) <= MAX_NEIGHBOURS
        assert set(names) == {f"p{number}.txt" for number in range(1, JOINERS + 1)}
        assert took_s <= A_LOOK_S
