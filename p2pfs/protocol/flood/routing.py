"""Flooding: what to do with each query, hit and DONE (PROTOCOL.md, "Flooding").

Theory. A query is flooded breadth-first, and its end is told by an echo (Chang, 1982). A
copy of a query is named by (GUID, TTL). Each copy that a servent passes on is a *wave*: it
waits for a DONE of every link that it went to, and for the own share to answer if the query
was never seen before. Then, or at its deadline, the wave sends its own DONE to where it came
from. Hits travel the same way, ahead of the DONE that covers them, so the origin knows the
exact end of a search. A copy whose GUID was seen with at least its TTL reaches nobody new
and gets its DONE at once; one with a larger TTL is passed on again, for the rings of a
search (same GUID, larger TTL) and for copies that overtook each other. Waves wait only for
copies of smaller TTL, so no two can wait for each other.

The simpler design, hits without DONE and a timer at the origin, was given up: a listing
could never know whether it is whole, and each ring would cost its full time.

A peer can only hurt its own link: what it sends is charged to its budget, a hit or a DONE
counts only from a link that was asked, and we never send a neighbour more than we accept
ourselves, so that nobody can make our neighbours ban us. One thing is not stopped: a
servent that hears a new GUID can flood it ahead with a larger TTL, and those whom it reaches
first answer to it instead of the origin.

No time is read and no number is drawn here: both are passed in. Times are seconds of any one
monotonic clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from p2pfs.protocol.flood.budgets import (
    SENDING_SHARE,
    Budget,
    Charge,
    SearchBudget,
    TokenBucket,
    Urgency,
)
from p2pfs.protocol.flood.decisions import (
    Answer,
    Ban,
    Decision,
    Deliver,
    Drop,
    DropReason,
    Finished,
    LinkId,
    Refused,
    Send,
)
from p2pfs.protocol.flood.filters import BEYOND, FILTERED_HOPS, OWN, FilterTable, Keys
from p2pfs.protocol.flood.news import NewsTable
from p2pfs.protocol.flood.seen import Seen, SeenTable
from p2pfs.protocol.flood.walks import Choose, Walks

QUERIES_PER_S: Final = 20.0
QUERY_BURST: Final = 100
"""Copies of queries that a neighbour may send, its own and others': they all cost us."""

SEARCHES_PER_S: Final = 30 / 60
SEARCH_BURST: Final = 30
"""Searches that a neighbour may begin itself (hops 0). The rings of one search are one; the
burst lets a person open a tree of directories without waiting."""

ANSWERING_SHARE: Final = 0.1
ANSWERING_BURST_S: Final = 1.0
"""The part of a core that the questions by words of a neighbour may take, and what at once: the
cost of one grows with the share, and is not known before."""

_MS: Final = 1e-3
"""A token of that."""

WALKS_PER_S: Final = 5.0
WALK_BURST: Final = 100
"""Walks that a neighbour may send: a newcomer starts some fifty until it has neighbours."""

MAX_WAVE_HITS: Final = 500
"""Hits that one copy of a query may bring back; a search keeps no more (`search.MAX_HITS`)."""

HOP_MARGIN_MS: Final = 200
"""What a deadline shrinks by at each hop, so that those behind us end before we do: a round
trip across the world."""

MAX_COUNT: Final = 2**32 - 1
"""The largest count that a DONE can carry; sums of what peers claim stop there."""


@dataclass(frozen=True, slots=True)
class RouterStatistics:
    """A router at one instant. Returned by `Router.statistics`."""

    queries_seen: int
    """Queries of others seen for the first time; other copies are not counted."""
    hits_passed: int
    """Hits passed on or delivered."""
    waves: int
    """Copies of queries that wait for answers now."""
    drops: Mapping[DropReason, int]


