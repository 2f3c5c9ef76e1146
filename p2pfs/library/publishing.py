"""Filing and offering the files of a hop; checking files that were believed without a proof."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from typing import Final

from p2pfs.errors import BadBlockError
from p2pfs.library.agenda import Look
from p2pfs.library.facts import Facts
from p2pfs.library.findings import Findings
from p2pfs.library.index import Index
from p2pfs.library.looks import Looks
from p2pfs.library.names import published_path
from p2pfs.library.offers import SharedFile
from p2pfs.library.refusing import Refusing
from p2pfs.library.share import ChangedError, Share
from p2pfs.library.status import StatKey
from p2pfs.protocol import FileId, block_span

SAVE_FILES: Final = 30_000
SAVE_INDEX_S: Final = 20.0
"""Files that the index collects before it is written, while more come at once. Those that a kill
takes are hashed again: these take six seconds, and on a busy machine the time ends sooner. Of
300,000 a third as many in each commit wrote more than twice as much in all."""

log = logging.getLogger(__name__)


class Publishing:
    """Puts files into the index, then into the offers. For the worker's thread."""

    def __init__(
        self, share: Share, index: Index, facts: Facts, looks: Looks, refusing: Refusing
    ) -> None:
        self._share = share
        self._index = index
        self._facts = facts
        self._looks = looks
        self._refusing = refusing
        self._saved_at = 0.0

    def publish(self, findings: Findings) -> None:
        """File first, offer second, so that each offer has its manifest in the index.

        Of two names that others cannot tell apart, that in form C comes last, and stays.
        """
        to_come = {look.path for look, _, _ in findings.known if not look.is_void}
        findings.found = [one for one in findings.found if not self._is_outdone(one[0], to_come)]
        findings.found.sort(key=lambda one: published_path(one[0].path) == one[0].path)
        if findings.found:
            self._index.put([record for _, _, record, _ in findings.found])
        moved = [
            (published_path(look.path) or "", key)
            for look, key, known in findings.known
            if known.is_sure and not known.is_current
        ]
        if moved:
            self._index.rekey(moved)
        for look, key, known in findings.known:
            self._offer(look, key, known.file_id, is_sure=known.is_sure)
        for look, key, record, is_sure in findings.found:
            self._offer(look, key, record.manifest.file_id, is_sure=is_sure)

    def _is_outdone(self, look: Look, to_come: Collection[str]) -> bool:
        """Return whether another file has the place of one that was hashed; if so, let it be."""
        path = published_path(look.path)
        if path == look.path or not (path in to_come or self._looks.is_outdone(look.path)):
            return False
        self._looks.finish(look)
        self._refusing.tell_twin(look.path)
        return True

    def _offer(self, look: Look, key: StatKey, file_id: FileId, *, is_sure: bool) -> None:
        outdone = self._looks.offer(look, key, file_id, is_sure=is_sure)
        if outdone is not None:
            self._refusing.tell_twin(outdone)

    def save(self) -> None:
        """Have the index written if that is enough, or if nothing more will come at once.

        Many files in one transaction touch each page of it once. One with 64 of them wrote 24
        times as much as there is in the end.
        """
        if not self._index.unsaved:
            self._saved_at = time.monotonic()
        is_late = time.monotonic() - self._saved_at > SAVE_INDEX_S
        if is_late or self._index.unsaved >= SAVE_FILES or not self._looks.has_quick_work():
            self._index.commit()
            self._saved_at = time.monotonic()

    def check_one(self) -> None:
        """Compare a file that was believed without a proof with its first and last block."""
        if self._looks.has_quick_work():
            return
        file = self._looks.take_check()
        if file is None:
            return
        try:
            self._compare(file)
        except (ChangedError, BadBlockError, OSError) as error:
            log.info("file has changed unnoticed path=%r error=%r", file.local_path, str(error))
            self._facts.spoiled(file.key.identity)
        else:
            self._index.rekey([(file.path, file.key)])
            self._index.commit()

    def _compare(self, file: SharedFile) -> None:
        manifest = self._index.manifest(file.file_id)
        if manifest is None:
            raise ChangedError
        indexes = sorted({0, manifest.block_count - 1}) if file.size else []
        spans = [block_span(file.size, index) for index in indexes]
        _, blocks = self._share.read(file.local_path, file.key.identity, spans)
        for index, block in zip(indexes, blocks, strict=True):
            manifest.verify(index, block)
