"""The names that a program was given last: the kernel asks for their attributes in that moment.

The kernel is told the attributes in the listing, without another lookup of each name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from p2pfs.namespace import Node

LISTED_S: Final = 0.05
"""How long a listed node is shown beside its name. The kernel believes it for longer."""

MOST: Final = 1_000
"""Names of one listing: more than it asks for at once."""


class _Listing(NamedTuple):
    nodes: Sequence[Node]
    at: float
    by_path: dict[str, Node]
    """As far as they may be shown; filled when one is asked for."""


class JustListed:
    """The last listing. Any thread."""

    def __init__(
        self, settled: Callable[[Sequence[Node]], Sequence[Node]], clock: Callable[[], float]
    ) -> None:
        """Prepare; `settled` returns those of some nodes that may be shown as they are."""
        self._settled = settled
        self._clock = clock
        self._listing = _Listing((), 0.0, {})

    def put(self, nodes: Sequence[Node]) -> None:
        """Note the nodes of the listing that is shown now."""
        self._listing = _Listing(nodes, self._clock(), {})

    def find(self, path: str) -> Node | None:
        """Return the node at a path if it was listed a moment ago."""
        listing = self._listing
        if self._clock() >= listing.at + LISTED_S:
            return None
        if not listing.by_path:
            settled = self._settled(listing.nodes[:MOST])
            listing.by_path.update({node.path: node for node in settled})
        return listing.by_path.get(path)
