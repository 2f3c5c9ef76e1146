"""The laws of flooding, on random networks that run the real routing code."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfs.protocol.flood.decisions import Deliver, Finished, Introduced
from p2pfs.protocol.flood.filters import with_positions
from p2pfs.protocol.flood.routing import WIDE_TTL
from p2pfs.protocol.messages import (
    WALK_STEPS,
    Done,
    Introduce,
    Query,
    QueryHit,
    Walk,
)
from tests.helpers.floodnet import KEYS, Edge, FloodNet, ball, peer_of, query_of

ORIGIN = 0
DEADLINE_S = 5.0
MAX_LATENCY_MS = 90  # two ways fit the margin of one hop

laws = settings(max_examples=60)


@st.composite
def networks(draw: st.DrawFn, depth: int = 8) -> list[Edge]:
    """Draw a connected graph: a tree of at most `depth` below the origin, and more links."""
    size = draw(st.integers(2, 24))
    depth_of = [0]
    edges: set[Edge] = set()
    for servent in range(1, size):
        parents = [s for s in range(servent) if depth_of[s] < depth]
        parent = draw(st.sampled_from(parents))
        depth_of.append(depth_of[parent] + 1)
        edges.add((parent, servent))
    pairs = [(a, b) for b in range(size) for a in range(b)]
    edges.update(draw(st.lists(st.sampled_from(pairs), max_size=2 * size)))
    return sorted(edges)


@st.composite
def uneven_networks(draw: st.DrawFn) -> Mapping[Edge, int]:
    """Draw a network with a latency in milliseconds for each link."""
    edges = draw(networks())
    latencies = st.integers(1, MAX_LATENCY_MS)
    return dict(zip(edges, draw(st.tuples(*[latencies] * len(edges))), strict=True))


def flood(net: FloodNet, ttl: int) -> Finished:
    """Run one search and check what holds for all: one end, after all of its hits."""
    began = len(net.log)
    began_at = net.now
    net.search(ORIGIN, query_of(ttl=ttl, deadline_ms=int(DEADLINE_S * 1000)))
    net.run()
    own = [h for h in net.log[began:] if h.servent == ORIGIN]
    *hits, end = [h for h in own if isinstance(h.decision, Deliver | Finished)]
    assert all(isinstance(h.decision, Deliver) for h in hits)
    assert end.at <= began_at + DEADLINE_S
    finished = end.decision
    assert isinstance(finished, Finished)
    assert (finished.ttl, finished.hits) == (ttl, len(hits))
    assert all(router.statistics().waves == 0 for router in net.routers.values())
    return finished


def providers(net: FloodNet) -> list[str]:
    return sorted(hit.hit.provider.id for hit in net.happened(ORIGIN, Deliver))


def ids_of(servents: set[int]) -> list[str]:
    return sorted(peer_of(servent).id for servent in servents - {ORIGIN})


@laws
@given(networks(depth=WIDE_TTL - 1))
def test_a_query_that_covers_the_network_crosses_2e_minus_v_plus_1_links(
    edges: list[Edge],
) -> None:
    net = FloodNet(edges)
    finished = flood(net, WIDE_TTL)
    crossed = 2 * len(edges) - len(net.routers) + 1
    assert net.sent[Query] == crossed
    assert net.sent[Done] == len(net.routers) - 1
    assert finished == Finished(
        query_of().guid, WIDE_TTL, len(net.routers) - 1, len(net.routers) - 1, is_complete=True
    )


@laws
@given(networks(), st.integers(1, WIDE_TTL))
def test_a_query_reaches_exactly_the_servents_within_its_ttl(edges: list[Edge], ttl: int) -> None:
    net = FloodNet(edges)
    finished = flood(net, ttl)
    reached = ball(edges, ORIGIN, ttl)
    assert net.answers == dict.fromkeys(reached - {ORIGIN}, 1)
    assert providers(net) == ids_of(reached)
    assert (finished.servents, finished.is_complete) == (len(reached) - 1, True)


@laws
@given(uneven_networks(), st.integers(1, WIDE_TTL), st.integers(0, 50), st.sets(st.integers(0, 23)))
def test_it_does_so_when_copies_overtake_each_other(
    network: Mapping[Edge, int], ttl: int, answer_ms: int, older: set[int]
) -> None:
    net = FloodNet(network, latency_ms=network, answer_ms=answer_ms, older=older)
    finished = flood(net, ttl)
    reached = ball(network, ORIGIN, ttl)
    assert net.answers == dict.fromkeys(reached - {ORIGIN}, 1)
    assert providers(net) == ids_of(reached)
    assert (finished.servents, finished.is_complete) == (len(reached) - 1, True)


@laws
@given(uneven_networks(), st.integers(1, WIDE_TTL))
def test_each_copy_is_ended_by_one_done_where_nobody_takes_a_crossing_one_for_it(
    network: Mapping[Edge, int], ttl: int
) -> None:
    net = FloodNet(network, latency_ms=network, older=range(24))
    flood(net, ttl)
    assert net.sent[Query] == net.sent[Done]


@laws
@given(uneven_networks())
def test_the_rings_of_a_search_ask_each_servent_once(network: Mapping[Edge, int]) -> None:
    net = FloodNet(network, latency_ms=network)
    for ttl in range(1, 5):
        finished = flood(net, ttl)
        new = ball(network, ORIGIN, ttl) - ball(network, ORIGIN, ttl - 1)
        assert (finished.servents, finished.hits) == (len(new), len(new))
        assert finished.is_complete
    assert set(net.answers.values()) <= {1}
    assert providers(net) == ids_of(ball(network, ORIGIN, 4))


@laws
@given(uneven_networks(), st.data())
def test_a_search_that_lost_a_link_ends_and_is_complete_only_if_it_is(
    network: Mapping[Edge, int], data: st.DataObject
) -> None:
    net = FloodNet(network, latency_ms=network, answer_ms=20)
    lost = data.draw(st.sampled_from(sorted(network)))
    net.at(data.draw(st.integers(0, 400)) / 1000, lambda: net.cut(*lost))
    finished = flood(net, WIDE_TTL)
    left = ball(network.keys() - {lost}, ORIGIN, WIDE_TTL)
    if finished.is_complete:
        assert set(providers(net)) >= set(ids_of(left))


@laws
@given(uneven_networks(), st.data())
def test_a_silent_servent_costs_its_own_answer_and_the_time_to_the_deadline(
    network: Mapping[Edge, int], data: st.DataObject
) -> None:
    net = FloodNet(network, latency_ms=network)
    reached = ball(network, ORIGIN, WIDE_TTL)
    silent = data.draw(st.sampled_from(sorted(reached - {ORIGIN})))
    net.silence(silent)
    finished = flood(net, WIDE_TTL)
    others = ball((e for e in network if silent not in e), ORIGIN, WIDE_TTL)
    assert not finished.is_complete
    assert providers(net) == ids_of(others)
    # Each deadline is shorter than the one before, so even the late counts arrive in time.
    assert finished.servents == len(others) - 1


@laws
@given(networks(), st.data())
def test_with_filters_a_search_finds_all_that_it_finds_without(
    edges: list[Edge], data: st.DataObject
) -> None:
    servents = sorted({servent for edge in edges for servent in edge})
    holders = data.draw(st.sets(st.sampled_from(servents)))
    silent = data.draw(st.sets(st.sampled_from(servents), max_size=2))
    ttl = data.draw(st.integers(1, WIDE_TTL))
    shared = with_positions(0, KEYS.of_shares([("blue whale.mkv", False)]))
    found: list[list[str]] = []
    for has_filters in (False, True):
        net = FloodNet(edges, holders=holders)
        if has_filters:
            net.tell_filters(dict.fromkeys(holders, shared), silent=silent)
        finished = flood(net, ttl)
        assert finished.is_complete
        found.append(sorted(providers(net)))
    assert found[0] == found[1]


def messages_of_searches(count: int, *, has_filters: bool) -> list[int]:
    """Return what searches for what one servent has cost, each in rings that end as ours do."""
    costs = []
    for seed in range(count):
        edges, origin = random_graph(200, 6, seed), 0
        holder = 100 + seed
        net = FloodNet(edges, latency_ms=20, holders={holder})
        shared = with_positions(0, KEYS.of_shares([("blue whale.mkv", False)]))
        if has_filters:
            net.tell_filters({holder: shared})
        before = net.sent.total()
        for ttl in range(1, WIDE_TTL + 1):
            net.search(origin, query_of(guid=1, ttl=ttl))
            net.run()
            ring = net.happened(origin, Finished)[-1]
            assert isinstance(ring, Finished)
            if ring.hits or not (ring.servents or ring.skipped):
                break
        assert net.happened(origin, Deliver), "every search finds it"
        costs.append(net.sent.total() - before)
    return costs


def test_filters_save_most_messages_and_lose_no_search() -> None:
    without = messages_of_searches(8, has_filters=False)
    assert sum(messages_of_searches(8, has_filters=True)) < sum(without) / 5


@pytest.mark.parametrize("after_ms", [0, 15, 30, 45])
def test_a_search_that_has_enough_ends_everywhere_and_saves_hits(after_ms: int) -> None:
    costs = []
    for has_enough in (False, True):
        net = FloodNet(random_graph(100, 6, seed=3), latency_ms=10)
        net.search(ORIGIN, query_of(ttl=4))
        if has_enough:
            net.at(after_ms / 1000, lambda net=net: net.enough(ORIGIN))
        net.run()
        assert all(router.statistics().waves == 0 for router in net.routers.values())
        costs.append(net.sent.copy())
    assert costs[1][QueryHit] < costs[0][QueryHit]
    assert costs[1].total() < 1.4 * costs[0].total()


def test_a_search_without_neighbours_is_over_at_once() -> None:
    net = FloodNet([(0, 1)])
    net.cut(0, 1)
    assert flood(net, 3) == Finished(query_of().guid, 3, 0, 0, is_complete=True)


def random_graph(size: int, degree: int, seed: int) -> list[Edge]:
    choose = random.Random(seed)
    edges = {(choose.randrange(b), b) for b in range(1, size)}
    while len(edges) < size * degree // 2:
        a, b = sorted(choose.sample(range(size), 2))
        edges.add((a, b))
    return sorted(edges)


def test_two_hundred_servents_are_all_found() -> None:
    edges = random_graph(200, 12, seed=1)
    net = FloodNet(edges)
    finished = flood(net, WIDE_TTL)
    assert (finished.servents, finished.hits, finished.is_complete) == (199, 199, True)
    assert net.sent[Query] == 2 * len(edges) - 200 + 1


# Walks.


def test_a_walk_takes_ten_steps_and_its_introduction_comes_back() -> None:
    net = FloodNet([(a, (a + 1) % 40) for a in range(40)])
    net.walk(ORIGIN, 1)
    net.run()
    [introduced] = net.happened(ORIGIN, Introduced)
    assert introduced.peer in (peer_of(WALK_STEPS), peer_of(40 - WALK_STEPS))
    assert net.sent[Walk] == net.sent[Introduce] == WALK_STEPS


def test_a_walk_ends_early_where_there_is_no_way_on() -> None:
    net = FloodNet([(0, 1), (1, 2), (2, 3)])
    net.walk(ORIGIN, 1)
    net.run()
    assert [i.peer for i in net.happened(ORIGIN, Introduced)] == [peer_of(3)]


def test_walks_end_all_over_the_network() -> None:
    net = FloodNet(random_graph(100, 6, seed=2), seed=3)
    for number in range(300):
        net.at(float(number), lambda number=number: net.walk(ORIGIN, number))
    net.run()
    introduced = net.happened(ORIGIN, Introduced)
    ends = {i.peer.id for i in introduced}
    assert len(introduced) > 280  # the rest came home
    assert len(ends) > 70  # 95 % of 99 would be hit by as many uniform draws


@pytest.mark.parametrize("seed", range(20))
def test_an_introduction_finds_its_way_back_through_loops(seed: int) -> None:
    triangle_with_tail = [(0, 1), (1, 2), (2, 3), (1, 3), (3, 4), (2, 4)]
    net = FloodNet(triangle_with_tail, seed=seed)
    net.walk(ORIGIN, 1)
    net.run()
    came_home = sum(net.routers[ORIGIN].statistics().drops.values())
    assert len(net.happened(ORIGIN, Introduced)) + came_home == 1
