"""Sources for a swarm that are slow, lie, stop, refuse or vanish, on a virtual clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from p2pfs.cache import BlockCache, CachedFile
from p2pfs.download.source import MANIFEST
from p2pfs.download.swarm import Swarm
from p2pfs.errors import LinkClosedError, NotAskedError, P2pfsError, RejectedError
from p2pfs.protocol.fields import PeerInfo
from p2pfs.protocol.flood import Urgency
from p2pfs.protocol.manifest import FileId
from p2pfs.protocol.messages import RejectCode
from tests.helpers.contents import Content
from tests.helpers.memorycache import MemoryCachedFile
from tests.helpers.threads import run_directly

STALL_S = 30.0


def peer(number: int) -> PeerInfo:
    """Return one of 1,024 peers, whose ids are in the order of their numbers up to 25."""
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    peer_id = "a" * 30 + digits[number // 32] + digits[number % 32]
    return PeerInfo(peer_id, f"peer {number}", ())


class FakeSource:
    """One peer. Its attributes may be changed at any time, but for `stop` and `go_on`."""

    def __init__(
        self,
        content: Content,
        *,
        latency_s: float = 0.01,
        rate_bytes_s: float = math.inf,
        lies_about: Collection[int] = (),
        lacks: Collection[int] = (),
        error: P2pfsError | None = None,
    ) -> None:
        self.content = content
        self.latency_s = latency_s
        self.rate_bytes_s = rate_bytes_s
        self.lies_about = lies_about
        """Indexes of blocks that come wrong."""
        self.lacks = lacks
        """Indexes of blocks that it does not have."""
        self.error = error
        """Raised instead of answers."""
        self._answers: set[trio.CancelScope] = set()
        self._wire = trio.Lock()
        self._goes = trio.Event()
        self._goes.set()

    def stop(self) -> None:
        """Fall silent, as a process that got SIGSTOP."""
        self._goes = trio.Event()

    def go_on(self) -> None:
        self._goes.set()

    def vanish(self, error: P2pfsError) -> None:
        """End every answer under way with a closed link, and all others with `error`."""
        self.error = error
        for scope in self._answers:
            scope.cancel()

    def refusal(self, index: int) -> P2pfsError | None:
        if index in self.lacks:
            return RejectedError("no such block", RejectCode.NOT_FOUND)
        return self.error

    async def answer(
        self,
        indexes: Iterable[int],
        deliver: Callable[[bytes], object],
        heard: Callable[[], object],
    ) -> None:
        with trio.CancelScope() as scope:
            self._answers.add(scope)
            try:
                await self._send(indexes, deliver, heard)
                return
            finally:
                self._answers.discard(scope)
        raise LinkClosedError("the link ended")

    async def _send(
        self,
        indexes: Iterable[int],
        deliver: Callable[[bytes], object],
        heard: Callable[[], object],
    ) -> None:
        """Deliver blocks up to the first that is refused, and raise why it is."""
        await trio.sleep(self.latency_s)
        for index in indexes:
            if (error := self.refusal(index)) is not None:
                raise error
            data = self._bytes_of(index)
            async with self._wire:
                await self._pass(len(data) / self.rate_bytes_s, heard)
                await self._goes.wait()
            deliver(data)

    async def _pass(self, seconds: float, heard: Callable[[], object]) -> None:
        """Let the time of a block pass, of which a part comes every second."""
        while seconds > 1:
            await trio.sleep(1)
            await self._goes.wait()
            heard()
            seconds -= 1
        await trio.sleep(seconds)

    def _bytes_of(self, index: int) -> bytes:
        data = self.content.manifest.to_bytes()
        if index != MANIFEST:
            data = self.content.block(index)
        return data[:-1] + bytes([data[-1] ^ 1]) if index in self.lies_about else data


class FakeUpstream:
    """What a swarm is given as its owner. `found` is what a search finds."""

    def __init__(self, sources: Sequence[FakeSource], *, search_s: float = 0.1) -> None:
        self.sources = {peer(number).id: source for number, source in enumerate(sources)}
        self.own_id = "z" * 32
        self.found: Sequence[PeerInfo] = ()
        self.search_s = search_s
        self.searched_at: list[float] = []
        self.urgencies: list[Urgency] = []
        self.is_over_budget = False
        self.requests: list[tuple[str, int]] = []
        self.requested_at: list[float] = []
        self.blamed: list[str] = []
        self.sizes: dict[FileId, int] = {}
        self.pending = 0

    @property
    def peers(self) -> list[PeerInfo]:
        return [peer(number) for number in range(len(self.sources))]

    def requests_of(self, number: int) -> list[int]:
        return [index for asked, index in self.requests if asked == peer(number).id]

    def request_counts(self) -> Counter[int]:
        return Counter(index for _, index in self.requests)

    async def find_sources(
        self, file_id: FileId, size: int, urgency: Urgency
    ) -> Sequence[PeerInfo]:
        if self.is_over_budget:
            raise NotAskedError("too many searches", 2.0)
        self.searched_at.append(trio.current_time())
        self.urgencies.append(urgency)
        await trio.sleep(self.search_s)
        return self.found

    async def fetch_manifest(self, source: PeerInfo, file_id: FileId) -> bytes:
        got: list[bytes] = []
        await self._fetch(source, [MANIFEST], got.append)
        return got[0]

    async def fetch_blocks(
        self,
        source: PeerInfo,
        file_id: FileId,
        wanted: Mapping[int, int],
        deliver: Callable[[bytes], object],
        heard: Callable[[], object],
    ) -> None:
        await self._fetch(source, list(wanted), deliver, heard)

    def proved(self, file_id: FileId, size: int) -> None:
        self.sizes[file_id] = size

    def bad_block(self, source: PeerInfo, file_id: FileId) -> None:
        self.blamed.append(source.id)

    async def _fetch(
        self,
        source: PeerInfo,
        indexes: Sequence[int],
        deliver: Callable[[bytes], object],
        heard: Callable[[], object] = lambda: None,
    ) -> None:
        self.requests += [(source.id, index) for index in indexes]
        self.requested_at.append(trio.current_time())
        left = len(indexes)
        self.pending += left

        def count(data: bytes) -> None:
            nonlocal left
            left -= 1
            self.pending -= 1
            deliver(data)

        try:
            await self.sources[source.id].answer(indexes, count, heard)
        finally:
            self.pending -= left


@asynccontextmanager
async def open_swarm(
    path: Path,
    content: Content,
    upstream: FakeUpstream,
    *,
    size: int | None = None,
    limit_bytes: int = 1 << 40,
    stall_s: float = STALL_S,
) -> AsyncIterator[Swarm]:
    """A running swarm with all of the upstream's sources, over a cache without threads."""
    cache = BlockCache(str(path), limit_bytes, run_directly)
    cached = cache.open_file(content.file_id, content.size if size is None else size)
    try:
        async with running_swarm(cached, upstream, stall_s=stall_s) as swarm:
            yield swarm
    finally:
        cached.close()


@asynccontextmanager
async def running_swarm(
    cached: CachedFile | MemoryCachedFile, upstream: FakeUpstream, *, stall_s: float = STALL_S
) -> AsyncIterator[Swarm]:
    """A swarm over what is cached, with all of the upstream's sources, until the block is over."""
    swarm = Swarm(cached, upstream.peers, upstream, stall_s)
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        yield swarm
        nursery.cancel_scope.cancel()
