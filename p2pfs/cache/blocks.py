"""The cached blocks of one content: which are there and verified, and how they get to disk."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Protocol

import trio

from p2pfs.cache.bitmap import Bitmap
from p2pfs.cache.flushing import Flushing
from p2pfs.cache.footprint import Footprint, Room
from p2pfs.cache.key import Key
from p2pfs.cache.passage import Passage
from p2pfs.cache.reads import Reads
from p2pfs.cache.storage import Remembered, whole_pages
from p2pfs.errors import (
    BadBlockError,
    RemoteProtocolError,
    TransferError,
)
from p2pfs.protocol import (
    Manifest,
    block_bytes_for,
    block_count_for,
    block_span,
    digest,
    manifest_bytes_for,
)
from p2pfs.threads import RunInThread

log = logging.getLogger(__name__)


NotKeptError = BadBlockError | TransferError
"""Why a block was not kept: it is not what the manifest says, or there is no room."""


class Keeper(Room, Protocol):
    """What a cached file asks of the cache that it is in. All may be called from any thread."""

    def retain(self, file: CachedFile) -> None:
        """Add a handle to a file that is open."""
        ...

    def release(self, file: CachedFile) -> None:
        """Give a handle back; the last one makes the file evictable."""
        ...


class CachedFile:
    """The cached blocks of one content, shared by all who have it open.

    `put`, `prepare` and `keep_flushed` belong to trio; the rest may be called from any
    thread. A block's state is one byte of `_blocks`, so a look at it needs no lock. It
    says verified only after the bytes are in the file.
    """

    def __init__(self, cache: Keeper, key: Key, run_in_thread: RunInThread) -> None:
        """Start with nothing; made by `BlockCache.open_file` alone."""
        self.key = key
        self.file_id = key.file_id
        self.size = key.size
        self.manifest: Manifest | None = None
        self.handles = 0
        self.expects: Callable[[int], bool] = expects_nothing
        """Returns whether a block that is missing will be here soon; the downloader sets it."""
        self._cache = cache
        self._run_in_thread = run_in_thread
        self._block_bytes = block_bytes_for(key.size)
        self._blocks = Bitmap(block_count_for(key.size))
        self._disk = Footprint(key, cache)
        self._passage = Passage.through(cache.limit_bytes, key.size)
        self._writing = trio.Lock()
        self._reads = Reads(key.size, self._blocks, self._disk, self._passage)
        self.read_nowait, self.locate_nowait = self._reads.read_nowait, self._reads.locate_nowait
        self._flushing = Flushing()

    def has(self, index: int) -> bool:
        """Return whether a block is there and verified; any index may be asked for."""
        return self._blocks.is_verified(index)

    def claims(self, index: int) -> bool:
        """Return whether a block seems to be there from an earlier run: see `prepare`."""
        return self._blocks.is_claimed(index)

    def missing(self, indexes: Iterable[int]) -> Iterator[int]:
        """Yield those blocks that are neither there nor claimed; any index may be asked for."""
        return self._blocks.missing(indexes)

    @property
    def done_bytes(self) -> int:
        """Bytes of the content that are there, those merely claimed included."""
        done = self._block_bytes * self._blocks.present_count
        if self._blocks and self._blocks.is_present(len(self._blocks) - 1):
            done -= self._block_bytes * len(self._blocks) - self.size
        return done

    def put_manifest(self, manifest: Manifest) -> None:
        """Learn the digests of the blocks. They go to disk with the first block.

        Raises:
            BadBlockError: it is the manifest of something else.
        """
        if manifest.size != self.size or manifest.file_id != self.file_id:
            raise BadBlockError("the manifest is not that of this content")
        self.manifest = manifest

    async def put(self, blocks: Sequence[tuple[int, bytes]]) -> Sequence[NotKeptError | None]:
        """Verify blocks, given with their indexes, and keep the right ones.

        `put_manifest` came before, unless there is one block alone, from which the manifest
        follows. Returns when readers can have them: None for each block that is there now, and
        for each other why not. One hop to a thread for all: that costs 230
        us, hashing and writing a block 140. When cancelled, each block is kept or not, but
        whole.
        """
        async with self.being_written():
            outcomes = await self._run_in_thread(self.write_all, blocks)
        self._flushing.schedule()
        return outcomes

    def take(self, data: bytes) -> bool:
        """Verify a small content, and have readers get it from memory until `write_taken`.

        The caller holds a handle until then. Returns False where that would have to wait, for room
        or for a `put` of the same content.

        Raises:
            BadBlockError: it is not what was announced.
        """
        manifest = self.manifest or self._implied_by(data)
        manifest.verify(0, data)
        if self._writing.locked() or self.has_file:
            return self.has(0)
        if not self._cache.take(self._taken_bytes):
            return False
        self._reads.taken = data
        self._cache.created(self.key)
        self._blocks.set_verified(0)
        return True

    @contextlib.asynccontextmanager
    async def being_written(self) -> AsyncIterator[None]:
        """Hold a handle, and the right to write."""
        self._cache.retain(self)
        try:
            async with self._writing:
                yield
        finally:
            self._cache.release(self)

    async def prepare(self, index: int) -> bool:
        """Verify a block that an earlier run left; return whether it is there now.

        Any index may be asked for: peers do.
        """
        if self.claims(index):
            async with self._writing:  # or it could pass while it is looked at
                await self._run_in_thread(self._verify_stored, index)
        return self.has(index)

    async def keep_flushed(self) -> None:
        """Write the bitmap as blocks come in, and sync all now and then, until cancelled.

        Without it a restart finds what `close` wrote. Idle as long as nothing is put.
        """
        await self._flushing.go_on(self._run_in_thread, self._flush, self._sync)

    def close(self) -> None:
        """Give this handle back. Call once for each `open_file` or `find`; never waits."""
        self._cache.release(self)

    # The rest runs in threads, or under the cache's lock.

    def load(self, allocated_bytes: int, remembered: Remembered | None) -> bool:
        """Open the file that an earlier handle left; return whether its map is sound.

        If nobody has touched the file since then, its verified blocks still are.
        """
        try:
            storage, self.manifest = self._disk.load(allocated_bytes)
        except (FileNotFoundError, RemoteProtocolError):
            return False
        if remembered is not None and remembered == storage.remember(remembered.states):
            self._blocks.restore(remembered.states)
        else:
            self._blocks.claim(storage.bitmap(self._blocks.byte_count))
        if self._passage is not None:
            self._passage.found(self._blocks.present())
        return True

    @property
    def is_small(self) -> bool:
        """Whether it is one block."""
        return len(self._blocks) == 1

    @property
    def has_file(self) -> bool:
        """Whether anything of it is on disk, or will be in a moment."""
        return self._disk.storage is not None or self._reads.taken is not None

    @property
    def is_unwritten(self) -> bool:
        """Whether it was taken, and the disk does not have it yet."""
        return self._reads.taken is not None

    @property
    def allocated_bytes(self) -> int:
        """Bytes that it takes on the disk, or will in a moment."""
        return self._disk.used_bytes + (0 if self._reads.taken is None else self._taken_bytes)

    def settle(self) -> Remembered | None:
        """Leave the file as the last handle goes; return what `load` may rely on later.

        The bitmap is written without a sync: what it claims is verified at first use.
        """
        storage = self._disk.leave()
        with contextlib.suppress(OSError):
            if self._flushing.unflushed_bytes:
                storage.write_bitmap(self._blocks.to_bytes())
            storage.mark_used()
            return storage.remember(self._blocks.states())
        return None

    def _verify_stored(self, index: int) -> None:
        if not self.claims(index):
            return
        assert self.manifest is not None
        assert self._disk.storage is not None
        data = self._reads.stored(self._disk.storage, *block_span(self.size, index))
        try:
            self.manifest.verify(index, data or b"")
        except BadBlockError:
            log.warning("cache: block %d of %s is damaged", index, self.key.name)
            self._blocks.set_missing(index)
        else:
            self._blocks.set_verified(index)

    def write_all(self, blocks: Sequence[tuple[int, bytes]]) -> Sequence[NotKeptError | None]:
        """Verify and write blocks; return for each why it is not kept. While `being_written`."""
        outcomes: list[NotKeptError | None] = []
        for index, data in blocks:
            try:
                self._write(index, data)
                outcomes.append(None)
            except (BadBlockError, TransferError) as error:
                outcomes.append(error)
        return outcomes

    def _write(self, index: int, data: bytes) -> None:
        manifest = self.manifest or self._implied_by(data)
        manifest.verify(index, data)
        if self._blocks.is_verified(index):
            return
        if self.is_small and self._disk.storage is None:
            self._create_whole(data, manifest)
        else:
            if self._disk.storage is None:
                stored = manifest.to_bytes() + self._blocks.to_bytes()
                self._disk.create(stored, whole_pages(self.size))
            self._let_pass(whole_pages(len(data)))
            self._disk.write(data, index * self._block_bytes)
            self._flushing.wrote(len(data))
        self._blocks.set_verified(index)
        if self._passage is not None:
            self._passage.came(index)

    def _create_whole(self, data: bytes, manifest: Manifest) -> None:
        # A small file is complete. It goes to disk in one piece, its bit with it, unsynced:
        # a thousand of them must not cost a thousand syncs, and a false claim costs a block.
        whole = data.ljust(whole_pages(self.size), b"\0") + manifest.to_bytes() + b"\x01"
        self._disk.create(whole, 0)

    @property
    def _taken_bytes(self) -> int:
        """What the file of a small content takes on the disk."""
        return whole_pages(whole_pages(self.size) + manifest_bytes_for(self.size) + 1)

    def write_taken(self) -> None:
        """Write what was taken; it is missing again if the disk does not have it. In a thread."""
        if self._reads.taken is None:
            return
        assert self.manifest is not None
        self._cache.give_back(self._taken_bytes)  # the file takes it anew
        try:
            self._create_whole(self._reads.taken, self.manifest)
        except (TransferError, OSError) as error:
            log.info("cache: %s is not kept: %s", self.key.name, error)
            self._blocks.set_missing(0)
            self._cache.lost(self.key)
        self._reads.taken = None  # last: until then readers have it from here

    def _let_pass(self, cost: int) -> None:
        """Let the oldest blocks go of a content that cannot be kept whole."""
        if self._passage is None:
            return
        while self._disk.used_bytes + cost > self._passage.limit_bytes:
            index = self._passage.oldest()
            if index is None:
                return
            self._blocks.set_missing(index)  # first: nobody must take a hole for the block
            self._passage.lost(index)
            self._disk.punch(*block_span(self.size, index))

    def _implied_by(self, data: bytes) -> Manifest:
        """Return the manifest that follows from the only block, if this is it."""
        manifest = Manifest(len(data), digest(data))
        self.put_manifest(manifest)
        return manifest

    def _flush(self) -> None:
        if self.has_file:
            self._flushing.unflushed_bytes = 0
            self._disk.note(self._blocks.to_bytes())

    def _sync(self) -> None:
        self._disk.sync()
        self._flush()


def expects_nothing(_index: int) -> bool:
    """Return False: no block is being fetched."""
    return False
