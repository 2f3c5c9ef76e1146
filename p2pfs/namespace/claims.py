"""What each servent says that it has, as one tree of names. Pure, and not locked.

Everything that is taken in or forgotten costs what its source has there, not what others have:
one hit of a hundred thousand would else hold up everybody.
"""

from __future__ import annotations

import itertools
from collections.abc import (
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
)
from collections.abc import (
    Set as AbstractSet,
)
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from msgspec.structs import replace

from p2pfs.namespace.nodes import Content
from p2pfs.protocol import Entry, FileId, ServentId

MAX_ENTRIES: Final = 1_000_000
"""Entries held in all; about a gigabyte. What comes later is dropped and counted."""

MAX_ENTRIES_PER_SOURCE: Final = 400_000
"""Entries held of one servent, so that no single share can fill the catalogue."""


@dataclass(slots=True)
class Claims:
    """Who says that one version is there, in the order in which they became known."""

    known_at: int
    """Counts up with each version that becomes known."""
    was_whole: bool = False
    """Whether all of it was in the cache when it became known."""
    by: dict[ServentId, Entry] = field(default_factory=dict)


@dataclass(slots=True)
class Held:
    """A name that somebody has open."""

    holder: tuple[str, Hashable]
    """Whose it is: a published name, and the key of a version (`nodes.Version`)."""
    count: int = 0


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
# What most places have below them, for they are files: empty containers of its own took each 350
# bytes.


@dataclass(eq=False, slots=True)
class Place:
    """One path, as all servents together describe it."""

    parent: Place | None = None
    name: str = ""
    children: Mapping[str, Place] = field(default_factory=lambda: _NOTHING)
    files: dict[Content, Claims] = field(default_factory=dict)
    directory: Claims | None = None
    owner: Hashable = ()
    """The key of the version that had the plain name, while there are several."""
    contested: AbstractSet[str] = frozenset()
    """Names of children of which there are several versions."""
    held: Mapping[str, Held] = field(default_factory=lambda: _NOTHING)
    """Shown names in this directory that must keep their version."""
    suffixed_holds: int = 0
    """How many of these are not the published names."""
    listed_at: float | None = None
    """When the last listing of this directory was complete; None: never."""

    def is_empty(self) -> bool:
        """Return whether there is nothing left to remember."""
        return not (self.children or self.files or self.directory or self.held)

    def child(self, name: str) -> Place:
        """Return what is below under a name, new if there was nothing."""
        found = self.children.get(name)
        if found is None:
            found = Place(self, name)
            if not isinstance(self.children, dict):
                self.children = {}
            self.children[name] = found
        return found

    def drop_child(self, child: Place) -> None:
        """Remove what is below, unless something else has its name by now."""
        if isinstance(self.children, dict) and self.children.get(child.name) is child:
            del self.children[child.name]

    def contest(self, name: str, *, is_contested: bool) -> None:
        """Note whether there are several versions of a name."""
        if is_contested == (name in self.contested):
            return
        if not isinstance(self.contested, set):
            self.contested = set()
        (self.contested.add if is_contested else self.contested.discard)(name)

    def hold(self, name: str, holder: tuple[str, Hashable]) -> None:
        """Let a shown name keep its version, once more."""
        if not isinstance(self.held, dict):
            self.held = {}
        if name not in self.held:
            self.held[name] = Held(holder)
            self.suffixed_holds += name != holder[0]
        self.held[name].count += 1

    def let_go(self, name: str) -> None:
        """Undo a `hold`."""
        assert isinstance(self.held, dict), "it was held"
        held = self.held[name]
        held.count -= 1
        if not held.count:
            del self.held[name]
            self.suffixed_holds -= name != held.holder[0]

    def claims(self) -> Iterator[Claims]:
        """Yield the claims to each version."""
        if self.directory is not None:
            yield self.directory
        yield from self.files.values()

    def entry_of(self, source: ServentId) -> Entry | None:
        """Return what one servent says that it has here."""
        return next((one.by[source] for one in self.claims() if source in one.by), None)

    def path(self) -> str:
        """Return the path, as published."""
        labels = []
        place: Place | None = self
        while place is not None and place.parent is not None:
            labels.append(place.name)
            place = place.parent
        return "/".join(reversed(labels))


