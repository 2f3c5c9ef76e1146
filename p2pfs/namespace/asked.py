"""When each servent listed each directory, and when names were found or absent. Not locked.

Each time is that at which the question was begun: names that were published before it are in the
answer, and later ones need not be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import ServentId, parent_of

MAX_LISTED_BY: Final = 1_000
"""Directories of one servent of which it is remembered that they were listed; older ones are listed
again."""

MAX_LISTED: Final = 20_000
"""Listings whose hash is remembered, to tell whether the next one is the same; 4 MB."""

MAX_ABSENT: Final = 10_000
"""Names remembered as absent. The oldest is forgotten first."""

MAX_FOUND: Final = 10_000
"""Names remembered that were found by their paths, so that no older listing removes them; 2 MB."""


class Misses:
    """Names that nobody had when they were asked for."""

    def __init__(self) -> None:
        self._until: Latest[str, float] = Latest(MAX_ABSENT)

    def put(self, path: str, until: float) -> None:
        """Note that nobody has a path, to be believed until a time."""
        self._until[path] = until

    def has(self, path: str, now: float) -> bool:
        """Return whether a path is believed to be absent."""
        return self._until.get(path, -math.inf) > now

    def drop(self, path: str) -> None:
        """Hold a path no longer for absent."""
        self._until.pop(path, None)

    def drop_all(self, paths: Iterable[str]) -> None:
        """Hold these paths no longer for absent."""
        if self._until:
            for path in paths:
                self.drop(path)

    def clear(self, directories: Collection[str] | None = None) -> None:
        """Hold no name for absent, in these directories or any."""
        if directories is None:
            self._until.clear()
            return
        for path in [one for one in self._until if parent_of(one) in directories]:
            del self._until[path]


class Finds:
    """Names that were found by their paths: a listing begun before does not remove them."""

    def __init__(self) -> None:
        self._at: Latest[tuple[ServentId, str], float] = Latest(MAX_FOUND)
        """When each, and each directory above it, was last found at a servent."""

    def put(self, source: ServentId, path: str, now: float) -> None:
        """Note that a path was found at a servent."""
        while path:
            self._at[source, path] = now
            path = parent_of(path)

    def has(self, source: ServentId, path: str, since: float) -> bool:
        """Return whether a path was found at a servent since then."""
        return self._at.get((source, path), -math.inf) >= since

    def since(self, path: str, since: float) -> Iterator[ServentId]:
        """Yield the servents at which a path was found since then."""
        late = itertools.takewhile(lambda one: one[1] >= since, reversed(self._at.items()))
        return (source for (source, found), _ in late if found == path)


class Repeats:
    """The last listing that each servent gave of each directory: most are the same again."""

    def __init__(self) -> None:
        self._last: Latest[tuple[ServentId, str], tuple[int, int | None]] = Latest(MAX_LISTED)
        """The hash of each listing, and the version of its servent then."""

    def put(self, source: ServentId, directory: str, told: int, version: int | None) -> None:
        """Note the hash of a listing, and the version of its servent now."""
        self._last[source, directory] = told, version

    def has(self, source: ServentId, directory: str, told: int, version: int | None) -> bool:
        """Return whether a listing and its servent's version are those noted last."""
        return self._last.get((source, directory)) == (told, version)


class WholeListings:
    """The directories that single servents have listed whole, and when."""

    def __init__(self) -> None:
        self._at: dict[ServentId, Latest[str, float]] = {}

    def put(self, source: ServentId, directory: str, began_at: float) -> None:
        """Note that a servent has listed all that it has in a directory."""
        self._at.setdefault(source, Latest(MAX_LISTED_BY))[directory] = began_at

    def at(self, source: ServentId, directory: str) -> float | None:
        """Return when a servent was last asked for a directory that it listed whole; else None."""
        listed = self._at.get(source)
        return None if listed is None else listed.get(directory)

    def forget(self, source: ServentId, path: str) -> None:
        """Forget that a directory of a servent, and those below it, were listed."""
        listed = self._at.get(source)
        if listed is None:
            return
        for below in [d for d in listed if not path or d == path or d.startswith(path + "/")]:
            del listed[below]
        if not listed:
            del self._at[source]

    def keep_only(self, directory: str, sources: Iterable[ServentId]) -> None:
        """Forget of all other servents that a directory, and those below it, were listed."""
        for source in self._at.keys() - sources:
            self.forget(source, directory)
