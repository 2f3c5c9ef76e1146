"""A bug ends the one task that has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from p2pfs.errors import ShutdownError
from p2pfs.tasks import (
    AGAIN_AFTER_S,
    AGAIN_AT_MOST_S,
    Tasks,
    called,
    for_each,
    guarded,
    kept_up,
)


@pytest.fixture(autouse=True)
def _bugs(expect_log):
    expect_log("a bug of ours")


async def stumble(*_arguments: object) -> None:
    await trio.lowlevel.checkpoint()
    raise ZeroDivisionError


async def stumble_in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stumble)
        nursery.start_soon(trio.sleep_forever)


@pytest.mark.parametrize("bug", [stumble, stumble_in_a_nursery])
async def test_a_bug_ends_its_own_task_and_leaves_a_traceback(bug, caplog):
    tasks, done = Tasks(), trio.Event()

    async def other() -> None:
        await trio.testing.wait_all_tasks_blocked()
        done.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        tasks.start(bug)
        tasks.start(other)
        await done.wait()
        assert tasks.are_running
        nursery.cancel_scope.cancel()

    assert "ZeroDivisionError" in caplog.text
    assert bug.__name__ in caplog.text


async def beginnings(lasting: Callable[[int], Awaitable[None]], seconds: float) -> list[float]:
    """Return when a task that lasts began, within so many seconds."""
    began_at: list[float] = []

    async def noted() -> None:
        began_at.append(trio.current_time())
        await lasting(len(began_at))

    tasks = Tasks()
    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run, noted)
        await trio.sleep(seconds)
        nursery.cancel_scope.cancel()
    return [at - began_at[0] for at in began_at]


async def test_what_lasts_begins_anew_after_a_bug(autojump_clock: MockClock):
    async def lasting(time: int) -> None:
        if time < 4:
            await stumble()
        await trio.sleep_forever()

    assert await beginnings(lasting, 1_000) == [0, 1, 3, 7]


async def test_a_bug_at_each_beginning_is_met_ever_more_seldom(autojump_clock: MockClock):
    async def lasting(_time: int) -> None:
        await stumble()

    began_at = await beginnings(lasting, 1_000)

    assert began_at[-1] - began_at[-2] == AGAIN_AT_MOST_S
    assert len(began_at) < 25


async def test_a_bug_after_a_long_time_without_is_met_as_the_first(autojump_clock: MockClock):
    async def lasting(time: int) -> None:
        if time == 5:
            await trio.sleep(10 * AGAIN_AT_MOST_S)
        await stumble()

    began_at = await beginnings(lasting, 2_000)

    assert began_at[5] - began_at[4] == 10 * AGAIN_AT_MOST_S + AGAIN_AFTER_S


async def test_what_ends_by_itself_is_not_begun_anew():
    calls = []

    async def once() -> None:
        await trio.lowlevel.checkpoint()
        calls.append(1)

    await kept_up(once)

    assert calls == [1]


async def test_a_cancellation_is_no_bug():
    with trio.move_on_after(0) as scope:
        await guarded(trio.sleep_forever)

    assert scope.cancelled_caught


async def test_whether_a_task_came_through_is_told():
    async def end() -> None:
        await trio.lowlevel.checkpoint()
        raise ShutdownError("over")

    assert not await guarded(stumble, 1, 2)
    assert await guarded(trio.sleep, 0)
    assert await guarded(end)


async def test_a_bug_in_a_call_from_another_thread_ends_that_call_alone(caplog):
    tasks, calls = Tasks(), []

    def stumble_at_once(number: int) -> None:
        calls.append(number)
        raise ZeroDivisionError

    tasks.soon(stumble_at_once, 0)
    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        await trio.to_thread.run_sync(tasks.soon, stumble_at_once, 1)
        tasks.soon(calls.append, 2)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    called(stumble_at_once, 3)

    assert calls == [1, 2, 3]
    assert "stumble_at_once" in caplog.text


async def test_nothing_starts_after_the_end():
    tasks = Tasks()
    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        nursery.cancel_scope.cancel()

    with pytest.raises(ShutdownError):
        tasks.start(trio.sleep, 0)


async def test_of_many_tasks_a_few_run_at_once_and_a_bug_ends_one(
    autojump_clock: MockClock, caplog
):
    running, most, done = 0, 0, []

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1
        if number == 2:
            raise ZeroDivisionError
        done.append(number)

    began_at = trio.current_time()
    await for_each(range(7), work, at_once=3)

    assert sorted(done) == [0, 1, 3, 4, 5, 6]
    assert most == 3
    assert trio.current_time() - began_at == pytest.approx(3)
    assert "a bug of ours ended one task" in caplog.text
