"""Events for the user about paths that are not published: one for each, or one for many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2pfs.latest import Latest
from p2pfs.library.names import split

EACH: Final = 20
"""Names in one directory that have an event of their own, for one reason."""

MAX_GROUPS: Final = 1_000
"""Directories and reasons that are remembered; the oldest may have its events again."""

Tell = Callable[[str, str], object]
"""Takes a local path and a text."""


class Notices:
    """The names for which the user got an event, by directory and reason."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told: Latest[tuple[str, str], set[str]] = Latest(MAX_GROUPS)

    def private(self, path: str, reason: str) -> None:
        """Tell the user why a local path is not published, unless a leading dot says so."""
        if not reason:
            return
        directory, name = split(path)
        names = self._told.setdefault((directory, reason), set())
        if name in names or len(names) > EACH:
            return
        names.add(name)
        if len(names) <= EACH:
            self._tell(path, f"not published: {reason}")
        else:
            self._tell(directory, f"more files in this directory are not published: {reason}")
