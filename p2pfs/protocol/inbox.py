"""The bytes that have arrived on one link and are not read yet: bytes in, whole frames out.

The last piece is kept as it came, and frames are views of it. Only the beginning of a frame
that is not whole yet is copied, once. (Appending all to one buffer and deleting from its
front cost a tenth of the processor time of a fast transfer.)
"""

from __future__ import annotations

import struct
from typing import Final

LENGTH: Final = struct.Struct(">H")
"""In front of each Noise message and frame. Two bytes cannot say more than MAX_FRAME_BYTES,
so the bytes held for a frame that is not yet whole are bounded by its very form."""

HEADER: Final = struct.Struct(">BI")
"""Type and request id, in front of every body."""

MAX_FRAME_BYTES: Final = 65_535
"""Of a frame as it crosses the wire, without its length: the most that Noise allows."""

_FULL_BYTES: Final = LENGTH.size + MAX_FRAME_BYTES

TAG_BYTES: Final = 16
"""What AES-GCM adds to a plaintext."""

MAX_BODY_BYTES: Final = MAX_FRAME_BYTES - TAG_BYTES - HEADER.size
"""The rest of a frame, for the body."""


class Inbox:
    """Received bytes in order."""

    def __init__(self) -> None:
        self._held = bytearray()  # comes before what is fresh
        self._fresh = memoryview(b"")

    def put(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes that have arrived; they must not change any more."""
        self._held += self._fresh
        self._fresh = memoryview(data)

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, or as many as there are, and leave them."""
        held = self._held[:count]
        return bytes(held) + bytes(self._fresh[: count - len(held)])

    def take(self, count: int) -> memoryview | None:
        """Return the next `count` bytes, or None if there are not so many."""
        if not self._held:
            if len(self._fresh) < count:
                return None
            taken, self._fresh = self._fresh[:count], self._fresh[count:]
            return taken
        missing = max(0, count - len(self._held))
        if len(self._fresh) < missing:
            return None
        self._held += self._fresh[:missing]
        self._fresh = self._fresh[missing:]
        whole, self._held = memoryview(self._held)[:count], self._held[count:]
        return whole

    def take_all(self) -> bytes:
        """Return whatever is there."""
        taken = bytes(self._held) + bytes(self._fresh)
        self._held, self._fresh = bytearray(), memoryview(b"")
        return taken

    def length_ahead(self) -> int | None:
        """Return how long the next frame says it is, or None if that has not arrived."""
        prefix = self.peek(LENGTH.size)
        return LENGTH.unpack(prefix)[0] if len(prefix) == LENGTH.size else None

    def take_full_frame(self) -> memoryview | None:
        """Return the next frame if it is as long as frames may be, and has arrived whole."""
        if self._held or len(self._fresh) < _FULL_BYTES:
            return None
        if LENGTH.unpack_from(self._fresh)[0] != MAX_FRAME_BYTES:
            return None
        frame, self._fresh = self._fresh[LENGTH.size : _FULL_BYTES], self._fresh[_FULL_BYTES:]
        return frame

    def take_frame(self) -> memoryview | None:
        """Return the next frame without its length, or None if it has not arrived whole."""
        if not self._held and len(self._fresh) >= LENGTH.size:  # as almost always
            end = LENGTH.size + LENGTH.unpack_from(self._fresh)[0]
            if len(self._fresh) < end:
                return None
            frame, self._fresh = self._fresh[LENGTH.size : end], self._fresh[end:]
            return frame
        length = self.length_ahead()
        if length is None:
            return None
        framed = self.take(LENGTH.size + length)
        return None if framed is None else framed[LENGTH.size :]
