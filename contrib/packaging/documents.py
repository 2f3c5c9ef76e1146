"""Write the unit of the package, from the one that `p2pfs service install` writes."""

from __future__ import annotations

import sys
from pathlib import Path

from p2pfs.host.service import unit_text


def main(units: Path) -> None:
    (units / "p2pfs.service").write_text(_unit())


def _unit() -> str:
    """Return the unit that `p2pfs service install` writes, for any user and the whole package."""
    lines = unit_text(["mount", "--foreground", "HOME/p2p"]).splitlines()
    kept = [line for line in lines if not line.startswith("# Written by")]
    begin = next(index for index, line in enumerate(kept) if line.startswith("ExecStart="))
    kept[begin] = "ExecStart=/usr/bin/p2pfs mount --foreground %h/p2p"
    return "\n".join(["# From the package p2pfs: systemctl --user enable --now p2pfs", *kept, ""])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
