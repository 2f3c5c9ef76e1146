"""The neighbours among which queries spread: what each may send, and which of them get a copy.

A neighbour accepts so much from us as we do from it. What it accepts is shared out: our own
searches come first, and no address takes the room that is left for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec.structs import replace

from p2pfs.protocol import Query, groups_of
from p2pfs.protocol.flood.askers import Askers
from p2pfs.protocol.flood.budgets import SENDING_SHARE, Budget, Charge, TokenBucket
from p2pfs.protocol.flood.decisions import Decision, LinkId, Send
from p2pfs.protocol.flood.filters import FILTERED_HOPS, FilterTable
from p2pfs.protocol.flood.waves import Wave

QUERIES_PER_S: Final = 40.0
QUERY_BURST: Final = 200
"""Copies of queries that a neighbour may send, its own and others': they all cost us. A flood
crosses each link about once each way, so this is what the whole network carries: three hundred may
look around for the first time within 5 s. With half as many, half of their looks were not whole."""

OWN_COPIES: Final = 20
"""Of what a neighbour takes at once, so much is left for searches of our own: twelve that asked as
often as they may used up all, and our own searches did not reach who had the file."""

OTHERS_COPIES: Final = 40
"""So much more is left for the copies of all others by an address that sends most of what we pass
on: else those of one person are lost among a flood of strangers."""

SEARCHES_PER_S: Final = 30 / 60
SEARCH_BURST: Final = 30
"""Searches that a neighbour may begin itself (hops 0). The rings of one search are one; the
burst lets a person open a tree of directories without waiting."""

WALKS_PER_S: Final = 5.0
WALK_BURST: Final = 100
"""Walks that a neighbour may send: a newcomer starts some fifty until it has neighbours."""

HOP_MARGIN_MS: Final = 200
"""What a deadline shrinks by at each hop, so that those behind us end before we do: a round
trip across the world."""


class _LinkBudgets:
    """The budgets of one link, both ways, and the network that it leads to."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.queries = Budget(QUERIES_PER_S, QUERY_BURST)
        self.searches = Budget(SEARCHES_PER_S, SEARCH_BURST)
        self.walks = Budget(WALKS_PER_S, WALK_BURST)
        self.queries_out = _sending(QUERIES_PER_S, QUERY_BURST)
        self.walks_out = _sending(WALKS_PER_S, WALK_BURST)

    def charge_query(self, is_search: bool, now: float) -> Charge:
        """Charge a copy of a query; `is_search` if the neighbour begins a search with it."""
        charge = self.queries.charge(now)
        if charge is Charge.WITHIN and is_search:
            return self.searches.charge(now)
        return charge


class Neighbours:
    """The links to neighbours, oldest first, and their budgets."""

    def __init__(self, filters: FilterTable) -> None:
        """Begin without any; a copy goes to none whose filter says that nothing is there."""
        self._filters = filters
        self._budgets: dict[LinkId, _LinkBudgets] = {}
        self.askers = Askers()

    def __iter__(self) -> Iterator[LinkId]:
        """Yield the links to all neighbours, the oldest first."""
        return iter(self._budgets)

    def __len__(self) -> int:
        """Return how many neighbours there are."""
        return len(self._budgets)

    def __contains__(self, link: object) -> bool:
        """Return whether a link leads to a neighbour."""
        return link in self._budgets

    def opened(self, link: LinkId, host: str, now: float) -> None:
        """Note a new one; its budgets are full, but for those of its address."""
        network, address = groups_of(host)
        self._budgets[link] = _LinkBudgets(network)
        self.askers.link_opened(link, address, now)

    def lost(self, link: LinkId) -> None:
        """Note that one is gone."""
        self._budgets.pop(link, None)
        self.askers.link_lost(link)

    def network_of(self, link: LinkId) -> str:
        """Return the network of a neighbour (groups_of)."""
        return self._budgets[link].network

    def charge_query(self, link: LinkId, now: float, *, is_search: bool) -> Charge:
        """Charge a copy of a query; `is_search` if the neighbour begins a search with it."""
        charge = self._budgets[link].charge_query(is_search, now)
        if charge is Charge.WITHIN and is_search and not self.askers.may_search(link, now):
            return Charge.OVER
        return charge

    def charge_walk(self, link: LinkId, now: float) -> Charge:
        """Charge a walk."""
        return self._budgets[link].walks.charge(now)

    def takes_walk(self, link: LinkId, now: float) -> bool:
        """Take a place among the walks that a neighbour accepts; return whether there was one."""
        return self._budgets[link].walks_out.take(now)

    def spread(
        self, wave: Wave, query: Query, links: Iterable[LinkId], now: float
    ) -> list[Decision]:
        """Send a copy to each link that may have something, and has time and budget for it."""
        deadline_ms = max(0, query.deadline_ms - HOP_MARGIN_MS)
        query = replace(query, deadline_ms=deadline_ms, echoes=True)
        wanted = self._filters.keys.of_query(query) if query.ttl <= FILTERED_HOPS else ()
        sends: list[Decision] = []
        for link in links:
            if wanted and not self._filters.admits(link, query.ttl, wanted):
                wave.skipped += 1
            elif not query.deadline_ms:
                wave.is_complete = False
            elif self._has_place(wave.came_from, link, now):
                wave.hits_of[link] = 0
                sends.append(Send(link, query))
            else:
                wave.is_complete = False
                wave.refusals += 1
        return sends

    def _has_place(self, asker: LinkId | None, link: LinkId, now: float) -> bool:
        """Take a place among the copies that a neighbour accepts; our own come first."""
        places = self._budgets[link].queries_out
        if asker is None:
            return places.take(now)
        are_few = places.wait_s(now, OWN_COPIES + OTHERS_COPIES) > 0.0
        if are_few and self.askers.is_greedy(asker, link):
            return False
        is_taken = places.take(now, OWN_COPIES)
        if is_taken:
            self.askers.passed_on(asker, now)
        return is_taken


def _sending(rate_per_s: float, burst: int) -> TokenBucket:
    """Return the bucket for messages that we send against a neighbour's budget."""
    return TokenBucket(rate_per_s * SENDING_SHARE, int(burst * SENDING_SHARE))
