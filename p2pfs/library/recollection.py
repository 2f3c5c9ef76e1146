"""Files that the index has from an earlier life are offered at once, and looked at afterwards.

A look at each of a hundred thousand files takes longer than a user will wait. So only their
directories are looked at first, for all that could make them private; the look that follows
finds a file that has changed meanwhile, or serving it does.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from p2pfs.config import IDENTITY, LOCK
from p2pfs.library.books import NAMES_A_STEP
from p2pfs.library.ignoring import IGNORE, Ignoring
from p2pfs.library.index import FiledRow, Index
from p2pfs.library.looks import Looks
from p2pfs.library.mounted import Mounted
from p2pfs.library.names import holds_state, published_path, split
from p2pfs.library.offers import SharedFile
from p2pfs.library.share import Share
from p2pfs.library.status import StatKey
from p2pfs.library.tidying import Tidying
from p2pfs.roots import Roots


class Recollection:
    """Goes through the index, some files at a time. For one thread."""

    def __init__(
        self,
        share: Share,
        roots: Roots,
        mounted: Mounted,
        index: Index,
        looks: Looks,
        tidying: Tidying,
        ignoring: Ignoring,
        *,
        is_trusting: bool,
    ) -> None:
        """Prepare; unless it is trusting, each file is looked at before it is offered."""
        self._share = share
        self._roots = roots
        self._mounted = mounted
        self._index = index
        self._looks = looks
        self._tidying = tidying
        self._ignoring = ignoring
        self._is_trusting = is_trusting
        self._due: dict[str, None] = {}
        """Directories to go through; the empty path is all there is."""
        self._after = ""
        self._directories: dict[str, StatKey | None] = {}
        """The directories that were looked at, with None for each that is not offered."""

    @property
    def is_due(self) -> bool:
        """Return whether a step would do something."""
        return bool(self._due)

    def begin(self, directory: str) -> None:
        """Go through all that is filed below a directory."""
        self._due[directory] = None

    def step(self) -> None:
        """Offer some files; the others are forgotten, unless a look finds them."""
        directory = next(iter(self._due))
        rows = self._index.filed(directory, self._after, NAMES_A_STEP)
        for above, some in itertools.groupby(rows, lambda row: row[0].rpartition("/")[0]):
            self._take(above, list(some))
        if rows:
            self._after = rows[-1][0]
        else:
            del self._due[directory]
            self._after = ""
            self._directories.clear()

    def _take(self, directory: str, rows: Sequence[FiledRow]) -> None:
        key = self._looked_at(directory) if self._is_trusting else None
        files = {} if key is None else self._offered(directory, key.device, rows)
        kept = self._looks.recollect(directory, files)
        if len(kept) < len(rows):
            self._tidying.suspect([row[0] for row in rows if row[0] not in kept])

    def _offered(
        self, directory: str, device: int, rows: Sequence[FiledRow]
    ) -> Mapping[str, SharedFile]:
        """Return those files of a directory that may be offered, by path."""
        begin = len(directory) + 1 if directory else 0
        may_be_private = self._ignoring.has_patterns or not "".join([r[0] for r in rows]).isascii()
        return {
            path: SharedFile(
                directory,
                path[begin:],
                file_id,
                # Its device has another number after each start of the machine.
                StatKey(device, ino, size, mtime_ns, ctime_ns),
                is_filed=device == former,
            )
            for path, file_id, former, ino, size, mtime_ns, ctime_ns in rows
            if not (may_be_private and self._is_private(path))
        }

    def _is_private(self, path: str) -> bool:
        """Return whether a file in a directory that is offered is not, or not under this name."""
        if self._ignoring.has_patterns and self._ignoring.is_ignored(path, is_directory=False):
            return True
        # It may lie there in another normal form.
        return not path.isascii() and self._share.status(path) is None

    def _looked_at(self, path: str) -> StatKey | None:
        """Return how a directory is, offered by now, or None if it is not to be."""
        if path not in self._directories:
            is_above = path != "" and self._looked_at(split(path)[0]) is None
            key = None if is_above else self._look_at(path)
            self._directories[path] = key
            if key is not None:
                self._looks.recollect_directory(path, key)
        return self._directories[path]

    def _look_at(self, path: str) -> StatKey | None:
        if published_path(path) != path or self._mounted.holds(path):
            return None
        try:
            status = self._share.look(path)
            names = self._share.present(path, (IDENTITY, LOCK, IGNORE))
        except OSError:
            return None
        device = status.key.device
        is_elsewhere = self._mounted.has_device(device) or self._roots.is_elsewhere(path, device)
        if is_elsewhere or holds_state(names):
            return None
        if path and self._ignoring.is_ignored(path, is_directory=True):
            return None
        self._ignoring.look_into(path, names)
        return status.key if status.is_directory else None
