"""What waits to be sent on one link, in bounds."""

from __future__ import annotations

from collections import deque
from typing import Final

from trio.lowlevel import ParkingLot

OUTBOX_BYTES: Final = 256 * 1024
"""What may wait for a peer that does not read. Also the most that is joined into one send."""

DATA_BYTES: Final = OUTBOX_BYTES // 2
"""Data waits above this: two frames are sealed while two others are being sent, and a message
always finds room beside it."""


class Outbox:
    """Sealed frames in the order of the cipher's nonces: none may be left out or overtaken."""

    def __init__(self) -> None:
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

    async def wait_room_for_data(self) -> None:
        """Wait until a frame of data may be put, or `wake` is called."""
        if self._size >= DATA_BYTES:
            await self._emptied.park()

    def wake(self) -> None:
        """Wake those who wait for room, to look at what has changed."""
        self._emptied.unpark_all()

    async def take(self) -> bytes:
        """Wait for frames, and take what is there, up to OUTBOX_BYTES, as one piece."""
        while not self._frames:
            await self._filled.park()
        taken = [self._frames.popleft()]
        size = len(taken[0])
        while self._frames and size + len(self._frames[0]) <= OUTBOX_BYTES:
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        self._size -= size
        self.wake()
        return b"".join(taken)
