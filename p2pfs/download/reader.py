"""One open file below `network/`: pinned to one content, whatever happens to its name.

A read goes from here to the cache, or else to the swarm of the content. The reader joins the
swarm with its first read that the cache cannot answer, and leaves it when it is closed.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import trio

from p2pfs.cache import CachedFile, Located
from p2pfs.download.swarm import Swarm
from p2pfs.errors import TransferError
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import Manifest, PeerInfo, block_count_for

T = TypeVar("T")

FAILURE_STANDS_S: Final = 0.5
"""How long a failed read stands for those that follow on the same open file. The kernel asks
again for the pages of a failed read-ahead, and for those behind: without this
`cat` asked three times, and got its error only after three times the stall time."""


class Home(Protocol):
    """The owner of the swarms, as far as a reader calls it."""

    async def join(self, file: RemoteFile) -> Swarm:
        """Return the swarm of a content, started if need be, for one more reader."""
        ...

    def leave(self, file: RemoteFile, swarm: Swarm) -> None:
        """Note that a reader that had joined is gone. Any thread."""

    async def fetch_small(self, file: RemoteFile, cached: CachedFile) -> None:
        """Fetch a content of one block in one exchange, if that is possible."""

    def is_giving(self, source: PeerInfo) -> bool:
        """Return whether a source has just given something, of whatever content."""
        ...

    def failed(self, path: str, error: TransferError) -> None:
        """Remember and announce why a read failed."""

    def worked(self, path: str) -> None:
        """Note that a path can be read again."""


class Reader:
    """One open file below `network/`: one content, whatever happens to its name."""

    def __init__(self, home: Home, file: RemoteFile, cached: CachedFile) -> None:
        self._home = home
        self._file = file
        self._cached = cached
        self._is_small = block_count_for(file.size) == 1
        self._swarm: Swarm | None = None
        self._joined: deque[Swarm] = deque(maxlen=1)
        """The swarm that is still to be left. The thread that takes it out leaves it."""
        self._is_closed = False
        self._failed_at = float("-inf")
        self._failed_offset = 0
        self._failure: TransferError | None = None

    @property
    def manifest(self) -> Manifest | None:
        """The hashes that the blocks must have; known once anything was read."""
        return self._cached.manifest

    @property
    def has_heard(self) -> bool:
        """Whether anything has come for it, or only our own limit lets nothing come."""
        return self._swarm is not None and self._swarm.has_heard

    @property
    def is_in_line(self) -> bool:
        """Whether a source of it is giving something else, behind which its own may come."""
        return any(map(self._home.is_giving, self._file.sources))

    def locate_nowait(self, offset: int, length: int) -> Located | bytes | None:
        """Return a descriptor that holds these bytes if all are in the cache, else None.

        They lie in it at the same offset until this reader is closed; of a content larger than
        the cache they are returned themselves. Any thread.
        """
        return (self._swarm or self._cached).locate_nowait(offset, length)

    async def locate(self, offset: int, length: int, *, ahead: bool = True) -> Located | bytes:
        """Return a descriptor that holds exactly these bytes, fetching the missing blocks.

        Unless `ahead` is false, the blocks that will probably be read next are fetched too.

        A read at or behind one that has just failed fails as well, at once.

        Raises:
            TransferError: the subclass says why not: see `Reading.locate`.
        """
        if self._is_small and self._swarm is None:
            await self._home.fetch_small(self._file, self._cached)
            descriptor = self._cached.locate_nowait(offset, length)
            if descriptor is not None:
                self._home.worked(self._file.path)
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
            if not self._is_closed:  # else nobody hears of it: the swarm ended as it was left
                self._note_failure(error, offset)
            raise
        self._home.worked(self._file.path)
        return answer

    async def _join(self) -> Swarm:
        """Join the swarm once, however many reads of this file wait for that."""
        swarm = await self._home.join(self._file)
        if self._swarm is not None:
            self._home.leave(self._file, swarm)
            return swarm
        self._swarm = swarm
        self._joined.append(swarm)
        if self._is_closed:  # checked last: `close` sets it before it leaves the swarm
            self._leave()
        return swarm

    def _leave(self) -> None:
        with contextlib.suppress(IndexError):
            self._home.leave(self._file, self._joined.pop())

    def _note_failure(self, error: TransferError, offset: int) -> None:
        """Announce a failure once, though the kernel reads at several places at once."""
        if self._has_just_failed:
            offset = min(offset, self._failed_offset)
        else:
            self._home.failed(self._file.path, error)
        self._failed_at, self._failed_offset = trio.current_time(), offset
        self._failure = error

    def _fail_again(self, offset: int) -> None:
        if self._failure is not None and self._has_just_failed and offset >= self._failed_offset:
            raise type(self._failure)(*self._failure.args)

    @property
    def _has_just_failed(self) -> bool:
        return trio.current_time() - self._failed_at < FAILURE_STANDS_S

    def close(self) -> None:
        """Let go of the content. Any thread; once, maybe while a read that was given up ends."""
        self._is_closed = True
        self._cached.close()
        self._leave()
