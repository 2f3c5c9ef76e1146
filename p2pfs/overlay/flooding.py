"""Carry out the decisions of the router: the way of every query, hit and walk.

The router is pure; here its decisions meet links, our own share and our own searches. A
query that came from a neighbour is answered from the share, passed on to the other neighbours,
and ended by DONE, in whatever order the router says.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import trio

from p2pfs.errors import NotAskedError
from p2pfs.journal import Journal
from p2pfs.link import Link
from p2pfs.overlay.neighbours import Handlers
from p2pfs.overlay.search import Searches
from p2pfs.protocol import (
    GUID_BYTES,
    Address,
    Changed,
    Done,
    Enough,
    Entry,
    Filter,
    Guid,
    Identity,
    Introduce,
    Message,
    News,
    PeerInfo,
    Query,
    QueryHit,
    QueryKind,
    ServentId,
    Walk,
    any_of,
    dialable,
    sign_hit,
    sign_news,
)
from p2pfs.protocol.flood import (
    OWN,
    Answer,
    Ban,
    Bits,
    Decision,
    Deliver,
    Drop,
    DropReason,
    FilterState,
    Finished,
    Introduced,
    Keys,
    LinkId,
    OfferSelf,
    Refused,
    Rest,
    Router,
    Send,
    ShareChanged,
    Urgency,
)
from p2pfs.tasks import guarded, kept_up

ANSWERS_AT_ONCE: Final = 8
"""Queries that the index is asked at once; the rest wait, no longer than their askers. They
share the threads with those who read and write blocks, and must leave most of them."""


Spent = Callable[[float], object]
"""Takes the processor time of an answer, in seconds."""


class Offer(Protocol):
    """The answers to the queries of others."""

    async def answer(self, query: Query, spent: Spent) -> tuple[Sequence[Entry], int]:
        """Return the entries to send for a query, and how many match it in all."""
        ...


SEARCH_WARNING_S: Final = 60.0
"""How often people are warned that they search too much: a script may search without end."""


OnNews = Callable[[PeerInfo, Sequence[str], bool, int], object]


class Neighbourhood(Protocol):
    """The overlay, as far as the message router calls it."""

    def introduced(self, peer: PeerInfo, told_by: Link) -> None:
        """Note a peer that a walk of ours found."""

    def has_room(self) -> bool:
        """Return whether another neighbour would be taken."""

    def ban(self, peer: ServentId, text: str) -> None:
        """Drop a neighbour that floods."""


class MessageRouter:
    """The router with its links, and the searches that start here."""

    def __init__(
        self,
        identity: Identity,
        own_info: Callable[[], PeerInfo],
        offer: Offer,
        neighbourhood: Neighbourhood,
        journal: Journal,
        keys: Keys,
        wall_clock: Callable[[], float],
    ) -> None:
        self._wall_clock = wall_clock
        self.searches = Searches(
            self._flood, new_guid, self._round_trips_s, self._search_refused, self._end_search
        )
        self._journal = journal
        self._told_at = -math.inf
        """When people were last warned that a search may not begin now."""
        self.on_news: OnNews = lambda _peer, _directories, _is_all, _version: None
        """Called with a servent whose share has changed, where, whether elsewhere too, and when."""
        self.queries_seen = 0
        """Copies of queries that neighbours sent."""
        self._identity = identity
        self._own_info = own_info
        self._offer = offer
        self._neighbourhood = neighbourhood
        self._router = Router(self._has_room, keys)
        self._links: dict[LinkId, Link] = {}
        self._news = trio.lowlevel.ParkingLot()
        self._shares_changed = trio.lowlevel.ParkingLot()
        self._expires_at = math.inf
        """The deadline that `_expire` sleeps to."""
        self._answering = trio.CapacityLimiter(ANSWERS_AT_ONCE)
        self._nursery: trio.Nursery | None = None
        self.on_hit: Callable[[QueryHit, Link], object] = lambda _hit, _by: None
        """Called with each hit, and the neighbour that it came from."""
        self.on_named: Callable[[Sequence[Address], Address], object] = lambda _named, _by: None
        """Called with the addresses that a neighbour names, and the address of that neighbour."""
        self.handlers: Handlers = {
            Query: self._got_query,
            QueryHit: self._got_query_hit,
            Done: self._got_done,
            Enough: self._got_enough,
            Filter: self._got_filter,
            News: self._got_news,
            Walk: self._got_walk,
            Introduce: self._got_introduce,
        }
        """The handlers of messages about floods and walks."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the answers under way and end waves at their deadlines, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                nursery.start_soon(kept_up, self._tell_filters)
                await kept_up(self._expire)
            finally:
                self._nursery = None  # before it is closed: others run until it is

    async def _expire(self) -> None:
        while True:
            self._carry_out(self._router.expire(trio.current_time()))
            self._expires_at = self._next_deadline()
            with trio.move_on_at(self._expires_at):
                await self._news.park()

    def _next_deadline(self) -> float:
        deadline = self._router.next_deadline()
        return math.inf if deadline is None else deadline

    async def _tell_filters(self) -> None:
        """Send neighbours our filters whenever a change is due."""
        while True:
            now = trio.current_time()
            for told in self._router.tell_filters(now):
                self._carry_out([told])
                await trio.lowlevel.checkpoint()
            with trio.move_on_at(self._router.filters.next_due(trio.current_time())):
                await self._shares_changed.park()

    def set_own_filter(self, bits: Bits) -> None:
        """Take in our own filter; additions go to all neighbours at once."""
        self._router.filters.set_own(bits)
        self._carry_out(self._router.tell_filters(trio.current_time(), (OWN,)))
        self._shares_changed.unpark_all()

    def filter_of(self, link: Link) -> FilterState | None:
        """Return the state of a neighbour's filter; None before it has sent one. Any thread."""
        return self._router.filters.heard(link.id)

    @property
    def drops(self) -> Mapping[DropReason, int]:
        """The messages of neighbours that went no further, by reason. Any thread."""
        return self._router.statistics().drops

    def tell_changed(self) -> None:
        """Send CHANGED to the neighbours, behind the filters with the change."""
        for link in self._links.values():
            link.pass_on(Changed())

    def opened(self, link: Link) -> None:
        """Take a new neighbour into the flood."""
        self._links[link.id] = link
        self._router.link_opened(link.id, trio.current_time(), link.remote.host)
        self._shares_changed.unpark_all()

    def is_first(self, link: Link) -> bool:
        """Return whether a neighbour is the only one."""
        return self._links.keys() == {link.id}

    def lost(self, link: Link) -> None:
        """Take a neighbour that is gone out of the flood; its answers count as given."""
        self._links.pop(link.id, None)
        self._shares_changed.unpark_all()
        self._carry_out(self._router.link_lost(link.id))

    def _got_query(self, link: Link, message: Query) -> None:
        self.queries_seen += 1
        self._carry_out(self._router.got_query(link.id, message, trio.current_time()), link)

    def _got_query_hit(self, link: Link, message: QueryHit) -> None:
        decisions = self._router.got_query_hit(link.id, message, trio.current_time())
        if any(isinstance(decision, Send | Deliver) for decision in decisions):
            self.on_hit(message, link)
        self._carry_out(decisions, link)

    def _got_done(self, link: Link, message: Done) -> None:
        self._carry_out(self._router.got_done(link.id, message))

    def _got_enough(self, link: Link, message: Enough) -> None:
        self._carry_out(self._router.got_enough(link.id, message))

    def _end_search(self, guid: Guid) -> None:
        self._carry_out(self._router.enough(guid))

    def _got_filter(self, link: Link, message: Filter) -> None:
        self._carry_out(self._router.got_filter(link.id, message, trio.current_time()))
        self._shares_changed.unpark_all()

    def _got_news(self, link: Link, message: News) -> None:
        now, now_ms = trio.current_time(), self._wall_clock() * 1000
        self._carry_out(self._router.got_news(link.id, message, now, now_ms), link)

    def tell_news(self, ttl: int, version: int, directories: Sequence[str], is_all: bool) -> None:
        """Send NEWS of the directories of our share that have changed through the horizon."""
        told = (self._own_info(), version, directories)
        news = sign_news(self._identity, ttl, *told, is_all=is_all)
        self._carry_out(self._router.originate_news(news, trio.current_time()))

    def _got_walk(self, link: Link, message: Walk) -> None:
        now = trio.current_time()
        self._carry_out(self._router.got_walk(link.id, message, self._choose, now))

    def _got_introduce(self, link: Link, message: Introduce) -> None:
        now = trio.current_time()
        self._carry_out(self._router.got_introduce(link.id, message, now), link)

    def start_walk(self) -> None:
        """Send one random walk on its way."""
        now = trio.current_time()
        self._carry_out(self._router.originate_walk(new_guid(), self._choose, now))

    def _choose(self, links: Sequence[LinkId]) -> LinkId:
        """Pick where a walk goes: a host that has most of our links does not get most walks."""
        return any_of(links, lambda link: self._links[link].remote.host, random.choice)

    def _search_refused(self, error: NotAskedError) -> None:
        now = trio.current_time()
        if now - self._told_at > SEARCH_WARNING_S:
            self._told_at = now
            self._journal.warning(str(error))

    def _round_trips_s(self) -> Sequence[float]:
        """Return the round trip to each neighbour; of one that is not measured yet, any length."""
        trips = (link.rtt_s for link in self._links.values())
        return [math.inf if one is None else one for one in trips]

    def _flood(self, query: Query, urgency: Urgency) -> bool:
        if not self._links:
            return False
        self._carry_out(self._router.originate(query, trio.current_time(), urgency=urgency))
        return True

    def _carry_out(self, decisions: Iterable[Decision], told_by: Link | None = None) -> None:
        for decision in decisions:
            self._do(decision, told_by)
        if self._next_deadline() < self._expires_at:
            self._news.unpark_all()

    def _do(self, decision: Decision, told_by: Link | None) -> None:
        """Do one thing; `told_by` is the link whose message led to it, if one did."""
        match decision:
            case Send(link=to, message=QueryHit() | Done() | Filter() as message):
                self._pass_on(to, message)
            case Send(link=to, message=message):
                self._post(to, message)
            case Answer(query=query):
                assert told_by is not None
                if self._nursery is not None:  # else we end, and nobody waits for long
                    self._nursery.start_soon(guarded, self._answer, query, told_by.id)
            case Deliver(hit=hit):
                assert told_by is not None
                self.on_named(dialable(hit.provider.addresses, told_by.remote), told_by.remote)
                self.searches.got_hit(hit, told_by.remote)
            case Finished():
                self.searches.got_finished(decision)
            case Refused():
                self.searches.got_refused(decision)
            case OfferSelf(link=to, guid=guid):
                if self._neighbourhood.has_room():
                    self._post(to, Introduce(guid, self._own_info()))
            case Introduced(peer=peer):
                assert told_by is not None
                self._neighbourhood.introduced(peer, told_by)
            case ShareChanged(news=news):
                assert told_by is not None
                addresses = dialable(news.provider.addresses, told_by.remote)
                self.on_named(addresses, told_by.remote)
                provider = PeerInfo(news.provider.id, news.provider.name, addresses)
                self.on_news(provider, news.directories, news.is_all, news.version)
            case Rest(link=to, seconds=seconds):
                if to in self._links:
                    self._links[to].read_later(seconds)
            case Drop():
                pass  # the router counts them
            case Ban(link=to, reason=reason):
                if to in self._links:
                    self._neighbourhood.ban(self._links[to].peer.id, reason)

    def _post(self, to: LinkId, message: Message) -> None:
        link = self._links.get(to)
        if link is not None:
            link.post(message)

    def _pass_on(self, to: LinkId, message: Message) -> None:
        """Send when there is room, in order: a hit before the DONE that covers it."""
        link = self._links.get(to)
        if link is not None:
            link.pass_on(message)

    def _has_room(self, to: LinkId) -> bool:
        return to not in self._links or self._links[to].may_pass_on

    async def _answer(self, query: Query, asked_by: LinkId) -> None:
        """Answer a query from our own share; the router hears of it whatever happens."""
        hits: Sequence[QueryHit] = ()
        try:
            with trio.move_on_after(query.deadline_ms / 1000):
                is_slow = query.kind is QueryKind.WORDS  # the others are answered from memory
                async with self._answering if is_slow else contextlib.nullcontext():
                    spent = functools.partial(self._router.spent, asked_by, query)
                    entries, total = await self._offer.answer(query, spent)
                if entries:
                    hits = [self._sign(query, tuple(entries), total)]
        finally:
            self._carry_out(self._router.answered(query.guid, query.ttl, hits))

    def _sign(self, query: Query, entries: tuple[Entry, ...], total: int) -> QueryHit:
        return sign_hit(self._identity, query.guid, query.ttl, self._own_info(), entries, total)


def new_guid() -> Guid:
    """Return 16 random bytes."""
    return Guid(secrets.token_bytes(GUID_BYTES))
