"""What `network/` is known to hold: names, sizes, times and who has them.

Searches, listings and neighbours tell the catalogue; the tree asks it. It is memory alone,
so `ls`, `stat` and extended attributes of known names never wait for the network. It does
not ask anybody anything: deciding what is worth a search is the browser's work.

Everything here may be called from any thread. One lock is held for the length of one
dictionary walk; a page of ten thousand names takes a few milliseconds.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from p2pfs.protocol import Entry, FileId, PeerInfo, ServentId

MAX_ENTRIES: Final = 1_000_000
"""Entries held in all; about a gigabyte. What comes later is dropped and counted."""

MAX_ENTRIES_PER_SOURCE: Final = 200_000
"""Entries held of one servent, so that no single share can fill the catalogue."""

MAX_SOURCES: Final = 10_000
"""Servents held that have told of their shares, each with its addresses; some megabytes."""

MAX_LISTED_BY: Final = 1_000
"""Directories of one servent that are held for listed; the oldest is asked for again."""

MAX_ABSENT: Final = 10_000
"""Names remembered as absent. The oldest is forgotten first."""

ID_SUFFIX_LENGTH: Final = 8
"""Characters of the file id that tell versions of one name apart (DESIGN 2.1)."""


_HERE: Final = ServentId("")
"""The holder of what the user keeps, among the others: no servent has this id."""


class Knowledge(enum.Enum):
    """What the catalogue says of a name that it does not hold."""

    UNKNOWN = enum.auto()
    """A search is worth while."""
    ABSENT = enum.auto()
    """It was asked for lately, and nobody has it."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One content under one name."""

    path: str
    """As shown: a version that lost the plain name carries its suffix."""
    size: int
    mtime_ns: int
    file_id: FileId
    sources: tuple[PeerInfo, ...]
    """Who offers this content at this path."""


@dataclass(frozen=True, slots=True)
class RemoteDirectory:
    """A directory that at least one servent has."""

    path: str
    mtime_ns: int
    sources: tuple[PeerInfo, ...]


Node = RemoteFile | RemoteDirectory


@dataclass(slots=True)
class _Place:
    """One path, as all servents together describe it."""

    parent: _Place | None = None
    name: str = ""
    children: dict[str, _Place] = field(default_factory=dict)
    versions: dict[FileId, dict[ServentId, Entry]] = field(default_factory=dict)
    directory: dict[ServentId, Entry] = field(default_factory=dict)
    listed_at: float | None = None
    """When the last listing of this directory was complete; None: never."""

    def is_empty(self) -> bool:
        return not (self.children or self.versions or self.directory)

    def entry_of(self, source: ServentId) -> Entry | None:
        held = (holders.get(source) for holders in self.versions.values())
        return self.directory.get(source) or next((e for e in held if e is not None), None)

    def sources(self) -> set[ServentId]:
        return {*self.directory, *(peer for held in self.versions.values() for peer in held)}

    def path(self) -> str:
        labels = []
        place: _Place | None = self
        while place is not None and place.parent is not None:
            labels.append(place.name)
            place = place.parent
        return "/".join(reversed(labels))


