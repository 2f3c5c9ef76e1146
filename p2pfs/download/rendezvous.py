"""Readers of one content who share the work: who of them fetches which block from the sources.

When ten read one file from one source, each block should leave that source once, and then go
from reader to reader. So each block has one keeper among the readers that know of each other:
the one whose id, hashed with the index, comes highest. They need not agree on anything, or be
asked: who knows the same readers comes to the same keeper (rendezvous hashing).
"""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from p2pfs.protocol import ServentId


class Fellows:
    """The readers of one content that we know of, ourselves among them."""

    def __init__(self, own_id: ServentId) -> None:
        """Start alone."""
        self._own_id = own_id
        self._others: frozenset[ServentId] = frozenset()
        self._keepers: dict[int, ServentId] = {}

    def __bool__(self) -> bool:
        """Return whether there are others."""
        return bool(self._others)

    def update(self, others: Iterable[ServentId]) -> None:
        """Take these for the others from now on."""
        others = frozenset(others)
        if others != self._others:
            self._others = others
            self._keepers.clear()

    def keeper_of(self, index: int) -> ServentId | None:
        """Return whose a block is to fetch from the sources; None if it is ours."""
        keeper = self._keepers.get(index)
        if keeper is None:
            keeper = max((self._own_id, *self._others), key=lambda one: _rank(one, index))
            self._keepers[index] = keeper
        return None if keeper == self._own_id else keeper


def _rank(servent: ServentId, index: int) -> bytes:
    return blake3(f"{servent} {index}".encode()).digest()
