"""A rate limit: never more in any window, and hardly less."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.rates import AIM, FLOW_FORGOTTEN_S, FLOW_S, SHORTEST_WAIT_S, WINDOW_S, Flow, RateLimit

LIMIT = 20_000_000

LATENESS = st.lists(st.sampled_from([0.0, 0.0002, 0.003, 0.02, 0.5, 6.0]), min_size=1, max_size=20)


def passed(limit_bytes_s: float, late_s: list[float], until_s: float) -> list[tuple[float, int]]:
    """Return when pieces pass if the one who waits is late each time by these, in turn."""
    limit = RateLimit(limit_bytes_s)
    now, pieces = 100.0, []
    for late in itertools.cycle(late_s):
        while (wait_s := limit.wait_s(now)) > 0:
            now += wait_s + late
        if now > 100.0 + until_s:
            return pieces
        limit.charge(limit.piece_bytes, now)
        pieces.append((now, limit.piece_bytes))
        now += late / 10
    return pieces


def most_in(pieces: list[tuple[float, int]], window_s: float) -> int:
    """Return the most that passes in any window of that length."""
    most = total = first = 0
    for at, count in pieces:
        total += count
        while pieces[first][0] < at - window_s:
            total -= pieces[first][1]
            first += 1
        most = max(most, total)
    return most


@given(late_s=LATENESS, limit_bytes_s=st.sampled_from([100_000, 1_000_000, LIMIT, 2**36]))
def test_no_window_sees_more_than_the_limit(late_s: list[float], limit_bytes_s: int):
    pieces = passed(limit_bytes_s, late_s, 12.0)

    for window_s in (WINDOW_S, 1.5 * WINDOW_S):
        assert most_in(pieces, window_s) <= window_s * limit_bytes_s + 1


@pytest.mark.parametrize("late_s", [0.0, 0.001, 0.02])
def test_who_is_a_little_late_makes_up_for_it(late_s: float):
    pieces = passed(LIMIT, [late_s], 20.0)

    assert sum(count for _, count in pieces) >= 0.98 * LIMIT * 20.0


def test_a_large_piece_passes_and_the_next_pays_for_it():
    limit = RateLimit(1_000_000)
    limit.charge(5_000_000, 0.0)

    assert limit.wait_s(0.0) == pytest.approx(5 / AIM, rel=0.01)
    assert limit.wait_s(5.1) == 0.0


def test_what_did_not_pass_is_given_back():
    limit = RateLimit(1_000_000)
    limit.charge(1_000_000, 0.0)
    limit.refund(1_000_000)

    assert limit.wait_s(0.0) == 0.0


def test_no_wait_is_too_short_for_a_timer():
    limit = RateLimit(1_000_000)
    limit.charge(limit.piece_bytes + int(1_000_000 * (1 - AIM) * WINDOW_S), 0.0)
    now = limit.wait_s(0.0)

    while limit.wait_s(now) == 0.0:
        limit.charge(1, now)

    assert limit.wait_s(now) >= SHORTEST_WAIT_S


@given(
    rate=st.floats(1e4, 1e9),
    steps_s=st.lists(st.floats(0.03, 0.3), min_size=200, max_size=300),
)
def test_a_steady_flow_is_told_right(rate: float, steps_s: list[float]):
    flow, now = Flow(), 50.0
    for step_s in steps_s:
        now += step_s
        flow.add(int(rate * step_s), now)

    # The longest step is the resolution.
    assert flow.rate(now) == pytest.approx(rate, rel=0.3 / FLOW_S)


def test_a_flow_that_stops_fades_and_is_forgotten():
    flow = Flow()
    for tenth in range(100):
        flow.add(100_000, tenth / 10)

    assert flow.rate(9.9) == pytest.approx(1e6, rel=0.1)
    assert flow.rate(9.9 + FLOW_S) == pytest.approx(1e6 / 2.718, rel=0.1)
    assert flow.rate(10.0 + FLOW_FORGOTTEN_S) == 0.0
    flow.add(100_000, 30.0)
    flow.add(100_000, 30.5)
    assert flow.rate(30.5) < 1e6


def test_nothing_flows_before_the_first_byte():
    assert Flow().rate(123.0) == 0.0
