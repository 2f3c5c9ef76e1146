"""Beyond the horizon: tell directories of this servent, and dial the servents they tell of.

Keys. We tell that we can be dialled for our network and for our own id. The reader of a link of
ours finds us by the id in it, whatever file is meant, so a library of a hundred thousand files
costs two keys. We also tell the contents that are pinned here, or to which the user has passed on
links, since the maker of such a link may be gone; MAX_TOLD_CONTENTS of them, the latest links
first. Words are never told nor asked for. A servent tells nothing of itself before somebody has
dialled it from as far away as its neighbours are, or a router says that it passes its port on.
Until somebody has dialled it, neighbours tell its keys too.

Dials. An address from a directory is a stranger's word: it is dialled within the budgets of
`Knocks`, which take all directories for one teller; of each network one before a second of any,
since a liar who tells thousands may have few; never below MIN_PORT, nor on this machine; and in a
private network only where we or a neighbour are. The handshake then proves who is there.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import trio

from p2pfs.errors import LinkError
from p2pfs.link import Dialler, Knocks, Link, TransferLinks, dial_servent
from p2pfs.overlay import Handlers, Overlay, Whereabouts
from p2pfs.protocol import (
    MIN_PORT,
    Address,
    DirectoryKey,
    FileId,
    LinkKind,
    PeerInfo,
    Scope,
    ServentId,
    Subject,
    directory_key,
    groups_of,
    reaches,
    scope_of,
)
from p2pfs.reach.changes import Machine
from p2pfs.reach.directory import Directory, some_of
from p2pfs.reach.instead import Instead
from p2pfs.reach.shared import give_back
from p2pfs.tasks import for_each, guarded, kept_up

log = logging.getLogger(__name__)

MAX_TOLD_CONTENTS: Final = 64
"""Contents of which directories are told: each costs some 30 datagrams in a quarter of an hour."""

REVIEW_S: Final = 5.0
"""How often the keys to be told are worked out anew."""

ALONE_S: Final = 10.0
"""How long a servent is alone before it asks directories for others: those it knows come first."""

ENTER_EVERY_S: Final = 60.0
"""How often it asks while it stays alone."""

MAX_MET: Final = 8
"""Servents that are dialled because of one search: what KNOCK_BURST allows one network."""

MAX_LINK_HOLDERS: Final = 3
"""Servents of one link that are looked for."""

DIALS_AT_ONCE: Final = 4

_TELLER: Final = Address("directory", 0)
"""The teller of all that directories tell, for `Knocks`."""


class Beyond:
    """Tells directories of this servent, and dials the servents that they tell of."""

    def __init__(
        self,
        network: Dialler,
        whereabouts: Whereabouts,
        overlay: Overlay,
        links: TransferLinks,
        knocks: Knocks,
        machine: Machine,
        *,
        wanted: Callable[[], Iterable[FileId]],
        is_secret: Callable[[FileId], bool],
        is_banned: Callable[[ServentId], bool],
    ) -> None:
        """`wanted` gives the contents to be told of, the most important first.

        Directories are not asked for what `is_secret`.
        """
        self._network = network
        self._whereabouts = whereabouts
        self._overlay = overlay
        self._links = links
        self._knocks = knocks
        self._machine = machine
        self._version = machine.version
        self._wanted = wanted
        self._is_secret = is_secret
        self._is_banned = is_banned
        self._instead = Instead(overlay)
        self._directories: dict[str, Directory] = {}
        self._counts: dict[str, Callable[[], int]] = {}
        self._dialled_from = -1
        """From how far away a neighbour has dialled us (`Scope`); -1: none has."""
        self._told: frozenset[DirectoryKey] = frozenset()

    @contextlib.contextmanager
    def using(
        self, directory: Directory, *, is_public: bool, nodes: Callable[[], int] = lambda: 0
    ) -> Iterator[None]:
        """Use a directory for the length of the block; `nodes` counts those it asks."""
        name = "public" if is_public else "servents"
        self._directories[name], self._counts[name] = directory, nodes
        for link in self._overlay.neighbours:
            self.neighbour_opened(link)
        for key in self._told:
            directory.announce(key)
        try:
            yield
        finally:
            del self._directories[name], self._counts[name]

    def neighbour_opened(self, link: Link) -> None:
        """Take a neighbour into the directory of servents: at the UDP port of its own number."""
        directory = self._directories.get("servents")
        if directory is not None and link.hello.listen_port >= MIN_PORT:
            directory.add_node(Address(link.remote.host, link.hello.listen_port))

    def neighbour_lost(self, link: Link) -> None:
        """Forget a neighbour."""
        self._instead.forget(link)

    @property
    def handlers(self) -> Handlers:
        """The handler of ANNOUNCE."""
        return self._instead.handlers

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Tell directories our keys, and find a neighbour when we have none, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept_up, self._keep_telling)
            nursery.start_soon(kept_up, self._keep_entering)
            task_status.started()

    # Keys.

    @property
    def nodes(self) -> int | None:
        """How many others directories ask; None without any. Any thread."""
        counts = tuple(self._counts.values())
        return sum(count() for count in counts) if counts else None

    @property
    def keys(self) -> int:
        """How many keys directories are told now. Any thread."""
        return len(self._told) if self._directories else 0

    async def _keep_telling(self) -> None:
        while True:
            own, can_be_dialled = list(self._own_keys()), self._can_be_dialled()
            self._instead.ask(() if can_be_dialled else own)
            keys = [self._key(Subject.NETWORK), *own, *self._instead.theirs()]
            may_be_dialled = can_be_dialled or self._whereabouts.is_mapped
            self._tell(frozenset(keys if may_be_dialled and own else ()))
            await trio.sleep(REVIEW_S)

    def _tell(self, keys: frozenset[DirectoryKey]) -> None:
        for directory in self._directories.values():
            for key in self._told - keys:
                directory.withdraw(key)
            for key in keys - self._told:
                directory.announce(key)
        self._told = keys

    def _own_keys(self) -> Iterator[DirectoryKey]:
        """Return the keys by which others may find us; none if the user has left."""
        if self._overlay.is_away:
            return
        yield self._key(Subject.SERVENT, self._whereabouts.identity.id.encode())
        for file_id in list(dict.fromkeys(self._wanted()))[:MAX_TOLD_CONTENTS]:
            yield self._key(Subject.FILE, file_id)

    def _can_be_dialled(self) -> bool:
        """Return whether somebody has dialled us from as far away as our neighbours are.

        That a router says that it passes our port on is no proof: others tell our keys meanwhile.
        """
        links = self._overlay.neighbours
        if self._version != self._machine.version:  # the network of this machine has changed
            self._version, self._dialled_from = self._machine.version, -1
        if not links:
            return False
        reach = [(_scope(link.remote), link.direction == "in") for link in links]
        inward = (scope for scope, is_inward in reach if is_inward)
        self._dialled_from = max(self._dialled_from, max(inward, default=-1))
        return self._dialled_from >= max(scope for scope, _ in reach)

    def _key(self, subject: Subject, what: bytes = b"") -> DirectoryKey:
        return directory_key(self._whereabouts.network_key, subject, what)

    # Who is met.

    async def meet(self, file_id: FileId, holders: Sequence[PeerInfo]) -> Sequence[PeerInfo]:
        """Return the peers that we reach where directories tell of a content or of these holders.

        There is a transfer link to each of them. Nothing says that one has the content.
        """
        if self._is_secret(file_id) or self._overlay.is_away:
            return ()
        keys = [self._key(Subject.FILE, file_id)]
        keys += [self._key(Subject.SERVENT, one.id.encode()) for one in holders[:MAX_LINK_HOLDERS]]
        met: dict[ServentId, PeerInfo] = {}

        async def greet(address: Address) -> None:
            peer = await self._greet(address)
            if peer is not None:
                met[ServentId(peer.id)] = peer

        await for_each(await self._find(keys), greet, at_once=DIALS_AT_ONCE)
        return tuple(met.values())

    async def befriend(self, peers: Iterable[PeerInfo]) -> bool:
        """Make these neighbours, who may lead to another one; return whether one has become it."""
        new = [peer for peer in peers if peer.id not in self._overlay.links]

        async def befriend(peer: PeerInfo) -> None:
            with contextlib.suppress(LinkError):
                await self._overlay.meet(ServentId(peer.id), peer.addresses)

        await for_each(new, befriend, at_once=DIALS_AT_ONCE)
        return any(peer.id in self._overlay.links for peer in new)

    async def _greet(self, address: Address) -> PeerInfo | None:
        """Dial the servent at an address, to ask for a content."""
        try:
            link = await dial_servent(
                self._network, [address], self._whereabouts, LinkKind.TRANSFER, knocks=self._knocks
            )
        except LinkError as error:
            log.info("nobody met address=%s reason=%s", address, error)
            return None
        addresses = tuple(dict.fromkeys((address, *link.peer.addresses)))
        peer = PeerInfo(link.peer.id, link.peer.name, addresses)
        if self._is_banned(ServentId(peer.id)):
            await give_back(link, "banned")
            return None
        await self._links.adopt(link, peer)
        return peer

    async def _find(self, keys: Iterable[DirectoryKey]) -> Sequence[Address]:
        """Return what directories tell of some keys, as far as it may be dialled."""
        found: list[Sequence[Address]] = []

        async def ask(directory: Directory, key: DirectoryKey) -> None:
            found.append(await directory.find(key))

        async with trio.open_nursery() as nursery:
            for key in keys:
                for directory in self._directories.values():
                    nursery.start_soon(guarded, ask, directory, key)
        usable = {one for some in found for one in some if self._may_dial(one)}
        addresses = some_of(usable, MAX_MET)
        self._knocks.named(addresses, _TELLER)
        return addresses

    def _may_dial(self, address: Address) -> bool:
        own = self._whereabouts.addresses()
        if address in own or not reaches(address, Scope.SITE):
            return False
        here = [one.host for one in own] + [one.remote.host for one in self._overlay.neighbours]
        near = {groups_of(host)[0] for host in here}
        return reaches(address, Scope.WORLD) or groups_of(address.host)[0] in near

    # Who is alone.

    async def _keep_entering(self) -> None:
        """Ask directories for others of our network while there is no neighbour."""
        while True:
            await trio.sleep(ALONE_S)
            if self._directories and not self._overlay.links and not self._overlay.is_away:
                found = await self._find([self._key(Subject.NETWORK)])
                await for_each(found, self._enter, at_once=DIALS_AT_ONCE)
                await trio.sleep(ENTER_EVERY_S)

    async def _enter(self, address: Address) -> None:
        with contextlib.suppress(LinkError):
            await self._overlay.meet(None, [address])


def _scope(address: Address) -> Scope:
    return scope_of(address.host) or Scope.MACHINE
