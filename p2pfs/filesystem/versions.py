"""What the kernel believes of each path of others' files: no reader sees two versions mixed.

Theory. The kernel keeps one size and one page cache for a path, not for an open file. So
a path must not show two versions while it is open: one reader would get the pages of the
other's, or be cut off at its size. Hence three rules:

- while a path is open it shows the version that was opened first;
- the page cache is kept only if it holds the version that is opened;
- a version opened before the kernel was told of its attributes is read past the page cache and past
  the size, and not before the kernel asks for the attributes again: it believes those that came
  with the names of a directory for a second, and `fstat` would show another's size.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2pfs.filesystem.absences import BELIEVED_S, MARGIN_S
from p2pfs.latest import Latest
from p2pfs.namespace import Node, RemoteFile
from p2pfs.protocol import FileId

MAX_PATHS_REMEMBERED: Final = 100_000
"""Paths of which we remember which version the kernel has cached; some tens of megabytes."""


@dataclass(slots=True)
class _KernelView:
    """The answers that the kernel was given for a path."""

    shown: FileId | None = None
    """The version whose attributes it was last given."""
    cached: FileId | None = None
    """The version whose bytes may be in its page cache."""
    until: float = -math.inf
    """Until when it believes these attributes."""


@dataclass(slots=True)
class _Pin:
    """The version that a path shows while it is open."""

    file: RemoteFile
    handles: int = 0


class KernelCaches:
    """The state of the kernel's caches for each path. Any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pinned: dict[str, _Pin] = {}
        """The version that each path shows while it is open."""
        self._told: Latest[str, _KernelView] = Latest(MAX_PATHS_REMEMBERED)

    def pinned(self, path: str) -> RemoteFile | None:
        """Return the version that a path shows because it is open."""
        with self._lock:
            pin = self._pinned.get(path)
            return pin.file if pin else None

    def shown(self, file: RemoteFile) -> None:
        """Note that the kernel is given the attributes of this version."""
        with self._lock:
            state = self._state(file.path)
            state.shown, state.until = file.file_id, -math.inf

    def beside_name(self, file: RemoteFile) -> RemoteFile:
        """Note that it is given those of a version that is listed, and return which one that is."""
        with self._lock:
            pin = self._pinned.get(file.path)
            shown = pin.file if pin else file
            state = self._state(file.path)
            state.shown, state.until = shown.file_id, self._clock() + BELIEVED_S + MARGIN_S
            return shown

    def misled_s(self, node: Node) -> float:
        """Return how long the kernel still shows the attributes of another version at a path."""
        with self._lock:
            told = self._told.get(node.path)
        is_told = told is not None and isinstance(node, RemoteFile) and told.shown != node.file_id
        return told.until - self._clock() if told is not None and is_told else 0.0

    def opened(self, file: RemoteFile) -> tuple[RemoteFile, bool, bool]:
        """Pin a version; return the one to open, whether to keep the cache, or to go past it."""
        with self._lock:
            pin = self._pinned.setdefault(file.path, _Pin(file))
            pin.handles += 1
            told, pinned = self._state(file.path), pin.file
            if told.shown not in (None, pinned.file_id):
                told.cached = None
                return pinned, False, True
            keep_cache = told.cached == pinned.file_id
            told.cached = pinned.file_id
            return pinned, keep_cache, False

    def released(self, path: str) -> None:
        """Forget the pin when the last open file of a path goes."""
        with self._lock:
            pin = self._pinned[path]
            pin.handles -= 1
            if not pin.handles:
                del self._pinned[path]

    def _state(self, path: str) -> _KernelView:
        return self._told.renew(path, _KernelView)
