"""Contents of one block: fetched in one exchange each, written together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pfs.cache import BlockCache
from p2pfs.download.small import GATHER_CONTENTS_S, KEPT_AT_ONCE, SmallContents
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.protocol.manifest import FileId
from p2pfs.protocol.messages import PeerInfo
from p2pfs.tasks import Tasks
from tests.helpers.contents import Content

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


async def test_what_is_fetched_ahead_is_written_together_though_it_comes_one_by_one(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disk, tasks = CountingDisk(), Tasks()
    cache = BlockCache(str(tmp_path), 1 << 30, disk)
    contents = [Content.of(1000, seed) for seed in range(KEPT_AT_ONCE + 2)]
    transfers = QuickSource({content.file_id: content.data for content in contents})
    small = SmallContents(cache, transfers, tasks, lambda _file, _source, _count: None)

    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        for content in contents:
            small.fetch_ahead([remote(content)])
            await trio.sleep(GATHER_CONTENTS_S / 100)
        await trio.sleep(2 * GATHER_CONTENTS_S)
        nursery.cancel_scope.cancel()

    assert [cache.percent(content.file_id) for content in contents] == [100] * len(contents)
    assert disk.hops == 2


async def test_what_a_reader_waits_for_is_written_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    disk, tasks = CountingDisk(), Tasks()
    cache = BlockCache(str(tmp_path), 1 << 30, disk)
    transfers = QuickSource({content.file_id: content.data for content in CONTENTS})
    small = SmallContents(cache, transfers, tasks, lambda _file, _source, _count: None)

    async with trio.open_nursery() as nursery:
        await nursery.start(tasks.run)
        small.fetch_ahead([remote(CONTENTS[0])])
        await wait_all_tasks_blocked()
        began_at = trio.current_time()
        for content in CONTENTS[:2]:  # one that waits for others, and one that is not here
            with cache.opened(content.file_id, content.size) as cached:
                await small.fetch(remote(content), cached)
        assert trio.current_time() == began_at
        nursery.cancel_scope.cancel()
