"""Hosts, routers and servents for one measurement; all are gone at its end."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.hosts import Host, Router, Wan, Wires, open_wires
from tests.helpers.mounted import Servent, Servents, open_servents

PORT = 4774


class Place:
    """A world with servents in it."""

    def __init__(self, wires: Wires, servents: Servents, directory: Path) -> None:
        self.wires = wires
        self.directory = directory
        """For what else it has on the disk."""
        self._servents = servents
        self._homes = 0

    def start(self, name: str, host: Host, *options: str, mounted: bool = True) -> Servent:
        """Start a servent on a host, at every address that it has."""
        options = ("--listen", str(PORT), *options)
        return self._servents.start(name, *options, inside=host.inside, mounted=mounted)

    def home(self, street: Host | Wan, kind: Router = Router.CONE) -> Host:
        """Make a home behind a router, and return a host in it."""
        self._homes += 1
        inside, outside = f"192.168.{self._homes}", f"93.184.216.{10 + self._homes}"
        home = self.wires.router(street, outside, f"{inside}.1", kind)
        return self.wires.host(home, f"{inside}.2", router=f"{inside}.1")


@contextlib.contextmanager
def open_place() -> Iterator[Place]:
    """Give an empty world, and end it."""
    with (
        tempfile.TemporaryDirectory(prefix="p2pfs-reach-") as directory,
        open_wires() as wires,
        open_servents(Path(directory)) as servents,
    ):
        yield Place(wires, servents, Path(directory))
