"""contrib/simulate in a small size, with one servent stopped.

`P2PFS_REAL=200 pytest -s tests/simulation/test_simulate.py` compares its networks with one of so
many real servents.
"""

from __future__ import annotations

import os
import random
import sys

import pytest
import trio
from trio.testing import MockClock

from p2pfs.overlay.degree import WAIT_FOR_DIALS_S
from p2pfs.protocol.flood.filters import NARROWED_APART_S
from tests.documents.reading import ROOT
from tests.helpers.world import open_world

SERVENTS = 100
QUESTIONS = 6
TTL = 4

REAL_SERVENTS = int(os.environ.get("P2PFS_REAL", "60"))

COME_APART_S = 0.1
"""Ten come in a second: their walks are over soon enough."""


@pytest.fixture
def simulation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "contrib"))
    from simulation import report, run  # noqa: PLC0415 - contrib is no package of ours

    yield run, report
    for name in [one for one in sys.modules if one.partition(".")[0] == "simulation"]:
        del sys.modules[name]


@pytest.mark.slow
def test_a_hundred_servents_find_what_there_is_and_filters_save_most(simulation, tmp_path):
    run, report = simulation

    shape, table = run.simulate(SERVENTS, QUESTIONS)

    assert 10 <= shape.degree <= 16
    assert shape.reach[3] == 1.0
    assert [*table] == [(one, how) for one in run.kinds(SERVENTS) for how in run.CONTESTANTS]
    assert {len(results) for results in table.values()} == {QUESTIONS}
    for name in run.kinds(SERVENTS):
        assert report.success(table[name, "p2pfs"]) >= 0.8  # one holder may be the silent one
    absent = mean(table["an absent name", "p2pfs"])
    assert absent < 8 * SERVENTS
    assert 3 * absent < mean(table["an absent name", "without filters"]) < 60 * SERVENTS
    assert mean(table["one copy", "p2pfs"]) < 3 * SERVENTS

    run.draw(tmp_path, SERVENTS, table)
    assert report.result_table(table).count("| p2pfs |") == len(run.kinds(SERVENTS))
    assert "<polyline" in (tmp_path / f"latency-{SERVENTS}.svg").read_text()
    assert "one copy" in (tmp_path / f"success-{SERVENTS}.svg").read_text()


async def test_what_is_published_is_known_two_links_away(autojump_clock: MockClock, simulation):
    """Servents that have told all there was hear of more, and tell that as well."""
    run, _ = simulation
    rng = random.Random(1)
    graph = run.graphs.grow(SERVENTS, rng)
    shares = run.Shares(SERVENTS, rng)
    network = run.SimulatedNetwork(graph, shares, rng, ttl=TTL, has_filters=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.run)
        await network.settle()
        await trio.sleep(NARROWED_APART_S + 1)
        await network.publish(())  # nobody has anything more to tell
        for _ in range(QUESTIONS):
            question = shares.copies(1)
            await network.publish(question.holders)
            (holder,) = question.holders
            ways = [(far, near) for near in graph[holder] for far in graph[near] - {holder}]
            assert all(network.admits(far, near, question, links=2) for far, near in ways)
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_its_networks_have_the_shape_of_one_of_real_servents(
    autojump_clock: MockClock, simulation
):
    run, _ = simulation
    async with open_world(seed=1) as world:
        for number in range(REAL_SERVENTS):
            await world.start(joins=[random.randrange(number)] if number else [])
            await trio.sleep(COME_APART_S)
        await trio.sleep(WAIT_FOR_DIALS_S + 10)
        numbers = {one.whereabouts.identity.id: at for at, one in enumerate(world.servents)}
        graph = [
            {numbers[link.peer.id] for link in servent.overlay.neighbours}
            for servent in world.servents
        ]
    real = run.graphs.shape(graph, random, REAL_SERVENTS)
    grown = run.graphs.grow(REAL_SERVENTS, random.Random(1))
    simulated = run.graphs.shape(grown, random, REAL_SERVENTS)
    print(real, simulated)  # noqa: T201 - the benchmark tells them

    assert simulated.degree == pytest.approx(real.degree, rel=0.15)
    assert simulated.path == pytest.approx(real.path, rel=0.1)
    assert simulated.clustering == pytest.approx(real.clustering, abs=0.1)
    assert simulated.reach[1] == pytest.approx(real.reach[1], abs=0.1)


def mean(results) -> float:
    return sum(result.messages for result in results) / len(results)
