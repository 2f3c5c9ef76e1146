"""What each servent has: its names by directory, and how many there are. Pure, and not locked.

It belongs to the tree of claims, which says at which places they are.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Collection
from typing import Final

from p2pfs.latest import Latest
from p2pfs.namespace.crowds import Crowd
from p2pfs.namespace.nodes import Content
from p2pfs.namespace.places import Place
from p2pfs.namespace.tellers import GroupsOf
from p2pfs.protocol import ServentId

ENTRY_BYTES: Final = 400
"""What an entry takes besides its name; 360 to 420 were measured."""

MAX_CROWDS: Final = 8
"""Directories in which the names of each address are counted: those last listed."""

_Names = dict[str, Content | None]


class Entries:
    """The entries of all servents."""

    def __init__(self, groups_of: GroupsOf, few: int) -> None:
        """Begin empty; an address with more than a `few` names of a directory is large there."""
        self._groups_of = groups_of
        self._few = few
        self.counts: dict[ServentId, int] = {}
        """How many each servent has."""
        self.total = 0
        self.held_bytes = 0
        self._names: dict[ServentId, dict[Place, _Names]] = {}
        """The names that each servent has, by directory; each with its content where others have
        another one. (A set would take two to four times the memory.)"""
        self._versions: dict[ServentId, int] = {}
        """A number for each servent, another one after each change of its claims."""
        self._numbers = itertools.count()
        self._crowds: Latest[Place, Crowd] = Latest(MAX_CROWDS)

    # Questions.

    def names(self, source: ServentId, directory: Place) -> Collection[str]:
        """Return the names that one servent has in a directory."""
        return self._names.get(source, {}).get(directory, ())

    def has_below(self, source: ServentId, directory: Place) -> bool:
        """Return whether a servent has names in a directory."""
        return directory in self._names.get(source, {})

    def content(self, source: ServentId, place: Place) -> Content | None:
        """Return the content that one servent says to be at a place: there may be hundreds."""
        if place.sole is not None:
            return place.sole.content if place.sole.source == source else None
        if place.parent is None:
            return None
        return self._names.get(source, {}).get(place.parent, {}).get(place.name)

    def version(self, source: ServentId) -> int | None:
        """Return a number that is another one after each change of a servent's claims."""
        return self._versions.get(source)

    def crowd(self, directory: Place) -> Crowd:
        """Return how many names each address has in a directory."""
        crowd = self._crowds.get(directory)
        if crowd is None:
            numbers = ((source, len(self.names(source, directory))) for source in self._names)
            crowd = self._crowds[directory] = Crowd(self._groups_of, self._few, numbers)
        return crowd

    # What changes.

    def changed(self, source: ServentId) -> None:
        """Note that a claim of a servent has changed."""
        self._versions[source] = next(self._numbers)

    def add(self, source: ServentId, directory: Place, name: str) -> None:
        """Note that a servent has an entry."""
        self._names.setdefault(source, {}).setdefault(directory, {})[name] = None
        self.counts[source] = self.counts.get(source, 0) + 1
        self._moved(source, directory, name, 1)

    def fill(self, source: ServentId, directory: Place, names: Collection[str]) -> None:
        """Note that a servent has entries of a directory, and had none of these."""
        self._names.setdefault(source, {}).setdefault(directory, {}).update(dict.fromkeys(names))
        self.counts[source] = self.counts.get(source, 0) + len(names)
        self.held_bytes = self.bytes_with(names)
        self.total += len(names)
        self._changed_in(source, directory)

    def bytes_with(self, names: Collection[str]) -> int:
        """Return what all take together once there are these entries more."""
        return self.held_bytes + len(names) * ENTRY_BYTES + sum(map(sys.getsizeof, names))

    def add_content(self, source: ServentId, place: Place, content: Content) -> None:
        """Note which content an entry is, where others have another one."""
        assert place.parent is not None, "nobody has a file as his whole share"
        self._names[source][place.parent][place.name] = content

    def drop(self, source: ServentId, directory: Place, name: str) -> None:
        """Note that a servent has an entry no more."""
        names = self._names[source]
        names[directory].pop(name, None)
        if not names[directory]:
            del names[directory]
        self.counts[source] -= 1
        self._moved(source, directory, name, -1)
        if not self.counts[source]:
            del self.counts[source], self._names[source], self._versions[source]

    def take_last(self, source: ServentId, directory: Place) -> tuple[Place, Place, Content | None]:
        """Take a servent's last name off a directory, or off one below that has names.

        Returns whose name it was, its place, and its content if that is known here. The first
        would be slow to find: to look at it passes over all that were removed there, up to 7 ms
        for a hundred of 150,000 names. The entry is still to be dropped.
        """
        names = self._names[source]
        name, content = names[directory].popitem()
        child = directory.children[name]
        while child in names:
            names[directory][name] = None
            directory = child
            name, content = names[directory].popitem()
            child = directory.children[name]
        return directory, child, content

    def last_directory(self, source: ServentId) -> Place:
        """Return the directory in which a servent came to have names last."""
        return next(reversed(self._names[source]))

    def _moved(self, source: ServentId, directory: Place, name: str, number: int) -> None:
        self.total += number
        self.held_bytes += number * (ENTRY_BYTES + sys.getsizeof(name))
        self._changed_in(source, directory)

    def _changed_in(self, source: ServentId, directory: Place) -> None:
        self.changed(source)
        if directory in self._crowds:
            self._crowds[directory].count(source, len(self.names(source, directory)))
