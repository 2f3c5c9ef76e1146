"""Find a file by its id alone: the servents that have the content, its size, and a name for it.

Each holder says a size and a name with it. The size is not believed: the manifest gives it,
and the id proves the manifest. The name is a suggestion, and stays one.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio
from msgspec.structs import replace

from p2pfs.errors import NoSourceError, P2pfsError
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.disputes import FetchManifest
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.overlay import Searches
from p2pfs.protocol import Entry, FileId, Manifest, PeerInfo, QueryHit, QueryKind
from p2pfs.protocol.names import check_label

log = logging.getLogger(__name__)

SEARCH_S: Final = 5.0
"""How long the search may take: only the user who typed the id waits for it."""

MANIFEST_S: Final = 5.0
"""How long the holders may take for the manifest."""

MAX_HOLDERS_AT_ONCE: Final = 8
"""Holders asked for the manifest at once, and the others after them, until one answers right."""

MAX_HOLDERS: Final = 32
"""Holders asked in all: any number of liars can say that they have it, and the user waits."""

_OTHER_VIEWS: Final = ("peers/", "search/")
"""The beginning of paths of results: such a path leads nowhere in `network/`."""


class Contents:
    """Files by their ids."""

    def __init__(
        self,
        catalogue: Catalogue,
        searches: Searches,
        fetch_manifest: FetchManifest,
        *,
        path_of: Callable[[FileId], str | None],
        ttl: int,
    ) -> None:
        """Prepare; `path_of` tells where a content was last read."""
        self._catalogue = catalogue
        self._searches = searches
        self._fetch_manifest = fetch_manifest
        self._path_of = path_of
        self._ttl = ttl

    async def find(self, file_id: FileId) -> RemoteFile | None:
        """Return a file of this content; None if nobody within the horizon has it.

        A content that is whole in the cache needs no network. If it has no name, its path is the
        id.

        Raises:
            NotAskedError: others may not be asked for it now.
            NoSourceError: some say to have it, and none of them gives the manifest.
        """
        file, _hits = await self._found(file_id)
        return file

    async def show(self, file_id: FileId, name: str) -> RemoteFile | None:
        """Let a content be shown below `network/`, and return it by the path that it has there.

        It is searched for. A holder that gives no path for it has it as `name`, or as its id if
        `name` cannot be published. None if nobody within the horizon has it.

        Raises:
            NotAskedError, NoSourceError: as for `find`.
        """
        file, hits = await self._found(file_id)
        return None if file is None else self._shown(file, hits, name)

    async def show_held(
        self, file_id: FileId, name: str, holders: Sequence[PeerInfo]
    ) -> RemoteFile | None:
        """Show a content likewise that these holders have; None if none of them has it.

        Each holder is dialled over a transfer link, and does not become a neighbour.
        """
        file = await self._held_by(holders, file_id)
        return None if file is None else self._shown(file, (), name)

    def _shown(self, file: RemoteFile, hits: Sequence[QueryHit], name: str) -> RemoteFile:
        file_id = file.file_id
        named = [(hit.provider, entry) for hit in hits for entry in hit.entries]
        path = file.path
        if path.startswith(_OTHER_VIEWS) and all(path != entry.path for _, entry in named):
            path = _told_name(file_id, hits)
        if path == file_id.hex() and check_label(name) is None:
            path = name
        for source, entry in named:
            if entry.path == path:
                self._catalogue.learn_found(source, [entry])
        unnamed = Entry(path, file.size, file.mtime_ns, file_id)
        for source in {*file.sources} - {source for source, entry in named if entry.path == path}:
            self._catalogue.learn_found(source, [unnamed])
        if not file.sources and not self._is_shown(path, file_id):
            self._catalogue.kept.put(unnamed)  # all of it is here, if nowhere else
        return replace(file, path=self._catalogue.shown.path_of(path, file_id))

    def _is_shown(self, path: str, file_id: FileId) -> bool:
        """Return whether this content is shown already, with a time that a holder announced."""
        node = self._catalogue.shown.lookup(self._catalogue.shown.path_of(path, file_id), math.inf)
        return isinstance(node, RemoteFile) and node.file_id == file_id

    async def _found(self, file_id: FileId) -> tuple[RemoteFile | None, Sequence[QueryHit]]:
        """Return a file as `find` does, and the hits for it."""
        size = self._catalogue.offers.size_of(file_id)
        if size is not None and self._catalogue.offers.is_whole(file_id):
            return RemoteFile(self._name_of(file_id, ()), size, 0, file_id, ()), ()
        # The nearest are enough, unless they lie: then all are asked.
        hits = await self._search(file_id, is_enough=bool)
        if hits and size is None:
            size = await self._proved_size(file_id, hits)
        if hits and size is None:
            hits = await self._search(file_id, is_enough=lambda _hits: False)
            size = await self._proved_size(file_id, hits)
        if not hits:
            return None, ()
        if size is None:
            raise NoSourceError("it was found, but nobody proves to have it")
        holders = dict.fromkeys(hit.provider for hit in hits)
        return RemoteFile(self._name_of(file_id, hits), size, 0, file_id, tuple(holders)), hits

    async def _held_by(self, holders: Sequence[PeerInfo], file_id: FileId) -> RemoteFile | None:
        """Return a file without a name, with those holders that prove to have it."""
        size = await self._size_from(holders, file_id)
        if size is None:
            return None
        return RemoteFile(file_id.hex(), size, 0, file_id, tuple(holders))

    async def _search(
        self, file_id: FileId, is_enough: Callable[[Sequence[QueryHit]], bool]
    ) -> Sequence[QueryHit]:
        outcome = await self._searches.run(
            QueryKind.ID,
            file_id.hex(),
            rings=range(1, self._ttl + 1),
            timeout_s=SEARCH_S,
            is_enough=is_enough,
            is_patient=True,
        )
        return outcome.hits

    def _name_of(self, file_id: FileId, hits: Sequence[QueryHit]) -> str:
        """Return the name that most hits give; a servent that has it in its cache gives none."""
        read_at = self._path_of(file_id)
        return _told_name(file_id, hits) if read_at is None else read_at

    async def _proved_size(self, file_id: FileId, hits: Sequence[QueryHit]) -> int | None:
        """Return the size that the first right manifest gives; None if no holder sends one."""
        return await self._size_from([hit.provider for hit in hits], file_id)

    async def _size_from(self, said: Iterable[PeerInfo], file_id: FileId) -> int | None:
        """Return the size likewise, asking the servents that are said to have the content."""
        holders = list(dict.fromkeys(said))[:MAX_HOLDERS]

        async def ask(holder: PeerInfo, scope: trio.CancelScope) -> None:
            try:
                data = await self._fetch_manifest(holder, file_id)
                self._catalogue.offers.prove(file_id, Manifest.from_bytes(data, file_id).size)
            except P2pfsError as error:
                log.info("no manifest peer=%s reason=%s", holder.id, error)
            else:
                scope.cancel()

        for start in range(0, len(holders), MAX_HOLDERS_AT_ONCE):
            with trio.move_on_after(MANIFEST_S):
                async with trio.open_nursery() as nursery:
                    for holder in holders[start : start + MAX_HOLDERS_AT_ONCE]:
                        nursery.start_soon(ask, holder, nursery.cancel_scope)
            if (size := self._catalogue.offers.size_of(file_id)) is not None:
                return size
        return None


def _told_name(file_id: FileId, hits: Iterable[QueryHit]) -> str:
    """Return the path that most hits give for a content; its id if none gives one."""
    paths = Counter(entry.path for hit in hits for entry in hit.entries)
    del paths[file_id.hex()]
    return min(paths, key=lambda path: (-paths[path], path), default=file_id.hex())
