"""The real routers and searches over one heap of messages, on virtual time.

There are no links, no keys on them and no disks: what is simulated is decided by the code that
decides it in every servent, and a message costs some ten microseconds.
"""

from __future__ import annotations

import heapq
import itertools
import random
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.overlay.search import Searches
from p2pfs.protocol import (
    GUID_BYTES,
    Address,
    Done,
    Entry,
    Filter,
    Guid,
    Identity,
    Message,
    PeerInfo,
    Query,
    QueryHit,
    QueryKind,
    sign_hit,
)
from p2pfs.protocol.codec import encode
from p2pfs.protocol.flood import Answer, Decision, Deliver, Finished, LinkId, Refused, Router, Send
from p2pfs.protocol.flood.budgets import Urgency
from p2pfs.protocol.flood.filters import (
    NARROWED_APART_S,
    PASSED_ON_APART_S,
    SETTLED_S,
    Keys,
    with_positions,
)
from simulation import graph as graphs
from simulation.graph import Graph
from simulation.shares import Question, Shares

LATENCIES_S: Final = (0.010, 0.080)
"""One way, the same both ways of a link."""

TICK_S: Final = 0.001
"""Messages of one millisecond arrive together."""

FRAME_BYTES: Final = 18
"""What a link adds to a message."""

SEARCH_S: Final = 5.0
"""What people give a search."""

LIST_S: Final = 1.5
"""What a listing is given (namespace.survey.LIST_TIMEOUT_S)."""

MEDIAN_SESSION_S: Final = 3600.0
"""Of a servent (Saroiu et al., 2002)."""

KEYS: Final = Keys(b"simulation", bits=2**13)
"""Filters are a thirty-second of those in use, as shares are smaller."""


@dataclass
class Result:
    """What came of one search."""

    messages: int
    kib: float
    found: int
    wanted: int
    first_s: float | None
    """When the first answer came."""
    end_s: float

    @property
    def is_success(self) -> bool:
        """Whether it brought what it should."""
        return self.found >= self.wanted


@dataclass
class _Servent:
    router: Router = field(default_factory=lambda: Router(keys=KEYS))
    searches: Searches | None = None
    identity: Identity | None = None
    wakes_at: float = float("inf")


