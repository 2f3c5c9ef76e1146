"""The names that are offered at this moment: a tree in memory. Not locked: the books guard it.

A directory is taken back in one step however much is below it: it is cut off, and its files
are returned in pieces afterwards.
"""

from __future__ import annotations

import bisect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias
from unicodedata import normalize

from msgspec import Struct

from p2pfs.library.names import published_path, split
from p2pfs.library.status import Identity, StatKey
from p2pfs.protocol import Entry, FileId, join_path


class SharedFile(Struct, frozen=True, gc=False):
    """One file that is offered.

    There may be hundreds of thousands, so nothing is held twice: the directory is one text for all
    of its files, and the name one with that under which `Offers` has it.
    """

    directory: str
    """As others see it."""
    name: str
    file_id: FileId
    """The name of its content."""
    key: StatKey
    """The state in which it was hashed, or in which its bytes are known to be the same."""
    elsewhere: str | None = None
    """Its local path if that has another normal form."""
    is_filed: bool = True
    """Whether the index has it in this state."""

    @property
    def path(self) -> str:
        """The path that others see."""
        return join_path(self.directory, self.name)

    @property
    def local_path(self) -> str:
        """Where it is in the backing directory."""
        return self.path if self.elsewhere is None else self.elsewhere

    @property
    def entry(self) -> Entry:
        """As others see it."""
        return Entry(self.path, self.size, self.mtime_ns, self.file_id)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.key.size

    @property
    def mtime_ns(self) -> int:
        """When it was last written."""
        return self.key.mtime_ns

    @property
    def is_directory(self) -> bool:
        """Never."""
        return False


def file_offered(path: str, local_path: str, key: StatKey, file_id: FileId) -> SharedFile:
    """Return a file that is offered under a path, and that the index has."""
    directory, name = split(path)
    elsewhere = None if local_path == path else local_path
    return SharedFile(sys.intern(directory), name, file_id, key, elsewhere)


class Page(NamedTuple):
    """A part of a directory, sorted by name in code point order."""

    entries: Sequence[Entry]
    start: int
    """The number of names before these."""
    total: int
    """The number of names in all."""

    @property
    def has_more(self) -> bool:
        """Whether names come behind these."""
        return self.start + len(self.entries) < self.total


@dataclass(slots=True, eq=False)
class _Directory:
    entry: Entry
    identity: Identity
    children: dict[str, _Directory | SharedFile] = field(default_factory=dict)
    refused: dict[str, str] | None = None
    """The reasons why other names here are not offered, by local name; few directories have any."""
    names: list[str] = field(default_factory=list)
    """Those of the children, always sorted: to sort sixty thousand for a page holds up trio."""

    def put(self, name: str, node: _Directory | SharedFile) -> None:
        """Put a child in, or in the place of the one of its name."""
        if name not in self.children:
            bisect.insort(self.names, name)
        self.children[name] = node

    def fill(self, files: Sequence[SharedFile]) -> None:
        """Put files in whose names are free."""
        names = [file.name for file in files]
        self.children.update(zip(names, files, strict=True))
        self.names += names
        self.names.sort()

    def remove(self, name: str) -> None:
        """Take a child out; KeyError if there is none of that name."""
        del self.children[name]
        del self.names[bisect.bisect_left(self.names, name)]


_Node: TypeAlias = _Directory | SharedFile

_NOTHING: Final[Mapping[str, _Node]] = MappingProxyType({})

_NO_DIRECTORY: Final[Identity] = (0, 0)


MAX_NOTED: Final = 50_000
"""Changes that are noted one by one until they are taken out; more count as one of everything."""


