"""Keys that neighbours tell directories in our stead, and we in theirs.

A directory takes the address from the datagram that tells a key, so no servent can tell another's.
A servent that cannot be dialled has two neighbours tell its keys at their own addresses. A servent
that finds one of them is one hop away, and has it dial back (`push`). The keys are hashes; the
neighbour does not learn what they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from p2pfs.link import Link
from p2pfs.overlay import Handlers, Overlay
from p2pfs.protocol import MAX_ANNOUNCED, Announce, DirectoryKey
from p2pfs.protocol.flood import LinkId

HELPERS: Final = 2
"""Neighbours that are asked to tell our keys: one may go."""

MAX_HELPED: Final = 8
"""Neighbours that are helped at once: with all of their keys, some seven datagrams a second."""


class Instead:
    """The keys that we tell for neighbours, and those that they are to tell for us."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._theirs: dict[LinkId, tuple[DirectoryKey, ...]] = {}
        self._asked: dict[LinkId, tuple[DirectoryKey, ...]] = {}

    @property
    def handlers(self) -> Handlers:
        """The handler of ANNOUNCE."""
        return {Announce: self.got_announce}

    def got_announce(self, link: Link, message: Announce) -> None:
        """Tell these keys, and no others, as long as this neighbour is there.

        A neighbour that we have dialled can be dialled, so it tells its keys itself.
        """
        if link.direction != "in":
            return
        self._theirs.pop(link.id, None)
        if message.keys and len(self._theirs) < MAX_HELPED:
            self._theirs[link.id] = tuple(map(DirectoryKey, message.keys))

    def forget(self, link: Link) -> None:
        """Forget a neighbour that is gone."""
        self._theirs.pop(link.id, None)
        self._asked.pop(link.id, None)

    def theirs(self) -> Iterator[DirectoryKey]:
        """Return the keys to be told for neighbours."""
        for keys in self._theirs.values():
            yield from keys

    def ask(self, keys: Sequence[DirectoryKey]) -> None:
        """Have neighbours tell these keys, and no others; call it again and again."""
        wanted = tuple(keys)[:MAX_ANNOUNCED]
        outward = [link for link in self._overlay.neighbours if link.direction == "out"]
        helpers = sorted(outward, key=lambda link: link.opened_at)[:HELPERS]
        for link in outward:
            theirs = wanted if link in helpers else ()
            if self._asked.get(link.id, ()) != theirs:
                link.post(Announce(theirs))
                self._asked[link.id] = theirs
