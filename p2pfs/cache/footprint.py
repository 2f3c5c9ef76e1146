"""The file of one content, and how much of the cache's room it takes."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Protocol

from p2pfs.cache.key import Key
from p2pfs.cache.passage import punch
from p2pfs.cache.storage import Storage, cannot, whole_pages
from p2pfs.errors import TransferError
from p2pfs.protocol import Manifest

log = logging.getLogger(__name__)


class Room(Protocol):
    """The room that all contents share. All may be called from any thread."""

    limit_bytes: int
    """What all contents together may take on the disk."""

    def path_of(self, key: Key) -> str:
        """Return the path of a content's file."""
        ...

    def created(self, key: Key) -> None:
        """Note that a content has a file now."""
        ...

    def lost(self, key: Key) -> None:
        """Undo `created`."""
        ...

    def take(self, count: int) -> bool:
        """Account for `count` bytes that will be written, if nothing must go for them."""
        ...

    def reserve(self, count: int) -> None:
        """Account for `count` bytes before they are written, evicting what must go.

        Raises:
            CacheFullError: open files hold the rest.
        """
        ...

    def give_back(self, count: int) -> None:
        """Undo a reservation."""
        ...

    def make_room(self) -> None:
        """Evict one file because the disk is full.

        Raises:
            CacheFullError: there is none to evict.
        """
        ...


class Footprint:
    """One content on the disk: no byte is written that was not reserved before.

    One thread changes it at a time. Any may read `storage`, once, and go on with what it got.
    """

    def __init__(self, key: Key, room: Room) -> None:
        self.storage: Storage | None = None
        """The open file; None as long as there is none."""
        self.used_bytes = 0
        """What the content takes on the disk, by the account of the cache."""
        self._key = key
        self._room = room

    def load(self, used_bytes: int) -> tuple[Storage, Manifest]:
        """Open the file that an earlier run or handle left, with its manifest.

        Raises:
            RemoteProtocolError: the manifest is damaged; the file is not opened.
            OSError: it cannot be opened.
        """
        storage = Storage(self._room.path_of(self._key), self._key)
        manifest = storage.manifest()
        self.storage, self.used_bytes = storage, used_bytes
        return storage, manifest

    def leave(self) -> Storage:
        """Return the open file, which is not held here any more."""
        storage, self.storage = self.storage, None
        assert storage is not None, "it has a file"
        return storage

    def create(self, stored: bytes, offset: int) -> None:
        """Make the file, with its first bytes at an offset; there is none if that fails.

        Raises:
            CacheFullError: there is no room, or the disk fails.
            TooManyFilesError: this process may not open more files.
        """
        path = self._room.path_of(self._key)
        try:
            storage = Storage(path, self._key, os.O_CREAT | os.O_TRUNC)
        except OSError as error:
            raise cannot("make", error) from error
        try:
            self._store(storage, stored, offset)
        except TransferError:
            with contextlib.suppress(OSError):  # it may be read-only by now
                os.unlink(path)
            raise
        self._room.created(self._key)
        self.storage = storage

    def write(self, data: bytes, offset: int) -> None:
        """Write bytes at an offset; raises as `create` does."""
        assert self.storage is not None, "it has a file"
        self._store(self.storage, data, offset)

    def punch(self, offset: int, length: int) -> None:
        """Give back the room of some bytes, which read as zeros from then on.

        Raises:
            CacheFullError: this file system cannot.
        """
        assert self.storage is not None, "it has a file"
        punch(self.storage.number, offset, length)
        self.used_bytes -= whole_pages(length)
        self._room.give_back(whole_pages(length))

    def note(self, bitmap: bytes) -> None:
        """Store which blocks are there, if there is a file; trouble is logged and no more."""
        if self.storage is not None:
            with self._trouble_logged():
                self.storage.write_bitmap(bitmap)

    def sync(self) -> None:
        """Return when the disk has all of the file, if there is one; trouble is logged."""
        if self.storage is not None:
            with self._trouble_logged():
                self.storage.sync()

    @contextlib.contextmanager
    def _trouble_logged(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning("cache: %s cannot be synced: %s", self._key.name, error)

    def _store(self, storage: Storage, data: bytes, offset: int) -> None:
        cost = whole_pages(len(data))
        self._room.reserve(cost)
        try:
            storage.write(data, offset, self._room.make_room)
        except TransferError:
            self._room.give_back(cost)
            raise
        self.used_bytes += cost
