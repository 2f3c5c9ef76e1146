"""When the bitmap of a content is written, though who had it written was cut off."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.testing import MockClock

from p2pfs.cache.flushing import FLUSH_S, Flushing
from tests.helpers.threads import run_directly


async def no_thread_is_free(*_: object) -> None:
    await trio.sleep_forever()


async def test_what_one_that_was_cut_off_has_left_is_synced_by_the_next(
    autojump_clock: MockClock,
) -> None:
    flushing = Flushing()
    done: list[str] = []

    async def go_on(run_in_thread: Callable[..., object], seconds: float) -> None:
        with trio.move_on_after(seconds):
            await flushing.go_on(run_in_thread, bool, lambda: done.append("synced"))

    flushing.wrote(100)
    flushing.schedule()
    await go_on(no_thread_is_free, 2 * FLUSH_S)
    await go_on(run_directly, 2 * FLUSH_S)

    assert done == ["synced"]
