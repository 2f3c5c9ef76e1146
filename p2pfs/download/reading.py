"""The reads of one content: each is answered from the cache, once all of its blocks are there.

The read-ahead learns from the reads where readers are. A read that the cache answers at once, on
any thread, is noticed only if it touches a tripwire of the read-ahead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from p2pfs.cache import CachedFile, Located
from p2pfs.download.readahead import ReadAhead
from p2pfs.protocol import block_range
from p2pfs.tasks import called

T = TypeVar("T")


class Reading:
    """The reads of one content, in the cache or to be fetched."""

    def __init__(
        self,
        cached: CachedFile,
        ahead: ReadAhead,
        wait_for: Callable[[set[int]], Awaitable[None]],
        pump: Callable[[], None],
    ) -> None:
        """Read from `cached`. `wait_for` returns once some missing blocks have been there.

        `pump` decides anew what to fetch, when `ahead` has changed.
        """
        self._cached = cached
        self._ahead = ahead
        self._wait_for = wait_for
        self._pump = pump
        self._token: trio.lowlevel.TrioToken | None = None

    def begin(self) -> None:
        """Let reads of other threads move the read-ahead, from now on."""
        self._token = trio.lowlevel.current_trio_token()

    def locate_nowait(self, offset: int, length: int) -> Located | bytes | None:
        """Return what `locate` would if all is in the cache, else None. From any thread.

        Read-ahead follows the reads that are answered here.
        """
        found = self._cached.locate_nowait(offset, length)
        if found is not None and self._token is not None:
            blocks = block_range(self._cached.size, offset, length)
            if not self._ahead.tripwires.isdisjoint(blocks):
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(called, self._noticed, offset, length)
        return found

    async def locate(self, offset: int, length: int, *, ahead: bool = True) -> Located | bytes:
        """Return a descriptor that holds these bytes, fetching the missing blocks.

        They lie in it at the same offset until the content's last handle is closed, which the
        caller has one of. Of a content larger than the cache they are returned themselves.
        Unless `ahead` is false, the blocks that will probably be read next are fetched too.

        Never a byte that was not verified. Readers of one block share its batch; cancelling one
        disturbs no other. A read after a failed one tries everything anew.

        Raises:
            NoSourceError: no way ever led to any source: after `patience.OUT_OF_REACH_S`. If one
                has given something, or none is known, after the stall time.
            StalledError: sources are there, and nothing arrived for the stall time.
            BusyError: the sources refused until the stall time was over.
            CorruptError: all sources sent wrong bytes, and a search found no other; or the size
                that was announced is not that of the content.
            StaleError: no source has it any more, and a search found no other.
            NotAskedError: no known source gives it, and no search may begin, until the stall time
                was over.
            CacheFullError: a block cannot be kept.
            TooManyFilesError: this process may not open more files: the cache could not, or no
                link could be opened until the stall time was over.
            ShutdownError: it must be fetched, and the swarm is not running.
            BugError: it must be fetched, and a bug of ours has ended the swarm.
        """
        return await self._available(offset, length, self._cached.locate_nowait, ahead=ahead)

    async def read(self, offset: int, length: int) -> bytes:
        """Return the bytes at `offset`, fetching the missing blocks.

        Fewer than `length` only at the end of the content. Otherwise as `locate`.
        """
        length = min(length, self._cached.size - offset)
        if length <= 0:
            return b""
        return await self._available(offset, length, self._cached.read_nowait)

    async def _available(
        self,
        offset: int,
        length: int,
        look: Callable[[int, int], T | None],
        *,
        ahead: bool = True,
    ) -> T:
        """Return what `look` finds in the cache, once all of it is there."""
        blocks = block_range(self._cached.size, offset, length)
        if ahead:
            self._ahead.advance(offset, length, trio.current_time())
        while True:
            for index in blocks:
                if self._cached.claims(index):
                    await self._cached.prepare(index)
            found = look(offset, length)
            if found is not None:
                if ahead:
                    self._pump()
                return found
            missing = {index for index in blocks if not self._cached.has(index)}
            if missing:
                await self._wait_for(missing)
                ahead = False  # the swarm has looked at that meanwhile
            else:  # it went and came again while it was read
                await trio.lowlevel.checkpoint()

    def _noticed(self, offset: int, length: int) -> None:
        self._ahead.advance(offset, length, trio.current_time())
        self._pump()
