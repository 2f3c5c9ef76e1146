"""The table of defences that are taken out one by one is one of the code and tests as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contrib.attacking import mutants

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def hostile_tests() -> set[str]:
    files = (ROOT / "tests" / "hostile").glob("test_*.py")
    return {f"{file.name}::{name}" for file in files for name in TEST.findall(file.read_text())}


@pytest.mark.parametrize("mutant", mutants.mutants(), ids=lambda one: one.defence)
def test_the_defence_is_where_the_table_says(mutant: mutants.Mutant):
    assert mutant.is_there()


def test_each_hostile_test_has_a_defence_that_it_needs():
    of_mutants = {test for mutant in mutants.mutants() for test in mutant.tests}
    laws = {law["test"] for law in mutants.table()["law"]}
    assert of_mutants | laws == hostile_tests()
    assert not of_mutants & laws
