"""Which peer gives way when all places are taken, and whom chance picks.

Identities are free and addresses are not, so places are shared by address: first among
networks, then among the addresses of a network (`groups_of`). A newcomer of a small group
takes a place of the largest group, if it leaves that group no smaller than its own. So one
host, or one network, never has all places while anybody else wants one; and three hundred in
one lab network share them as they come, since none of them is of a smaller group.

Chance is shared in the same way, or who has most places would be picked nearly always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from p2pfs.protocol.addresses import groups_of

Place = TypeVar("Place")

HostOf = Callable[[Place], str]

Choose = Callable[[Sequence[Place]], Place]
"""Picks one at random; `random.choice` does."""


def who_gives_way(
    places: Sequence[Place],
    newcomer: str,
    *,
    host_of: HostOf[Place],
    weight: Callable[[Place], float],
) -> Place | None:
    """Return the place that a newcomer from this host takes, or None if it takes none.

    Of the largest group it is one of the address that has most, and of these the one of the
    greatest weight.
    """
    network, address = groups_of(newcomer)
    crowd = largest_crowd(places, host_of, 0)
    if not crowd:
        return None
    if groups_of(host_of(crowd[0]))[0] == network:
        crowd = largest_crowd(crowd, host_of, 1)
        has_less = _is_smaller(address, crowd, places, host_of, 1)
    else:
        has_less = _is_smaller(network, crowd, places, host_of, 0)
    if not has_less:
        return None
    counts = Counter(groups_of(host_of(place))[1] for place in crowd)
    return max(crowd, key=lambda place: (counts[groups_of(host_of(place))[1]], weight(place)))


def largest_crowd(places: Sequence[Place], host_of: HostOf[Place], part: int) -> list[Place]:
    """Return the places of the network (part 0) or address (part 1) that has most of them."""
    groups = [groups_of(host_of(place))[part] for place in places]
    if not groups:
        return []
    ((largest, _),) = Counter(groups).most_common(1)
    return [place for place, group in zip(places, groups, strict=True) if group == largest]


def any_of(places: Sequence[Place], host_of: HostOf[Place], choose: Choose[Place]) -> Place:
    """Pick a place by chance: no network is likelier than another, nor an address within it."""
    for part in (0, 1):
        groups = {groups_of(host_of(place))[part]: place for place in places}
        group = groups_of(host_of(choose([*groups.values()])))[part]
        places = [place for place in places if groups_of(host_of(place))[part] == group]
    return choose(places)


def by_turns(places: Iterable[Place], host_of: HostOf[Place]) -> list[Place]:
    """Return all in order, but no second one of a network before the first of any other."""
    before: Counter[str] = Counter()
    turns: dict[int, list[Place]] = {}
    for place in places:
        network = groups_of(host_of(place))[0]
        turns.setdefault(before[network], []).append(place)
        before[network] += 1
    return [place for _, turn in sorted(turns.items()) for place in turn]


def _is_smaller(
    group: str, crowd: Sequence[Place], places: Sequence[Place], host_of: HostOf[Place], part: int
) -> bool:
    """Return whether a group is smaller than a crowd even with one more."""
    return sum(groups_of(host_of(place))[part] == group for place in places) + 1 < len(crowd)
