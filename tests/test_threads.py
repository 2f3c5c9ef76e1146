"""Lanes: who waits in one does not hold up another."""

from __future__ import annotations

import threading

import trio
import trio.testing

from p2pfs.threads import lane


async def test_a_full_lane_holds_up_no_other():
    full, other = lane(3), lane(1)
    over = threading.Event()
    ended = []

    async def wait(number: int) -> None:
        await full(over.wait)
        ended.append(number)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(wait, number)
            await trio.testing.wait_all_tasks_blocked()
            assert await other(threading.current_thread) is not threading.current_thread()
            assert await trio.to_thread.run_sync(len, "as DNS does") == len("as DNS does")
            assert not ended
            over.set()

    assert len(ended) == 60


async def test_so_many_run_at_once_and_no_more():
    run = lane(3)
    running, most = 0, 0
    lock = threading.Lock()
    gate = threading.Barrier(3)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait(60)
        with lock:
            running -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(run, work)

    assert most == 3
