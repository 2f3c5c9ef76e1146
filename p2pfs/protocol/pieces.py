"""Bytes that lie in pieces: cut anew where they have to be, and copied as late as can be."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

Piece = bytes | bytearray | memoryview
"""Bytes that must not change any more."""


def cut(pieces: Sequence[Piece], length: int) -> Iterator[tuple[list[memoryview], bool]]:
    """Yield the same bytes, so many at a time, and with the last of them that they are the last.

    Of no bytes that is said once. Nothing is copied.
    """
    left = sum(map(len, pieces))
    rest = deque(memoryview(piece) for piece in pieces)
    is_last = False
    while not is_last:
        some: list[memoryview] = []
        missing = min(length, left)
        left -= missing
        while missing:
            piece = rest.popleft()
            some.append(piece[:missing])
            if len(piece) > missing:
                rest.appendleft(piece[missing:])
            missing -= len(some[-1])
        is_last = not left
        yield some, is_last
