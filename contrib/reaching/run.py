"""The command line of contrib/reach, and its table."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from reaching.bars import BARS, Bar, Measured
from reaching.places import open_place

DOCUMENTS = Path(__file__).parents[1] / "docs"

HEAD = ["| measured | is | must be | met |", "| --- | ---: | ---: | ---: |"]

FAILED = (AssertionError, OSError, ValueError, subprocess.SubprocessError)
"""What makes one measurement fail; the others go on."""


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line names; return 0 if all bars are met."""
    parser = argparse.ArgumentParser(prog="contrib/reach", description=__doc__)
    names = [bar.name for bar in BARS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all")
    parser.add_argument("--document", action="store_true", help="put the rows into the tables")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(names)
    if unknown:
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip", "nft"))):
        sys.exit("contrib/reach needs root, unshare, nsenter, ip and nft")
    os.environ["P2PFS_ALONE"] = "1"
    wanted = [bar for bar in BARS if not options.names or bar.name in options.names]
    rows = [(bar, measured(bar)) for bar in wanted]
    if options.document:
        document(rows)
    return 0 if all(result.is_met for _, result in rows) else 1


def measured(bar: Bar) -> Measured:
    """Measure one thing in a world of its own, and say what came of it."""
    try:
        with open_place() as place:
            result = bar.measure(place)
    except FAILED as error:
        result = Measured(f"failed: {str(error).splitlines()[0] if str(error) else error!r}", False)
    print(f"{bar.title}: {result.figure} (bar {bar.bar})", flush=True)
    return result


def document(rows: Sequence[tuple[Bar, Measured]], documents: Path = DOCUMENTS) -> None:
    """Put rows into the tables where they belong; those that were not measured now stay."""
    new = {bar.name: row(bar, result) for bar, result in rows}
    for name in {bar.document for bar, _ in rows}:
        place = documents / name
        whole, table = place.read_text(), f"reach {name.removesuffix('.md')}"
        found = re.search(rf"(?<=<!-- {table} -->\n).*?(?=<!-- /{table} -->)", whole, re.DOTALL)
        if found is None:
            raise ValueError(f"{place} has no marks of {table}")
        lines = [*HEAD]
        for bar in (bar for bar in BARS if bar.document == name):
            known = (line for line in found[0].splitlines() if line.startswith(f"| {bar.title} |"))
            line = new.get(bar.name) or next(known, None)
            lines += [line] if line is not None else []
        inside = "\n".join(["", *lines, "", ""])
        place.write_text(whole[: found.start()] + inside + whole[found.end() :])


def row(bar: Bar, result: Measured) -> str:
    """Return the row of a table for what was measured."""
    met = "yes" if result.is_met else "no"
    return f"| {bar.title} | {result.figure} | {bar.bar} | {met} |"
