"""A directory: addresses to dial for exact keys, told by servents beyond the horizon.

Theory. A flood ends at the horizon. Beyond it, a thing with an exact key can be found in a
distributed hash table, where all agree on the nodes that keep the addresses told for that key. It
holds addresses and nothing else. An address is only a place to begin at: the handshake proves who
is there, and blocks from there are verified as ever. Words are never asked for here.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Protocol

from p2pfs.protocol import Address, DirectoryKey, by_turns


def some_of(addresses: Collection[Address], most: int) -> Sequence[Address]:
    """Return some of the addresses that directories tell: by chance, and networks by turns.

    A liar who tells thousands of one network gets one place before any other network has two.
    """
    by_chance = random.sample(list(addresses), len(addresses))
    return by_turns(by_chance, lambda one: one.host)[:most]


class Directory(Protocol):
    """Tells addresses by exact keys. From trio's thread alone; nothing that it tells is proved."""

    def announce(self, key: DirectoryKey) -> None:
        """Tell others that we are to be dialled for a key, again and again until withdrawn."""
        ...

    def withdraw(self, key: DirectoryKey) -> None:
        """Stop telling it. Others forget it after a while, not at once."""
        ...

    async def find(self, key: DirectoryKey) -> Sequence[Address]:
        """Return the addresses that others tell for a key, within seconds; none if all are silent.

        Any of them may be false. Cancelling leaves nothing behind.
        """
        ...

    def add_node(self, address: Address) -> None:
        """Take in a servent that may know others, by its own address."""
        ...
