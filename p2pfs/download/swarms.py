"""One swarm for each content that somebody reads, and the readers of `network/`.

A reader is pinned to a file id when it is opened, on a kernel thread and without the network.
Its swarm starts with the first read that the cache cannot answer and ends with the last
reader, so an open file that is fully cached costs no task at all.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from p2pfs.cache import BlockCache, CachedFile
from p2pfs.download.small import SmallContents
from p2pfs.download.swarm import Swarm, SwarmStatistics
from p2pfs.errors import NotAskedError, TransferError
from p2pfs.journal import Journal
from p2pfs.link import Deliver, TransferLinks
from p2pfs.namespace import Catalogue, RemoteFile
from p2pfs.overlay import Searches
from p2pfs.protocol import (
    FileId,
    Manifest,
    PeerInfo,
    QueryHit,
    QueryKind,
    ServentId,
    block_count_for,
)
from p2pfs.protocol.flood import Urgency
from p2pfs.rates import RateLimit
from p2pfs.tasks import Tasks

T = TypeVar("T")

log = logging.getLogger(__name__)

SOURCES_TIMEOUT_S: Final = 2.0
"""How long a search for more sources may take before the swarm goes on without."""

LOOK_S: Final = 0.5
"""How often the catalogue is asked for sources that others' searches and listings found."""

