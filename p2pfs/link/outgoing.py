"""What leaves on one link: sealed in order, sent in batches, never buffered without bounds.

A frame is sealed when it is put into the outbox, so the order there is the order of the cipher's
nonces. Messages that are posted never wait; the caller ends the link of a peer that does not
read. Block data waits for room, and so do messages that others have us pass on.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from p2pfs.errors import LinkClosedError
from p2pfs.link.outbox import DATA_BYTES, FIRST_DATA_BYTES, Outbox
from p2pfs.protocol import (
    Bye,
    Connection,
    Message,
    Piece,
    Prepared,
    Reject,
    RejectCode,
    cut,
)

WAITING_BYTES: Final = 1024 * 1024
"""Messages that may wait for room to be passed on. Over 1 Mbit/s they take eight seconds: their
asker waits no longer than MAX_DEADLINE_MS."""

SENDS_APART_S: Final = 0.005
"""Between two sends to a neighbour. Messages posted meanwhile go together, and wake it once; the
first message after a pause goes at once. Most of the cost of a message is the waking."""

BLOCKED_S: Final = 0.25
"""How long data may find no room before the peer counts as one that takes nothing: a slow line
needs longer for one piece, and so does a reader who wants to hold others up."""


def _nothing() -> None:
    """Take note of nothing."""


class Outgoing:
    """What leaves on one link. `run` writes it to the stream."""

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        connection: Connection,
        apart_s: float,
        bound: Callable[[int], object] | None = None,
    ) -> None:
        """Seal with `connection`, and write to `stream` no more often than each `apart_s`.

        With `bound` the peer has to show that it takes much before much waits for it, and somebody
        has to have room for that (`reserved`). It is called with how many times FIRST_DATA_BYTES
        the system may hold as well.
        """
        self._stream = stream
        self._connection = connection
        self._apart_s = apart_s
        self._bound = bound
        self._outbox = Outbox(FIRST_DATA_BYTES if bound else DATA_BYTES)
        if bound:
            bound(1)
        self._waiting: deque[Prepared] = deque()
        """Messages that are to be passed on when there is room."""
        self._waiting_bytes = 0
        self._sent_at = -math.inf
        self._why_over: str | None = None
        """Why nothing is taken any more."""
        self.sending_since = math.inf
        """When the send that is under way began."""
        self.reserved = 0
        """How many have room in memory for all that may wait here."""
        self.messages = 0
        """How many have been sealed for the wire so far."""

    def __bool__(self) -> bool:
        """Return whether anything waits to be sent."""
        return bool(self._outbox)

    def post(self, message: Message, request_id: int) -> bool:
        """Queue a message; return False, and queue nothing, if too much waits already.

        Raises:
            LocalProtocolError: the message does not belong on this link.
        """
        frame = self._connection.send(message, request_id)
        if not self._outbox.has_room(len(frame)):
            return False
        self.messages += 1
        self._outbox.put(frame)
        return True

    @property
    def may_pass_on(self) -> bool:
        """Whether there is room for messages that others have us pass on."""
        return self._waiting_bytes < WAITING_BYTES

    def pass_on(self, message: Message) -> None:
        """Queue a message behind those passed on before, until there is room for it."""
        prepared = self._connection.prepare(message)
        self._waiting.append(prepared)
        self._waiting_bytes += len(prepared.plaintext)
        self._seal_waiting()

    async def send_data(
        self, request_id: int, *pieces: Piece, is_last: bool, blocked: Callable[[], object]
    ) -> None:
        """Queue data as there is room for it; see `Link.send_data`."""
        try:
            for some, is_end in cut(pieces, self._outbox.sealed_bytes):
                await self.wait_room(blocked)
                frames = self._connection.send_data(request_id, *some, is_last=is_last and is_end)
                self._outbox.put_data(frames)
        except trio.Cancelled:
            if self._why_over is None:
                self.post(Reject(RejectCode.FAILED, "interrupted"), request_id)
            raise

    @property
    def sealed_bytes(self) -> int:
        """How much data is sealed at once now: more on a link that takes much."""
        return self._outbox.sealed_bytes

    @property
    def has_room(self) -> bool:
        """Whether data may be queued now, as much as is sealed at once."""
        if self._bound is None or self.reserved:
            return self._outbox.has_room_for_data
        return self.has_little

    @property
    def has_little(self) -> bool:
        """Whether so little waits or is being sent that nobody needs to have room for it."""
        return self._outbox.has_little

    async def wait_room(self, blocked: Callable[[], object] = _nothing) -> None:
        """Wait until data may be queued; `blocked` is called once that has taken BLOCKED_S.

        Raises:
            LinkClosedError: the link ended before.
        """
        if self.has_room:
            self.check_open()
            return
        await self._wait_until(lambda: self.has_room, blocked)

    async def wait_little(self, blocked: Callable[[], object]) -> None:
        """Wait until little waits; `blocked` and errors are those of `wait_room`."""
        await self._wait_until(lambda: self.has_little, blocked)

    async def _wait_until(self, is_so: Callable[[], bool], blocked: Callable[[], object]) -> None:
        with trio.move_on_after(BLOCKED_S) as patience:
            await self._wait_change_until(is_so)
        if patience.cancelled_caught:
            blocked()
            await self._wait_change_until(is_so)

    async def _wait_change_until(self, is_so: Callable[[], bool]) -> None:
        while self._why_over is None and not is_so():
            await self._outbox.wait_change()
        self.check_open()

    def check_open(self) -> None:
        """Raise LinkClosedError once the link has ended."""
        if self._why_over is not None:
            raise LinkClosedError(self._why_over)

    def say_last(self, bye: Bye) -> None:
        """Queue a BYE, whatever waits; nothing may follow it."""
        self._outbox.put(self._connection.send(bye))

    def end(self, why: str) -> None:
        """Take no message any more; those in the queue still leave."""
        self._why_over = why
        self._outbox.wake()

    async def run(self) -> bool:
        """Write the queue until the link has ended, and return whether all of it has left."""
        # A broken stream ends the writer alone: the reader sees it too, maybe after a BYE.
        with contextlib.suppress(trio.BrokenResourceError):
            while self._why_over is None or self._outbox:
                await self._outbox.wait_filled()
                await self._pause()
                batch = self._outbox.take()
                self.sending_since = trio.current_time()
                await self._stream.send_all(batch)
                self._note_sent(len(batch))
                del batch  # else it is held until there is another
                self._seal_waiting()
            await self._stream.send_eof()
            return True
        return False

    def _note_sent(self, count: int) -> None:
        now = trio.current_time()
        if self._bound and self._outbox.has_taken(count, now - self.sending_since):
            self._bound(self._outbox.data_bytes // FIRST_DATA_BYTES)
        self._outbox.sent(count)
        self._sent_at, self.sending_since = now, math.inf

    async def _pause(self) -> None:
        """Let messages of one moment go together."""
        if trio.current_time() < self._sent_at + self._apart_s:
            await trio.sleep_until(self._sent_at + self._apart_s)

    def _seal_waiting(self) -> None:
        """Queue the messages that wait to be passed on, as far as there is room."""
        while self._waiting and self._outbox.has_room_for_data and self._why_over is None:
            prepared = self._waiting.popleft()
            self._waiting_bytes -= len(prepared.plaintext)
            self.messages += 1
            self._outbox.put(self._connection.seal(prepared))
