"""Whose news are waited for, where, and for how long."""

from __future__ import annotations

from p2pfs.namespace.news import (
    LATE_BURST_S,
    LATE_S,
    LATE_SHARE,
    MAX_CHANGED_SERVENTS,
    MUTED_S,
    SLOW_STRANGERS_BURST,
    NewsBoard,
)
from p2pfs.protocol import PeerInfo, ServentId


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def peer(number: int) -> PeerInfo:
    return PeerInfo(ServentId(f"{number:a>32}"), f"servent {number}", ())


ANNA, BEN = peer(1), peer(2)


def board() -> tuple[NewsBoard, Clock]:
    clock = Clock()
    return NewsBoard(clock), clock


def of(
    board: NewsBoard, path: str, since: float = 0.0, neighbours=(), holders=()
) -> list[PeerInfo]:
    return list(board.of(path, since, neighbours, lambda: holders))


def test_whoever_told_of_a_directory_is_asked_there_until_it_was_asked():
    news, clock = board()
    news.told(ANNA, ["films", ""], is_all=False)
    assert of(news, "films") == of(news, "") == [ANNA]
    assert of(news, "music") == []
    assert of(news, "films", since=clock.now) == []


def test_a_neighbour_that_changed_is_asked_everywhere():
    news, _clock = board()
    news.neighbour_changed(ANNA.id)
    assert of(news, "films", neighbours=[ANNA, BEN]) == [ANNA]
    assert of(news, "films", neighbours=[BEN]) == []


def test_whoever_changed_all_over_is_asked_for_the_root_and_for_what_it_has():
    news, _clock = board()
    news.told(ANNA, [], is_all=True)
    assert of(news, "") == [ANNA]
    assert of(news, "films") == []
    assert of(news, "films", holders=[ANNA, BEN]) == [ANNA]


def test_of_many_the_latest_are_remembered():
    news, _clock = board()
    for number in range(MAX_CHANGED_SERVENTS + 3):
        news.told(peer(number), ["films"], is_all=False)
    assert of(news, "films") == [peer(number) for number in range(3, MAX_CHANGED_SERVENTS + 3)]


def test_whoever_is_slow_to_say_what_changed_is_not_heard_for_a_while():
    news, clock = board()
    news.told(ANNA, ["films"], is_all=False)
    news.mute(ANNA.id, is_stranger=False)
    assert not news.told(ANNA, ["films"], is_all=False)
    assert of(news, "films") == []
    clock.now += MUTED_S
    assert news.told(ANNA, ["films"], is_all=False)


def test_whoever_makes_looks_wait_again_and_again_is_not_heard_for_a_while():
    news, clock = board()
    waited_s = 0.0
    while news.neighbour_changed(ANNA.id):
        news.answered(ANNA.id, 1.4, is_stranger=False)
        waited_s += 1.4
        clock.now += 1.6
    assert LATE_BURST_S - 1.4 <= waited_s <= LATE_BURST_S + 1.4
    assert news.neighbour_changed(BEN.id)
    clock.now += MUTED_S
    assert news.neighbour_changed(ANNA.id)


def test_whoever_answers_within_a_moment_is_heard_however_often_it_changes():
    news, clock = board()
    for _ in range(1_000):
        assert news.neighbour_changed(ANNA.id)
        news.answered(ANNA.id, LATE_S, is_stranger=False)
        clock.now += 0.1


def test_whoever_takes_long_now_and_then_is_heard():
    news, clock = board()
    for _ in range(100):
        assert news.told(ANNA, [""], is_all=False)
        news.answered(ANNA.id, 1.4, is_stranger=True)
        clock.now += 1.4 / LATE_SHARE


def test_when_many_strangers_were_slow_none_is_heard_for_a_while():
    news, clock = board()
    for number in range(SLOW_STRANGERS_BURST + 1):
        assert news.told(peer(number), ["films"], is_all=False)
        news.mute(peer(number).id, is_stranger=True)
    assert not news.told(peer(99), ["films"], is_all=False)
    assert news.neighbour_changed(peer(98).id)
    clock.now += MUTED_S
    assert news.told(peer(99), ["films"], is_all=False)


def test_whoever_left_has_no_news():
    news, _clock = board()
    news.told(ANNA, ["films"], is_all=True)
    news.forget(ANNA.id)
    assert of(news, "films", holders=[ANNA]) == []