@dataclass(slots=True)
class Changes:
    """Entries that are new, and directories in which something has changed."""

    added: list[Entry | SharedFile] = field(default_factory=list)
    directories: set[str] = field(default_factory=set)
    """Directories of which the listing is another one."""
    has_lost: bool = False
    """Whether something is not offered any more."""
    is_all: bool = False
    """Whether anything may have changed: there was too much to note."""

    def note(self, entry: Entry) -> None:
        """Note an entry that is offered now."""
        self.directories.add(split(entry.path)[0])
        self.added.append(entry)
        if len(self.added) > MAX_NOTED:
            self.note_all()

    def note_files(self, directory: str, files: Sequence[SharedFile]) -> None:
        """Note files of one directory that are offered now."""
        self.directories.add(directory)
        self.added += files
        if len(self.added) > MAX_NOTED:
            self.note_all()

    def note_lost(self, path: str) -> None:
        """Note a path that is not offered any more."""
        self.has_lost = True
        self.directories.add(split(path)[0])
        if not path or len(self.directories) > MAX_NOTED:
            self.note_all()

    def note_all(self) -> None:
        """Note that anything may be another one."""
        self.added, self.directories, self.is_all = [], set(), True


class Offers:
    """Files and directories by path, as others see it."""

    def __init__(self) -> None:
        self._root = _Directory(directory_entry("", 0), _NO_DIRECTORY)
        self._cut_off: list[_Directory] = []
        self._count = 0
        self.total_bytes = 0
        """Of all files, each path counted; those cut off count until `dismantle` returns them."""
        self.version = 0
        """A number that is another one after each change of the offers."""
        self.changes = Changes()
        """The changes since `take_changes`."""
        self.is_limited: Callable[[str], bool] = lambda _path: False
        """Tells of which paths not everybody may know: what changes there is not noted."""

    def __len__(self) -> int:
        """Return how many files are offered; counts as `total_bytes` does."""
        return self._count

    def file(self, path: str) -> SharedFile | None:
        """Return the file at a path."""
        node = self._node(path)
        return node if isinstance(node, SharedFile) else None

    def directory(self, path: str) -> Identity | None:
        """Return which directory is offered at this path; the root always is."""
        node = self._node(path)
        return node.identity if isinstance(node, _Directory) else None

    def entry(self, path: str) -> Entry | None:
        """Return the entry at a path."""
        node = self._node(path)
        return node.entry if node is not None else None

    def page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first so many entries of a directory behind a name."""
        node = self._node(path)
        if not isinstance(node, _Directory):
            return None
        start = bisect.bisect_right(node.names, after)
        names = node.names[start : start + limit]
        entries = list(_entries(path, map(node.children.__getitem__, names)))
        return Page(entries, start, len(node.names))

    def children(self, path: str) -> Mapping[str, object]:
        """Return the children of a directory, by name: a SharedFile, or another directory.

        They change with the offers. A path that is no directory has none.
        """
        node = self._node(path)
        return node.children if isinstance(node, _Directory) else _NOTHING

    def put_file(self, file: SharedFile) -> None:
        """Offer a file in a directory that is offered, in place of all that was at its path."""
        former = self._node(file.path)
        if isinstance(former, SharedFile):
            self._count_out(former)
        else:
            self.withdraw(file.path)
        self._count += 1
        self.total_bytes += file.size
        self._name(file.path, file)

    def taken(self, directory: str, files: Mapping[str, SharedFile]) -> set[str]:
        """Return at which of these paths something is offered; all if their directory is not."""
        node = self._node(directory)
        if not isinstance(node, _Directory):
            return set(files)
        if not node.children:
            return set()
        return {path for path, file in files.items() if file.name in node.children}

    def fill(self, directory: str, files: Sequence[SharedFile]) -> None:
        """Offer files of one directory that is offered, whose names are free there."""
        node = self._node(directory)
        if isinstance(node, _Directory) and files:
            node.fill(files)
            self._count += len(files)
            self.total_bytes += sum(file.key.size for file in files)
            self.version += 1
            if not self.is_limited(files[0].path):
                self.changes.note_files(directory, files)

    def put_directory(self, entry: Entry, identity: Identity) -> None:
        """Offer a directory in one that is offered, or take in its new time.

        Nothing else may be at its path.
        """
        known = self._node(entry.path)
        if not isinstance(known, _Directory):
            self._name(entry.path, _Directory(entry, identity))
        elif (known.entry, known.identity) != (entry, identity):
            known.entry, known.identity = entry, identity
            self._name(entry.path, known)

    def withdraw(self, path: str) -> list[SharedFile]:
        """Take back a path and all below it; return the file that was there, if one was.

        Files below a directory are returned by `dismantle`.
        """
        node = self._node(path)
        if node is None:
            return []
        parent = self._parent(path)
        if parent is None:
            self._root = _Directory(self._root.entry, _NO_DIRECTORY)
        else:
            parent.remove(split(path)[1])
        self.version += 1
        if not self.is_limited(path):
            self.changes.note_lost(path)
        if isinstance(node, _Directory):
            self._cut_off.append(node)
            return []
        self._count_out(node)
        return [node]

    def dismantle(self, limit: int) -> list[SharedFile]:
        """Return files that were below directories that were taken back, each once."""
        gone: list[SharedFile] = []
        while self._cut_off and len(gone) < limit:
            directory = self._cut_off.pop()
            while directory.children and len(gone) < limit:
                _, node = directory.children.popitem()
                if isinstance(node, _Directory):
                    self._cut_off.append(node)
                else:
                    self._count_out(node)
                    gone.append(node)
            if directory.children:
                self._cut_off.append(directory)
        return gone

    def is_whole(self) -> bool:
        """Return whether there is nothing to dismantle."""
        return not self._cut_off

    # Files that are there and not offered.

    def refuse(self, path: str, reason: str) -> None:
        """Note the reason why a local path is not offered, in a directory that is."""
        directory, name = self._parent(published_path(path)), split(path)[1]
        if directory is not None:
            if directory.refused is None:
                directory.refused = {}
            directory.refused[name] = reason

    def forgive(self, path: str) -> None:
        """Forget why a local path is not offered."""
        directory, name = self._parent(published_path(path)), split(path)[1]
        if directory is not None and directory.refused is not None:
            directory.refused.pop(name, None)

    def refusal(self, path: str) -> str | None:
        """Return why a local path, or a directory above it, is not offered; None if unknown."""
        directory: _Node | None = self._root
        for label in path.split("/"):
            if not isinstance(directory, _Directory):
                break
            if directory.refused is not None and label in directory.refused:
                return directory.refused[label]
            directory = directory.children.get(normalize("NFC", label))
        return None

    # Inside.

    def _node(self, path: str) -> _Node | None:
        node: _Node | None = self._root
        for label in path.split("/") if path else ():
            if not isinstance(node, _Directory):
                return None
            node = node.children.get(label)
        return node

    def _parent(self, path: str | None) -> _Directory | None:
        node = self._node(split(path)[0]) if path else None
        return node if isinstance(node, _Directory) else None

    def _name(self, path: str, node: _Node) -> None:
        """Put a new or changed node under its parent."""
        parent = self._parent(path)
        if parent is not None:
            parent.put(node.name if isinstance(node, SharedFile) else split(path)[1], node)
            if not self.is_limited(path):
                self.changes.note(node.entry)
        self.version += 1

    def _count_out(self, file: SharedFile) -> None:
        self._count -= 1
        self.total_bytes -= file.size


def _entries(directory: str, nodes: Iterable[_Node]) -> Iterator[Entry]:
    """Yield the entries of what is in a directory; others ask for thousands at once."""
    begin = f"{directory}/" if directory else ""
    for node in nodes:
        if isinstance(node, SharedFile):
            key = node.key
            yield Entry(begin + node.name, key.size, key.mtime_ns, node.file_id)
        else:
            yield node.entry


def directory_entry(path: str, mtime_ns: int) -> Entry:
    """Return the entry of a directory."""
    return Entry(path, 0, mtime_ns, b"")
