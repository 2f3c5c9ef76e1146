"""One running p2pfs, server and client at once.

The servent opens everything below it and owns every long-lived task; each part knows only
the little it needs of the others. The tree and the verbs reach the parts through it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final

import trio

from p2pfs.cache import BlockCache
from p2pfs.config import Config, Endpoint
from p2pfs.download import Pins, Swarms, load_pins
from p2pfs.invitations import Invitation
from p2pfs.journal import Journal
from p2pfs.keys import accept_invitations, load_identity, load_network_key
from p2pfs.library import Library, Watch
from p2pfs.link import Link, Listener, Network, TcpNetwork, TransferLinks, accept_links, listen
from p2pfs.namespace import (
    Here,
    Namespace,
    RemoteFile,
)
from p2pfs.overlay import Announcer, Bans, ContactBook, Handlers, Overlay, Switchboard, Whereabouts
from p2pfs.protocol import (
    Address,
    Bye,
    ByeCode,
    Changed,
    FileId,
    Hello,
    LinkKind,
    PeerInfo,
    ServentId,
)
from p2pfs.protocol.flood import Keys
from p2pfs.rates import RateLimit
from p2pfs.reach import Changes, Inviting, OwnPort, Ways
from p2pfs.report import Record, Report
from p2pfs.roots import open_roots
from p2pfs.state import Leftovers, remove_file, replace_file
from p2pfs.tasks import kept_up
from p2pfs.threads import RunInThread, lane
from p2pfs.upload import Offer, Uploads

log = logging.getLogger(__name__)

LEAVE_S: Final = 1.0
"""How long saying goodbye may take."""

LIBRARY_THREADS: Final = 16
CACHE_THREADS: Final = 16
"""More than the uploads and downloads that keep one disk busy."""

STATE_THREADS: Final = 2
"""For what is written seldom: pins, contacts."""

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
        self.config = config
        self._clock = trio.lowlevel.current_clock().current_time  # for any thread to read
        self.whereabouts = Whereabouts(load_identity(config), load_network_key(config), config.name)
        self.leftovers = Leftovers(config.leftovers_directory)
        self.journal = Journal(wall_clock)
        self._run_in_thread = run_in_thread or lane(STATE_THREADS)
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
        self.offer = Offer(self.library, self.cache, reshare=config.reshare)
        self.uploads = Uploads(self.offer, _limit(config.upload_limit_bytes_s))
        self._bans = Bans()
        self.ways = Ways(
            network,
            self.whereabouts,
            lambda: self.whereabouts.listener,
            lambda: self.overlay.links,
            self._judge,
            self._serve,
            self._is_banned,
        )
        self.uploads.on_pushed = self.ways.pushed
        self._links = TransferLinks(self.ways.connect, self._is_banned, self._addresses_of)
        self._visitors: set[Link] = set()
        self.overlay = Overlay(
            OwnPort(network, lambda: self.whereabouts.listener, lambda: self.overlay.neighbours),
            self.whereabouts,
            self.contacts,
            self.journal,
            self._bans,
            degree=config.degree,
            min_neighbours=config.min_neighbours,
            max_neighbours=config.max_neighbours,
            wall_clock=wall_clock,
        )
        keys = Keys(self.whereabouts.network_key.network_id)
        self.switchboard = Switchboard(
            self.whereabouts.identity,
            self.whereabouts.info,
            self.offer,
            self.overlay,
            self.journal,
            keys,
        )
        self.switchboard.on_news = self._heard_news
        self._announcer = Announcer(
            self.library, self.switchboard, keys, ttl=config.ttl, wall_clock=wall_clock
        )
        self.switchboard.on_hit = self.ways.came_from
        self.namespace = Namespace(
            Here(
                size_of=self._size_here,
                is_whole=self.cache.is_whole,
                chosen=self.overlay.chosen,
                is_refused=self._is_banned,
                on_lie=self._lied,
            ),
            self.switchboard.searches,
            self._links,
            self.journal,
            neighbours=lambda: [link.peer for link in self.overlay.neighbours],
            path_of=self._read_at,
            ttl=config.ttl,
            clock=self._clock,
            wall_clock=wall_clock,
            kept_path=os.fspath(config.searches_path),
        )
        self.browser, self.results = self.namespace.browser, self.namespace.results
        self.shares = self.namespace.shares
        self.swarms = Swarms(
            self.cache,
            self.namespace.catalogue,
            self.switchboard.searches,
            self._links,
            self.journal,
            ttl=config.ttl,
            stall_timeout_s=config.stall_timeout_s,
            limit=_limit(config.download_limit_bytes_s),
            own_id=self.whereabouts.identity.id,
            on_bad_block=self._lied,
        )
        self.pins = Pins(
            os.fspath(config.pins_path),
            pinned,
            self.cache,
            self.namespace.catalogue,
            self.journal,
            open_reader=self.swarms.open,
            has_neighbours=lambda: bool(self.overlay.neighbours),
            run_in_thread=self._run_in_thread,
        )
        self.inviting = Inviting(
            config, self.overlay, self.whereabouts, self.journal, self._run_in_thread, wall_clock
        )
        self.changes = Changes(network, self._all_links, self._start_afresh, self.journal)
        self._network = network
        self.report = Report(
            config=config,
            clock=self._clock,
            started_at=self._clock(),
            whereabouts=self.whereabouts,
            journal=self.journal,
            roots=self.roots,
            library=self.library,
            cache=self.cache,
            overlay=self.overlay,
            switchboard=self.switchboard,
            bans=self._bans,
            namespace=self.namespace,
            swarms=self.swarms,
            pins=self.pins,
            uploads=self.uploads,
        )
        self._door = trio.CancelScope()

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
                self._door.cancel()
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
        with scope:
            async with trio.open_nursery() as nursery:
                for part in (
                    self.library,
                    self._links,
                    self.ways,
                    self.switchboard,
                    self.namespace,
                    self.swarms,
                    self.pins,
                    self.changes,
                ):
                    await nursery.start(part.run)
                await nursery.start(self.overlay.run, self)
                nursery.start_soon(self._accept_links, listener)
                nursery.start_soon(kept_up, self._announcer.run)
                nursery.start_soon(kept_up, self._save_contacts)
                task_status.started()

    # Links.

    async def _accept_links(self, listener: Listener) -> None:
        with self._door:
            await accept_links(listener, self.whereabouts, self._judge, self._take, self.ways.came)

    async def _take(self, link: Link) -> None:
        if link.kind is LinkKind.NEIGHBOUR:
            self.overlay.adopt(link)
        else:
            await self._serve(link)

    async def _serve(self, link: Link) -> None:
        self._visitors.add(link)
        try:
            await self.uploads.serve(link)
        finally:
            self._visitors.discard(link)

    def _all_links(self) -> Iterable[Link]:
        return (*self.overlay.neighbours, *self._links.links, *self._visitors)

    def _start_afresh(self) -> None:
        """Dial whoever is wanted, whatever came of it before: the network has changed."""
        self._links.start_afresh()
        self.overlay.start_afresh()

    def _addresses_of(self, peer: ServentId) -> Sequence[Address]:
        """Return where a neighbour is: it may have moved since others told of it."""
        link = self.overlay.links.get(peer)
        return () if link is None else link.peer.addresses

    def _judge(self, peer: ServentId, hello: Hello, remote: Address) -> Bye | None:
        if hello.kind is LinkKind.NEIGHBOUR:
            return self.overlay.judge(peer, remote)
        if self._is_banned(peer):
            return Bye(ByeCode.BANNED, "banned for a while")
        if self.overlay.is_away:
            return Bye(ByeCode.LEAVING, "has left the network")
        return self.uploads.judge(peer, remote)

    def _is_banned(self, peer: ServentId) -> bool:
        return self._bans.is_banned(peer, self._clock())

    def _lied(self, peer: ServentId) -> None:
        """Note a wrong block or a false size of a peer; a few are too many."""
        if self._bans.lied(peer, self._clock()):
            bye = Bye(ByeCode.BANNED, "too many wrong blocks or sizes")
            self._links.drop(peer, bye)
            self.overlay.expel(peer, bye)
            self.browser.peer_left(peer)

    def _size_here(self, file_id: FileId) -> int | None:
        """Return the size of a content whose manifest is here."""
        size = self.cache.size_of(file_id)
        if size is not None:
            return size
        shared = self.library.find_id(file_id)
        return None if shared is None else shared.size

    def _read_at(self, file_id: FileId) -> str | None:
        """Return the path at which a content was last read."""
        return self.swarms.path_of(file_id)

    # What the overlay tells (overlay.Owner).

    def neighbour_opened(self, link: Link) -> None:
        """Take a new neighbour into the flood."""
        self.whereabouts.observed(link.hello.observed.host, link.remote.host)
        self.switchboard.opened(link)
        self._links.located(link.peer)
        self.browser.peer_joined()
        self.pins.neighbour_came()
        self.swarms.look_soon()

    def neighbour_lost(self, link: Link) -> None:
        """Forget a neighbour, and what it offered if it said that it leaves."""
        self.whereabouts.observed_no_more(link.hello.observed.host, link.remote.host)
        self.switchboard.lost(link)
        self.ways.forget(link)
        if link.bye is not None and link.bye.code is ByeCode.LEAVING:
            self.browser.peer_left(link.peer.id)
        else:
            self.browser.peer_lost(link.peer.id)

    @property
    def handlers(self) -> Handlers:
        """Who takes in what neighbours say."""
        changed: Handlers = {Changed: self._neighbour_changed}
        return {**self.switchboard.handlers, **changed, **self.ways.handlers}

    def _neighbour_changed(self, link: Link, _message: Changed) -> None:
        self.browser.peer_changed(link.peer.id)
        self.swarms.look_soon()

    def _heard_news(self, peer: PeerInfo, directories: Sequence[str], is_all: bool) -> None:
        self.browser.heard_news(peer, directories, is_all=is_all)

    def start_walk(self) -> None:
        """Send one random walk on its way."""
        self.switchboard.start_walk()

    @property
    def knows_peers(self) -> bool:
        """Whether anybody is known who may become a neighbour, named by the user or of earlier."""
        return bool(self.contacts.unlinked(()))

    # What goes on behind.

    async def _save_contacts(self) -> None:
        await self.contacts.keep_saved(os.fspath(self.config.peers_path), self._run_in_thread)

    # What the verbs ask (control.verbs.Servent).

    async def find_content(self, file_id: FileId) -> RemoteFile | None:
        """Return a file by its id; see `Contents.find`."""
        return await self.namespace.contents.find(file_id)

    async def join(self, through: Endpoint | Invitation) -> Record:
        """Join through a servent and describe it; LinkError and UsageError say why not."""
        if isinstance(through, Invitation):
            peer, address = await self.inviting.join(through)
        else:
            address = Address(through.host, through.port)
            peer = await self.overlay.join(address)
        return {"id": peer.id, "name": peer.name, "address": str(address)}

    def invite(self, for_s: float) -> Record:
        """Make an invitation and describe it; see `Inviting.make`."""
        made = self.inviting.make(for_s)
        return {
            "invitation": str(made),
            "ends_at": made.ends_at,
            "is_private": made.key is not None,
            "addresses": [f"{Endpoint(p.host, p.port)}" for p in made.servents[0].places],
        }

    async def leave(self) -> None:
        """Say goodbye to all neighbours, and be alone until the next join.

        Nobody is dialled or let in, and nothing is known of what others offer; transfers
        under way go on.
        """
        with trio.move_on_after(LEAVE_S):
            await self.overlay.leave()
        self.namespace.all_left()

    async def pause(self) -> None:
        """Offer nothing until resumed, in this life or a later one.

        Raises:
            OSError: nothing is offered now, but the next start would not know of it.
        """
        self.library.pause()
        await self._run_in_thread(replace_file, self.config.paused_path, b"")

    async def resume(self) -> None:
        """Offer the share again; OSError if sharing stays paused."""
        await self._run_in_thread(remove_file, self.config.paused_path)
        self.library.resume()

    async def clear_cache(self) -> int:
        """Remove from the cache what is neither open nor pinned; return the bytes that gave."""
        return await self._run_in_thread(self.cache.clear)


def _limit(bytes_s: int | None) -> RateLimit | None:
    return None if bytes_s is None else RateLimit(bytes_s)
