"""The questions that `network/`, `search/` and `peers/` answer alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from p2pfs.namespace.nodes import Knowledge, Node, RemoteFile


class View(Protocol):
    """The names in a tree of others' files. Calls that are not async read memory, on any thread.

    Views differ in the servents that they ask, and in the meaning of a path.
    """

    def known(self, path: str) -> Node | Knowledge:
        """Return the node that memory has at a path, or whether others are worth asking for it.

        Names that programs look up by themselves in every folder are never worth a search.
        """
        ...

    def known_children(self, path: str) -> Sequence[Node] | Knowledge:
        """Return a directory as last listed; UNKNOWN if it must be listed now.

        One that is old is listed again in the background.
        """
        ...

    def settled(self, nodes: Sequence[Node]) -> Sequence[Node]:
        """Return those of some children that may be shown without asking: all but disputed ones."""
        ...

    async def find(self, path: str) -> Node | None:
        """Return the node at a path, asking others first.

        None if nobody within reach has it, or nobody has answered in time.

        Raises:
            TransferError: it is not known, and others cannot be asked.
        """
        ...

    async def list(self, path: str) -> Sequence[Node]:
        """Return a directory, asking others first; raises as `find` does."""
        ...

    def partial(self, path: str) -> str | None:
        """Return why the last listing of a directory is not whole, for people; None if it is."""
        ...

    def hold(self, file: RemoteFile) -> Callable[[], None]:
        """Let the name of a file stay with its content; return a function that ends that, once."""
        ...
