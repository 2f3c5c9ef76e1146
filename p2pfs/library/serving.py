"""Blocks and manifests of contents that are held, each block verified as it leaves."""

from __future__ import annotations

import itertools
import logging
import sqlite3
from collections.abc import Callable, Sequence

from p2pfs.errors import BadBlockError, NotFoundError, NotYetError, StaleError
from p2pfs.library.answers import Answers
from p2pfs.library.facts import Facts
from p2pfs.library.index import DamagedIndexError, Index
from p2pfs.library.share import GONE, PASSING, ChangedError, MovedError, Share
from p2pfs.library.status import Identity
from p2pfs.protocol import FileId, Manifest, block_count_for, block_span, digest

log = logging.getLogger(__name__)


class Serving:
    """Reads the files that hold a content, and takes back those that hold another. For threads."""

    def __init__(
        self,
        share: Share,
        index: Index,
        facts: Facts,
        answers: Answers,
        index_failed: Callable[[Exception], object],
    ) -> None:
        self._share = share
        self._index = index
        self._facts = facts
        self._answers = answers
        self._index_failed = index_failed

    def manifest_at_hand(self, file_id: FileId) -> Manifest | None:
        """Return the manifest of a content that is held, if it was asked for lately."""
        known = self._index.manifest_at_hand(file_id)
        return known if known is not None and self._answers.holding(file_id) is not None else None

    def manifest(self, file_id: FileId) -> Manifest:
        """Return the manifest of a content that is held; see `Library.manifest`."""
        holding = self._answers.holding(file_id)
        if holding is None:
            raise NotFoundError("this content is not shared here")
        try:
            manifest = self._index.manifest(file_id)
        except (DamagedIndexError, sqlite3.Error) as error:
            self._index_failed(error)
            raise NotFoundError("the index failed") from error
        if manifest is None:
            self._facts.spoiled(holding.key.identity)
            raise NotFoundError("this content is not in the index")
        return manifest

    def read_blocks(self, file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        """Return blocks of a content that is held; see `Library.read_blocks`."""
        manifest = self.manifest(file_id)
        known = list(itertools.takewhile(lambda index: 0 <= index < manifest.block_count, indexes))
        if not known:
            raise NotFoundError(f"this content has no block {indexes[0]}")
        for file, path in self._answers.places(file_id):
            blocks = self._read_from(file, path, manifest, known)
            if blocks:
                return blocks
        if self._answers.is_sought(file_id):
            raise NotYetError("the file is not where it was")
        raise StaleError("the file changed or was removed")

    def read_small(self, file_ids: Sequence[FileId]) -> list[bytes | None]:
        """Return contents of one block each; see `Library.read_small`."""
        with self._share.staying():  # they are mostly of one directory
            return [self._only_block(file_id) for file_id in file_ids]

    def _only_block(self, file_id: FileId) -> bytes | None:
        """Return a content of one block; None if it is not read and right at the first attempt.

        Its manifest follows from its bytes, so the index is not asked for it.
        """
        holding = self._answers.holding(file_id)
        if holding is None or not holding.paths or block_count_for(holding.key.size) != 1:
            return None
        path, size = holding.paths[0], holding.key.size
        try:
            key, (block,) = self._share.read(path, holding.key.identity, [(0, size)])
        except (ChangedError, OSError):
            return None
        if Manifest(size, digest(block)).file_id != file_id:
            return None
        self._facts.seen(path, key)
        return block

    def _read_from(
        self, file: Identity, path: str, manifest: Manifest, indexes: Sequence[int]
    ) -> list[bytes]:
        """Return these blocks up to the first that is not right; then take the file back."""
        spans = [block_span(manifest.size, index) for index in indexes]
        right: list[bytes] = []
        try:
            key, blocks = self._share.read(path, file, spans)
            for index, block in zip(indexes, blocks, strict=True):
                manifest.verify(index, block)
                right.append(block)
            self._facts.seen(path, key)
        except (BadBlockError, ChangedError, OSError) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                raise
            log.info("file is not as offered path=%r error=%r", path, str(error))
            if isinstance(error, MovedError) or (
                isinstance(error, OSError) and error.errno in GONE
            ):
                self._facts.misplaced(path, file)
            else:
                self._facts.spoiled(file)
        return right
