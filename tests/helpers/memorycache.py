"""A cached file in memory, for simulations that move gigabytes: no disk, and no hashing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import trio

from p2pfs.errors import BadBlockError
from p2pfs.protocol.manifest import Manifest, block_bytes_for, block_range, block_span
from tests.helpers.contents import Content


class MemoryCachedFile:
    """What a swarm asks of `p2pfs.cache.CachedFile`, answered by comparing with the content."""

    def __init__(self, content: Content) -> None:
        self.file_id = content.file_id
        self.size = content.size
        self.manifest: Manifest | None = None
        self._content = content
        self._block_bytes = block_bytes_for(content.size)
        self._blocks: set[int] = set()

    def has(self, index: int) -> bool:
        return index in self._blocks

    def claims(self, index: int) -> bool:
        return False

    def missing(self, indexes: Iterable[int]) -> Iterator[int]:
        return (index for index in indexes if index not in self._blocks)

    @property
    def done_bytes(self) -> int:
        return sum(block_span(self.size, index)[1] for index in self._blocks)

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        if self.locate_nowait(offset, length) is None:
            return None
        return self._content.part(offset, length)

    def locate_nowait(self, offset: int, length: int) -> int | None:
        """Return what is no descriptor: nobody reads in a simulation."""
        is_there = self._blocks.issuperset(block_range(self.size, offset, length))
        return 0 if is_there else None

    def put_manifest(self, manifest: Manifest) -> None:
        self.manifest = manifest

    async def put(self, blocks: Sequence[tuple[int, bytes]]) -> Sequence[BadBlockError | None]:
        await trio.lowlevel.checkpoint()
        return [self._put(index, data) for index, data in blocks]

    def _put(self, index: int, data: bytes) -> BadBlockError | None:
        if data != self._content.block(index):
            return BadBlockError(f"block {index} is wrong")
        self._blocks.add(index)
        return None

    async def keep_flushed(self) -> None:
        await trio.sleep_forever()
