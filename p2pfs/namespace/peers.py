"""What each peer shares by itself: the folders below `peers/`.

A path is the folder of a peer, and below it the path in that peer's share. Only the peer itself is
asked for it, over a transfer link, so it is exact: no versions, no suffixes. A directory that was
listed before is shown at once and asked for again in the background.

Folders are named after their peers. A name that could do harm, or is taken, is changed; who
came first keeps it, so that nobody can take the place of another by choosing its name. Where
several come together, `nodes` decides as everywhere.

Functions that are not async may be called from any thread and never wait for the network.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol
from unicodedata import normalize

import trio

from p2pfs.errors import NoSourceError, StalledError, TransferError
from p2pfs.namespace.ages import FIND_TIMEOUT_S, REFRESH_AFTER_S, TRUST_S, Renewals
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.confided import Confided
from p2pfs.namespace.listing import Telling
from p2pfs.namespace.nodes import (
    ID_SUFFIX_LENGTH,
    Knowledge,
    Nearness,
    Node,
    Rank,
    RemoteDirectory,
    RemoteFile,
    Version,
    assign,
)
from p2pfs.namespace.view import View
from p2pfs.protocol import SERVENT_ID_LENGTH, Entry, FileId, PeerInfo, ServentId, names, parent_of
from p2pfs.tasks import Flight, SingleFlight, Tasks

SIGHTED_S: Final = 90.0
"""The oldest sighting that is shown: a peer that is silent for so long is held for dead."""

UNLISTABLE_S: Final = 10.0
"""How long a peer that could not be listed is not asked again."""

RESERVED_S: Final = 3_600.0
"""How long the folder of a peer that is gone is no other's."""

MAX_RESERVED: Final = 1_000
"""Such folders, those seen last: identities are free. With 100,000 each listing took 0.3 s."""

NAMED_S: Final = 60.0
"""How long the folders are good if no peer comes or goes."""

MAX_NAME_BYTES: Final = names.MAX_LABEL_BYTES - SERVENT_ID_LENGTH - 1
"""Bytes of a name that are used for a folder: the rest is for a suffix."""


class Horizon(Protocol):
    """The part of `p2pfs.namespace.Browser` that the shares of single peers need."""

    def may_show(self, path: str) -> bool:
        """Return whether memory will do for a directory; renew an old one in the background."""

    async def list(self, path: str) -> Sequence[Node]:
        """List a directory now."""

    def age(self, path: str) -> float:
        """Return how long ago everybody was asked for a directory."""

    def changed_at(self, peer: ServentId) -> float:
        """Return when a neighbour last said that its share changed."""

    def partial_of(self, holder: PeerInfo, path: str) -> str | None:
        """Return what keeps the last listing of one servent from being whole."""

    def ask_one(self, holder: PeerInfo, path: str, *, is_for_all: bool) -> Telling:
        """Ask one servent for what it has in a directory; see `Browser.ask_one`."""


