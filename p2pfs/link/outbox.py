"""The sealed frames that wait to be sent on one link, in bounds."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from trio.lowlevel import ParkingLot

DATA_BYTES: Final = 256 * 1024
"""Data waits above this, and so do messages that others have us pass on."""

FIRST_DATA_BYTES: Final = 64 * 1024
"""The same on a link that has not shown yet that it takes more: what it does not take fills a
share of the line that others would."""

PROMPT_S: Final = 0.1
"""A link that takes all that may wait in less has room for twice as much next time; after ten times
as long it begins anew."""

SEALED_TIMES: Final = 4
SEALED_BYTES: Final = SEALED_TIMES * DATA_BYTES
"""Data sealed at once, at most: SEALED_TIMES what may wait, 0.4 ms. It is sent as one piece. With
a quarter of it a transfer took 1.7 times the calls at its source."""

OUTBOX_BYTES: Final = 2 * DATA_BYTES
"""Messages that may wait for a peer that does not read."""

SEND_BYTES: Final = DATA_BYTES
"""Bytes put together for one send; a peer that takes longer than DEAD_AFTER_S for that, or for data
that was sealed at once, is dropped."""


class _Sealed(NamedTuple):
    frames: bytes
    is_data: bool


class Outbox:
    """Sealed frames in the order of the cipher's nonces: none may be left out or overtaken."""

    def __init__(self, data_bytes: int = DATA_BYTES) -> None:
        """Begin empty; data waits above so many bytes."""
        self.data_bytes = data_bytes
        self._waiting: deque[_Sealed] = deque()
        self._size = 0  # with what is being sent
        self._messages_size = 0  # without that
        self._filled = ParkingLot()
        self._emptied = ParkingLot()

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        return bool(self._waiting)

    def has_room(self, length: int) -> bool:
        """Return whether a message of `length` bytes stays within OUTBOX_BYTES."""
        return self._messages_size + length <= OUTBOX_BYTES

    @property
    def sealed_bytes(self) -> int:
        """How much data is to be sealed at once."""
        return SEALED_TIMES * self.data_bytes

    def put(self, frame: bytes) -> None:
        """Append a message; the bounds are the caller's to keep."""
        self._messages_size += len(frame)
        self._append(_Sealed(frame, is_data=False))

    def put_data(self, frames: bytes) -> None:
        """Append data that was sealed at once; the bounds are the caller's to keep."""
        self._append(_Sealed(frames, is_data=True))

    def _append(self, sealed: _Sealed) -> None:
        self._waiting.append(sealed)
        self._size += len(sealed.frames)
        self._filled.unpark()

    @property
    def has_room_for_data(self) -> bool:
        """Whether `sealed_bytes` of data may be put."""
        return self._size < self.data_bytes

    @property
    def has_little(self) -> bool:
        """Whether less waits or is being sent than a link may hold that has shown nothing."""
        return self._size < FIRST_DATA_BYTES

    def sent(self, count: int) -> None:
        """Note that so much of what was taken has been sent."""
        self._size -= count
        self.wake()

    def has_taken(self, count: int, took_s: float) -> bool:
        """Note how long the peer took for what was sent; return whether the room for data changes.

        It is never more than DATA_BYTES.
        """
        before = self.data_bytes
        if took_s >= 10 * PROMPT_S:
            self.data_bytes = FIRST_DATA_BYTES
        elif took_s < PROMPT_S and count >= before:
            self.data_bytes = min(2 * before, DATA_BYTES)
        return self.data_bytes != before

    async def wait_change(self) -> None:
        """Wait until something is sent, or `wake` is called."""
        await self._emptied.park()

    def wake(self) -> None:
        """Wake the tasks that wait for room, so that they check for it again."""
        self._emptied.unpark_all()

    async def wait_filled(self) -> None:
        """Wait until there is something to take."""
        while not self._waiting:
            await self._filled.park()

    def take(self) -> bytes:
        """Take the bytes to be sent next, as one piece: SEND_BYTES, or data sealed at once.

        It takes up room until it is `sent`.
        """
        taken = [self._pop()]
        size = len(taken[0])
        while self._waiting and size + len(self._waiting[0].frames) <= SEND_BYTES:
            taken.append(self._pop())
            size += len(taken[-1])
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def _pop(self) -> bytes:
        sealed = self._waiting.popleft()
        if not sealed.is_data:
            self._messages_size -= len(sealed.frames)
        return sealed.frames
