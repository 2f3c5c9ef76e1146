"""Contents of one block: each is one exchange with one source, and needs no swarm.

A swarm takes half a millisecond to come and go, and can deal with failures; so a content that
does not come here is left to a swarm. What
has arrived is verified and written together: a hop to a thread costs as much as a content. With
a hop for each, `cp -r` of small files was a tenth slower than sshfs. What was fetched ahead waits
a moment for others; without that, 618 of the 765 hops for 1,000 files were for one file each.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.cache import BlockCache, CachedFile, Key
from p2pfs.download.intake import Intake
from p2pfs.errors import P2pfsError
from p2pfs.link import TransferLinks
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import PeerInfo
from p2pfs.tasks import SingleFlight, Tasks

MAX_SMALL: Final = 128
"""Contents being fetched above which no further ones are fetched ahead."""

SMALL_PATIENCE_S: Final = 1.0
"""How long one source may take before a swarm takes over."""

KEPT_AT_ONCE: Final = 16
"""Contents written in one hop, so that the reader of the first does not wait for long."""

GATHER_CONTENTS_S: Final = 0.004
"""How long a content that was fetched ahead may wait for others, if no reader waits for it: a
reader of files of a directory takes some 10 ms for as many as are written in one hop."""


@dataclass(eq=False, slots=True)
class _Arrived:
    cached: CachedFile
    data: bytes
    is_done: trio.Event = field(default_factory=trio.Event)


class SmallContents:
    """The small contents that are being fetched."""

    def __init__(
        self,
        cache: BlockCache,
        transfers: TransferLinks,
        tasks: Tasks,
        on_received: Callable[[RemoteFile, PeerInfo, int], object],
    ) -> None:
        """Fetch into a cache, in tasks of the owner's; `on_received` gets content and source."""
        self._cache = cache
        self._transfers = transfers
        self._tasks = tasks
        self._on_received = on_received
        self._flights: SingleFlight[Key] = SingleFlight(tasks)
        self._awaited: Counter[Key] = Counter()  # by how many readers
        self._arrived: Intake[_Arrived] = Intake(KEPT_AT_ONCE, GATHER_CONTENTS_S)
        self._is_keeping = False

    async def fetch(self, file: RemoteFile, cached: CachedFile) -> None:
        """Fetch a content, if a source gives it at once. Readers of one content share it."""
        flight = self._flights.start(cached.key, self._fetch, file)
        self._awaited[cached.key] += 1
        self._arrived.hurry()
        try:
            await flight.wait()
        finally:
            self._awaited -= Counter([cached.key])

    def fetch_ahead(self, files: Sequence[RemoteFile]) -> None:
        """Fetch contents that will probably be opened next. For trio's thread."""
        for file in files:
            if self._tasks.are_running and len(self._flights) < MAX_SMALL:
                self._flights.start(Key(file.file_id, file.size), self._fetch, file)

    async def _fetch(self, file: RemoteFile) -> None:
        with contextlib.suppress(P2pfsError), self._cache.opened(file.file_id, file.size) as cached:
            if not file.sources or cached.has(0) or await cached.prepare(0):
                return
            with trio.move_on_after(SMALL_PATIENCE_S):
                source = max(file.sources, key=self._transfers.is_linked)
                data = await self._transfers.fetch_small(source, file.file_id)
                self._on_received(file, source, len(data))
                await self._keep(_Arrived(cached, data))

    async def _keep(self, arrived: _Arrived) -> None:
        """Return when what has arrived is kept, or is not. It is, even if this is cancelled."""
        if not self._is_keeping:
            self._tasks.start(self._keep_all)
            self._is_keeping = True
        self._cache.retain(arrived.cached)  # its reader may go
        self._arrived.put(arrived, is_urgent=arrived.cached.key in self._awaited)
        await arrived.is_done.wait()

    async def _keep_all(self) -> None:
        try:
            while self._arrived:
                await self._arrived.wait()
                await self._keep_some(self._arrived.take())
        finally:
            self._is_keeping = False

    async def _keep_some(self, some: Sequence[_Arrived]) -> None:
        try:
            await self._cache.put_small([(one.cached, one.data) for one in some])
        finally:
            for one in some:
                one.cached.close()
                one.is_done.set()
