"""What this servent offers others: its library, and the verified blocks in its cache.

Names come from the library alone. The cache is offered only to those who ask by file id:
they know the content already, so nothing is told about what somebody here has read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from p2pfs.cache import BlockCache, CachedFile
from p2pfs.errors import CacheFullError, NotFoundError, NotYetError
from p2pfs.library import Library, Page
from p2pfs.protocol import (
    FILE_ID_BYTES,
    Entry,
    FileId,
    Manifest,
    Match,
    Query,
    QueryKind,
    block_span,
)

Answer = tuple[Sequence[Entry], int]
"""The entries to send, and how many there are."""

_NOTHING: Final[Answer] = ((), 0)


class Offer:
    """What queries and uploads find here."""

    def __init__(self, library: Library, cache: BlockCache, *, reshare: bool) -> None:
        self._library = library
        self._cache = cache
        self.reshare = reshare
        """Whether those who ask by file id get what the cache has."""

    @property
    def is_paused(self) -> bool:
        """Whether sharing is paused."""
        return self._library.is_paused

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content that is here, whole or in part, from memory."""
        size = self._library.size_of(file_id)
        if size is not None:
            return size
        return self._cache.size_of(file_id) if self.reshare else None

    def list_page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first `limit` entries of a directory behind a name, None if there is none."""
        return self._library.list_page(path, after, limit)

    async def manifest(self, file_id: FileId) -> Manifest:
        """Return the manifest of a content that is here, whole or in part.

        Raises:
            NotFoundError: it is not.
        """
        try:
            return await self._library.manifest(file_id)
        except NotFoundError:
            with self._cached(file_id) as cached:
                if cached is None or cached.manifest is None:
                    raise
                return cached.manifest

    async def read_blocks(self, file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        """Return these blocks, verified, up to the first that is not here.

        Raises:
            NotFoundError: this content, or the first of these blocks, is not here; NotYetError
                if it is being fetched.
            StaleError: it was here a moment ago.
        """
        try:
            return await self._library.read_blocks(file_id, indexes)
        except NotFoundError:
            with self._cached(file_id) as cached:
                blocks = [] if cached is None else await _read_cached(cached, indexes)
                is_coming = cached is not None and cached.expects(indexes[0])
            if not blocks and is_coming:
                raise NotYetError("not here yet") from None
            if not blocks:
                raise
            return blocks

    @contextlib.contextmanager
    def _cached(self, file_id: FileId) -> Iterator[CachedFile | None]:
        """Open what the cache has of a content, if it may be offered."""
        cached = None
        if self.reshare:
            with contextlib.suppress(CacheFullError):  # no descriptors left: as if not here
                cached = self._cache.find(file_id)
        try:
            yield cached
        finally:
            if cached is not None:
                cached.close()

    async def answer(self, query: Query, spent: Callable[[float], object]) -> Answer:
        """Return what this servent has for a query; nothing while sharing is paused.

        `spent` is told what processor time the index took.
        """
        if self.is_paused:
            return _NOTHING
        if query.kind is QueryKind.WORDS:
            text, limit = query.text, query.limit
            return await self._library.match_words(text, limit, query.terms, spent=spent)
        if query.kind is QueryKind.PATH:
            return _one(self._library.find_path(query.text))
        if query.kind is QueryKind.DIRECTORY:
            page = self._library.list_page(query.text, "", query.limit)
            return _NOTHING if page is None else (page.entries, page.total)
        return self._holding(query.text)

    async def matches(self, wanted: Match) -> Answer:
        """Return what a keyword query finds behind a path, and how many there are."""
        return await self._library.match_words(
            wanted.text, wanted.limit, wanted.terms, wanted.after
        )

    def _holding(self, text: str) -> Answer:
        try:
            file_id = FileId(bytes.fromhex(text))
        except ValueError:
            return _NOTHING
        if len(file_id) != FILE_ID_BYTES:
            return _NOTHING
        shared = self._library.find_id(file_id)
        if shared is not None:
            return _one(self._library.find_path(shared.path))
        with self._cached(file_id) as cached:
            if cached is None or cached.manifest is None:
                return _NOTHING
            return _one(Entry(file_id.hex(), cached.size, 0, file_id))


async def _read_cached(cached: CachedFile, indexes: Sequence[int]) -> list[bytes]:
    blocks: list[bytes] = []
    for index in indexes:
        if not await cached.prepare(index):
            break
        block = cached.read_nowait(*block_span(cached.size, index))
        if block is None:
            break
        blocks.append(block)
    return blocks


def _one(entry: Entry | None) -> Answer:
    return _NOTHING if entry is None else ((entry,), 1)
