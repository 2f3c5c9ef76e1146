"""A network of routers in its own virtual time: no sockets, no tasks, the same run every time.

The link from servent `a` to servent `b` has the id `b` at `a`. Links keep their order.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from msgspec.structs import replace

from p2pfs.protocol.fields import (
    PUBLIC_KEY_BYTES,
    SIGNATURE_BYTES,
    Guid,
    Message,
    PeerInfo,
    ServentId,
)
from p2pfs.protocol.flood.decisions import Answer, Decision, LinkId, OfferSelf, Send
from p2pfs.protocol.flood.filters import NARROWED_APART_S, SETTLED_S, Keys
from p2pfs.protocol.flood.routing import Router
from p2pfs.protocol.messages import (
    Done,
    Enough,
    Filter,
    Introduce,
    Query,
    QueryHit,
    QueryKind,
    Walk,
)

Edge = tuple[int, int]

KEYS = Keys(b"", bits=2**13)
"""Filters of 1 KiB, for shares that are as much smaller."""


def guid_of(number: int) -> Guid:
    return Guid(number.to_bytes(16, "big"))


def query_of(
    guid: int = 1, ttl: int = 4, hops: int = 0, *, text: str = "whale", deadline_ms: int = 5_000
) -> Query:
    return Query(guid_of(guid), ttl, hops, QueryKind.WORDS, text, 50, deadline_ms)


def peer_of(servent: int) -> PeerInfo:
    return PeerInfo(ServentId(f"{servent:a>32}"), f"servent {servent}", ())


def hit_of(servent: int, guid: int | Guid = 1, ttl: int = 4) -> QueryHit:
    guid = guid_of(guid) if isinstance(guid, int) else guid
    return QueryHit(
        guid, ttl, peer_of(servent), (), 0, bytes(PUBLIC_KEY_BYTES), bytes(SIGNATURE_BYTES)
    )


def router_with(*links: LinkId) -> Router:
    """Return a router with a neighbour at the end of each of these links."""
    router = Router()
    for link in links:
        router.link_opened(link)
    return router


def ball(edges: Iterable[Edge], origin: int, radius: int) -> set[int]:
    """Return the servents within `radius` links of the origin, itself included."""
    near: dict[int, set[int]] = {}
    for a, b in edges:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    distance = {origin: 0}
    waiting = deque([origin])
    while waiting:
        servent = waiting.popleft()
        for other in near.get(servent, set()) - distance.keys():
            distance[other] = distance[servent] + 1
            waiting.append(other)
    return {servent for servent, hops in distance.items() if hops <= radius}


@dataclass(frozen=True)
class Happened:
    """A decision that the network itself does not carry out."""

    at: float
    servent: int
    decision: Decision


class FloodNet:
    """Routers on a graph; every servent has one hit for every query, or only the holders."""

    def __init__(
        self,
        edges: Iterable[Edge],
        *,
        latency_ms: Mapping[Edge, int] | int = 10,
        answer_ms: int = 0,
        seed: int = 0,
        holders: Container[int] | None = None,
        keys: Keys = KEYS,
        older: Container[int] = (),
    ) -> None:
        """Build it; `older` servents do not know that copies which cross are each other's DONE."""
        self.keys = keys
        self._older = older
        self._holders = holders
        self.now = 0.0
        self.routers: dict[int, Router] = {}
        self.log: list[Happened] = []
        self.sent: Counter[type[Message]] = Counter()
        self.answers: Counter[int] = Counter()
        """How often each servent answered a query."""
        self._latency_ms: dict[Edge, int] = {}
        self._answer_ms = answer_ms
        self._silent: set[int] = set()
        self._choose = random.Random(seed).choice
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        for edge in edges:
            ms = latency_ms if isinstance(latency_ms, int) else latency_ms[edge]
            self._open(edge, ms)

    def _open(self, edge: Edge, ms: int) -> None:
        for a, b in (edge, edge[::-1]):
            self._latency_ms[a, b] = ms
            router = self.routers.setdefault(a, Router(keys=self.keys))
            router.link_opened(LinkId(b), self.now)

    # What a test does.

    def search(self, origin: int, query: Query) -> None:
        self._carry_out(origin, self.routers[origin].originate(query, self.now))

    def tell_filters(self, own: Mapping[int, int], *, silent: Container[int] = ()) -> None:
        """Let all tell what they share, but for those without filters, until links are settled."""
        for servent, router in self.routers.items():
            router.filters.set_own(own.get(servent, 0))
        for at in (self.now, self.now + SETTLED_S, self.now + SETTLED_S + NARROWED_APART_S):
            self.now = at
            for servent, router in self.routers.items():
                if servent not in silent:
                    self._carry_out(servent, router.tell_filters(at))
            self.run(10**6)

    def enough(self, origin: int, guid: int = 1) -> None:
        """Let whoever searches wait no longer."""
        self._carry_out(origin, self.routers[origin].enough(guid_of(guid)))

    def walk(self, origin: int, guid: int) -> None:
        decisions = self.routers[origin].originate_walk(guid_of(guid), self._choose, self.now)
        self._carry_out(origin, decisions)

    def cut(self, a: int, b: int) -> None:
        """Lose a link with all that is on its way; both sides notice at once."""
        for here, there in ((a, b), (b, a)):
            self._latency_ms.pop((here, there), None)
        for here, there in ((a, b), (b, a)):
            self._carry_out(here, self.routers[here].link_lost(LinkId(there)))

    def silence(self, servent: int) -> None:
        """Let nothing that a servent sends arrive any more, while its links stay open."""
        self._silent.add(servent)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (seconds, next(self._numbers), action))

    def run(self, limit: int = 100_000) -> None:
        """Run until nothing is left to happen; `limit` events are taken for a hang."""
        for _event in range(limit):
            if not self._events:
                return
            self.run_one()
        raise AssertionError("the flood does not end")

    def run_one(self) -> None:
        """Let the next thing happen."""
        self.now, _, action = heapq.heappop(self._events)
        action()

    def happened(self, servent: int, kind: type) -> list[Decision]:
        """Return the decisions of one kind at a servent, in order."""
        return [h.decision for h in self.log if h.servent == servent and type(h.decision) is kind]

    # What the network does.

    def _carry_out(self, servent: int, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if isinstance(decision, Send):
                self._send(servent, decision.link, decision.message)
            elif isinstance(decision, Answer):
                self._look_up(servent, decision.query)
            else:
                self.log.append(Happened(self.now, servent, decision))
                if isinstance(decision, OfferSelf):
                    offer = Introduce(decision.guid, peer_of(servent))
                    self._send(servent, decision.link, offer)
        self._wake_later(servent)

    def _send(self, source: int, target: int, message: Message) -> None:
        self.sent[type(message)] += 1
        if isinstance(message, Query) and (source in self._older or target in self._older):
            message = replace(message, echoes=False)
        ms = self._latency_ms.get((source, target))
        if ms is not None and source not in self._silent:
            self.at(self.now + ms / 1000, lambda: self._arrive(source, target, message))

    def _arrive(self, source: int, target: int, message: Message) -> None:
        if (source, target) not in self._latency_ms:
            return
        router, link, now = self.routers[target], LinkId(source), self.now
        match message:
            case Query():
                decisions = router.got_query(link, message, now)
            case QueryHit():
                decisions = router.got_query_hit(link, message, now)
            case Done():
                decisions = router.got_done(link, message)
            case Enough():
                decisions = router.got_enough(link, message)
            case Filter():
                decisions = router.got_filter(link, message, now)
            case Walk():
                decisions = router.got_walk(link, message, self._choose, now)
            case Introduce():
                decisions = router.got_introduce(link, message, now)
            case _:
                raise AssertionError(message)
        self._carry_out(target, decisions)

    def _look_up(self, servent: int, query: Query) -> None:
        self.answers[servent] += 1
        has_it = self._holders is None or servent in self._holders
        hits = self._hits_of(servent, query) if has_it else []

        def answer() -> None:
            router = self.routers[servent]
            self._carry_out(servent, router.answered(query.guid, query.ttl, hits))

        self.at(self.now + self._answer_ms / 1000, answer)

    def _hits_of(self, servent: int, query: Query) -> list[QueryHit]:
        return [hit_of(servent, query.guid, query.ttl)]

    def _wake_later(self, servent: int) -> None:
        deadline = self.routers[servent].next_deadline()
        if deadline is not None:
            self.at(deadline, lambda: self._wake(servent, deadline))

    def _wake(self, servent: int, deadline: float) -> None:
        router = self.routers[servent]
        if router.next_deadline() == deadline:
            self._carry_out(servent, router.expire(self.now))
