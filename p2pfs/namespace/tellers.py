"""Which address answers for the claims of each servent.

Identities are free and addresses are not, and a hit can name any servent. So claims count for an
address: that of a servent which has proved its id on a link of ours, or else that of the neighbour
which brought the hit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import ServentId, groups_of

MAX_TELLER_ADDRESSES: Final = 20_000
"""Servents whose address is remembered: twice as many as are held."""

AddressGroups = tuple[str, str]
"""A network and an address in it, as `groups_of` gives them."""

GroupsOf = Callable[[ServentId], AddressGroups]


class Tellers:
    """The addresses that answer for the claims of servents. Any thread may ask."""

    def __init__(self) -> None:
        self._told: Latest[ServentId, str] = Latest(MAX_TELLER_ADDRESSES)
        self._proved: Latest[ServentId, str] = Latest(MAX_TELLER_ADDRESSES)

    def told(self, source: ServentId, by_host: str) -> None:
        """Note that a neighbour at this host has brought a hit of a servent."""
        self._told[source] = by_host

    def proved(self, source: ServentId, host: str) -> None:
        """Note that a servent has proved its id on a link to this host."""
        self._proved[source] = host

    def groups_of(self, source: ServentId) -> AddressGroups:
        """Return the network and the address that answer for a servent; itself if none is known."""
        host = self._proved.get(source) or self._told.get(source)
        return (source, source) if host is None else groups_of(host)


def who_makes_room(
    counts: Mapping[ServentId, int], newcomer: ServentId, groups_of: GroupsOf, apart: int
) -> ServentId | None:
    """Return the holder that gives way to a newcomer, or None.

    It is the one that holds most at the address that holds most of the network that holds most, if
    that has more than the newcomer has on the same level, by more than `apart`.
    """
    keys = {source: (*groups_of(source), source) for source in counts}
    own = (*groups_of(newcomer), newcomer)
    among, is_apart = list(counts), False
    for level in range(len(own)):
        sums: Counter[str] = Counter()
        for source in among:
            sums[keys[source][level]] += counts[source]
        if not sums:
            return None
        largest, most = max(sums.items(), key=lambda one: one[1])
        if not is_apart and largest != own[level]:
            if most - sums[own[level]] <= apart:
                return None
            is_apart = True
        among = [source for source in among if keys[source][level] == largest]
    return among[0] if is_apart else None
