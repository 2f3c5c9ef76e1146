"""Who is banned, for how long, and how much is remembered of it."""

from __future__ import annotations

from p2pfs.overlay import bans as bans_module
from p2pfs.overlay.bans import FLOOD_BAN_S, LIES_BAN_S, MAX_LIES, Bans
from p2pfs.protocol import ServentId

A, B, C = (ServentId(letter * 32) for letter in "abc")


def test_bans_last_as_long_as_the_design_says():
    assert FLOOD_BAN_S == 10 * 60
    assert LIES_BAN_S == 60 * 60
    assert MAX_LIES == 3


def test_a_ban_ends():
    bans = Bans()
    bans.ban(A, 100, FLOOD_BAN_S)

    assert bans.is_banned(A, 100)
    assert bans.is_banned(A, 99 + FLOOD_BAN_S)
    assert not bans.is_banned(A, 100 + FLOOD_BAN_S)
    assert not bans.is_banned(B, 100)


def test_a_shorter_ban_does_not_shorten_a_longer_one():
    bans = Bans()
    bans.ban(A, 0, LIES_BAN_S)
    bans.ban(A, 0, FLOOD_BAN_S)

    assert bans.is_banned(A, LIES_BAN_S - 1)


def test_the_third_lie_bans_and_the_count_begins_anew():
    bans = Bans()

    assert [bans.lied(A, 0) for _ in range(MAX_LIES)] == [False, False, True]
    assert bans.is_banned(A, LIES_BAN_S - 1)
    assert not bans.lied(A, LIES_BAN_S)
    assert not bans.is_banned(A, LIES_BAN_S)
    assert bans.lies == 4


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr(bans_module, "MAX_BANS", 2)
    bans = Bans()
    for peer in (A, B, C):
        bans.ban(peer, 0, FLOOD_BAN_S)
        bans.lied(peer, 0)

    assert [bans.is_banned(peer, 1) for peer in (A, B, C)] == [False, True, True]
    assert [bans.lied(C, 0), bans.lied(C, 0)] == [False, True]
    assert [bans.lied(A, 0), bans.lied(A, 0)] == [False, False]
