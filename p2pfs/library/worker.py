"""Look at what is due, hash it, file it, offer it: one bounded hop in a thread at a time.

What is quick goes first: between two hops on a large file, everything small gets its turn.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from p2pfs.library.agenda import Look
from p2pfs.library.index import DamagedIndexError, Index, Record
from p2pfs.library.offers import join
from p2pfs.library.register import Register
from p2pfs.library.share import (
    STEP_BYTES,
    ChangedError,
    Hashing,
    Share,
    StatKey,
    Status,
    published_path,
    unacceptable,
)
from p2pfs.library.watch import Watch
from p2pfs.protocol import MAX_FILE_BYTES, MIB, FileId

BATCH_FILES: Final = 64
"""Files in one hop and one transaction: 64 small ones take about 10 ms."""

BATCH_BYTES: Final = 8 * MIB
"""Bytes hashed in one hop before it ends; the last file may exceed it."""

HOP_S: Final = 0.01
"""How long steps of a large file may follow each other in one hop, if nothing else is due. A hop
costs 0.3 ms beside its work, which was a tenth of what hashing took."""

_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Batch:
    """What one hop has found."""

    looks: list[Look] = field(default_factory=list)
    hashed_bytes: int = 0
    filed: list[tuple[Look, StatKey, FileId]] = field(default_factory=list)
    """Files that the index has as they are."""
    found: list[tuple[Look, Record]] = field(default_factory=list)
    """Files that the index has to take in before they are offered."""

    def has_room(self) -> bool:
        return len(self.looks) < BATCH_FILES and self.hashed_bytes < BATCH_BYTES


class Worker:
    """The thread side of the library. `hop` and `tidy` must not run at the same time."""

    def __init__(
        self,
        share: Share,
        index: Index,
        register: Register,
        watch: Watch | None,
        on_lost: Callable[[], object],
    ) -> None:
        self._share = share
        self._on_lost = on_lost
        self._is_lost = False
        self._watch = watch
        self._index = index
        self._register = register
        self._large: tuple[Look, Hashing, StatKey] | None = None
        self._is_index_open = False
        self._is_index_damaged = False
        self._is_index_failing = False
        self._told: set[str] = set()

    def has_work(self) -> bool:
        """Return whether a hop would do something."""
        if self._watch is not None and self._watch.has_news():
            return True
        return self._large is not None or self._register.has_work()

    def hop(self) -> bool:
        """Do the next bounded piece of work, up to about 20 ms.

        Returns False if the index failed, and it is better to wait before the next hop. The
        failure of a single file is logged and that file skipped.
        """
        batch = _Batch()
        try:
            self._open_index()
            self._hear_of_changes()
            self._look_at_some(batch)
            self._hash_large(batch)
            self._publish(batch)
        except (DamagedIndexError, sqlite3.Error, OSError) as error:
            self.index_failed(error)
            for look in (*batch.looks, *(look for look, _ in batch.found)):
                self._register.put_off(look)
            return False
        self._is_index_failing = False
        return True

    def tidy(self) -> None:
        """Take up what was put off; let the index forget what is gone for good."""
        self._register.recall()
        if self.has_work():
            return
        try:
            self._index.remove(self._register.take_withdrawn())
        except (DamagedIndexError, sqlite3.Error) as error:
            self.index_failed(error)

    def index_failed(self, error: Exception) -> None:
        """Take in that the index failed. A damaged one is made anew, all files hashed anew."""
        if not self._is_index_failing:  # a full disk fails every second, one line is enough
            log.warning("index failed error=%r", str(error))
        self._is_index_failing = True
        if isinstance(error, DamagedIndexError):
            self._is_index_damaged = True
            self._register.start_over()

    def _open_index(self) -> None:
        if self._is_index_damaged:
            self._index.rebuild()
            self._is_index_damaged = False
        elif not self._is_index_open:
            self._index.open()
            self._register.suspect(self._index.paths())
        self._is_index_open = True

    def _hear_of_changes(self) -> None:
        """Take in what was changed, through the mount or not, before anything is looked at.

        So what the tree did and told is not heard again after the file has been hashed.
        """
        for path in self._watch.take() if self._watch is not None else ():
            if not self._register.is_open(path) and published_path(path) is not None:
                self._register.touched(path, self._share.status(path))

    # What is quick.

    def _look_at_some(self, batch: _Batch) -> None:
        while batch.has_room():
            look = self._register.take()
            if look is None:
                return
            batch.looks.append(look)
            if published_path(look.path) is None:
                self._register.finish(look)
            else:
                self._look_at(look, batch)

    def _look_at(self, look: Look, batch: _Batch) -> None:
        try:
            status = self._share.look(look.path)
            if status.is_directory:
                self._look_into(look, status)
                return
        except OSError as error:
            self._file_failed(look, error)
            return
        if self._is_wanted(look, status):
            self._look_at_file(look, status.key, batch)

    def _look_into(self, look: Look, status: Status) -> None:
        names = self._share.names(look.path)
        self._is_lost = self._is_lost and look.path != ""
        for path in (join(look.path, name) for name in names):
            if published_path(path) is None:
                self._tell_unacceptable(path)
        self._register.saw_directory(look, status.key.mtime_ns, names)

    def _is_wanted(self, look: Look, status: Status) -> bool:
        """Return whether what is there has to be hashed or found in the index."""
        if not status.is_file or status.key.size > MAX_FILE_BYTES:
            self._register.refuse(look, stays_visible=True)
            return False
        return self._register.saw_file(look, status.key)

    def _look_at_file(self, look: Look, key: StatKey, batch: _Batch) -> None:
        filed = {} if self._register.is_doubted(key) else self._index.find(key)
        path = published_path(look.path) or ""
        if path in filed:
            batch.filed.append((look, key, filed[path]))
            return
        for file_id in filed.values():  # another name of it: renamed, or a hard link
            manifest = self._index.manifest(file_id)
            if manifest is not None:
                batch.found.append((look, Record(path, key, manifest)))
                return
        if key.size > STEP_BYTES:
            self._register.put_aside(look)
        else:
            batch.hashed_bytes += key.size
            self._step(look, Hashing(self._share, look.path, key), key, batch)

    # What takes long.

    def _hash_large(self, batch: _Batch) -> None:
        if self._large is None:
            self._begin_large(batch)
        ends_at = time.monotonic() + HOP_S
        while self._large is not None:
            look, hashing, key = self._large
            if look.is_void:
                self._register.finish(look)
                self._large = None
            elif self._step(look, hashing, key, batch):
                self._large = None
            if time.monotonic() >= ends_at or self._register.has_quick_work():
                return

    def _begin_large(self, batch: _Batch) -> None:
        look = self._register.take(large=True)
        if look is None:
            return
        batch.looks.append(look)
        try:
            status = self._share.look(look.path)
        except OSError as error:
            self._file_failed(look, error)
            return
        if self._is_wanted(look, status):
            self._large = look, Hashing(self._share, look.path, status.key), status.key

    def _step(self, look: Look, hashing: Hashing, key: StatKey, batch: _Batch) -> bool:
        """Hash one step of a file; return whether it is over, for better or worse."""
        try:
            manifest = hashing.step()
        except ChangedError:
            self._register.put_off(look)
            return True
        except OSError as error:
            self._file_failed(look, error)
            return True
        if manifest is None:
            return False
        batch.found.append((look, Record(published_path(look.path) or "", key, manifest)))
        return True

    # What comes out.

    def _publish(self, batch: _Batch) -> None:
        """File first, offer second: what is offered has its manifest in the index."""
        if batch.found:
            self._index.put([record for _, record in batch.found])
        for look, key, file_id in batch.filed:
            self._register.offer(look, key, file_id)
        for look, record in batch.found:
            self._register.offer(look, record.key, record.manifest.file_id)

    def _file_failed(self, look: Look, error: OSError) -> None:
        if error.errno in _PASSING:
            self._register.put_off(look)
        elif error.errno in _GONE:
            self._register.refuse(look, stays_visible=False)
            if look.path == "" and not self._is_lost:
                self._is_lost = True
                self._on_lost()
        else:
            log.warning("file is not published path=%r error=%r", look.path, str(error))
            self._register.refuse(look, stays_visible=True)

    def _tell_unacceptable(self, path: str) -> None:
        """Log once why a name stays private, unless it is meant to."""
        reason = unacceptable(path)
        if reason is not None and path not in self._told:
            self._told.add(path)
            log.info("name is not published path=%r reason=%r", path, reason)
