"""Contents of one block: fetched in one exchange each, written together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pfs.cache import FLUSH_S, PAGE_BYTES, BlockCache
from p2pfs.download.behind import NO_MORE_S, WRITTEN_AT_ONCE
from p2pfs.download.small import SmallContents
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.protocol.manifest import FileId
from p2pfs.protocol.messages import PeerInfo
from p2pfs.tasks import Tasks
from tests.helpers.contents import Content
from tests.helpers.threads import run_directly

CONTENTS = [Content.of(1000, seed) for seed in range(3)]


class QuickSource:
    """Transfer links to somebody who gives everything at once."""

    def __init__(self, contents: Mapping[FileId, bytes]) -> None:
        self._contents = contents

    def is_linked(self, peer: PeerInfo) -> bool:
        return True

    async def fetch_small(self, peer: PeerInfo, file_id: FileId) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._contents[file_id]


class SlowDisk:
    """Runs what is given it in no thread, and not before it may."""

    def __init__(self) -> None:
        self.may_go_on = trio.Event()

    async def __call__(self, sync_fn, /, *args):
        await self.may_go_on.wait()
        return sync_fn(*args)


def remote(content: Content) -> RemoteFile:
    source = PeerInfo("a" * 32, "anna", ())
    return RemoteFile("note", content.size, 0, content.file_id, (source,))


async def test_a_reader_that_goes_while_others_are_written_disturbs_nobody(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disk, tasks = SlowDisk(), Tasks()
    cache = BlockCache(str(tmp_path), 1 << 30, disk)
    transfers = QuickSource({content.file_id: content.data for content in CONTENTS})
    small = SmallContents(cache, transfers, tasks, lambda _file, _source, _count: None)

    async def read(content: Content) -> None:
        with cache.opened(content.file_id, content.size) as cached:
            await small.fetch(remote(content), cached)

    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        async with trio.open_nursery() as readers:
            readers.start_soon(read, CONTENTS[0])
            await wait_all_tasks_blocked()
            readers.start_soon(read, CONTENTS[1])
            await wait_all_tasks_blocked()
            readers.cancel_scope.cancel()
        disk.may_go_on.set()
        await read(CONTENTS[2])
        await wait_all_tasks_blocked()

        assert [cache.percent(content.file_id) for content in CONTENTS] == [100, 100, 100]
        nursery.cancel_scope.cancel()


class CountingDisk:
    """Runs what is given it in no thread, and counts how often."""

    def __init__(self) -> None:
        self.hops = 0

    async def __call__(self, sync_fn, /, *args):
        await trio.lowlevel.checkpoint()
        self.hops += 1
        return sync_fn(*args)


@asynccontextmanager
async def fetching(
    cache: BlockCache, contents: Sequence[Content], given: Mapping[FileId, bytes] | None = None
) -> AsyncIterator[SmallContents]:
    """Fetch from somebody who has these contents, or gives other bytes for them."""
    transfers = QuickSource(given or {content.file_id: content.data for content in contents})
    tasks = Tasks()
    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        yield SmallContents(cache, transfers, tasks, lambda _file, _source, _count: None)
        nursery.cancel_scope.cancel()


async def read(cache: BlockCache, small: SmallContents, content: Content) -> bytes | None:
    with cache.opened(content.file_id, content.size) as cached:
        await small.fetch(remote(content), cached)
        return cached.read_nowait(0, content.size)


async def test_no_reader_waits_for_the_disk(tmp_path: Path, autojump_clock: MockClock) -> None:
    disk = SlowDisk()
    cache = BlockCache(str(tmp_path), 1 << 30, disk)

    async with fetching(cache, CONTENTS) as small:
        with trio.fail_after(FLUSH_S):
            assert await read(cache, small, CONTENTS[0]) == CONTENTS[0].data
            await trio.sleep(2 * NO_MORE_S)  # it is being written
            assert await read(cache, small, CONTENTS[1]) == CONTENTS[1].data
            assert await read(cache, small, CONTENTS[0]) == CONTENTS[0].data
        assert not list(tmp_path.iterdir())
        disk.may_go_on.set()


async def test_what_comes_one_by_one_is_written_together_when_no_more_comes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disk = CountingDisk()
    cache = BlockCache(str(tmp_path), 1 << 30, disk)
    contents = [Content.of(1000, seed) for seed in range(WRITTEN_AT_ONCE + 2)]

    async with fetching(cache, contents) as small:
        for content in contents:
            small.fetch_ahead([remote(content)])
            await trio.sleep(NO_MORE_S / 20)
        assert disk.hops == 0
        assert [cache.percent(content.file_id) for content in contents] == [100] * len(contents)
        await trio.sleep(3 * NO_MORE_S)
        assert disk.hops == 2
        assert len(list(tmp_path.iterdir())) == len(contents)


async def test_what_has_waited_for_long_is_written_though_more_comes(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disk = CountingDisk()
    cache = BlockCache(str(tmp_path), 1 << 30, disk)
    contents = [Content.of(10, seed) for seed in range(1 + int(2 * FLUSH_S / NO_MORE_S))]

    async with fetching(cache, contents) as small:
        for content in contents[: len(contents) // 2 + 1]:
            small.fetch_ahead([remote(content)])
            await trio.sleep(NO_MORE_S)
        for content in contents[len(contents) // 2 + 1 :]:
            small.fetch_ahead([remote(content)])
            await trio.sleep(NO_MORE_S * 0.9)
        assert disk.hops > 0


async def test_beyond_what_memory_may_hold_a_content_is_written_before_it_is_read(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pfs.download.behind.MAX_BEHIND", 2)
    monkeypatch.setattr("p2pfs.download.behind.BEHIND_ENOUGH", 2)
    cache = BlockCache(str(tmp_path), 1 << 30, run_directly)

    async with fetching(cache, CONTENTS) as small:
        for content in CONTENTS[:2]:
            assert await read(cache, small, content) == content.data
        assert not list(tmp_path.iterdir())
        assert await read(cache, small, CONTENTS[2]) == CONTENTS[2].data
        assert len(list(tmp_path.iterdir())) == 3


async def test_contents_that_wait_for_the_disk_give_way_in_a_cache_that_is_full(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cache = BlockCache(str(tmp_path), 2 * 2 * PAGE_BYTES, run_directly)

    async with fetching(cache, CONTENTS) as small:
        for content in CONTENTS:
            assert await read(cache, small, content) == content.data

    assert [cache.percent(content.file_id) for content in CONTENTS] == [0, 100, 100]


async def test_what_was_read_is_on_the_disk_when_the_servent_has_ended(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cache = BlockCache(str(tmp_path), 1 << 30, CountingDisk())

    async with fetching(cache, CONTENTS) as small:
        for content in CONTENTS:
            await read(cache, small, content)

    again = BlockCache(str(tmp_path), 1 << 30, run_directly)
    for content in CONTENTS:
        with again.opened(content.file_id, content.size) as cached:
            assert await cached.prepare(0)


async def test_wrong_bytes_are_never_read(tmp_path: Path, autojump_clock: MockClock) -> None:
    cache = BlockCache(str(tmp_path), 1 << 30, run_directly)
    wrong = {CONTENTS[0].file_id: CONTENTS[1].data, CONTENTS[1].file_id: b""}

    async with fetching(cache, CONTENTS, wrong) as small:
        assert await read(cache, small, CONTENTS[0]) is None
        assert await read(cache, small, CONTENTS[1]) is None

    assert not list(tmp_path.iterdir())
    assert cache.used_bytes == 0
