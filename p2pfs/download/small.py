"""Contents of one block: one exchange with one source for each or for some, and no swarm.

A swarm takes half a millisecond to come and go, and can deal with failures; so a content that
does not come here is left to a swarm. What has come is verified at once, and written by `behind`.
Those that are fetched ahead are asked for together where the source knows how to: a message, a
task and a deadline for each took most of the time that a small file costs.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import trio

from p2pfs.cache import BlockCache, CachedFile, Key
from p2pfs.download.behind import WriteBehind
from p2pfs.errors import P2pfsError
from p2pfs.link import TransferLinks
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import KIB, MAX_CONTENTS_ASKED, PeerInfo
from p2pfs.tasks import Tasks

MAX_ALONE: Final = 128
"""Contents being fetched one by one above which others that are fetched ahead wait: a source lets
so many requests of one peer wait."""

MAX_COMING: Final = 512
"""Contents being fetched above which others wait. As many may wait; more are not fetched ahead."""

AHEAD_S: Final = 1.0
LEAST_AHEAD_BYTES: Final = 256 * KIB
"""No more is asked for together than comes in this time, or so much: what else is read from the
same source waits for it."""

SMALL_PATIENCE_S: Final = 1.0
"""How long a source may give nothing of what was asked for before a swarm takes over."""


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
        self._coming: dict[Key, trio.Event | None] = {}
        """The contents being fetched, each with the event that its readers, if any, wait for."""
        self._unasked: deque[tuple[PeerInfo, deque[RemoteFile]]] = deque()
        """The contents to be asked for together, in order: trio starts tasks in any."""
        self._later: deque[RemoteFile] = deque(maxlen=MAX_COMING)
        """The contents to be fetched ahead when there is room."""
        self._alone = 0
        """How many contents are being fetched one by one."""
        self._ahead_bytes = 0
        """How much was asked for together and has not come."""
        self._bytes_per_s = math.inf
        """How fast the last contents came that were asked for together."""
        self._behind = WriteBehind(cache, tasks)

    async def fetch(self, file: RemoteFile, cached: CachedFile) -> None:
        """Fetch a content, if a source gives it at once. Readers of one content share it."""
        self._tasks.check()
        if cached.key not in self._coming:
            self._start_alone(file)
        came = self._coming[cached.key]
        if came is None:
            came = self._coming[cached.key] = trio.Event()
        with trio.move_on_after(SMALL_PATIENCE_S):
            await came.wait()
        self._tasks.check()

    def fetch_ahead(self, files: Sequence[RemoteFile]) -> None:
        """Fetch contents that will probably be opened next. For trio's thread."""
        self._later.extend(files)
        self._begin()

    def _begin(self) -> None:
        """Begin to fetch ahead what there is room for."""
        together: dict[PeerInfo, deque[RemoteFile]] = {}
        while self._later and self._has_room:
            file = self._later.popleft()
            if self._is_wanted(file):
                source = self._source_of(file)
                if self._transfers.gives_contents(source):
                    self._coming[_key_of(file)] = None
                    self._ahead_bytes += file.size
                    together.setdefault(source, deque()).append(file)
                else:
                    self._start_alone(file)
        for source, wanted in together.items():
            while wanted:
                count = min(len(wanted), MAX_CONTENTS_ASKED)
                some = deque(wanted.popleft() for _ in range(count))
                self._unasked.append((source, some))
                self._tasks.start(self._fetch_some)

    @property
    def _has_room(self) -> bool:
        most_bytes = max(self._bytes_per_s * AHEAD_S, LEAST_AHEAD_BYTES)
        is_room = self._alone < MAX_ALONE and len(self._coming) < MAX_COMING
        return is_room and self._ahead_bytes < most_bytes and self._tasks.are_running

    def _is_wanted(self, file: RemoteFile) -> bool:
        is_here = self._cache.size_of(file.file_id) is not None
        return bool(file.sources) and not is_here and _key_of(file) not in self._coming

    def _source_of(self, file: RemoteFile) -> PeerInfo:
        return max(file.sources, key=self._transfers.is_linked)

    def _over(self, file: RemoteFile) -> None:
        """Let the readers of a content have it, or fetch it otherwise."""
        came = self._coming.pop(_key_of(file), None)
        if came is not None:
            came.set()
        if self._later:
            self._begin()

    # One by one.

    def _start_alone(self, file: RemoteFile) -> None:
        self._coming.setdefault(_key_of(file), None)
        self._tasks.start(self._fetch_alone, file)
        self._alone += 1

    async def _fetch_alone(self, file: RemoteFile) -> None:
        try:
            await self._exchange(file)
        finally:
            self._alone -= 1
            self._over(file)

    async def _exchange(self, file: RemoteFile) -> None:
        with contextlib.suppress(P2pfsError), self._opened(file) as cached:
            if not file.sources or cached.has(0) or await cached.prepare(0):
                return
            with trio.move_on_after(SMALL_PATIENCE_S):
                source = self._source_of(file)
                data = await self._transfers.fetch_small(source, file.file_id)
                self._on_received(file, source, len(data))
                await self._behind.keep(cached, data)

    async def _keep(self, file: RemoteFile, data: bytes) -> None:
        try:
            with contextlib.suppress(P2pfsError), self._opened(file) as cached:
                await self._behind.keep(cached, data)
        finally:
            self._over(file)

    def _opened(self, file: RemoteFile) -> contextlib.AbstractContextManager[CachedFile]:
        return self._cache.opened(file.file_id, file.size)

    # Together.

    async def _fetch_some(self) -> None:
        """Fetch contents from one source, and alone those that it does not give together."""
        source, left = self._unasked.popleft()
        asked_bytes = sum(file.size for file in left)
        pace = _Pace()

        def take(data: bytes | None) -> None:
            pace.came(data or b"")
            patience.deadline = trio.current_time() + SMALL_PATIENCE_S
            self._came(left.popleft(), source, data)

        try:
            with contextlib.suppress(P2pfsError), trio.move_on_after(SMALL_PATIENCE_S) as patience:
                file_ids = [file.file_id for file in left]
                await self._transfers.fetch_contents(source, file_ids, take)
        finally:
            self._ahead_bytes -= asked_bytes
            self._bytes_per_s = pace.bytes_per_s or self._bytes_per_s
            for file in left:
                self._over(file)
            self._begin()

    def _came(self, file: RemoteFile, source: PeerInfo, data: bytes | None) -> None:
        """Take in what a source gives for a content; for the reader of the link."""
        with contextlib.suppress(P2pfsError):
            if data is None:
                self._start_alone(file)
                return
            self._on_received(file, source, len(data))
            with self._opened(file) as cached:
                if not self._behind.take(cached, data):
                    self._tasks.start(self._keep, file, data)
                    return
        self._over(file)


class _Pace:
    """How fast contents come, one behind the other."""

    def __init__(self) -> None:
        self._began_at: float | None = None
        self._count = 0

    def came(self, data: bytes) -> None:
        """Note a content that has come; from the first on the time counts, not its bytes."""
        if self._began_at is None:
            self._began_at = trio.current_time()
        else:
            self._count += len(data)

    @property
    def bytes_per_s(self) -> float | None:
        """The bytes a second until now; None if too little has come to tell."""
        if self._began_at is None or not self._count:
            return None
        took_s = trio.current_time() - self._began_at
        return self._count / took_s if took_s else math.inf


def _key_of(file: RemoteFile) -> Key:
    return Key(file.file_id, file.size)
