"""Who gives way when all slots for those who dial us are taken.

Identities are free and addresses are not, so slots are shared by address: first among
networks, then among the addresses of a network (`groups_of`). A newcomer of a small group
takes the slot of the latest of the largest group, if it leaves that group no smaller than its
own. So one host, or one network, never has all slots while anybody else wants one; and three
hundred in one lab network share them as they come, since none of them is of a smaller group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from p2pfs.link import Link
from p2pfs.protocol import groups_of

GroupOf = Callable[[Link], str]


def who_gives_way(links: Sequence[Link], newcomer: str) -> Link | None:
    """Return the link that a newcomer from this host takes the slot of, or None."""
    network, address = groups_of(newcomer)
    crowd = _largest(links, _network_of)
    if not crowd:
        return None
    if _network_of(crowd[0]) == network:
        crowd = _largest(crowd, _address_of)
        has_less = _is_smaller(address, crowd, links, _address_of)
    else:
        has_less = _is_smaller(network, crowd, links, _network_of)
    if not has_less:
        return None
    counts = Counter(map(_address_of, crowd))
    return max(crowd, key=lambda link: (counts[_address_of(link)], link.opened_at))


def _is_smaller(
    group: str, crowd: Sequence[Link], links: Sequence[Link], group_of: GroupOf
) -> bool:
    """Return whether a group is smaller than a crowd even with one more."""
    return sum(group_of(link) == group for link in links) + 1 < len(crowd)


def _largest(links: Sequence[Link], group_of: GroupOf) -> list[Link]:
    """Return the links of the group that has most of them."""
    counts = Counter(map(group_of, links))
    if not counts:
        return []
    ((largest, _),) = counts.most_common(1)
    return [link for link in links if group_of(link) == largest]


def _network_of(link: Link) -> str:
    return groups_of(link.remote.host)[0]


def _address_of(link: Link) -> str:
    return groups_of(link.remote.host)[1]
