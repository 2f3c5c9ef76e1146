"""All links of this servent: who holds each kind, which peers get none, and how links end.

A neighbour link belongs to the overlay, a transfer link that we dialled to `links`, and one that
a peer dialled to the door. Bans hold for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from p2pfs.config import Config
from p2pfs.journal import Journal
from p2pfs.link import Knocks, Link, Network, TransferLinks, listen
from p2pfs.overlay import Bans, ContactBook, Overlay, OverlayOwner, Whereabouts
from p2pfs.protocol import Address, Bye, ByeCode, ServentId
from p2pfs.reach import NetworkChanges, OwnPort, Ways
from p2pfs.upload import Door, Uploads

LEAVE_S: Final = 1.0
"""How long saying goodbye may take."""


class Peering:
    """All links of a servent, to neighbours and for transfers."""

    def __init__(
        self,
        config: Config,
        network: Network,
        whereabouts: Whereabouts,
        contacts: ContactBook,
        journal: Journal,
        uploads: Uploads,
        wall_clock: Callable[[], float],
    ) -> None:
        self._clock = trio.lowlevel.current_clock().current_time  # for any thread to read
        self._network = network
        self._listen_at = config.listen_host, config.listen_ports
        self.whereabouts = whereabouts
        self.uploads = uploads
        self.bans = Bans()
        self.knocks = Knocks(contacts.has_answered)
        self.overlay = Overlay(
            OwnPort(network, lambda: whereabouts.listener, lambda: self.overlay.neighbours),
            whereabouts,
            contacts,
            journal,
            self.bans,
            self.knocks,
            degree=config.degree,
            min_neighbours=config.min_neighbours,
            max_neighbours=config.max_neighbours,
            wall_clock=wall_clock,
        )
        self._door = Door(whereabouts, self.overlay, uploads, self.is_banned)
        self.ways = Ways(
            network,
            whereabouts,
            lambda: whereabouts.listener,
            lambda: self.overlay.links,
            self._door.judge,
            self._door.serve,
            self.is_banned,
            self.knocks,
            self.overlay.meet,
            relays=config.relay,
            relay_limit=uploads.limit,
        )
        uploads.on_pushed = self.ways.pushed
        self.links = TransferLinks(self.ways.connect, self.is_banned, self._addresses_of)
        """The transfer links that this servent dialled."""
        self.changes = NetworkChanges(network, self._all_links, self._start_afresh, journal)
        self.on_banned: Callable[[ServentId], object] = lambda _peer: None
        """Called with each peer that was banned because of wrong blocks or sizes."""

    async def listen(self) -> None:
        """Listen where the configuration says; nobody is let in before `meet`.

        Raises:
            UsageError: the address cannot be listened on.
        """
        self.whereabouts.listens(await listen(self._network, *self._listen_at))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the transfer links that are dialled here, until cancelled."""
        async with trio.open_nursery() as nursery:
            for part in (self.links, self.ways):
                await nursery.start(part.run)
            task_status.started()

    async def meet(
        self, owner: OverlayOwner, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Let peers in and find neighbours, until cancelled; `owner` gets their events."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.changes.run)
            await nursery.start(self.overlay.run, owner)
            nursery.start_soon(self._door.run, self.whereabouts.listener, self.ways)
            task_status.started()

    async def part(self) -> None:
        """Let nobody in any more, and say goodbye to the neighbours, within LEAVE_S."""
        self._door.shut()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
            await trio.lowlevel.checkpoint()  # peers that are being greeted are gone after it
            await self.overlay.leave()

    def is_banned(self, peer: ServentId) -> bool:
        """Return whether a peer is banned now. Any thread."""
        return self.bans.is_banned(peer, self._clock())

    def lied(self, peer: ServentId) -> None:
        """Note a wrong block or a false size of a peer; after a few the peer is banned."""
        if self.bans.lied(peer, self._clock()):
            bye = Bye(ByeCode.BANNED, "too many wrong blocks or sizes")
            self.links.drop(peer, bye)
            self.overlay.expel(peer, bye)
            self.on_banned(peer)

    def _all_links(self) -> Iterable[Link]:
        return (*self.overlay.neighbours, *self.links.links, *self._door.visitors)

    def _start_afresh(self) -> None:
        """Dial all wanted peers, also those that failed before: the network has changed."""
        self.knocks.start_afresh()
        self.links.start_afresh()
        self.overlay.start_afresh()

    def _addresses_of(self, peer: ServentId) -> Sequence[Address]:
        """Return the addresses of a neighbour: it may have moved since others named it."""
        link = self.overlay.links.get(peer)
        return () if link is None else link.peer.addresses
