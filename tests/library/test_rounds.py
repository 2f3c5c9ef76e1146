"""When the worker works: who changes one file after the other is given way to, and not for ever."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pfs.library.doubts import Sign
from p2pfs.library.rounds import CALM_S, GATHER_CHANGES_S, GIVE_WAY_S, ChangeSignal
from p2pfs.library.share import Share
from p2pfs.library.watch import Watch
from p2pfs.library.worker import Worker
from tests.helpers.libraries import World, id_of

PAUSE_S = GATHER_CHANGES_S / 5
"""Between two files of somebody who unpacks an archive."""


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each hop began."""
    began: list[float] = []
    hop = Worker.hop

    def counted(worker: Worker) -> bool:
        began.append(trio.current_time())
        return hop(worker)

    monkeypatch.setattr(Worker, "hop", counted)
    return began


async def unpack(world: World, seconds: float) -> int:
    """Write one small file after the other for so long; return how many."""
    ends_at, count = trio.current_time() + seconds, 0
    while trio.current_time() < ends_at:
        world.write(f"f{count}", b"%d" % count)
        count += 1
        await trio.sleep(PAUSE_S)
    return count


async def test_one_file_is_offered_at_once(world: World, autojump_clock: MockClock):
    async with world.running():
        await trio.sleep(10)
        world.write("f")
        await trio.sleep(2 * GATHER_CHANGES_S)

        assert world.offered() == {"f": id_of(b"data")}


async def test_who_unpacks_an_archive_is_given_way_to_and_its_files_are_offered_by_and_by(
    world: World, autojump_clock: MockClock, hops: list[float]
):
    async with world.running():
        hops.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(unpack, world, 10 * GIVE_WAY_S)
            await trio.sleep(3 * GIVE_WAY_S)
            assert len(world.offered()) >= GIVE_WAY_S / PAUSE_S
        assert len(hops) <= 100
        await trio.sleep(3 * CALM_S)

        assert len(world.offered()) == pytest.approx(10 * GIVE_WAY_S / PAUSE_S, rel=0.01)


