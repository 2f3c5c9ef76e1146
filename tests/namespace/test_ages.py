"""What is old is asked for again behind those who look, and not for each of them."""

from __future__ import annotations

import itertools

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pfs.namespace.ages import MAX_TIMES, REFRESH_AFTER_S, Renewals, Times
from p2pfs.tasks import Tasks


async def test_a_listing_is_renewed_once_however_many_look(autojump_clock: MockClock):
    asked: list[tuple[str, float]] = []
    tasks = Tasks()
    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        renewals: Renewals[str] = Renewals(
            tasks, trio.current_time, lambda path: asked.append((path, trio.current_time()))
        )
        for _ in range(100):  # a question that fails leaves the listing as old as it is
            renewals.look("old", 5.0, after_s=4.0)
            renewals.look("young", 4.0, after_s=4.0)
            await wait_all_tasks_blocked()
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()

    paths, times = zip(*asked, strict=True)
    assert set(paths) == {"old"}
    assert len(times) == 4
    assert all(b - a > REFRESH_AFTER_S for a, b in itertools.pairwise(times))


async def test_when_it_ends_nothing_is_renewed(autojump_clock: MockClock):
    asked: list[str] = []
    tasks = Tasks()
    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        renewals: Renewals[str] = Renewals(tasks, trio.current_time, asked.append)
        nursery.cancel_scope.cancel()
    renewals.look("old", 5.0, after_s=4.0)
    await trio.sleep(0.1)

    assert asked == []


def test_times_are_remembered_of_the_latest_alone():
    times: Times[int] = Times()
    for key in range(MAX_TIMES + 1):
        times.put(key, float(key))

    assert times.get(0) == float("-inf")
    assert times.get(1) == 1.0
