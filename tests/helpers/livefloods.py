"""A network of routers in trio's time, where one servent searches as real ones do."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterable, Mapping

import trio

from p2pfs.overlay.search import Searches
from p2pfs.protocol.fields import GUID_BYTES, Address, Entry, Guid, PeerInfo
from p2pfs.protocol.flood.budgets import Urgency
from p2pfs.protocol.flood.decisions import Decision, Deliver, Finished, Refused
from p2pfs.protocol.identity import Identity
from p2pfs.protocol.messages import Query, QueryHit
from p2pfs.protocol.signatures import sign_hit
from tests.helpers.floodnet import Edge, FloodNet

ORIGIN = 0
TOLD_BY = Address("10.0.0.1", 4774)
_IDENTITY = Identity.generate()


def random_graph(servents: int, dials: int, rng: random.Random) -> set[Edge]:
    """Return a graph where each servent has dialled so many of those that came before it."""
    edges: set[Edge] = set()
    for servent in range(1, servents):
        for other in rng.sample(range(servent), min(dials, servent)):
            edges.add((other, servent))
    return edges


class LiveFlood(FloodNet):
    """A FloodNet whose time is trio's, and the searches of servent 0."""

    def __init__(
        self, edges: Iterable[Edge], latency_ms: Mapping[Edge, int], entries: Mapping[int, Entry]
    ) -> None:
        self._entries = entries
        self.searches = Searches(
            self._flood, lambda: Guid(secrets.token_bytes(GUID_BYTES)), self._round_trips_s
        )
        edges = list(edges)
        super().__init__(edges, latency_ms=latency_ms, holders=entries)
        self._started = trio.Event()

    def _round_trips_s(self) -> list[float]:
        return [2 * ms / 1000 for (a, _), ms in self._latency_ms.items() if a == ORIGIN]

    def _flood(self, query: Query, urgency: Urgency) -> bool:
        self.now = trio.current_time()
        sent = self.routers[ORIGIN].originate(query, self.now, urgency=urgency)
        self._carry_out(ORIGIN, sent)
        return True

    async def run_live(self) -> None:
        """Let things happen at their time, until cancelled."""
        while True:
            while self._events and self._events[0][0] <= trio.current_time():
                self.run_one()
            self._started = trio.Event()
            next_at = self._events[0][0] if self._events else float("inf")
            with trio.move_on_at(next_at):
                await self._started.wait()

    def at(self, seconds, action) -> None:
        super().at(seconds, action)
        self._started.set()

    def _hits_of(self, servent: int, query: Query) -> list[QueryHit]:
        provider = PeerInfo(_IDENTITY.id, str(servent), ())
        return [sign_hit(_IDENTITY, query.guid, query.ttl, provider, (self._entries[servent],), 1)]

    def _carry_out(self, servent: int, decisions: Iterable[Decision]) -> None:
        decisions = list(decisions)
        if servent == ORIGIN:
            for decision in decisions:
                match decision:
                    case Deliver(hit=hit):
                        self.searches.got_hit(hit, TOLD_BY)
                    case Finished():
                        self.searches.got_finished(decision)
                    case Refused():
                        self.searches.got_refused(decision)
        super()._carry_out(servent, decisions)
