"""The command line of contrib/hostile, and its table."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attacking import mutants
from attacking.attacks import ATTACKS
from attacking.watching import MIB, Noticed, open_place

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "contrib" / "docs" / "hostile.md"

BEFORE_S, DURING_S, AFTER_S = 4.0, 12.0, 3.0
"""The second is long enough for two hundred looks: of fewer the 99th percentile is the worst."""

SETTLED_S = 1.5
"""Between the start of an attack and the first look; after its end likewise."""

MOST_TIMES = 2.0
LEAST_S = 0.1
"""What nobody notices, however often it is multiplied."""

MOST_MIB = 200.0
EXAMPLES_PER_MINUTE = 600
"""Of the fuzzer, on one core."""

_MARKED = re.compile(r"(?<=<!-- hostile -->\n).*?(?=<!-- /hostile -->)", re.DOTALL)

FAILED = (AssertionError, OSError, ValueError, subprocess.SubprocessError)
"""What makes one attack fail to be measured; the others go on."""


@dataclass(frozen=True)
class Row:
    """What came of one attack."""

    title: str
    phases: tuple[Noticed, Noticed, Noticed]
    newcomer_s: float
    shows_all: bool
    film_error: str
    load: float
    """Of the machine, when it was over."""

    def misses(self) -> list[str]:
        """Return what is not as it must be."""
        before, during, _ = self.phases
        slow = [
            what
            for what, was, is_now in (
                ("ls", before.ls_s, during.ls_s),
                ("open", before.open_s, during.open_s),
            )
            if _percentile(is_now) > max(LEAST_S, MOST_TIMES * _percentile(was))
        ]
        checks = {
            "download": during.film_bytes_s * MOST_TIMES < before.film_bytes_s,
            "memory": during.peak_bytes > MOST_MIB * MIB,
            "errors": during.errors > 0 or bool(self.film_error),
            "names": not self.shows_all,
            "newcomer": math.isinf(self.newcomer_s),
            "processor": during.processor - before.processor > max(0.05, during.attacker),
        }
        return slow + [what for what, is_missed in checks.items() if is_missed]

    def markdown(self) -> str:
        """Return its line of the table."""
        phases = self.phases
        cells = [
            self.title,
            " / ".join(f"{_percentile(one.ls_s) * 1e3:.0f}" for one in phases),
            " / ".join(f"{_percentile(one.open_s) * 1e3:.0f}" for one in phases),
            " / ".join(f"{one.film_bytes_s / 1e6:.1f}" for one in phases),
            f"{self.newcomer_s:.1f}",
            f"{max(one.peak_bytes for one in phases) / MIB:.0f}",
            f"{phases[0].processor:.2f} / {phases[1].processor:.2f}",
            f"{phases[1].attacker:.2f}",
            ", ".join(self.misses()) or "nothing",
        ]
        return f"| {' | '.join(cells)} |"


def _percentile(values: Sequence[float]) -> float:
    """Return the 99th percentile; 0 without values."""
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0


def main(arguments: Sequence[str]) -> int:
    """Attack as the command line says; return 0 if nothing is missed."""
    parser = argparse.ArgumentParser(prog="contrib/hostile", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ATTACKS)}; all")
    parser.add_argument("--document", action="store_true", help=f"put the table into {DOCUMENT}")
    parser.add_argument(
        "--mutants", action="store_true", help="take out each defence, and see its tests red"
    )
    parser.add_argument("--fuzz", type=int, metavar="MINUTES", help="run the fuzzers instead")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(ATTACKS)
    if unknown:
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")
    os.environ["P2PFS_ALONE"] = "1"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # leave nothing behind
    if options.mutants:
        return mutants.run()
    if options.fuzz:
        return fuzz(options.fuzz)
    rows = [row for name in options.names or ATTACKS if (row := measured(name)) is not None]
    if options.document:
        put_between_marks(DOCUMENT, markdown(rows))
    return 0 if rows and not any(row.misses() for row in rows) else 1


def fuzz(minutes: int) -> int:
    """Let the fuzzers of tests/fuzz look for about so long."""
    examples = str(minutes * EXAMPLES_PER_MINUTE)
    no_limits = ("-o", "timeout=0", "-o", "faulthandler_timeout=0")
    command = [sys.executable, "-m", "pytest", *no_limits, "tests/fuzz/test_fuzz_links.py"]
    environment = os.environ | {"P2PFS_FUZZ_EXAMPLES": examples}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def measured(name: str) -> Row | None:
    """Attack two servents of its own, and say what came of it."""
    title, _ = ATTACKS[name]
    try:
        row = _measure(name, title)
    except FAILED as error:
        print(f"{title}: failed: {error!r}", flush=True)
        return None
    print(row.markdown(), flush=True)
    if row.film_error:
        print(f"{title}: the film: {row.film_error}", flush=True)
    return row


def _measure(name: str, title: str) -> Row:
    with open_place() as place:
        place.notice(SETTLED_S)
        before = place.notice(BEFORE_S)
        with place.attacked(name) as attacker:
            place.notice(SETTLED_S)
            during = place.notice(DURING_S, attacker)
            shows_all = place.shows_all()
            newcomer_s = place.newcomer_s()
        place.notice(SETTLED_S)
        after = place.notice(AFTER_S)
        return Row(
            title,
            (before, during, after),
            newcomer_s,
            shows_all,
            place.film_error,
            os.getloadavg()[0],
        )


def markdown(rows: Sequence[Row]) -> str:
    """Return the table."""
    head = (
        "attack", "`ls` (ms)", "open (ms)", "download (MB/s)", "newcomer (s)", "memory (MiB)",
        "cores of the honest", "of the attacker", "misses",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 2)} --- |"]
    loads = [row.load for row in rows] or [0.0]
    measured_at = f"{os.cpu_count()} cores, load {min(loads):.1f} to {max(loads):.1f}."
    return "\n".join([*lines, *(row.markdown() for row in rows), "", measured_at])


def put_between_marks(document: Path, text: str) -> None:
    """Replace what stands between the marks of a document."""
    new, count = _MARKED.subn(lambda _: f"\n{text}\n\n", document.read_text())
    if count != 1:
        raise ValueError(f"{document} has not one pair of marks")
    document.write_text(new)
