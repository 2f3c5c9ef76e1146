"""The contents that are served, and the files that hold them. Not locked: the books guard it.

An offer says that a path has a content; it is taken back with the first sign of a change. A
holding says that a file had one when it was last hashed, and outlasts that: blocks are verified
as they are served, so a file that was renamed, touched or opened for writing goes on serving
those that are still right, and its readers come to its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from p2pfs.library.offers import SharedFile
from p2pfs.library.status import Identity, StatKey
from p2pfs.protocol import FileId

PLACES_TRIED: Final = 16
"""Places at which one read tries to find a content, of a thousand copies, say."""


class Holding(Struct, frozen=True, gc=False):
    """One file, under however many names, and the content that it had when it was hashed."""

    file_id: FileId
    key: StatKey
    paths: tuple[str, ...]
    """Local paths under which it was offered. It need not be there any more."""


_Kept = SharedFile | Holding
"""A file with one name is kept as it was offered: nearly every file, so that costs nothing more."""


class Holdings:
    """Holdings by file and by content."""

    def __init__(self) -> None:
        self._by_file: dict[int, dict[int, _Kept]] = {}
        """By device, then by inode: the numbers are there already, a pair of them is not."""
        self._by_content: dict[FileId, dict[Identity, _Kept] | _Kept] = {}

    def __contains__(self, file_id: FileId) -> bool:
        """Return whether any file holds a content."""
        return file_id in self._by_content

    def at(self, file: Identity) -> Holding | None:
        """Return the holding of a file."""
        kept = self._kept(file)
        return None if kept is None else _holding(kept)

    def of(self, file_id: FileId) -> Iterator[Holding]:
        """Yield the holdings of a content. Do not change anything meanwhile."""
        found = self._by_content.get(file_id)
        if isinstance(found, dict):
            yield from map(_holding, found.values())
        elif found is not None:
            yield _holding(found)

    def places(self, file_id: FileId) -> list[tuple[Identity, str]]:
        """Return files and local paths where a content may be read, some of them."""
        places = ((h.key.identity, path) for h in self.of(file_id) for path in h.paths)
        return list(itertools.islice(places, PLACES_TRIED))

    def put(self, file: SharedFile) -> None:
        """Note the content of a file that is offered; its earlier content is forgotten."""
        identity = file.key.identity
        former = self._kept(identity)
        if former is not None and former.file_id != file.file_id:
            self.drop(identity)
            former = None
        if former is None:
            self._keep(identity, file)
            return
        paths, path = _holding(former).paths, file.local_path
        if paths == (path,):
            self._keep(identity, file)
        else:
            paths = paths if path in paths else (*paths, path)
            self._keep(identity, Holding(file.file_id, file.key, paths))

    def add(self, file: SharedFile) -> bool:
        """Do the same unless the file is known to hold something else; return whether it did."""
        former = self._kept(file.key.identity)
        if former is not None and former.file_id != file.file_id:
            return False
        self.put(file)
        return True

    def add_all(self, files: Mapping[str, SharedFile]) -> Mapping[str, SharedFile]:
        """Do the same with each of some files; return those with which it did."""
        by_content, added = self._by_content, dict[str, SharedFile]()
        for path, file in files.items():
            key = file.key
            by_inode = self._by_file.setdefault(key.device, {})
            if key.ino not in by_inode and file.file_id not in by_content:  # nearly all
                by_inode[key.ino] = by_content[file.file_id] = added[path] = file
            elif self.add(file):
                added[path] = file
        return added

    def rename(self, holding: Holding, paths: Iterable[str]) -> None:
        """Note under which names a file may be read, none maybe."""
        self._keep(holding.key.identity, replace(holding, paths=tuple(paths)))

    def drop(self, file: Identity) -> None:
        """Forget the holding of a file."""
        kept = self._kept(file)
        if kept is None:
            return
        device, ino = file
        del self._by_file[device][ino]
        if not self._by_file[device]:
            del self._by_file[device]
        found = self._by_content[kept.file_id]
        if isinstance(found, dict):
            del found[file]
        if not isinstance(found, dict) or not found:
            del self._by_content[kept.file_id]

    def _kept(self, file: Identity) -> _Kept | None:
        device, ino = file
        by_inode = self._by_file.get(device)
        return None if by_inode is None else by_inode.get(ino)

    def _keep(self, file: Identity, kept: _Kept) -> None:
        device, ino = file
        self._by_file.setdefault(device, {})[ino] = kept
        found = self._by_content.get(kept.file_id)
        if found is None or (not isinstance(found, dict) and found.key.identity == file):
            self._by_content[kept.file_id] = kept  # one dict less for nearly every file
            return
        if not isinstance(found, dict):
            found = self._by_content[kept.file_id] = {found.key.identity: found}
        found[file] = kept


def _holding(kept: _Kept) -> Holding:
    if isinstance(kept, Holding):
        return kept
    return Holding(kept.file_id, kept.key, (kept.local_path,))
