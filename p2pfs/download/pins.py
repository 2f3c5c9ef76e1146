"""Files that the user has pinned: whole in the cache, and shown with the network gone.

Its path, size, time and id are kept in the state directory; the catalogue shows it from there and
the cache does not evict it. Its missing blocks are fetched behind. One that could not be completed
is tried again after a while, or soon when a neighbour comes that may know a source.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import trio

from p2pfs.cache import BlockCache, CachedContent, CachedFile
from p2pfs.errors import CacheFullError, NotFoundError, TransferError
from p2pfs.journal import Journal
from p2pfs.namespace import Catalogue, RemoteFile, without_suffix
from p2pfs.protocol import MIB, Entry, FileId, block_range, names
from p2pfs.state import replace_file
from p2pfs.tasks import guarded
from p2pfs.threads import RunInThread

log = logging.getLogger(__name__)

FETCHES: Final = 2
"""Pinned files fetched at once, not counting those for which nothing has come."""

MAX_STUCK: Final = 16
"""Those for which nothing has come, at most: each costs a swarm, and searches."""

FIRST_S: Final = 0.25
"""A fetch for which nothing has come so long, not even the manifest, lets the next begin; but not
while a holder of it gives us something else, for on a slow line its manifest comes behind that. If
its holder is only far away, one more is under way, no worse. Eight pins of a silent holder held up
the ninth for 98 s."""

PIECE_BYTES: Final = MIB
"""Asked for at once; no more than a reader's first read-ahead."""

PIN_RETRY_S: Final = (5.0, 15.0, 60.0, 300.0)
"""Pauses after a fetch that failed once, twice, ... A new neighbour ends a pause early, but never
the first one."""


class PinReader(Protocol):
    """An open remote file."""

    async def locate(self, offset: int, length: int) -> object:
        """Return when the cache holds these bytes, or raise a TransferError."""
        ...

    @property
    def has_heard(self) -> bool:
        """Whether anything has come for it, or only our own limit lets nothing come."""
        ...

    @property
    def is_in_line(self) -> bool:
        """Whether a source of it is giving something else, behind which its own may come."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


@dataclass(frozen=True, slots=True)
class CachedPath:
    """A file of which something is cached, or that is pinned."""

    path: str | None
    """Where it was last read, if that is known."""
    id: str
    size: int
    done_bytes: int
    percent: int
    """Rounded down."""
    pinned: bool


class _Turns:
    """Whose turn it is to be fetched: FETCHES at once, besides those for which nothing has come."""

    def __init__(self) -> None:
        self._slots = trio.CapacityLimiter(FETCHES)
        self._owners: set[PinReader] = set()

    async def take(self, reader: PinReader, nursery: trio.Nursery) -> None:
        """Wait for a turn, if a reader has none; it has it until `give`, or if nothing comes."""
        if reader in self._owners:
            return
        await self._slots.acquire_on_behalf_of(reader)
        self._owners.add(reader)
        nursery.start_soon(self._give_unless_heard, reader)

    def give(self, reader: PinReader) -> None:
        """Let the next have the turn, if it is this one's."""
        if reader in self._owners:
            self._owners.remove(reader)
            self._slots.release_on_behalf_of(reader)

    async def _give_unless_heard(self, reader: PinReader) -> None:
        await trio.sleep(FIRST_S)
        while reader in self._owners and not reader.has_heard:
            if not reader.is_in_line:
                self.give(reader)
                return
            await trio.sleep(FIRST_S)


class _SavedPin(msgspec.Struct):
    """A pinned file as saved."""

    path: str
    size: int
    mtime_ns: int
    id: str
    """The file id, in hexadecimal."""


def load_pins(path: str) -> Sequence[Entry]:
    """Return what was pinned by the last run; a missing or damaged book is an empty one.

    A row that names no content that could be is left out, and the others are kept.
    """
    try:
        with open(path, "rb") as file:
            rows = msgspec.json.decode(file.read(), type=list[_SavedPin])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        log.warning("pins not read reason=%s", error)
        return ()
    return [entry for row in rows if (entry := _entry(row)) is not None]


def _entry(row: _SavedPin) -> Entry | None:
    reason: object = names.check_path(row.path)
    if reason is None:
        try:
            fields = (row.path, row.size, row.mtime_ns, bytes.fromhex(row.id))
            return msgspec.convert(fields, Entry)
        except ValueError as error:
            reason = error
    log.warning("pin not read path=%r reason=%s", row.path, reason)
    return None


