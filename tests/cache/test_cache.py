"""The block cache: what is put can be read, within the limit, across restarts."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from p2pfs.cache import FLUSH_BYTES, FLUSH_S, PAGE_BYTES, BlockCache, CachedFile
from p2pfs.cache.shelves import MAX_RESTING, RESTING_SHARE
from p2pfs.errors import BadBlockError, CacheFullError, TooManyFilesError
from p2pfs.protocol.manifest import FileId, block_span
from tests.helpers.contents import Content
from tests.helpers.limits import no_file_left
from tests.helpers.sizes import BLOCK, INTERESTING_SIZES
from tests.helpers.threads import run_directly

PLENTY = 1 << 30


def open_cache(path: Path, limit_bytes: int = PLENTY) -> BlockCache:
    return BlockCache(str(path), limit_bytes, run_directly)


def test_a_cache_is_its_owners_alone_whatever_the_umask(tmp_path: Path):
    umask = os.umask(0)
    try:
        open_cache(tmp_path / "cache")
    finally:
        os.umask(umask)

    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@contextmanager
def opened(cache: BlockCache, content: Content):
    file = cache.open_file(content.file_id, content.size)
    try:
        file.put_manifest(content.manifest)
        yield file
    finally:
        file.close()


async def put_all(file: CachedFile, content: Content) -> None:
    for index in range(content.manifest.block_count):
        await put(file, index, content.block(index))


async def put(file: CachedFile, index: int, data: bytes) -> None:
    """Put one block, and raise what is wrong with it."""
    (outcome,) = await file.put([(index, data)])
    if outcome is not None:
        raise outcome


async def put_whole(cache: BlockCache, content: Content) -> None:
    with opened(cache, content) as file:
        await put_all(file, content)


def disk_bytes(path: Path) -> int:
    total = 0
    for entry in os.scandir(path):
        with suppress(FileNotFoundError):  # evicted meanwhile
            total += os.stat(entry.path).st_blocks * 512
    return total


def disk_bytes_of(path: Path, content: Content) -> int:
    return os.stat(path / f"{content.file_id.hex()}.{content.size}").st_blocks * 512


def only_file(path: Path) -> Path:
    (entry,) = path.iterdir()
    return entry


@pytest.mark.parametrize("size", INTERESTING_SIZES)
async def test_what_is_put_can_be_read_at_every_size(tmp_path: Path, size: int) -> None:
    content = Content.of(size)

    with opened(open_cache(tmp_path), content) as file:
        await put_all(file, content)

        assert file.read_nowait(0, size) == content.data
        assert file.done_bytes == size


@pytest.mark.parametrize("size", INTERESTING_SIZES)
async def test_everything_survives_a_restart_but_is_verified_first(
    tmp_path: Path, size: int
) -> None:
    content = Content.of(size)
    await put_whole(open_cache(tmp_path), content)

    with opened(open_cache(tmp_path), content) as file:
        blocks = range(content.manifest.block_count)
        assert all(file.claims(index) and not file.has(index) for index in blocks)
        assert file.done_bytes == size
        assert all([await file.prepare(index) for index in blocks])
        assert file.read_nowait(0, size) == content.data


async def test_a_read_never_goes_beyond_the_content(tmp_path: Path) -> None:
    content = Content.of(5000)

    with opened(open_cache(tmp_path), content) as file:
        await put_all(file, content)

        assert file.read_nowait(4000, 100_000) == content.data[4000:]
        assert file.read_nowait(5000, 1) == b""
        assert file.read_nowait(9000, 1) == b""


async def test_a_read_that_touches_a_missing_block_gets_nothing(tmp_path: Path) -> None:
    content = Content.of(3 * BLOCK)

    with opened(open_cache(tmp_path), content) as file:
        await put(file, 0, content.block(0))
        await put(file, 2, content.block(2))

        assert file.read_nowait(0, BLOCK) == content.block(0)
        assert file.read_nowait(BLOCK - 1, 2) is None
        assert file.read_nowait(0, 3 * BLOCK) is None
        assert file.read_nowait(2 * BLOCK, 1) == content.block(2)[:1]
        assert file.done_bytes == 2 * BLOCK


async def test_what_is_there_is_located_in_a_file(tmp_path: Path) -> None:
    content = Content.of(3 * BLOCK)

    with opened(open_cache(tmp_path), content) as file:
        assert file.locate_nowait(0, 1) is None
        await put(file, 1, content.block(1))

        descriptor = file.locate_nowait(BLOCK + 7, 100)
        assert descriptor is not None
        assert os.pread(descriptor, 100, BLOCK + 7) == content.part(BLOCK + 7, 100)
        assert file.locate_nowait(BLOCK - 1, 2) is None
        assert file.locate_nowait(2 * BLOCK - 1, 2) is None


async def test_nothing_is_located_in_a_file_that_somebody_has_cut(tmp_path: Path) -> None:
    content = Content.of(3 * BLOCK)

    with opened(open_cache(tmp_path), content) as file:
        await put(file, 0, content.block(0))
        (path,) = tmp_path.iterdir()
        os.truncate(path, 1000)

        assert file.locate_nowait(0, 2000) is None
        assert not file.has(0)


@pytest.mark.parametrize("left", [0, 1000, 3 * BLOCK - 1])
async def test_nothing_is_located_right_after_somebody_has_cut_the_file(
    tmp_path: Path, left: int
) -> None:
    content = Content.of(3 * BLOCK)

    with opened(open_cache(tmp_path), content) as file:
        await put_all(file, content)
        assert file.locate_nowait(0, 2000) is not None  # with the look of this moment
        (path,) = tmp_path.iterdir()
        os.truncate(path, left)

        assert file.locate_nowait(2 * BLOCK, BLOCK) is None
        assert not file.has(2)
        for index in range(3):  # the first of them too, though the file is short then
            await put(file, index, content.block(index))
            assert file.locate_nowait(index * BLOCK, BLOCK) is not None


async def test_a_wrong_block_is_refused_and_not_kept(tmp_path: Path) -> None:
    content = Content.of(2 * BLOCK)
    cache = open_cache(tmp_path)

    with opened(cache, content) as file:
        for wrong in (content.block(1), content.block(0)[:-1], b""):
            with pytest.raises(BadBlockError):
                await put(file, 0, wrong)

        assert not file.has(0)
    assert cache.used_bytes == 0


async def test_the_manifest_of_something_else_is_refused(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    file = cache.open_file(Content.of(10).file_id, 10)

    with pytest.raises(BadBlockError):
        file.put_manifest(Content.of(10, seed=1).manifest)


async def test_a_wrong_announced_size_leaves_the_right_file_alone(tmp_path: Path) -> None:
    content = Content.of(BLOCK)
    cache = open_cache(tmp_path)
    await put_whole(cache, content)

    liar = cache.open_file(content.file_id, content.size + 1)
    with pytest.raises(BadBlockError):
        liar.put_manifest(content.manifest)
    liar.close()

    with opened(cache, content) as file:
        assert await file.prepare(0)


async def test_two_handles_share_what_is_there_and_outlive_each_other(tmp_path: Path) -> None:
    content = Content.of(BLOCK)
    cache = open_cache(tmp_path)

    first = cache.open_file(content.file_id, content.size)
    second = cache.open_file(content.file_id, content.size)
    first.put_manifest(content.manifest)
    await put(first, 0, content.block(0))
    first.close()

    assert second.read_nowait(0, BLOCK) == content.data
    second.close()


async def test_blocks_put_at_once_all_arrive(tmp_path: Path) -> None:
    content = Content.of(20 * BLOCK + 5)

    with opened(open_cache(tmp_path), content) as file:
        async with trio.open_nursery() as nursery:
            for index in range(content.manifest.block_count):
                nursery.start_soon(put, file, index, content.block(index))

        assert file.read_nowait(0, content.size) == content.data


async def test_a_bad_block_among_many_fails_alone(tmp_path: Path) -> None:
    content = Content.of(3 * BLOCK)
    right, wrong = content.block(0), content.block(2)

    with opened(open_cache(tmp_path), content) as file:
        outcomes = await file.put([(0, right), (1, wrong), (0, wrong), (2, wrong)])

        assert [type(outcome) for outcome in outcomes] == [
            type(None), BadBlockError, BadBlockError, type(None),
        ]  # fmt: skip
        assert [file.has(index) for index in range(3)] == [True, False, True]


async def test_a_cancelled_put_disturbs_no_other(tmp_path: Path) -> None:
    content = Content.of(4 * BLOCK)

    with opened(open_cache(tmp_path), content) as file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, file, 0, content.block(0))
            with trio.CancelScope() as scope:
                scope.cancel()
                await put(file, 1, content.block(1))
            nursery.start_soon(put, file, 2, content.block(2))

        assert file.has(0)
        assert file.has(2)
        assert file.read_nowait(BLOCK, BLOCK) in (None, content.block(1))


# Restarts and damage


async def test_a_flipped_bit_is_found_at_first_use(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("is damaged")
    content = Content.of(3 * BLOCK)
    await put_whole(open_cache(tmp_path), content)
    with only_file(tmp_path).open("r+b") as raw:
        raw.seek(BLOCK + 77)
        raw.write(bytes([content.data[BLOCK + 77] ^ 1]))

    with opened(open_cache(tmp_path), content) as file:
        assert [await file.prepare(index) for index in range(3)] == [True, False, True]
        assert file.read_nowait(0, 3 * BLOCK) is None
        await put(file, 1, content.block(1))
        assert file.read_nowait(0, 3 * BLOCK) == content.data


@given(offset=st.integers(0, 2 * BLOCK + 4095), flip=st.integers(1, 255))
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_no_damage_anywhere_gives_a_wrong_byte(
    tmp_path_factory: pytest.TempPathFactory,
    offset: int,
    flip: int,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("is damaged")
    path = tmp_path_factory.mktemp("cache")
    content = Content.of(2 * BLOCK)
    await put_whole(open_cache(path), content)
    with only_file(path).open("r+b") as raw:
        raw.seek(offset)
        byte = raw.read(1) or b"\0"
        raw.seek(offset)
        raw.write(bytes([byte[0] ^ flip]))

    with opened(open_cache(path), content) as file:
        for index in range(2):
            await file.prepare(index)
            assert file.read_nowait(*block_span(content.size, index)) in (
                None,
                content.block(index),
            )


@pytest.mark.parametrize("length", [0, 100, BLOCK, 2 * BLOCK + 20])
async def test_a_file_that_was_cut_starts_anew(
    tmp_path: Path, length: int, expect_log: Callable[[str], None]
) -> None:
    expect_log("is damaged")
    content = Content.of(2 * BLOCK)
    await put_whole(open_cache(tmp_path), content)
    os.truncate(only_file(tmp_path), length)

    cache = open_cache(tmp_path)
    with opened(cache, content) as file:
        assert file.done_bytes == 0
        assert cache.used_bytes == 0
        await put_all(file, content)
        assert file.read_nowait(0, content.size) == content.data


async def test_a_file_cut_while_open_is_never_a_short_read(tmp_path: Path) -> None:
    content = Content.of(2 * BLOCK)

    with opened(open_cache(tmp_path), content) as file:
        await put_all(file, content)
        os.truncate(only_file(tmp_path), BLOCK + 10)

        assert file.read_nowait(BLOCK, 100) is None
        assert not file.has(1)
        assert file.read_nowait(0, BLOCK) == content.block(0)


async def test_the_bitmap_follows_within_the_flush_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """A copy of the file, taken while it is open, is what a kill -9 leaves."""
    content = Content.of(3 * BLOCK)

    with opened(open_cache(tmp_path / "live"), content) as file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.keep_flushed)
            await put(file, 0, content.block(0))
            await trio.sleep(FLUSH_S + 1)
            await put(file, 2, content.block(2))
            left = only_file(tmp_path / "live").read_bytes()
            nursery.cancel_scope.cancel()

    (tmp_path / "after").mkdir()
    (tmp_path / "after" / only_file(tmp_path / "live").name).write_bytes(left)
    with opened(open_cache(tmp_path / "after"), content) as file:
        assert [await file.prepare(index) for index in range(3)] == [True, False, False]


async def test_many_bytes_are_flushed_before_the_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(FLUSH_BYTES + 2 * BLOCK)

    with opened(open_cache(tmp_path), content) as file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.keep_flushed)
            await put_all(file, content)
            await trio.testing.wait_all_tasks_blocked()
            with opened(open_cache(tmp_path), content) as after_kill:
                assert after_kill.done_bytes >= FLUSH_BYTES
            nursery.cancel_scope.cancel()


async def test_blocks_are_synced_within_the_flush_time(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut may cost is what came within that time."""
    content = Content.of(3 * BLOCK)
    synced: list[bytes] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        real(descriptor)
        synced.append(os.pread(descriptor, BLOCK, 0))

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with opened(open_cache(tmp_path), content) as file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.keep_flushed)
            await put(file, 0, content.block(0))
            await trio.sleep(FLUSH_S + 1)
            assert synced == [content.block(0)]

            await trio.sleep(10 * FLUSH_S)
            assert len(synced) == 1  # the disk has its rest while nothing comes
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [BLOCK, 2 * BLOCK])
async def test_what_was_verified_is_not_believed_after_somebody_touched_the_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    expect_log: Callable[[str], None],
) -> None:
    expect_log("damaged")
    monkeypatch.setattr("p2pfs.cache.shelves.MAX_RESTING", 0)
    content = Content.of(size)
    cache = open_cache(tmp_path)
    await put_whole(cache, content)
    path = only_file(tmp_path)
    with path.open("r+b") as disk:
        disk.write(bytes(10))
    os.utime(path, (1, 1))

    with opened(cache, content) as file:
        assert not file.has(0)
        assert file.read_nowait(0, 10) is None
        assert not await file.prepare(0)


