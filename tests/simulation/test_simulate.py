"""contrib/simulate in a small size, with one servent stopped."""

from __future__ import annotations

import sys

import pytest

from tests.documents.reading import ROOT

SERVENTS = 100
QUESTIONS = 6


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


def mean(results) -> float:
    return sum(result.messages for result in results) / len(results)
