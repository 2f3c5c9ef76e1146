"""How many names each address has in a directory that several have. Pure, and not locked.

It is asked for at each page of a long listing, and there may be thousands of servents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from p2pfs.namespace.tellers import AddressGroups, GroupsOf
from p2pfs.protocol import ServentId


class Crowd:
    """The servents that have names in a directory, by the addresses that answer for them.

    An address that comes to answer for a servent does so from the next change of its claims there.
    """

    def __init__(
        self, groups_of: GroupsOf, few: int, numbers: Iterable[tuple[ServentId, int]] = ()
    ) -> None:
        """Begin with the numbers of servents; an address with more than `few` names is large."""
        self._groups_of = groups_of
        self._few = few
        self._of: dict[ServentId, tuple[AddressGroups, int]] = {}
        self._counts: Counter[AddressGroups] = Counter()
        self._large: set[AddressGroups] = set()
        for source, number in numbers:
            self.count(source, number)

    def count(self, source: ServentId, number: int) -> None:
        """Note how many names a servent has now."""
        group, before = self._of.pop(source, (None, 0))
        if group is not None:
            self._add(group, -before)
        if number:
            group = self._groups_of(source)
            self._of[source] = group, number
            self._add(group, number)

    def at_address_of(self, source: ServentId) -> int:
        """Return how many names there are at the address of a servent."""
        return self._counts.get(self._groups_of(source), 0)

    def is_alone(self, source: ServentId) -> bool:
        """Return whether nobody at another address has names."""
        return len(self._counts) == (self._groups_of(source) in self._counts)

    def has_besides(self, source: ServentId, number: int) -> bool:
        """Return whether another address has so many names."""
        own = self._groups_of(source)
        groups = self._large if number > self._few else self._counts
        return any(self._counts[group] >= number for group in groups if group != own)

    def large_besides(self, source: ServentId) -> int:
        """Return how many other addresses are large."""
        return len(self._large) - (self._groups_of(source) in self._large)

    def _add(self, group: AddressGroups, number: int) -> None:
        self._counts[group] += number
        if not self._counts[group]:
            del self._counts[group]
        if self._counts.get(group, 0) > self._few:
            self._large.add(group)
        else:
            self._large.discard(group)
