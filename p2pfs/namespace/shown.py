"""The tree as it is shown: nodes by the paths under which they are shown.

`showing` decides which version has which name; this answers what the views ask. Any thread; the
lock is the catalogue's, whose tree of claims this is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final

from p2pfs.namespace.asked import Misses
from p2pfs.namespace.claims import ClaimTree
from p2pfs.namespace.nodes import ID_SUFFIX_LENGTH, Knowledge, Node, RemoteFile, version_name
from p2pfs.namespace.showing import Showing, others
from p2pfs.protocol import FileId

NAMES_AT_ONCE: Final = 200
"""Names of a directory that are shown without a break: some microseconds each."""


class ShownTree:
    """All names that are known, as this servent shows them."""

    def __init__(
        self,
        tree: ClaimTree,
        showing: Showing,
        absences: Misses,
        lock: AbstractContextManager[object],
    ) -> None:
        self._tree = tree
        self._showing = showing
        self._absences = absences
        self._lock = lock

    def lookup(self, path: str, now: float) -> Node | Knowledge:
        """Return the node at `path`, as shown; a version may be asked for by its suffix."""
        return self.look(path, now)[0]

    def look(self, path: str, now: float) -> tuple[Node | Knowledge, str]:
        """Return the same, and the path under which others know it: see `published`."""
        with self._lock:
            node, published = self._showing.look(path)
            if node is not None:
                return node, published
            is_absent = self._absences.has(published, now) or self._showing.is_below_a_file(path)
            return Knowledge.ABSENT if is_absent else Knowledge.UNKNOWN, published

    def children(self, path: str) -> list[Node]:
        """Return everything shown in a directory, sorted by name."""
        return [node for part in self.parts(path) for node in part]

    def parts(self, path: str) -> Iterator[list[Node]]:
        """Yield everything shown in a directory, sorted by name, in parts of a millisecond.

        What changes between two parts may be in a later one, or not.
        """
        with self._lock:
            place = self._showing.directory(path)
            if place is None:
                return
            settled = self._showing.settled(place)
            names = sorted((*settled.shown, *others(place, settled)))
        for first in range(0, len(names), NAMES_AT_ONCE):
            with self._lock:
                some = names[first : first + NAMES_AT_ONCE]
                part = list(self._showing.nodes(place, path, some, settled))
            yield part

    def published(self, path: str) -> str:
        """Return the path under which others know the node shown at a path.

        They differ where a directory lost its name to something else. A path that is not known is
        returned as it is.
        """
        with self._lock:
            return self._showing.published(path)

    def path_of(self, path: str, file_id: FileId) -> str:
        """Return the path at which a content is shown that is published at a path.

        That is the plain one, or with as much of its id as tells it from other versions.
        """
        for length in range(0, len(file_id.hex()) + 1, ID_SUFFIX_LENGTH):
            shown = version_name(path, file_id, length) if length else path
            node = self.lookup(shown, math.inf)
            if isinstance(node, RemoteFile) and node.file_id == file_id:
                return shown
        return path

    def hold(self, file: RemoteFile) -> Callable[[], None]:
        """Let a shown path keep its version, whatever becomes known; return how to end that.

        The directories above keep theirs as well. A file that nobody offers any more is not shown,
        but nothing else gets its name.
        """
        with self._lock:
            holds = list(self._showing.hold(file))

        def release() -> None:
            with self._lock:
                for place, name in reversed(holds):
                    self._showing.let_go(place, name)
                    self._tree.prune(place)

        return release
