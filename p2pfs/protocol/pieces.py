"""Bytes that lie in pieces: cut anew where they have to be, and copied as late as can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Piece = bytes | bytearray | memoryview
"""Bytes that must not change any more."""


def cut(pieces: Sequence[Piece], length: int) -> Iterator[tuple[list[memoryview], bool]]:
    """Yield the same bytes, so many at a time, and with the last of them that they are the last.

    Of no bytes that is said once. Nothing is copied.
    """
    left = sum(map(len, pieces))
    some: list[memoryview] = []
    missing = min(length, left)
    for piece in pieces:
        rest = memoryview(piece)
        while len(rest) >= missing > 0:
            some.append(rest[:missing])
            rest = rest[missing:]
            left -= missing
            if left:
                yield some, False
                some = []
            missing = min(length, left)
        if rest:
            some.append(rest)
            missing -= len(rest)
            left -= len(rest)
    yield some, True
