"""What each servent says that it has, as one tree of names. Pure, and not locked.

To learn or forget a claim costs time in proportion to what its source has there, not to what others
have there. Otherwise one more holder of a long directory would hold up every thread.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from p2pfs.latest import Latest
from p2pfs.namespace.claimed import Claimed
from p2pfs.namespace.entries import Entries
from p2pfs.namespace.nodes import Content
from p2pfs.namespace.places import Claims, Place, Sole
from p2pfs.namespace.tellers import GroupsOf, who_makes_room
from p2pfs.protocol import Entry, FileId, ServentId, labels_in, parent_of

MAX_CLAIMS_BYTES: Final = 136 * 1024 * 1024
"""What all entries may take together: 300,000 with names of 25 letters, so that such a share is
seen whole. Above it those of the largest make room for others'. The rest of a servent takes 60 MiB,
and all of it under 200 MiB."""

MAX_ENTRIES_PER_SOURCE: Final = 400_000
"""Entries held of one servent."""

MAX_SHARED_NAMES: Final = 120_000
"""Names of one directory, for all addresses together of which each has many there that no other
has, where others have names as well. Two servents with 60,000 each are seen whole. To show all of
them takes a second, which is what liars can make a look at a directory cost."""

FEW_NAMES: Final = 1_000
"""So many names of a directory each address may have in any case."""

NAMES_AT_FIRST: Final = 300
"""So many it may have before one of its servents has told all of it once: to show them takes a few
milliseconds of each look."""

COUNTED_EACH: Final = 1_000
"""Each time that a servent has so many entries more, those of all servents at its address are
counted: an address may have no more than one servent."""

EVICTED_AT_ONCE: Final = 100
"""Entries that make room together: the servents that lose them are chosen once for all; 1 ms."""

MAX_LOST: Final = 1_000
"""Directories of which it is known that they lost names; the latest."""


class NameRoom(NamedTuple):
    """How many names a servent may have in a directory."""

    names: float
    at_first: float
    """Before it has told all of it once."""
    taken: float = -math.inf
    """How many others at its address have, if anybody elsewhere has any."""


ANY_ROOM: Final = NameRoom(math.inf, math.inf)


class ClaimTree:
    """All claims of all servents. A servent has one version at a path: that of its last claim."""

    def __init__(
        self,
        is_whole: Callable[[FileId], bool],
        groups_of: GroupsOf = lambda source: (source, source),
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Begin empty; `groups_of` tells which network and address answer for a servent."""
        self._clock = clock
        self._is_whole = is_whole
        self._groups_of = groups_of
        self.root = Place()
        self.dropped = 0
        """Entries that the bounds above turned away."""
        self.evicted = 0
        """Entries that have made room for those of others."""
        self._crowded: set[ServentId] = set()
        """Servents that get no room for more entries until another servent has fewer."""
        self.lost_at: Latest[str, float] = Latest(MAX_LOST)
        """When each directory last lost a name that made room for others."""
        self._entries = Entries(groups_of, FEW_NAMES)
        """What each servent has."""
        self.claimed = Claimed()
        """Where each content is."""
        self._numbers = itertools.count()

    def __del__(self) -> None:
        """Drop all places: they refer to each other, unseen by the garbage collector."""
        self.root.dissolve()

    def place(self, path: str, *, create: bool = False) -> Place | None:
        """Return the place of a path as published."""
        place = self.root
        for label in path.split("/") if path else ():
            child = place.child(label) if create else place.children.get(label)
            if child is None:
                return None
            place = child
        return place

    def places(self, path: str) -> Iterator[Place]:
        """Yield the places from the root to a path, as far as they are there."""
        place: Place | None = self.root
        yield self.root
        for label in path.split("/") if path else ():
            place = place and place.children.get(label)
            if place is None:
                return
            yield place

    def sources(self) -> Collection[ServentId]:
        """Return the servents that have at least one entry."""
        return self._entries.counts.keys()

    def names_of(self, source: ServentId, place: Place) -> Collection[str]:
        """Return the names that one servent has in a directory."""
        return self._entries.names(source, place)

    def entry_of(self, source: ServentId, place: Place) -> Entry | None:
        """Return what one servent says that it has at a place."""
        directory, content = place.directory, self._entries.content(source, place)
        if directory is not None and source in directory.by:
            return Entry(place.path(), 0, directory.by[source], b"")
        if content is None:
            return None
        return Entry(place.path(), content.size, place.by(content)[source], content.file_id)

    def version_of(self, source: ServentId) -> int | None:
        """Return a number that is another one after each change of a servent's claims."""
        return self._entries.version(source)

    def put(self, source: ServentId, entry: Entry, now_ns: int) -> Entry:
        """Note that a servent has an entry and the directories above it; return it as believed.

        A time in the future becomes the time at which the claim came first.
        """
        if not self._has_room(source):
            self.dropped += 1
            return entry
        place = self.place(entry.path, create=True)
        assert place is not None
        if entry.mtime_ns > now_ns:
            entry = _not_in_future(entry, self.entry_of(source, place), now_ns)
        if entry.is_directory:
            self._put_directory(place, source, entry)
        else:
            self._put_file(place, source, entry)
        parent = place.parent
        while (
            parent is not None and parent.parent is not None and not parent.is_directory_of(source)
        ):
            self._put_directory(parent, source, Entry(parent.path(), 0, 0, b""))
            parent = parent.parent
        return entry

    def has_all(self, source: ServentId, entries: Sequence[Entry]) -> bool:
        """Return whether a servent is known to have these files: to `put` them changes nothing.

        False may be wrong: only files are looked at of which it alone has told.
        """
        labels, place = self._labels_below(source, entries)
        get = place.children.get
        return bool(labels) and all(
            child is not None and child.sole is not None and child.sole.tells(source, entry)
            for child, entry in zip(map(get, labels), entries, strict=True)
        )

    def fill(self, source: ServentId, entries: Sequence[Entry], now_ns: int) -> bool:
        """Do what `put` does with each of these at once, if they are files that nobody has told of.

        They must be in one directory, which the servent has, and there must be room for them; else
        nothing is done. A name then takes a fifth of the time.
        """
        labels, place = self._labels_below(source, entries)
        is_new = bool(labels) and place.children.keys().isdisjoint(labels)
        if not is_new or not self._may_fill(source, entries, labels, now_ns):
            return False
        ids = [FileId(entry.file_id) for entry in entries]
        soles = [
            Sole(file_id, entry.size, source, entry.mtime_ns, known_at, was_whole)
            for entry, file_id, was_whole, known_at in zip(
                entries, ids, map(self._is_whole, ids), self._numbers, strict=False
            )
        ]
        self.claimed.fill(place.fill(labels, soles))
        self._entries.fill(source, place, labels)
        return True

    def _labels_below(
        self, source: ServentId, entries: Sequence[Entry]
    ) -> tuple[Sequence[str], Place]:
        """Return the names of files that are all in one directory of a servent, and its place.

        There are none if they are not.
        """
        directory = parent_of(entries[0].path)
        place = self.place(directory)
        if place is None or not (place is self.root or place.is_directory_of(source)):
            return (), self.root
        return labels_in(directory, [entry.path for entry in entries]), place

    def _may_fill(
        self, source: ServentId, entries: Sequence[Entry], labels: Sequence[str], now_ns: int
    ) -> bool:
        """Return whether some are files, each named once, not of the future, and there is room."""
        are_files = b"" not in [entry.file_id for entry in entries]
        is_past = max(entry.mtime_ns for entry in entries) <= now_ns
        is_each_once = len(set(labels)) == len(labels)
        has_room = (
            source not in self._crowded
            and self._entries.total + len(labels) <= MAX_ENTRIES_PER_SOURCE
            and self._entries.bytes_with(labels) <= MAX_CLAIMS_BYTES
        )
        return are_files and is_past and is_each_once and has_room

    def _has_room(self, source: ServentId) -> bool:
        """Make room for one more entry of a servent; return whether there is any."""
        count = self._entries.counts.get(source, 0)
        if count >= MAX_ENTRIES_PER_SOURCE or source in self._crowded:
            return False
        is_due = count % COUNTED_EACH == 0 and self._entries.total >= MAX_ENTRIES_PER_SOURCE
        if is_due and self._held_at_address_of(source) >= MAX_ENTRIES_PER_SOURCE:
            self._crowded.add(source)
            return False
        return self._entries.held_bytes < MAX_CLAIMS_BYTES or self._make_room(source)

    def _held_at_address_of(self, source: ServentId) -> int:
        own = self._groups_of(source)
        counts = self._entries.counts
        return sum(n for other, n in counts.items() if self._groups_of(other) == own)

    def _make_room(self, source: ServentId) -> bool:
        """Drop some entries of servents that have more than this one, if there are such."""
        victim = who_makes_room(self._entries.counts, source, self._groups_of, EVICTED_AT_ONCE)
        if victim is None:
            self._crowded.add(source)
            return False
        lost = {self._evict_one(victim) for _ in range(EVICTED_AT_ONCE)}
        self.lost_at |= dict.fromkeys((directory.path() for directory in lost), self._clock())
        return True

    def _evict_one(self, victim: ServentId) -> Place:
        """Let one entry of a servent go; return the directory that loses it."""
        last = self._entries.last_directory(victim)
        directory, child, content = self._entries.take_last(victim, last)
        self.evicted += 1
        self.forget(child, victim, content)
        return directory

    def room(self, source: ServentId, place: Place) -> NameRoom:
        """Return how many names a servent may have in a directory, as others have some there.

        No bound is set where only its address has names, or others have nearly all of the same.
        """
        crowd, names = self._entries.crowd(place), len(place.children)
        if crowd.is_alone(source):
            return ANY_ROOM
        taken = crowd.at_address_of(source) - len(self.names_of(source, place))
        if crowd.has_besides(source, names - NAMES_AT_FIRST):
            return NameRoom(math.inf, math.inf, taken)
        at_first = max(0, NAMES_AT_FIRST - taken)
        if crowd.has_besides(source, names - FEW_NAMES):
            return NameRoom(math.inf, at_first, taken)
        at_address = max(FEW_NAMES, MAX_SHARED_NAMES // (1 + crowd.large_besides(source)))
        return NameRoom(at_address - taken, at_first, taken)

    def _put_directory(self, place: Place, source: ServentId, entry: Entry) -> None:
        is_known = place.is_directory_of(source)
        if is_known and not entry.mtime_ns:
            return  # an entry below had implied it
        if not is_known:
            self._forget_file(place, source, self._entries.content(source, place))
            self._noted(place, source)
        if place.directory is None:
            place.note_owner()
            place.set_directory(Claims(next(self._numbers)))
        assert place.directory is not None
        self._put_claim(place.directory, source, entry)
        place.weigh()

    def _put_file(self, place: Place, source: ServentId, entry: Entry) -> None:
        content = Content(FileId(entry.file_id), entry.size)
        if not place.is_claimed(content, source):
            self._clear(place, source)
            self._noted(place, source)
        if place.is_bare():
            known_at, was_whole = next(self._numbers), self._is_whole(content.file_id)
            place.sole = Sole(*content, source, entry.mtime_ns, known_at, was_whole)
            self.claimed.add(place, content, source)
        elif place.sole is not None and place.is_claimed(content, source):
            self._retold(source, place.sole.mtime_ns != entry.mtime_ns)
            place.sole.mtime_ns = entry.mtime_ns
        else:
            self._put_version(place, source, content, entry)

    def _put_version(self, place: Place, source: ServentId, content: Content, entry: Entry) -> None:
        """Note a claim to a content at a path for which there are other claims."""
        sole = place.sole
        if sole is not None:
            self._entries.add_content(sole.source, place, sole.content)
            self.claimed.not_alone(place, sole.content)
        if content not in place.contents():
            place.note_owner()
            was_whole = self._is_whole(content.file_id)
            place.files()[content] = Claims(next(self._numbers), was_whole)
        is_new = not place.is_claimed(content, source)
        self._put_claim(place.files()[content], source, entry)
        if is_new:
            self._entries.add_content(source, place, content)
            self.claimed.add(place, content, source)
        place.weigh()

    def _put_claim(self, claims: Claims, source: ServentId, entry: Entry) -> None:
        self._retold(source, claims.by.get(source) != entry.mtime_ns)
        claims.put(source, entry.mtime_ns)

    def _retold(self, source: ServentId, has_changed: bool) -> None:
        if has_changed:
            self._entries.changed(source)

    def _noted(self, place: Place, source: ServentId) -> None:
        if place.parent is None:
            return
        place.claims_change()
        self._entries.add(source, place.parent, place.name)

    def forget(self, place: Place, source: ServentId, content: Content | None = None) -> None:
        """Note that a servent has nothing at a place, nor below; it had a `content`, if known."""
        self._clear(place, source, content)
        self.prune(place)

    def _clear(self, place: Place, source: ServentId, content: Content | None = None) -> None:
        # A servent that has something in a directory has the directory, so this place stays.
        for name in list(self.names_of(source, place)):
            self.forget(place.children[name], source)
        self._forget_file(place, source, content or self._entries.content(source, place))
        if place.directory is not None and place.directory.drop(source):
            self._unnoted(place, source)
            if not place.directory.by:
                place.set_directory(None)
        place.weigh()

    def fade(self, place: Place, source: ServentId, at_most: int) -> int:
        """Do a part of `forget`; return how many entries went, fewer than asked for at the end."""
        for count in range(at_most):
            last, content = place, None
            if self._entries.has_below(source, place):
                _, last, content = self._entries.take_last(source, place)
            self.forget(last, source, content)
            if last is place:
                return count
        return at_most

    def places_of(self, source: ServentId, place: Place, names: Iterable[str]) -> list[Place]:
        """Return those places in a directory, by these names, at which a servent has something."""
        known = self.names_of(source, place)
        return [place.children[name] for name in names if name in known]

    def forget_content(self, place: Place, content: Content) -> Collection[ServentId]:
        """Drop all claims to a content at a place; return the servents that made them."""
        sources = list(place.by(content))
        for source in sources:
            self._forget_file(place, source, content)
        place.weigh()
        self.prune(place)
        return sources

    def _forget_file(self, place: Place, source: ServentId, content: Content | None) -> None:
        """Forget the content, if any, that a servent has at a place."""
        if content is None:
            return
        if place.sole is not None:
            if not place.is_claimed(content, source):
                return
            place.sole = None
        else:
            files = place.files()
            files[content].drop(source)
            if not files[content].by:
                del files[content]
        self._unnoted(place, source)
        self.claimed.remove(place, content, source)

    def _unnoted(self, place: Place, source: ServentId) -> None:
        if place.parent is None:
            return
        place.claims_change()
        self._crowded.clear()
        self._entries.drop(source, place.parent, place.name)

    def prune(self, place: Place) -> None:
        """Remove a place without claims, and those above it that are empty then."""
        while place.parent is not None and place.is_empty():
            place.parent.drop_child(place)
            place = place.parent


def _not_in_future(entry: Entry, known: Entry | None, now_ns: int) -> Entry:
    is_same = known is not None and known.mtime_ns and known.file_id == entry.file_id
    return replace(entry, mtime_ns=known.mtime_ns if known and is_same else now_ns)
