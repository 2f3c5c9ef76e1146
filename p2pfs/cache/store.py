"""All cached contents of one servent, within a limit."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from p2pfs.cache.blocks import CachedFile
from p2pfs.cache.key import Key
from p2pfs.cache.shelves import Shelves
from p2pfs.cache.storage import cannot
from p2pfs.errors import CacheFullError, TransferError
from p2pfs.protocol import FileId
from p2pfs.threads import RunInThread

_GONE_SUFFIX: Final = ".gone"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CachedContent:
    """How much of one content is cached."""

    file_id: FileId
    size: int
    done_bytes: int


class BlockCache:
    """All cached contents of one servent.

    Everything here may be called from any thread.

    Whenever nobody holds the lock, a content is in these tables and no others:

    ===============================  =======================================================
    the content                      tables
    ===============================  =======================================================
    has handles                      `_open`; `_sizes` too once it has a file
    is closed, with a file           `_sizes`, and `kept` if it is in `pinned`, else `closed`
    .. and small, closed lately      `resting` too: its file is open still
    .. and else, closed lately       perhaps `remembered` too: its verified blocks
    has no handles and no file       none, or `pinned` alone
    ===============================  =======================================================

    Those without an underscore are tables of its `Shelves`.

    `_used_bytes` counts the bytes of all files, and those reserved for writes under way.
    """

    def __init__(
        self,
        directory: str,
        limit_bytes: int,
        run_in_thread: RunInThread,
        kept: Iterable[tuple[FileId, int]] = (),
    ) -> None:
        """Open the cache in `directory`, made if missing, and evict down to the limit.

        Looks at every file in it once: about 10 us each. `kept` are the contents, by file id
        and size, that are not to be evicted: see `keep`.
        """
        self._directory = directory
        self._run_in_thread = run_in_thread
        self._lock = threading.Lock()
        self._evicting = threading.Lock()
        self._used_bytes = 0
        self._open: dict[Key, CachedFile] = {}
        self._shelves = Shelves(Key(*one) for one in kept)
        self._sizes: dict[FileId, int] = {}
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._scan()
        self.resize(limit_bytes)

    def resize(self, limit_bytes: int) -> None:
        """Let the cache grow so far from now on, and evict down to that as far as can be.

        Open and pinned contents stay. Any thread; it waits for the disk.
        """
        self.limit_bytes = limit_bytes
        with self._evicting:
            while self._used_bytes > limit_bytes and self._evict_one():
                pass

    @property
    def used_bytes(self) -> int:
        """Bytes on disk that count against the limit."""
        return self._used_bytes

    def open_file(self, file_id: FileId, size: int) -> CachedFile:
        """Return a handle on a content, whether or not anything of it is cached.

        Costs no system call if nothing is. Handles on the same content are one object; each
        must be closed once.

        Raises:
            CacheFullError: the file is there and cannot be opened.
            TooManyFilesError: because this process may not open more files.
        """
        key = Key(file_id, size)
        with self._lock:
            file = self._open.get(key)
            if file is None:
                self._open[key] = file = self._shelves.rouse(key) or self._loaded(key)
            file.handles += 1
            return file

    @contextlib.contextmanager
    def opened(self, file_id: FileId, size: int) -> Iterator[CachedFile]:
        """Hold a handle, as `open_file` gives it, for the length of a block."""
        file = self.open_file(file_id, size)
        try:
            yield file
        finally:
            file.close()

    def find(self, file_id: FileId) -> CachedFile | None:
        """Return a handle on a content of which something is cached; close it as any other."""
        size = self._sizes.get(file_id)
        return None if size is None else self.open_file(file_id, size)

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content of which something is cached, from memory."""
        return self._sizes.get(file_id)

    def percent(self, file_id: FileId) -> int:
        """Return how much of a content is cached, rounded down."""
        file = self._open.get(Key(file_id, self._sizes.get(file_id, 0)))
        if file is not None:
            return 100 * file.done_bytes // max(1, file.size)
        try:
            file = self.find(file_id)
        except TransferError:  # no descriptors left: what it takes on the disk is near enough
            return self._percent_on_disk(file_id)
        if file is None:
            return 0
        try:
            return 100 * file.done_bytes // max(1, file.size)
        finally:
            file.close()

    def _percent_on_disk(self, file_id: FileId) -> int:
        key = Key(file_id, self._sizes.get(file_id, 0))
        with self._lock:
            allocated_bytes = self._shelves.bytes_of(key) or 0
        return min(100, 100 * allocated_bytes // max(1, key.size))

    def is_whole(self, file_id: FileId) -> bool:
        """Return whether all of a content seems to be cached, from memory.

        For one that nobody has open, the bytes on the disk decide: a last block that is missing
        may be overlooked.
        """
        size = self._sizes.get(file_id)
        if not size:  # nearly all of others' contents: it is asked of each name that is learned
            return False
        key = Key(file_id, size)
        with self._lock:
            file = self._open.get(key)
            allocated_bytes = self._shelves.bytes_of(key) or 0
        return (file.done_bytes if file else allocated_bytes) >= size

    def holdings(self) -> list[CachedContent]:
        """Return all cached contents, least recently used first. Reads each map: some 100 us."""
        with self._lock:
            keys = [*self._shelves, *self._open]
        found = []
        for key in dict.fromkeys(keys):
            with contextlib.suppress(TransferError):  # no descriptors left
                file = self.open_file(*key)
                found.append(CachedContent(key.file_id, key.size, file.done_bytes))
                file.close()
        return [holding for holding in found if holding.done_bytes]

    async def write_taken(self, files: Sequence[CachedFile]) -> None:
        """Write small contents that were taken, and give back a handle of each, in one hop.

        A content that has no room is not there afterwards. When cancelled, all of them or none.
        """
        await self._run_in_thread(_write_each, files)

    def keep(self, file_id: FileId, size: int) -> None:
        """Do not evict a content, whether or not anything of it is here yet."""
        with self._lock:
            self._shelves.keep(Key(file_id, size))

    def let_go(self, file_id: FileId, size: int) -> None:
        """Undo `keep`: the content counts as used just now."""
        with self._lock:
            self._shelves.let_go(Key(file_id, size))

    def clear(self) -> int:
        """Evict all that is neither open nor kept; return how many bytes that gave."""
        before = self._used_bytes
        with self._evicting:
            while self._evict_one():
                pass
        return max(0, before - self._used_bytes)

    # For cached files: see `Keeper` and `Room`.

    def path_of(self, key: Key) -> str:
        """Return the path of a content's file."""
        return os.path.join(self._directory, key.name)

    def retain(self, file: CachedFile) -> None:
        """Add a handle to a file that is open."""
        with self._lock:
            file.handles += 1

    def release(self, file: CachedFile) -> None:
        """Give a handle back; the last one makes the file evictable."""
        with self._lock:
            file.handles -= 1
            if file.handles == 0:
                del self._open[file.key]
                if file.has_file:
                    self._shelves.put_file(file)

    def created(self, key: Key) -> None:
        """Note that a content has a file now."""
        self._sizes[key.file_id] = key.size

    def lost(self, key: Key) -> None:
        """Undo `created`: there will be no file."""
        self._sizes.pop(key.file_id, None)

    def reserve(self, count: int) -> None:
        """Account for `count` bytes before they are written, evicting what must go.

        Raises:
            CacheFullError: open files hold the rest.
        """
        if self.take(count):
            return
        with self._evicting:
            while not self.take(count):
                if not self._evict_one():
                    raise CacheFullError("open and pinned files hold the whole cache")

    def make_room(self) -> None:
        """Evict one file because the disk is full.

        Raises:
            CacheFullError: there is none to evict.
        """
        with self._evicting:
            if not self._evict_one():
                raise CacheFullError("the disk of the cache is full")

    def give_back(self, count: int) -> None:
        """Undo a reservation."""
        with self._lock:
            self._used_bytes -= count

    def take(self, count: int) -> bool:
        """Account for `count` bytes that will be written, if nothing must go for them."""
        with self._lock:
            if self._used_bytes + count > self.limit_bytes:
                return False
            self._used_bytes += count
            return True

    def _evict_one(self) -> bool:
        with self._lock:
            oldest = self._shelves.take_oldest()
            if oldest is None:
                return False
            key, allocated_bytes = oldest
            self._sizes.pop(key.file_id, None)
            path = self.path_of(key)
            # Out of the way under the lock, so that the content can be opened anew; removed
            # outside, because freeing a gigabyte takes the file system many milliseconds.
            try:
                os.rename(path, path + _GONE_SUFFIX)
            except FileNotFoundError:
                pass
            except OSError as error:
                log.warning("cache: %s cannot be evicted: %s", key.name, error)
                self._shelves.put(key, allocated_bytes)
                self._sizes[key.file_id] = key.size
                return False
        with contextlib.suppress(OSError):  # else the next start removes it
            os.unlink(path + _GONE_SUFFIX)
        self.give_back(allocated_bytes)
        return True

    def _loaded(self, key: Key) -> CachedFile:
        file = CachedFile(self, key, self._run_in_thread)
        allocated_bytes = self._shelves.bytes_of(key)
        if allocated_bytes is not None:
            self._reopen(file, allocated_bytes)
        return file

    def _reopen(self, file: CachedFile, allocated_bytes: int) -> None:
        try:
            is_sound = self._shelves.load_into(file)
        except OSError as error:
            raise cannot("open", error) from error
        self._shelves.take(file.key)
        if not is_sound:
            log.warning("cache: %s is damaged and starts anew", file.key.name)
            del self._sizes[file.file_id]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path_of(file.key))
            self._used_bytes -= allocated_bytes

    def _scan(self) -> None:
        found: list[tuple[float, Key, int]] = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                key = Key.parse(entry.name)
                if key is not None:
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, key, status.st_blocks * 512))
                elif Key.parse(entry.name.removesuffix(_GONE_SUFFIX)) is not None:
                    os.unlink(entry.path)
        for _, key, allocated_bytes in sorted(found):
            self._shelves.put(key, allocated_bytes)
            self._sizes[key.file_id] = key.size
            self._used_bytes += allocated_bytes


def _write_each(files: Sequence[CachedFile]) -> None:
    for file in files:
        file.write_taken()
        file.close()
