"""A line with a delay and a rate, and p2pfs at its far end."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestants import P2pfs, link_tree
from benchmarks.far import LINE, PORT
from benchmarks.workshop import Workshop


@dataclass(frozen=True)
class Distance:
    """One line."""

    name: str
    round_trip_ms: float
    mb_per_s: float
    stalling: float = 0.0

    def start(self, workshop: Workshop, target: str | Path) -> int:
        """Put the line before a port, or the port that a file will name; return where it begins."""
        words = (str(target), str(self.round_trip_ms), str(self.mb_per_s))
        command = (sys.executable, "-P", Path(__file__).with_name("relay.py"), *words)
        relay = workshop.start((*command, "--stalling", str(self.stalling)))
        relay.wait_for(lambda: relay.output().startswith("port "), "port")
        return int(relay.output().split()[1])


class FarP2pfs(P2pfs):
    """p2pfs with the line before the servent that is read from."""

    command = (sys.executable, "-P", str(Path(__file__).with_name("far.py")))

    def __init__(self, workshop: Workshop, files: Path, distance: Distance) -> None:
        """Start the line and the servent behind it."""
        self._workshop = workshop
        state = workshop.directory("source")
        port = distance.start(workshop, state / PORT)
        (state / LINE).write_text(str(port))
        count = link_tree(files, state / "shared")
        self.address = self.serve(state, count)[0]
