"""Which files are being written. Not locked: the books guard it.

Files being written are known by device and inode, because a rename in mid-write changes the
path, and a hard link gives the same bytes another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from p2pfs.library.status import Identity


@dataclass(slots=True)
class _PathWriters:
    """The writers of one path.

    Its files count as written until the last of the writers has closed, since a writer that
    closes says by path alone which file it was.
    """

    count: int = 0
    files: set[Identity] = field(default_factory=set)


class WriterCounts:
    """Counts the writers of each file; keeps the paths that wait until its last writer has gone."""

    def __init__(self) -> None:
        self._open: dict[str, _PathWriters] = {}
        self._written: dict[Identity, int] = {}
        """The number of paths under which each file is written."""
        self._waiting: dict[Identity, dict[str, None]] = {}

    def __bool__(self) -> bool:
        """Return whether anything is written."""
        return bool(self._open or self._written)

    def began(self, path: str, file: Identity | None) -> None:
        """Count a writer of a path, at which this file is, if one is there yet."""
        opening = self._open.setdefault(path, _PathWriters())
        opening.count += 1
        if file is not None:
            self._count(opening, file)

    def identify(self, path: str, file: Identity) -> bool:
        """Note which file is at a path now; return whether the path has a writer."""
        opening = self._open.get(path)
        if opening is not None:
            self._count(opening, file)
        return opening is not None

    def ended(self, path: str) -> list[str]:
        """Count a writer of a path out; return the paths to look at now.

        After the last writer these are the path and all others of its files that waited.
        """
        opening = self._open.get(path)
        if opening is None:
            return [path]
        opening.count -= 1
        if opening.count:
            return []
        del self._open[path]
        return [other for file in opening.files for other in self._close(file)] + [path]

    def _count(self, opening: _PathWriters, file: Identity) -> None:
        if file not in opening.files:
            opening.files.add(file)
            self._written[file] = self._written.get(file, 0) + 1

    def _close(self, file: Identity) -> list[str]:
        self._written[file] -= 1
        if self._written[file]:
            return []
        del self._written[file]
        return list(self._waiting.pop(file, ()))

    def wait(self, file: Identity, path: str) -> None:
        """Have `ended` return a path when the last writer of its file has closed."""
        self._waiting.setdefault(file, {})[path] = None

    def is_open(self, path: str) -> bool:
        """Return whether somebody has opened this path to write."""
        return path in self._open

    def is_written(self, path: str, file: Identity) -> bool:
        """Return whether somebody writes a file, under this or another name."""
        return file in self._written or path in self._open

    def concerns(self, file: Identity) -> bool:
        """Return whether a file is written, or a path waits until it was."""
        return file in self._written or file in self._waiting
