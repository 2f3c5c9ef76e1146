"""The line that the benchmarks put between two programs."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from contrib.benchmarks.relay import Direction


async def test_what_is_put_in_comes_out_after_the_delay_and_no_faster_than_the_rate(
    autojump_clock: MockClock,
) -> None:
    line = Direction(0.05, 1e6)

    first, second = line.due(100_000), line.due(100_000)

    assert first == pytest.approx(0.1 + 0.05)
    assert second == pytest.approx(0.2 + 0.05)
    await trio.sleep(1)
    assert line.due(100_000) == pytest.approx(1 + 0.1 + 0.05), "an idle line saves up nothing"


def test_a_connection_may_fill_the_line() -> None:
    line = Direction(0.025, 25e6)

    assert line.window_bytes >= 0.05 * 25e6
