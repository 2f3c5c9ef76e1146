"""Files and directories of others, and which version has which name: the one naming rule. Pure.

A *version* is one of the things that are published under one name in one directory: a content,
or a directory. The best of them has the plain name, each other a suffix. Law:

- every version has exactly one name, and no two contents have the same one;
- no version loses a name to one that ranks lower. First comes what is pinned here or whole in
  the cache; then what more of the servents have that we chose ourselves; then what was known
  first;
- a name that is held, because it is open, stays with its version whatever the ranks become.

So strangers decide about no names but those that nobody better has. Heads are not counted:
identities are free.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from p2pfs.protocol import FileId, PeerInfo, ServentId
from p2pfs.protocol.names import MAX_LABEL_BYTES

Claim = TypeVar("Claim")

ID_SUFFIX_LENGTH: Final = 8
"""Characters of the file id that tell versions of one name apart, or as many again where such a
name is taken."""

MAX_EXTENSION_BYTES: Final = 32
"""A longer extension is cut like the rest of a name that leaves no room for a suffix."""

_DIRECTORY_SUFFIX: Final = "dir"
"""The suffix of a directory, which has no id: several servents' directories are one."""

_SUFFIX: Final = re.compile(r"((?:[0-9a-f]{8}){1,8}|dir)(~[0-9]+)?")
"""What may stand behind a tilde in a shown name."""

_LONGEST_SUFFIX: Final = 80
"""Bytes of it: a tilde, an id in hexadecimal, and a number."""

_LONGEST_CHARACTER: Final = 4
"""Bytes of one in UTF-8: a name that was cut is shorter by fewer than it might be."""


class Knowledge(enum.Enum):
    """The answer for a name that is not known."""

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
    """The servents that offer this content at this path."""


@dataclass(frozen=True, slots=True)
class RemoteDirectory:
    """A directory that at least one servent has."""

    path: str
    """As shown, likewise."""
    mtime_ns: int
    sources: tuple[PeerInfo, ...]


Node = RemoteFile | RemoteDirectory


class Content(NamedTuple):
    """The claimed id and size of a file. Two sizes of one id are two claims, one of them false."""

    file_id: FileId
    size: int


class Nearness(enum.IntEnum):
    """How near a version is to this servent, best first."""

    PINNED = 0
    WHOLE = 1
    """All of it is in the cache."""
    ELSEWHERE = 2


class Rank(NamedTuple):
    """Why one version has a name rather than another; the smaller is the better."""

    nearness: Nearness
    backers: tuple[int, int]
    """In how many networks neighbours of our own choice have it, and at how many addresses there:
    as negative numbers, so that more is better. See `backing`."""
    known_at: int
    """Counts up with each version that becomes known."""


_NO_RANK: Final = Rank(Nearness.ELSEWHERE, (0, 0), 0)


Chosen = Mapping[ServentId, tuple[str, str]]
"""The servents that we chose ourselves, each with its network and its address there."""


def backing(chosen: Chosen, by: Container[ServentId]) -> tuple[int, int]:
    """Return how much the word of some servents is worth, for `Rank`.

    Identities are free, so those of one network count as one; only between equals their
    addresses do, or nothing would be told apart in a local network.
    """
    backers = {where for source, where in chosen.items() if source in by}
    return -len({network for network, _ in backers}), -len(backers)


class Version(NamedTuple):
    """One of the things that are published under one name in one directory."""

    name: str
    """As published."""
    token: str
    """The text that distinguishes it from other versions: the hex of its id."""
    key: Hashable
    """What it is: equal for two that are the same."""
    rank: Rank
    is_directory: bool = False


def file_version(name: str, content: Content, rank: Rank) -> Version:
    """Return a content as a version of its name."""
    return Version(name, content.file_id.hex(), content, rank)


def directory_version(name: str, rank: Rank) -> Version:
    """Return a directory as a version of its name."""
    return Version(name, _DIRECTORY_SUFFIX, None, rank, is_directory=True)


Held = Mapping[str, tuple[str, Hashable]]
"""Names that keep their version, which is given by its published name and its key."""


def assign(versions: Iterable[Version], held: Held = MappingProxyType({})) -> dict[str, Version]:
    """Return which version has which name in a directory, given all of them: best rank first.

    A version that is held under two names has the first of them, and no other version the second.
    One that comes to a name which has the same content already shares it: a user who copies `x~ID8`
    into his own share publishes it under that name, and it is one file.
    """
    shown: dict[str, Version] = {}
    holders = {holder: name for name, holder in reversed([*held.items()])}
    ranked = sorted(versions, key=_order)
    for version in ranked:
        if (version.name, version.key) in holders:
            shown[holders[version.name, version.key]] = version
    for version in ranked:
        if (version.name, version.key) not in holders:
            name = next(n for n in candidates(version) if _may_have(version, n, shown, held))
            shown.setdefault(name, version)
    return shown


def _may_have(version: Version, name: str, shown: Mapping[str, Version], held: Held) -> bool:
    if name in shown:
        return shown[name].key == version.key and not version.is_directory
    return name not in held or (held[name][1] == version.key and not version.is_directory)


