"""Contents of one block: each is one exchange with one source, and needs no swarm.

A swarm takes half a millisecond to come and go, and can deal with failures; so a content that
does not come here is left to a swarm. What has come is verified at once, and written by `behind`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final

import trio

from p2pfs.cache import BlockCache, CachedFile, Key
from p2pfs.download.behind import WriteBehind
from p2pfs.errors import P2pfsError
from p2pfs.link import TransferLinks
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import PeerInfo
from p2pfs.tasks import SingleFlight, Tasks

MAX_SMALL: Final = 128
"""Contents being fetched above which no further ones are fetched ahead."""

SMALL_PATIENCE_S: Final = 1.0
"""How long one source may take before a swarm takes over."""


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
        self._behind = WriteBehind(cache, tasks)

    async def fetch(self, file: RemoteFile, cached: CachedFile) -> None:
        """Fetch a content, if a source gives it at once. Readers of one content share it."""
        await self._flights.start(cached.key, self._fetch, file).wait()

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
                await self._behind.keep(cached, data)