class Shares(View):
    """The share of each known peer. Only the peer's own word is trusted about it."""

    def __init__(
        self,
        catalogue: Catalogue,
        horizon: Horizon,
        *,
        neighbours: Callable[[], Sequence[PeerInfo]],
        clock: Callable[[], float],
        confided: Confided | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._confided = confided or Confided(catalogue)
        self._horizon = horizon
        self._neighbours = neighbours
        self._clock = clock
        self._folders = Folders()
        self._named: _Named | None = None
        self._failures: dict[ServentId, tuple[float, TransferError]] = {}
        self._tasks = Tasks()
        self._flights: SingleFlight[tuple[ServentId, str]] = SingleFlight(self._tasks)
        self._renewals: Renewals[tuple[PeerInfo, str]] = Renewals(self._tasks, clock, self._refresh)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the listings under way, until cancelled."""
        await self._tasks.run(task_status=task_status)

    # From memory.

    def known(self, path: str) -> Node | Knowledge:
        """Return the node that memory has at a path; UNKNOWN if asking its peer may help."""
        folder, _, rest = path.partition("/")
        peer = self._owner(folder)
        if peer is None:
            if not names.is_probe(folder) and self._must_look_around():
                return Knowledge.UNKNOWN
            peer = self._owner(folder)  # its peer may have become known since
        if peer is None:
            return Knowledge.ABSENT
        if not rest:
            is_doubtful = peer not in self._neighbours() and self._must_look_around()
            return Knowledge.UNKNOWN if is_doubtful else RemoteDirectory(folder, 0, (peer,))
        parent = parent_of(rest)
        if self._is_outdated(peer, parent):
            return Knowledge.UNKNOWN
        # In this order: a listing may end in between, and what it brought is not absent.
        age = self._age(peer, parent)
        entry = self._book(peer, rest).holders.entry(peer.id, rest)
        if entry is None:
            return Knowledge.ABSENT if age <= REFRESH_AFTER_S else Knowledge.UNKNOWN
        self._renewals.look((peer, parent), age, TRUST_S)
        return _node(folder, peer, entry)

    def known_children(self, path: str) -> Sequence[Node] | Knowledge:
        """Return a folder as last listed; one that is old is listed again in the background."""
        if not path:
            is_doubtful = not self._horizon.may_show("") or self._must_look_around()
            return Knowledge.UNKNOWN if is_doubtful else self._top()
        folder, _, rest = path.partition("/")
        peer = self._owner(folder)
        if peer is None:
            return Knowledge.UNKNOWN if self._must_look_around() else ()
        was_listed = self._book(peer, rest).holders.listed_by(peer.id, rest) is not None
        if not was_listed or self._is_outdated(peer, rest):
            return Knowledge.UNKNOWN
        self._renewals.look((peer, rest), self._age(peer, rest), REFRESH_AFTER_S)
        return self._children(folder, peer, rest)

    def settled(self, nodes: Sequence[Node]) -> Sequence[Node]:
        """Return all children: each is what its peer says."""
        return nodes

    def partial(self, path: str) -> str | None:
        """Return what keeps a folder from being whole; None if nothing does."""
        folder, _, rest = path.partition("/")
        peer = self._owner(folder) if path else None
        return None if peer is None else self._horizon.partial_of(peer, rest)

    def _must_look_around(self) -> bool:
        """Return whether the last listing of the root, which shows the servents, is too old."""
        if not self._neighbours():
            return False
        age = self._horizon.age("")
        if age > TRUST_S:
            self._horizon.may_show("")  # which refreshes it
        return age > SIGHTED_S

    def _owner(self, folder: str) -> PeerInfo | None:
        """Return the peer of a folder, if it is known."""
        owner = self._folders.owner(folder)
        near = (peer for peer in self._neighbours() if peer.id == owner)
        peer = next(near, None) or (owner and self._told(owner))
        return peer or self._peers().get(folder)

    def _told(self, servent: ServentId) -> PeerInfo | None:
        """Return a servent that has told of its share, to everybody or to us alone."""
        return self._catalogue.holders.get(servent) or self._confided.holder(servent)

    def _peers(self) -> Mapping[str, PeerInfo]:
        """Return the known peers, by folder."""
        neighbours, now = tuple(self._neighbours()), self._clock()
        books = self._catalogue, self._confided.catalogue
        version, last = tuple(book.holders.version() for book in books), self._named
        if last is not None and last[:2] == (version, neighbours) and now - last.at < NAMED_S:
            return last.folders
        told = *self._confided.holders(), *self._catalogue.holders.all()
        known = {peer.id: peer for peer in (*told, *neighbours)}
        folders = self._folders.of(known.values(), now, self._catalogue.offers.chosen())
        self._named = _Named(version, neighbours, now, folders)
        return folders

    def _top(self) -> list[Node]:
        return [RemoteDirectory(name, 0, (peer,)) for name, peer in sorted(self._peers().items())]

    def _children(self, folder: str, peer: PeerInfo, directory: str) -> list[Node]:
        entries = self._book(peer, directory).holders.entries(peer.id, directory)
        if not directory:
            entries += self._confided.catalogue.holders.entries(peer.id, "")
            entries.sort(key=lambda entry: entry.path)
        return [_node(folder, peer, entry) for entry in entries]

    def _book(self, peer: PeerInfo, path: str) -> Catalogue:
        """Return the catalogue that has a path of a peer: what it shows to us alone is apart."""
        is_confided = self._confided.has(peer.id, path)
        return self._confided.catalogue if is_confided else self._catalogue

    def _age(self, peer: PeerInfo, directory: str) -> float:
        listed_at = self._book(peer, directory).holders.listed_by(peer.id, directory)
        return float("inf") if listed_at is None else self._clock() - listed_at

    def _is_outdated(self, peer: PeerInfo, directory: str) -> bool:
        """Return whether a peer has said that its share changed since it was listed."""
        listed_at = self._book(peer, directory).holders.listed_by(peer.id, directory)
        return listed_at is not None and self._horizon.changed_at(peer.id) > listed_at

    def _refresh(self, listing: tuple[PeerInfo, str]) -> None:
        if self._failure(listing[0]) is None:
            self._start(*listing)

    def hold(self, file: RemoteFile) -> Callable[[], None]:  # noqa: ARG002 - see `View`
        """Do nothing: a path names what its peer has there, and nothing else ever."""
        return lambda: None

    # From the network, on the trio thread.

    async def find(self, path: str) -> Node | None:
        """Return the node at a path, asking its peer if need be.

        Nobody is asked for a name that cannot be published.

        Raises:
            NoSourceError, StalledError: it is not known, and the peer does not answer.
            NotAskedError: the servents that are there may not be looked for now.
            ShutdownError: we end.
        """
        folder, _, rest = path.partition("/")
        if rest and names.check_path(rest) is not None:
            return None
        peer = await self._look_for(folder)
        if peer is None:
            return None
        if not rest:
            return RemoteDirectory(folder, 0, (peer,))
        failure = await self._ask(peer, parent_of(rest), FIND_TIMEOUT_S)
        entry = self._book(peer, rest).holders.entry(peer.id, rest)
        if entry is not None:
            return _node(folder, peer, entry)
        if failure is not None:
            raise failure
        return None

    async def list(self, path: str) -> Sequence[Node]:
        """Return a folder, asked for now: all of it, or as it was when it was last whole.

        Raises:
            NoSourceError, StalledError: the listing is not whole, and never was.
            NotAskedError: the servents that are there may not be looked for now.
            ShutdownError: we end.
        """
        if not path:
            await self._look_around()
            return self._top()
        folder, _, rest = path.partition("/")
        peer = await self._look_for(folder)
        if peer is None:
            return ()
        failure = await self._ask(peer, rest)
        if failure is not None and self._book(peer, rest).holders.listed_by(peer.id, rest) is None:
            raise failure
        return self._children(folder, peer, rest)

    async def _look_for(self, folder: str) -> PeerInfo | None:
        peer = self._owner(folder)
        if peer is None or (peer not in self._neighbours() and self._must_look_around()):
            await self._look_around()
            peer = self._owner(folder)
        return peer

    async def _look_around(self) -> None:
        """List the root to see which servents are there, for FIND_TIMEOUT_S at most."""
        with trio.move_on_after(FIND_TIMEOUT_S), contextlib.suppress(NoSourceError, StalledError):
            await self._horizon.list("")

    async def _ask(
        self, peer: PeerInfo, directory: str, timeout_s: float = math.inf
    ) -> TransferError | None:
        """Ask a peer for a directory; return why not all of it is known now, or None."""
        with trio.move_on_after(timeout_s):
            try:
                await self._start(peer, directory).wait()
            except TransferError as error:
                self._tasks.check()
                return error
            return None
        return StalledError(f"{peer.name!r} did not list its share in time")

    def _start(self, peer: PeerInfo, directory: str) -> Flight:
        """Start a listing of our own, or join the one under way."""
        return self._flights.start((peer.id, directory), self._list_at, peer, directory)

    async def _list_at(self, peer: PeerInfo, directory: str) -> None:
        """Wait for a peer's listing; one that could not be asked a moment ago is not asked."""
        failure = self._failure(peer)
        if failure is not None:
            raise failure
        telling = self._horizon.ask_one(peer, directory, is_for_all=False)
        if await telling.heard_out() or telling.is_cut:
            return
        failure = telling.failure()
        if telling.is_over:
            self._failures[peer.id] = (self._clock() + UNLISTABLE_S, failure)
        raise failure

    def _failure(self, peer: PeerInfo) -> TransferError | None:
        """Return why a peer could not be asked a moment ago."""
        now = self._clock()
        self._failures = {p: (until, e) for p, (until, e) in self._failures.items() if until > now}
        return self._failures[peer.id][1] if peer.id in self._failures else None


class _Named(NamedTuple):
    """The folders of all peers, as they were named last."""

    version: tuple[int, ...]
    neighbours: tuple[PeerInfo, ...]
    at: float
    folders: Mapping[str, PeerInfo]


@dataclass(slots=True)
class _Folder:
    name: str
    peer_name: str
    seen_at: float


class Folders:
    """The names of folders, one for each peer; none changes while its peer is known."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: dict[ServentId, _Folder] = {}
        """Those seen longest ago first."""
        self._owners: dict[str, ServentId] = {}

    def owner(self, name: str) -> ServentId | None:
        """Return the peer whose folder has this name, known or gone."""
        return self._owners.get(name)

    def of(
        self, peers: Iterable[PeerInfo], now: float, chosen: Container[ServentId] = ()
    ) -> dict[str, PeerInfo]:
        """Return these peers by the names of their folders.

        Of those that become known together, neighbours of our own choice are named first.
        """
        known = {peer.id: peer for peer in peers}
        with self._lock:
            for peer, folder in list(self._folders.items()):
                is_renamed = peer in known and folder.peer_name != known[peer].name
                if is_renamed or folder.seen_at < now - RESERVED_S:
                    self._forget(peer)
            self._name([known[i] for i in sorted(known) if i not in self._folders], chosen)
            for peer in known:
                self._folders[peer] = folder = self._folders.pop(peer)
                folder.seen_at = now
            while len(self._folders) > MAX_RESERVED + len(known):
                self._forget(next(iter(self._folders)))
            return {self._folders[peer].name: info for peer, info in known.items()}

    def _name(self, peers: Iterable[PeerInfo], chosen: Container[ServentId]) -> None:
        versions = [
            Version(safe_name(peer), peer.id, peer, _rank(peer, number, chosen), is_directory=True)
            for number, peer in enumerate(peers)
        ]
        taken = {name: (name, owner) for name, owner in self._owners.items()}
        for name, version in assign(versions, taken).items():
            peer = version.key
            assert isinstance(peer, PeerInfo)
            self._folders[peer.id] = _Folder(name, peer.name, 0.0)
            self._owners[name] = peer.id

    def _forget(self, peer: ServentId) -> None:
        folder = self._folders.pop(peer, None)
        if folder is not None:
            del self._owners[folder.name]


def safe_name(peer: PeerInfo) -> str:
    """Return a peer's name as it may be that of a folder; a part of its id if none is left."""
    shown = "".join("_" if names.check_label(c) and c not in " ." else c for c in peer.name)
    cut = normalize("NFC", shown).encode()[:MAX_NAME_BYTES].decode(errors="ignore").strip()
    safe = "_" + cut[1:] if cut.startswith(".") else cut
    return safe if names.check_label(safe) is None else peer.id[:ID_SUFFIX_LENGTH]


def _rank(peer: PeerInfo, number: int, chosen: Container[ServentId]) -> Rank:
    return Rank(Nearness.ELSEWHERE, (-(peer.id in chosen), 0), number)


def _node(folder: str, peer: PeerInfo, entry: Entry) -> Node:
    path = f"{folder}/{entry.path}"
    if entry.is_directory:
        return RemoteDirectory(path, entry.mtime_ns, (peer,))
    return RemoteFile(path, entry.size, entry.mtime_ns, FileId(entry.file_id), (peer,))
