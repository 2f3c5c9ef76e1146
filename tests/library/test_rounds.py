"""When the worker works: who changes one file after the other is given way to, and not for ever."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pfs.library.rounds import GATHER_S, GIVE_WAY_S
from p2pfs.library.worker import Worker
from tests.helpers.libraries import World, id_of

PAUSE_S = GATHER_S / 5
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
        await trio.sleep(2 * GATHER_S)

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
        await trio.sleep(2 * GATHER_S)

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