class Names:
    """The result of `assign` for a directory, worked out only as far as it is asked for.

    Most names have one version, and a look at one of 100,000 names must not look at all. So
    only those are put in order that may stand in each other's way. Good for as long as nothing
    changes.
    """

    def __init__(
        self,
        versions_of: Callable[[str], Sequence[Version]],
        held: Held = MappingProxyType({}),
        long_names: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """Ask for the versions of a published name, and for the names that `is_long`."""
        self._versions_of = versions_of
        self._held = held
        self._long_names = long_names
        self._settled: set[str] = set()
        self._seen: dict[str, Sequence[Version]] = {}
        """The versions of the published names that were asked for."""
        self._alike: dict[str, Counter[str]] = {}
        """How many of them have each token, likewise."""
        self.shown: dict[str, Version] = {}
        """What is worked out so far, by name."""

    def holder(self, name: str) -> Version | None:
        """Return which version has a name."""
        for published in self._rivals(name):
            self.settle(published)
        return self.shown.get(name)

    def find(self, name: str, key: Hashable) -> Version | None:
        """Return the version with this key that has or had a published name."""
        found = (v for published in self._rivals(name) for v in self._versions(published))
        return next((version for version in found if version.key == key), None)

    def alias(self, name: str) -> Version | None:
        """Return the version that would have a name, if it had not a better one."""
        found = (v for published in self._rivals(name) for v in self._versions(published))
        return min((v for v in found if name in _usual(v)), key=_order, default=None)

    def is_settled(self, published: str) -> bool:
        """Return whether the versions of a published name are among those worked out."""
        return published in self._settled

    def settle(self, published: str) -> None:
        """Work out the names of all versions of a published name."""
        if published in self._settled:
            return
        todo = [published]
        versions: list[Version] = []
        while todo:
            name = todo.pop()
            if name not in self._settled:
                self._settled.add(name)
                here = self._versions(name)
                versions += here
                todo += (r for v in here for n in self._within_reach(v) for r in self._rivals(n))
        self.shown |= assign(versions, self._held)

    def _versions(self, published: str) -> Sequence[Version]:
        """Return the versions of a published name, asked for once: there may be hundreds."""
        if published not in self._seen:
            self._seen[published] = self._versions_of(published)
        return self._seen[published]

    def _twins(self, version: Version) -> int:
        """Return how many versions of its name have the token of a version, it included."""
        if version.name not in self._alike:
            self._alike[version.name] = Counter(v.token for v in self._versions(version.name))
        return self._alike[version.name][version.token]

    def _rivals(self, name: str) -> Iterator[str]:
        """Yield the published names whose versions may have a name."""
        yield from published_names(name)
        # The user may have typed a name that no peer can offer: half a surrogate pair.
        if len(name.encode(errors="surrogatepass")) > MAX_LABEL_BYTES - _LONGEST_CHARACTER:
            yield from self._long_names()

    def _within_reach(self, version: Version) -> Iterator[str]:
        """Yield the names that a version may come to have: it takes the first that is free."""
        yield from _usual(version)
        twins = self._twins(version)
        for name in _numbered(version):
            if not self._versions(name):
                twins -= 1
            if not twins:
                break
            yield name


def believed(claims: Mapping[ServentId, Claim], preferred: Iterable[ServentId]) -> Claim:
    """Return the claim that is believed where servents differ, such as in a time.

    That is the claim of the first preferred servent, or of the servent known first. It stays when
    other servents come.
    """
    spoken = (claims[source] for source in preferred if source in claims)
    return next(itertools.chain(spoken, claims.values()))


def published_names(shown: str) -> Iterator[str]:
    """Yield the names whose versions may be shown as `shown`: itself, and without a suffix.

    Names that were cut to have room for a suffix are not among them: see `is_long`.
    """
    yield shown
    for tilde in (i for i, character in enumerate(shown) if character == "~"):
        suffix, dot, extension = shown[tilde + 1 :].partition(".")
        if _SUFFIX.fullmatch(suffix):
            yield shown[:tilde] + dot + extension


def may_be_suffixed(name: str) -> bool:
    """Return whether a name may be the suffixed name of a version."""
    return any(published != name for published in published_names(name))


def without_suffix(path: str, file_id: FileId) -> str:
    """Return the path of a content without the suffix of its version."""
    parent, slash, name = path.rpartition("/")
    if "~" not in name:  # most names: a third of what it takes to show one
        return path
    for published in published_names(name):
        version = file_version(published, Content(file_id, 0), _NO_RANK)
        if published != name and name in _usual(version):
            return f"{parent}{slash}{published}"
    return path


def is_long(name: str) -> bool:
    """Return whether a name may be cut to have room for a suffix."""
    return len(name.encode()) > MAX_LABEL_BYTES - _LONGEST_SUFFIX


def candidates(version: Version) -> Iterator[str]:
    """Yield the names that a version may have, best first, without end."""
    yield from _usual(version)
    yield from _numbered(version)


def version_name(path: str, file_id: FileId, length: int = ID_SUFFIX_LENGTH) -> str:
    """Return the path at which a content is shown that has not the plain name."""
    parent, slash, name = path.rpartition("/")
    version = file_version(name, Content(file_id, 0), _NO_RANK)
    return f"{parent}{slash}{_with_suffix(version, version.token[:length])}"


def _usual(version: Version) -> Iterator[str]:
    yield version.name
    token = version.token
    for end in range(ID_SUFFIX_LENGTH, len(token) + ID_SUFFIX_LENGTH, ID_SUFFIX_LENGTH):
        yield _with_suffix(version, token[:end])


def _numbered(version: Version) -> Iterator[str]:
    """Yield numbered names, for when other contents are published under each of the usual ones."""
    return (_with_suffix(version, f"{version.token}~{number}") for number in itertools.count(2))


def _with_suffix(version: Version, suffix: str) -> str:
    stem, dot, extension = version.name.rpartition(".")
    if version.is_directory or not stem or len(extension.encode()) > MAX_EXTENSION_BYTES:
        stem, dot, extension = version.name, "", ""
    tail = f"~{suffix}{dot}{extension}"
    room = MAX_LABEL_BYTES - len(tail.encode())
    return stem.encode()[:room].decode(errors="ignore") + tail


def _order(version: Version) -> tuple[Rank, str, str]:
    return version.rank, version.token, repr(version.key)