async def test_a_large_file_is_hashed_though_somebody_writes_without_end(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("p2pfs.library.large.HOP_S", 0.0)
    monkeypatch.setattr("p2pfs.library.looking.STEP_BYTES", 10)
    async with world.running():
        world.write("large", b"large" * 1000)
        with trio.move_on_after(5 * GIVE_WAY_S):
            await unpack(world, 1000)

        assert "large" in world.offered()


async def test_the_worker_is_not_woken_for_each_fact_about_a_file_that_is_unpacked(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    wakes: list[float] = []
    wake = ChangeSignal.wake
    monkeypatch.setattr(
        ChangeSignal, "wake", lambda alarm: wakes.append(trio.current_time()) or wake(alarm)
    )
    world = World(tmp_path)
    async with world.running():
        wakes.clear()
        count = await unpack(world, 4 * GIVE_WAY_S)
        await trio.sleep(3 * CALM_S)

        assert len(world.offered()) == count
        assert len(wakes) <= count / 10


async def test_what_is_taken_back_is_told_at_once_to_those_who_wait(
    world: World, autojump_clock: MockClock
):
    async with world.running():
        world.write("old")
        await world.library.wait_idle()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(unpack, world, 4 * GIVE_WAY_S)
            await trio.sleep(GIVE_WAY_S / 2)
            told_at: list[float] = []

            async def wait() -> None:
                await world.library.wait_changed(world.library.version)
                told_at.append(trio.current_time())

            nursery.start_soon(wait)
            await trio.sleep(PAUSE_S / 2)
            assert told_at == []
            began_at = trio.current_time()
            world.remove("old")
            await trio.sleep(GIVE_WAY_S)
            assert told_at[0] - began_at < PAUSE_S


async def test_the_attributes_of_a_file_that_is_written_are_looked_at_when_the_writer_has_gone(
    world: World, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    looks: list[str] = []
    look = Share.look
    async with world.running():
        world.library.write_began("f")
        with open(world.at("f"), "wb") as file:
            world.library.touched("f")
            file.write(b"data")
            monkeypatch.setattr(
                Share, "look", lambda share, path: looks.append(path) or look(share, path)
            )
            os.utime(world.at("f"), (1, 1))
            world.library.attributes_changed("f")
            await trio.sleep(10)
        assert looks == []

        world.library.write_ended("f")
        await world.library.wait_idle()
        entry = world.library.find_path("f")
        assert entry is not None
        assert entry.mtime_ns == os.stat(world.at("f")).st_mtime_ns
        assert "f" in looks


class OneChange(Watch):
    """Something changes once, past the mount, and waits in the queue until it is taken."""

    def __init__(self, path: str, at: float) -> None:
        super().__init__()
        self._path, self._at = path, at
        self._is_taken = False

    def open(self, directory: str) -> None:
        pass

    def has_changes(self) -> bool:
        return not self._is_taken and trio.current_time() >= self._at

    def take(self) -> dict[str, Sign]:
        if not self.has_changes():
            return {}
        self._is_taken = True
        return {self._path: Sign.WRITTEN}

    async def changed(self) -> None:
        if self._is_taken:
            await trio.sleep_forever()
        await trio.sleep_until(self._at)

    async def mounts_changed(self) -> None:
        await trio.sleep_forever()


async def test_a_change_past_the_mount_is_not_waited_for_twice(
    tmp_path: Path, autojump_clock: MockClock
):
    at = trio.current_time() + 10
    world = World(tmp_path, watch=OneChange("f", at))
    async with world.running():
        await trio.sleep_until(at - GATHER_CHANGES_S)
        world.put("f", b"data")
        await trio.sleep_until(at + 3 * GATHER_CHANGES_S)

        assert world.offered() == {"f": id_of(b"data")}


class Stirred(OneChange):
    """The watch also sees a write through the mount, while the worker is at work."""

    def __init__(self, path: str, at: float, stirred_at: float) -> None:
        super().__init__(path, at)
        self._stirred_at = stirred_at

    async def changed(self) -> None:
        if trio.current_time() < self._stirred_at:
            await trio.sleep_until(self._stirred_at)
        else:
            await super().changed()


async def test_a_change_past_the_mount_is_noticed_after_the_worker_was_busy_for_long(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    began_at = trio.current_time()
    at = began_at + 20
    world = World(tmp_path, watch=Stirred("late", at, stirred_at=began_at + 1))
    hop, numbers = Worker.hop, itertools.count()

    def hop_while_somebody_writes(worker: Worker) -> bool:
        is_fine = hop(worker)
        if trio.current_time() < began_at + 5:
            world.write(f"f{next(numbers)}")
        return is_fine

    monkeypatch.setattr(Worker, "hop", hop_while_somebody_writes)
    async with world.running():
        world.write("first")
        await trio.sleep_until(at)
        world.put("late", b"data")
        await trio.sleep(1)

        assert "late" in world.offered()


class Ringing(OneChange):
    """Something changes all the time, as it does past the mount when somebody writes through it."""

    def has_changes(self) -> bool:
        return trio.current_time() >= self._at

    def take(self) -> dict[str, Sign]:
        return {}

    async def changed(self) -> None:
        await trio.sleep_until(self._at)
        await trio.sleep(GATHER_CHANGES_S / 10)


async def test_the_watch_wakes_nobody_while_the_worker_gives_way(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, hops: list[float]
):
    rings: list[float] = []
    ring = ChangeSignal.ring
    monkeypatch.setattr(
        ChangeSignal, "ring", lambda alarm: rings.append(trio.current_time()) or ring(alarm)
    )
    world = World(tmp_path, watch=Ringing("f", trio.current_time()))
    async with world.running():
        hops.clear()
        rings.clear()
        await unpack(world, 4 * GIVE_WAY_S)

        assert len(rings) <= 2 * len(hops)
        assert hops