class Catalogue:
    """The union of what other servents offer."""

    def __init__(self, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._lock = threading.RLock()
        self._root = _Place()
        self._peers: dict[ServentId, PeerInfo] = {}
        self._counts: dict[ServentId, int] = {}
        self._total = 0
        self._holders: dict[FileId, dict[ServentId, int]] = {}
        self._absent: dict[str, float] = {}
        self._listed_by: dict[ServentId, dict[str, float]] = {}
        """When each servent was itself asked for all of a directory."""
        self._expired_at = float("-inf")
        self.dropped = 0
        """Entries that the bounds above turned away."""

    # What we are told.

    def learn(self, source: PeerInfo, entries: Iterable[Entry]) -> None:
        """Take in that `source` has these entries, and the directories above them.

        A time in the future becomes now, once: at each further announcement of the same content
        it stays what it became. Else it would move with the clock, and `rsync` and `make` would
        do their work forever.
        """
        with self._lock:
            if self._has_place(source):
                for entry in entries:
                    self._learn_one(source.id, entry)

    def learn_listing(self, source: PeerInfo, directory: str, entries: Sequence[Entry]) -> None:
        """Take in all that `source` has in `directory`: what is not in `entries` it has no more."""
        with self._lock:
            self.learn(source, entries)
            self.keep_names(source, directory, {e.path.rpartition("/")[2] for e in entries})

    def keep_names(self, source: PeerInfo, directory: str, names: Container[str]) -> None:
        """Take in that `source` has `directory`, and nothing in it but what has these names.

        Long listings are learned page by page before, so that nobody waits for all of them:
        20,000 entries at once took 0.3 s.
        """
        with self._lock:
            if not self._has_place(source):
                return
            self._learn_one(source.id, Entry(directory, 0, 0, b""))
            place = self._place(directory)
            for name, child in list(place.children.items()) if place else ():
                if name not in names:
                    self._forget_tree(child, source.id)
                    self._prune(child)

    def mark_listed(self, directory: str, now: float) -> None:
        """Note that everybody within the horizon has been asked for this directory."""
        with self._lock:
            place = self._place(directory, create=directory == "")
            if place is not None:
                place.listed_at = now

    def mark_listed_by(self, source: ServentId, directory: str, now: float) -> None:
        """Note that one servent has told all that it has in a directory."""
        with self._lock:
            if source in self._peers:
                listed = self._listed_by.setdefault(source, {})
                listed.pop(directory, None)
                listed[directory] = now
                if len(listed) > MAX_LISTED_BY:
                    del listed[next(iter(listed))]

    def keep_only(self, directory: str, sources: Iterable[ServentId]) -> None:
        """Forget `directory` and all below it at every servent that is not among `sources`."""
        with self._lock:
            place = self._place(directory)
            if place is None:
                return
            kept = frozenset((*sources, _HERE))
            for below in list(_walk(place)):
                for gone in below.sources() - kept:
                    self._forget_files(below, gone)
                    if below.directory.pop(gone, None) is not None:
                        self._count(gone, -1)
                self._prune(below)
            if place is self._root:
                self._peers = {peer: info for peer, info in self._peers.items() if peer in kept}
            for gone in self._listed_by.keys() - kept:
                self._unlist(gone, directory)

    def forget(self, source: ServentId) -> None:
        """Forget all that one servent offers."""
        with self._lock:
            if source in self._counts:
                self._forget_tree(self._root, source)
            self._peers.pop(source, None)
            self._listed_by.pop(source, None)

    def forget_path(self, source: ServentId, path: str) -> None:
        """Forget what one servent offers at `path` and below."""
        with self._lock:
            self._unlist(source, path)
            place = self._place(path)
            if place is not None:
                self._forget_tree(place, source)
                self._prune(place)

    def remember_absent(self, path: str, until: float) -> None:
        """Note that nobody has `path`, to be believed until a time."""
        with self._lock:
            self._absent.pop(path, None)
            self._absent[path] = until
            while len(self._absent) > MAX_ABSENT:
                del self._absent[next(iter(self._absent))]

    def keep(self, entry: Entry) -> None:
        """Show a file, whoever else offers it, until `let_go`.

        Where others offer something else under its name, it is the version with fewest sources.
        """
        with self._lock:
            self._learn_one(_HERE, entry)

    def let_go(self, path: str) -> None:
        """Show the file that was kept at `path` only while others offer it."""
        with self._lock:
            place = self._place(path)
            if place is None:
                return
            parent = place.parent
            self._forget_files(place, _HERE)
            self._prune(place)
            while parent is not None and not any(
                _HERE in child.sources() for child in parent.children.values()
            ):
                if parent.directory.pop(_HERE, None) is not None:
                    self._count(_HERE, -1)
                self._prune(parent)
                parent = parent.parent

    # What we are asked.

    def lookup(self, path: str, now: float) -> Node | Knowledge:
        """Return what is at `path`, as shown; a version may be asked for by its suffix."""
        with self._lock:
            if path == "":
                return self._directory_node(self._root, "")
            parent_path, _, name = path.rpartition("/")
            parent = self._place(parent_path)
            if parent is not None:
                node = self._shown(parent, parent_path, name)
                if node is not None:
                    return node
            if self._absent.get(path, 0.0) > now:
                return Knowledge.ABSENT
            return Knowledge.UNKNOWN

    def children(self, path: str) -> list[Node]:
        """Return everything shown in a directory, sorted by name."""
        with self._lock:
            place = self._place(path)
            if place is None:
                return []
            nodes = [
                node
                for name, child in place.children.items()
                for node in self._nodes(child, _join(path, name))
            ]
        return sorted(nodes, key=lambda node: node.path)

    def listed_at(self, path: str) -> float | None:
        """Return when the whole horizon was last asked for this directory."""
        with self._lock:
            place = self._place(path)
            if place is None or place.listed_at is None or place.listed_at < self._expired_at:
                return None
            return place.listed_at

    def directory_sources(self, path: str) -> tuple[PeerInfo, ...]:
        """Return who is known to have this directory; for the root everybody known."""
        with self._lock:
            place = self._place(path)
            if place is None:
                return ()
            return self._infos(self._peers if place is self._root else place.directory)

    def sources_of(self, file_id: FileId) -> tuple[PeerInfo, ...]:
        """Return who is known to offer this content, under whatever path."""
        with self._lock:
            return self._infos(self._holders.get(file_id, {}))

    def peers(self) -> tuple[PeerInfo, ...]:
        """Return every servent that has told of its share."""
        with self._lock:
            return tuple(self._peers.values())

    def peer(self, source: ServentId) -> PeerInfo | None:
        """Return a servent if it has told of its share."""
        return self._peers.get(source)

    def entry_of(self, source: ServentId, path: str) -> Entry | None:
        """Return what one servent is known to have at a path."""
        with self._lock:
            place = self._place(path)
            return None if place is None else place.entry_of(source)

    def entries_of(self, source: ServentId, directory: str) -> list[Entry]:
        """Return what one servent is known to have in a directory, sorted by name."""
        with self._lock:
            place = self._place(directory)
            children = sorted(place.children.items()) if place else ()
            entries = (child.entry_of(source) for _, child in children)
            return [entry for entry in entries if entry is not None]

    def listed_by(self, source: ServentId, directory: str) -> float | None:
        """Return when one servent was last asked for all of a directory, if it was lately."""
        with self._lock:
            return self._listed_by.get(source, {}).get(directory)

    def forget_absences(self) -> None:
        """Hold no name for absent any more: somebody may have published it just now."""
        with self._lock:
            self._absent.clear()

    def expire(self, now: float) -> None:
        """Hold every listing begun before for old and no name for absent: the next look asks."""
        with self._lock:
            self._expired_at = now
            self._absent.clear()

    # The trie.

    def _place(self, path: str, *, create: bool = False) -> _Place | None:
        place = self._root
        for label in path.split("/") if path else ():
            child = place.children.get(label)
            if child is None:
                if not create:
                    return None
                child = place.children[label] = _Place(place, label)
            place = child
        return place

    def _learn_one(self, source: ServentId, entry: Entry) -> None:
        if entry.path == "":
            return
        if not self._has_room(source):
            self.dropped += 1
            return
        place = self._place(entry.path, create=True)
        assert place is not None
        self._absent.pop(entry.path, None)
        entry = self._not_in_future(entry, place, source)
        if entry.is_directory:
            self._forget_files(place, source)
            known = place.directory.get(source)
            if known is None:
                self._count(source, 1)
            if known is None or entry.mtime_ns:
                place.directory[source] = entry
        else:
            self._forget_directory(place, source)
            self._learn_file(place, source, entry)
        self._learn_parents(place, source)

    def _not_in_future(self, entry: Entry, place: _Place, source: ServentId) -> Entry:
        now_ns = self._now_ns()
        if entry.mtime_ns <= now_ns:
            return entry
        known = place.entry_of(source)
        is_same = known is not None and known.mtime_ns and known.file_id == entry.file_id
        return replace(entry, mtime_ns=known.mtime_ns if known and is_same else now_ns)

    def _learn_file(self, place: _Place, source: ServentId, entry: Entry) -> None:
        file_id = FileId(entry.file_id)
        if source not in place.versions.get(file_id, {}):
            self._forget_files(place, source)
            self._count(source, 1)
            held = self._holders.setdefault(file_id, {})
            held[source] = held.get(source, 0) + 1
        place.versions.setdefault(file_id, {})[source] = entry

    def _learn_parents(self, place: _Place, source: ServentId) -> None:
        parent = place.parent
        while parent is not None and parent.parent is not None and source not in parent.directory:
            parent.directory[source] = Entry(parent.path(), 0, 0, b"")
            self._count(source, 1)
            parent = parent.parent

    def _has_place(self, source: PeerInfo) -> bool:
        """Note a servent, in place of those that have nothing if there are too many."""
        if source.id not in self._peers and len(self._peers) >= MAX_SOURCES:
            self._peers = {peer: self._peers[peer] for peer in self._counts if peer in self._peers}
            if len(self._peers) >= MAX_SOURCES:
                self.dropped += 1
                return False
        self._peers[source.id] = source
        return True

    def _has_room(self, source: ServentId) -> bool:
        return self._counts.get(source, 0) < MAX_ENTRIES_PER_SOURCE and self._total < MAX_ENTRIES

    def _count(self, source: ServentId, change: int) -> None:
        self._total += change
        self._counts[source] = self._counts.get(source, 0) + change
        if not self._counts[source]:
            del self._counts[source]

    def _unlist(self, source: ServentId, path: str) -> None:
        """Forget that a directory, and those below it, were listed."""
        listed = self._listed_by.get(source, {})
        for below in [d for d in listed if not path or d == path or d.startswith(path + "/")]:
            del listed[below]
        if not listed:
            self._listed_by.pop(source, None)

    def _forget_files(self, place: _Place, source: ServentId) -> None:
        for file_id, holders in list(place.versions.items()):
            if holders.pop(source, None) is None:
                continue
            self._count(source, -1)
            held = self._holders[file_id]
            held[source] -= 1
            if not held[source]:
                del held[source]
            if not held:
                del self._holders[file_id]
            if not holders:
                del place.versions[file_id]

    def _forget_directory(self, place: _Place, source: ServentId) -> None:
        """Forget that `source` has a directory here, with all that it has below."""
        for below in list(_walk(place)):
            if below is not place:
                self._forget_files(below, source)
            if below.directory.pop(source, None) is not None:
                self._count(source, -1)
            self._prune(below, stop=place)

    def _forget_tree(self, place: _Place, source: ServentId) -> None:
        self._forget_files(place, source)
        self._forget_directory(place, source)

    def _prune(self, place: _Place, stop: _Place | None = None) -> None:
        """Remove a place that nobody describes any more, and those above it that this empties."""
        while place is not stop and place.parent is not None and place.is_empty():
            place.parent.children.pop(place.name, None)
            place = place.parent

    # What a place looks like.

    def _infos(self, holders: Iterable[ServentId]) -> tuple[PeerInfo, ...]:
        return tuple(self._peers[i] for i in sorted(holders) if i in self._peers)

    def _directory_node(self, place: _Place, path: str) -> RemoteDirectory:
        mtime_ns = max((entry.mtime_ns for entry in place.directory.values()), default=0)
        holders = self._peers if place is self._root else place.directory
        return RemoteDirectory(path, mtime_ns, self._infos(holders))

    def _file_node(self, place: _Place, path: str, file_id: FileId) -> RemoteFile:
        holders = place.versions[file_id]
        newest = max(holders.values(), key=lambda entry: entry.mtime_ns)
        return RemoteFile(path, newest.size, newest.mtime_ns, file_id, self._infos(holders))

    def _nodes(self, place: _Place, path: str) -> Iterator[Node]:
        """Yield all that is shown for one place: the plain name, then its other versions."""
        if place.directory:
            yield self._directory_node(place, path)
        ranked = _ranked(place)
        if ranked and not place.directory:
            yield self._file_node(place, path, ranked.pop(0))
        for file_id in ranked:
            shown = version_name(path, file_id)
            # A published name that looks like a suffixed one keeps its place.
            if place.parent is None or shown.rpartition("/")[2] not in place.parent.children:
                yield self._file_node(place, shown, file_id)

    def _shown(self, parent: _Place, parent_path: str, name: str) -> Node | None:
        path = _join(parent_path, name)
        for plain in _plain_names(name):
            child = parent.children.get(plain)
            for node in self._nodes(child, _join(parent_path, plain)) if child else ():
                if node.path == path:
                    return node
        return None


def version_name(path: str, file_id: FileId, length: int = ID_SUFFIX_LENGTH) -> str:
    """Return `stem~ID8.ext` for a version that does not have the plain name."""
    parent, slash, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    return f"{parent}{slash}{stem}~{file_id.hex()[:length]}{dot}{extension}"


def _plain_names(name: str) -> Iterator[str]:
    """Yield the names that could be shown as `name`: itself, and itself without a suffix."""
    yield name
    stem, tilde, rest = name.rpartition("~")
    identifier, dot, extension = rest.partition(".")
    if tilde and len(identifier) == ID_SUFFIX_LENGTH:
        yield f"{stem}{dot}{extension}"


def _ranked(place: _Place) -> list[FileId]:
    """Return the versions of a place: most sources (others) first, ties by the smaller id.

    Both depend on what is known alone, so names do not change from one `ls` to the next
    unless the network did.
    """

    def rank(file_id: FileId) -> tuple[int, FileId]:
        holders = place.versions[file_id]
        return (_HERE in holders) - len(holders), file_id

    return sorted(place.versions, key=rank)


def _walk(place: _Place) -> Iterator[_Place]:
    """Yield a place and all below it, deepest first, so that pruning may follow."""
    for child in list(place.children.values()):
        yield from _walk(child)
    yield place


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name