class _Neighbour:
    """The budgets of one link, both ways."""

    def __init__(self) -> None:
        self.queries = Budget(QUERIES_PER_S, QUERY_BURST)
        self.searches = Budget(SEARCHES_PER_S, SEARCH_BURST)
        self.walks = Budget(WALKS_PER_S, WALK_BURST)
        self.answering = TokenBucket(ANSWERING_SHARE / _MS, round(ANSWERING_BURST_S / _MS))
        self.queries_out = _sending(QUERIES_PER_S, QUERY_BURST)
        self.walks_out = _sending(WALKS_PER_S, WALK_BURST)

    def charge_query(self, is_search: bool, now: float) -> Charge:
        """Charge a copy of a query; `is_search` if the neighbour begins a search with it."""
        charge = self.queries.charge(now)
        if charge is Charge.WITHIN and is_search:
            return self.searches.charge(now)
        return charge


@dataclass(slots=True)
class _Wave:
    """One copy of a query on its way, until its DONE."""

    guid: Guid
    ttl: int
    """The TTL of the copies that it sends; with the GUID it names the wave."""
    came_from: LinkId | None
    """Where hits and DONE go; None if the search is our own."""
    came_as: int
    """The TTL by which the other side of that link knows it."""
    deadline: float
    needs_answer: bool
    """Whether the own share has yet to answer."""
    hits_of: dict[LinkId, int] = field(default_factory=dict)
    """The links that have yet to send DONE, and how many hits each has brought."""
    servents: int = 0
    hits: int = 0
    is_complete: bool = True
    skipped: int = 0
    first_for: Collection[LinkId] = ()
    """Whom a search of our own has reached with this ring first."""
    refusals: int = 0
    """Neighbours that did not take such a query."""
    is_over: bool = False


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
        self._has_room = has_room
        self.filters = FilterTable(keys or Keys(b""))
        self._news = NewsTable()
        self._neighbours: dict[LinkId, _Neighbour] = {}
        self._searches_out = SearchBudget(
            SEARCHES_PER_S * SENDING_SHARE, int(SEARCH_BURST * SENDING_SHARE)
        )
        self._seen = SeenTable()
        self._waves: dict[tuple[Guid, int], _Wave] = {}
        self._deadlines: list[tuple[float, int, _Wave]] = []
        self._numbers = itertools.count()
        self._walks = Walks()
        self._queries_seen = 0
        self._hits_passed = 0
        self._drops: Counter[DropReason] = Counter()

    # Links.

    def link_opened(self, link: LinkId, now: float = 0.0) -> None:
        """Note a new neighbour link; its budgets are full."""
        self._neighbours[link] = _Neighbour()
        self.filters.link_opened(link, now)
        self._news.link_opened(link)

    def link_lost(self, link: LinkId, now: float) -> list[Decision]:
        """Note that a link is gone; what waited for it ends incomplete."""
        del now  # losing a link takes effect at once, whatever the time
        self._neighbours.pop(link, None)
        self.filters.link_lost(link)
        self._news.link_lost(link)
        decisions: list[Decision] = []
        for wave in list(self._waves.values()):
            if wave.came_from == link:
                self._forget(wave)
            elif wave.hits_of.pop(link, None) is not None:
                wave.is_complete = False
                decisions += self._end_if_over(wave)
        return decisions

    # Searches of our own.

    def originate(
        self,
        query: Query,
        now: float,
        links: Collection[LinkId] | None = None,
        urgency: Urgency = Urgency.PERSON,
    ) -> list[Decision]:
        """Send a query of our own to all neighbours, or to `links` only.

        Its ring ends with one `Finished`, by its deadline at the latest, at once if there is
        nobody to ask. A further ring has the same GUID and a larger TTL. If we have begun as
        many searches as neighbours accept, nothing is sent or remembered, and one `Refused`
        says so.

        Raises:
            LocalProtocolError: the TTL is not larger than that of the last ring.
        """
        query = replace(query, hops=0, deadline_ms=min(query.deadline_ms, MAX_DEADLINE_MS))
        seen = self._seen.find(query.guid, now)
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
        wave = self._new_wave(query, query.ttl, None, now)
        targets = self._neighbours if links is None else self._neighbours.keys() & links
        sends = self._spread(wave, query, targets, now)
        assert seen.sent_to is not None, "it is our own"
        wave.first_for = wave.hits_of.keys() - seen.sent_to
        seen.sent_to |= wave.first_for
        return [*sends, *self._end_if_over(wave)]

    def enough(self, guid: Guid) -> list[Decision]:
        """End a search of our own that waits: who owes us an answer is told not to give it."""
        return self._give_up(guid, None)

    # What neighbours send.

    def got_query(self, link: LinkId, query: Query, now: float) -> list[Decision]:
        """Take in a copy of a query: pass it on, answer it, or say that it is done with."""
        neighbour = self._neighbours.get(link)
        if neighbour is None:
            return [self._drop(link, DropReason.NO_LINK)]
        seen = self._seen.find(query.guid, now)
        charge = neighbour.charge_query(seen is None and query.hops == 0, now)
        if charge is not Charge.WITHIN:
            return [_refusal(link, query), *self._over_budget(link, charge, "queries")]
        is_costly = seen is None and query.kind is QueryKind.WORDS
        if is_costly and neighbour.answering.wait_s(now) > 0.0:
            return self._refuse(link, query, DropReason.OVER_BUDGET)
        ttl = min(query.ttl, MAX_TTL - query.hops)
        if ttl < 1:
            return self._refuse(link, query, DropReason.TOO_FAR)
        if seen is None:
            self._queries_seen += 1
            self._seen.add(query.guid, Seen(link, _question(query), ttl, now))
            return self._accept(link, query, ttl, is_new=True, now=now)
        if seen.question != _question(query):
            return self._refuse(link, query, DropReason.COLLISION)
        if seen.came_from is None or seen.ttl >= ttl:
            return [Send(link, Done(query.guid, query.ttl, 0, 0, True, skipped=0))]
        seen.ttl = ttl
        return self._accept(link, query, ttl, is_new=False, now=now)

    def spent(self, link: LinkId, seconds: float) -> None:
        """Charge a neighbour with the processor time that an answer by words took."""
        neighbour = self._neighbours.get(link)
        if neighbour is not None:
            neighbour.answering.spend(seconds / _MS)

    def answered(
        self, guid: Guid, ttl: int, hits: Sequence[QueryHit], now: float
    ) -> list[Decision]:
        """Take in the answer of the own share to the query of an earlier `Answer`.

        Returns nothing if the deadline has passed or the link that asked is gone.
        """
        del now  # a deadline takes effect in `expire` alone
        wave = self._waves.get((guid, ttl - 1))
        if wave is None or not wave.needs_answer:
            return []
        wave.needs_answer = False
        passed = [self._pass_hit(wave, hit) for hit in hits]
        return [*passed, *self._end_if_over(wave)]

    def got_query_hit(self, link: LinkId, hit: QueryHit, now: float) -> list[Decision]:
        """Take in a hit: pass it back the way its query came. Its signature is not checked."""
        del now  # a deadline takes effect in `expire` alone
        wave = self._waves.get((hit.guid, hit.ttl))
        if wave is None or link not in wave.hits_of:
            return [self._drop(link, DropReason.NOT_ASKED)]
        wave.hits_of[link] += 1
        # A search of our own keeps room for each link, so that one cannot crowd out others;
        # a relay's own neighbour would drop what is over the cap, wherever it came from.
        count = wave.hits_of[link] if wave.came_from is None else wave.hits + 1
        if count > MAX_WAVE_HITS:
            wave.is_complete = False
            return [self._drop(link, DropReason.TOO_MANY_HITS)]
        return [self._pass_hit(wave, hit)]

    def got_done(self, link: LinkId, done: Done, now: float) -> list[Decision]:
        """Take in the end of what lies behind a link."""
        del now  # a deadline takes effect in `expire` alone
        wave = self._waves.get((done.guid, done.ttl))
        if wave is None or link not in wave.hits_of:
            return [self._drop(link, DropReason.NOT_ASKED)]
        wave.refusals += link in wave.first_for and _is_refusal(done)
        del wave.hits_of[link]
        wave.servents = min(MAX_COUNT, wave.servents + done.servents)
        wave.skipped = min(MAX_COUNT, wave.skipped + done.skipped)
        wave.is_complete &= done.is_complete
        return self._end_if_over(wave)

    def got_enough(self, link: LinkId, message: Enough) -> list[Decision]:
        """Take in that a neighbour wants no answer any more, and tell those who owe us theirs.

        What others have asked under the same GUID goes on.
        """
        return self._give_up(message.guid, link)

    def _give_up(self, guid: Guid, asker: LinkId | None) -> list[Decision]:
        waves = (self._waves.get((guid, ttl)) for ttl in range(MAX_TTL + 1))
        over = [wave for wave in waves if wave is not None and wave.came_from == asker]
        for wave in over:
            self._forget(wave)
        passed_on = (wave for wave in over if wave.ttl > 1)  # the last answer at once
        owing = dict.fromkeys(link for wave in passed_on for link in wave.hits_of)
        return [Send(link, Enough(guid)) for link in owing if not self._is_awaited(guid, link)]

    def _is_awaited(self, guid: Guid, link: LinkId) -> bool:
        """Return whether others wait for what a link has for a query."""
        waves = (self._waves.get((guid, ttl)) for ttl in range(MAX_TTL + 1))
        return any(wave is not None and link in wave.hits_of for wave in waves)

    # Filters.

    def got_filter(self, link: LinkId, message: Filter, now: float) -> list[Decision]:
        """Take in what a neighbour says of its share; RemoteProtocolError if it cannot be so."""
        if link not in self._neighbours:
            return [self._drop(link, DropReason.NO_LINK)]
        charge = self.filters.got_filter(link, message, now)
        return [] if charge is Charge.WITHIN else self._over_budget(link, charge, "filters")

    def tell_filters(self, now: float, layers: Sequence[int] = (OWN, BEYOND)) -> Iterator[Send]:
        """Yield what neighbours are to be told of shares now; see `FilterTable.messages`."""
        return (Send(*told) for told in self.filters.messages(now, layers))

    # News.

    def originate_news(self, news: News, now: float) -> list[Decision]:
        """Tell everybody within the horizon that our share has changed."""
        return self._news.originate(news, now)

    def got_news(self, link: LinkId, news: News, now: float) -> list[Decision]:
        """Take in that a share has changed; RemoteProtocolError if nobody can have said so."""
        if link not in self._neighbours:
            return [self._drop(link, DropReason.NO_LINK)]
        charge = self._news.charge(link, now)
        if charge is not Charge.WITHIN:
            return self._over_budget(link, charge, "news")
        return self._counted(self._news.got_news(link, news, now))

    # Walks.

    def originate_walk(self, guid: Guid, choose: Choose, now: float) -> list[Decision]:
        """Start a random walk; an `Introduced` may come of it. `choose` is `random.choice`."""
        return self._paced(self._walks.originate(guid, [*self._neighbours], choose, now), now)

    def got_walk(self, link: LinkId, walk: Walk, choose: Choose, now: float) -> list[Decision]:
        """Take in a walk: pass it on to a random neighbour, or end it here."""
        neighbour = self._neighbours.get(link)
        if neighbour is None:
            return [self._drop(link, DropReason.NO_LINK)]
        charge = neighbour.walks.charge(now)
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
            if not isinstance(d, Send) or self._neighbours[d.link].walks_out.take(now)
        ]

    # Time.

    def next_deadline(self) -> float | None:
        """Return when `expire` has something to do; None while nothing waits."""
        while self._deadlines and self._deadlines[0][2].is_over:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, now: float) -> list[Decision]:
        """End, incomplete, what has reached its deadline."""
        decisions: list[Decision] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            wave = heapq.heappop(self._deadlines)[2]
            wave.is_complete = False
            decisions += self._end(wave)
        return decisions

    def statistics(self) -> RouterStatistics:
        """Return the counters as they are now."""
        return RouterStatistics(
            self._queries_seen, self._hits_passed, len(self._waves), dict(self._drops)
        )

    # Waves.

    def _accept(
        self, link: LinkId, query: Query, ttl: int, *, is_new: bool, now: float
    ) -> list[Decision]:
        """Pass a copy on; answer it too if the query is new."""
        copy = replace(query, ttl=ttl, deadline_ms=min(query.deadline_ms, MAX_DEADLINE_MS))
        wave = self._new_wave(copy, ttl - 1, link, now)
        wave.came_as = query.ttl
        wave.needs_answer = is_new
        wave.servents = int(is_new)
        decisions: list[Decision] = []
        if wave.ttl > 0:
            onward = replace(copy, ttl=wave.ttl, hops=query.hops + 1)
            others = [other for other in self._neighbours if other != link]
            decisions += self._spread(wave, onward, others, now)
        if is_new:
            decisions.append(Answer(copy))
        return [*decisions, *self._end_if_over(wave)]

    def _new_wave(self, query: Query, ttl: int, came_from: LinkId | None, now: float) -> _Wave:
        deadline = now + query.deadline_ms / 1000
        wave = _Wave(query.guid, ttl, came_from, query.ttl, deadline, needs_answer=False)
        self._waves[query.guid, ttl] = wave
        heapq.heappush(self._deadlines, (deadline, next(self._numbers), wave))
        return wave

    def _spread(
        self, wave: _Wave, query: Query, links: Iterable[LinkId], now: float
    ) -> list[Decision]:
        """Send a copy to each link that may have something, and has time and budget for it."""
        query = replace(query, deadline_ms=max(0, query.deadline_ms - HOP_MARGIN_MS))
        wanted = self.filters.keys.of_query(query) if query.ttl <= FILTERED_HOPS else ()
        sends: list[Decision] = []
        for link in links:
            if wanted and not self.filters.admits(link, query.ttl, wanted):
                wave.skipped += 1
            elif query.deadline_ms and self._neighbours[link].queries_out.take(now):
                wave.hits_of[link] = 0
                sends.append(Send(link, query))
            else:
                wave.is_complete = False
        return sends

    def _pass_hit(self, wave: _Wave, hit: QueryHit) -> Decision:
        if wave.came_from is not None and not self._has_room(wave.came_from):
            wave.is_complete = False
            return self._drop(wave.came_from, DropReason.NO_ROOM)
        wave.hits += 1
        self._hits_passed += 1
        if wave.came_from is None:
            return Deliver(hit)
        return Send(wave.came_from, replace(hit, ttl=wave.came_as))

    def _end_if_over(self, wave: _Wave) -> list[Decision]:
        return [] if wave.hits_of or wave.needs_answer else self._end(wave)

    def _end(self, wave: _Wave) -> list[Decision]:
        self._forget(wave)
        counts = (wave.servents, wave.hits, wave.is_complete, wave.skipped)
        if wave.came_from is None:
            return [Finished(wave.guid, wave.came_as, *counts, wave.refusals)]
        return [Send(wave.came_from, Done(wave.guid, wave.came_as, *counts))]

    def _forget(self, wave: _Wave) -> None:
        wave.is_over = True
        # None: a query pushed out of the seen table may have come anew and taken the name.
        self._waves.pop((wave.guid, wave.ttl), None)

    # Refusals.

    def _refuse(self, link: LinkId, query: Query, reason: DropReason) -> list[Decision]:
        return [_refusal(link, query), self._drop(link, reason)]

    def _over_budget(self, link: LinkId, charge: Charge, what: str) -> list[Decision]:
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


def _sending(rate_per_s: float, burst: int) -> TokenBucket:
    """Return the bucket for what we send against a neighbour's budget."""
    return TokenBucket(rate_per_s * SENDING_SHARE, int(burst * SENDING_SHARE))


def _refusal(link: LinkId, query: Query) -> Send:
    """Tell the sender of a copy not to wait for it."""
    return Send(link, Done(query.guid, query.ttl, 0, 0, False, skipped=0))


def _is_refusal(done: Done) -> bool:
    """Return whether this DONE of a query that was new to all says that it was not taken.

    Whoever takes it counts at least itself, and whoever had it from another says complete.
    """
    return done.servents == 0 and not done.is_complete


def _question(query: Query) -> int:
    return hash((query.kind, query.text, query.terms))