async def test_leftovers_of_an_eviction_are_removed_and_strangers_left_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / f"{Content.of(12).file_id.hex()}.12.gone").write_bytes(b"x" * 10_000)
    strangers = ["README", "abc.12.gone", "photo.gone"]
    for name in strangers:
        (tmp_path / name).write_bytes(b"mine")

    cache = open_cache(tmp_path)

    assert sorted(entry.name for entry in tmp_path.iterdir()) == strangers
    assert cache.used_bytes == 0


async def test_a_file_that_somebody_removed_starts_anew(
    tmp_path: Path, expect_log: Callable[[str], None]
) -> None:
    expect_log("is damaged")
    content = Content.of(2 * BLOCK)
    cache = open_cache(tmp_path)
    await put_whole(cache, content)
    only_file(tmp_path).unlink()

    with opened(cache, content) as file:
        assert file.done_bytes == 0
        assert cache.used_bytes == 0
        await put_all(file, content)
        assert file.read_nowait(0, 2 * BLOCK) == content.data


async def test_a_file_that_somebody_removed_is_evicted_as_any(tmp_path: Path) -> None:
    contents = [Content.of(2 * BLOCK, seed) for seed in range(2)]
    cache = open_cache(tmp_path, limit_bytes=3 * BLOCK)
    await put_whole(cache, contents[0])
    only_file(tmp_path).unlink()

    await put_whole(cache, contents[1])

    assert [cache.percent(content.file_id) for content in contents] == [0, 100]
    assert cache.used_bytes == disk_bytes(tmp_path)


