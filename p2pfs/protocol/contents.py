"""Several small contents in one answer: each behind its length, in the order asked for."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from p2pfs.errors import RemoteProtocolError
from p2pfs.protocol.manifest import MIN_BLOCK_BYTES
from p2pfs.protocol.pieces import Piece

_LENGTH: Final = struct.Struct(">I")

_NOT_GIVEN: Final = 2**32 - 1
"""The length of a content that is to be asked for alone."""

MAX_CONTENT_BYTES: Final = _LENGTH.size + MIN_BLOCK_BYTES
"""What one content may take in the answer."""


def pack_contents(contents: Iterable[bytes | None]) -> bytes:
    """Return a part of an answer: these contents, None for each that is not given."""
    parts: list[bytes] = []
    for data in contents:
        parts += (_LENGTH.pack(_NOT_GIVEN if data is None else len(data)), data or b"")
    return b"".join(parts)


class ContentsCutter:
    """Cuts an answer, as it comes, where one content ends and the next begins."""

    def __init__(self, count: int, take: Callable[[bytes | None], object]) -> None:
        """Hand each of so many contents to `take`, unverified; None if it is not given."""
        self._left = count
        self._take = take
        self._rest = b""

    def receive(self, pieces: Sequence[Piece]) -> None:
        """Take in the next pieces; RemoteProtocolError if they are more than was asked for."""
        data = memoryview(b"".join((self._rest, *pieces)))
        while len(data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data)
            end = _LENGTH.size + (0 if length == _NOT_GIVEN else length)
            if not self._left or end > MAX_CONTENT_BYTES:
                raise RemoteProtocolError("a content that was not asked for, or is too long")
            if len(data) < end:
                break
            self._left -= 1
            self._take(None if length == _NOT_GIVEN else bytes(data[_LENGTH.size : end]))
            data = data[end:]
        self._rest = bytes(data)