LOOK_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""When the network is asked for further sources of what is being fetched: after the first, then
the second, ... of these, and again each last one. What takes a second to fetch costs no search."""

FAILED_S: Final = 0.5
"""How long a failed read stands for those that follow on the same open file. The kernel asks
again for the pages of a failed read-ahead, and for those behind: `cat` asked three times, and
so got its error only after three times the stall time."""

MAX_PATHS: Final = 10_000
"""Contents of which it is remembered where they were last read."""

MAX_ERRORS: Final = 1_000
"""Paths whose last failure is remembered for `user.p2pfs.error`."""


_Content = tuple[FileId, int]
"""A file id and a size. A peer can announce a wrong size: such a content gets a swarm of its
own, which never has a manifest, and does not touch the right one."""


def _content_of(file: RemoteFile) -> _Content:
    return file.file_id, file.size


@dataclass(slots=True)
class _Running:
    """A swarm with the readers that keep it alive."""

    path: str
    swarm: Swarm
    cached: CachedFile
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_up: trio.Event = field(default_factory=trio.Event)
    readers: int = 0
    told: set[ServentId] = field(default_factory=set)
    """Sources that the catalogue knew and the swarm was told of."""
    looks: int = 0
    """Searches for further sources so far."""
    look_at: float = 0.0
    """When the next of them is due."""


class Swarms:
    """All swarms of this servent; also what each of them asks of the outside."""

    def __init__(
        self,
        cache: BlockCache,
        catalogue: Catalogue,
        searches: Searches,
        transfers: TransferLinks,
        journal: Journal,
        *,
        ttl: int,
        stall_timeout_s: float,
        own_id: ServentId,
        on_bad_block: Callable[[ServentId], None],
        limit: RateLimit | None = None,
    ) -> None:
        self._cache = cache
        self._catalogue = catalogue
        self._searches = searches
        self._transfers = transfers
        self._journal = journal
        self._ttl = ttl
        self._stall_timeout_s = stall_timeout_s
        self._limit = limit
        self.own_id = own_id
        self._on_bad_block = on_bad_block
        self.received_bytes = 0
        """File data that has come, right or wrong."""
        self._running: dict[_Content, _Running] = {}
        self._errors: dict[str, str] = {}
        self._paths: OrderedDict[FileId, str] = OrderedDict()
        self._tasks = Tasks()
        self._small = SmallContents(cache, transfers, self._tasks, self._small_came)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the swarms until cancelled."""
        await self._tasks.run(self._look_around, task_status=task_status)

    def open(self, file: RemoteFile) -> Reader:
        """Return a reader pinned to this content. Any thread; no network.

        Raises:
            OSError: the cache cannot open its files.
        """
        return Reader(self, file, self._cache.open_file(file.file_id, file.size))

    def statistics(self) -> list[tuple[str, FileId, SwarmStatistics]]:
        """Return each running swarm with the path it was first read at. Any thread."""
        return [
            (running.path, file_id, running.swarm.statistics())
            for (file_id, _), running in self._running.copy().items()
        ]

    def last_error(self, path: str) -> str | None:
        """Return why the last read of a path failed, or None if it did not. Any thread."""
        return self._errors.get(path)

    def path_of(self, file_id: FileId) -> str | None:
        """Return the path at which a content was last read, if that is remembered. Any thread."""
        return self._paths.get(file_id)

    # Further sources of what is being fetched.

    def look_soon(self) -> None:
        """Note that a servent has come, or shares something new: it may be a source."""
        for running in self._running.values():
            running.look_at = 0.0

    async def _look_around(self) -> None:
        """Tell the swarms of further sources, until cancelled; one search at a time."""
        while True:
            await trio.sleep(LOOK_S)
            wanting = [one for one in self._running.values() if one.swarm.wants_sources]
            for running in wanting:
                self._tell_known(running)
            now = trio.current_time()
            due = [running for running in wanting if running.look_at <= now]
            if due:
                await self._look(min(due, key=lambda running: running.look_at))

    def _tell_known(self, running: _Running) -> None:
        known = self._catalogue.sources_of(*running.cached.key)
        fresh = [source for source in known if source.id not in running.told]
        if fresh:
            running.told.update(source.id for source in fresh)
            running.swarm.add_sources(fresh)

    async def _look(self, running: _Running) -> None:
        """Search for further sources; if that may not be now, it counts for nothing."""
        running.looks += 1
        pause_s = LOOK_PAUSES_S[min(running.looks, len(LOOK_PAUSES_S) - 1)]
        running.look_at = trio.current_time() + pause_s
        file_id = running.cached.file_id
        try:
            hits = await self._search(*running.cached.key, Urgency.SOURCES)
        except NotAskedError as error:
            running.looks -= 1
            running.look_at = trio.current_time() + error.wait_s
            return
        readers = [hit.provider for hit in hits if _is_of_reader(hit, file_id)]
        sources = [hit.provider for hit in hits if not _is_of_reader(hit, file_id)]
        running.swarm.add_sources(sources, readers)

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
        if _content_of(file) not in self._running and self._limit is None:
            await self._small.fetch(file, cached)

    def _small_came(self, file: RemoteFile, count: int) -> None:
        self.received_bytes += count
        self._remember_path(file)

    def leave(self, file: RemoteFile, swarm: Swarm) -> None:
        """Note that a reader that had joined is gone. Any thread."""
        self._tasks.soon(self._left, _content_of(file), swarm)

    def fetch_ahead(self, files: Sequence[RemoteFile]) -> None:
        """Have small contents ready that somebody will probably open next. Any thread."""
        unread = [file for file in files if self._cache.size_of(file.file_id) is None]
        if unread and self._limit is None:
            self._tasks.soon(self._small.fetch_ahead, unread)

    def failed(self, path: str, error: TransferError) -> None:
        """Remember and announce why a read failed."""
        self._errors.pop(path, None)
        self._errors[path] = str(error)
        while len(self._errors) > MAX_ERRORS:
            del self._errors[next(iter(self._errors))]
        self._journal.error(str(error), path)

    def worked(self, path: str) -> None:
        """Note that a path can be read again."""
        self._errors.pop(path, None)

    def _start(self, file: RemoteFile) -> _Running:
        self._tasks.check()
        cached = self._cache.open_file(file.file_id, file.size)
        known = self._catalogue.sources_of(file.file_id, file.size)
        sources = dict.fromkeys((*file.sources, *known))
        swarm = Swarm(cached, tuple(sources), self, self._stall_timeout_s, self._limit)
        running = _Running(file.path, swarm, cached)
        self._remember_path(file)
        running.told.update(source.id for source in sources)
        running.look_at = trio.current_time() + LOOK_PAUSES_S[0]
        self._running[_content_of(file)] = running
        self._tasks.start(self._run_one, _content_of(file), running)
        return running

    def _remember_path(self, file: RemoteFile) -> None:
        self._paths[file.file_id] = file.path
        self._paths.move_to_end(file.file_id)
        if len(self._paths) > MAX_PATHS:
            self._paths.popitem(last=False)

    async def _run_one(self, content: _Content, running: _Running) -> None:
        try:
            async with trio.open_nursery() as nursery:
                with running.scope:
                    await nursery.start(self._run_swarm, running)
                    running.is_up.set()
                    await trio.sleep_forever()
                nursery.cancel_scope.cancel()
        finally:
            running.is_up.set()
            if self._running.get(content) is running:
                del self._running[content]
            running.cached.close()

    async def _run_swarm(self, running: _Running, *, task_status: trio.TaskStatus[None]) -> None:
        await running.swarm.run(task_status=task_status)
        running.scope.cancel()  # a bug has ended it: who reads next gets another

    def _left(self, content: _Content, swarm: Swarm) -> None:
        running = self._running.get(content)
        if running is None or running.swarm is not swarm:
            return
        running.readers -= 1
        if not running.readers:
            del self._running[content]
            running.scope.cancel()

    # What a swarm asks (swarm.Upstream).

    async def find_sources(
        self, file_id: FileId, size: int, urgency: Urgency
    ) -> Sequence[PeerInfo]:
        """Return who has a content, asked for now, beside those known already.

        Raises NotAskedError if that may not be now.
        """
        running = self._running.get((file_id, size))
        if running is not None:
            self._tell_known(running)
        found = [hit.provider for hit in await self._search(file_id, size, urgency)]
        return tuple(dict.fromkeys((*found, *self._catalogue.sources_of(file_id, size))))

    async def _search(self, file_id: FileId, size: int, urgency: Urgency) -> Sequence[QueryHit]:
        """Search for a content; who says another size of it is no source."""
        outcome = await self._searches.run(
            QueryKind.ID,
            file_id.hex(),
            rings=range(1, self._ttl + 1),
            timeout_s=SOURCES_TIMEOUT_S,
            urgency=urgency,
        )
        found = [(hit, self._catalogue.sift(hit.provider, hit.entries)) for hit in outcome.hits]
        return [hit for hit, told in found if told and all(one.size == size for one in told)]

    def proved(self, file_id: FileId, size: int) -> None:
        """Note the size that the manifest of a content gives."""
        self._catalogue.prove(file_id, size)

    async def fetch_manifest(self, source: PeerInfo, file_id: FileId) -> bytes:
        """Return a manifest as sent; see `TransferLinks.fetch_manifest`."""
        return await self._transfers.fetch_manifest(source, file_id)

    async def fetch_blocks(
        self, source: PeerInfo, file_id: FileId, wanted: Mapping[int, int], deliver: Deliver
    ) -> None:
        """Deliver blocks as sent; see `TransferLinks.fetch_blocks`."""

        def counted(block: bytes) -> None:
            self.received_bytes += len(block)
            deliver(block)

        await self._transfers.fetch_blocks(source, file_id, wanted, counted)

    def bad_block(self, source: PeerInfo, file_id: FileId) -> None:
        """Note that a source sent a wrong block."""
        self._journal.warning(f"{source.name} sent a wrong block of {file_id.hex()[:8]}")
        self._on_bad_block(source.id)