def test_a_link_that_is_named_as_a_cache_file_takes_what_the_link_takes(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"x" * 10 * PAGE_BYTES)
    (tmp_path / "cache").mkdir()
    content = Content.of(BLOCK)
    (tmp_path / "cache" / f"{content.file_id.hex()}.{BLOCK}").symlink_to(elsewhere)

    assert open_cache(tmp_path / "cache").used_bytes <= PAGE_BYTES
    assert open_cache(tmp_path / "cache", limit_bytes=0).used_bytes == 0
    assert elsewhere.stat().st_size == 10 * PAGE_BYTES


# The limit


async def test_the_least_recently_used_file_goes_first(tmp_path: Path) -> None:
    contents = [Content.of(BLOCK, seed) for seed in range(4)]
    cache = open_cache(tmp_path, limit_bytes=3 * (BLOCK + PAGE_BYTES))
    for content in contents[:3]:
        await put_whole(cache, content)
    cache.open_file(contents[0].file_id, BLOCK).close()

    await put_whole(cache, contents[3])

    assert [cache.percent(content.file_id) for content in contents] == [100, 0, 100, 100]


async def test_the_order_of_use_survives_a_restart(tmp_path: Path) -> None:
    contents = [Content.of(BLOCK, seed) for seed in range(3)]
    cache = open_cache(tmp_path)
    for age, content in enumerate(contents):
        await put_whole(cache, content)
        name = next(path for path in tmp_path.iterdir() if content.file_id.hex() in path.name)
        os.utime(name, (1000 - age, 1000 - age))

    smaller = open_cache(tmp_path, limit_bytes=2 * (BLOCK + PAGE_BYTES))

    assert [smaller.percent(content.file_id) for content in contents] == [100, 100, 0]
    assert smaller.used_bytes <= smaller.limit_bytes


