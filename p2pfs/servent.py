"""One running p2pfs, server and client at once.

The servent opens everything below it and owns every long-lived task; each part knows only
the little it needs of the others. It is also the face that the tree and the verbs see.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

import trio

from p2pfs import __version__, report
from p2pfs.cache import BlockCache
from p2pfs.config import Config, Endpoint
from p2pfs.download import Pins, Reader, Swarms, load_pins
from p2pfs.errors import UsageError
from p2pfs.journal import Journal
from p2pfs.keys import load_identity, load_network_key
from p2pfs.library import Library, Watch
from p2pfs.link import Link, Listener, Network, TcpNetwork, TransferLinks, accept_links
from p2pfs.namespace import (
    Browser,
    Catalogue,
    Contents,
    Disputes,
    Gatherer,
    Here,
    Knowledge,
    Node,
    RemoteFile,
    Results,
    Shares,
    parse_query,
)
from p2pfs.overlay import Bans, ContactBook, Handlers, Overlay, Switchboard
from p2pfs.protocol import (
    MAX_ADDRESSES,
    Address,
    Bye,
    ByeCode,
    Changed,
    FileId,
    Hello,
    LinkKind,
    PeerInfo,
    Scope,
    ServentId,
    groups_of,
    scope_of,
)
from p2pfs.rates import RateLimit
from p2pfs.report import Record
from p2pfs.state import Leftovers, remove_file, replace_file
from p2pfs.tasks import kept_up
from p2pfs.threads import RunInThread, lane
from p2pfs.upload import Offer, Uploads

log = logging.getLogger(__name__)

LEAVE_S: Final = 1.0
"""How long saying goodbye may take."""

ANNOUNCE_AFTER_S: Final = 0.2
"""Changes of the share are told to the neighbours at most this often."""

SAVE_CONTACTS_S: Final = 60.0
"""Contacts are written this often; what a crash loses is found again by joining."""

SEEN_SHARE: Final = 0.25
"""Where we say that we are: where we are seen by at least so many neighbours for each that sees
us at the most usual place. Two networks show us at two; one liar does not make a third."""

LIBRARY_THREADS: Final = 16
CACHE_THREADS: Final = 16
"""More than the uploads and downloads that keep one disk busy."""

STATE_THREADS: Final = 2
"""For what is written seldom: pins, contacts."""

MIN_SEEN: Final = 2
"""Neighbours who must see us at an address that no interface has before the user is told of it:
one could send his friends anywhere."""

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
        self.identity = load_identity(config)
        self.network_key = load_network_key(config)
        self.leftovers = Leftovers(config.leftovers_directory)
        self.journal = Journal(wall_clock)
        self._run_in_thread = run_in_thread or lane(STATE_THREADS)
        self.library = Library(
            os.fspath(config.shared_directory),
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
        self.catalogue = Catalogue(
            Here(
                size_of=self._size_here,
                is_whole=self.cache.is_whole,
                chosen=self._chosen,
                is_refused=self._is_banned,
                on_lie=self._lied,
            )
        )
        self.contacts = ContactBook.load(os.fspath(config.peers_path))
        self.offer = Offer(self.library, self.cache, reshare=config.reshare)
        self.uploads = Uploads(self.offer, _limit(config.upload_limit_bytes_s))
        self._bans = Bans()
        self._links = TransferLinks(network, self, self._is_banned)
        self.overlay = Overlay(
            network,
            self,
            self.contacts,
            self.journal,
            self._bans,
            degree=config.degree,
            min_neighbours=config.min_neighbours,
            max_neighbours=config.max_neighbours,
            wall_clock=wall_clock,
        )
        self.switchboard = Switchboard(
            self.identity, self._own_info, self.offer, self.overlay, self.journal
        )
        disputes = Disputes(self.catalogue, self._links.fetch_manifest, self._clock)
        self.browser = Browser(
            self.catalogue,
            self.switchboard.searches,
            self._links.list_pages,
            disputes,
            self.journal,
            neighbours=self._neighbours,
            ttl=config.ttl,
            clock=self._clock,
        )
        self._gatherer = Gatherer(
            self.catalogue,
            self.switchboard.searches.run,
            self._links.match_page,
            ttl=config.ttl,
        )
        self.results = Results(
            self.catalogue,
            self._gatherer,
            disputes,
            clock=self._clock,
            wall_clock=wall_clock,
            kept_path=os.fspath(config.searches_path),
        )
        self.shares = Shares(
            self.catalogue, self.browser, neighbours=self._neighbours, clock=self._clock
        )
        self.swarms = Swarms(
            self.cache,
            self.catalogue,
            self.switchboard.searches,
            self._links,
            self.journal,
            ttl=config.ttl,
            stall_timeout_s=config.stall_timeout_s,
            limit=_limit(config.download_limit_bytes_s),
            own_id=self.identity.id,
            on_bad_block=self._lied,
        )
        self.contents = Contents(
            self.catalogue,
            self.switchboard.searches,
            self._links.fetch_manifest,
            path_of=self.swarms.path_of,
            ttl=config.ttl,
        )
        self.pins = Pins(
            os.fspath(config.pins_path),
            pinned,
            self.cache,
            self.catalogue,
            self.journal,
            open_reader=self.swarms.open,
            has_neighbours=lambda: bool(self.overlay.neighbours),
            run_in_thread=self._run_in_thread,
        )
        self._network = network
        self._started_at = self._clock()
        self._written_contacts = b""
        self._observed: Counter[str] = Counter()
        self._listener: Listener | None = None
        self._door = trio.CancelScope()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Own all tasks; see `open_servent`."""
        self._listener = await self._listen()
        # The parts are shielded: a cancellation from outside reaches the block first, and
        # they go on until we have said goodbye.
        parts = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run_parts, parts)
            for endpoint in self.config.joins:
                self.overlay.join_later(Address(endpoint.host, endpoint.port))
            try:
                yield
            finally:
                self._door.cancel()
                with trio.CancelScope(shield=True, deadline=trio.current_time() + LEAVE_S):
                    await trio.lowlevel.checkpoint()  # who stands in the door is gone after it
                    await self.overlay.leave()
                parts.cancel()
                self._write_contacts(self.contacts.to_bytes())

    async def _run_parts(
        self, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]
    ) -> None:
        assert self._listener is not None
        with scope:
            async with trio.open_nursery() as nursery:
                for part in (
                    self.library,
                    self._links,
                    self.switchboard,
                    self.browser,
                    self.results,
                    self.shares,
                    self.swarms,
                    self.pins,
                ):
                    await nursery.start(part.run)
                await nursery.start(self.overlay.run, self)
                nursery.start_soon(self._accept_links, self._listener)
                nursery.start_soon(kept_up, self._announce_changes)
                nursery.start_soon(kept_up, self._save_contacts)
                task_status.started()

    # Who we are (link.LocalServent).

    @property
    def listen_address(self) -> Address:
        """Where this servent listens."""
        assert self._listener is not None
        return self._listener.address

    def hello(self, kind: LinkKind, observed: Address) -> Hello:
        """Return the HELLO for a link; `observed` is where the other side appears to be."""
        port, agent = self.listen_address.port, f"p2pfs/{__version__}"
        return Hello(kind, self.config.name, port, observed, self._own_addresses(), agent)

    def _own_info(self) -> PeerInfo:
        return PeerInfo(self.identity.id, self.config.name, self._own_addresses())

    def _own_addresses(self) -> tuple[Address, ...]:
        """Return where we listen, if that is one address; else where most others saw us."""
        port = self.listen_address.port
        if scope_of(self.listen_address.host) is not None:
            return (self.listen_address,)
        seen = self._observed.most_common(MAX_ADDRESSES)
        least = seen[0][1] * SEEN_SHARE if seen else 0
        return tuple(Address(host, port) for host, count in seen if count >= least)

    def addresses(self) -> Sequence[Address]:
        """Return where others may reach us, the likeliest first. Any thread.

        Those of this machine's interfaces, and public ones at which two neighbours or more see
        us: there a router may pass our port on.
        """
        assert self._listener is not None
        port = self.listen_address.port
        own = self._listener.addresses()
        if self.listen_address in own:
            return own
        seen = [host for host, count in dict(self._observed).items() if count >= MIN_SEEN]
        public = [Address(host, port) for host in seen if scope_of(host) is Scope.WORLD]
        return list(dict.fromkeys((*own, *public)))

    def _neighbours(self) -> Sequence[PeerInfo]:
        return [link.peer for link in self.overlay.neighbours]

    # Links.

    async def _listen(self) -> Listener:
        """Listen at the first of the configured ports that is free."""
        *first, last = self.config.listen_ports
        for port in first:
            with contextlib.suppress(UsageError):
                return await self._network.listen(self.config.listen_host, port)
        return await self._network.listen(self.config.listen_host, last)

    async def _accept_links(self, listener: Listener) -> None:
        with self._door:
            await accept_links(listener, self, self._judge, self._take)

    async def _take(self, link: Link) -> None:
        if link.kind is LinkKind.NEIGHBOUR:
            self.overlay.adopt(link)
        else:
            await self.uploads.serve(link)

    def _judge(self, peer: ServentId, hello: Hello, remote: Address) -> Bye | None:
        if hello.kind is LinkKind.NEIGHBOUR:
            return self.overlay.judge(peer, remote)
        if self._is_banned(peer):
            return Bye(ByeCode.BANNED, "banned for a while")
        if self.overlay.is_away:
            return Bye(ByeCode.LEAVING, "has left the network")
        return self.uploads.judge(peer)

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

    def _chosen(self) -> Mapping[ServentId, tuple[str, str]]:
        """Return the neighbours that we dialled, each with where it is."""
        return {
            link.peer.id: groups_of(link.remote.host)
            for link in self.overlay.neighbours
            if link.direction == "out"
        }

    # What the overlay tells (overlay.Owner).

    def neighbour_opened(self, link: Link) -> None:
        """Take a new neighbour into the flood."""
        self._observed[link.hello.observed.host] += 1
        self.switchboard.opened(link)
        self.browser.peer_joined()
        self.pins.neighbour_came()
        self.swarms.look_soon()

    def neighbour_lost(self, link: Link) -> None:
        """Forget a neighbour, and what it offered if it said that it leaves."""
        self._observed[link.hello.observed.host] -= 1
        self._observed += Counter()  # drops what nobody sees any more
        self.switchboard.lost(link)
        if link.bye is not None and link.bye.code is ByeCode.LEAVING:
            self.browser.peer_left(link.peer.id)
        else:
            self.browser.peer_lost(link.peer.id)

    @property
    def handlers(self) -> Handlers:
        """Who takes in what neighbours say."""
        return {**self.switchboard.handlers, Changed: self._neighbour_changed}

    def _neighbour_changed(self, link: Link, _message: Changed) -> None:
        self.browser.peer_changed(link.peer.id)
        self.swarms.look_soon()

    def start_walk(self) -> None:
        """Send one random walk on its way."""
        self.switchboard.start_walk()

    @property
    def knows_peers(self) -> bool:
        """Whether anybody is known who may become a neighbour, named by the user or of earlier."""
        return bool(self.contacts.unlinked(()))

    # What goes on behind.

    async def _announce_changes(self) -> None:
        version = self.library.version
        while True:
            version = await self.library.wait_changed(version)
            for link in self.overlay.neighbours:
                link.post(Changed())
            await trio.sleep(ANNOUNCE_AFTER_S)

    async def _save_contacts(self) -> None:
        while True:
            await trio.sleep(SAVE_CONTACTS_S)
            await self._run_in_thread(self._write_contacts, self.contacts.to_bytes())

    def _write_contacts(self, book: bytes) -> None:
        if book == self._written_contacts:
            return  # a disk that sleeps is let sleep
        try:
            replace_file(self.config.peers_path, book)
            self._written_contacts = book
        except OSError as error:
            log.warning("contacts not saved reason=%s", error)

    # What the tree asks (filesystem.Servent).

    def known(self, path: str) -> Node | Knowledge:
        """Return what is known of a path below `network/`. Any thread; never waits."""
        return self.browser.known(path)

    def known_children(self, path: str) -> Sequence[Node] | Knowledge:
        """Return a directory below `network/` as last listed. Any thread; never waits."""
        return self.browser.known_children(path)

    async def find(self, path: str) -> Node | None:
        """Return what is at a path, asking for it if need be; see `Browser.find`."""
        return await self.browser.find(path)

    async def find_content(self, file_id: FileId) -> RemoteFile | None:
        """Return a file by its id; see `Contents.find`."""
        return await self.contents.find(file_id)

    async def list(self, path: str) -> Sequence[Node]:
        """Return a directory, asked for now; see `Browser.list`."""
        return await self.browser.list(path)

    def partial(self, path: str) -> str | None:
        """Return what keeps the last listing of a directory from being whole. Any thread."""
        return self.browser.partial(path)

    def hold(self, file: RemoteFile) -> Callable[[], None]:
        """Let a name below `network/` stay with its content; see `Catalogue.hold`. Any thread."""
        return self.catalogue.hold(file)

    def open(self, file: RemoteFile) -> Reader:
        """Return a reader pinned to this content. Any thread; no network."""
        return self.swarms.open(file)

    def fetch_ahead(self, files: Sequence[RemoteFile]) -> None:
        """Have small contents ready that somebody will probably open next."""
        self.swarms.fetch_ahead(files)

    def last_error(self, path: str) -> str | None:
        """Return why the last read of a path failed, or None if it did not. Any thread."""
        return self.swarms.last_error(path)

    def cached_percent(self, file_id: FileId) -> int:
        """Return how much of a content is in the cache. Any thread."""
        return self.cache.percent(file_id)

    # What the verbs ask (control.verbs.Servent).

    async def join(self, endpoint: Endpoint) -> Record:
        """Join through a servent and describe it; LinkError says why not."""
        peer = await self.overlay.join(Address(endpoint.host, endpoint.port))
        return {"id": peer.id, "name": peer.name, "address": str(endpoint)}

    async def leave(self) -> None:
        """Say goodbye to all neighbours, and be alone until the next join.

        Nobody is dialled or let in, and nothing is known of what others offer; transfers
        under way go on.
        """
        with trio.move_on_after(LEAVE_S):
            await self.overlay.leave()
        self.browser.all_left()
        self.results.all_left()

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

    async def search(self, words: str) -> Record:
        """Search within the horizon: a row for each path and content; see `report.of_search`.

        Raises:
            QueryError: the text asks for nothing that could be searched.
            NotAskedError: too many searches have begun lately.
        """
        found = self._gatherer.begin(parse_query(words))
        await found.run()
        return report.of_search(found)

    def status(self) -> Record:
        """Describe the servent. Any thread."""
        shared = self.library.statistics()
        links = [link.statistics() for link in self.overlay.neighbours]
        addresses, key = self.addresses(), self.config.network_key_file
        return {
            "id": self.identity.id,
            "name": self.config.name,
            "version": __version__,
            "pid": os.getpid(),
            "mountpoint": self.config.mountpoint and os.fspath(self.config.mountpoint),
            "listen": str(self.listen_address),
            "addresses": [str(address) for address in addresses],
            "join_commands": [report.join_command(one, key) for one in addresses],
            "uptime_s": round(self._clock() - self._started_at, 1),
            "sharing": not self.library.is_paused,
            "neighbours": len(self.overlay.neighbours),
            "shared_files": shared.files,
            "shared_bytes": shared.bytes,
            "cache_bytes": self.cache.used_bytes,
            "cache_limit_bytes": self.config.cache_limit_bytes,
            "transfers": len(self.swarms.statistics()),
            "uploads": len(self.uploads.under_way.statistics(self._clock())),
            "downloaded_bytes": self.swarms.received_bytes,
            "uploaded_bytes": self.uploads.sent_bytes,
            "messages_in": sum(link.messages_in for link in links),
            "messages_out": sum(link.messages_out for link in links),
            "queries_seen": self.switchboard.counters["queries_seen"],
            "partial_directories": len(self.browser.partial_directories()),
            "names_left_out": self.catalogue.dropped,
            "bad_blocks": self._bans.lies,
        }

    def peers(self) -> Sequence[Record]:
        """Describe the neighbours. Any thread."""
        now = self._clock()
        return report.of_neighbours(self.overlay.neighbours, now, self.transfers())

    def transfers(self) -> Sequence[Record]:
        """Describe the downloads and the uploads. Any thread."""
        downloads = [report.of_download(*download) for download in self.swarms.statistics()]
        uploads = self.uploads.under_way.statistics(self._clock())
        return downloads + [report.of_upload(self._path_of(one.file_id), one) for one in uploads]

    def _path_of(self, file_id: FileId) -> str:
        """Return where a content that is being sent is shared, or else was read."""
        shared = self.library.find_id(file_id)
        return shared.path if shared else self.swarms.path_of(file_id) or file_id.hex()

    async def cached(self) -> Record:
        """Describe the cache: its bounds, and what is in it or pinned."""
        files = await self.pins.cached_files(self.swarms.path_of)
        return {
            "limit_bytes": self.cache.limit_bytes,
            "used_bytes": self.cache.used_bytes,
            "files": [dataclasses.asdict(file) for file in files],
        }

    async def clear_cache(self) -> int:
        """Remove from the cache what is neither open nor pinned; return the bytes that gave."""
        return await self._run_in_thread(self.cache.clear)

    def render(self, name: str) -> bytes:
        """Return one of the texts below `.p2pfs/`. Any thread.

        Raises:
            KeyError: there is no such text.
        """
        texts: dict[str, Callable[[], str]] = {
            "status": lambda: report.as_fields([self.status()]),
            "peers": lambda: report.as_fields(self.peers()),
            "transfers": lambda: report.as_fields(self.transfers()),
            "events": lambda: report.as_events(self.journal.events()),
            "config": lambda: report.as_config(self.config),
        }
        return texts[name]().encode("utf-8", "backslashreplace")


def _limit(bytes_s: int | None) -> RateLimit | None:
    return None if bytes_s is None else RateLimit(bytes_s)
