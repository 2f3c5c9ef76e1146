"""What the cache gives after the power has failed: right bytes, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from p2pfs.cache import BlockCache, CachedFile
from tests.helpers.contents import Content
from tests.helpers.powercut import power_may_fail
from tests.helpers.sizes import BLOCK
from tests.helpers.threads import run_directly

PLENTY = 1 << 30


def opened(directory: Path, content: Content) -> CachedFile:
    cache = BlockCache(str(directory), PLENTY, run_directly)
    return cache.open_file(content.file_id, content.size)


async def blocks_there(directory: Path, content: Content) -> set[int]:
    """Return the blocks that readers would get, all of which must be right."""
    file = opened(directory, content)
    there = set()
    for index in range(content.manifest.block_count):
        if await file.prepare(index):
            there.add(index)
            assert file.read_nowait(index * BLOCK, BLOCK) == content.block(index)
    file.close()
    return there


@pytest.mark.parametrize("size", [1_000, 2 * BLOCK + 5])
async def test_a_claim_that_is_ahead_of_its_blocks_is_no_block(
    size: int, tmp_path: Path, expect_log: Callable[[str], None]
):
    expect_log("is damaged")
    content, state = Content.of(size), tmp_path / "cache"
    state.mkdir()
    with power_may_fail(state) as cuts:
        file = opened(state, content)
        file.put_manifest(content.manifest)
        for index in range(content.manifest.block_count):
            await file.put([(index, content.block(index))])
            file._flush()
        file._sync()
        file.close()

    found = [
        await blocks_there(disk, content)
        for number, cut in enumerate(cuts)
        for disk in cut.disks(tmp_path / "disks" / str(number))
    ]

    assert set() in found
    assert set(range(content.manifest.block_count)) in found
