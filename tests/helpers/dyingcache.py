"""A download into the cache that is killed at random moments, and what each restart finds.

    python -m tests.helpers.dyingcache DIRECTORY MOMENTS

A program of its own, so that it can fork without threads: a child for each moment puts what is
missing until it gets SIGKILL. Then the cache is opened anew.
Prints one `Restart` as JSON for each moment. When the file is whole the cache starts empty again.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import time
from dataclasses import asdict, dataclass

import trio

from p2pfs.cache import BlockCache, CachedFile
from tests.helpers.contents import Content
from tests.helpers.sizes import BLOCK
from tests.helpers.threads import run_directly

CONTENT = Content.of(320 * BLOCK)
LATEST_S = 0.1
"""The child is killed after a random part of this from its first block on."""

PATIENCE_S = 60.0

AT_ONCE = 4
PAUSE_S = 0.005
"""Four blocks at once with such pauses are 200 MB/s: several moments fall into each download."""


@dataclass
class Restart:
    """What one restart found."""

    had: int
    """Blocks that readers could have had before the end."""
    lost: int
    """Of these, blocks that are to be fetched again."""
    lost_s: float
    """For how long they had been there."""
    wrong: int
    """Blocks that read otherwise than they should."""


class Log:
    """When each block could first be read, in memory shared with the child."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, CONTENT.manifest.block_count * 8)

    def note(self, index: int) -> None:
        struct.pack_into("d", self._map, index * 8, time.monotonic())

    def times(self) -> dict[int, float]:
        count = CONTENT.manifest.block_count
        return {i: at for i, at in enumerate(struct.unpack(f"{count}d", self._map)) if at}

    def clear(self) -> None:
        self._map[:] = bytes(len(self._map))


async def download(directory: str, log: Log) -> None:
    """Put all blocks that are missing, several at once, and note each."""
    cache = BlockCache(directory, 1 << 40, trio.to_thread.run_sync)
    file = cache.open_file(CONTENT.file_id, CONTENT.size)
    file.put_manifest(CONTENT.manifest)
    missing = iter([i for i in range(CONTENT.manifest.block_count) if not file.claims(i)])

    async def put() -> None:
        for index in missing:
            await file.put([(index, CONTENT.block(index))])
            log.note(index)
            await trio.sleep(PAUSE_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(file.keep_flushed)
        for _ in range(AT_ONCE):
            nursery.start_soon(put)


async def look(file: CachedFile) -> tuple[set[int], int]:
    """Return which blocks are there, and how many of them are wrong."""
    there, wrong = set(), 0
    for index in range(CONTENT.manifest.block_count):
        if await file.prepare(index):
            there.add(index)
            wrong += file.read_nowait(index * BLOCK, BLOCK) != CONTENT.block(index)
    return there, wrong


def kill_once(directory: str, log: Log, after_s: float) -> float:
    """Let a child download and kill it; return when it died."""
    child = os.fork()
    if child == 0:
        trio.run(download, directory, log)
        signal.pause()
    known = len(log.times())
    deadline = time.monotonic() + PATIENCE_S
    while len(log.times()) == known and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(after_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return time.monotonic()


def restart(directory: str, log: Log, killed_at: float) -> tuple[Restart, bool]:
    """Open what is left; return what was found, and whether the content is whole."""
    cache = BlockCache(directory, 1 << 40, run_directly)
    file = cache.open_file(CONTENT.file_id, CONTENT.size)
    there, wrong = trio.run(look, file)
    file.close()
    had = log.times()
    lost = {index: at for index, at in had.items() if index not in there}
    lost_s = max((killed_at - at for at in lost.values()), default=0.0)
    log.clear()
    for index in there:
        log.note(index)
    found = Restart(len(had), len(lost), lost_s, wrong)
    return found, len(there) == CONTENT.manifest.block_count


def main(directory: str, moments: int) -> None:
    log, chance = Log(), random.Random(1)
    for _ in range(moments):
        killed_at = kill_once(directory, log, chance.uniform(0, LATEST_S))
        found, is_whole = restart(directory, log, killed_at)
        sys.stdout.write(json.dumps(asdict(found)) + "\n")
        sys.stdout.flush()
        if is_whole:
            shutil.rmtree(directory)
            log.clear()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
