"""One swarm for each content that somebody reads, and the readers of `network/`.

A reader is pinned to a file id when it is opened, on a kernel thread and without the network.
Its swarm starts with the first read that the cache cannot answer and ends with the last
reader, so an open file that is fully cached costs no task at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.cache import BlockCache, CachedFile
from p2pfs.config import Config
from p2pfs.download.reader import Reader
from p2pfs.download.scout import Scout, Wanting
from p2pfs.download.small import SmallContents
from p2pfs.download.swarm import Swarm, SwarmStatistics
from p2pfs.download.upstream import NetworkUpstream
from p2pfs.errors import TransferError
from p2pfs.journal import Journal
from p2pfs.latest import Latest
from p2pfs.link import TransferLinks
from p2pfs.namespace import Catalogue, RemoteFile
from p2pfs.overlay import Searches
from p2pfs.protocol import (
    FileId,
    PeerInfo,
    ServentId,
)
from p2pfs.rates import RateLimit
from p2pfs.tasks import Tasks

log = logging.getLogger(__name__)

MAX_PATHS: Final = 10_000
"""Contents of which it is remembered where they were last read."""

MAX_ERRORS: Final = 1_000
"""Paths whose last failure is remembered for `user.p2pfs.error`."""


_Content = tuple[FileId, int]
"""A file id and a size. A peer can announce a wrong size: such a content gets a swarm of its
own, which never has a manifest, and does not touch the right one."""


OnFetched = Callable[[str, _Content, Mapping[PeerInfo, int]], object]
"""Takes a path, its content, and the bytes of that which each peer has given."""


def _content_of(file: RemoteFile) -> _Content:
    return file.file_id, file.size


@dataclass(slots=True)
class _RunningSwarm:
    """A swarm with the readers that keep it alive."""

    path: str
    swarm: Swarm
    cached: CachedFile
    wanting: Wanting
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_up: trio.Event = field(default_factory=trio.Event)
    readers: int = 0


class Swarms:
    """All swarms of this servent, while somebody reads."""

    def __init__(
        self,
        cache: BlockCache,
        catalogue: Catalogue,
        searches: Searches,
        links: TransferLinks,
        journal: Journal,
        *,
        ttl: int,
        stall_timeout_s: float,
        own_id: ServentId,
        on_bad_block: Callable[[ServentId], None],
    ) -> None:
        self._cache = cache
        self._catalogue = catalogue
        self._journal = journal
        self.stall_timeout_s = stall_timeout_s
        """Seconds without a byte after which reads fail. A content that somebody has open keeps
        its time until all its readers have closed it."""
        self.limit = RateLimit()
        """The rate at which all of them together may fetch."""
        self.on_fetched: OnFetched = lambda _path, _content, _taken: None
        """Called with each content of which blocks have come, when its swarm ends."""
        self.upstream = NetworkUpstream(
            catalogue,
            searches,
            links,
            journal,
            ttl=ttl,
            own_id=own_id,
            on_bad_block=on_bad_block,
        )
        self._scout = Scout(catalogue, self.upstream)
        self._small_bytes = 0
        self._running: dict[_Content, _RunningSwarm] = {}
        self._errors: Latest[str, str] = Latest(MAX_ERRORS)
        self._paths: Latest[FileId, str] = Latest(MAX_PATHS)
        self._tasks = Tasks()
        self._small = SmallContents(cache, links, self._tasks, self._small_came)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the swarms until cancelled."""
        await self._tasks.run(self._scout.run, task_status=task_status)

    def open(self, file: RemoteFile) -> Reader:
        """Return a reader pinned to this content. Any thread; no network.

        Raises:
            CacheFullError: the cache cannot open its file.
            TooManyFilesError: because this process may not open more files.
        """
        return Reader(self, file, self._cache.open_file(file.file_id, file.size))

    @property
    def received_bytes(self) -> int:
        """File data that has come, right or wrong. Any thread."""
        return self.upstream.received_bytes + self._small_bytes

    def follow(self, config: Config) -> None:
        """Take over the stall time of changed settings. Any thread."""
        self.stall_timeout_s = config.stall_timeout_s

    def look_soon(self) -> None:
        """Note that a servent has come, or shares something new: it may be a source."""
        self._scout.look_soon()

    def statistics(self) -> list[tuple[str, FileId, SwarmStatistics]]:
        """Return each running swarm with the path it was first read at. Any thread."""
        return [
            (running.path, file_id, running.swarm.statistics())
            for (file_id, _), running in self._running.copy().items()
        ]

    def last_error(self, path: str) -> str | None:
        """Return why the last read of a path failed, or None if it did not. Any thread."""
        return self._errors.get(path)

    def cached_percent(self, file_id: FileId) -> int:
        """Return how much of a content is in the cache. Any thread."""
        return self._cache.percent(file_id)

    def path_of(self, file_id: FileId) -> str | None:
        """Return the path at which a content was last read, if that is remembered. Any thread."""
        return self._paths.get(file_id)

    # For readers.

    async def join(self, file: RemoteFile) -> Swarm:
        """Return the swarm of a content, started if need be, for one more reader.

        Raises:
            ShutdownError: the servent is going down.
        """
        running = self._running.get(_content_of(file))
        if running is None:
            running = self._start(file)
        running.readers += 1
        try:
            await running.is_up.wait()
        except trio.Cancelled:
            self._left(_content_of(file), running.swarm)
            raise
        running.swarm.add_sources(file.sources)
        return running.swarm

    async def fetch_small(self, file: RemoteFile, cached: CachedFile) -> None:
        """Fetch a content of one block in one exchange, if that is possible; see `small`."""
        if _content_of(file) not in self._running and not self.limit.is_set:
            await self._small.fetch(file, cached)

    def _small_came(self, file: RemoteFile, source: PeerInfo, count: int) -> None:
        self._small_bytes += count
        self._remember_path(file)
        self.on_fetched(file.path, _content_of(file), {source: count})

    def leave(self, file: RemoteFile, swarm: Swarm) -> None:
        """Note that a reader that had joined is gone. Any thread."""
        self._tasks.soon(self._left, _content_of(file), swarm)

    def fetch_ahead(self, files: Sequence[RemoteFile]) -> None:
        """Fetch small contents that will probably be opened next. Any thread."""
        unread = [file for file in files if self._cache.size_of(file.file_id) is None]
        if unread and not self.limit.is_set:
            self._tasks.soon(self._small.fetch_ahead, unread)

    def is_giving(self, source: PeerInfo) -> bool:
        """Return whether a source has just given something, of whatever content."""
        return self.upstream.is_giving(source)

    def failed(self, path: str, error: TransferError) -> None:
        """Remember and announce why a read failed."""
        self._errors[path] = str(error)
        self._journal.error(str(error), path)

    def worked(self, path: str) -> None:
        """Note that a path can be read again."""
        self._errors.pop(path, None)

    def _start(self, file: RemoteFile) -> _RunningSwarm:
        self._tasks.check()
        cached = self._cache.open_file(file.file_id, file.size)
        known = self._catalogue.offers.sources_of(file.file_id, file.size)
        sources = dict.fromkeys((*file.sources, *known))
        swarm = Swarm(cached, tuple(sources), self.upstream, self.stall_timeout_s, self.limit)
        wanting = self._scout.watch(swarm, _content_of(file), sources)
        running = _RunningSwarm(file.path, swarm, cached, wanting)
        self._remember_path(file)
        self._running[_content_of(file)] = running
        self._tasks.start(self._run_one, _content_of(file), running)
        return running

    def _remember_path(self, file: RemoteFile) -> None:
        self._paths[file.file_id] = file.path

    async def _run_one(self, content: _Content, running: _RunningSwarm) -> None:
        try:
            async with trio.open_nursery() as nursery:
                with running.scope:
                    await nursery.start(self._run_swarm, running)
                    running.is_up.set()
                    await trio.sleep_forever()
                nursery.cancel_scope.cancel()
        finally:
            running.is_up.set()
            if running.swarm.taken:
                self.on_fetched(running.path, content, running.swarm.taken)
            self._scout.forget(running.wanting)
            if self._running.get(content) is running:
                del self._running[content]
            running.cached.close()

    async def _run_swarm(
        self, running: _RunningSwarm, *, task_status: trio.TaskStatus[None]
    ) -> None:
        await running.swarm.run(task_status=task_status)
        running.scope.cancel()  # a bug has ended it: the next read begins another

    def _left(self, content: _Content, swarm: Swarm) -> None:
        running = self._running.get(content)
        if running is None or running.swarm is not swarm:
            return
        running.readers -= 1
        if not running.readers:
            del self._running[content]
            running.scope.cancel()
