"""The cached blocks of one content: what is there, verified, and how it gets to disk."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, Protocol

import trio

from p2pfs.cache.bitmap import Bitmap
from p2pfs.cache.descriptor import Descriptor, Located, Remembered, cannot
from p2pfs.cache.key import Key
from p2pfs.cache.passage import Passage, punch, size_at_hand
from p2pfs.errors import (
    BadBlockError,
    RemoteProtocolError,
    TransferError,
)
from p2pfs.protocol import (
    MIB,
    Manifest,
    block_bytes_for,
    block_count_for,
    block_range,
    block_span,
    digest,
    manifest_bytes_for,
)
from p2pfs.threads import RunInThread

PAGE_BYTES: Final = 4096
"""What file systems allocate by, hence what is accounted by."""

FLUSH_BYTES: Final = 8 * MIB
"""Bytes of one file at which its bitmap is written: what a crash of ours may cost."""

FLUSH_S: Final = 5.0
"""Time after which fewer bytes are told too, and all is synced: what a crash of the machine may
cost. Synced with each bitmap, a fast download took a tenth more processor time, and the disk
had no rest. A bitmap ahead of its blocks costs nothing: what it claims is verified."""

LOOK_S: Final = 0.1
"""How often the attributes of a file are asked for, for which a reader gives up the interpreter
and waits to have it back. Between two such looks the kernel has the size at hand."""

log = logging.getLogger(__name__)


NotKeptError = BadBlockError | TransferError
"""Why a block was not kept: it is not what the manifest says, or there is no room."""


class Keeper(Protocol):
    """What a cached file asks of the cache that it is in. All may be called from any thread."""

    limit_bytes: int
    """What all contents together may take on the disk."""

    def path_of(self, key: Key) -> str:
        """Return where a content is."""
        ...

    def retain(self, file: CachedFile) -> None:
        """Add a handle to a file that is open."""
        ...

    def release(self, file: CachedFile) -> None:
        """Give a handle back; the last one makes the file evictable."""
        ...

    def created(self, key: Key) -> None:
        """Note that a content has a file now."""
        ...

    def reserve(self, count: int) -> None:
        """Account for `count` bytes before they are written, evicting what must go.

        Raises:
            CacheFullError: open files hold the rest.
        """
        ...

    def give_back(self, count: int) -> None:
        """Undo a reservation."""
        ...

    def make_room(self) -> None:
        """Evict one file because the disk is full.

        Raises:
            CacheFullError: there is none to evict.
        """
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
        """Tells whether a block that is missing will be here soon; set by who fetches."""
        self.allocated_bytes = 0
        self._cache = cache
        self._run_in_thread = run_in_thread
        self._block_bytes = block_bytes_for(key.size)
        self._blocks = Bitmap(block_count_for(key.size))
        self._descriptor: Descriptor | None = None
        self._map_offset = _whole_pages(key.size)
        self._passage = Passage.through(cache.limit_bytes, key.size)
        self._look_at = 0.0
        self._writing = trio.Lock()
        self._unflushed_bytes = 0
        self._flush_wanted = trio.Event()
        self._flush_due = trio.Event()

    def has(self, index: int) -> bool:
        """Return whether a block is there and verified; any index may be asked for."""
        return self._blocks.is_verified(index)

    def claims(self, index: int) -> bool:
        """Return whether a block seems to be there from an earlier run: see `prepare`."""
        return self._blocks.is_claimed(index)

    @property
    def done_bytes(self) -> int:
        """Bytes of the content that are there, those merely claimed included."""
        done = self._block_bytes * self._blocks.present_count
        if self._blocks and self._blocks.is_present(len(self._blocks) - 1):
            done -= self._block_bytes * len(self._blocks) - self.size
        return done

    def read_nowait(self, offset: int, length: int) -> bytes | None:
        """Return the bytes at `offset`, or None if a block is missing or not yet verified.

        Fewer than `length` only at the end of the content.
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if self._passage is not None:
            return self._read_passing(self._passage, offset, length)
        descriptor = self._descriptor
        if descriptor is None or not self._has_all(offset, length):
            return None
        return self._read_file(descriptor, offset, length)

    def _read_passing(self, passage: Passage, offset: int, length: int) -> bytes | None:
        """Read what may go meanwhile, and look afterwards whether it has."""
        blocks = block_range(self.size, offset, length)
        before = passage.losses(blocks)
        descriptor = self._descriptor
        if descriptor is None or not self._has_all(offset, length):
            return None
        data = self._read_file(descriptor, offset, length)
        is_intact = passage.losses(blocks) == before and self._has_all(offset, length)
        return data if is_intact else None

    def locate_nowait(self, offset: int, length: int) -> Located | bytes | None:
        """Return a descriptor that holds these bytes, at the same offset, or None as above.

        It is good for as long as a handle is held. Of a content that passes through the cache
        nothing stays, so the bytes themselves are returned. There must be such bytes, at least
        one. Somebody who cuts the file between this call and the reading, some microseconds,
        makes the reader take that for the end: no look from here could close that gap, and only
        who may write in the cache directory can do it.
        """
        if self._passage is not None:
            return self.read_nowait(offset, length)
        descriptor = self._descriptor
        if descriptor is None or not self._has_all(offset, length):
            return None
        return Located(descriptor.number) if self._is_whole(descriptor) else None

    def _has_all(self, offset: int, length: int) -> bool:
        first, end = offset // self._block_bytes, (offset + length - 1) // self._block_bytes + 1
        return self._blocks.are_verified(first, end)

    def _is_whole(self, descriptor: Descriptor) -> bool:
        """Look whether somebody has cut the file: then nothing in it is there.

        A reader is given the descriptor, and would take a file that is too short for the end.
        """
        now = time.monotonic()
        if now >= self._look_at:
            size = os.fstat(descriptor.number).st_size
            self._look_at = now + LOOK_S
        else:
            size = size_at_hand(descriptor.number)
        if size < self._map_offset:
            self._blocks.clear()
            with contextlib.suppress(OSError):  # else what comes anew would be thought cut too
                os.ftruncate(descriptor.number, self._map_offset)
            return False
        return True

    def put_manifest(self, manifest: Manifest) -> None:
        """Learn what the blocks must be. It goes to disk with the first of them.

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
        self._schedule_flush()
        return outcomes

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
        while True:
            await self._flush_wanted.wait()
            with trio.move_on_after(FLUSH_S):
                while True:
                    await self._flush_due.wait()
                    self._flush_due = trio.Event()
                    await self._run_in_thread(self._flush)
            self._flush_wanted = trio.Event()
            await self._run_in_thread(self._sync)

    def close(self) -> None:
        """Give this handle back. Call once for each `open_file` or `find`; never waits."""
        self._cache.release(self)

    # The rest runs in threads, or under the cache's lock.

    def load(self, allocated_bytes: int, remembered: Remembered | None) -> bool:
        """Open the file that an earlier handle left; return whether its map is sound.

        If nobody has touched the file since then, what was verified is so still.
        """
        try:
            descriptor = Descriptor(self._cache.path_of(self.key), 0)
        except FileNotFoundError:
            return False
        length = manifest_bytes_for(self.size)
        try:
            stored = os.pread(descriptor.number, length, self._map_offset)
            manifest = Manifest.from_bytes(stored, self.file_id)
        except RemoteProtocolError:
            return False
        self.manifest, self._descriptor = manifest, descriptor
        self.allocated_bytes = allocated_bytes
        if remembered is not None and remembered == descriptor.remember(remembered.states):
            self._blocks.restore(remembered.states)
        else:
            stored = os.pread(descriptor.number, self._blocks.byte_count, self._map_offset + length)
            self._blocks.claim(stored)
        if self._passage is not None:
            self._passage.found(self._blocks.present())
        return True

    @property
    def is_small(self) -> bool:
        """Whether it is one block."""
        return len(self._blocks) == 1

    @property
    def has_file(self) -> bool:
        """Whether anything of it is on disk."""
        return self._descriptor is not None

    def settle(self) -> Remembered | None:
        """Leave the file as the last handle goes; return what `load` may rely on later.

        The bitmap is written without a sync: what it claims is verified at first use.
        """
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None
        with contextlib.suppress(OSError):
            if self._unflushed_bytes:
                self._write_bitmap(descriptor, self._blocks.to_bytes())
            os.utime(descriptor.number)  # eviction after a restart goes by this time
            return descriptor.remember(self._blocks.states())
        return None

    def _write_bitmap(self, descriptor: Descriptor, bitmap: bytes) -> None:
        offset = self._map_offset + manifest_bytes_for(self.size)
        os.pwrite(descriptor.number, bitmap, offset)

    def _read_file(self, descriptor: Descriptor, offset: int, length: int) -> bytes | None:
        try:
            data = os.pread(descriptor.number, length, offset)
        except OSError as error:
            log.warning("cache: %s cannot be read: %s", self.key.name, error)
            data = b""
        if len(data) == length:
            return data
        for index in block_range(self.size, offset, length):
            self._blocks.set_missing(index)  # somebody cut the file: fetch it again
        return None

    def _verify_stored(self, index: int) -> None:
        if not self.claims(index):
            return
        assert self.manifest is not None
        assert self._descriptor is not None
        data = self._read_file(self._descriptor, *block_span(self.size, index))
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
        if self.is_small and self._descriptor is None:
            # A small file is complete. It goes to disk in one piece, its bit with it, unsynced:
            # a thousand of them must not cost a thousand syncs, and a false claim costs a block.
            whole = data.ljust(self._map_offset, b"\0") + manifest.to_bytes() + b"\x01"
            self._create(whole, 0)
        else:
            descriptor = self._descriptor or self._create(
                manifest.to_bytes() + self._blocks.to_bytes(), self._map_offset
            )
            offset, cost = index * self._block_bytes, _whole_pages(len(data))
            self._let_pass(descriptor, cost)
            self._store(descriptor, data, offset, cost)
            self._unflushed_bytes += len(data)
        self._blocks.set_verified(index)
        if self._passage is not None:
            self._passage.came(index)

    def _let_pass(self, descriptor: Descriptor, cost: int) -> None:
        """Let the oldest blocks go of a content that cannot be kept whole."""
        if self._passage is None:
            return
        while self.allocated_bytes + cost > self._passage.limit_bytes:
            index = self._passage.oldest()
            if index is None:
                return
            self._blocks.set_missing(index)  # first: nobody must take a hole for the block
            self._passage.lost(index)
            offset, length = block_span(self.size, index)
            punch(descriptor.number, offset, length)
            self.allocated_bytes -= _whole_pages(length)
            self._cache.give_back(_whole_pages(length))

    def _implied_by(self, data: bytes) -> Manifest:
        """Return the manifest that follows from the only block, if this is it."""
        manifest = Manifest(len(data), digest(data))
        self.put_manifest(manifest)
        return manifest

    def _create(self, stored: bytes, offset: int) -> Descriptor:
        path = self._cache.path_of(self.key)
        try:
            descriptor = Descriptor(path, os.O_CREAT | os.O_TRUNC)
        except OSError as error:
            raise cannot("make", error) from error
        try:
            self._store(descriptor, stored, offset, _whole_pages(len(stored)))
        except TransferError:
            os.unlink(path)
            raise
        self._cache.created(self.key)
        self._descriptor = descriptor
        return descriptor

    def _store(self, descriptor: Descriptor, data: bytes, offset: int, cost: int) -> None:
        self._cache.reserve(cost)
        try:
            self._write_file(descriptor, data, offset)
        except TransferError:
            self._cache.give_back(cost)
            raise
        self.allocated_bytes += cost

    def _write_file(self, descriptor: Descriptor, data: bytes, offset: int) -> None:
        left = memoryview(data)
        while left:
            try:
                count = os.pwrite(descriptor.number, left, offset)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise cannot("write", error) from error
                self._cache.make_room()
            else:
                left, offset = left[count:], offset + count

    def _schedule_flush(self) -> None:
        if self._unflushed_bytes:
            self._flush_wanted.set()
        if self._unflushed_bytes >= FLUSH_BYTES:
            self._flush_due.set()

    def _flush(self) -> None:
        if self._descriptor is not None:
            self._unflushed_bytes = 0
            with self._trouble_logged():
                self._write_bitmap(self._descriptor, self._blocks.to_bytes())

    def _sync(self) -> None:
        if self._descriptor is not None:
            with self._trouble_logged():
                os.fdatasync(self._descriptor.number)
        self._flush()

    @contextlib.contextmanager
    def _trouble_logged(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("cache: %s cannot be synced: %s", self.key.name, error)


def expects_nothing(_index: int) -> bool:
    """Return that a block is not being fetched."""
    return False


def _whole_pages(count: int) -> int:
    return -(-count // PAGE_BYTES) * PAGE_BYTES
