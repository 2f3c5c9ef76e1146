"""Contents that are larger than the whole cache pass through it, and no byte is ever wrong."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
import trio

from p2pfs.cache import BlockCache, CachedFile
from p2pfs.cache.passage import LEAST_BYTES, SHARE, Passage
from p2pfs.cache.storage import Storage
from p2pfs.protocol.manifest import GIB, MIB
from tests.helpers.contents import Content
from tests.helpers.sizes import BLOCK
from tests.helpers.threads import run_directly
from tests.helpers.upstream import FakeSource, FakeUpstream, open_swarm

LIMIT = SHARE * LEAST_BYTES
LARGE = Content.of(LIMIT + 5 * BLOCK + 77)


@pytest.fixture
def cache(tmp_path: Path) -> BlockCache:
    return BlockCache(str(tmp_path), LIMIT, run_directly)


def opened(cache: BlockCache, content: Content = LARGE) -> CachedFile:
    file = cache.open_file(content.file_id, content.size)
    file.put_manifest(content.manifest)
    return file


async def put_all(cache: BlockCache, file: CachedFile, path: Path) -> None:
    for index in range(LARGE.manifest.block_count):
        assert await file.put([(index, LARGE.block(index))]) == [None]
        assert file.read_nowait(index * BLOCK, 1000) == LARGE.part(index * BLOCK, 1000)
        assert cache.used_bytes <= LIMIT // SHARE
        assert sum(p.stat().st_blocks * 512 for p in path.iterdir()) <= LIMIT // SHARE


async def test_all_of_it_can_be_put_and_the_latest_is_there(cache, tmp_path: Path) -> None:
    file = opened(cache)

    await put_all(cache, file, tmp_path)

    count = LARGE.manifest.block_count
    held = [index for index in range(count) if file.has(index)]
    assert held == list(range(held[0], count))
    assert file.done_bytes < LIMIT // SHARE
    assert file.read_nowait(0, 1) is None
    assert file.locate_nowait(held[0] * BLOCK, BLOCK) == LARGE.block(held[0])
    file.close()


async def test_another_content_still_finds_room(cache, tmp_path: Path) -> None:
    file, other = opened(cache), Content.of(10 * MIB, seed=5)
    await put_all(cache, file, tmp_path)

    beside = opened(cache, other)
    blocks = [(index, other.block(index)) for index in range(other.manifest.block_count)]

    assert set(await beside.put(blocks)) == {None}
    assert beside.read_nowait(0, other.size) == other.data
    file.close()
    beside.close()


async def test_what_a_run_left_is_verified_and_passes_on(cache, tmp_path: Path) -> None:
    file = opened(cache)
    await put_all(cache, file, tmp_path)
    last = LARGE.manifest.block_count - 1
    file.close()

    later = BlockCache(str(tmp_path), LIMIT, run_directly)
    file = opened(later)

    assert not file.has(last)
    assert await file.prepare(last)
    assert not await file.prepare(0)
    await put_all(later, file, tmp_path)
    file.close()


async def test_readers_that_come_too_late_get_nothing_and_never_a_wrong_byte(
    tmp_path: Path,
) -> None:
    """Blocks go and come again under threads that read them."""
    cache = BlockCache(str(tmp_path), LIMIT, trio.to_thread.run_sync)
    file = opened(cache)
    wrong: list[int] = []
    read: list[int] = []
    ends = threading.Event()

    def look(seed: int) -> None:
        rng = random.Random(seed)
        while not ends.is_set():
            index = rng.randrange(LARGE.manifest.block_count - 1)
            offset = index * BLOCK + rng.randrange(BLOCK - 4096)
            data = file.read_nowait(offset, 4096)
            if data is not None:
                read.append(index)
                if data != LARGE.part(offset, 4096):
                    wrong.append(index)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        for first in range(0, LARGE.manifest.block_count, 8):
            indexes = range(first, min(first + 8, LARGE.manifest.block_count))
            await file.put([(index, LARGE.block(index)) for index in indexes])
    ends.set()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert read
    file.close()


@pytest.mark.parametrize("comes_again", [False, True])
async def test_a_block_that_goes_while_it_is_read_is_not_given(
    cache: BlockCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_again: bool
) -> None:
    """What is read of it is a hole, though it may be there before and after."""
    file = opened(cache)
    await put_all(cache, file, tmp_path)
    oldest = next(index for index in range(LARGE.manifest.block_count) if file.has(index))
    real = Storage.read

    def read(storage: Storage, offset: int, length: int) -> bytes | None:
        monkeypatch.undo()
        file.write_all([(0, LARGE.block(0))])
        data = real(storage, offset, length)
        if comes_again:
            file.write_all([(oldest, LARGE.block(oldest))])
        return data

    monkeypatch.setattr(Storage, "read", read)

    assert file.read_nowait(oldest * BLOCK, 1000) is None
    assert file.has(oldest) == comes_again
    file.close()


async def test_a_swarm_reads_it_to_its_end(tmp_path: Path, autojump_clock) -> None:
    upstream = FakeUpstream([FakeSource(LARGE)])

    async with open_swarm(tmp_path, LARGE, upstream, limit_bytes=LIMIT) as swarm:
        for offset in range(0, LARGE.size, 128 * 1024):
            length = min(128 * 1024, LARGE.size - offset)
            found = swarm.locate_nowait(offset, length)
            if found is None:
                found = await swarm.locate(offset, length)
            assert found == LARGE.part(offset, length)
        assert await swarm.read(0, 5000) == LARGE.part(0, 5000)


def test_what_fits_does_not_pass_and_nothing_passes_a_tiny_cache() -> None:
    assert Passage.through(LIMIT, LIMIT) is None
    assert Passage.through(LIMIT, LIMIT + 1) is not None
    assert Passage.through(LIMIT - 1, LIMIT + 1) is None
    assert Passage.through(LIMIT, 1024 * GIB) is None  # four of its blocks are 256 MiB


def test_a_hole_gives_its_room_back(tmp_path: Path) -> None:
    from p2pfs.cache.passage import punch  # noqa: PLC0415 - it is not for others

    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"x" * MIB)
    punch(descriptor, 0, MIB // 2)

    assert os.fstat(descriptor).st_size == MIB
    assert os.fstat(descriptor).st_blocks * 512 <= MIB // 2
    assert os.pread(descriptor, MIB, MIB // 2) == b"x" * (MIB // 2)
    os.close(descriptor)
