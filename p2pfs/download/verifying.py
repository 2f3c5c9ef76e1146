"""Blocks that have arrived for one content: verified, kept, and only then announced.

Blocks are verified and written a few at a time, by one task, so that each hop to a thread is
worth its time. They wait for the manifest, without which nothing can be verified.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import trio

from p2pfs.cache import CachedFile
from p2pfs.download.intake import Intake
from p2pfs.download.source import Request
from p2pfs.errors import BadBlockError, P2pfsError, RemoteProtocolError, TransferError
from p2pfs.protocol import Manifest

TAKEN_AT_ONCE: Final = 16
"""Blocks verified and written in one go: readers of the first wait for the last, 3 ms. With eight a
cold read took its reader a twentieth more of the processor."""

GATHER_BLOCKS_S: Final = 0.01
"""How long a block that arrived may wait for others, if no reader waits for it."""

Arrival = tuple[Request, bytes]


class VerifierOwner(Protocol):
    """The receiver of the outcomes of verifying."""

    def got(self, request: Request) -> None:
        """Note that a block, or the manifest, is verified and in the cache."""

    def lied(self, request: Request, error: P2pfsError) -> None:
        """Note that a source gave wrong bytes."""

    def not_kept(self, request: Request, error: TransferError) -> None:
        """Note that a block is right and the cache cannot take it."""

    def proved(self, manifest: Manifest) -> bool:
        """Take in the right manifest; return whether it has the announced size."""

    def verified(self, requests: Iterable[Request]) -> None:
        """Note that these requests are over."""

    def pump(self) -> None:
        """Decide everything anew."""


class Verifier:
    """Verifies and keeps what arrives for one content. Belongs to the trio thread."""

    def __init__(self, owner: VerifierOwner, cached: CachedFile, stall_timeout_s: float) -> None:
        """Prepare; blocks wait for the manifest for `stall_timeout_s`, and are dropped then."""
        self._owner = owner
        self._cached = cached
        self._stall_timeout_s = stall_timeout_s
        self._queue: Intake[Arrival] = Intake(TAKEN_AT_ONCE, GATHER_BLOCKS_S)
        """The requests on their way bound their number."""
        self._has_manifest = trio.Event()
        if cached.manifest is not None:
            self._has_manifest.set()

    @property
    def has_manifest(self) -> bool:
        """Whether blocks can be verified."""
        return self._has_manifest.is_set()

    def block_arrived(self, request: Request, data: bytes, *, is_urgent: bool) -> None:
        """Take in the answer of a source for a block; at once, if a reader waits."""
        self._queue.put((request, data), is_urgent=is_urgent)

    def manifest_arrived(self, request: Request, data: bytes) -> None:
        """Take in the answer of a source for the manifest."""
        try:
            manifest = Manifest.from_bytes(data, self._cached.file_id)
        except RemoteProtocolError as error:
            self._owner.lied(request, error)
            return
        if self._owner.proved(manifest):
            self._cached.put_manifest(manifest)
            self._has_manifest.set()
        self._owner.got(request)

    def hurry(self) -> None:
        """Let blocks wait for others no longer: a reader needs one."""
        self._queue.hurry()

    async def run(self) -> None:
        """Verify and keep the blocks that arrive, until cancelled."""
        while True:
            await self._queue.wait()
            with trio.move_on_after(self._stall_timeout_s):
                await self._has_manifest.wait()
            while self._queue:
                some = self._queue.take()
                if self.has_manifest:  # else no reader waits for them any more
                    await self._keep(some)
                self._owner.verified(request for request, _ in some)
            self._owner.pump()

    async def _keep(self, some: Sequence[Arrival]) -> None:
        outcomes = await self._cached.put([(request.index, data) for request, data in some])
        for (request, _), outcome in zip(some, outcomes, strict=True):
            if outcome is None:
                self._owner.got(request)
            elif isinstance(outcome, BadBlockError):
                self._owner.lied(request, outcome)
            else:
                self._owner.not_kept(request, outcome)
