"""What `network/` is known to hold: names, sizes, times and who has them.

Searches, listings and neighbours tell the catalogue; the tree asks it. It is memory alone,
so `ls`, `stat` and extended attributes of known names never wait for the network. It does
not ask anybody anything: deciding what is worth a search is the browser's work.

What was told is a claim. A claim that a manifest contradicts is dropped, and costs who made it.
Who has which name is decided by `nodes`; the paths in questions of the tree are the shown ones,
all others are as published: `published` leads from the ones to the others.

Everything here may be called from any thread. One lock is held for the length of one
dictionary walk; a page of ten thousand names takes a few milliseconds.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Container, Hashable, Iterable, Iterator, Sequence
from typing import Final

from p2pfs.latest import Latest
from p2pfs.namespace.claims import ClaimTree
from p2pfs.namespace.nodes import (
    ID_SUFFIX_LENGTH,
    Chosen,
    Content,
    Knowledge,
    Node,
    Rank,
    RemoteDirectory,
    RemoteFile,
    believed,
    version_name,
)
from p2pfs.namespace.places import Place
from p2pfs.namespace.showing import HERE, NOTHING, Here, Showing, others, rank_of, versions_at
from p2pfs.protocol import Entry, FileId, PeerInfo, ServentId

MAX_SOURCES: Final = 10_000
"""Servents held that have told of their shares, each with its addresses; some megabytes."""

MAX_LISTED_BY: Final = 1_000
"""Directories of one servent that are held for listed; the oldest is asked for again."""

MAX_LISTED: Final = 20_000
"""Listings of one servent of which it is known whether they are the same as before; 4 MB."""

FORGOTTEN_AT_ONCE: Final = 100
"""Entries forgotten without a break: some milliseconds. Of 200,000 at once everything else would
wait for five seconds."""

NAMES_SIFTED_AT_ONCE: Final = 2_000
"""Names of a listing that are compared without a break: two milliseconds if all are gone."""

NAMES_AT_ONCE: Final = 200
"""Names of a directory that are shown without a break: some microseconds each."""

MAX_ABSENT: Final = 10_000
"""Names remembered as absent. The oldest is forgotten first."""

MAX_FOUND: Final = 10_000
"""Names remembered that were found by their paths, so that no older listing ends them; 2 MB."""

MAX_PROVED: Final = 10_000
"""Contents whose size is remembered though their manifest is not here any more: 2 MB."""


class Catalogue:
    """The union of what other servents offer."""

    def __init__(
        self,
        here: Here = NOTHING,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._here = here
        self._now_ns = now_ns
        self._lock = threading.RLock()
        self._tree = ClaimTree(here.is_whole)
        self._clock = clock
        self._showing = Showing(self._tree, here)
        self._peers: dict[ServentId, PeerInfo] = {}
        self._heard_at: OrderedDict[ServentId, float] = OrderedDict()
        """When each of them was last heard of, the latest last."""
        self._proved: Latest[FileId, int] = Latest(MAX_PROVED)
        self._absent: Latest[str, float] = Latest(MAX_ABSENT)
        self._found_at: Latest[tuple[ServentId, str], float] = Latest(MAX_FOUND)
        """When each name, and what is above it, was last found by its path at a servent."""
        self._listed_by: dict[ServentId, Latest[str, float]] = {}
        """When each servent was itself asked for all of a directory."""
        self._listed: OrderedDict[tuple[ServentId, str], tuple[int, int | None]] = OrderedDict()
        """The hash of what each last told whole of a directory, and its version then."""
        self._expired_at = float("-inf")
        self._dropped = 0
        self._fading: dict[ServentId, dict[Place, None]] = {}
        """What is still to be forgotten of each servent: these places and all below."""
        self.on_fading: Callable[[], object] = lambda: None
        """Is called when there is something for `fade` to do."""

    @property
    def dropped(self) -> int:
        """Entries and servents that the bounds turned away."""
        return self._dropped + self._tree.dropped

    # What we are told.

    def learn(self, source: PeerInfo, entries: Iterable[Entry]) -> Sequence[Entry]:
        """Take in that `source` has these entries, and the directories above them.

        Returns those that are believed. What a manifest contradicts is not, and its source has
        lied. A time in the future becomes now, once: at each further announcement of the same
        content it stays what it became. Else it would move with the clock, and `rsync` and
        `make` would do their work forever.
        """
        good = self.sift(source, entries)
        with self._lock:
            if self._here.is_refused(source.id) or not self._has_place(source):
                return good
            return [self._learn_one(source.id, entry) for entry in good]

    def learn_found(self, source: PeerInfo, entries: Iterable[Entry]) -> None:
        """Take in what was found by its path: no listing that began before makes it vanish."""
        now = self._clock()
        with self._lock:
            for entry in self.learn(source, entries):
                path = entry.path
                while path:
                    self._found_at[source.id, path] = now
                    path = path.rpartition("/")[0]

    def sift(self, source: PeerInfo, entries: Iterable[Entry]) -> Sequence[Entry]:
        """Return those entries that no manifest contradicts; who told others has lied."""
        if self._here.is_refused(source.id):
            return ()
        told = list(entries)
        with self._lock:
            wrong = [entry for entry in told if self._is_disproved(entry)]
            liars = {liar for entry in wrong for liar in self._drop_false(FileId(entry.file_id))}
        self._blame(liars | {source.id for _ in wrong})
        return [entry for entry in told if entry not in wrong] if wrong else told

    def learn_listing(
        self, source: PeerInfo, directory: str, entries: Sequence[Entry], since: float = math.inf
    ) -> None:
        """Take in all that `source` has in `directory`: what is not in `entries` it has no more.

        What was found by its path since the listing began stays.
        """
        told = hash(tuple(entries))
        if self._is_told_again(source, directory, told):
            return
        good = self.learn(source, entries)
        self.keep_names(source, directory, {e.path.rpartition("/")[2] for e in good}, since)
        with self._lock:
            if len(good) == len(entries):
                self._listed[source.id, directory] = told, self._tree.version_of(source.id)
                if len(self._listed) > MAX_LISTED:
                    self._listed.popitem(last=False)

    def _is_told_again(self, source: PeerInfo, directory: str, told: int) -> bool:
        """Return whether a servent tells what it told before, and nothing has come between."""
        with self._lock:
            known = self._listed.get((source.id, directory))
            is_same = known == (told, self._tree.version_of(source.id))
            may_be_heard = source.id not in self._fading and not self._here.is_refused(source.id)
            return is_same and may_be_heard and self._has_place(source)

    def keep_names(
        self, source: PeerInfo, directory: str, names: Collection[str], since: float = math.inf
    ) -> None:
        """Take in that `source` has `directory`, and nothing in it but what has these names.

        What was found by its path since the listing began stays.
        """
        for _ in self.keeping_names(source, directory, names, since):
            pass

    def keeping_names(
        self, source: PeerInfo, directory: str, names: Collection[str], since: float = math.inf
    ) -> Iterator[None]:
        """Do the same in parts of a millisecond, for long listings.

        They are learned page by page before, so that nobody waits for all of them: 20,000
        entries at once took 0.3 s.
        """
        with self._lock:
            if self._here.is_refused(source.id) or not self._has_place(source):
                return
            self._learn_one(source.id, Entry(directory, 0, 0, b""))
            place = self._tree.place(directory)
            known = self._tree.names_of(source.id, place) if place is not None else ()
            if len(known) == len(names) > NAMES_SIFTED_AT_ONCE:
                return  # who has told so many was heard to the end: all of them were learned
            known = list(known)
        for first in range(0, len(known), NAMES_SIFTED_AT_ONCE):
            with self._lock:
                part = known[first : first + NAMES_SIFTED_AT_ONCE]
                gone = [
                    name
                    for name in part
                    if name not in names and not self._is_found(source.id, directory, name, since)
                ]
                assert place is not None, "it has names"
                self._forget(source.id, *self._tree.places_of(source.id, place, gone))
            yield

    def _is_found(self, source: ServentId, directory: str, name: str, since: float) -> bool:
        return self._found_at.get((source, _join(directory, name)), -math.inf) >= since

    def prove(self, file_id: FileId, size: int) -> None:
        """Take in that a manifest gives a content this size: other claims are false."""
        with self._lock:
            self._proved[file_id] = size
            liars = self._drop_false(file_id)
        self._blame(liars)

    def _drop_false(self, file_id: FileId) -> set[ServentId]:
        """Drop what a manifest contradicts; return who said it."""
        size = self.size_of(file_id)
        return {
            source
            for place, content, _ in list(self._tree.claims_to(file_id))
            if content.size != size
            for source in self._tree.forget_content(place, content)
        }

    def _blame(self, liars: set[ServentId]) -> None:
        for liar in liars - {HERE}:
            self._here.on_lie(liar)

    def _is_disproved(self, entry: Entry) -> bool:
        if entry.is_directory:
            return False
        return self.size_of(FileId(entry.file_id)) not in (None, entry.size)

    def mark_listed(self, directory: str, now: float) -> None:
        """Note that everybody within the horizon has been asked for this directory."""
        with self._lock:
            place = self._tree.place(directory)
            if place is not None:
                place.own_details().listed_at = now

    def mark_listed_by(self, source: ServentId, directory: str, now: float) -> None:
        """Note that one servent has told all that it has in a directory."""
        with self._lock:
            if source in self._peers:
                self._listed_by.setdefault(source, Latest(MAX_LISTED_BY))[directory] = now

    def keep_only(
        self, directory: str, sources: Iterable[ServentId], since: float = math.inf
    ) -> None:
        """Forget `directory` and all below it at every servent that is not among `sources`.

        Who was found to have it since the search for them began stays; in the root that is
        whoever was heard of.
        """
        with self._lock:
            place = self._tree.place(directory)
            if place is None:
                return
            kept = frozenset((*sources, *self._found_since(directory, since), HERE))
            if place is self._tree.root:
                gone = set(self._tree.sources()) - kept
                self._keep_peers(kept)
            else:
                gone = {source for claims in place.claims() for source in claims.by} - kept
            for source in gone:
                self._fading.setdefault(source, {})[place] = None
            self._begin_to_fade()
            for source in self._listed_by.keys() - kept:
                self._unlist(source, directory)

    def _found_since(self, directory: str, since: float) -> Iterator[ServentId]:
        if not directory:
            late = itertools.takewhile(
                lambda one: one[1] >= since, reversed(self._heard_at.items())
            )
            return (source for source, _ in late)
        found = reversed(self._found_at.items())
        late_found = itertools.takewhile(lambda one: one[1] >= since, found)
        return (source for (source, path), _ in late_found if path == directory)

    def forget(self, source: ServentId) -> None:
        """Forget all that one servent offers."""
        with self._lock:
            self._forget(source, self._tree.root)
            self._peers.pop(source, None)
            self._heard_at.pop(source, None)
            self._listed_by.pop(source, None)

    def forget_path(self, source: ServentId, path: str) -> None:
        """Forget what one servent offers at `path` and below."""
        with self._lock:
            self._unlist(source, path)
            place = self._tree.place(path)
            if place is not None:
                self._forget(source, place)

    def _forget(self, source: ServentId, *places: Place) -> None:
        """Forget what a servent has at some places and below: some at once, the rest behind."""
        if places:
            self._fading.setdefault(source, {}).update(dict.fromkeys(places))
            self._begin_to_fade()

    def _begin_to_fade(self) -> None:
        if self._fading and self.fade():
            self.on_fading()

    def fade(self) -> bool:
        """Forget some of what is to be forgotten; return whether there is more of it."""
        with self._lock:
            room = FORGOTTEN_AT_ONCE
            while self._fading and room:
                source, places = next(iter(self._fading.items()))
                place, _ = places.popitem()
                count = self._tree.fade(place, source, room)
                if count < room:
                    self._faded(source, place)
                else:
                    places[place] = None
                room -= max(count, 1)
            return bool(self._fading)

    def _faded(self, source: ServentId, place: Place) -> None:
        self._fading[source].pop(place, None)
        if not self._fading[source]:
            del self._fading[source]

    def _end_fading(self, source: ServentId, path: str) -> None:
        """Make room for what a servent tells of a path that is still to be forgotten.

        One that has left, and is back, has what it had until it says otherwise.
        """
        for place in self._tree.places(path):
            if place in self._fading.get(source, ()):
                self._faded(source, place)
                if place is not self._tree.root:
                    self._tree.forget(place, source)
                return

    def heard(self, source: ServentId) -> None:
        """Note that a servent is there, whatever it has."""
        with self._lock:
            if source in self._peers:
                self._note_heard(source)

    def unheard(self, since: float, limit: int) -> Sequence[PeerInfo]:
        """Return servents that have not been heard of since then, the longest silent first."""
        with self._lock:
            silent = itertools.takewhile(lambda one: one[1] < since, self._heard_at.items())
            return [self._peers[source] for source, _ in itertools.islice(silent, limit)]

    def remember_absent(self, path: str, until: float) -> None:
        """Note that nobody has `path`, to be believed until a time."""
        with self._lock:
            self._absent[path] = until

    def keep(self, entry: Entry) -> None:
        """Show a file under its name, whoever else offers what there, until `let_go`.

        One of a size that its manifest contradicts is not shown.
        """
        with self._lock:
            if not self._is_disproved(entry):
                self._learn_one(HERE, entry)

    def let_go(self, path: str) -> None:
        """Show the file that was kept at `path` only while others offer it."""
        with self._lock:
            above = list(self._tree.places(path))[1:]
            if above and above[-1] is self._tree.place(path):
                self._tree.forget(above.pop(), HERE)
            if len(above) < path.count("/"):
                return  # no directory is known that it could have been kept in
            for place in reversed(above):
                if not _keeps_directory(place) or self._tree.names_of(HERE, place):
                    return
                self._tree.forget(place, HERE)

    def hold(self, file: RemoteFile) -> Callable[[], None]:
        """Let a shown path keep its version, whatever becomes known; return what ends that.

        The directories above keep theirs as well. What nobody offers any more is not shown, but
        nothing else gets its name.
        """
        with self._lock:
            holds = list(self._showing.hold(file))

        def release() -> None:
            with self._lock:
                for place, name in reversed(holds):
                    self._showing.let_go(place, name)
                    self._tree.prune(place)

        return release

    # What we are asked, by shown paths.

    def lookup(self, path: str, now: float) -> Node | Knowledge:
        """Return what is at `path`, as shown; a version may be asked for by its suffix."""
        with self._lock:
            if path == "":
                return self._directory_node(self._tree.root, "")
            above, _, name = path.rpartition("/")
            place = self._showing.directory(above)
            holder = None if place is None else self._showing.holder(place, name)
            if place is not None and holder is not None:
                return self._node(place.children[holder[0]], path, holder[1])
            published = self.published(path)
            if self._absent.get(published, 0.0) > now or self._showing.is_below_a_file(path):
                return Knowledge.ABSENT
            return Knowledge.UNKNOWN

    def children(self, path: str) -> list[Node]:
        """Return everything shown in a directory, sorted by name."""
        return [node for part in self.parts(path) for node in part]

    def parts(self, path: str) -> Iterator[list[Node]]:
        """Yield everything shown in a directory, sorted by name, in parts of a millisecond.

        What changes between two parts may be in a later one, or not.
        """
        with self._lock:
            place = self._showing.directory(path)
            if place is None:
                return
            settled = self._showing.settled(place)
            names = sorted((*settled.shown, *others(place, settled)))
        for first in range(0, len(names), NAMES_AT_ONCE):
            with self._lock:
                part = [
                    self._node(place.children[published], _join(path, name), key)
                    for name in names[first : first + NAMES_AT_ONCE]
                    for published, key in versions_at(place, name, settled)
                ]
            yield part

    def published(self, path: str) -> str:
        """Return the path under which others know what is shown at a path.

        They differ where a directory lost its name to something else. What is not known is the
        same.
        """
        with self._lock:
            labels = []
            place: Place | None = self._tree.root
            for label in path.split("/") if path else ():
                place = None if place is None else self._showing.below(place, label)
                labels.append(label if place is None else place.name)
            return "/".join(labels)

    def shown_path(self, path: str, file_id: FileId) -> str:
        """Return the path at which a content is shown that is published at a path.

        That is the plain one, or with as much of its id as tells it from other versions.
        """
        for length in range(0, len(file_id.hex()) + 1, ID_SUFFIX_LENGTH):
            shown = version_name(path, file_id, length) if length else path
            node = self.lookup(shown, math.inf)
            if isinstance(node, RemoteFile) and node.file_id == file_id:
                return shown
        return path

    def is_disputed(self, file_id: FileId) -> bool:
        """Return whether a content is said to have several sizes, of which one at most is right."""
        with self._lock:
            return len({content.size for _, content, _ in self._tree.claims_to(file_id)}) > 1

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content if a manifest was seen that gives it."""
        proved = self._proved.get(file_id)
        return self._here.size_of(file_id) if proved is None else proved

    def believes(self, file: RemoteFile) -> bool:
        """Return whether no manifest contradicts the size of a file."""
        return self.size_of(file.file_id) in (None, file.size)

    def chosen(self) -> Chosen:
        """Return the neighbours that we chose ourselves, each with where it is."""
        return self._here.chosen()

    def is_whole(self, file_id: FileId) -> bool:
        """Return whether all of a content is in the cache."""
        return self._here.is_whole(file_id)

    def rank(
        self, content: Content, sources: Iterable[PeerInfo], known_at: int, *, is_whole: bool
    ) -> Rank:
        """Return how a content ranks that these sources have, found in whatever way."""
        with self._lock:
            claims = list(self._tree.claims_to(content.file_id))
        is_pinned = any(HERE in one.by for _, claimed, one in claims if claimed == content)
        by = {source.id for source in sources} | ({HERE} if is_pinned else set())
        return rank_of(by, known_at, self._here.chosen(), is_whole=is_whole)

    # What we are asked, by paths as published.

    def listed_at(self, path: str) -> float | None:
        """Return when the whole horizon was last asked for this directory."""
        with self._lock:
            place = self._tree.place(path)
            at = None if place is None else place.details.listed_at
            return None if at is None or at < self._expired_at else at

    def directory_sources(self, path: str) -> tuple[PeerInfo, ...]:
        """Return who is known to have this directory; for the root everybody known."""
        with self._lock:
            place = self._tree.place(path)
            return () if place is None else self._directory_node(place, path).sources

    def has_directory(self, path: str) -> bool:
        """Return whether a directory is known to exist; the root always does."""
        return not path or bool(self.directory_sources(path))

    def sources_of(self, file_id: FileId, size: int) -> tuple[PeerInfo, ...]:
        """Return who is known to offer this content, under whatever path."""
        with self._lock:
            claims = self._tree.claims_to(file_id)
            found = (one for _, content, one in claims if content.size == size)
            return self._infos(source for one in found for source in one.by)

    def claimants_of(self, file_id: FileId) -> Sequence[Sequence[PeerInfo]]:
        """Return who is known to offer a content, together those who say the same size.

        First those among whom is one that we chose ourselves, then those known first.
        """
        chosen = self._here.chosen()
        with self._lock:
            by_size: dict[int, list[ServentId]] = {}
            for _, content, claims in self._tree.claims_to(file_id):
                by_size.setdefault(content.size, []).extend(claims.by)
            ranked = sorted(by_size.values(), key=lambda by: chosen.keys().isdisjoint(by))
            return [self._infos(by) for by in ranked]

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
            place = self._tree.place(path)
            return None if place is None else place.entry_of(source)

    def entries_of(self, source: ServentId, directory: str) -> list[Entry]:
        """Return what one servent is known to have in a directory, sorted by name."""
        with self._lock:
            place = self._tree.place(directory)
            names = sorted(self._tree.names_of(source, place)) if place else ()
            entries = (place.children[name].entry_of(source) for name in names) if place else ()
            return [entry for entry in entries if entry is not None]

    def listed_by(self, source: ServentId, directory: str) -> float | None:
        """Return when one servent was last asked for all of a directory, if it was lately."""
        with self._lock:
            listed = self._listed_by.get(source)
            return None if listed is None else listed.get(directory)

    def forget_absences(self, directories: Collection[str] | None = None) -> None:
        """Hold no name for absent, in these directories or any: it may just have been published."""
        with self._lock:
            if directories is None:
                self._absent.clear()
                return
            for path in [one for one in self._absent if one.rpartition("/")[0] in directories]:
                del self._absent[path]

    def expire(self, now: float) -> None:
        """Hold every listing begun before for old and no name for absent: the next look asks."""
        with self._lock:
            self._expired_at = now
            self._absent.clear()

    # How it is kept.

    def _learn_one(self, source: ServentId, entry: Entry) -> Entry:
        if source in self._fading:
            self._end_fading(source, entry.path)
        if entry.path:
            entry = self._tree.put(source, entry, self._now_ns())
            self._absent.pop(entry.path, None)
        return entry

    def _has_place(self, source: PeerInfo) -> bool:
        """Note a servent, in place of those that have nothing if there are too many."""
        if source.id not in self._peers and len(self._peers) >= MAX_SOURCES:
            busy = self._tree.sources()
            self._keep_peers(busy)
            if len(self._peers) >= MAX_SOURCES:
                self._dropped += 1
                return False
        self._peers[source.id] = source
        self._note_heard(source.id)
        return True

    def _note_heard(self, source: ServentId) -> None:
        self._heard_at[source] = self._clock()
        self._heard_at.move_to_end(source)

    def _keep_peers(self, kept: Container[ServentId]) -> None:
        for source in [one for one in self._peers if one not in kept]:
            del self._peers[source]
            self._heard_at.pop(source, None)

    def _unlist(self, source: ServentId, path: str) -> None:
        """Forget that a directory, and those below it, were listed."""
        listed: dict[str, float] = self._listed_by.get(source, {})
        for below in [d for d in listed if not path or d == path or d.startswith(path + "/")]:
            del listed[below]
        if not listed:
            self._listed_by.pop(source, None)

    # What a place looks like.

    def _node(self, place: Place, path: str, key: Hashable) -> Node:
        if key is None:
            return self._directory_node(place, path)
        assert isinstance(key, Content)
        by = place.by(key)
        preferred = () if len(by) == 1 else (HERE, *self._here.chosen())
        mtime_ns = believed(by, preferred)
        return RemoteFile(path, key.size, mtime_ns, key.file_id, self._infos(by))

    def _directory_node(self, place: Place, path: str) -> RemoteDirectory:
        by = place.directory.by if place.directory else {}
        mtime_ns = max(by.values(), default=0)
        holders = self._peers if place is self._tree.root else by
        return RemoteDirectory(path, mtime_ns, self._infos(holders))

    def _infos(self, holders: Iterable[ServentId]) -> tuple[PeerInfo, ...]:
        return tuple(self._peers[i] for i in dict.fromkeys(holders) if i in self._peers)


def _keeps_directory(place: Place) -> bool:
    """Return whether a directory is shown for what the user keeps below it."""
    return place.is_directory_of(HERE)


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name
