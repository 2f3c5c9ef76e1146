"""Which of several downloaders fetches which block from the sources for all of them.

When ten read one file from one source, each block should leave that source once, and then go
from reader to reader. So each block is assigned to one of the readers that know of each other:
the one whose id, hashed with the index, comes highest. They need not agree on anything, or be
asked: readers that know the same others assign alike (rendezvous hashing).
"""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from p2pfs.protocol import ServentId


class Rendezvous:
    """The readers of one content that we know of, ourselves among them."""

    def __init__(self, own_id: ServentId) -> None:
        """Start alone."""
        self._own_id = own_id
        self._others: frozenset[ServentId] = frozenset()
        self._assigned: dict[int, ServentId] = {}

    def __bool__(self) -> bool:
        """Return whether there are others."""
        return bool(self._others)

    def update(self, others: Iterable[ServentId]) -> None:
        """Take these for the others from now on."""
        others = frozenset(others)
        if others != self._others:
            self._others = others
            self._assigned.clear()

    def reader_of(self, index: int) -> ServentId | None:
        """Return the reader that fetches a block from the sources; None if we are to."""
        reader = self._assigned.get(index)
        if reader is None:
            reader = max((self._own_id, *self._others), key=lambda one: _rank(one, index))
            self._assigned[index] = reader
        return None if reader == self._own_id else reader


def _rank(servent: ServentId, index: int) -> bytes:
    return blake3(f"{servent} {index}".encode()).digest()
