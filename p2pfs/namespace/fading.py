"""Names of servents that are still to be forgotten, a few at a time. Not locked: see the catalogue.

A servent that leaves may have had hundreds of thousands of names. To forget all of them at once
would hold up every thread for seconds. Each name is shown until its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from p2pfs.namespace.claims import ClaimTree
from p2pfs.namespace.places import Place
from p2pfs.protocol import ServentId

FORGOTTEN_AT_ONCE: Final = 100
"""Entries forgotten without a break: half a millisecond."""


class Fading:
    """The places, each with all below it, at which servents are still to be forgotten."""

    def __init__(self, tree: ClaimTree) -> None:
        self._tree = tree
        self._places: dict[ServentId, dict[Place, None]] = {}

    def __bool__(self) -> bool:
        """Return whether there is anything to forget."""
        return bool(self._places)

    def __contains__(self, source: ServentId) -> bool:
        """Return whether something of a servent is still to be forgotten."""
        return source in self._places

    def put(self, source: ServentId, places: Iterable[Place]) -> None:
        """Have a servent forgotten at some places and below."""
        places = dict.fromkeys(places)
        if places:
            self._places.setdefault(source, {}).update(places)

    def go_on(self) -> bool:
        """Forget some; return whether there is more to forget."""
        room = FORGOTTEN_AT_ONCE
        while self._places and room:
            source, places = next(iter(self._places.items()))
            place, _ = places.popitem()
            count = self._tree.fade(place, source, room)
            if count < room:
                self._faded(source, place)
            else:
                places[place] = None
            room -= max(count, 1)
        return bool(self._places)

    def end(self, source: ServentId, path: str) -> None:
        """Stop forgetting a servent at a path, because it has made a new claim there.

        A servent that left and is back has what it had until it says otherwise.
        """
        if source not in self._places:
            return
        for place in self._tree.places(path):
            if place in self._places[source]:
                self._faded(source, place)
                if place is not self._tree.root:
                    self._tree.forget(place, source)
                return

    def _faded(self, source: ServentId, place: Place) -> None:
        self._places[source].pop(place, None)
        if not self._places[source]:
            del self._places[source]