class SimulatedNetwork:
    """Routers on a graph; use within trio, on a clock that jumps."""

    def __init__(
        self, graph: Graph, shares: Shares, rng: random.Random, *, ttl: int, has_filters: bool
    ) -> None:
        self.graph = graph
        self.stopped: set[int] = set()
        """Servents that are silent while their links stay open."""
        self.sent: Counter[str] = Counter()
        self.sent_bytes = 0
        self._shares = shares
        self._rng = rng
        self._ttl = ttl
        self._restless: set[int] = set(range(len(graph))) if has_filters else set()
        """Who may have something to tell of shares."""
        self._has_filters = has_filters
        self._servents = [_Servent() for _ in graph]
        self._latencies: dict[tuple[int, int], float] = {}
        self._heap: list[tuple[float, int, int, int, Message | None]] = []
        self._numbers = itertools.count()
        self._news = trio.lowlevel.ParkingLot()
        self._quiet = trio.Event()
        """Set when nothing is on its way."""
        self._counted: tuple[Message | None, int] = (None, 0)
        self._first_at: dict[bytes, float] = {}
        for one, near in enumerate(graph):
            for other in near:
                self._servents[one].router.link_opened(LinkId(other), trio.current_time())

    # What an experiment does.

    async def run(self) -> None:
        """Deliver messages, until cancelled."""
        while True:
            due = self._heap[0][0] if self._heap else float("inf")
            if due > trio.current_time():
                if not self._heap:
                    self._quiet.set()
                with trio.move_on_at(due):
                    await self._news.park()
                continue
            while self._heap and self._heap[0][0] <= trio.current_time():
                _, _, source, target, message = heapq.heappop(self._heap)
                self._happen(source, target, message)
            await trio.lowlevel.checkpoint()

    async def settle(self) -> None:
        """Let everybody hear of all shares, as in a network that has been there for a while."""
        for servent in self._restless:
            self._take_own(servent)
        for seconds in (0.0, SETTLED_S + 1, NARROWED_APART_S + 1):
            await trio.sleep(seconds)
            self._tell_filters()

    async def publish(self, holders: Iterable[int]) -> None:
        """Let others hear of what these servents have added to their shares."""
        for servent in holders if self._has_filters else ():
            self._take_own(servent)
            self._restless |= {servent, *self.graph[servent]}
        for _ in range(2):
            self._tell_filters()
            await trio.sleep(PASSED_ON_APART_S + 2 * LATENCIES_S[1])

    def _take_own(self, servent: int) -> None:
        """Make the filter of what a servent shares."""
        bits = 0
        for path in self._shares.paths[servent]:
            directory = path.rpartition("/")[0]
            bits = with_positions(bits, KEYS.of_shares([(directory, True)]))
            bits = with_positions(bits, KEYS.of_shares([(path, False)]))
        self._servents[servent].router.filters.set_own(bits)

    def _tell_filters(self) -> None:
        now = trio.current_time()
        for servent in [*self._restless]:
            router = self._servents[servent].router
            for told in router.tell_filters(now):
                self._send(servent, told.link, told.message)
            if router.filters.next_due(now) == float("inf"):
                self._restless.discard(servent)

    def admits(self, servent: int, neighbour: int, question: Question, *, links: int) -> bool:
        """Return whether a servent would ask a neighbour, as far as it knows what is there."""
        query = Query(bytes(GUID_BYTES), links, 0, question.kind, question.text, 1, 0)
        filters = self._servents[servent].router.filters
        return filters.admits(LinkId(neighbour), links, KEYS.of_query(query))

    async def search(self, origin: int, question: Question) -> Result:
        """Search as a servent does, and wait until nothing of it is on its way any more."""
        sent, size, began_at = self._messages(), self.sent_bytes, trio.current_time()
        self._first_at.clear()
        self._quiet = trio.Event()
        wanted = question.holders - {origin}
        rings = range(1, self._ttl + 1)
        outcome = await self._searches(origin).run(
            question.kind,
            question.text,
            rings=(self._ttl,) if question.kind is QueryKind.DIRECTORY else rings,
            timeout_s=LIST_S if question.kind is QueryKind.DIRECTORY else SEARCH_S,
            is_patient=question.kind is QueryKind.DIRECTORY,
            is_enough=lambda hits: not question.wants_all and bool(hits),
        )
        end_s = trio.current_time() - began_at
        await self._quiet.wait()
        first_at = min(self._first_at.values(), default=None)
        return Result(
            messages=self._messages() - sent,
            kib=(self.sent_bytes - size) / 1024,
            found=len(outcome.hits),
            wanted=len(wanted) if question.wants_all else min(1, len(wanted)),
            first_s=None if first_at is None else first_at - began_at,
            end_s=end_s,
        )

    def _messages(self) -> int:
        return self.sent.total() - self.sent[Filter.__name__]

    async def churn(self, seconds: float) -> None:
        """Let as many servents leave, and others come in their place, as do in such a time."""
        await trio.sleep(seconds)
        left = 1 - 0.5 ** (seconds / MEDIAN_SESSION_S)
        for servent in range(len(self.graph)):
            if self._rng.random() < left:
                self._replace(servent)

    def _replace(self, servent: int) -> None:
        lost = graphs.unlink(self.graph, servent)
        self._servents[servent] = _Servent()
        for other in lost:
            router = self._servents[other].router
            self._carry_out(other, router.link_lost(LinkId(servent)))
        graphs.join(self.graph, servent, range(len(self.graph)), self._rng)
        self._open(servent, self.graph[servent])
        if self._has_filters:
            self._take_own(servent)
        for other in lost:
            before = set(self.graph[other])
            graphs.dial(self.graph, other, graphs.CONTENT, self._rng)
            self._open(other, self.graph[other] - before)

    def _open(self, servent: int, others: Iterable[int]) -> None:
        for other in others:
            self._servents[servent].router.link_opened(LinkId(other), trio.current_time())
            self._servents[other].router.link_opened(LinkId(servent), trio.current_time())
        if self._has_filters:
            self._restless |= {servent, *others}

    # What the network does.

    def _happen(self, source: int, target: int, message: Message | None) -> None:
        servent, now = self._servents[target], trio.current_time()
        if message is None:
            servent.wakes_at = float("inf")
            self._carry_out(target, servent.router.expire(now))
            return
        if source not in self.graph[target] or target in self.stopped:
            return
        link = LinkId(source)
        match message:
            case Query():
                decisions = servent.router.got_query(link, message, now)
            case QueryHit():
                decisions = servent.router.got_query_hit(link, message, now)
            case Done():
                decisions = servent.router.got_done(link, message)
            case Filter():
                self._restless.add(target)  # it may have to pass that on
                decisions = servent.router.got_filter(link, message, now)
            case _:
                raise AssertionError(message)
        self._carry_out(target, decisions, source)

    def _carry_out(
        self, servent: int, decisions: Iterable[Decision], source: int | None = None
    ) -> None:
        for decision in decisions:
            match decision:
                case Send(link=to, message=message):
                    self._send(servent, to, message)
                case Answer(query=query):
                    self._answer(servent, query)
                case Deliver(hit=hit):
                    assert source is not None
                    self._first_at.setdefault(hit.guid, trio.current_time())
                    self._searches(servent).got_hit(hit, address_of(source))
                case Finished():
                    self._searches(servent).got_finished(decision)
                case Refused():
                    self._searches(servent).got_refused(decision)
        self._wake_later(servent)

    def _send(self, source: int, target: int, message: Message) -> None:
        if self._counted[0] is not message:
            self._counted = message, len(encode(message)) + FRAME_BYTES
        self.sent[type(message).__name__] += 1
        self.sent_bytes += self._counted[1]
        self._at(trio.current_time() + self.latency(source, target), source, target, message)

    def _at(self, at: float, source: int, target: int, message: Message | None) -> None:
        at = round(at / TICK_S) * TICK_S + TICK_S / 10
        heapq.heappush(self._heap, (at, next(self._numbers), source, target, message))
        if self._heap[0][0] == at:
            self._news.unpark_all()

    def latency(self, one: int, other: int) -> float:
        """Return how long a message takes between two servents."""
        pair = (min(one, other), max(one, other))
        if pair not in self._latencies:
            self._latencies[pair] = self._rng.uniform(*LATENCIES_S)
        return self._latencies[pair]

    def _wake_later(self, number: int) -> None:
        servent = self._servents[number]
        deadline = servent.router.next_deadline()
        if deadline is not None and deadline < servent.wakes_at:
            servent.wakes_at = deadline
            self._at(deadline + TICK_S, number, number, None)

    def _answer(self, number: int, query: Query) -> None:
        paths = self._shares.answers(number, query)
        hits = [self._hit(number, query, paths)] if paths else []
        router = self._servents[number].router
        self._carry_out(number, router.answered(query.guid, query.ttl, hits))

    def _hit(self, number: int, query: Query, paths: Sequence[str]) -> QueryHit:
        servent = self._servents[number]
        servent.identity = servent.identity or Identity.generate()
        entries = tuple(Entry(path, 1, 1, bytes(32)) for path in paths[: query.limit])
        provider = PeerInfo(servent.identity.id, f"servent {number}", (address_of(number),))
        return sign_hit(servent.identity, query.guid, query.ttl, provider, entries, len(paths))

    def _searches(self, number: int) -> Searches:
        servent = self._servents[number]
        if servent.searches is None:
            servent.searches = Searches(
                lambda query, urgency: self._flood(number, query, urgency),
                lambda: Guid(secrets.token_bytes(GUID_BYTES)),
                lambda: [2 * self.latency(number, other) for other in self.graph[number]],
            )
        return servent.searches

    def _flood(self, number: int, query: Query, urgency: Urgency) -> bool:
        router = self._servents[number].router
        self._carry_out(number, router.originate(query, trio.current_time(), urgency=urgency))
        return bool(self.graph[number])


def address_of(number: int) -> Address:
    """Return where a servent would listen."""
    return Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 4774)
