"""A directory: who is to be dialled for what, told by servents beyond the horizon.

Theory. A flood ends at the horizon. Beyond it, what has an exact key can be found where all agree
to keep what is told of that key: in a distributed hash table. It holds addresses and nothing else.
An address is a place to begin at, no more: who is there says so in the handshake, what it has is
verified as ever, and what is found by words is never asked for here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from p2pfs.protocol import Address, DirectoryKey


class Directory(Protocol):
    """Tells addresses by exact keys. From trio's thread alone; nothing that it tells is proved."""

    def announce(self, key: DirectoryKey) -> None:
        """Tell others that we are to be dialled for a key, again and again until withdrawn."""
        ...

    def withdraw(self, key: DirectoryKey) -> None:
        """Tell it no more. What was told is forgotten by others after a while, not at once."""
        ...

    async def find(self, key: DirectoryKey) -> Sequence[Address]:
        """Return whom others tell of, within seconds; nobody if they tell of none, or are silent.

        Any of it may be false. Cancelling leaves nothing behind.
        """
        ...

    def add_node(self, address: Address) -> None:
        """Take in a servent that may know others, by its own address."""
        ...
