"""The contents that are served, and the files that hold them. Not locked: the books guard it.

An offer says that a path has a content; it is taken back with the first sign of a change. A
holding says that a file had one when it was last hashed, and outlasts that: blocks are verified
as they are served, so a file that was renamed, touched or opened for writing goes on serving
those that are still right, and its readers come to its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from p2pfs.library.status import Identity, StatKey
from p2pfs.protocol import FileId

PLACES_TRIED: Final = 16
"""Places at which one read tries to find a content, of a thousand copies, say."""


class Holding(Struct, eq=False, gc=False):
    """One file, under however many names, and the content that it had when it was hashed."""

    file_id: FileId
    key: StatKey
    paths: tuple[str, ...]
    """Local paths under which it was offered. It need not be there any more."""


class Holdings:
    """Holdings by file and by content."""

    def __init__(self) -> None:
        self._by_file: dict[Identity, Holding] = {}
        self._by_content: dict[FileId, dict[Identity, Holding] | Holding] = {}

    def at(self, file: Identity) -> Holding | None:
        """Return the holding of a file."""
        return self._by_file.get(file)

    def of(self, file_id: FileId) -> Iterator[Holding]:
        """Yield the holdings of a content. Do not change anything meanwhile."""
        found = self._by_content.get(file_id)
        if isinstance(found, Holding):
            yield found
        elif found is not None:
            yield from found.values()

    def places(self, file_id: FileId) -> list[tuple[Identity, str]]:
        """Return files and local paths where a content may be read, some of them."""
        places = ((h.key.identity, path) for h in self.of(file_id) for path in h.paths)
        return list(itertools.islice(places, PLACES_TRIED))

    def put(self, path: str, key: StatKey, file_id: FileId) -> Holding:
        """Note the content of a file under one of its names; its earlier content is forgotten.

        Returns the holding.
        """
        holding = self._by_file.get(key.identity)
        if holding is not None and holding.file_id != file_id:
            self.drop(holding)
            holding = None
        if holding is None:
            holding = Holding(file_id, key, (path,))
            self._add(holding)
        holding.key = key
        if path not in holding.paths:
            holding.paths += (path,)
        return holding

    def drop(self, holding: Holding) -> None:
        """Forget the holding of a file."""
        file = holding.key.identity
        if self._by_file.get(file) is not holding:
            return
        del self._by_file[file]
        found = self._by_content[holding.file_id]
        if isinstance(found, dict):
            del found[file]
        if not isinstance(found, dict) or not found:
            del self._by_content[holding.file_id]

    def _add(self, holding: Holding) -> None:
        self._by_file[holding.key.identity] = holding
        found = self._by_content.get(holding.file_id)
        if found is None:
            self._by_content[holding.file_id] = holding  # one dict less for nearly every file
            return
        if isinstance(found, Holding):
            found = self._by_content[holding.file_id] = {found.key.identity: found}
        found[holding.key.identity] = holding
