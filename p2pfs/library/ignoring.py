"""Files `.p2pfsignore`, whose patterns keep paths private as those of `.gitignore` do.

Each such file speaks of what lies at and below its directory; of two, the deeper one has the last
word. Everything in an ignored directory is ignored, whatever deeper patterns say.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection
from typing import Final

from pathspec import GitIgnoreSpec
from pathspec.pattern import Pattern

from p2pfs.library.names import split
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
        self._specs: dict[str, GitIgnoreSpec] = {}

    def look_into(self, directory: str, names: Collection[str]) -> str | None:
        """Read the patterns of a directory with these names; return why they cannot be read.

        Then nothing in that directory is published: better too little than too much.
        """
        self._specs.pop(directory, None)
        if IGNORE not in names:
            return None
        try:
            lines = self._share.text(join_path(directory, IGNORE), MAX_IGNORE_BYTES).splitlines()
            self._specs[directory] = GitIgnoreSpec.from_lines(lines)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _NO_FILE:
                return None
            self._specs[directory] = GitIgnoreSpec.from_lines(["*"])
            return f"{IGNORE} cannot be read: {getattr(error, 'strerror', None) or error}"
        return None

    @property
    def has_patterns(self) -> bool:
        """Return whether there are any patterns."""
        return bool(self._specs)

    def is_ignored(self, path: str, *, is_directory: bool) -> bool:
        """Return whether a local path stays private, if no directory above it does."""
        directory = path
        while self._specs and directory:
            directory, _ = split(directory)
            spec = self._specs.get(directory)
            if spec is not None:
                below = path[len(directory) :].lstrip("/") + "/" * is_directory
                verdict = _verdict(spec, below)
                if verdict is not None:
                    return verdict
        return False


def _verdict(spec: GitIgnoreSpec, path: str) -> bool | None:
    """Return whether a path is ignored by itself, None if nothing is said of it.

    The last pattern that matches decides. What only matches a directory above has decided
    already, of that directory. With a slash at its end the path is a directory's.
    """
    for pattern in reversed(spec.patterns):
        if pattern.include is not None and _matches(pattern, path):
            return pattern.include
    return None


def _matches(pattern: Pattern, path: str) -> bool:
    plain = path.rstrip("/")
    found = pattern.match_file(plain)
    if found is not None and _ends_of_directory(found.match) is None:
        return True
    if path == plain:
        return False
    found = pattern.match_file(path)  # it may be for directories alone
    return found is not None and _ends_of_directory(found.match) == len(path)


def _ends_of_directory(match: re.Match[str]) -> int | None:
    """Return where the directory ends that a pattern matches; None if it matches the path."""
    is_below = "ps_d" in match.re.groupindex and match["ps_d"] is not None
    return match.end("ps_d") if is_below else None
