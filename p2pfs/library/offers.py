"""What is offered at this moment, in memory. Not locked: the library guards it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from p2pfs.library.share import StatKey
from p2pfs.protocol import Entry, FileId

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class SharedFile:
    """One file that is offered."""

    entry: Entry
    """As others see it."""
    local_path: str
    """Where it is in the backing directory; differs from the entry's in normal form at most."""
    key: StatKey
    """The state in which it was hashed."""

    @property
    def path(self) -> str:
        """The path that others see."""
        return self.entry.path

    @property
    def size(self) -> int:
        """In bytes."""
        return self.entry.size

    @property
    def mtime_ns(self) -> int:
        """When it was last written."""
        return self.entry.mtime_ns

    @property
    def file_id(self) -> FileId:
        """The name of its content."""
        return FileId(self.entry.file_id)


@dataclass(slots=True)
class _Directory:
    entry: Entry
    names: set[str] = field(default_factory=set)
    listing: tuple[Entry, ...] | None = None
    """All entries sorted by name, kept until one changes: a peer asks for page after page."""


class Offers:
    """Files and directories by path, files by content and by inode."""

    def __init__(self) -> None:
        self._files: dict[str, SharedFile] = {}
        self._directories = {"": _Directory(directory_entry("", 0))}
        self._paths_by_id: dict[FileId, dict[str, None]] = {}
        self._paths_by_inode: dict[int, dict[str, None]] = {}
        self.total_bytes = 0
        """Of all files, each path counted."""
        self.version = 0
        """Differs whenever anything that can be asked for does."""

    def __len__(self) -> int:
        """Return how many files are offered."""
        return len(self._files)

    def file(self, path: str) -> SharedFile | None:
        """Return the file at a path."""
        return self._files.get(path)

    def has_directory(self, path: str) -> bool:
        """Return whether a directory is offered at this path; the root always is."""
        return path in self._directories

    def entry(self, path: str) -> Entry | None:
        """Return what is at a path."""
        holder = self._files.get(path) or self._directories.get(path)
        return holder.entry if holder else None

    def listing(self, path: str) -> Sequence[Entry] | None:
        """Return what is in a directory, sorted by name in code point order."""
        directory = self._directories.get(path)
        if directory is None:
            return None
        if directory.listing is None:
            paths = (join(path, name) for name in sorted(directory.names))
            directory.listing = tuple(entry for p in paths if (entry := self.entry(p)))
        return directory.listing

    def names(self, path: str) -> frozenset[str]:
        """Return the names in a directory, none if it is no directory."""
        directory = self._directories.get(path)
        return frozenset(directory.names) if directory else frozenset()

    def holders(self, file_id: FileId) -> list[SharedFile]:
        """Return every file with this content."""
        return [self._files[path] for path in self._paths_by_id.get(file_id, ())]

    def links(self, inode: int) -> list[SharedFile]:
        """Return every file that is a link to this inode."""
        return [self._files[path] for path in self._paths_by_inode.get(inode, ())]

    def put_file(self, file: SharedFile) -> None:
        """Offer a file in a directory that is offered, in place of what was at its path."""
        path = file.path
        self.withdraw(path)
        self._files[path] = file
        self._paths_by_id.setdefault(file.file_id, {})[path] = None
        self._paths_by_inode.setdefault(file.key.ino, {})[path] = None
        self.total_bytes += file.size
        self._name(path)

    def put_directory(self, entry: Entry) -> None:
        """Offer a directory in one that is offered, or take in its new time."""
        path = entry.path
        known = self._directories.get(path)
        if known is None:
            self.withdraw(path)
            self._directories[path] = _Directory(entry)
        elif known.entry == entry:
            return
        else:
            known.entry = entry
        self._name(path)

    def withdraw(self, path: str) -> list[SharedFile]:
        """Take back what is at `path` and all below it; return the files among it."""
        if path not in self._files and path not in self._directories:
            return []
        gone: list[SharedFile] = []
        self._drop(path, gone)
        parent, name = split(path)
        if path:
            self._directories[parent].names.discard(name)
            self._directories[parent].listing = None
        self.version += 1
        return gone

    def _name(self, path: str) -> None:
        """Note a new or changed entry at its parent."""
        parent, name = split(path)
        if path:
            self._directories[parent].names.add(name)
            self._directories[parent].listing = None
        self.version += 1

    def _drop(self, path: str, gone: list[SharedFile]) -> None:
        directory = self._directories.get(path)
        if directory is not None:
            for name in directory.names:
                self._drop(join(path, name), gone)
            del self._directories[path]
            if path == "":
                self._directories[""] = _Directory(directory.entry)
            return
        file = self._files.pop(path)
        self.total_bytes -= file.size
        _discard(self._paths_by_id, file.file_id, path)
        _discard(self._paths_by_inode, file.key.ino, path)
        gone.append(file)


def directory_entry(path: str, mtime_ns: int) -> Entry:
    """Return the entry of a directory."""
    return Entry(path, 0, mtime_ns, b"")


def join(directory: str, name: str) -> str:
    """Return the path of a name in a directory."""
    return f"{directory}/{name}" if directory else name


def split(path: str) -> tuple[str, str]:
    """Return (directory, name)."""
    directory, _, name = path.rpartition("/")
    return directory, name


def _discard(table: dict[_Key, dict[str, None]], key: _Key, path: str) -> None:
    paths = table[key]
    del paths[path]
    if not paths:
        del table[key]
