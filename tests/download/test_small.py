"""Contents of one block: fetched in one exchange each, written together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pfs.cache import FLUSH_S, PAGE_BYTES, BlockCache
from p2pfs.download.behind import NO_MORE_S, WRITTEN_AT_ONCE
from p2pfs.download.small import LEAST_AHEAD_BYTES, MAX_ALONE, SMALL_PATIENCE_S, SmallContents
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.protocol import MAX_CONTENTS_ASKED
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

    def gives_contents(self, peer: PeerInfo) -> bool:
        return False

    async def fetch_small(self, peer: PeerInfo, file_id: FileId) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._contents[file_id]


class SourceOfMany(QuickSource):
    """Transfer links to somebody who gives several contents at once, one after a while each."""

    def __init__(self, contents: Mapping[FileId, bytes], apart_s: float = 0.0) -> None:
        super().__init__(contents)
        self.asked: list[int] = []
        """How many contents each question was for; a content alone counts as 0."""
        self.lacks: set[FileId] = set()
        """What is given alone only."""
        self._apart_s = apart_s

    def gives_contents(self, peer: PeerInfo) -> bool:
        return True

    async def fetch_small(self, peer: PeerInfo, file_id: FileId) -> bytes:
        self.asked.append(0)
        return await super().fetch_small(peer, file_id)

    async def fetch_contents(
        self,
        peer: PeerInfo,
        file_ids: Sequence[FileId],
        take: Callable[[bytes | None], object],
    ) -> None:
        self.asked.append(len(file_ids))
        for file_id in file_ids:
            await trio.sleep(self._apart_s)
            take(None if file_id in self.lacks else self._contents[file_id])


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
    cache: BlockCache,
    contents: Sequence[Content],
    given: Mapping[FileId, bytes] | None = None,
    source: QuickSource | None = None,
) -> AsyncIterator[SmallContents]:
    """Fetch from somebody who has these contents, or gives other bytes for them."""
    honest = {content.file_id: content.data for content in contents}
    transfers = source or QuickSource(given or honest)
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


async def test_what_has_no_room_waits_and_is_fetched_all_the_same(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cache = BlockCache(str(tmp_path), 1 << 30, run_directly)
    contents = [Content.of(10, seed) for seed in range(2 * MAX_ALONE)]
    source = SlowSource(contents)

    async with fetching(cache, contents, source=source) as small:
        small.fetch_ahead([remote(content) for content in contents])
        await trio.sleep(1)

        assert source.most == MAX_ALONE
        assert all(cache.percent(content.file_id) == 100 for content in contents)


class SlowSource(QuickSource):
    """Gives each content after a while, and counts how many are asked for at once."""

    def __init__(self, contents: Sequence[Content]) -> None:
        super().__init__({content.file_id: content.data for content in contents})
        self.most = self._now = 0

    async def fetch_small(self, peer: PeerInfo, file_id: FileId) -> bytes:
        self._now += 1
        self.most = max(self.most, self._now)
        await trio.sleep(0.1)
        self._now -= 1
        return self._contents[file_id]


async def test_readers_of_one_content_share_one_exchange(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cache, source = BlockCache(str(tmp_path), 1 << 30, run_directly), SlowSource(CONTENTS)
    got: list[bytes | None] = []

    async def read_first() -> None:
        got.append(await read(cache, small, CONTENTS[0]))

    async with (
        fetching(cache, CONTENTS, source=source) as small,
        trio.open_nursery() as readers,
    ):
        for _ in range(3):
            readers.start_soon(read_first)
    assert got == [CONTENTS[0].data] * 3
    assert source.most == 1


# Several at once.

MANY = [Content.of(100 + seed, seed) for seed in range(MAX_CONTENTS_ASKED + 4)]


def source_of(contents: Sequence[Content], apart_s: float = 0.0) -> SourceOfMany:
    return SourceOfMany({content.file_id: content.data for content in contents}, apart_s)


async def test_what_is_fetched_ahead_is_asked_for_together(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cache, source = BlockCache(str(tmp_path), 1 << 30, run_directly), source_of(MANY)

    async with fetching(cache, MANY, source=source) as small:
        small.fetch_ahead([remote(content) for content in MANY])
        small.fetch_ahead([remote(content) for content in MANY])
        await trio.sleep(0.1)

        assert source.asked == [MAX_CONTENTS_ASKED, 4]
        assert [cache.percent(content.file_id) for content in MANY] == [100] * len(MANY)


async def test_a_reader_has_a_content_before_those_behind_it_have_come(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cache, source = BlockCache(str(tmp_path), 1 << 30, run_directly), source_of(CONTENTS, 0.5)

    async with fetching(cache, CONTENTS, source=source) as small:
        small.fetch_ahead([remote(content) for content in CONTENTS])
        with trio.fail_after(0.6):
            assert await read(cache, small, CONTENTS[0]) == CONTENTS[0].data
        with trio.fail_after(0.6):
            assert await read(cache, small, CONTENTS[1]) == CONTENTS[1].data
        assert source.asked == [len(CONTENTS)]


async def test_what_is_not_given_together_is_fetched_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cache, source = BlockCache(str(tmp_path), 1 << 30, run_directly), source_of(CONTENTS)
    source.lacks = {CONTENTS[1].file_id}

    async with fetching(cache, CONTENTS, source=source) as small:
        small.fetch_ahead([remote(content) for content in CONTENTS])
        for content in CONTENTS:
            assert await read(cache, small, content) == content.data
        assert source.asked == [len(CONTENTS), 0]


async def test_no_reader_waits_long_for_a_source_that_gives_little(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    apart_s = 0.9 * SMALL_PATIENCE_S
    cache, source = BlockCache(str(tmp_path), 1 << 30, run_directly), source_of(CONTENTS, apart_s)

    async with fetching(cache, CONTENTS, source=source) as small:
        small.fetch_ahead([remote(content) for content in CONTENTS])
        with trio.fail_after(1.1 * SMALL_PATIENCE_S):
            assert await read(cache, small, CONTENTS[2]) is None


async def test_a_source_that_gives_nothing_more_is_asked_no_longer(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    apart_s = 1.1 * SMALL_PATIENCE_S
    cache, source = BlockCache(str(tmp_path), 1 << 30, run_directly), source_of(CONTENTS, apart_s)

    async with fetching(cache, CONTENTS, source=source) as small:
        small.fetch_ahead([remote(content) for content in CONTENTS])
        await trio.sleep(1.05 * SMALL_PATIENCE_S)
        small.fetch_ahead([remote(CONTENTS[2])])
        await trio.sleep(0.01)
        assert source.asked == [len(CONTENTS), 1]


async def test_wrong_bytes_among_others_are_never_read(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    cache = BlockCache(str(tmp_path), 1 << 30, run_directly)
    source = SourceOfMany(
        {
            CONTENTS[0].file_id: CONTENTS[1].data,
            CONTENTS[1].file_id: b"",
            CONTENTS[2].file_id: CONTENTS[2].data,
        }
    )

    async with fetching(cache, CONTENTS, source=source) as small:
        small.fetch_ahead([remote(content) for content in CONTENTS])
        await trio.sleep(0.1)
        assert [cache.percent(content.file_id) for content in CONTENTS] == [0, 0, 100]


async def test_contents_that_come_together_and_have_no_room_in_memory_are_written(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pfs.download.behind.MAX_BEHIND", 1)
    monkeypatch.setattr("p2pfs.download.behind.BEHIND_ENOUGH", 2)
    cache, source = BlockCache(str(tmp_path), 1 << 30, run_directly), source_of(CONTENTS)

    async with fetching(cache, CONTENTS, source=source) as small:
        small.fetch_ahead([remote(content) for content in CONTENTS])
        for content in CONTENTS:
            assert await read(cache, small, content) == content.data
        assert source.asked == [len(CONTENTS)]


async def test_no_more_is_asked_for_than_comes_in_a_while(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    contents = [Content.of(10_000, seed) for seed in range(100)]
    cache, source = BlockCache(str(tmp_path), 1 << 30, run_directly), source_of(contents, 0.1)

    async with fetching(cache, contents, source=source) as small:
        small.fetch_ahead([remote(content) for content in contents[:MAX_CONTENTS_ASKED]])
        await trio.sleep(0.1 * MAX_CONTENTS_ASKED + 0.01)
        small.fetch_ahead([remote(content) for content in contents])
        await trio.sleep(0.01)
        under_way = sum(source.asked) - MAX_CONTENTS_ASKED
        await trio.sleep(100 * 0.1)

        assert under_way == LEAST_AHEAD_BYTES // contents[0].size + 1
        assert all(cache.percent(content.file_id) == 100 for content in contents)
        assert source.asked.count(MAX_CONTENTS_ASKED) >= 100 // MAX_CONTENTS_ASKED - 2
