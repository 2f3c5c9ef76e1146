"""What this servent offers others: its library, and the verified blocks in its cache.

Names come from the library alone. The cache is offered only to peers that ask by file id: they know
the content already, so they do not learn what a user here has read.

Some of the library may be for some peers alone. A question that has come through others is
answered as to nobody in particular, since the answer goes back through them; so is one whose
asker is not known. What a peer may not know of is to it as if it were not there: in pages and
their counts, by path, by words and by id. A content that is shared with everybody too, or
cached, is served for that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from p2pfs.cache import BlockCache, CachedFile
from p2pfs.config import Config
from p2pfs.errors import CacheFullError, NotFoundError, NotYetError
from p2pfs.library import Changes, Library, Page
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

EntriesAndTotal = tuple[Sequence[Entry], int]
"""The entries to send, and how many there are."""

_NO_ENTRIES: Final[EntriesAndTotal] = ((), 0)

_NO_CONTENT: Final = FileId(bytes(FILE_ID_BYTES))
"""The id of nothing."""


class Audience(Protocol):
    """Which peer may see which part of the library. Any thread."""

    @property
    def has_limits(self) -> bool:
        """Whether anything is for some peers alone."""

    def may_see(self, path: str, peer: str | None) -> bool:
        """Return whether a peer may know of a path; None: nobody in particular."""

    def hidden_from(self, peer: str | None) -> Sequence[str]:
        """Return the names in the root of which a peer may not know."""

    def limited_for(self, peer: str | None) -> Sequence[str]:
        """Return the names in the root of which a peer may know, and not everybody may."""


class Offer:
    """The contents that queries and uploads find here."""

    def __init__(
        self,
        library: Library,
        cache: BlockCache,
        *,
        reshare: bool,
        audience: Audience | None = None,
        is_confided: Callable[[FileId], bool] = lambda _file_id: False,
        peer: str | None = None,
    ) -> None:
        """Offer all to everybody, but for what an audience limits, as a peer sees it.

        `is_confided` tells which contents others have shown to us alone: they stay here. No peer
        stands for nobody in particular.
        """
        self._library = library
        self._cache = cache
        self._audience = audience
        self._is_confided = is_confided
        self._peer = peer
        self.reshare = reshare
        """Whether those who ask by file id get what the cache has."""

    def seen_by(self, peer: str | None) -> Offer:
        """Return the offer as one peer sees it now, which asks us itself."""
        if self._audience is None or not self._audience.has_limits:
            return self
        return Offer(
            self._library,
            self._cache,
            reshare=self.reshare,
            audience=self._audience,
            is_confided=self._is_confided,
            peer=peer,
        )

    def limited_labels(self, path: str) -> Sequence[str]:
        """Return which names in the root that a page of a directory tells are for its asker alone.

        Of a page of the root that is among its entries, of others the first label of their path.
        """
        if self._audience is None:
            return ()
        names = self._audience.limited_for(self._peer)
        return [one for one in names if not path or one == path.partition("/")[0]]

    def _may_see(self, path: str) -> bool:
        return self._audience is None or self._audience.may_see(path, self._peer)

    def _may_serve(self, file_id: FileId) -> bool:
        has_limits = self._audience is not None and self._audience.has_limits
        return not has_limits or self._library.may_serve(file_id, self._may_see)

    @property
    def is_paused(self) -> bool:
        """Whether sharing is paused."""
        return self._library.is_paused

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content that is here, whole or in part, from memory."""
        size = self._library.size_of(file_id) if self._may_serve(file_id) else None
        if size is not None:
            return size
        return self._cache.size_of(file_id) if self._may_reshare(file_id) else None

    def _may_reshare(self, file_id: FileId) -> bool:
        return self.reshare and not self._is_confided(file_id)

    def list_page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first `limit` entries of a directory behind a name, None if there is none."""
        if path and not self._may_see(path):
            return None
        hidden = [] if path or self._audience is None else self._audience.hidden_from(self._peer)
        page = self._library.list_page(path, after, limit + len(hidden))
        if page is None or not hidden:
            return page
        there = [name for name in hidden if self._library.find_path(name) is not None]
        return Page(
            [entry for entry in page.entries if entry.path not in there][:limit],
            page.start - sum(name <= after for name in there),
            page.total - len(there),
        )

    async def manifest(self, file_id: FileId) -> Manifest:
        """Return the manifest of a content that is here, whole or in part.

        Raises:
            NotFoundError: it is not.
        """
        try:
            return await self._library.manifest(self._as_seen(file_id))
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
            return await self._library.read_blocks(self._as_seen(file_id), indexes)
        except NotFoundError:
            with self._cached(file_id) as cached:
                blocks = [] if cached is None else await _read_cached(cached, indexes)
                is_coming = cached is not None and cached.expects(indexes[0])
            if not blocks and is_coming:
                raise NotYetError("not here yet") from None
            if not blocks:
                raise
            return blocks

    async def read_small(self, file_ids: Sequence[FileId]) -> list[bytes | None]:
        """Return contents of one block, verified; None for each that `read_blocks` may yet have."""
        served = [file_id for file_id in file_ids if self._may_serve(file_id)]
        found = dict(zip(served, await self._library.read_small(served), strict=True))
        return [found.get(file_id) for file_id in file_ids]

    def _as_seen(self, file_id: FileId) -> FileId:
        """Return the id, or one that no content has if this peer may not see that content.

        So the library says no in the same time: without it a refusal took 5 ms for a hidden
        content, and 12 for an absent one.
        """
        return file_id if self._may_serve(file_id) else _NO_CONTENT

    @contextlib.contextmanager
    def _cached(self, file_id: FileId) -> Iterator[CachedFile | None]:
        """Open what the cache has of a content, if it may be offered."""
        cached = None
        if self._may_reshare(file_id):
            with contextlib.suppress(CacheFullError):  # no descriptors left: as if not here
                cached = self._cache.find(file_id)
        try:
            yield cached
        finally:
            if cached is not None:
                cached.close()

    def follow(self, config: Config) -> None:
        """Take over from changed settings whether the cache is offered. Any thread."""
        self.reshare = config.reshare

    async def answer(self, query: Query, spent: Callable[[float], object]) -> EntriesAndTotal:
        """Return what this servent has for a query; nothing while sharing is paused.

        `spent` is called with the processor time that the index took.
        """
        if self.is_paused:
            return _NO_ENTRIES
        if query.kind is QueryKind.WORDS:
            text, limit = query.text, query.limit
            return await self._library.match_words(
                text, limit, query.terms, spent=spent, may_see=self._seen_by_all
            )
        if query.kind is QueryKind.PATH:
            return _one(self._library.find_path(query.text) if self._may_see(query.text) else None)
        if query.kind is QueryKind.DIRECTORY:
            page = self.list_page(query.text, "", query.limit)
            return _NO_ENTRIES if page is None else (page.entries, page.total)
        return self._holding(query.text)

    async def matches(self, wanted: Match) -> EntriesAndTotal:
        """Return what a keyword query finds behind a path, and how many there are."""
        return await self._library.match_words(
            wanted.text, wanted.limit, wanted.terms, wanted.after, may_see=self._seen_by_all
        )

    @property
    def _seen_by_all(self) -> Callable[[str], bool] | None:
        """The test which paths a search may find for the network; None if it may find all.

        It is the same for a peer that asks us itself: what it sees alone is in no search.
        """
        audience = self._audience
        if audience is None or not audience.has_limits:
            return None
        return lambda path: audience.may_see(path, None)

    def _holding(self, text: str) -> EntriesAndTotal:
        try:
            file_id = FileId(bytes.fromhex(text))
        except ValueError:
            return _NO_ENTRIES
        if len(file_id) != FILE_ID_BYTES:
            return _NO_ENTRIES
        shared = self._library.find_id(file_id, self._may_see)
        if shared is not None:
            return _one(self._library.find_path(shared.path))
        with self._cached(file_id) as cached:
            if cached is None or cached.manifest is None:
                return _NO_ENTRIES
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


def _one(entry: Entry | None) -> EntriesAndTotal:
    return _NO_ENTRIES if entry is None else ((entry,), 1)


class PublicShare:
    """The part of our share that everybody may know, for announcements to neighbours."""

    def __init__(self, library: Library, offer: Offer) -> None:
        self._library = library
        self._offer = offer

    @property
    def is_paused(self) -> bool:
        """Whether nothing of it is offered now."""
        return self._library.is_paused

    @property
    def version(self) -> int:
        """A number that is another one after each change, for whichever peer."""
        return self._library.version

    async def wait_changed(self, version: int) -> int:
        """Wait until the version is another one, and return it."""
        return await self._library.wait_changed(version)

    def take_changes(self) -> Changes:
        """Return what has changed for everybody since this was last called."""
        return self._library.take_changes()

    def list_page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first entries of a directory behind a name, of those for everybody."""
        return self._offer.list_page(path, after, limit)
