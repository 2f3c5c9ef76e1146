"""Take out each defence, one at a time, and see its tests in tests/hostile turn red."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
TABLE: Final = Path(__file__).with_name("mutants.toml")
TESTS_FAILED: Final = 1
"""The exit status of pytest when tests have run, and some are red."""


@dataclass(frozen=True)
class Mutant:
    """A defence, and what the code is without it."""

    defence: str
    tests: Sequence[str]
    file: str
    old: str
    new: str

    def is_there(self) -> bool:
        """Return whether the code still has the defence, in one place."""
        return (ROOT / self.file).read_text().count(self.old) == 1


def table() -> dict[str, Any]:
    """Return what mutants.toml says."""
    return tomllib.loads(TABLE.read_text())


def mutants() -> list[Mutant]:
    """Return all mutants."""
    return [Mutant(**one) for one in table()["mutant"]]


def run() -> int:
    """Try every mutant; return 0 if all its tests are red without the defence."""
    alive = 0
    for mutant in mutants():
        for test in mutant.tests:
            is_red = is_seen(mutant, test)
            alive += not is_red
            print(f"{'red' if is_red else 'GREEN'}: {test} without: {mutant.defence}", flush=True)
    return 1 if alive else 0


def is_seen(mutant: Mutant, test: str) -> bool:
    """Return whether a test turns red when the defence is taken out of a copy of the code."""
    assert mutant.is_there(), mutant
    with tempfile.TemporaryDirectory(prefix="p2pfs-mutant-") as directory:
        copy = Path(directory)
        shutil.copytree(ROOT / "p2pfs", copy / "p2pfs")
        shutil.copy(ROOT / "pyproject.toml", copy)
        for folder in ("tests", "contrib"):
            (copy / folder).symlink_to(ROOT / folder)
        file = copy / mutant.file
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
        command = [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
            "--import-mode=importlib", f"tests/hostile/{test}",
        ]  # fmt: skip
        done = subprocess.run(
            command, cwd=copy, env=os.environ | {"PYTHONPATH": directory},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode not in (0, TESTS_FAILED):
        raise AssertionError(f"{test} did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.returncode == TESTS_FAILED