async def test_open_files_stay_and_then_the_cache_is_full(tmp_path: Path) -> None:
    old, new = Content.of(2 * BLOCK), Content.of(2 * BLOCK, seed=1)
    cache = open_cache(tmp_path, limit_bytes=3 * BLOCK)

    with opened(cache, old) as kept:
        await put_all(kept, old)
        with opened(cache, new) as file, pytest.raises(CacheFullError):
            await put_all(file, new)
        assert kept.read_nowait(0, old.size) == old.data

    await put_whole(cache, new)
    assert cache.percent(new.file_id) == 100
    assert cache.percent(old.file_id) == 0


async def test_a_file_beyond_the_limit_leaves_nothing_behind(tmp_path: Path) -> None:
    content = Content.of(BLOCK)
    cache = open_cache(tmp_path, limit_bytes=100)

    with opened(cache, content) as file, pytest.raises(CacheFullError):
        await put(file, 0, content.block(0))

    assert cache.used_bytes == 0
    assert list(tmp_path.iterdir()) == []


@given(
    sizes=st.lists(st.integers(1, 3 * BLOCK), min_size=1, max_size=12),
    limit_bytes=st.integers(0, 6 * BLOCK),
)
@settings(max_examples=40)
async def test_the_limit_holds_at_all_times(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], limit_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("cache")
    cache = open_cache(path, limit_bytes)

    for seed, size in enumerate(sizes):
        content = Content.of(size, seed)
        with opened(cache, content) as file:
            for index in range(content.manifest.block_count):
                with suppress(CacheFullError):
                    await put(file, index, content.block(index))
                assert cache.used_bytes <= limit_bytes
                assert disk_bytes(path) <= limit_bytes


