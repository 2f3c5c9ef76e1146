"""One path of the tree, as all servents together describe it. Pure, and not locked.

Most paths are one file that one servent has, and there may be a million: such a place is two
small objects, which the garbage collector does not look at. Further facts are kept apart, since few
paths have any.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from msgspec import Struct, field

from p2pfs.namespace.naming import NO_ODD, Names, Odd, is_odd, odd_among
from p2pfs.namespace.nodes import Content
from p2pfs.protocol import Entry, FileId, PeerInfo, ServentId


class Claims(Struct, eq=False, gc=False):
    """The servents that say that one version is there, in the order in which they became known."""

    known_at: int
    """Counts up with each version that becomes known."""
    was_whole: bool = False
    """Whether all of it was in the cache when it became known."""
    by: dict[ServentId, int] = field(default_factory=dict)
    """The time of modification that each of them announces, in nanoseconds."""
    digest: Digest | None = None
    """What follows from these, if it was asked for."""

    def put(self, source: ServentId, mtime_ns: int) -> None:
        """Note that a servent says so, or that it announces another time."""
        if self.by.get(source) != mtime_ns:
            self.by[source] = mtime_ns
            self.digest = None

    def drop(self, source: ServentId) -> bool:
        """Note that a servent does not say so; return whether it did."""
        did = self.by.pop(source, None) is not None
        if did:
            self.digest = None
        return did


class Digest(NamedTuple):
    """The node shown for many claims: it takes too long to go through them at each look."""

    at: int
    """The state of the servents that it is of: see `Sources.version`."""
    infos: tuple[PeerInfo, ...]
    newest_ns: int


class Sole(Struct, eq=False, gc=False):
    """The claim of one servent to one file, where there is no other: most are such."""

    file_id: FileId
    size: int
    source: ServentId
    mtime_ns: int
    known_at: int
    was_whole: bool

    @property
    def content(self) -> Content:
        """Return the id and the size that the file is said to have."""
        return Content(self.file_id, self.size)

    @property
    def by(self) -> dict[ServentId, int]:
        """Return the servent with the time that it announces, as `Claims` has it; a copy."""
        return {self.source: self.mtime_ns}

    def tells(self, source: ServentId, entry: Entry) -> bool:
        """Return whether it is this claim of a servent, its time included."""
        return (
            self.source == source
            and self.file_id == entry.file_id
            and self.size == entry.size
            and self.mtime_ns == entry.mtime_ns
        )


class Held(Struct, eq=False):
    """A name that somebody has open."""

    holder: tuple[str, Hashable]
    """Whose it is: a published name, and the key of a version (`nodes.Version`)."""
    count: int = 0


_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})


class Details(Struct, eq=False, gc=False):
    """Facts about a directory, a name with several versions, or a name that is open."""

    children: Mapping[str, Place] = _NOTHING
    files: Mapping[Content, Claims] = _NOTHING
    directory: Claims | None = None
    owner: Hashable = ()
    """The key of the version that had the plain name, while there are several."""
    contested: AbstractSet[str] = frozenset()
    """Names of children of which there are several versions."""
    held: Mapping[str, Held] = _NOTHING
    """Shown names in this directory that must keep their version."""
    suffixed_holds: int = 0
    """How many of these are not the published names."""
    odd: Odd = NO_ODD
    """Names of children that may stand in the way of others."""
    names: Names | None = None
    """Which version has which name in this directory, if that is kept."""
    listed_at: float | None = None
    """When the last listing of this directory was complete; None: never."""


_NO_DETAILS: Final = Details()
"""Those of most places. It is shared and never changed."""


class Place(Struct, eq=False, gc=False):
    """One path. Places refer to each other, so call `dissolve` to drop a whole tree."""

    parent: Place | None = None
    name: str = ""
    sole: Sole | None = None
    """The claim to a file, if there is only one; then there are no files in `details`."""
    details: Details = field(default_factory=lambda: _NO_DETAILS)

    def own_details(self) -> Details:
        """Return the details, to be changed."""
        if self.details is _NO_DETAILS:
            self.details = Details()
        return self.details

    # Claims to this path.

    @property
    def children(self) -> Mapping[str, Place]:
        """Return the places below, by name."""
        return self.details.children

    @property
    def directory(self) -> Claims | None:
        """Return the servents that say that it is a directory."""
        return self.details.directory

    def is_bare(self) -> bool:
        """Return whether nobody says anything of the path itself."""
        return self.sole is None and not self.details.files and self.details.directory is None

    def is_empty(self) -> bool:
        """Return whether there is nothing left to remember."""
        return self.is_bare() and not (self.details.children or self.details.held)

    def kinds(self) -> Sequence[Content | None]:
        """Return what each version is; None for a directory."""
        if self.details.directory is None:
            return tuple(self.contents())
        return (*self.contents(), None)

    def contents(self) -> Iterable[Content]:
        """Return the contents that are said to be there."""
        return self.details.files if self.sole is None else (self.sole.content,)

    def versions(self) -> Iterable[tuple[Content, Claims | Sole]]:
        """Return the same, each with the servents that say so."""
        if self.sole is None:
            return self.details.files.items()
        return ((self.sole.content, self.sole),)

    def has(self, key: Hashable) -> bool:
        """Return whether a content is said to be there, or for None a directory."""
        if key is None:
            return self.details.directory is not None
        return isinstance(key, Content) and key in self.contents()

    def has_several_versions(self) -> bool:
        """Return whether several things are said to be there."""
        files = len(self.details.files) + (self.sole is not None)
        return files + (self.details.directory is not None) > 1

    def claims(self) -> Iterator[Claims | Sole]:
        """Yield the claims to each version."""
        if self.details.directory is not None:
            yield self.details.directory
        for _, claims in self.versions():
            yield claims

    def claims_to(self, content: Content) -> Claims | Sole:
        """Return the claims to a content that is said to be there; KeyError."""
        sole = self.sole
        if sole is None:
            return self.details.files[content]
        if content != (sole.file_id, sole.size):
            raise KeyError(content)
        return sole

    def by(self, content: Content) -> Mapping[ServentId, int]:
        """Return the servents that say that a content is there, each with its time; KeyError."""
        return self.claims_to(content).by

    def is_claimed(self, content: Content, source: ServentId) -> bool:
        """Return whether a servent says that a content is there."""
        if self.sole is not None:
            return self.sole.source == source and self.sole.content == content
        claims = self.details.files.get(content)
        return claims is not None and source in claims.by

    def is_directory_of(self, source: ServentId) -> bool:
        """Return whether a servent says that this is a directory."""
        return self.details.directory is not None and source in self.details.directory.by

    def path(self) -> str:
        """Return the path, as published."""
        labels = []
        place: Place | None = self
        while place is not None and place.parent is not None:
            labels.append(place.name)
            place = place.parent
        return "/".join(reversed(labels))

    # Paths below.

    def child(self, name: str) -> Place:
        """Return the place below under a name, new if there was none."""
        found = self.details.children.get(name)
        if found is None:
            found = Place(self, name)
            details = self.own_details()
            if not isinstance(details.children, dict):
                details.children = {}
            details.children[name] = found
            if is_odd(name):
                details.odd = Odd() if details.odd is NO_ODD else details.odd
                details.odd.add(name)
        return found

    def fill(self, names: Sequence[str], soles: Sequence[Sole]) -> Sequence[Place]:
        """Put files below under names that are free, each with the only claim to it."""
        places = [
            Place(self, name, sole, _NO_DETAILS) for name, sole in zip(names, soles, strict=True)
        ]
        details = self.own_details()
        if not isinstance(details.children, dict):
            details.children = {}
        details.children.update(zip(names, places, strict=True))
        for name in odd_among(names):
            details.odd = Odd() if details.odd is NO_ODD else details.odd
            details.odd.add(name)
        if details.names is not None:
            for name in names:
                details.names.forget(name)
        return places

    def drop_child(self, child: Place) -> None:
        """Remove a place below, unless another has its name by now."""
        children = self.details.children
        if isinstance(children, dict) and children.get(child.name) is child:
            del children[child.name]
            if is_odd(child.name):
                self.details.odd.drop(child.name)

    def dissolve(self) -> None:
        """Let everything below go."""
        places = [self]
        while places:
            place = places.pop()
            places += place.details.children.values()
            place.details = _NO_DETAILS

    # Claims to this path change.

    def files(self) -> dict[Content, Claims]:
        """Return the claims to each content that is said to be there, to be changed."""
        details, sole = self.own_details(), self.sole
        if not isinstance(details.files, dict):
            details.files = {}
        if sole is not None:
            details.files[sole.content] = Claims(sole.known_at, sole.was_whole, sole.by)
            self.sole = None
        return details.files

    def set_directory(self, claims: Claims | None) -> None:
        """Set the servents that say that it is a directory."""
        if claims is not self.details.directory:
            self.own_details().directory = claims

    def note_owner(self) -> None:
        """Note which version had the plain name so far, before another one comes."""
        keys = self.kinds()
        if len(keys) == 1:
            self.own_details().owner = keys[0]

    def weigh(self) -> None:
        """Note in the place above whether there are several versions here."""
        if self.parent is not None:
            self.parent.contest(self.name, is_contested=self.has_several_versions())

    def contest(self, name: str, *, is_contested: bool) -> None:
        """Note whether there are several versions of a name."""
        if is_contested == (name in self.details.contested):
            return
        details = self.own_details()
        if not isinstance(details.contested, set):
            details.contested = set()
        (details.contested.add if is_contested else details.contested.discard)(name)

    def claims_change(self) -> None:
        """Note that who claims what here is about to change, or how that ranks."""
        if self.parent is not None and self.parent.details.names is not None:
            self.parent.details.names.forget(self.name)

    # Names that are open.

    def hold(self, name: str, holder: tuple[str, Hashable]) -> None:
        """Let a shown name keep its version, once more."""
        details = self.own_details()
        if not isinstance(details.held, dict):
            details.held = {}
        if name not in details.held:
            details.held[name] = Held(holder)
            details.suffixed_holds += name != holder[0]
            if details.names is not None:
                details.names.hold(name, holder)
        details.held[name].count += 1

    def let_go(self, name: str) -> None:
        """Undo a `hold`."""
        details = self.details
        assert isinstance(details.held, dict), "it was held"
        held = details.held[name]
        held.count -= 1
        if not held.count:
            del details.held[name]
            details.suffixed_holds -= name != held.holder[0]
            if details.names is not None:
                details.names.let_go(name)
