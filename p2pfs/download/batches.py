"""The requests on their way, and the batches in which sources are asked for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import trio

from p2pfs.download.source import MANIFEST, Request
from p2pfs.protocol import MAX_BLOCKS_ASKED, PeerInfo


@dataclass(eq=False, slots=True)
class Batch:
    """One question to one source: some blocks, or the manifest."""

    source: PeerInfo
    pending: deque[Request]
    """The requests it has not answered, in the order of its answers; cancelled ones stay."""
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


class InFlight:
    """The requests that sources were asked for, until their blocks are kept or cancelled."""

    def __init__(self) -> None:
        self._batches: dict[Request, Batch] = {}
        self._unasked: deque[Batch] = deque()

    def __bool__(self) -> bool:
        """Return whether anything is on its way."""
        return bool(self._batches)

    def __iter__(self) -> Iterator[Request]:
        """Yield the requests; they may end meanwhile."""
        return iter(tuple(self._batches))

    def add(self, requests: Iterable[Request]) -> int:
        """Note requests that are to be sent; return how many batches they make."""
        batches = batches_for(requests)
        for batch in batches:
            self._batches.update(dict.fromkeys(batch.pending, batch))
        self._unasked += batches
        return len(batches)

    def next_batch(self) -> Batch:
        """Return the batch that was added first of those that were not returned yet.

        trio starts tasks in any order, and the blocks nearest to a reader were decided on first.
        """
        return self._unasked.popleft()

    def left_of(self, batch: Batch) -> list[Request]:
        """Return the requests that a source has not answered and that are not cancelled."""
        return [request for request in batch.pending if request in self._batches]

    def answered(self, batch: Batch) -> Request | None:
        """Take the next answer off a batch; return its request unless that was cancelled."""
        request = batch.pending.popleft()
        return request if request in self._batches else None

    def end(self, request: Request) -> bool:
        """Let a request be over; return whether it was on its way."""
        return self._batches.pop(request, None) is not None

    def cancel(self, request: Request) -> None:
        """Let a request be over, and its batch if nothing else is left of it."""
        batch = self._batches.pop(request)
        if not self.left_of(batch):
            batch.scope.cancel()
