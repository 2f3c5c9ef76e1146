"""What is said early is heard once."""

from __future__ import annotations

import pytest

from p2pfs.link import replays as replays_module
from p2pfs.link.replays import EARLY_AHEAD_S, Replays
from p2pfs.protocol import ServentId

ANNA, BEN, CARL = (ServentId(letter * 32) for letter in "abc")
START_US = 1_000_000_000


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = START_US / 1_000_000

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_was_said_once_is_not_heard_again(clock: Clock):
    replays = Replays(clock)
    assert replays.take(ANNA, START_US + 5)
    assert not replays.take(ANNA, START_US + 5)
    assert not replays.take(ANNA, START_US + 4)
    assert replays.take(BEN, START_US + 4)
    assert replays.take(ANNA, START_US + 6)


def test_what_was_said_before_the_start_is_not_heard_after_it(clock: Clock):
    assert Replays(clock).take(ANNA, START_US + 1)
    clock.now += 1
    assert not Replays(clock).take(ANNA, START_US + 1)


def test_what_was_said_before_what_was_forgotten_is_not_heard(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(replays_module, "MAX_SPEAKERS", 2)
    replays = Replays(clock)
    for peer, told_at in ((ANNA, 10), (BEN, 11), (CARL, 12)):
        assert replays.take(peer, START_US + told_at)
    assert not replays.take(ANNA, START_US + 10)
    assert replays.take(ANNA, START_US + 13)


def test_a_clock_far_ahead_is_not_heard_and_shuts_nobody_out_for_long(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(replays_module, "MAX_SPEAKERS", 1)
    replays = Replays(clock)
    ahead = START_US + int(EARLY_AHEAD_S * 1_000_000)
    assert not replays.take(ANNA, ahead + 1)
    assert replays.take(ANNA, ahead)
    clock.now += EARLY_AHEAD_S + 1
    assert replays.take(CARL, int(clock.now * 1_000_000))
