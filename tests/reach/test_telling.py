"""When a directory by libtorrent tells which key; the engine is a fake."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import trio
from trio.testing import MockClock

from p2pfs.protocol import DirectoryKey
from p2pfs.reach.mainline import PAUSE_S, TELL_AGAIN_AFTER_S, Mainline

FILM, SONG = DirectoryKey(b"f" * 20), DirectoryKey(b"s" * 20)


class FakeSession:
    """Notes what it is told, and when."""

    def __init__(self) -> None:
        self.told: list[tuple[float, bytes]] = []

    def dht_announce(self, key: bytes, port: int, flags: int) -> None:
        assert (port, flags) == (4774, 0)
        self.told.append((trio.current_time(), key))

    def dht_get_peers(self, key: bytes) -> None:
        pass

    def post_dht_stats(self) -> None:
        pass


@asynccontextmanager
async def telling() -> AsyncIterator[tuple[Mainline, FakeSession]]:
    """Give a directory that has a node, and its engine."""
    session = FakeSession()
    directory = Mainline(SimpleNamespace(sha1_hash=bytes), session, None, lambda: 4774)
    directory.nodes = 1
    read_end, write_end = os.pipe()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directory.run, read_end)
        await trio.testing.wait_all_tasks_blocked()
        yield directory, session
        nursery.cancel_scope.cancel()
    os.close(read_end)
    os.close(write_end)


async def test_a_key_is_told_at_once_and_again_and_again(autojump_clock: MockClock):
    async with telling() as (directory, session):
        began_at = trio.current_time()
        directory.announce(FILM)
        await trio.sleep(2.5 * TELL_AGAIN_AFTER_S[-1])

        times = [at - began_at for at, _ in session.told]
        assert times[0] < PAUSE_S
        assert 4 <= len(times) <= 6


async def test_keys_are_told_one_after_the_other(autojump_clock: MockClock):
    async with telling() as (directory, session):
        for number in range(20):
            directory.announce(DirectoryKey(bytes([number]) * 20))
        await trio.sleep(20 * PAUSE_S)

        times = [at for at, _ in session.told]
        assert len({key for _, key in session.told}) == 20
        assert all(later - one >= PAUSE_S for one, later in itertools.pairwise(times))


async def test_a_key_that_is_withdrawn_is_told_no_more(autojump_clock: MockClock):
    async with telling() as (directory, session):
        directory.announce(FILM)
        directory.announce(SONG)
        await trio.sleep(3 * PAUSE_S)
        del session.told[:]

        directory.withdraw(FILM)
        await trio.sleep(2 * TELL_AGAIN_AFTER_S[-1])

        assert {key for _, key in session.told} == {SONG}


async def test_nothing_is_told_while_nobody_could_hear_it(autojump_clock: MockClock):
    async with telling() as (directory, session):
        directory.nodes = 0
        directory.announce(FILM)
        await trio.sleep(100)

        assert session.told == []
