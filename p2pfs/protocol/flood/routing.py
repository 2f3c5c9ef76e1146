"""Flooding: what to do with each query, hit and DONE (PROTOCOL.md, "Flooding").

Theory. A query is flooded breadth-first, and an echo brings its end (Chang, 1982). A
copy of a query is named by (GUID, TTL). Each copy that a servent passes on is a *wave*: it
waits for a DONE of every link that it went to, and for the own share to answer if the query
was never seen before. Then, or at its deadline, the wave sends its own DONE to where it came
from. Hits travel the same way, ahead of the DONE that covers them, so the origin knows the
exact end of a search. A copy whose GUID was seen with at least its TTL reaches nobody new
and gets its DONE at once; one with a larger TTL is passed on again, for the rings of a
search (same GUID, larger TTL) and for copies that overtook each other. Waves wait only for
copies of smaller TTL, so no two can wait for each other. Most links of a dense network are
crossed by a copy each way at one moment: these two are each other's DONE, and the echo is one
DONE a servent in place of one a copy. With a degree of 13 that halves the messages of a flood.

The simpler design, hits without DONE and a timer at the origin, was given up: a listing
could never know whether it is whole, and each ring would cost its full time.

A peer can only hurt its own link: what it sends is charged to its budget, a hit or a DONE
counts only from a link that was asked, and we never send a neighbour more than we accept
ourselves, so that nobody can make our neighbours ban us. One thing is not stopped: a
servent that hears a new GUID can flood it ahead with a larger TTL, and the servents that it reaches
first answer to it instead of the origin.

No time is read and no number is drawn here: both are passed in. Times are seconds of any one
monotonic clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from p2pfs.errors import LocalProtocolError
from p2pfs.protocol import (
    MAX_DEADLINE_MS,
    MAX_TTL,
    Done,
    Enough,
    Filter,
    Guid,
    Introduce,
    News,
    Query,
    QueryHit,
    QueryKind,
    Walk,
)
from p2pfs.protocol.crowds import Choose
from p2pfs.protocol.flood.askers import QUESTION_PART
from p2pfs.protocol.flood.budgets import (
    SENDING_SHARE,
    Charge,
    SearchBudget,
    Urgency,
)
from p2pfs.protocol.flood.decisions import (
    Answer,
    Ban,
    Decision,
    Drop,
    DropReason,
    LinkId,
    Refused,
    Rest,
    Send,
)
from p2pfs.protocol.flood.filters import BEYOND, OWN, FilterTable, Keys
from p2pfs.protocol.flood.news import NewsTable
from p2pfs.protocol.flood.seen import Seen, SeenTable
from p2pfs.protocol.flood.spreading import SEARCH_BURST, SEARCHES_PER_S, Neighbours
from p2pfs.protocol.flood.walks import Walks
from p2pfs.protocol.flood.waves import Waves

WIDE_TTL: Final = 4
"""Links up to which a search goes to all neighbours. With a mean degree of 13 that reaches 93 % of
ten thousand servents."""

FAR_LINKS: Final = 1
"""Neighbours over which a search goes further than that. Among ten thousand a servent five links
away is reached in some 27 ways, two over each neighbour, and each neighbour costs 500 messages."""


@dataclass(frozen=True, slots=True)
class RouterStatistics:
    """A router at one instant. Returned by `Router.statistics`.

    What `status` shows of queries is counted by the owner of the router, by messages.
    """

    queries_seen: int
    """Queries of others seen for the first time; other copies are not counted."""
    hits_passed: int
    """Hits passed on or delivered."""
    waves: int
    """Copies of queries that wait for answers now."""
    drops: Mapping[DropReason, int]


class Router:
    """The queries and walks that pass through this servent."""

    def __init__(
        self,
        has_room: Callable[[LinkId], bool] = lambda _link: True,
        keys: Keys | None = None,
    ) -> None:
        """Begin without neighbours.

        `has_room` tells whether a link takes another hit now; `keys` makes those of filters.
        """
        self._waves = Waves(has_room)
        self.filters = FilterTable(keys or Keys(b""))
        self._news = NewsTable()
        self._neighbours = Neighbours(self.filters)
        self._searches_out = SearchBudget(
            SEARCHES_PER_S * SENDING_SHARE, int(SEARCH_BURST * SENDING_SHARE)
        )
        self._seen = SeenTable()
        self._walks = Walks()
        self._queries_seen = 0
        self._drops: Counter[DropReason] = Counter()

    # Links.

    def link_opened(self, link: LinkId, now: float = 0.0, host: str | None = None) -> None:
        """Note a new neighbour link; its budgets are full, but for those of its address.

        Without a host it is taken to be alone at one.
        """
        self._neighbours.opened(link, host or f"link {link}", now)
        self.filters.link_opened(link, now)
        self._news.link_opened(link)

    def link_lost(self, link: LinkId) -> list[Decision]:
        """Note that a link is gone; what waited for it ends incomplete."""
        self._neighbours.lost(link)
        self.filters.link_lost(link)
        self._news.link_lost(link)
        return self._waves.link_lost(link)

    # Searches of our own.

    def originate(
        self,
        query: Query,
        now: float,
        links: Collection[LinkId] | None = None,
        urgency: Urgency = Urgency.PERSON,
    ) -> list[Decision]:
        """Send a query of our own to all neighbours, or to `links` only.

        One that is to go further than WIDE_TTL goes to FAR_LINKS of them alone, the oldest. To
        the others it goes with WIDE_TTL, unless an earlier ring did; that has an end of its own.

        Its ring ends with one `Finished`, by its deadline at the latest, at once if there is
        nobody to ask. A further ring has the same GUID and a larger TTL. If we have begun as
        many searches as neighbours accept, nothing is sent or remembered, and one `Refused`
        says so.

        Raises:
            LocalProtocolError: the TTL is not larger than that of the last ring.
        """
        query = replace(query, hops=0, deadline_ms=min(query.deadline_ms, MAX_DEADLINE_MS))
        seen = self._seen.find(query.guid, now)
        last_ttl = 0 if seen is None else seen.ttl
        if seen is None:
            wait_s = self._searches_out.take(urgency, now)
            if wait_s > 0.0:
                return [Refused(query.guid, wait_s)]
            seen = Seen(None, _question(query), query.ttl, now, sent_to=set())
            self._seen.add(query.guid, seen)
        elif seen.came_from is not None or seen.ttl >= query.ttl:
            raise LocalProtocolError("the rings of a search must grow")
        else:
            seen.ttl = query.ttl
        targets = [one for one in self._neighbours if links is None or one in links]
        if query.ttl <= WIDE_TTL:
            return self._send_ring(seen, query, targets, now)
        # Always over the same links: a found file stays found.
        far = self._send_ring(seen, query, targets[:FAR_LINKS], now)
        if last_ttl < WIDE_TTL:
            wide = replace(query, ttl=WIDE_TTL)
            return [*far, *self._send_ring(seen, wide, targets[FAR_LINKS:], now)]
        return far

    def _send_ring(
        self, seen: Seen, query: Query, targets: Iterable[LinkId], now: float
    ) -> list[Decision]:
        """Send a query of our own to some neighbours; its wave has one end."""
        assert seen.sent_to is not None, "it is our own"
        wave = self._waves.begin(query, query.ttl, None, now)
        sends = self._neighbours.spread(wave, query, targets, now)
        wave.first_for = wave.hits_of.keys() - seen.sent_to
        seen.sent_to |= wave.first_for
        return [*sends, *self._waves.end_if_over(wave)]

    def enough(self, guid: Guid) -> list[Decision]:
        """End a search of our own that waits; neighbours that owe an answer get ENOUGH."""
        return self._waves.give_up(guid, None)

    # What neighbours send.

    def got_query(self, link: LinkId, query: Query, now: float) -> list[Decision]:
        """Take in a copy of a query: pass it on, answer it, or say that it is done with."""
        if link not in self._neighbours:
            return [self._drop(link, DropReason.NO_LINK)]
        seen, is_own = self._seen.find(query.guid, now), query.hops == 0
        charge = self._neighbours.charge_query(link, now, is_search=seen is None and is_own)
        if seen is not None and seen.question == _question(query):
            self._neighbours.askers.share(link, seen)
            ends = self._waves.crossed(link, query.guid, query.ttl) if query.echoes else None
            if ends is not None:
                return [*ends, *self._over_budget(link, charge, "queries")]
        if charge is not Charge.WITHIN:
            over = self._over_budget(link, charge, "queries")
            return [_refusal(link, query, 1), *over, *self._rest(link, now)]
        ttl = min(query.ttl, MAX_TTL - query.hops)
        if ttl < 1:
            return self._refuse(link, query, DropReason.TOO_FAR)
        if seen is None:
            return self._got_new(link, query, ttl, now)
        if seen.question != _question(query):
            return self._refuse(link, query, DropReason.COLLISION)
        if seen.came_from is None or seen.ttl >= ttl:
            return [Send(link, Done(query.guid, query.ttl, 0, 0, True, skipped=0))]
        seen.ttl = ttl
        return self._accept(link, query, ttl, seen, is_new=False, now=now)

    def _got_new(self, link: LinkId, query: Query, ttl: int, now: float) -> list[Decision]:
        """Take in a question that was never seen, unless its address has asked too much."""
        askers, is_own = self._neighbours.askers, query.hops == 0
        if not is_own and not askers.may_spread(link, now):
            refused = self._refuse(link, query, DropReason.OVER_BUDGET)
            return [*refused, *self._rest(link, now)]
        is_costly = query.kind is QueryKind.WORDS
        if is_costly and not askers.may_ask(link, now, is_own=is_own):
            return self._refuse(link, query, DropReason.OVER_BUDGET)
        self._queries_seen += 1
        seen = Seen(link, _question(query), ttl, now, self._neighbours.network_of(link))
        self._seen.add(query.guid, seen)
        return self._accept(link, query, ttl, seen, is_new=True, now=now)

    def spent(self, link: LinkId, query: Query, seconds: float) -> None:
        """Charge a neighbour with the processor time that an answer by words took."""
        self._neighbours.askers.spent(link, seconds, is_own=query.hops == 0)

    def answered(self, guid: Guid, ttl: int, hits: Sequence[QueryHit]) -> list[Decision]:
        """Take in the answer of the own share to the query of an earlier `Answer`.

        Returns nothing once `expire` has ended its wave, or if the link that asked is gone.
        """
        return self._counted(self._waves.answered(guid, ttl, hits))

    def got_query_hit(self, link: LinkId, hit: QueryHit, now: float) -> list[Decision]:
        """Take in a hit: pass it back the way its query came. Its signature is not checked."""
        decision = self._waves.got_hit(link, hit)
        is_unasked = isinstance(decision, Drop) and decision.reason is DropReason.NOT_ASKED
        decisions: list[Decision] = [decision]
        if is_unasked and not self._neighbours.askers.may_send_unasked(link, now):
            decisions.append(Ban(link, "hits that nobody asked for"))
        return self._counted(decisions)

    def got_done(self, link: LinkId, done: Done) -> list[Decision]:
        """Take in that the sub-tree behind a link has answered."""
        return self._counted(self._waves.got_done(link, done))

    def got_enough(self, link: LinkId, message: Enough) -> list[Decision]:
        """Take in that a neighbour wants no answer any more, and pass that on to those who owe one.

        Queries of others under the same GUID go on.
        """
        return self._waves.give_up(message.guid, link)

    # Filters.

    def got_filter(self, link: LinkId, message: Filter, now: float) -> list[Decision]:
        """Take in a filter of a neighbour; RemoteProtocolError if it cannot be right."""
        if link not in self._neighbours:
            return [self._drop(link, DropReason.NO_LINK)]
        charge = self.filters.got_filter(link, message, now)
        return [] if charge is Charge.WITHIN else self._over_budget(link, charge, "filters")

    def tell_filters(self, now: float, layers: Sequence[int] = (OWN, BEYOND)) -> Iterator[Send]:
        """Yield the filters that neighbours are to get now; see `FilterTable.messages`."""
        return (Send(*told) for told in self.filters.messages(now, layers))

    # NEWS.

    def originate_news(self, news: News, now: float) -> list[Decision]:
        """Send NEWS of a change of our share through the horizon."""
        return self._news.originate(news, now)

    def got_news(
        self, link: LinkId, news: News, now: float, now_ms: float = math.inf
    ) -> list[Decision]:
        """Take in that a share has changed; RemoteProtocolError if nobody can have said so.

        `now_ms` is the time of day, in milliseconds since 1970.
        """
        if link not in self._neighbours:
            return [self._drop(link, DropReason.NO_LINK)]
        charge = self._news.charge(link, now)
        if charge is not Charge.WITHIN:
            return self._over_budget(link, charge, "news")
        return self._counted(self._news.got_news(link, news, now, now_ms))

    # Walks.

    def originate_walk(self, guid: Guid, choose: Choose[LinkId], now: float) -> list[Decision]:
        """Start a random walk; an `Introduced` may come of it. `choose` is `random.choice`."""
        return self._paced(self._walks.originate(guid, [*self._neighbours], choose, now), now)

    def got_walk(
        self, link: LinkId, walk: Walk, choose: Choose[LinkId], now: float
    ) -> list[Decision]:
        """Take in a walk: pass it on to a random neighbour, or end it here."""
        if link not in self._neighbours:
            return [self._drop(link, DropReason.NO_LINK)]
        charge = self._neighbours.charge_walk(link, now)
        if charge is not Charge.WITHIN:
            return self._over_budget(link, charge, "walks")
        decisions = self._walks.got_walk(link, walk, self._neighbours, choose, now)
        return self._paced(self._counted(decisions), now)

    def got_introduce(self, link: LinkId, introduce: Introduce, now: float) -> list[Decision]:
        """Take in the offer of a walk's end: pass it back the way the walk came."""
        return self._counted(self._walks.got_introduce(link, introduce, self._neighbours, now))

    def _paced(self, decisions: list[Decision], now: float) -> list[Decision]:
        """Leave out walks that the neighbour would not accept; the origin starts others."""
        return [
            d
            for d in decisions
            if not isinstance(d, Send) or self._neighbours.takes_walk(d.link, now)
        ]

    # Time.

    def next_deadline(self) -> float | None:
        """Return when `expire` has something to do; None while nothing waits."""
        return self._waves.next_deadline()

    def expire(self, now: float) -> list[Decision]:
        """End, incomplete, the waves that have reached their deadline."""
        return self._waves.expire(now)

    def statistics(self) -> RouterStatistics:
        """Return the counters as they are now."""
        return RouterStatistics(
            self._queries_seen, self._waves.hits_passed, len(self._waves), dict(self._drops)
        )

    # Copies.

    def _accept(
        self, link: LinkId, query: Query, ttl: int, seen: Seen, *, is_new: bool, now: float
    ) -> list[Decision]:
        """Pass a copy on; answer it too if the query is new.

        A link that has brought a copy gets only one that goes two links further: behind it a
        shorter one would reach nobody new, and could be taken for one that crossed its own.
        """
        copy = replace(query, ttl=ttl, deadline_ms=min(query.deadline_ms, MAX_DEADLINE_MS))
        wave = self._waves.begin(copy, ttl - 1, link, now)
        wave.came_as = query.ttl
        wave.needs_answer = is_new
        wave.servents = int(is_new)
        seen.askers = (*seen.askers, (link, query.ttl))
        decisions: list[Decision] = []
        if wave.ttl > 0:
            onward = replace(copy, ttl=wave.ttl, hops=query.hops + 1)
            knowing = {asker for asker, asked_ttl in seen.askers if wave.ttl <= asked_ttl + 1}
            others = [other for other in self._neighbours if other not in knowing]
            decisions += self._neighbours.spread(wave, onward, others, now)
        if query.hops > 0:
            copies = len(decisions) + QUESTION_PART * is_new
            self._neighbours.askers.charge_copies(link, seen, copies)
        if is_new:
            decisions.append(Answer(copy))
        return [*decisions, *self._waves.end_if_over(wave)]

    # Refusals.

    def _refuse(self, link: LinkId, query: Query, reason: DropReason) -> list[Decision]:
        refusals = int(reason is DropReason.OVER_BUDGET)
        return [_refusal(link, query, refusals), self._drop(link, reason)]

    def _rest(self, link: LinkId, now: float) -> list[Decision]:
        """Charge the refusal of a question, and have its link read more slowly after many."""
        seconds = self._neighbours.askers.refused_s(link, now)
        return [Rest(link, seconds)] if seconds else []

    def _over_budget(self, link: LinkId, charge: Charge, what: str) -> list[Decision]:
        if charge is Charge.WITHIN:
            return []
        dropped = self._drop(link, DropReason.OVER_BUDGET)
        if charge is Charge.FLOOD:
            return [dropped, Ban(link, f"{what} far over budget")]
        return [dropped]

    def _drop(self, link: LinkId, reason: DropReason) -> Drop:
        self._drops[reason] += 1
        return Drop(link, reason)

    def _counted(self, decisions: list[Decision]) -> list[Decision]:
        self._drops.update(d.reason for d in decisions if isinstance(d, Drop))
        return decisions


def _refusal(link: LinkId, query: Query, refusals: int) -> Send:
    """Return the DONE by which the sender of a copy does not wait for it."""
    return Send(link, Done(query.guid, query.ttl, 0, 0, False, skipped=0, refusals=refusals))


def _question(query: Query) -> int:
    return hash((query.kind, query.text, query.terms))
