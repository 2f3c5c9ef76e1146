"""What the user keeps: files that are shown under their names, whatever others offer there.

Any thread; the lock is the catalogue's, whose tree of claims this is.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from p2pfs.namespace.asked import Misses
from p2pfs.namespace.claims import ClaimTree
from p2pfs.namespace.offers import OthersOffers
from p2pfs.namespace.showing import HERE
from p2pfs.protocol import Entry


class Kept:
    """The claims that the user makes, among those of the others."""

    def __init__(
        self,
        tree: ClaimTree,
        offers: OthersOffers,
        absences: Misses,
        lock: AbstractContextManager[object],
        now_ns: Callable[[], int],
    ) -> None:
        self._tree = tree
        self._offers = offers
        self._absences = absences
        self._lock = lock
        self._now_ns = now_ns

    def put(self, entry: Entry) -> None:
        """Show a file under its name until `drop`, whatever others offer there.

        A file of a size that its manifest contradicts is not shown.
        """
        with self._lock:
            if self._offers.believes_entry(entry):
                self._tree.put(HERE, entry, self._now_ns())
                self._absences.drop(entry.path)

    def drop(self, path: str) -> None:
        """Show the file that was kept at `path` only while others offer it."""
        with self._lock:
            above = list(self._tree.places(path))[1:]
            if above and above[-1] is self._tree.place(path):
                self._tree.forget(above.pop(), HERE)
            if len(above) < path.count("/"):
                return  # no directory is known that it could have been kept in
            for place in reversed(above):
                # A directory above is kept for the files kept below it, and for nothing else.
                if not place.is_directory_of(HERE) or self._tree.names_of(HERE, place):
                    return
                self._tree.forget(place, HERE)
