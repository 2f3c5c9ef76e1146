"""One running p2pfs, server and client at once.

The servent opens everything below it and owns every long-lived task; each part knows only
the little it needs of the others. The tree and the verbs reach the parts through it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping

import trio

from p2pfs.acts import Acts
from p2pfs.arrivals import Arrivals
from p2pfs.config import Config
from p2pfs.download import Pins, Reader, Swarms
from p2pfs.journal import Journal
from p2pfs.keys import accept_invitations, load_identity, load_network_key
from p2pfs.library import Watch
from p2pfs.link import Network, TcpNetwork
from p2pfs.namespace import Here, Namespace, RemoteFile, Tellers
from p2pfs.ondisk import OnDisk
from p2pfs.overlay import Announcer, MessageRouter, Whereabouts
from p2pfs.peering import Peering
from p2pfs.protocol import FileId, PeerInfo
from p2pfs.protocol.flood import Keys
from p2pfs.reach import Beyond, FileLinks, Inviting
from p2pfs.report import Report
from p2pfs.tasks import kept_up
from p2pfs.threads import RunInThread
from p2pfs.upload import Offer, PublicShare, Uploads

Clock = Callable[[], float]


@contextlib.asynccontextmanager
async def open_servent(
    config: Config,
    *,
    network: Network | None = None,
    wall_clock: Clock = time.time,
    run_in_thread: RunInThread | None = None,
    watch: Watch | None = None,
) -> AsyncIterator[Servent]:
    """Run a servent for the length of the block; at its end it has left the network.

    Inside the block it listens and accepts; joining goes on behind. Tests that run on
    virtual time give the wall clock and a `run_in_thread` that just calls. With a `watch`
    it notices changes in the backing directory that the mount has not made.

    Raises:
        UsageError: the address cannot be listened on, or the state directory is unusable.
    """
    config = accept_invitations(config, wall_clock())
    servent = Servent(config, network or TcpNetwork(), wall_clock, run_in_thread, watch)
    with contextlib.closing(servent.history):
        async with servent.running():
            yield servent


class Servent:
    """The owner of all parts. Opened by `open_servent`."""

    def __init__(
        self,
        config: Config,
        network: Network,
        wall_clock: Clock,
        run_in_thread: RunInThread | None,
        watch: Watch | None,
    ) -> None:
        self._clock = trio.lowlevel.current_clock().current_time  # for any thread to read
        self._tellers = Tellers()
        self.journal = Journal(wall_clock)
        self.whereabouts = Whereabouts(load_identity(config), load_network_key(config), config.name)
        disk = self._disk = OnDisk(config, self.journal, wall_clock, run_in_thread, watch)
        self.settings, self.history, self.roots = disk.settings, disk.history, disk.roots
        self.library, self.cache, self.contacts = disk.library, disk.cache, disk.contacts
        self.leftovers = disk.leftovers
        self.offer = Offer(
            disk.library,
            disk.cache,
            reshare=config.reshare,
            audience=disk.roots.audiences,
            is_confided=lambda one: self.namespace.confided.holds(one),  # noqa: PLW0108 - yet to come
        )
        self.uploads = Uploads(self.offer, seen_by=self.offer.seen_by)
        peering = self.peering = Peering(
            config, network, self.whereabouts, disk.contacts, self.journal, self.uploads, wall_clock
        )
        self.overlay, self.ways, self.changes = peering.overlay, peering.ways, peering.changes
        self._open_flood(config, wall_clock)
        self._open_names(config, wall_clock)
        self._open_downloads(config)
        self._open_beyond(network)
        self._connect_parts(wall_clock)
        self._open_verbs(config, wall_clock)

    def _open_flood(self, config: Config, wall_clock: Clock) -> None:
        """Open the parts that send and answer queries."""
        us = self.whereabouts
        keys = Keys(us.network_key.network_id)
        self.message_router = MessageRouter(
            us.identity, us.info, self.offer, self.overlay, self.journal, keys, wall_clock
        )
        self._announcer = Announcer(
            PublicShare(self.library, self.offer),
            self.message_router,
            keys,
            ttl=config.ttl,
            wall_clock=wall_clock,
        )

    def _open_names(self, config: Config, wall_clock: Clock) -> None:
        """Open the parts that know the names of others' files."""
        disk, peering = self._disk, self.peering
        names = self.namespace = Namespace(
            Here(
                size_of=disk.size_of,
                is_whole=disk.cache.is_whole,
                chosen=self.overlay.chosen,
                is_refused=peering.is_banned,
                on_lie=peering.lied,
                groups_of=self._tellers.groups_of,
            ),
            self.message_router.searches,
            peering.links,
            self.journal,
            neighbours=lambda: [link.peer for link in self.overlay.neighbours],
            path_of=lambda file_id: self.swarms.path_of(file_id),  # noqa: PLW0108 - yet to come
            ttl=config.ttl,
            clock=self._clock,
            wall_clock=wall_clock,
            kept_path=os.fspath(config.searches_path),
            confided_path=os.fspath(config.confided_path),
        )
        self.browser, self.results, self.shares = names.browser, names.results, names.shares

    def _open_downloads(self, config: Config) -> None:
        """Open the parts that fetch files."""
        disk, peering = self._disk, self.peering
        self.swarms = Swarms(
            disk.cache,
            self.namespace.catalogue,
            self.message_router.searches,
            peering.links,
            self.journal,
            ttl=config.ttl,
            stall_timeout_s=config.stall_timeout_s,
            own_id=self.whereabouts.identity.id,
            on_bad_block=peering.lied,
        )
        self.pins = Pins(
            os.fspath(config.pins_path),
            disk.pinned,
            disk.cache,
            self.namespace.catalogue,
            self.journal,
            open_reader=self._open_for_pin,
            has_neighbours=lambda: bool(self.overlay.neighbours),
            run_in_thread=disk.run_in_thread,
        )

    def _open_beyond(self, network: Network) -> None:
        """Open the parts that reach servents beyond the horizon."""
        peering = self.peering
        self.file_links = FileLinks(self.whereabouts)
        self.beyond = Beyond(
            network,
            self.whereabouts,
            self.overlay,
            peering.links,
            peering.knocks,
            self.changes,
            wanted=self._told_beyond,
            is_secret=self.namespace.confided.holds,
            is_banned=peering.is_banned,
        )

    def _connect_parts(self, wall_clock: Clock) -> None:
        """Let each part know of the events of others that it depends on."""
        peering = self.peering
        self._arrivals = Arrivals(
            self.whereabouts,
            self.message_router,
            peering.links,
            self.ways,
            self.beyond,
            self.browser.comings,
            self.swarms,
            self.pins,
            self._tellers,
            self._announcer,
            wall_clock,
        )
        self.message_router.on_hit = self._arrivals.hit_came
        self.message_router.on_named = peering.knocks.named
        self.message_router.on_news = self._arrivals.heard_news
        peering.links.on_opened = self._tellers.proved
        peering.on_banned = self.browser.comings.left
        self.swarms.on_fetched = self._fetched
        self.settings.follow("upload-limit", self.uploads.limit)
        self.settings.follow("download-limit", self.swarms.limit)
        self.settings.on_change("no-reshare", self.offer.follow)
        self.settings.on_change("stall-timeout", self.swarms.follow)

    def _open_verbs(self, config: Config, wall_clock: Clock) -> None:
        """Open what the verbs ask for (control.needed.Servent)."""
        disk = self._disk
        self.find_content = self.namespace.contents.find
        self.inviting = Inviting(
            config, self.overlay, self.whereabouts, self.journal, disk.run_in_thread, wall_clock
        )
        acts = Acts(self.overlay, self.inviting, self.file_links, self.beyond, self.namespace, disk)
        self.join, self.invite, self.leave = acts.join, acts.invite, acts.leave
        self.open_link = acts.open_link
        self.pause, self.resume, self.clear_cache = acts.pause, acts.resume, acts.clear_cache
        self.report = Report(
            clock=self._clock,
            started_at=self._clock(),
            journal=self.journal,
            disk=disk,
            peering=self.peering,
            message_router=self.message_router,
            namespace=self.namespace,
            swarms=self.swarms,
            pins=self.pins,
            beyond=self.beyond,
        )

    @property
    def config(self) -> Config:
        """Its settings, as they are now."""
        return self.settings.config

    @property
    def knows_peers(self) -> bool:
        """Whether anybody is known who may become a neighbour, named by the user or of earlier."""
        return bool(self._disk.contacts.unlinked(()))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Own all tasks; see `open_servent`."""
        await self.peering.listen()
        # The parts are shielded: a cancellation from outside reaches the block first, and
        # they go on until we have said goodbye.
        parts = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run_parts, parts)
            self.inviting.join_later()
            try:
                yield
            finally:
                await self.peering.part()
                parts.cancel()
                self._disk.save_contacts()

    async def _run_parts(
        self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]
    ) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                for part in (
                    self._disk,
                    self.peering,
                    self.beyond,
                    self.message_router,
                    self.namespace,
                    self.swarms,
                    self.pins,
                ):
                    await nursery.start(part.run)
                await nursery.start(self.peering.meet, self._arrivals)
                nursery.start_soon(kept_up, self._announcer.run)
                task_status.started()

    def _open_for_pin(self, file: RemoteFile) -> Reader:
        self.history.opened(file.file_id, "p2pfs pin", os.getuid())
        return self.swarms.open(file)

    def _fetched(
        self, path: str, content: tuple[FileId, int], taken: Mapping[PeerInfo, int]
    ) -> None:
        self.namespace.confided.cached(content[0])
        self._disk.fetched(path, content, taken)

    def _told_beyond(self) -> Iterable[FileId]:
        """Return the contents that directories may know of: those that everybody may have."""
        pinned = (FileId(entry.file_id) for entry in self.pins.entries())
        for file_id in (*self.file_links.passed_on, *pinned):
            if not self.offer.is_paused and self.offer.size_of(file_id) is not None:
                yield file_id
