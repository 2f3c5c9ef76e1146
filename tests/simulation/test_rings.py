"""Stopped servents among fifty cost a search half a second at most, and none of its hits."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from p2pfs.protocol.messages import Entry, QueryKind
from tests.helpers.livefloods import LiveFlood, random_graph

SERVENTS = 50
DIALS = 3
SEEDS = int(os.environ.get("P2PFS_SEEDS", "16"))
"""Networks that are tried; 200 take four minutes."""

RINGS = range(1, 5)
LATENCIES_MS = (10, 80)
LATER_S = 0.5
DONE_WITHIN_S = 1.5


@dataclass(frozen=True)
class Search:
    """What came of one search."""

    took_s: float
    has_found: bool
    is_complete: bool


async def search(seed: int, stopped: int, kind: QueryKind) -> Search:
    """Search from the first servent for what one other has, with so many stopped ones."""
    rng = random.Random(seed)
    edges = random_graph(SERVENTS, DIALS, rng)
    latency_ms = {edge: rng.randint(*LATENCIES_MS) for edge in sorted(edges)}
    holder, *silent = rng.sample(range(1, SERVENTS), SERVENTS - 1)[: 1 + stopped]
    net = LiveFlood(edges, latency_ms, {holder: ENTRY})
    for servent in silent:
        net.silence(servent)
    began_at = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(net.run_live)
        outcome = await net.searches.run(
            kind,
            ENTRY.path if kind is QueryKind.PATH else "whale",
            rings=RINGS,
            timeout_s=5,
            is_enough=bool if kind is QueryKind.PATH else lambda _hits: False,
        )
        nursery.cancel_scope.cancel()
    return Search(trio.current_time() - began_at, bool(outcome.hits), outcome.is_complete)


ENTRY = Entry("whale.mkv", 1, 1, bytes(range(32)))


def searches(stopped: int, kind: QueryKind) -> list[Search]:
    clock = MockClock(autojump_threshold=0)
    return [trio.run(search, seed, stopped, kind, clock=clock) for seed in range(SEEDS)]


def late(times_s: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(times_s)[int(len(times_s) * 0.95)]


@pytest.mark.parametrize("kind", [QueryKind.PATH, QueryKind.WORDS], ids=lambda kind: kind.name)
def test_stopped_servents_hold_up_a_search_for_half_a_second_at_most(kind: QueryKind):
    without = searches(0, kind)
    assert all(one.has_found for one in without)

    for stopped in (1, 3, 10):
        among = searches(stopped, kind)
        later_s = [one.took_s - base.took_s for one, base in zip(among, without, strict=True)]

        assert [one.has_found for one in among] == [one.has_found for one in without]
        assert late(later_s) <= LATER_S
        assert late([one.took_s for one in among]) <= DONE_WITHIN_S
        assert not any(one.is_complete for one in among if kind is QueryKind.WORDS)
