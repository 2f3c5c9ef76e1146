"""What a swarm asks of its owner, and of one source at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from p2pfs.download.source import MANIFEST, Request
from p2pfs.protocol import MAX_BLOCKS_ASKED, FileId, PeerInfo, ServentId
from p2pfs.protocol.flood import Urgency


class Upstream(Protocol):
    """What a swarm asks of its owner.

    `own_id` is who we are, for other readers of the content.

    The `fetch_` functions raise LinkError, RejectedError, RemoteProtocolError or StalledError,
    and leave nothing behind when they are cancelled.
    """

    own_id: ServentId

    async def find_sources(
        self, file_id: FileId, size: int, urgency: Urgency
    ) -> Sequence[PeerInfo]:
        """Search for peers that have this content, and say so of this size; maybe nobody.

        Raises NotAskedError if that may not be now.
        """
        ...

    async def fetch_manifest(self, source: PeerInfo, file_id: FileId) -> bytes:
        """Return what `source` sent as the manifest; not verified."""
        ...

    async def fetch_blocks(
        self,
        source: PeerInfo,
        file_id: FileId,
        wanted: Mapping[int, int],
        deliver: Callable[[bytes], object],
    ) -> None:
        """Deliver what `source` sends as each of these blocks, in order; not verified.

        `wanted` gives the length that each should have, by index. What is raised is about the
        first block that was not delivered.
        """
        ...

    def proved(self, file_id: FileId, size: int) -> None:
        """Note the size that the manifest of a content gives."""
        ...

    def bad_block(self, source: PeerInfo, file_id: FileId) -> None:
        """Note that `source` sent a wrong block or manifest: certain, and its own doing."""
        ...


@dataclass(eq=False, slots=True)
class Transfer:
    """What one source is asked for at once: some blocks, or the manifest."""

    source: PeerInfo
    pending: deque[Request]
    """What it has not answered, in the order in which it will; cancelled ones stay."""
    scope: trio.CancelScope


def transfers_for(requests: Iterable[Request]) -> list[Transfer]:
    """Return what to ask of each source at once; the manifest goes alone."""
    transfers: list[Transfer] = []
    open_transfers: dict[str, Transfer] = {}
    for request in requests:
        transfer = open_transfers.get(request.source.id)
        is_manifest = request.index == MANIFEST
        if transfer is None or is_manifest or len(transfer.pending) == MAX_BLOCKS_ASKED:
            transfer = Transfer(request.source, deque(), trio.CancelScope())
            transfers.append(transfer)
            if not is_manifest:
                open_transfers[request.source.id] = transfer
        transfer.pending.append(request)
    return transfers
