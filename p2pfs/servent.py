"""One running p2pfs, server and client at once.

The servent opens everything below it and owns every long-lived task; each part knows only
the little it needs of the others. The tree and the verbs reach the parts through it.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final

import trio

from p2pfs.acts import LEAVE_S, Acts
from p2pfs.arrivals import Arrivals
from p2pfs.cache import BlockCache
from p2pfs.config import Config
from p2pfs.download import Pins, Reader, Swarms, load_pins
from p2pfs.history import History
from p2pfs.journal import Journal
from p2pfs.keys import accept_invitations, load_identity, load_network_key
from p2pfs.library import Library, Watch
from p2pfs.link import Knocks, Link, Listener, Network, TcpNetwork, TransferLinks, listen
from p2pfs.namespace import (
    Here,
    Namespace,
    RemoteFile,
    Tellers,
)
from p2pfs.overlay import Announcer, Bans, ContactBook, MessageRouter, Overlay, Whereabouts
from p2pfs.protocol import (
    Address,
    Bye,
    ByeCode,
    FileId,
    PeerInfo,
    ServentId,
)
from p2pfs.protocol.flood import Keys
from p2pfs.reach import Beyond, Changes, FileLinks, Inviting, OwnPort, Ways
from p2pfs.report import Report
from p2pfs.roots import open_roots
from p2pfs.settings import Settings
from p2pfs.state import Leftovers
from p2pfs.tasks import kept_up
from p2pfs.threads import RunInThread, lane
from p2pfs.upload import Door, Offer, PublicShare, Uploads

log = logging.getLogger(__name__)

LIBRARY_THREADS: Final = 16
CACHE_THREADS: Final = 16
"""More than the uploads and downloads that keep one disk busy."""

STATE_THREADS: Final = 2
"""For files that are written seldom: pins, contacts."""

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
    it notices what others than the mount change in the backing directory.

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
        self.whereabouts = Whereabouts(load_identity(config), load_network_key(config), config.name)
        self.leftovers = Leftovers(config.leftovers_directory)
        self.journal = Journal(wall_clock)
        self._run_in_thread = run_in_thread or lane(STATE_THREADS)
        self.settings = Settings(config, wall_clock, self._run_in_thread)
        self.history = History(config.history_path, wall_clock, self._run_in_thread)
        self.roots = open_roots(config)
        self.library = Library(
            self.roots,
            os.fspath(config.index_path),
            run_in_thread or lane(LIBRARY_THREADS),
            watch,
            on_lost=lambda: self.journal.error(
                "the directory behind shared/ was removed: unmount, and mount again"
            ),
            tell=lambda path, text: self.journal.info(text, f"shared/{path}".rstrip("/")),
            is_shared_by_root=config.allow_other and os.geteuid() == 0,
        )
        if config.paused_path.exists():
            self.library.pause()
        pinned = load_pins(os.fspath(config.pins_path))
        self.cache = BlockCache(
            os.fspath(config.cache_directory),
            config.cache_limit_bytes,
            run_in_thread or lane(CACHE_THREADS),
            kept=[(FileId(entry.file_id), entry.size) for entry in pinned],
        )
        self.contacts = ContactBook.load(os.fspath(config.peers_path))
        self.offer = Offer(
            self.library,
            self.cache,
            reshare=config.reshare,
            audience=self.roots,
            is_confided=lambda one: self.namespace.confided.holds(one),  # noqa: PLW0108 - yet to come
        )
        self.uploads = Uploads(self.offer, seen_by=self.offer.seen_by)
        self._bans = Bans()
        self._knocks = Knocks()
        self.overlay = Overlay(
            OwnPort(network, lambda: self.whereabouts.listener, lambda: self.overlay.neighbours),
            self.whereabouts,
            self.contacts,
            self.journal,
            self._bans,
            self._knocks,
            degree=config.degree,
            min_neighbours=config.min_neighbours,
            max_neighbours=config.max_neighbours,
            wall_clock=wall_clock,
        )
        self._door = Door(self.whereabouts, self.overlay, self.uploads, self._is_banned)
        self.ways = Ways(
            network,
            self.whereabouts,
            lambda: self.whereabouts.listener,
            lambda: self.overlay.links,
            self._door.judge,
            self._door.serve,
            self._is_banned,
            self._knocks,
            relays=config.relay,
            relay_limit=self.uploads.limit,
        )
        self.uploads.on_pushed = self.ways.pushed
        self._links = TransferLinks(self.ways.connect, self._is_banned, self._addresses_of)
        self._tellers = Tellers()
        self._links.on_opened = self._tellers.proved
        keys = Keys(self.whereabouts.network_key.network_id)
        self.message_router = MessageRouter(
            self.whereabouts.identity,
            self.whereabouts.info,
            self.offer,
            self.overlay,
            self.journal,
            keys,
        )
        self._announcer = Announcer(
            PublicShare(self.library, self.offer),
            self.message_router,
            keys,
            ttl=config.ttl,
            wall_clock=wall_clock,
        )
        self.message_router.on_hit = self._hit_came
        self.message_router.on_named = self._knocks.named
        self.namespace = Namespace(
            Here(
                size_of=self._size_here,
                is_whole=self.cache.is_whole,
                chosen=self.overlay.chosen,
                is_refused=self._is_banned,
                on_lie=self._lied,
                groups_of=self._tellers.groups_of,
            ),
            self.message_router.searches,
            self._links,
            self.journal,
            neighbours=lambda: [link.peer for link in self.overlay.neighbours],
            path_of=lambda file_id: self.swarms.path_of(file_id),  # noqa: PLW0108 - yet to come
            ttl=config.ttl,
            clock=self._clock,
            wall_clock=wall_clock,
            kept_path=os.fspath(config.searches_path),
            confided_path=os.fspath(config.confided_path),
        )
        self.browser, self.results = self.namespace.browser, self.namespace.results
        self.shares = self.namespace.shares
        self.swarms = Swarms(
            self.cache,
            self.namespace.catalogue,
            self.message_router.searches,
            self._links,
            self.journal,
            ttl=config.ttl,
            stall_timeout_s=config.stall_timeout_s,
            own_id=self.whereabouts.identity.id,
            on_bad_block=self._lied,
        )
        self.swarms.on_fetched = self._fetched
        self.pins = Pins(
            os.fspath(config.pins_path),
            pinned,
            self.cache,
            self.namespace.catalogue,
            self.journal,
            open_reader=self._open_for_pin,
            has_neighbours=lambda: bool(self.overlay.neighbours),
            run_in_thread=self._run_in_thread,
        )
        self.inviting = Inviting(
            config, self.overlay, self.whereabouts, self.journal, self._run_in_thread, wall_clock
        )
        self.file_links = FileLinks(self.whereabouts)
        self.beyond = Beyond(
            network,
            self.whereabouts,
            self.overlay,
            self._links,
            self._knocks,
            wanted=self._told_beyond,
            is_secret=self.namespace.confided.holds,
            is_banned=self._is_banned,
        )
        self._arrivals = Arrivals(
            self.whereabouts,
            self.message_router,
            self._links,
            self.ways,
            self.beyond,
            self.browser,
            self.swarms,
            self.pins,
        )
        self.message_router.on_news = self._arrivals.heard_news
        acts = Acts(
            config,
            self.overlay,
            self.inviting,
            self.file_links,
            self.beyond,
            self.namespace,
            self.library,
            self.cache,
            self._run_in_thread,
        )
        # What the verbs ask (control.needed.Servent).
        self.find_content = self.namespace.contents.find
        self.join, self.invite, self.leave = acts.join, acts.invite, acts.leave
        self.open_link = acts.open_link
        self.pause, self.resume, self.clear_cache = acts.pause, acts.resume, acts.clear_cache
        self.changes = Changes(network, self._all_links, self._start_afresh, self.journal)
        self._network = network
        self._let_parts_follow(self.settings)
        self.report = Report(
            settings=self.settings,
            clock=self._clock,
            started_at=self._clock(),
            whereabouts=self.whereabouts,
            journal=self.journal,
            roots=self.roots,
            library=self.library,
            cache=self.cache,
            overlay=self.overlay,
            message_router=self.message_router,
            bans=self._bans,
            namespace=self.namespace,
            swarms=self.swarms,
            pins=self.pins,
            uploads=self.uploads,
            relays=self.ways.relays,
            beyond=self.beyond,
        )

    def _let_parts_follow(self, settings: Settings) -> None:
        """Let each part take in what is set while the servent runs."""
        settings.follow("upload-limit", self.uploads.limit)
        settings.follow("download-limit", self.swarms.limit)
        settings.on_change("cache-size", lambda config: self.cache.resize(config.cache_limit_bytes))
        settings.on_change("no-reshare", self._set_reshare)
        settings.on_change("stall-timeout", self._set_stall_timeout)

    def _set_reshare(self, config: Config) -> None:
        self.offer.reshare = config.reshare

    def _set_stall_timeout(self, config: Config) -> None:
        self.swarms.stall_timeout_s = config.stall_timeout_s

    @property
    def config(self) -> Config:
        """Its settings, as they are now."""
        return self.settings.config

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Own all tasks; see `open_servent`."""
        listener = await listen(self._network, self.config.listen_host, self.config.listen_ports)
        self.whereabouts.listens(listener)
        # The parts are shielded: a cancellation from outside reaches the block first, and
        # they go on until we have said goodbye.
        parts = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run_parts, listener, parts)
            self.inviting.join_later()
            try:
                yield
            finally:
                self._door.shut()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
                    await trio.lowlevel.checkpoint()  # who stands in the door is gone after it
                    await self.overlay.leave()
                parts.cancel()
                self.contacts.save(os.fspath(self.config.peers_path))

    async def _run_parts(
        self,
        listener: Listener,
        scope: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        contacts = self.contacts.keep_saved
        path = os.fspath(self.config.peers_path)
        save_contacts = functools.partial(contacts, path, self._run_in_thread)
        with scope:
            async with trio.open_nursery() as nursery:
                for part in (
                    self.library,
                    self._links,
                    self.ways,
                    self.beyond,
                    self.message_router,
                    self.namespace,
                    self.swarms,
                    self.pins,
                    self.settings,
                    self.history,
                    self.changes,
                ):
                    await nursery.start(part.run)
                await nursery.start(self.overlay.run, self._arrivals)
                nursery.start_soon(self._door.run, listener, self.ways)
                nursery.start_soon(kept_up, self._announcer.run)
                nursery.start_soon(kept_up, save_contacts)
                task_status.started()

    def _open_for_pin(self, file: RemoteFile) -> Reader:
        self.history.opened(file.file_id, "p2pfs pin", os.getuid())
        return self.swarms.open(file)

    def _fetched(
        self, path: str, content: tuple[FileId, int], taken: Mapping[PeerInfo, int]
    ) -> None:
        file_id, size = content
        self.namespace.confided.cached(file_id)
        is_whole = sum(taken.values()) == size or self.cache.is_whole(file_id)
        self.history.fetched(path, file_id, size, taken, is_whole=is_whole)

    def _all_links(self) -> Iterable[Link]:
        return (*self.overlay.neighbours, *self._links.links, *self._door.visitors)

    def _start_afresh(self) -> None:
        """Dial all that are wanted, also those that failed before: the network has changed."""
        self._knocks.start_afresh()
        self._links.start_afresh()
        self.overlay.start_afresh()

    def _addresses_of(self, peer: ServentId) -> Sequence[Address]:
        """Return where a neighbour is: it may have moved since others told of it."""
        link = self.overlay.links.get(peer)
        return () if link is None else link.peer.addresses

    def _is_banned(self, peer: ServentId) -> bool:
        return self._bans.is_banned(peer, self._clock())

    def _lied(self, peer: ServentId) -> None:
        """Note a wrong block or a false size of a peer; a few are too many."""
        if self._bans.lied(peer, self._clock()):
            bye = Bye(ByeCode.BANNED, "too many wrong blocks or sizes")
            self._links.drop(peer, bye)
            self.overlay.expel(peer, bye)
            self.browser.peer_left(peer)

    def _hit_came(self, provider: ServentId, by: Link) -> None:
        """Note which neighbour has brought a hit of a servent."""
        self.ways.came_from(provider, by.peer.id)
        self._tellers.told(provider, by.remote.host)

    def _told_beyond(self) -> Iterable[FileId]:
        """Return the contents of which directories are told, if everybody may have them."""
        pinned = (FileId(entry.file_id) for entry in self.pins.entries())
        for file_id in (*self.file_links.passed_on, *pinned):
            if not self.offer.is_paused and self.offer.size_of(file_id) is not None:
                yield file_id

    def _size_here(self, file_id: FileId) -> int | None:
        """Return the size of a content whose manifest is here."""
        size = self.cache.size_of(file_id)
        if size is not None:
            return size
        shared = self.library.find_id(file_id)
        return None if shared is None else shared.size

    @property
    def knows_peers(self) -> bool:
        """Whether anybody is known who may become a neighbour, named by the user or of earlier."""
        return bool(self.contacts.unlinked(()))