async def test_the_limit_holds_under_eight_parallel_readers_of_three_times_its_size(
    tmp_path: Path,
) -> None:
    contents = [Content.of(3 * BLOCK, seed) for seed in range(48)]
    limit_bytes = sum(content.size for content in contents) // 3
    cache = BlockCache(str(tmp_path), limit_bytes, trio.to_thread.run_sync)
    unread = iter(contents * 2)
    most = 0

    async def read_one(content: Content) -> None:
        nonlocal most
        with opened(cache, content) as file:
            for index in range(content.manifest.block_count):
                if not await file.prepare(index):
                    await file.put([(index, content.block(index))])
                assert cache.used_bytes <= limit_bytes
                with cache._lock:  # else a file goes after it was counted, and another grows
                    most = max(most, disk_bytes(tmp_path))
            assert file.read_nowait(0, content.size) == content.data

    async def read() -> None:
        for content in unread:
            await read_one(content)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(read)

    assert 0.9 * limit_bytes < most <= limit_bytes


async def test_a_full_disk_evicts_then_says_so_then_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = Content.of(BLOCK), Content.of(BLOCK, seed=1)
    cache = open_cache(tmp_path)
    await put_whole(cache, old)
    room = 0
    pwrite = os.pwrite

    def limited_pwrite(fd: int, data: bytes, offset: int) -> int:
        if len(data) > 1000 and room < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", limited_pwrite)
    with opened(cache, new) as file:
        with pytest.raises(CacheFullError):
            await put(file, 0, new.block(0))
        assert cache.percent(old.file_id) == 0

        room = 2 * BLOCK
        await put(file, 0, new.block(0))
        assert file.read_nowait(0, BLOCK) == new.data


def read_only(*_: object) -> int:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


async def test_a_disk_that_turns_read_only_is_a_full_one_until_it_takes_something_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Content.of(3 * BLOCK, seed=1)
    cache = open_cache(tmp_path)
    with opened(cache, new) as file:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", read_only)
            patch.setattr(os, "unlink", read_only)
            with pytest.raises(CacheFullError):
                await put(file, 0, new.block(0))
        assert cache.used_bytes == 0

        await put_all(file, new)
        assert file.read_nowait(0, new.size) == new.data


