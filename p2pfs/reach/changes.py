"""Notice that the network of this machine has changed, or that the machine has slept.

A connection does not end when its own address goes, a cable is pulled, or the lid of a laptop is
closed: it is only silent, like an idle one. So at each such change the links whose own address is
gone are ended at once, the others are asked whether they still lead anywhere, and those that could
not be reached are dialled anew.

This is the one watch over the machine. The room and the router ask here when to compare
addresses again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio

from p2pfs.journal import Journal
from p2pfs.link import Link, Network, Surroundings
from p2pfs.protocol import without_zone
from p2pfs.tasks import kept_up

SETTLE_S: Final = 0.5
"""Changes come in bursts: an interface, its addresses, its routes. This is how long one is waited
for."""

PROOF_S: Final = 3.0
"""How long a peer has to answer a PING after a change."""

CLOCK_S: Final = 5.0
"""How often the clock is read."""

SLEPT_S: Final = 10.0
"""If a reading comes so much late, the machine or the process was stopped."""


def clock_of_machine() -> float:
    """Return the seconds since the machine was started, those in which it slept too."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Machine(Protocol):
    """How this machine is connected, for those who follow it."""

    @property
    def version(self) -> int:
        """Another number whenever the machine may be connected otherwise."""
        ...

    async def wait_changed(self, version: int) -> int:
        """Wait until the version is another one, and return it."""
        ...


class NetworkChanges:
    """Ends and asks links when the network of this machine has changed."""

    def __init__(
        self,
        network: Network,
        links: Callable[[], Iterable[Link]],
        start_afresh: Callable[[], None],
        journal: Journal,
        clock: Callable[[], float] = clock_of_machine,
    ) -> None:
        """Watch over `links`; `start_afresh` is called when all that failed may succeed now."""
        self._network = network
        self._links = links
        self._start_afresh = start_afresh
        self._journal = journal
        self._clock = clock
        self.version = 0
        """Another number whenever this machine may be connected otherwise."""
        self._told = trio.lowlevel.ParkingLot()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept_up, self._watch_network)
            nursery.start_soon(kept_up, self._watch_clock)
            task_status.started()

    async def wait_changed(self, version: int) -> int:
        """Wait until the version is another one, and return it."""
        while self.version == version:
            await self._told.park()
        return self.version

    def _tell(self) -> None:
        self.version += 1
        self._told.unpark_all()

    async def _watch_network(self) -> None:
        async with self._network.changes() as wait_change:
            known = self._network.surroundings()
            while True:
                await wait_change()
                await trio.sleep(SETTLE_S)
                self._tell()
                now = self._network.surroundings()
                if now != known:  # leases and routes are renewed all the time
                    self._changed(now, "the network of this machine has changed")
                known = now

    async def _watch_clock(self) -> None:
        looked_at = self._clock()
        while True:
            await trio.sleep(CLOCK_S)
            now = self._clock()
            late_s, looked_at = now - looked_at - CLOCK_S, now
            if late_s > SLEPT_S:
                surroundings = self._network.surroundings()
                self._tell()
                self._changed(surroundings, f"this machine has slept for {late_s:.0f} s")

    def _changed(self, now: Surroundings, why: str) -> None:
        self._journal.info(why)
        for link in tuple(self._links()):
            if without_zone(link.local).host in now.hosts or not now.hosts:
                link.prove(PROOF_S)
            else:
                link.lose(f"this machine has not the address {link.local.host} any more")
        self._start_afresh()
