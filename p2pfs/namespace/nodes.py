"""Files and directories of others, and which version has which name: the one naming rule. Pure.

A *version* is one of the things that are published under one name in one directory: a content,
or a directory. The best of them has the plain name, each other a suffix. Law:

- every version has exactly one name, and no two contents have the same one;
- no version loses a name to one that ranks lower. First comes a content that is pinned here or
  whole in the cache; then the one that more of the servents have that we chose ourselves; then the
  one that was known first;
- a name that is held, because it is open, stays with its version whatever the ranks become.

So strangers decide about no names but those that nobody better has. Heads are not counted:
identities are free.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Container, Hashable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeVar

from msgspec import Struct

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


class Knowledge(enum.Enum):
    """The answer for a name that is not known."""

    UNKNOWN = enum.auto()
    """A search is worth while."""
    ABSENT = enum.auto()
    """It was asked for lately, and nobody has it."""


class RemoteFile(Struct, frozen=True, gc=False):
    """One content under one name.

    A listing makes thousands, and to make a dataclass of these fields takes eight times as long.
    """

    path: str
    """As shown: a version that lost the plain name carries its suffix."""
    size: int
    mtime_ns: int
    file_id: FileId
    sources: tuple[PeerInfo, ...]
    """The servents that offer this content at this path."""


class RemoteDirectory(Struct, frozen=True, gc=False):
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


HeldNames = Mapping[str, tuple[str, Hashable]]
"""Names that keep their version, which is given by its published name and its key."""


def assign(
    versions: Iterable[Version], held: HeldNames = MappingProxyType({})
) -> dict[str, Version]:
    """Return which version has which name in a directory, given all of them: best rank first.

    A version that is held under two names has the first of them, and no other version the second.
    One that comes to a name which has the same content already shares it: a user who copies `x~ID8`
    into his own share publishes it under that name, and it is one file.
    """
    shown: dict[str, Version] = {}
    holders = {holder: name for name, holder in reversed([*held.items()])}
    numbered: dict[tuple[str, str], _Numbered] = {}
    ranked = sorted(versions, key=order)
    for version in ranked:
        if (version.name, version.key) in holders:
            shown[holders[version.name, version.key]] = version
    for version in ranked:
        if (version.name, version.key) not in holders:
            usual = (n for n in usual_names(version) if _may_have(version, n, shown, held))
            name = next(usual, None) or numbered.setdefault(
                (version.name, version.token), _Numbered(version)
            ).first(version, shown, held)
            shown.setdefault(name, version)
    return shown


class _Numbered:
    """The numbered names of all versions that have a name and a token in common.

    Servents may announce a thousand sizes of one id. Their versions want the same names, so each
    name is tried once for all of them.
    """

    def __init__(self, version: Version) -> None:
        self._untried = numbered_names(version)
        self._had: dict[Hashable, str] = {}
        """The first of the names tried that each content has."""

    def first(self, version: Version, shown: Mapping[str, Version], held: HeldNames) -> str:
        """Return the first of the names that a version may have."""
        if version.key in self._had and not version.is_directory:
            return self._had[version.key]
        for name in self._untried:
            if _may_have(version, name, shown, held):
                self._had.setdefault(version.key, name)
                return name
            self._had.setdefault(shown[name].key if name in shown else held[name][1], name)
        raise AssertionError("there is no last number")


def _may_have(version: Version, name: str, shown: Mapping[str, Version], held: HeldNames) -> bool:
    if name in shown:
        return shown[name].key == version.key and not version.is_directory
    return name not in held or (held[name][1] == version.key and not version.is_directory)


def believed(claims: Mapping[ServentId, Claim], preferred: Iterable[ServentId]) -> Claim:
    """Return the claim that is believed where servents differ, such as in a time.

    That is the claim of the first preferred servent, or of the servent known first. It stays when
    other servents come.
    """
    spoken = (claims[source] for source in preferred if source in claims)
    return next(itertools.chain(spoken, claims.values()))


def published_names(shown: str) -> Iterable[str]:
    """Return the names whose versions may be shown as `shown`: itself, and without a suffix.

    Names that were cut to have room for a suffix are not among them: see `naming.Odd`.
    """
    return _unsuffixed(shown) if "~" in shown else (shown,)  # most names have no suffix


def _unsuffixed(shown: str) -> Iterator[str]:
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
    if "~" not in path:  # most paths: a third of what it takes to show one
        return path
    parent, slash, name = path.rpartition("/")
    if f"~{file_id.hex()[:ID_SUFFIX_LENGTH]}" not in name:
        return path
    for published in published_names(name):
        version = file_version(published, Content(file_id, 0), _NO_RANK)
        if published != name and name in usual_names(version):
            return f"{parent}{slash}{published}"
    return path


def version_name(path: str, file_id: FileId, length: int = ID_SUFFIX_LENGTH) -> str:
    """Return the path at which a content is shown that has not the plain name."""
    parent, slash, name = path.rpartition("/")
    version = file_version(name, Content(file_id, 0), _NO_RANK)
    return f"{parent}{slash}{_with_suffix(version, version.token[:length])}"


def usual_names(version: Version) -> Iterator[str]:
    """Yield the plain name of a version, and those with its id, from eight characters to all."""
    yield version.name
    token = version.token
    for end in range(ID_SUFFIX_LENGTH, len(token) + ID_SUFFIX_LENGTH, ID_SUFFIX_LENGTH):
        yield _with_suffix(version, token[:end])


def numbered_names(version: Version) -> Iterator[str]:
    """Yield numbered names, for when other contents are published under each of the usual ones."""
    return (_with_suffix(version, f"{version.token}~{number}") for number in itertools.count(2))


def _with_suffix(version: Version, suffix: str) -> str:
    stem, dot, extension = version.name.rpartition(".")
    if version.is_directory or not stem or len(extension.encode()) > MAX_EXTENSION_BYTES:
        stem, dot, extension = version.name, "", ""
    tail = f"~{suffix}{dot}{extension}"
    room = MAX_LABEL_BYTES - len(tail.encode())
    return stem.encode()[:room].decode(errors="ignore") + tail


def order(version: Version) -> tuple[Rank, str, str]:
    """Return the key by which versions are sorted: those first that choose their names first."""
    return version.rank, version.token, repr(version.key)