class ClaimTree:
    """All claims of all servents. A servent has one version at a path: the last it told of."""

    def __init__(self, is_whole: Callable[[FileId], bool]) -> None:
        self._is_whole = is_whole
        self.root = Place()
        self.dropped = 0
        """Entries that the bounds above turned away."""
        self._total = 0
        self._counts: dict[ServentId, int] = {}
        self._names: dict[ServentId, dict[Place, set[str]]] = {}
        """What each has, by directory."""
        self._places: dict[FileId, Place | dict[Place, None]] = {}
        """Where each content is: nearly all are in one place."""
        self._versions: dict[ServentId, int] = {}
        """Another number for each change of what a servent has."""
        self._numbers = itertools.count()

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
        """Return who has something."""
        return self._counts.keys()

    def names_of(self, source: ServentId, place: Place) -> Collection[str]:
        """Return the names that one servent has in a directory."""
        return self._names.get(source, {}).get(place, ())

    def claims_to(self, file_id: FileId) -> Iterator[tuple[Place, Content, Claims]]:
        """Yield all claims to a content, of whatever size it is said to be."""
        for place in self._places_of(file_id):
            for content, claims in place.files.items():
                if content.file_id == file_id:
                    yield place, content, claims

    def version_of(self, source: ServentId) -> int | None:
        """Return a number that differs whenever what one servent has does."""
        return self._versions.get(source)

    def _places_of(self, file_id: FileId) -> Iterable[Place]:
        places = self._places.get(file_id, ())
        return (places,) if isinstance(places, Place) else places

    def put(self, source: ServentId, entry: Entry, now_ns: int) -> Entry:
        """Take in what a servent has at a path, and the directories above; return it as believed.

        A time that has not come is the time at which it was heard first.
        """
        if self._counts.get(source, 0) >= MAX_ENTRIES_PER_SOURCE or self._total >= MAX_ENTRIES:
            self.dropped += 1
            return entry
        place = self.place(entry.path, create=True)
        assert place is not None
        entry = _not_in_future(entry, place, source, now_ns)
        if entry.is_directory:
            self._put_directory(place, source, entry)
        else:
            self._put_file(place, source, entry)
        parent = place.parent
        while parent is not None and parent.parent is not None and not _has(parent, source):
            self._put_directory(parent, source, Entry(parent.path(), 0, 0, b""))
            parent = parent.parent
        return entry

    def _put_directory(self, place: Place, source: ServentId, entry: Entry) -> None:
        known = place.directory.by.get(source) if place.directory else None
        if known is not None and not entry.mtime_ns:
            return  # it was told of by what is below
        if known is None:
            self._forget_files(place, source)
            self._noted(place, source)
        if place.directory is None:
            _note_owner(place)
            place.directory = Claims(next(self._numbers))
        if place.directory.by.get(source) != entry:
            self._versions[source] = next(self._numbers)
        place.directory.by[source] = entry
        _weigh(place)

    def _put_file(self, place: Place, source: ServentId, entry: Entry) -> None:
        content = Content(FileId(entry.file_id), entry.size)
        claims = place.files.get(content)
        if claims is None or source not in claims.by:
            self._clear(place, source)
            self._noted(place, source)
        if content not in place.files:
            _note_owner(place)
            was_whole = self._is_whole(content.file_id)
            place.files[content] = Claims(next(self._numbers), was_whole)
            self._came(place, content.file_id)
        if place.files[content].by.get(source) != entry:
            self._versions[source] = next(self._numbers)
        place.files[content].by[source] = entry
        _weigh(place)

    def _noted(self, place: Place, source: ServentId) -> None:
        if place.parent is None:
            return
        self._names.setdefault(source, {}).setdefault(place.parent, set()).add(place.name)
        self._counts[source] = self._counts.get(source, 0) + 1
        self._total += 1
        self._versions[source] = next(self._numbers)

    def forget(self, place: Place, source: ServentId) -> None:
        """Take in that a servent has nothing at a place, nor below."""
        self._clear(place, source)
        self.prune(place)

    def _clear(self, place: Place, source: ServentId) -> None:
        # Who has something in a directory has the directory: so this place lasts meanwhile.
        for name in list(self.names_of(source, place)):
            self.forget(place.children[name], source)
        self._forget_files(place, source)
        if place.directory is not None and place.directory.by.pop(source, None) is not None:
            self._unnoted(place, source)
            if not place.directory.by:
                place.directory = None
        _weigh(place)

    def fade(self, place: Place, source: ServentId, at_most: int) -> int:
        """Do a part of `forget`; return how many entries went, fewer than asked for at the end."""
        for count in range(at_most):
            names = self._names.get(source, {})
            last = place
            while last in names:
                last = last.children[next(iter(names[last]))]
            self.forget(last, source)
            if last is place:
                return count
        return at_most

    def places_of(self, source: ServentId, place: Place, names: Iterable[str]) -> list[Place]:
        """Return what a servent has in a directory under these names, as far as it has."""
        known = self.names_of(source, place)
        return [place.children[name] for name in names if name in known]

    def forget_content(self, place: Place, content: Content) -> Collection[ServentId]:
        """Drop all claims to a content at a place; return who made them."""
        sources = list(place.files[content].by)
        for source in sources:
            self._forget_files(place, source)
        _weigh(place)
        self.prune(place)
        return sources

    def _forget_files(self, place: Place, source: ServentId) -> None:
        for content in [c for c, claims in place.files.items() if source in claims.by]:
            del place.files[content].by[source]
            self._unnoted(place, source)
            if not place.files[content].by:
                del place.files[content]
                self._left(place, content.file_id)

    def _came(self, place: Place, file_id: FileId) -> None:
        known = self._places.setdefault(file_id, place)
        if isinstance(known, dict):
            known[place] = None
        elif known is not place:
            self._places[file_id] = {known: None, place: None}

    def _left(self, place: Place, file_id: FileId) -> None:
        if all(content.file_id != file_id for content in place.files):
            known = self._places[file_id]
            if isinstance(known, dict):
                del known[place]
            if known is place or not known:
                del self._places[file_id]

    def _unnoted(self, place: Place, source: ServentId) -> None:
        if place.parent is None:
            return
        names = self._names[source]
        names[place.parent].discard(place.name)
        if not names[place.parent]:
            del names[place.parent]
        self._total -= 1
        self._counts[source] -= 1
        self._versions[source] = next(self._numbers)
        if not self._counts[source]:
            del self._counts[source], self._names[source], self._versions[source]

    def prune(self, place: Place) -> None:
        """Remove a place that nobody describes any more, and those above that this empties."""
        while place.parent is not None and place.is_empty():
            place.parent.drop_child(place)
            place = place.parent


def _note_owner(place: Place) -> None:
    """Note who has had the plain name so far, before another version comes."""
    if len(place.files) + (place.directory is not None) == 1:
        place.owner = next(iter(place.files), None)


def _has(place: Place, source: ServentId) -> bool:
    return place.directory is not None and source in place.directory.by


def _weigh(place: Place) -> None:
    """Note whether a place is several things at once."""
    if place.parent is not None:
        is_contested = len(place.files) + (place.directory is not None) > 1
        place.parent.contest(place.name, is_contested=is_contested)


def _not_in_future(entry: Entry, place: Place, source: ServentId, now_ns: int) -> Entry:
    if entry.mtime_ns <= now_ns:
        return entry
    known = place.entry_of(source)
    is_same = known is not None and known.mtime_ns and known.file_id == entry.file_id
    return replace(entry, mtime_ns=known.mtime_ns if known and is_same else now_ns)
