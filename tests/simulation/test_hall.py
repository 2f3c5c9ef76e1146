"""A full hall of real servents, as `contrib/simulate --hall` fills it.

`P2PFS_PEOPLE=60 pytest -s tests/simulation/test_hall.py` is fuller, and takes three times as long.
"""

from __future__ import annotations

import os
import sys

import pytest
import trio
from trio.testing import MockClock

from tests.documents.reading import ROOT

PEOPLE = int(os.environ.get("P2PFS_PEOPLE", "40"))
PHASE_S = 6.0
A_LOOK_S = 1.0

SHOW_WHO_HAS_LEFT = 0.1
"""The part of the looks after a third has left: neighbours hear of it at once, others soon."""


@pytest.fixture
def hall(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "contrib"))
    from simulation import hall  # noqa: PLC0415 - contrib is no package of ours

    yield hall
    for name in [one for one in sys.modules if one.partition(".")[0] == "simulation"]:
        del sys.modules[name]


@pytest.mark.slow
def test_everybody_in_a_hall_sees_all_there_is_whoever_comes_and_goes(hall):
    figures = trio.run(hall.fill, PEOPLE, 1, PHASE_S, clock=MockClock(autojump_threshold=0))

    print(hall.hall_table(figures))  # noqa: T201 - the benchmark tells them
    assert [*figures.looks] == [*hall.PHASES]
    for phase, looks in figures.looks.items():
        present = PEOPLE - PEOPLE // 3 * (phase == hall.PHASES[1])
        assert len(looks) >= 2 * present
        assert not [one for one in looks if one.missing or not one.is_whole]
        assert hall.quantile([one.took_s for one in looks], 0.95) <= A_LOOK_S
    after = figures.looks[hall.PHASES[1]]
    assert sum(bool(one.gone) for one in after) <= SHOW_WHO_HAS_LEFT * len(after)
