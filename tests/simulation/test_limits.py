"""Upload and download limits among real servents, in memory and on virtual time."""

from __future__ import annotations

import random

import pytest
import trio
from trio.testing import MockClock

from p2pfs.namespace.nodes import RemoteFile
from p2pfs.rates import WINDOW_S
from p2pfs.servent import Servent
from tests.helpers.world import World, open_world

MB = 1_000_000
SECONDS = 8.0
"""How long a limited download should take: more than a window."""


class Download:
    """One whole read, and how much of it had come when."""

    def __init__(self, servent: Servent, file: RemoteFile) -> None:
        self._servent = servent
        self._file = file
        self.content = b""
        self.began_at = trio.current_time()
        self.arrivals: list[tuple[float, int]] = [(self.began_at, 0)]

    async def run(self, piece_bytes: int = 128 * 1024) -> None:
        """Read all of it in order."""
        reader = self._servent.swarms.open(self._file)
        try:
            for offset in range(0, self._file.size, piece_bytes):
                length = min(piece_bytes, self._file.size - offset)
                self.content += await reader.read(offset, length)
                self.arrivals.append((trio.current_time(), len(self.content)))
        finally:
            reader.close()

    @property
    def rate_bytes_s(self) -> float:
        """Over all of it."""
        return len(self.content) / (self.arrivals[-1][0] - self.began_at)

    def most_in(self, window_s: float) -> int:
        """Return the most that came in any window of that length."""
        return max(
            then - done
            for at, done in self.arrivals
            for until, then in self.arrivals
            if 0 <= until - at <= window_s
        )


async def find(world: World, number: int, path: str, sources: int) -> RemoteFile:
    """Return a file once the servent knows that many sources of it."""
    with trio.fail_after(60):
        while True:
            await world.names(number)
            node = await world[number].browser.find(path)
            if isinstance(node, RemoteFile) and len(node.sources) == sources:
                return node
            await trio.sleep(1)


async def download(world: World, sources: int, content: bytes, **limits: object) -> Download:
    """Have the last servent read a file of which each before it has a copy."""
    reader_limits = {name: value for name, value in limits.items() if "download" in name}
    source_limits = {name: value for name, value in limits.items() if "upload" in name}
    for number in range(sources):
        await world.start(joins=[0] if number else [], **source_limits)
        await world.share(number, "film", content)
    await world.start(joins=range(sources), **reader_limits)
    done = Download(world[sources], await find(world, sources, "film", sources))
    await done.run()
    return done


@pytest.mark.parametrize(("sources", "limit"), [(1, 2 * MB), (4, MB)])
async def test_limited_sources_give_all_that_they_may_and_no_more(
    autojump_clock: MockClock, sources: int, limit: int
):
    content = random.Random(1).randbytes(int(SECONDS * sources * limit))
    async with open_world() as world:
        done = await download(world, sources, content, upload_limit_bytes_s=limit)

    assert done.content == content
    assert 0.95 * sources * limit <= done.rate_bytes_s <= sources * limit
    if sources == 1:  # else a late block lets all that waits behind it come at once
        assert done.most_in(WINDOW_S) <= WINDOW_S * limit


async def test_many_readers_share_an_upload_limit_fairly(autojump_clock: MockClock):
    content = random.Random(2).randbytes(4 * MB)
    async with open_world() as world:
        await world.start(upload_limit_bytes_s=2 * MB)
        await world.share(0, "film", content)
        for _ in range(4):
            await world.start(joins=[0], reshare=False)
        downloads = [Download(world[n], await find(world, n, "film", 1)) for n in range(1, 5)]
        began_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            for one in downloads:
                nursery.start_soon(one.run)

    took = [one.arrivals[-1][0] - began_at for one in downloads]
    assert max(took) <= 1.05 * 4 * len(content) / (2 * MB)
    assert min(took) >= 0.8 * max(took)


@pytest.mark.parametrize("limit", [MB, 100_000])
async def test_a_limited_download_takes_what_it_may_and_no_link_breaks(
    autojump_clock: MockClock, limit: int
):
    content = random.Random(3).randbytes(int(2 * SECONDS * limit))
    async with open_world() as world:
        done = await download(world, 2, content, download_limit_bytes_s=limit)

    assert done.content == content
    assert done.rate_bytes_s >= 0.95 * limit
    block_bytes = 256 * 1024
    assert done.most_in(WINDOW_S) <= WINDOW_S * limit + block_bytes


async def test_readers_of_many_files_wait_for_a_low_download_limit_and_do_not_fail(
    autojump_clock: MockClock,
):
    contents = {f"{n}": random.Random(n).randbytes(600_000) for n in range(10)}
    async with open_world() as world:
        await world.start()
        for path, content in contents.items():
            await world.share(0, path, content)
        await world.start(joins=[0], download_limit_bytes_s=20_000)
        downloads = [Download(world[1], await find(world, 1, path, 1)) for path in contents]
        async with trio.open_nursery() as nursery:
            for one in downloads:
                nursery.start_soon(one.run)

    assert [one.content for one in downloads] == list(contents.values())


@pytest.mark.parametrize("limits", [("upload", MB), ("download", 2 * MB)])
async def test_transfers_tell_what_a_limited_download_does(
    autojump_clock: MockClock, limits: tuple[str, int]
):
    content = random.Random(5).randbytes(16 * MB)
    option, limit = limits
    async with open_world() as world:
        for number in range(2):
            await world.start(
                joins=[0] if number else [],
                upload_limit_bytes_s=limit if option == "upload" else None,
            )
            await world.share(number, "film", content)
        await world.start(
            joins=[0, 1], download_limit_bytes_s=limit if option == "download" else None
        )
        done = Download(world[2], await find(world, 2, "film", 2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(done.run)
            await trio.sleep(3)
            for _ in range(20):
                await trio.sleep(0.2)
                (row,) = world[2].report.transfers()
                assert row["rate_bytes_s"] == pytest.approx(2 * MB, rel=0.15)
                assert (row["path"], row["size"], row["sources"]) == ("film", len(content), 2)
                assert row["state"] == "reading"
                assert len(done.content) <= row["done_bytes"] <= len(done.content) + 20 * MB

    assert world[2].report.transfers() == []


async def test_small_messages_do_not_wait_for_a_limit(autojump_clock: MockClock):
    content = random.Random(4).randbytes(2 * MB)
    async with open_world() as world:
        await world.start(upload_limit_bytes_s=50_000)
        await world.share(0, "film", content)
        await world.start(joins=[0])
        slow = Download(world[1], await find(world, 1, "film", 1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.run)
            await trio.sleep(5)
            await world.share(0, "note", b"small")
            began_at = trio.current_time()
            await trio.sleep(0.5)
            assert "note" in await world.names(1)
            assert await world.read(1, "note") == b"small"
            assert trio.current_time() - began_at < 1.5
            nursery.cancel_scope.cancel()
