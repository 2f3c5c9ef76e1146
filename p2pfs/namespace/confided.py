"""What others have shown to this servent alone: limited shares of which it may know.

A holder marks them in its listings (PROTOCOL.md, "Limited shares"). They are shown below `peers/`
and nowhere else, since `network/` asks everybody for what it shows. Their contents are not searched
for by id, nor offered from the cache: a servent that passes such a question on, or asks us, would
learn of them from us.

What a holder marks binds us for its own share. A content that others show to everybody is
theirs, whatever one holder marks, so that nobody can keep us from others' contents.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final

from p2pfs.latest import Latest
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.protocol import FILE_ID_BYTES, Entry, FileId, PeerInfo, ServentId
from p2pfs.state import open_private

log = logging.getLogger(__name__)

MAX_LABELS: Final = 10_000
"""Limited shares that are known, of all holders; 2 MB."""

MAX_IDS: Final = 200_000
"""Contents in them that are known; 20 MB at most."""


class Confided:
    """The limited shares of others that we may see. Any thread may ask."""

    def __init__(
        self,
        public: Catalogue,
        path: str | None = None,
        *,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Keep at `path` which of their contents are in the cache, over restarts."""
        self.catalogue = Catalogue(clock=clock)
        """All names in them."""
        self._public = public
        self._path = path
        self._labels: Latest[tuple[ServentId, str], None] = Latest(MAX_LABELS)
        self._ids: Latest[FileId, None] = Latest(MAX_IDS)
        self._kept: set[FileId] = set()
        if path is not None:
            self._load(Path(path))

    def has(self, holder: ServentId, path: str) -> bool:
        """Return whether a path of a holder is in such a share."""
        return (holder, path.partition("/")[0]) in self._labels

    def holder(self, servent: ServentId) -> PeerInfo | None:
        """Return a servent if it is known to show something to us alone.

        No search finds it by that. So it is not gone because none does.
        """
        holders = self.catalogue.holders
        return holders.get(servent) if holders.entries(servent, "") else None

    def holders(self) -> Sequence[PeerInfo]:
        """Return all such servents."""
        found = map(self.holder, [peer.id for peer in self.catalogue.holders.all()])
        return [peer for peer in found if peer is not None]

    def note_page(
        self, holder: ServentId, path: str, names: Collection[str], limited: Collection[str]
    ) -> None:
        """Note what a page of a directory marks as limited; `names` are those of its entries."""
        labels = [path.partition("/")[0]] if path else names
        for label in labels:
            if label in limited:
                self._labels[holder, label] = None
            else:
                self._labels.pop((holder, label), None)

    def note(self, entry: Entry) -> None:
        """Note that an entry is in such a share."""
        if not entry.is_directory:
            self._ids[FileId(entry.file_id)] = None

    def holds(self, file_id: FileId) -> bool:
        """Return whether others must not learn of a content: no servent shows it to all."""
        if file_id not in self._ids and file_id not in self._kept:
            return False
        return not any(self._public.offers.claimants_of(file_id))

    def cached(self, file_id: FileId) -> None:
        """Note that a content is in the cache; if it is confided, that is kept over restarts."""
        if file_id in self._kept or not self.holds(file_id):
            return
        self._kept.add(file_id)
        if self._path is not None:
            try:
                with open(self._path, "ab", opener=open_private) as file:
                    file.write(file_id.hex().encode() + b"\n")
            except OSError as error:
                log.warning("confided content not noted reason=%s", error)

    def _load(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_bytes().split():
                with contextlib.suppress(ValueError):
                    file_id = FileId(bytes.fromhex(line.decode("ascii", "replace")))
                    if len(file_id) == FILE_ID_BYTES:
                        self._kept.add(file_id)
