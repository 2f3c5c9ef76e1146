"""What goes over the wire for one content: batches of requests, each answered by one source.

A batch is a task. It asks one source for some blocks and takes the answers as they come; the
blocks go to the `Verifier`, and the picker learns how the source behaves. A request
that is cancelled ends here at once, though its task finds out later.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Protocol

import trio

from p2pfs.download.batches import Batch, InFlight
from p2pfs.download.picker import Picker
from p2pfs.download.source import MANIFEST, Request
from p2pfs.download.standing import Trouble, trouble_of
from p2pfs.download.upstream import Upstream
from p2pfs.download.verifying import Verifier
from p2pfs.errors import P2pfsError, RejectedError
from p2pfs.protocol import FileId, RejectCode


class TransferOwner(Protocol):
    """What transfers report to their swarm, and ask of it."""

    @property
    def is_urgent(self) -> bool:
        """Whether a reader waits."""

    def progressed(self) -> None:
        """Note that a part of a block came."""

    def source_failed(self, error: P2pfsError) -> None:
        """Note why a source did not give what it was asked for."""

    def pump(self) -> None:
        """Decide everything anew."""


class Transfers:
    """The batches of one swarm. Belongs to the trio thread."""

    def __init__(
        self,
        owner: TransferOwner,
        upstream: Upstream,
        picker: Picker,
        verifier: Verifier,
        file_id: FileId,
        stall_s: float,
    ) -> None:
        """Prepare; a source that sends nothing for `stall_s` is not waited for."""
        self._owner = owner
        self._upstream = upstream
        self._picker = picker
        self._verifier = verifier
        self._file_id = file_id
        self._stall_s = stall_s
        self._in_flight = InFlight()

    def __bool__(self) -> bool:
        """Return whether anything is on its way."""
        return bool(self._in_flight)

    def add(self, requests: Iterable[Request]) -> int:
        """Note requests that are to be sent; return how many times `run_next` has to be started."""
        return self._in_flight.add(requests)

    def cancel_all(self) -> None:
        """End all requests."""
        self.cancel(self._in_flight)

    async def run_next(self) -> None:
        """Take the answers of one source, until `cancel` or its silence ends that."""
        batch = self._in_flight.next_batch()
        with batch.scope:
            batch.scope.deadline = trio.current_time() + self._stall_s
            try:
                await self._fetch(batch)
            except P2pfsError as error:
                self._failed(batch, error)
        if batch.scope.cancelled_caught:
            self._blame(self._in_flight.left_of(batch), Trouble.SILENT)
        self.end(self._in_flight.left_of(batch))
        self._owner.pump()

    async def _fetch(self, batch: Batch) -> None:
        source, file_id = batch.source, self._file_id
        if batch.pending[0].index == MANIFEST:
            data = await self._upstream.fetch_manifest(source, file_id)
            request = self._received(batch)
            if request is not None:
                self._verifier.manifest_arrived(request, data)
                self.end([request])
        else:
            wanted = {request.index: request.length for request in batch.pending}
            deliver = functools.partial(self._arrived, batch)
            heard = functools.partial(self._heard, batch)
            await self._upstream.fetch_blocks(source, file_id, wanted, deliver, heard)

    def _heard(self, batch: Batch) -> None:
        """Note that a part of a block came: of the largest one comes long before the whole."""
        batch.scope.deadline = trio.current_time() + self._stall_s
        self._owner.progressed()

    def _received(self, batch: Batch) -> Request | None:
        """Note that the next answer of a batch is here; return for what, if it is wanted."""
        request = self._in_flight.answered(batch)
        if request is not None:
            self._picker.received(request, trio.current_time())
        return request

    def _arrived(self, batch: Batch, data: bytes) -> None:
        request = self._received(batch)
        if request is not None:
            self._verifier.block_arrived(request, data, is_urgent=self._owner.is_urgent)

    def end(self, requests: Iterable[Request]) -> None:
        """Let requests be over; those that are over already are passed over."""
        for request in requests:
            if self._in_flight.end(request):
                self._picker.ended(request, trio.current_time())

    def cancel(self, requests: Iterable[Request]) -> None:
        """End requests now, whose tasks only find out later."""
        for request in requests:
            self._in_flight.cancel(request)
            self._picker.ended(request, trio.current_time())

    def _failed(self, batch: Batch, error: P2pfsError) -> None:
        left = self._in_flight.left_of(batch)
        if not left:
            return
        self._owner.source_failed(error)
        if not isinstance(error, RejectedError):
            self._blame(left, trouble_of(error))
        elif error.code == RejectCode.NOT_FOUND and left[0].index != MANIFEST:
            # It answers the first request; whether the source has the others is not known.
            if left[0] is batch.pending[0]:
                self._picker.lacked(left[0], trio.current_time(), error.retry_after_s)
        else:
            self._blame(left, trouble_of(error), error.retry_after_s or None)

    def _blame(
        self, requests: Iterable[Request], trouble: Trouble, pause_s: float | None = None
    ) -> None:
        for request in requests:
            self._picker.failed(request, trouble, trio.current_time(), pause_s)
