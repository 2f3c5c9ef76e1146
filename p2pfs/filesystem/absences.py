"""Names for which the kernel got ENOENT a moment ago.

It believes that for a while and does not ask again. A name that came in the meantime is in the next
listing, and could not be opened: `ls` would show a file that `cat` does not find. So a listing that
shows such a name is held back until the kernel has forgotten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from p2pfs.latest import Latest

BELIEVED_S: Final = 1
"""How long the kernel believes that a name is there or not, and attributes that came with a name.
At 0 `ls -l` twice costs ten times the calls; above 1 nothing more was gained."""

MARGIN_S: Final = 0.05
"""The time that our answer may take to reach the kernel."""

MAX_KERNEL_ABSENT: Final = 10_000
"""Names remembered, the latest."""


class Absences:
    """Names that the kernel holds for absent. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told_at: Latest[str, float] = Latest(MAX_KERNEL_ABSENT)

    def told(self, path: str) -> None:
        """Note that a path is being answered with ENOENT."""
        with self._lock:
            self._told_at[path] = self._clock()

    def left_s(self, directory: str, names: Iterable[str]) -> float:
        """Return how long the kernel still holds one of these names for absent; 0 if none."""
        since = self._clock() - BELIEVED_S - MARGIN_S
        with self._lock:
            while self._told_at and next(iter(self._told_at.values())) <= since:
                self._told_at.popitem(last=False)
            split = ((*path.rpartition("/")[::2], at) for path, at in self._told_at.items())
            told = {name: at for parent, name, at in split if parent == directory}
        if not told:
            return 0.0
        return max((told[name] - since for name in names if name in told), default=0.0)
