"""When a silent peer is asked whether it is there, and when it is given up."""

from __future__ import annotations

import math

import pytest

from p2pfs.link.pulse import (
    DEAD_AFTER_S,
    OWED_DEAD_AFTER_S,
    OWED_PING_AFTER_S,
    PING_AFTER_S,
    READING_PING_AFTER_S,
    SILENT_AFTER_S,
    Pulse,
)


def follow(pulse: Pulse, until: float) -> list[tuple[float, str]]:
    """Do what a link does while nothing comes, and return what that was and when."""
    done = []
    while (now := pulse.next_look_at()) <= until:
        if pulse.dead_at() <= now:
            return [*done, (now, "dead")]
        if pulse.ping_at() <= now:
            pulse.pinged(now)
            done.append((now, "ping"))
        else:
            pulse.told_silent(now)
            done.append((now, "silent"))
    return done


def test_who_owes_nothing_may_be_silent_for_long():
    assert follow(Pulse(0, is_reading=True), math.inf) == [
        (PING_AFTER_S, "ping"),
        (2 * PING_AFTER_S, "ping"),
        (DEAD_AFTER_S, "dead"),
    ]


def test_a_neighbour_that_owes_an_answer_is_asked_soon():
    pulse = Pulse(0, is_reading=False)
    pulse.owes(7, is_owed=True)

    asked_at = 7 + OWED_PING_AFTER_S
    done = follow(pulse, math.inf)
    assert done[0] == (asked_at, "ping")
    assert done[-1] == (asked_at + OWED_DEAD_AFTER_S, "dead")


def test_where_a_reader_waits_another_way_is_looked_for_after_two_seconds():
    pulse = Pulse(0, is_reading=True)
    pulse.owes(7, is_owed=True)

    assert follow(pulse, 11) == [
        (7 + READING_PING_AFTER_S, "ping"),
        (7 + SILENT_AFTER_S, "silent"),
        (7 + 2 * SILENT_AFTER_S, "silent"),
    ]
    assert pulse.is_silent(11)


def test_who_says_that_it_is_there_is_no_silent_peer():
    pulse = Pulse(0, is_reading=True)
    pulse.owes(0, is_owed=True)
    pings = 0
    while (now := pulse.next_look_at()) < 100:
        assert pulse.ping_at() <= now, "silent, or dead"
        pulse.pinged(now)
        pings += 1
        pulse.got_bytes(now + 0.1)
        pulse.heard(now + 0.1, is_pong=True)

    assert pings <= 2 + 100 / OWED_PING_AFTER_S


def test_who_sends_a_frame_slowly_is_not_silent_but_dies_in_the_end():
    pulse = Pulse(0, is_reading=True)
    pulse.owes(0, is_owed=True)
    now = 0.0
    while now < DEAD_AFTER_S:
        assert pulse.dead_at() == DEAD_AFTER_S
        assert not pulse.is_silent(now)
        now += 0.5
        pulse.got_bytes(now)


def test_nothing_is_owed_any_more_after_the_answer():
    pulse = Pulse(0, is_reading=True)
    pulse.owes(0, is_owed=True)
    pulse.pinged(1)
    pulse.owes(1.5, is_owed=False)

    assert not pulse.is_silent(50)
    assert pulse.dead_at() == DEAD_AFTER_S


@pytest.mark.parametrize("comes", [True, False])
def test_a_peer_that_must_prove_itself_is_gone_unless_something_comes(comes: bool):
    pulse = Pulse(0, is_reading=False)
    pulse.pinged(10)
    pulse.must_prove(13)
    if comes:
        pulse.got_bytes(11)
        pulse.heard(11)

    assert pulse.dead_at() == (11 + DEAD_AFTER_S if comes else 13)
