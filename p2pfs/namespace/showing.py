"""Which version is shown under which name and as what, and what holds a name for a version.

`nodes` has the rule; here it meets the tree of claims. Most names have one version and cost no
more than a look into a dictionary: only where several versions want one name is the rule asked.

Not locked: the catalogue guards it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from p2pfs.latest import Latest
from p2pfs.namespace.claims import ClaimTree
from p2pfs.namespace.naming import Names
from p2pfs.namespace.nodes import (
    Chosen,
    Content,
    Nearness,
    Node,
    Rank,
    RemoteDirectory,
    RemoteFile,
    Version,
    backing,
    believed,
    directory_version,
    file_version,
)
from p2pfs.namespace.places import Place, Sole
from p2pfs.namespace.sources import Sources
from p2pfs.namespace.tellers import GroupsOf
from p2pfs.protocol import FileId, ServentId, join_path

DIRECTORIES_KEPT: Final = 4
"""Directories of which it is remembered which version has which name: those looked at last."""

NAMES_KEPT: Final = 10_000
"""So many such names of one directory: 5 MB."""

HERE: Final = ServentId("")
"""The holder of what the user keeps, among the others: no servent has this id."""


@dataclass(frozen=True, slots=True)
class Here:
    """What this servent itself knows and has: memory alone, from any thread."""

    size_of: Callable[[FileId], int | None] = lambda _id: None
    """The size of a content whose manifest is here."""
    is_whole: Callable[[FileId], bool] = lambda _id: False
    """Whether all of a content is in the cache."""
    chosen: Callable[[], Chosen] = dict
    """The neighbours that we chose ourselves, each with where it is."""
    is_refused: Callable[[ServentId], bool] = lambda _source: False
    """Whether a servent is banned: its claims are ignored."""
    on_lie: Callable[[ServentId], object] = lambda _source: None
    """Is called with a servent whose claim is proved to be false; no lock is held."""
    groups_of: GroupsOf = lambda source: (source, source)
    """The network and the address that answer for the claims of a servent."""


NOTHING: Final = Here()


class Showing:
    """Shown names, worked out from the tree of claims."""

    def __init__(self, tree: ClaimTree, here: Here, sources: Sources) -> None:
        self._tree = tree
        self._here = here
        self._sources = sources
        self._kept: Latest[Place, _NamesKept] = Latest(DIRECTORIES_KEPT, lambda _, kept: kept.end())

    # Nodes at paths.

    def look(self, path: str) -> tuple[Node | None, str]:
        """Return the node shown at a path, and the path under which others know it.

        They differ where a directory above lost its name to something else; below an unknown path
        they do not.
        """
        if not path:
            return self.directory_node(self._tree.root, ""), ""
        *above, name = path.split("/")
        place = self._tree.root
        published: list[str] = []
        for depth, label in enumerate(above):
            below = self.below(place, label)
            if below is None:
                return None, "/".join((*published, *above[depth:], name))
            published.append(below.name)
            place = below
        holder = self.holder(place, name)
        if holder is None:
            return None, "/".join((*published, name))
        published.append(holder[0] if holder[1] is None else name)
        return self._node(place.children[holder[0]], path, holder[1]), "/".join(published)

    def published(self, path: str) -> str:
        """Return the path under which others know the node shown at a path; see `look`."""
        labels = []
        place: Place | None = self._tree.root
        for label in path.split("/") if path else ():
            place = None if place is None else self.below(place, label)
            labels.append(label if place is None else place.name)
        return "/".join(labels)

    def nodes(
        self, place: Place, path: str, names: Iterable[str], settled: Settled
    ) -> Iterator[Node]:
        """Yield the nodes shown under some names in a directory, those that are there still."""
        begin, infos = join_path(path, ""), self._sources.infos_of
        for name in names:
            child = None if name in settled.shown else place.children.get(name)
            sole = None if child is None or child.details.directory is not None else child.sole
            if sole is not None:  # of most names there is nothing more to say
                sources = infos(sole.source)
                yield RemoteFile(begin + name, sole.size, sole.mtime_ns, sole.file_id, sources)
                continue
            for published, key in versions_at(place, name, settled):
                yield self._node(place.children[published], begin + name, key)

    def _node(self, place: Place, path: str, key: Hashable) -> Node:
        if key is None:
            return self.directory_node(place, path)
        assert isinstance(key, Content)
        claims = place.claims_to(key)
        if isinstance(claims, Sole):
            time_ns, infos = claims.mtime_ns, self._sources.infos((claims.source,))
        elif len(claims.by) == 1:
            time_ns, infos = believed(claims.by, ()), self._sources.infos(claims.by)
        else:
            time_ns = believed(claims.by, (HERE, *self._here.chosen()))
            infos = self._sources.digest(claims).infos
        return RemoteFile(path, key.size, time_ns, key.file_id, infos)

    def directory_node(self, place: Place, path: str) -> RemoteDirectory:
        """Return a directory as shown at a path."""
        if place is self._tree.root:
            return RemoteDirectory(path, 0, self._sources.all())
        if place.directory is None:
            return RemoteDirectory(path, 0, ())
        digest = self._sources.digest(place.directory)
        return RemoteDirectory(path, digest.newest_ns, digest.infos)

    # Names that are open.

    def hold(self, file: RemoteFile) -> Iterator[tuple[Place, str]]:
        """Hold a shown path, label by label; yield the arguments for the `let_go` of each."""
        place = self._tree.root
        *above, name = file.path.split("/")
        for label in above:
            below = self.below(place, label)
            if below is None:
                return
            yield _take_hold(place, label, (below.name, None))
            place = below
        content = Content(file.file_id, file.size)
        if _only_holder(place, name) == (name, content):
            yield _take_hold(place, name, (name, content))
            return
        kept = self._names(place)
        kept.check_of(name)
        version = kept.names.holder(name)
        if version is None or version.key != content:
            version = kept.names.find(name, content)
        if version is not None:
            yield _take_hold(place, name, (version.name, content))

    def let_go(self, place: Place, name: str) -> None:
        """End one hold of a name."""
        place.let_go(name)

    # The version that has a name.

    def names(self, place: Place) -> Names:
        """Return which version has which name in a directory, as was worked out before."""
        return self._names(place).names

    def _names(self, place: Place) -> _NamesKept:
        kept = self._kept.pop(place, None)
        if kept is None or place.details.names is not kept.names:
            kept = _NamesKept(place, self._here)
        self._kept[place] = kept
        kept.check(self._here.chosen())
        return kept

    def settled(self, place: Place) -> Settled:
        """Return which version has each name in a directory that several could have."""
        kept = self._names(place)
        kept.check_all()
        for published in place.details.contested:
            kept.names.settle(published)
        for name, one in place.details.held.items():
            if not _only_holder(place, name):
                kept.names.settle(one.holder[0])
                kept.names.holder(name)  # which others may want
        settled = Settled(dict(kept.names.shown), frozenset(kept.names.settled()))
        _note_owners(place, kept.names)
        return settled

    def holder(self, place: Place, name: str) -> tuple[str, Hashable] | None:
        """Return the version that has a name in a directory, by published name and key."""
        only = _only_holder(place, name)
        if only is not None:
            return only
        kept = self._names(place)
        kept.check_of(name)
        names = kept.names
        version = names.holder(name) or names.alias(name)
        _note_owners(place, names)
        return version and (version.name, version.key)

    def below(self, place: Place, name: str) -> Place | None:
        """Return the directory that is shown as `name` in a directory."""
        published, key = self.holder(place, name) or ("", name)
        return place.children[published] if key is None else None

    def directory(self, path: str) -> Place | None:
        """Return the directory that is shown at a path."""
        place: Place | None = self._tree.root
        for label in path.split("/") if path else ():
            place = None if place is None else self.below(place, label)
        return place

    def is_below_a_file(self, path: str) -> bool:
        """Return whether a file is shown above a path, so that nothing is below it."""
        place = self._tree.root
        for label in path.split("/")[:-1]:
            below = self.below(place, label)
            if below is None:
                return self.holder(place, label) is not None
            place = below
        return False


def rank_of(
    by: Container[ServentId],
    known_at: int,
    chosen: Chosen,
    *,
    is_whole: bool,
) -> Rank:
    """Return how a version ranks that these servents claim, among those that want one name."""
    nearness = Nearness.WHOLE if is_whole else Nearness.ELSEWHERE
    return Rank(Nearness.PINNED if HERE in by else nearness, backing(chosen, by), known_at)


class Settled(NamedTuple):
    """Names in a directory that several versions could have, as they were at one time."""

    shown: Mapping[str, Version]
    """The version that has each of them."""
    published: Container[str]
    """The names under which these versions are published."""


class _NamesKept:
    """Which version has which name in a directory, with what that depends on."""

    def __init__(self, place: Place, here: Here) -> None:
        self._place = place
        self._here = here
        self._chosen: Chosen = {}
        self._counted: dict[str, dict[FileId, bool]] = {}
        """Whether the contents that may count as whole did so, by their published names."""
        held = {name: one.holder for name, one in place.details.held.items()}
        self.names = Names(self._versions_of, held, lambda: place.details.odd)
        place.own_details().names = self.names

    def end(self) -> None:
        """Keep it no longer."""
        if self._place.details.names is self.names:
            self._place.details.names = None

    def check(self, chosen: Chosen) -> None:
        """Forget all if other servents are chosen by now, or if it is too much."""
        if chosen != self._chosen or len(self.names.shown) > NAMES_KEPT:
            self.names.clear()
            self._counted.clear()
            self._chosen = dict(chosen)

    def check_of(self, name: str) -> None:
        """Forget what a name depends on if other contents are whole by now."""
        self._check(list(self.names.settled_with(name)))

    def check_all(self) -> None:
        """Forget what depends on other contents being whole than are by now."""
        self._check(list(self._counted))

    def _check(self, published: Iterable[str]) -> None:
        for name in published:
            counted = self._counted.get(name, {})
            if any(self._here.is_whole(one) != was_whole for one, was_whole in counted.items()):
                self.names.forget(name)

    def _versions_of(self, name: str) -> Sequence[Version]:
        child = self._place.children.get(name)
        self._counted.pop(name, None)
        return () if child is None else list(self._versions(child))

    def _versions(self, child: Place) -> Iterator[Version]:
        for content, claims in child.versions():
            # A content that is being read does not take a name from the version shown under it.
            may_count = claims.was_whole or child.details.owner == content
            is_whole = may_count and self._here.is_whole(content.file_id)
            if may_count:
                self._counted.setdefault(child.name, {})[content.file_id] = is_whole
            rank = rank_of(claims.by, claims.known_at, self._chosen, is_whole=is_whole)
            yield file_version(child.name, content, rank)
        if child.directory is not None:
            by, known_at = child.directory.by, child.directory.known_at
            yield directory_version(child.name, rank_of(by, known_at, self._chosen, is_whole=False))


def _note_owners(place: Place, names: Names) -> None:
    """Note which versions have the plain names that were worked out."""
    for name, version in names.take_settled():
        child = place.children[version.name]
        if name == version.name and child.details.owner != version.key:
            child.own_details().owner = version.key
            names.forget(name)  # the owner may count as whole, and the one before no more


def others(place: Place, settled: Settled) -> Iterable[str]:
    """Return the names that have the only version of their own: most, and they cost no more."""
    if not settled.shown:
        return place.children
    return (name for name in place.children if name not in settled.published)


def versions_at(place: Place, name: str, settled: Settled) -> Iterator[tuple[str, Hashable]]:
    """Yield the version shown under a name, by published name and key, if it is still there."""
    one = settled.shown.get(name)
    child = place.children.get(name if one is None else one.name)
    if one is None:
        yield from ((name, key) for key in (() if child is None else child.kinds()))
    elif child is not None and child.has(one.key):
        yield one.name, one.key


def _only_holder(place: Place, name: str) -> tuple[str, Hashable] | None:
    """Return the version that has a name in a directory if no other could have it.

    Most names have one version, and where others are suffixed their names have a tilde.
    """
    details = place.details
    child = details.children.get(name)
    may_be_suffixed = "~" in name and (details.contested or details.held)
    if child is None or name in details.contested or may_be_suffixed or details.suffixed_holds:
        return None
    kinds = child.kinds()
    only = (name, kinds[0]) if kinds else None
    held = details.held.get(name) if details.held else None
    return only if held is None or held.holder == only else None


def _take_hold(place: Place, name: str, holder: tuple[str, Hashable]) -> tuple[Place, str]:
    place.hold(name, holder)
    return place, name
