"""The sealed frames that wait to be sent on one link, in bounds."""

from __future__ import annotations

from collections import deque
from typing import Final

from trio.lowlevel import ParkingLot

DATA_BYTES: Final = 256 * 1024
"""Data waits above this: four frames are sealed while four others are being sent. With half of
it a transfer cost a fifth more processor time at both ends."""

FIRST_DATA_BYTES: Final = 64 * 1024
"""The same on a link that has not shown yet that it takes more: what it does not take fills a
share of the line that others would."""

PROMPT_S: Final = 0.1
"""A link that takes all that may wait in less has room for twice as much next time; after ten times
as long it begins anew."""

OUTBOX_BYTES: Final = 2 * DATA_BYTES
"""The most that waits for a peer that does not read; half of it is for messages alone."""

SEND_BYTES: Final = 257 * 1024
"""Largest single send; a peer that takes longer than DEAD_AFTER_S for it is dropped. Four full
frames with their lengths, which are sealed as one piece, are four bytes more than 256 KiB."""


class Outbox:
    """Sealed frames in the order of the cipher's nonces: none may be left out or overtaken."""

    def __init__(self, data_bytes: int = DATA_BYTES) -> None:
        """Begin empty; data waits above so many bytes."""
        self.data_bytes = data_bytes
        self._frames: deque[bytes] = deque()
        self._size = 0
        self._filled = ParkingLot()
        self._emptied = ParkingLot()

    def __bool__(self) -> bool:
        """Return whether anything waits."""
        return bool(self._frames)

    def has_room(self, length: int) -> bool:
        """Return whether a message of `length` bytes stays within OUTBOX_BYTES."""
        return self._size + length <= OUTBOX_BYTES

    def put(self, frame: bytes) -> None:
        """Append a frame; the bounds are the caller's to keep."""
        self._frames.append(frame)
        self._size += len(frame)
        self._filled.unpark()

    @property
    def has_room_for_data(self) -> bool:
        """Whether a frame of data may be put."""
        return self._size < self.data_bytes

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
        """Wait until something is taken, or `wake` is called."""
        await self._emptied.park()

    def wake(self) -> None:
        """Wake the tasks that wait for room, so that they check for it again."""
        self._emptied.unpark_all()

    async def wait_filled(self) -> None:
        """Wait until there is something to take."""
        while not self._frames:
            await self._filled.park()

    def take(self) -> bytes:
        """Take the frames that wait, up to SEND_BYTES, as one piece."""
        taken = [self._frames.popleft()]
        size = len(taken[0])
        while self._frames and size + len(self._frames[0]) <= SEND_BYTES:
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        self._size -= size
        if self._emptied:
            self.wake()
        return taken[0] if len(taken) == 1 else b"".join(taken)
