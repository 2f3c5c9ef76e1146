"""Batches: what one source is asked for at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from p2pfs.download.source import MANIFEST, Request
from p2pfs.protocol import MAX_BLOCKS_ASKED, PeerInfo


@dataclass(eq=False, slots=True)
class Batch:
    """What one source is asked for at once: some blocks, or the manifest."""

    source: PeerInfo
    pending: deque[Request]
    """What it has not answered, in the order in which it will; cancelled ones stay."""
    scope: trio.CancelScope


def batches_for(requests: Iterable[Request]) -> list[Batch]:
    """Return what to ask of each source at once; the manifest goes alone."""
    batches: list[Batch] = []
    open_batches: dict[str, Batch] = {}
    for request in requests:
        batch = open_batches.get(request.source.id)
        is_manifest = request.index == MANIFEST
        if batch is None or is_manifest or len(batch.pending) == MAX_BLOCKS_ASKED:
            batch = Batch(request.source, deque(), trio.CancelScope())
            batches.append(batch)
            if not is_manifest:
                open_batches[request.source.id] = batch
        batch.pending.append(request)
    return batches
