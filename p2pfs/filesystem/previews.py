"""The guard against downloads that nobody asked for.

A file manager that shows a folder of films starts programs which read them for a thumbnail, whole
if they may, and indexers read every file. The file system's type does not stop them (tried with six
file managers), but most can be recognised by their names. Such a reader gets the first block of a
large file that is not in the cache, which is enough for its type and often for a picture, and then
EACCES. Tumbler maps files into its memory, where a refused page kills it with all previews it had
still to make; so it gets EACCES at once.

This is manners, not protection: another name, and a program reads what it likes.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Sequence
from typing import Final, Protocol

from p2pfs.cache import Located
from p2pfs.config import Previews
from p2pfs.filesystem.answers import os_error
from p2pfs.filesystem.caller import Caller
from p2pfs.filesystem.network import Contents, Reader
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import MIB, FileId, block_bytes_for, parent_of

log = logging.getLogger(__name__)

WHOLE_BYTES: Final = 1 * MIB
"""Bytes of a file that every program may read whole, unless previews are off."""

CACHED_PERCENT: Final = 100

_PREVIEWERS: Final = re.compile(
    r".*thum"  # gdk-pixbuf-thumbnailer, ffmpegthumbnailer, evince-thumbnailer and many others
    r"|totem-video-thu"
    r"|(pool-)?tumblerd"  # Xfce
    r"|tracker-extract|tracker-miner|localsearch"  # GNOME's indexer, under both its names
    r"|baloo_file|recollindex"  # KDE's, and another
)
"""Programs and threads, as the kernel cuts their names: at 15 bytes."""

_WORKERS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    # KDE copies files with programs of this name too: the plug-in shows which of both it is.
    ("kioslave", re.compile(r"thumbnail")),
    ("kioworker", re.compile(r"thumbnail")),
    # A thread of the file manager that does nothing else.
    ("loader", re.compile(r"^\S*pcmanfm")),
)
"""Names that other programs have too, each with the text that its command line must hold."""

_MAPPERS: Final = re.compile(r"(pool-)?tumblerd")
"""Those of them that map files, and are killed by a page that they do not get."""


class Readings(Protocol):
    """The caller of an open, as far as previews need to know it."""

    def opened(self, file_id: FileId, program: str, uid: int, directory: str | None = None) -> None:
        """Note the program and user that open a content, in case it is fetched.

        Other contents of the directory that are fetched ahead are theirs too.
        """
        ...


class GuardedContents:
    """Contents, with a limit for programs that make previews.

    A content that is not here yet is noted with the program that opens it.
    """

    def __init__(
        self,
        contents: Contents,
        caller: Caller,
        previews: Previews,
        readings: Readings | None = None,
    ) -> None:
        self._contents = contents
        self._readings = readings
        self._caller = caller
        self._previews = previews

    def open(self, file: RemoteFile) -> Reader:
        """Open a content for the program that makes the present call; EACCES if it may not read."""
        limit = self._limit(file)
        if limit == 0:
            log.info("preview refused path=%r", file.path)
            raise os_error(errno.EACCES, file.path)
        reader = self._contents.open(file)
        self._note(file)
        return reader if limit is None else _Glimpse(reader, file.path, limit)

    def fetch_ahead(self, files: Sequence[RemoteFile]) -> None:
        """Fetch small contents, unless the caller makes previews and previews are off."""
        if self._previews is not Previews.OFF or not makes_previews(self._caller):
            self._contents.fetch_ahead(files)

    def last_error(self, path: str) -> str | None:
        """Return why the last read of a path failed, if it did."""
        return self._contents.last_error(path)

    def cached_percent(self, file_id: FileId) -> int:
        """Return how much of a content is in the cache."""
        return self._contents.cached_percent(file_id)

    def _note(self, file: RemoteFile) -> None:
        # Most files are here when they are opened, fetched ahead: nobody is asked for those.
        if self._readings is None:
            return
        if self._contents.cached_percent(file.file_id) < CACHED_PERCENT:
            directory = parent_of(file.path)
            caller = self._caller
            self._readings.opened(file.file_id, caller.program(), caller.user(), directory)

    def _limit(self, file: RemoteFile) -> int | None:
        """Return how many bytes the caller may read; None: all. Most callers are not checked."""
        if self._previews is Previews.ALL:
            return None
        if self._previews is Previews.SMALL and file.size <= WHOLE_BYTES:
            return None
        if not makes_previews(self._caller):
            return None
        if self._contents.cached_percent(file.file_id) == CACHED_PERCENT:
            return None
        if self._previews is Previews.OFF or _MAPPERS.match(self._caller.program()):
            return 0
        return block_bytes_for(file.size)


class _Glimpse:
    """A reader whose limit of bytes holds as long as it is open."""

    def __init__(self, reader: Reader, path: str, limit: int) -> None:
        self._reader = reader
        self._path = path
        self._limit = limit
        self._has_refused = False

    def locate_nowait(self, offset: int, length: int) -> Located | bytes | None:
        """Return where the bytes lie if all of them are here; EACCES beyond the limit."""
        self._check(offset + length)
        return self._reader.locate_nowait(offset, length)

    async def locate(self, offset: int, length: int, *, ahead: bool = True) -> Located | bytes:  # noqa: ARG002
        """Return where the bytes lie, fetching those alone; EACCES beyond the limit."""
        self._check(offset + length)
        return await self._reader.locate(offset, length, ahead=False)

    def close(self) -> None:
        """Let go of the content."""
        self._reader.close()

    def _check(self, end: int) -> None:
        if end > self._limit:
            if not self._has_refused:  # some try hundreds of times
                log.info("preview refused path=%r", self._path)
            self._has_refused = True
            raise os_error(errno.EACCES, self._path)


def makes_previews(caller: Caller) -> bool:
    """Return whether a program reads files by itself to show or index them."""
    name = caller.program()
    if _PREVIEWERS.match(name):
        return True
    marks = [mark for start, mark in _WORKERS if name.startswith(start)]
    return any(mark.search(caller.command()) for mark in marks)
