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

DOCUMENT = Path(__file__).parents[1] / "docs" / "reach.md"

_MARKED = re.compile(r"(?<=<!-- reach -->\n).*?(?=<!-- /reach -->)", re.DOTALL)

FAILED = (AssertionError, OSError, ValueError, subprocess.SubprocessError)
"""What makes one measurement fail; the others go on."""


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line names; return 0 if all bars are met."""
    parser = argparse.ArgumentParser(prog="contrib/reach", description=__doc__)
    names = [bar.name for bar in BARS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}; all")
    parser.add_argument("--document", action="store_true", help=f"put the table into {DOCUMENT}")
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
        put_between_marks(DOCUMENT, markdown(rows))
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


def markdown(rows: Sequence[tuple[Bar, Measured]]) -> str:
    """Return the table."""
    lines = ["| measured | is | must be | met |", "| --- | ---: | ---: | ---: |"]
    for bar, result in rows:
        met = "yes" if result.is_met else "no"
        lines.append(f"| {bar.title} | {result.figure} | {bar.bar} | {met} |")
    return "\n".join(lines)


def put_between_marks(document: Path, text: str) -> None:
    """Replace what stands between the marks of a document."""
    new, count = _MARKED.subn(lambda _: f"\n{text}\n\n", document.read_text())
    if count != 1:
        raise ValueError(f"{document} has not one pair of marks")
    document.write_text(new)
