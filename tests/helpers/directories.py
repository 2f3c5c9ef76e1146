"""Directories in memory: what one announces, all find at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import trio

from p2pfs.protocol import Address, DirectoryKey


class Shelf:
    """What a network of directories holds."""

    def __init__(self) -> None:
        self.told: dict[DirectoryKey, list[Address]] = defaultdict(list)
        self.asked: list[DirectoryKey] = []
        """All keys that were ever looked for."""

    def directory_at(self, address: Address) -> FakeDirectory:
        """Return the directory of a servent that is dialled at an address."""
        return FakeDirectory(self, address)


class FakeDirectory:
    """A directory (reach.Directory) of one servent."""

    def __init__(self, shelf: Shelf, address: Address) -> None:
        self._shelf = shelf
        self._address = address
        self.nodes: list[Address] = []
        self.announced: set[DirectoryKey] = set()

    def announce(self, key: DirectoryKey) -> None:
        self.announced.add(key)
        if self._address not in self._shelf.told[key]:
            self._shelf.told[key].append(self._address)

    def withdraw(self, key: DirectoryKey) -> None:
        self.announced.discard(key)

    async def find(self, key: DirectoryKey) -> Sequence[Address]:
        await trio.lowlevel.checkpoint()
        self._shelf.asked.append(key)
        return tuple(self._shelf.told.get(key, ()))

    def add_node(self, address: Address) -> None:
        self.nodes.append(address)
