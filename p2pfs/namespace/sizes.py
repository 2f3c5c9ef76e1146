"""Which size a content has, as far as a manifest proves it. Any thread; not locked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import Entry, FileId

MAX_PROVED: Final = 10_000
"""Contents whose size is remembered though their manifest is not here any more: 2 MB."""


class ProvedSizes:
    """The sizes that manifests give, of those that are here and of the latest that were."""

    def __init__(self, size_of: Callable[[FileId], int | None]) -> None:
        """Prepare; `size_of` tells what a manifest says that is here."""
        self._size_of = size_of
        self._proved: Latest[FileId, int] = Latest(MAX_PROVED)

    def prove(self, file_id: FileId, size: int) -> None:
        """Take in what a manifest says."""
        self._proved[file_id] = size

    def of(self, file_id: FileId) -> int | None:
        """Return the size of a content if a manifest was seen that gives it."""
        proved = self._proved.get(file_id)
        return self._size_of(file_id) if proved is None else proved

    def admits(self, file_id: FileId, size: int) -> bool:
        """Return whether no manifest contradicts a size."""
        return self.of(file_id) in (None, size)

    def admits_entry(self, entry: Entry) -> bool:
        """Return whether no manifest contradicts what is told of a path."""
        return entry.is_directory or self.admits(FileId(entry.file_id), entry.size)