async def test_what_a_read_only_disk_does_not_let_go_stays_and_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
) -> None:
    expect_log("cannot be evicted")
    old, new = Content.of(2 * BLOCK), Content.of(2 * BLOCK, seed=1)
    cache = open_cache(tmp_path, limit_bytes=3 * BLOCK)
    await put_whole(cache, old)
    used_bytes = cache.used_bytes
    with opened(cache, new) as file:
        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", read_only)
            with pytest.raises(CacheFullError):
                await put_all(file, new)
            assert cache.clear() == 0
        assert cache.percent(old.file_id) == 100
        assert cache.used_bytes == used_bytes + disk_bytes_of(tmp_path, new)
        await put_all(file, new)
        assert file.read_nowait(0, new.size) == new.data
    assert cache.percent(old.file_id) == 0


async def test_what_was_evicted_can_be_fetched_again(tmp_path: Path) -> None:
    first, second = Content.of(BLOCK), Content.of(BLOCK, seed=1)
    cache = open_cache(tmp_path, limit_bytes=BLOCK + PAGE_BYTES)

    for content in (first, second, first):
        await put_whole(cache, content)

    assert cache.percent(first.file_id) == 100
    assert cache.used_bytes <= cache.limit_bytes


async def test_a_file_in_use_is_found_by_id_alone(tmp_path: Path) -> None:
    content = Content.of(2 * BLOCK)
    cache = open_cache(tmp_path)
    assert cache.find(content.file_id) is None
    assert cache.percent(content.file_id) == 0

    with opened(cache, content) as file:
        await put(file, 1, content.block(1))
        found = cache.find(content.file_id)

        assert found is file
        assert cache.percent(content.file_id) == 50
        found.close()


async def test_a_cached_file_opens_in_a_handful_of_system_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content.of(10_240)
    await put_whole(open_cache(tmp_path), content)
    cache = open_cache(tmp_path)
    calls: list[str] = []
    for name in ("open", "pread", "pwrite", "fdatasync", "fsync", "stat", "rename"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, real=real, name=name: (calls.append(name), real(*args))[1]
        )

    with opened(cache, content) as file:
        await file.prepare(0)
        assert file.read_nowait(0, content.size) == content.data

    assert len(calls) <= 5
    assert not {"fdatasync", "fsync", "rename"} & set(calls)


def open_files(directory: Path) -> list[str]:
    """Return the paths of the files of a directory that this process has open."""
    found = []
    for entry in os.scandir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of this very scan
            found.append(os.readlink(entry.path))
    return [path for path in found if path.startswith(str(directory))]


def descriptors_in(directory: Path) -> int:
    """Return how many files of a directory this process has open."""
    return len(open_files(directory))


async def test_a_small_content_that_is_taken_is_read_from_memory_until_it_is_written(
    tmp_path: Path,
) -> None:
    content = Content.of(1000)
    cache = open_cache(tmp_path)
    file = cache.open_file(content.file_id, content.size)

    assert file.take(content.data)
    assert file.locate_nowait(10, 2000) == file.read_nowait(10, 2000) == content.data[10:]
    assert cache.percent(content.file_id) == 100
    assert cache.used_bytes == 2 * PAGE_BYTES
    assert not list(tmp_path.iterdir())

    cache.retain(file)
    await cache.write_taken([file])
    assert isinstance(file.locate_nowait(10, 20), int)
    assert file.read_nowait(10, 2000) == content.data[10:]
    file.close()
    assert cache.used_bytes == disk_bytes(tmp_path) == 2 * PAGE_BYTES
    with opened(open_cache(tmp_path), content) as again:
        assert await again.prepare(0)


async def test_small_contents_are_taken_within_the_limit_and_a_wrong_one_spoils_no_other(
    tmp_path: Path,
) -> None:
    contents = [Content.of(1000, seed) for seed in range(4)]
    cache = open_cache(tmp_path, limit_bytes=3 * 2 * PAGE_BYTES)
    files = [cache.open_file(content.file_id, content.size) for content in contents]

    with pytest.raises(BadBlockError):
        files[1].take(bytes(1000))
    assert not files[1].has(0)
    assert files[1].read_nowait(0, 1000) is None
    assert [file.take(content.data) for file, content in zip(files, contents, strict=True)] == [
        True, True, True, False
    ]  # fmt: skip

    await cache.write_taken(files[:3])
    files[3].close()
    assert [cache.percent(content.file_id) for content in contents] == [100, 100, 100, 0]


