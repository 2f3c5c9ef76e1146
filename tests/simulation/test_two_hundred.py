"""Two hundred real servents: a query crosses each link as often as the closed form says."""

from __future__ import annotations

import math
import random

import pytest
import trio
from trio.testing import MockClock

import p2pfs.config.knobs
from p2pfs.overlay.degree import ENOUGH, WAIT_FOR_DIALS_S
from p2pfs.protocol.flood import WIDE_TTL
from p2pfs.protocol.flood.filters import FilterTable
from p2pfs.protocol.flood.routing import Router
from p2pfs.protocol.messages import QueryKind
from tests.helpers.world import World, open_world

SERVENTS = 200
DEGREE = 8
"""Two thirds of what servents look for, since half of this test's time goes into handshakes. With
fewer, nobody is near enough to all."""

Graph = dict[str, set[str]]


async def grow(world: World) -> None:
    """Let each servent join through one that came before, and find the rest by walks."""
    for number in range(SERVENTS):
        await world.start(joins=[random.randrange(number)] if number else [], ttl=WIDE_TTL)


def graph_of(world: World) -> Graph:
    return {
        servent.whereabouts.identity.id: {link.peer.id for link in servent.overlay.neighbours}
        for servent in world.servents
    }


async def settled(world: World) -> Graph:
    """Wait until no link has come or gone for a while, and return the graph."""
    graph: Graph = {}
    while graph != (graph := graph_of(world)):
        await trio.sleep(WAIT_FOR_DIALS_S + 20)
    return graph


def distances(graph: Graph, origin: str) -> dict[str, int]:
    """Return how many links away each servent is, breadth first."""
    found = {origin: 0}
    ring = [origin]
    while ring:
        ring = [near for far in ring for near in graph[far] if near not in found]
        ring = list(dict.fromkeys(ring))
        found |= dict.fromkeys(ring, max(found.values()) + 1)
    return found


def copies(world: World) -> int:
    return sum(servent.message_router.queries_seen for servent in world.servents)


@pytest.mark.slow
async def test_one_query_crosses_twice_the_links_less_the_servents_plus_one(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    """Everybody within the horizon is asked once, the last of them as well.

    Each passes the query to all but who sent it: 2E - V + 1 copies, less those of the servents at
    the rim.

    Nobody has filters here, which would spare most of it.
    """
    monkeypatch.setattr(Router, "tell_filters", lambda *_: iter(()))
    monkeypatch.setattr(FilterTable, "next_due", lambda *_: math.inf)
    monkeypatch.setattr(p2pfs.config.knobs, "DEGREE", DEGREE)
    async with open_world(seed=1, latency_s=0.05) as world:  # the first copy is by the shortest way
        await grow(world)
        graph = await settled(world)
        assert all(len(near) >= int(DEGREE * ENOUGH) for near in graph.values())
        assert len(distances(graph, world[0].whereabouts.identity.id)) == SERVENTS
        origin = world[0]
        far = distances(graph, origin.whereabouts.identity.id)
        horizon = [servent for servent, hops in far.items() if hops <= WIDE_TTL]
        holder = next(one for one in world.servents if one.whereabouts.identity.id == horizon[-1])
        await world.share(world.servents.index(holder), "rare.txt", b"rare")
        before = copies(world)

        outcome = await origin.message_router.searches.run(
            QueryKind.PATH, "rare.txt", rings=(WIDE_TTL,), timeout_s=10
        )

        # Who gets it with no TTL left passes it to nobody. Where nobody is that far away, these
        # are 2E - V + 1.
        passing = [servent for servent, hops in far.items() if hops < WIDE_TTL]
        links = sum(len(graph[servent]) for servent in passing)
        assert copies(world) - before == links - len(passing) + 1
        assert outcome.servents == len(horizon) - 1
        assert outcome.is_complete
        assert [hit.provider.id for hit in outcome.hits] == [holder.whereabouts.identity.id]