def _is_of_reader(hit: QueryHit, file_id: FileId) -> bool:
    """Return whether a hit names a content in a cache, under no name but its id."""
    return all(entry.path == file_id.hex() for entry in hit.entries)


class Reader:
    """One open file below `network/`: one content, whatever happens to its name."""

    def __init__(self, swarms: Swarms, file: RemoteFile, cached: CachedFile) -> None:
        self._swarms = swarms
        self._file = file
        self._cached = cached
        self._is_small = block_count_for(file.size) == 1
        self._swarm: Swarm | None = None
        self._is_closed = False
        self._failed_at = float("-inf")
        self._failed_offset = 0
        self._failure: TransferError | None = None

    @property
    def manifest(self) -> Manifest | None:
        """What the blocks must be; known once anything was read."""
        return self._cached.manifest

    def locate_nowait(self, offset: int, length: int) -> int | bytes | None:
        """Return a descriptor that holds these bytes if all are in the cache, else None.

        They lie in it at the same offset until this reader is closed; of a content larger than
        the cache they are returned themselves. Any thread.
        """
        return (self._swarm or self._cached).locate_nowait(offset, length)

    async def locate(self, offset: int, length: int, *, ahead: bool = True) -> int | bytes:
        """Return a descriptor that holds exactly these bytes, fetching what is missing.

        Unless `ahead` is false, what will probably be read next is fetched too.

        A read at or behind one that has just failed fails as well, at once.

        Raises:
            TransferError: the subclass says why not (DESIGN 2.2).
        """
        if self._is_small and self._swarm is None:
            await self._swarms.fetch_small(self._file, self._cached)
            descriptor = self._cached.locate_nowait(offset, length)
            if descriptor is not None:
                self._swarms.worked(self._file.path)
                return descriptor
        return await self._settled(offset, lambda swarm: swarm.locate(offset, length, ahead=ahead))

    async def read(self, offset: int, length: int) -> bytes:
        """Return exactly these bytes; otherwise as `locate`."""
        return await self._settled(offset, lambda swarm: swarm.read(offset, length))

    async def _settled(self, offset: int, ask: Callable[[Swarm], Awaitable[T]]) -> T:
        self._fail_again(offset)
        if self._swarm is not None and self._swarm.has_ended:
            self._swarm = None
        swarm = self._swarm or await self._join()
        try:
            answer = await ask(swarm)
        except TransferError as error:
            self._note_failure(error, offset)
            raise
        self._swarms.worked(self._file.path)
        return answer

    async def _join(self) -> Swarm:
        """Join the swarm once, however many reads of this file wait for that."""
        swarm = await self._swarms.join(self._file)
        if self._swarm is not None or self._is_closed:
            self._swarms.leave(self._file, swarm)
        else:
            self._swarm = swarm
        return swarm

    def _note_failure(self, error: TransferError, offset: int) -> None:
        """Announce a failure once, though the kernel reads at several places at once."""
        if self._has_just_failed:
            offset = min(offset, self._failed_offset)
        else:
            self._swarms.failed(self._file.path, error)
        self._failed_at, self._failed_offset = trio.current_time(), offset
        self._failure = error

    def _fail_again(self, offset: int) -> None:
        if self._failure is not None and self._has_just_failed and offset >= self._failed_offset:
            raise type(self._failure)(*self._failure.args)

    @property
    def _has_just_failed(self) -> bool:
        return trio.current_time() - self._failed_at < FAILED_S

    def close(self) -> None:
        """Let go of the content. Any thread; once, maybe while a read that was given up ends."""
        self._is_closed = True
        self._cached.close()
        if self._swarm is not None:
            self._swarms.leave(self._file, self._swarm)
