"""Find out which of several sizes announced for one content is right: its manifest says so.

A content is its file id, and its size follows from that. So where sizes differ at most one of them
is right, and one small question tells which. It is asked before such a file is shown or opened:
else `stat` would tell a size that the bytes do not have.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from p2pfs.errors import P2pfsError
from p2pfs.latest import Latest
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.nodes import Knowledge, Node, RemoteFile
from p2pfs.protocol import FileId, Manifest, PeerInfo

log = logging.getLogger(__name__)

MAX_WITNESSES: Final = 8
"""Servents asked at once: of each announced size one, then others. The size that a neighbour of our
own choice announces comes first."""

DISPUTE_S: Final = 1.5
"""How long they may take; to find a name may take `ages.FIND_TIMEOUT_S`."""

DISPUTE_RETRY_S: Final = 10.0
"""How long nobody is asked again about a dispute; if that did not settle it, `nodes` ranks the
sizes meanwhile."""

MAX_DISPUTES: Final = 10_000
"""Disputes of which it is remembered when others were asked; the oldest is forgotten."""

FetchManifest = Callable[[PeerInfo, FileId], Awaitable[bytes]]
"""Ask a peer for a manifest; what it sends is not verified."""


class Disputes:
    """All disputes about sizes."""

    def __init__(
        self, catalogue: Catalogue, fetch_manifest: FetchManifest, clock: Callable[[], float]
    ) -> None:
        self._catalogue = catalogue
        self._fetch_manifest = fetch_manifest
        self._clock = clock
        self._asked_at: Latest[FileId, float] = Latest(MAX_DISPUTES)

    def concern(self, node: Node | Knowledge | None) -> bool:
        """Return whether a file is disputed, and asking may help. Any thread."""
        if not isinstance(node, RemoteFile) or not self._catalogue.offers.is_disputed(node.file_id):
            return False
        return self._clock() - self._asked_at.get(node.file_id, float("-inf")) > DISPUTE_RETRY_S

    def left_out(self, nodes: Sequence[Node]) -> Sequence[Node]:
        """Return some nodes without those that are disputed. Any thread."""
        ids = (node.file_id for node in nodes if isinstance(node, RemoteFile))
        disputed = self._catalogue.offers.disputed(ids)
        return [node for node in nodes if not self.concern(node)] if disputed else nodes

    async def settle(self, file_id: FileId) -> None:
        """Ask those that announce a content for its manifest, and tell the catalogue its size."""
        by_size = self._catalogue.offers.claimants_of(file_id)
        in_turn = (peer for turn in itertools.zip_longest(*by_size) for peer in turn if peer)
        with trio.move_on_after(DISPUTE_S):
            async with trio.open_nursery() as nursery:
                for peer in itertools.islice(dict.fromkeys(in_turn), MAX_WITNESSES):
                    nursery.start_soon(self._ask, peer, file_id, nursery.cancel_scope)
        self._asked_at[file_id] = self._clock()

    async def _ask(self, peer: PeerInfo, file_id: FileId, scope: trio.CancelScope) -> None:
        try:
            data = await self._fetch_manifest(peer, file_id)
            manifest = Manifest.from_bytes(data, file_id)
        except P2pfsError as error:
            log.info("no manifest peer=%s reason=%s", peer.id, error)
            return
        self._catalogue.offers.prove(file_id, manifest.size)
        scope.cancel()