class Pins:
    """All pinned files."""

    def __init__(
        self,
        path: str,
        entries: Sequence[Entry],
        cache: BlockCache,
        catalogue: Catalogue,
        journal: Journal,
        *,
        open_reader: Callable[[RemoteFile], PinReader],
        has_neighbours: Callable[[], bool],
        run_in_thread: RunInThread,
    ) -> None:
        """Show and keep `entries`, which `load_pins` gave; later ones are saved at `path`."""
        self._path = path
        self._cache = cache
        self._catalogue = catalogue
        self._journal = journal
        self._open_reader = open_reader
        self._has_neighbours = has_neighbours
        self._run_in_thread = run_in_thread
        self._entries: dict[str, Entry] = {}
        self._fetches: dict[str, trio.CancelScope] = {}
        self._under_way = trio.CapacityLimiter(FETCHES + MAX_STUCK)
        self._turns = _Turns()
        self._saving = trio.Lock()
        self._news = trio.Event()
        self._nursery: trio.Nursery | None = None
        for entry in entries:
            self._hold(entry)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch the missing blocks of pinned files, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for entry in self.entries():
                self._start_fetch(entry)
            task_status.started()
            await trio.sleep_forever()

    def entries(self) -> Sequence[Entry]:
        """Return the pinned files, sorted by path. Any thread."""
        return sorted(self._entries.values(), key=lambda entry: entry.path)

    async def cached_files(self, path_of: Callable[[FileId], str | None]) -> Sequence[CachedPath]:
        """Return the cached and the pinned files, by path; `path_of` gives the other paths."""
        done = {one.file_id: one for one in await self._run_in_thread(self._cache.holdings)}
        files = [_cached(e.path, done.get(FileId(e.file_id)), e) for e in self.entries()]
        pinned = {entry.file_id for entry in self._entries.values()}
        files += [_cached(path_of(i), one) for i, one in done.items() if i not in pinned]
        return sorted(files, key=lambda file: (file.path is None, file.path or file.id))

    def neighbour_came(self) -> None:
        """Note that there is a new neighbour, which may know a source."""
        self._news.set()
        self._news = trio.Event()

    async def add(self, *files: RemoteFile) -> None:
        """Pin files, all or none, for this and later runs; other content at their paths is let go.

        Raises:
            CacheFullError: they would not fit into the cache with the other pinned files.
            OSError: it cannot be saved.
        """
        # A directory may be shown under another name than it has at those who share it.
        paths = [self._catalogue.shown.published(file.path) for file in files]
        added = {
            path: Entry(path, file.size, file.mtime_ns, file.file_id)
            for path, file in zip(paths, files, strict=True)
        }
        async with self._saving:
            entries = self._entries | added
            if sum(one.size for one in entries.values()) > self._cache.limit_bytes:
                what = files[0].path if len(files) == 1 else f"{len(files)} files"
                raise CacheFullError(f"the cache has no room to keep {what} whole")
            await self._run_in_thread(_save, self._path, tuple(entries.values()))
            for entry in added.values():
                self._let_go(entry.path)
                self._hold(entry)
                self._start_fetch(entry)

    async def remove(self, *paths: str) -> Sequence[str]:
        """Unpin the files pinned or shown at or below some paths; return their paths.

        Their cached blocks may go now.

        Raises:
            NotFoundError: no such file is pinned.
            OSError: it cannot be saved.
        """
        meant = {*paths, *map(self._catalogue.shown.published, paths)}
        return await self._remove(lambda e: any(_is_at_or_below(e, one) for one in meant))

    async def remove_content(self, file_id: FileId) -> Sequence[str]:
        """Unpin a content wherever it is pinned; as `remove` does."""
        return await self._remove(lambda entry: entry.file_id == file_id)

    async def _remove(self, is_meant: Callable[[Entry], bool]) -> Sequence[str]:
        async with self._saving:
            removed = [entry.path for entry in self.entries() if is_meant(entry)]
            if not removed:
                raise NotFoundError("it is not pinned")
            left = [entry for entry in self._entries.values() if not is_meant(entry)]
            await self._run_in_thread(_save, self._path, tuple(left))
            for path in removed:
                self._let_go(path)
            return removed

    def _hold(self, entry: Entry) -> None:
        self._entries[entry.path] = entry
        self._cache.keep(FileId(entry.file_id), entry.size)
        self._catalogue.kept.put(entry)

    def _let_go(self, path: str) -> None:
        entry = self._entries.pop(path, None)
        if entry is None:
            return
        if path in self._fetches:
            self._fetches.pop(path).cancel()
        self._catalogue.kept.drop(path)
        if all(other.file_id != entry.file_id for other in self._entries.values()):
            self._cache.let_go(FileId(entry.file_id), entry.size)

    # Fetching.

    def _start_fetch(self, entry: Entry) -> None:
        if self._nursery is not None:
            self._fetches[entry.path] = scope = trio.CancelScope()
            self._nursery.start_soon(guarded, self._complete, entry, scope)

    async def _complete(self, entry: Entry, scope: trio.CancelScope) -> None:
        """Fetch a file to its end, however often that has to be tried."""
        with scope:
            for failures in itertools.count():
                try:
                    entry = await self._put_right(entry)
                    if await self._try_fetch(entry):
                        break
                except TransferError:
                    pass  # it is in the journal
                except OSError as error:
                    log.warning("pinned file not fetched path=%r reason=%s", entry.path, error)
                await self._pause(PIN_RETRY_S[min(failures, len(PIN_RETRY_S) - 1)])
        if self._fetches.get(entry.path) is scope:
            del self._fetches[entry.path]

    async def _put_right(self, entry: Entry) -> Entry:
        """Return a pinned file with the size that its manifest gives, if that was announced wrong.

        Raises nothing: what cannot be saved now is put right again after a restart.
        """
        file_id = FileId(entry.file_id)
        size = self._catalogue.offers.size_of(file_id)
        is_pinned = self._entries.get(entry.path) is entry  # else it was let go in this moment
        if size is None or size == entry.size or not is_pinned:
            return entry
        right = msgspec.structs.replace(entry, size=size)
        self._cache.let_go(file_id, entry.size)
        self._hold(right)
        async with self._saving:
            with contextlib.suppress(OSError):
                await self._run_in_thread(_save, self._path, tuple(self._entries.values()))
        return right

    async def _try_fetch(self, entry: Entry) -> bool:
        """Fetch the missing blocks if there is a neighbour; return whether the disk has all."""
        key = FileId(entry.file_id), entry.size
        is_fetched = False
        async with self._under_way:
            with self._cache.opened(*key) as cached:
                if cached.done_bytes < entry.size and self._has_neighbours():
                    await self._fetch(entry, cached)
                    is_fetched = True
                is_whole, is_unwritten = cached.done_bytes == entry.size, cached.is_unwritten
        if is_unwritten:
            is_whole = await self._is_written(*key)
            if not is_whole:
                self._journal.error("pinned, and the disk does not take it", entry.path)
        if is_fetched and is_whole:
            self._journal.done("pinned: all of it is here", entry.path)
        return is_whole

    async def _is_written(self, file_id: FileId, size: int) -> bool:
        """Wait until a small content that was taken is written; return whether the disk has it."""
        with self._cache.opened(file_id, size) as cached:
            pause_s = FIRST_S
            while cached.is_unwritten:
                await trio.sleep(pause_s)
                pause_s *= 2
            return cached.done_bytes == size

    async def _fetch(self, entry: Entry, cached: CachedFile) -> None:
        file_id = FileId(entry.file_id)
        sources = self._catalogue.offers.sources_of(file_id, entry.size)
        file = RemoteFile(entry.path, entry.size, entry.mtime_ns, file_id, sources)
        nursery = self._nursery
        assert nursery is not None
        with contextlib.closing(self._open_reader(file)) as reader:
            try:
                for offset in range(0, entry.size, PIECE_BYTES):
                    length = min(PIECE_BYTES, entry.size - offset)
                    if not _is_here(cached, offset, length):
                        await self._turns.take(reader, nursery)
                        await reader.locate(offset, length)
            finally:
                self._turns.give(reader)

    async def _pause(self, seconds: float) -> None:
        news = self._news
        await trio.sleep(PIN_RETRY_S[0])
        with trio.move_on_after(seconds - PIN_RETRY_S[0]):
            await news.wait()


def _cached(path: str | None, held: CachedContent | None, entry: Entry | None = None) -> CachedPath:
    file = entry or held
    assert file is not None
    done_bytes = held.done_bytes if held is not None else 0
    percent = 100 * done_bytes // file.size if file.size else 100
    return CachedPath(path, file.file_id.hex(), file.size, done_bytes, percent, entry is not None)


def _is_here(cached: CachedFile, offset: int, length: int) -> bool:
    blocks = block_range(cached.size, offset, length)
    return all(cached.has(index) or cached.claims(index) for index in blocks)


def _is_at_or_below(entry: Entry, path: str) -> bool:
    at = without_suffix(path, FileId(entry.file_id))
    return entry.path in (path, at) or entry.path.startswith(path and f"{path}/")


def _save(path: str, entries: Sequence[Entry]) -> None:
    rows = [_SavedPin(e.path, e.size, e.mtime_ns, e.file_id.hex()) for e in entries]
    replace_file(path, msgspec.json.encode(rows))
