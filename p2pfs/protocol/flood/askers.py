"""The addresses that have us pass questions on and answer them (PROTOCOL.md, "Budgets").

Identities are free and addresses are not, so the neighbours at one address have one account. It
bounds the searches that they begin, the copies that we send of the questions which they pass on,
and the processor time of their questions for words: of those that they ask themselves, and apart
from these of those that they pass on, so that what strangers have a neighbour pass on never takes
what it asks itself. And it tells who asks for so much that it has to leave room for others.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol.flood.budgets import TokenBucket
from p2pfs.protocol.flood.decisions import LinkId
from p2pfs.protocol.flood.seen import Seen

ANSWERING_SHARE: Final = 0.1
ANSWERING_BURST_S: Final = 1.0
"""The part of a core that the questions by words may take which the neighbours at an address ask
themselves, and what at once; as much again those that they pass on. The cost of one grows with the
share, and is not known before."""

BEGUN_PER_S: Final = 5.0
BEGUN_BURST: Final = 150
"""Searches that the neighbours at an address begin themselves, as many as ten do who search all the
time. Each goes to all neighbours, and through the network."""

BEGUN_AT_FIRST: Final = 60
"""As many at once for an address that is new: twelve behind one router may look around."""

SPREAD_PER_S: Final = 10.0
SPREAD_BURST: Final = 1_500
"""Copies that we send of the questions which the neighbours at an address pass on, in a second, and
at once after a pause. Each costs us and its receiver a tenth of a millisecond, and the one who asks
next to nothing."""

SPREAD_AT_FIRST: Final = 500
"""As many at once for an address that is new: a flooder that takes another address each time gains
little."""

QUESTION_PART: Final = 0.25
"""What a question costs besides, as a part of a copy: it is looked up, and may be answered. So the
neighbours at an address have no more looked up than one may send."""

SHARED_PART: Final = 0.25
"""What a question costs, as a part of that, which a neighbour at another address has brought too. A
flood comes over most links, a question made up for us alone over one. A flooder at two addresses
gains no more than four times as much."""

REFUSED_PER_S: Final = 20.0
REFUSED_BURST: Final = 200
"""Questions over their budget that the neighbours at an address may send before they are read more
slowly: to read one and refuse it costs more than to send it."""

LONGEST_REST_S: Final = 1.0
"""How long a link is not read, at most, because of one of these: it also says that it is there."""

UNASKED_PER_S: Final = 50.0
UNASKED_BURST: Final = 3_000
"""Hits that the neighbours at an address may send though nobody waits for them: some come late, and
all that were on their way when we were held up. To read one costs a tenth of a millisecond."""

MAX_ACCOUNTS: Final = 1_000
"""Addresses whose accounts are remembered; an address that comes again has the account that it
left."""

HALVED_S: Final = 5.0
"""After so long a copy that was passed on counts half."""

MOST_HALVINGS: Final = 60
"""Nothing is left then."""

_MS: Final = 1e-3
"""A token of processor time."""


class _Account:
    """What an address may have us do: search, pass on, answer, refuse, and read what is unasked."""

    def __init__(self) -> None:
        self.copies = TokenBucket(SPREAD_PER_S, SPREAD_BURST)
        self.copies.spend(SPREAD_BURST - SPREAD_AT_FIRST)
        self.begun = TokenBucket(BEGUN_PER_S, BEGUN_BURST)
        self.begun.spend(BEGUN_BURST - BEGUN_AT_FIRST)
        self.refused = TokenBucket(REFUSED_PER_S, REFUSED_BURST)
        self.own = TokenBucket(ANSWERING_SHARE / _MS, round(ANSWERING_BURST_S / _MS))
        self.others = TokenBucket(ANSWERING_SHARE / _MS, round(ANSWERING_BURST_S / _MS))
        self.unasked = TokenBucket(UNASKED_PER_S, UNASKED_BURST)


class Askers:
    """The accounts of the addresses of all neighbours."""

    def __init__(self) -> None:
        self._address_of: dict[LinkId, str] = {}
        self._accounts: Latest[str, _Account] = Latest(MAX_ACCOUNTS)
        self._links: Counter[str] = Counter()
        """How many links there are to each address."""
        self._passed: dict[str, float] = {}
        """How many copies of each address were passed on, old ones counting less."""
        self._halved_at = 0.0

    def link_opened(self, link: LinkId, address: str, now: float) -> None:
        """Note a new neighbour at an address."""
        self._address_of[link] = address
        self._links[address] += 1
        account = self._account(link)
        for bucket in (account.copies, account.begun):
            bucket.wait_s(now)  # it earns from now on

    def link_lost(self, link: LinkId) -> None:
        """Note that a neighbour is gone."""
        address = self._address_of.pop(link, None)
        if address is not None:
            self._links[address] -= 1
            if not self._links[address]:
                del self._links[address]

    def may_search(self, link: LinkId, now: float) -> bool:
        """Charge a search that a neighbour begins; return whether its address may begin another."""
        return self._account(link).begun.take(now)

    def may_spread(self, link: LinkId, now: float) -> bool:
        """Return whether a question that a neighbour passes on is taken: are there copies left?"""
        return self._account(link).copies.wait_s(now) == 0.0

    def charge_copies(self, link: LinkId, seen: Seen, copies: float) -> None:
        """Charge copies of a question to the address of the neighbour that has us pass it on."""
        cost = copies * (SHARED_PART if seen.is_shared else 1.0)
        self._account(link).copies.spend(cost)
        if link == seen.came_from:
            seen.copies += cost

    def share(self, link: LinkId, seen: Seen) -> None:
        """Note that a neighbour brings a question of another; make it cheap if it is elsewhere."""
        first = seen.came_from
        if seen.is_shared or first is None or first not in self._address_of:
            return
        seen.is_shared = self._address_of[first] != self._address_of[link]
        if seen.is_shared:
            self._account(first).copies.give_back(seen.copies * (1 - SHARED_PART))

    def refused_s(self, link: LinkId, now: float) -> float:
        """Charge a refusal; return how long nothing more is to be read of its link."""
        return min(LONGEST_REST_S, self._account(link).refused.take_ahead(now))

    def may_ask(self, link: LinkId, now: float, *, is_own: bool) -> bool:
        """Return whether a question for words is answered, its own or one that it passes on."""
        return self._bucket(link, is_own).wait_s(now) == 0.0

    def spent(self, link: LinkId, seconds: float, *, is_own: bool) -> None:
        """Charge the processor time that an answer has taken."""
        if link in self._address_of:
            self._bucket(link, is_own).spend(seconds / _MS)

    def may_send_unasked(self, link: LinkId, now: float) -> bool:
        """Charge a hit that nobody waits for; return whether its address may send as many."""
        return link not in self._address_of or self._account(link).unasked.take(now)

    def passed_on(self, link: LinkId, now: float) -> None:
        """Note that a copy of a neighbour's is passed on."""
        address = self._address_of[link]
        self._grow_old(now)
        self._passed[address] = self._passed.get(address, 0.0) + 1

    def is_greedy(self, link: LinkId, to: LinkId) -> bool:
        """Return whether one address takes more than half of the room for others on a link.

        Of the room beyond its even share, to be exact.
        """
        own, there = self._address_of[link], self._address_of[to]
        if own == there:
            return False
        others = len(self._links) - 1
        total = sum(self._passed.values()) - self._passed.get(there, 0.0)
        return self._passed.get(own, 0.0) > total * (1 + 1 / others) / 2

    def _grow_old(self, now: float) -> None:
        age_s = now - self._halved_at
        if age_s >= HALVED_S:
            self._halved_at = now
            left = 0.5 ** min(age_s / HALVED_S, MOST_HALVINGS)
            self._passed = {one: n * left for one, n in self._passed.items() if n * left >= 1}

    def _bucket(self, link: LinkId, is_own: bool) -> TokenBucket:
        account = self._account(link)
        return account.own if is_own else account.others

    def _account(self, link: LinkId) -> _Account:
        return self._accounts.renew(self._address_of[link], _Account)