async def test_a_small_content_that_the_disk_does_not_take_is_missing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = Content.of(1000)
    cache = open_cache(tmp_path)
    file = cache.open_file(content.file_id, content.size)
    assert file.take(content.data)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        cache.retain(file)
        await cache.write_taken([file])
    assert not file.has(0)
    assert file.read_nowait(0, 1000) is None
    assert cache.size_of(content.file_id) is None
    assert cache.used_bytes == 0
    file.close()
    await put_whole(cache, content)
    assert cache.percent(content.file_id) == 100


async def test_who_puts_a_small_content_has_it_written_whoever_takes_it_meanwhile(
    tmp_path: Path,
) -> None:
    content = Content.of(1000)
    cache = open_cache(tmp_path)
    with opened(cache, content) as file:
        async with file.being_written():
            assert not file.take(content.data)
        await put(file, 0, content.data)
        assert file.take(content.data)
        assert cache.used_bytes == 2 * PAGE_BYTES


async def test_small_contents_rest_open_in_bounds(tmp_path: Path) -> None:
    contents = [Content.of(100, seed) for seed in range(MAX_RESTING + 10)]
    cache = open_cache(tmp_path)
    for content in contents:
        await put_whole(cache, content)
    await put_whole(cache, Content.of(2 * BLOCK))

    assert descriptors_in(tmp_path) == MAX_RESTING
    for content in contents:  # the last of them from where they rest
        with opened(cache, content) as file:
            await file.prepare(0)
            assert file.read_nowait(0, 100) == content.data
    assert descriptors_in(tmp_path) == MAX_RESTING


async def test_where_few_files_may_be_open_few_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 64))
    cache = open_cache(tmp_path)
    for seed in range(10):
        await put_whole(cache, Content.of(100, seed))

    assert descriptors_in(tmp_path) == 64 // RESTING_SHARE


async def test_what_rests_open_is_evicted_as_any(tmp_path: Path) -> None:
    contents = [Content.of(BLOCK, seed) for seed in range(5)]
    cache = open_cache(tmp_path, limit_bytes=3 * (BLOCK + PAGE_BYTES))

    for content in contents:
        await put_whole(cache, content)

    assert [cache.percent(content.file_id) for content in contents] == [0, 0, 100, 100, 100]
    assert descriptors_in(tmp_path) == 3
    assert cache.clear() == 3 * (BLOCK + PAGE_BYTES)
    assert descriptors_in(tmp_path) == 0


async def test_of_those_that_rest_the_oldest_is_closed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pfs.cache.shelves.MAX_RESTING", 2)
    contents = [Content.of(100, seed) for seed in range(4)]
    cache = open_cache(tmp_path)
    for content in contents:
        await put_whole(cache, content)

    held = {os.path.basename(path).partition(".")[0] for path in open_files(tmp_path)}
    assert held == {content.file_id.hex() for content in contents[2:]}


async def test_what_rests_and_is_kept_is_opened_again(tmp_path: Path) -> None:
    content = Content.of(100)
    cache = open_cache(tmp_path)
    cache.keep(content.file_id, content.size)
    await put_whole(cache, content)

    with opened(cache, content) as file:
        assert file.read_nowait(0, 100) == content.data
    assert cache.clear() == 0
    assert cache.percent(content.file_id) == 100


async def test_what_was_verified_is_read_at_once_when_it_is_opened_again(tmp_path: Path) -> None:
    content = Content.of(3 * BLOCK)
    cache = open_cache(tmp_path)
    with opened(cache, content) as file:
        await put(file, 0, content.block(0))
        await put(file, 2, content.block(2))

    with opened(cache, content) as file:
        assert [file.has(index) for index in range(3)] == [True, False, True]
        assert file.read_nowait(0, BLOCK) == content.block(0)


