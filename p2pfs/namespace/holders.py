"""The servents that have told of their shares: what each has, and when it was asked for it.

With these answers the three views decide which servents to ask. Paths are as published. Any thread;
the lock is the catalogue's, whose tree of claims this is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager

from p2pfs.namespace.asked import WholeListings
from p2pfs.namespace.claims import ANY_ROOM, ClaimTree, NameRoom
from p2pfs.namespace.showing import Showing
from p2pfs.namespace.sources import Sources
from p2pfs.protocol import Entry, PeerInfo, ServentId


class Holders:
    """Which servent has which directory, and how long ago it was listed."""

    def __init__(
        self,
        tree: ClaimTree,
        showing: Showing,
        sources: Sources,
        listed: WholeListings,
        lock: AbstractContextManager[object],
    ) -> None:
        self._tree = tree
        self._showing = showing
        self._sources = sources
        self._listed = listed
        self._lock = lock
        self._expired_at = float("-inf")

    # Who they are.

    def all(self) -> tuple[PeerInfo, ...]:
        """Return every servent that has told of its share."""
        with self._lock:
            return self._sources.all()

    def version(self) -> int:
        """Return another number after each change of those who have told, or of their facts."""
        return self._sources.version

    def get(self, source: ServentId) -> PeerInfo | None:
        """Return a servent if it has told of its share."""
        return self._sources.get(source)

    def heard(self, source: ServentId) -> None:
        """Note that a message came from a servent, so that it is there."""
        with self._lock:
            self._sources.heard(source)

    def heard_at(self, source: ServentId) -> float:
        """Return when a servent was last heard of; minus infinity if it is not known."""
        with self._lock:
            return self._sources.heard_at(source)

    def unheard(self, since: float, limit: int) -> Sequence[PeerInfo]:
        """Return servents that have not been heard of since then, the longest silent first."""
        with self._lock:
            return self._sources.unheard(since, limit)

    # What they have.

    def of(self, directory: str) -> tuple[PeerInfo, ...]:
        """Return the servents that have a directory; for the root all of them."""
        with self._lock:
            place = self._tree.place(directory)
            return () if place is None else self._showing.directory_node(place, directory).sources

    def have(self, directory: str) -> bool:
        """Return whether any servent has a directory; the root is always there."""
        if not directory:
            return True
        with self._lock:
            place = self._tree.place(directory)
            by = place.directory.by if place is not None and place.directory is not None else ()
            return any(source in self._sources for source in by)

    def entry(self, source: ServentId, path: str) -> Entry | None:
        """Return what one servent is known to have at a path."""
        with self._lock:
            place = self._tree.place(path)
            return None if place is None else self._tree.entry_of(source, place)

    def entries(self, source: ServentId, directory: str) -> list[Entry]:
        """Return what one servent is known to have in a directory, sorted by name."""
        with self._lock:
            place = self._tree.place(directory)
            names = sorted(self._tree.names_of(source, place)) if place else ()
            places = (place.children[name] for name in names) if place else ()
            entries = (self._tree.entry_of(source, one) for one in places)
            return [entry for entry in entries if entry is not None]

    def room(self, source: ServentId, directory: str) -> NameRoom:
        """Return how many names one servent may have in a directory; see `ClaimTree.room`."""
        with self._lock:
            place = self._tree.place(directory)
            return ANY_ROOM if place is None else self._tree.room(source, place)

    def lost_at(self, directory: str) -> float:
        """Return when a directory last lost names that made room for others'; or minus infinity."""
        return self._tree.lost_at.get(directory, -math.inf)

    def lost(self) -> Sequence[str]:
        """Return the directories that lost names so lately."""
        return tuple(self._tree.lost_at)

    # When they were asked. Each time is that at which a listing began.

    def mark_listed(self, directory: str, began_at: float) -> None:
        """Note that everybody within the horizon has been asked for this directory."""
        with self._lock:
            place = self._tree.place(directory)
            if place is not None:
                place.own_details().listed_at = began_at

    def mark_listed_by(self, source: ServentId, directory: str, began_at: float) -> None:
        """Note that one servent has told all that it has in a directory."""
        with self._lock:
            if source in self._sources:
                self._listed.put(source, directory, began_at)

    def listed_at(self, directory: str) -> float | None:
        """Return when the whole horizon was last asked for this directory."""
        with self._lock:
            place = self._tree.place(directory)
            at = None if place is None else place.details.listed_at
            return None if at is None or at < self._expired_at else at

    def listed_by(self, source: ServentId, directory: str) -> float | None:
        """Return when one servent was last asked for all of a directory, if it was lately."""
        with self._lock:
            return self._listed.at(source, directory)

    def expire(self, now: float) -> None:
        """Believe no listing of the whole horizon that was begun before."""
        with self._lock:
            self._expired_at = now
