"""Files `.p2pfsignore`, whose patterns keep paths private as those of `.gitignore` do.

Each such file speaks of what lies at and below its directory; of two, the deeper one has the last
word. Everything in an ignored directory is ignored, whatever deeper patterns say.
"""

from __future__ import annotations

import errno
from collections.abc import Collection
from typing import Final

from p2pfs.library.names import split
from p2pfs.library.patterns import Patterns
from p2pfs.library.share import Share
from p2pfs.protocol import join_path

IGNORE: Final = ".p2pfsignore"

MAX_IGNORE_BYTES: Final = 64 * 1024
"""Of one such file. Every name in the directory is compared with every line."""

IS_IGNORED: Final = "a .p2pfsignore says so"

_NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR})


class Ignoring:
    """The patterns of each directory that has some. For one thread at a time."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._patterns: dict[str, Patterns] = {}

    def look_into(self, directory: str, names: Collection[str]) -> str | None:
        """Read the patterns of a directory with these names; return why they cannot be read.

        Then nothing in that directory is published: better too little than too much.
        """
        self._patterns.pop(directory, None)
        if IGNORE not in names:
            return None
        try:
            text = self._share.text(join_path(directory, IGNORE), MAX_IGNORE_BYTES)
            self._patterns[directory] = Patterns(text)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _NO_FILE:
                return None
            self._patterns[directory] = Patterns("*")
            return f"{IGNORE} cannot be read: {getattr(error, 'strerror', None) or error}"
        return None

    @property
    def has_patterns(self) -> bool:
        """Return whether there are any patterns."""
        return bool(self._patterns)

    def is_ignored(self, path: str, *, is_directory: bool) -> bool:
        """Return whether a local path stays private, if no directory above it does."""
        directory = path
        while self._patterns and directory:
            directory, _ = split(directory)
            patterns = self._patterns.get(directory)
            if patterns is not None:
                below = path[len(directory) :].lstrip("/")
                verdict = patterns.verdict(below, is_directory=is_directory)
                if verdict is not None:
                    return verdict
        return False