async def test_readers_on_other_threads_see_whole_blocks_or_none(tmp_path: Path) -> None:
    """With real threads: reads race with puts and closes of other contents."""
    content, other = Content.of(8 * BLOCK), Content.of(8 * BLOCK, seed=1)
    cache = BlockCache(str(tmp_path), PLENTY, trio.to_thread.run_sync)
    stop = threading.Event()
    wrong: list[int] = []

    def read_all(file: CachedFile) -> None:
        while not stop.is_set():
            for index in range(8):
                data = file.read_nowait(*block_span(content.size, index))
                if data is not None and data != content.block(index):
                    wrong.append(index)

    with opened(cache, content) as file:
        readers = [threading.Thread(target=read_all, args=(file,)) for _ in range(2)]
        for reader in readers:
            reader.start()
        for index in range(8):
            await put(file, index, content.block(index))
            await put_whole(cache, other)
        stop.set()
        for reader in readers:
            reader.join()

        assert wrong == []
        assert file.read_nowait(0, content.size) == content.data


def test_nothing_is_cached_of_an_unknown_id(tmp_path: Path) -> None:
    assert open_cache(tmp_path).percent(FileId(bytes(32))) == 0


async def test_a_block_that_cannot_exist_is_simply_not_there(tmp_path: Path) -> None:
    content = Content.of(2 * BLOCK)

    with opened(open_cache(tmp_path), content) as file:
        await put_all(file, content)

        for index in (2, 3, 16_383, -1):
            assert not file.has(index)
            assert not await file.prepare(index)


async def test_what_is_kept_is_not_evicted_until_it_is_let_go(tmp_path: Path) -> None:
    old, new = Content.of(3 * BLOCK, seed=1), Content.of(3 * BLOCK, seed=2)
    cache = open_cache(tmp_path, 5 * BLOCK)
    cache.keep(old.file_id, old.size)
    await put_whole(cache, old)

    with pytest.raises(CacheFullError, match="pinned"):
        await put_whole(cache, new)
    cache.let_go(old.file_id, old.size)
    await put_whole(cache, new)

    assert [one.file_id for one in cache.holdings()] == [new.file_id]


async def test_what_is_kept_survives_a_restart_with_a_lower_limit(tmp_path: Path) -> None:
    kept, other = Content.of(3 * BLOCK, seed=1), Content.of(3 * BLOCK, seed=2)
    before = open_cache(tmp_path)
    for content in (kept, other):
        await put_whole(before, content)

    cache = BlockCache(str(tmp_path), BLOCK, run_directly, kept=[(kept.file_id, kept.size)])

    assert [(one.file_id, one.done_bytes) for one in cache.holdings()] == [
        (kept.file_id, kept.size)
    ]


async def test_clearing_leaves_what_is_open_or_kept(tmp_path: Path) -> None:
    contents = [Content.of(2 * BLOCK, seed=seed) for seed in range(4)]
    cache = open_cache(tmp_path)
    for content in contents:
        await put_whole(cache, content)
    cache.keep(contents[1].file_id, contents[1].size)
    before = cache.used_bytes

    with opened(cache, contents[2]):
        freed = cache.clear()
        left = {one.file_id for one in cache.holdings()}

    assert left == {contents[1].file_id, contents[2].file_id}
    assert freed == before - cache.used_bytes > 0
    assert disk_bytes(tmp_path) <= cache.used_bytes


async def test_looking_at_what_is_held_does_not_change_what_goes_first(tmp_path: Path) -> None:
    contents = [Content.of(2 * BLOCK, seed=seed) for seed in range(3)]
    cache = open_cache(tmp_path, 8 * BLOCK)
    for content in contents:
        await put_whole(cache, content)

    for _ in range(2):
        found = [one.file_id for one in cache.holdings()]
        assert found == [content.file_id for content in contents]
    await put_whole(cache, Content.of(2 * BLOCK, seed=9))

    assert contents[0].file_id not in {one.file_id for one in cache.holdings()}


async def test_that_no_descriptor_is_left_is_told_as_that(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    content, other = Content.of(3 * BLOCK), Content.of(BLOCK + 1, seed=1)
    await put_whole(cache, content)
    with no_file_left():
        with pytest.raises(TooManyFilesError, match="cannot open a cache file: Too many open"):
            cache.open_file(content.file_id, content.size)
        assert cache.percent(content.file_id) == 100
        assert cache.holdings() == []
        with cache.opened(other.file_id, other.size) as file:
            file.put_manifest(other.manifest)
            (outcome,) = await file.put([(0, other.block(0))])
    assert isinstance(outcome, TooManyFilesError)
    used = cache.used_bytes

    await put_whole(cache, other)
    with cache.opened(content.file_id, content.size) as file:
        assert file.done_bytes == content.size
    assert cache.used_bytes > used
