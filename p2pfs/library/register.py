"""The agenda and the offers under one lock: every step that must not be torn.

Kernel threads bring facts, the worker's thread brings what it saw, and everybody asks. Each
method takes the lock once, for microseconds, and never waits for the disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

from p2pfs.library.agenda import Agenda, Look
from p2pfs.library.offers import Offers, SharedFile, directory_entry, join, split
from p2pfs.library.share import StatKey, Status, other_forms, published_path
from p2pfs.protocol import Entry, FileId

SETTLED_NS: Final = 100_000_000
"""A file's times move in ticks of the kernel's clock (4 ms, 10 at most). Two writes within
one tick leave the same times; after this long, the next write is sure to leave others."""

State = Literal["hashing", "published", "paused", "private"]


class Register:
    """What is offered, and what has to be looked at before more can be."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._agenda = Agenda()
        self._offers = Offers()
        self._refused: set[str] = set()
        self._withdrawn: set[str] = set()
        self._is_paused = False
        self._own_version = 0

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            yield
        self._on_change()

    # Facts. `status` is None for what is gone or cannot be looked at.

    def touched(self, path: str, status: Status | None) -> None:
        """Take back what no longer holds at `path`; have it looked at, with all below it."""
        with self._changing():
            self._agenda.touch(path)
            self._refused.discard(path)
            if status is not None:
                self._agenda.identify(path, status.key.ino)
                self._check_links(path, status)
            self._check_offer(path, status)

    def write_began(self, path: str, status: Status | None) -> None:
        """Take back the file that is written, under all its names, until the last writer ends."""
        with self._changing():
            inode = status.key.ino if status is not None and status.is_file else None
            self._agenda.write_began(path, inode)
            links = self._offers.links(inode) if inode is not None else []
            here = self._file_at(path)
            for file in links if here is None else [here, *links]:
                self._doubt_if_fresh(file)
                self._withdraw(file.path)
                self._agenda.add(file.local_path)

    def is_open(self, path: str) -> bool:
        """Return whether a writer has told of himself; it is looked at when he ends."""
        with self._lock:
            return self._agenda.is_open(path)

    def write_ended(self, path: str) -> None:
        """Have a file looked at whose last writer has gone."""
        with self._changing():
            self._agenda.write_ended(path)

    def lost(self, file: SharedFile) -> None:
        """Take back a file that could not be served as offered, and have it hashed anew."""
        with self._changing():
            self._agenda.doubt(file.key.ino)
            self._agenda.touch(file.local_path)
            if self._offers.file(file.path) is file:
                self._withdraw(file.path)

    def start_over(self) -> None:
        """Take back everything and have everything looked at."""
        with self._changing():
            self._withdraw("")
            self._agenda.touch("")

    def set_paused(self, is_paused: bool) -> None:
        """Answer nothing to questions while paused."""
        with self._changing():
            self._own_version += is_paused != self._is_paused
            self._is_paused = is_paused

    def _check_links(self, path: str, status: Status) -> None:
        """Take back the other names of a file that changed under this one."""
        for file in self._offers.links(status.key.ino):
            if file.local_path != path and file.key != status.key:
                self._agenda.touch(file.local_path)
                self._check_offer(file.local_path, status)

    def _check_offer(self, path: str, status: Status | None) -> None:
        file = self._file_at(path)
        if file is not None:
            self._doubt_if_fresh(file)
            if status is None or status.key != file.key or self._agenda.is_doubted(file.key.ino):
                self._withdraw(file.path)
        elif status is None or not status.is_directory:
            self._withdraw_local(path)

    def _file_at(self, path: str) -> SharedFile | None:
        """Return the file that is offered for this local path."""
        file = self._offers.file(published_path(path) or "")
        return file if file is not None and file.local_path == path else None

    def _doubt_if_fresh(self, file: SharedFile) -> None:
        if time.time_ns() - file.key.ctime_ns < SETTLED_NS:
            self._agenda.doubt(file.key.ino)

    def _withdraw(self, path: str) -> None:
        for file in self._offers.withdraw(path):
            self._withdrawn.add(file.path)
            for twin in other_forms(file.local_path):  # not offered as long as this one was
                self._agenda.add(twin)

    def _withdraw_local(self, path: str) -> None:
        """Take back what a local path stands for, not what has its name in another form."""
        published = published_path(path)
        if published is not None:
            file = self._offers.file(published)
            if file is None or file.local_path == path:
                self._withdraw(published)

    # The worker.

    def take(self, *, large: bool = False) -> Look | None:
        """Begin a look at the next path, or at the next large file."""
        with self._lock:
            return self._agenda.take_large() if large else self._agenda.take()

    def finish(self, look: Look) -> None:
        """End a look."""
        with self._changing():
            self._agenda.finish(look)

    def refuse(self, look: Look, *, stays_visible: bool) -> None:
        """End a look at what cannot be offered. `stays_visible`: the file is there, though."""
        with self._changing():
            self._agenda.finish(look)
            if look.is_void:
                return
            self._withdraw_local(look.path)
            if stays_visible:
                self._refused.add(look.path)
                self._own_version += 1

    def put_off(self, look: Look) -> None:
        """End a look that failed for now."""
        with self._changing():
            self._agenda.finish(look)
            self._agenda.put_off(look.path)

    def put_aside(self, look: Look) -> None:
        """End a look at a large file, which waits until what is quick is done."""
        with self._lock:
            self._agenda.finish(look)
            self._agenda.add_large(look.path)

    def saw_directory(self, look: Look, mtime_ns: int, names: Iterable[str]) -> None:
        """Offer a directory, have its names looked at, and take back what it has no more."""
        with self._changing():
            self._agenda.finish(look)
            if look.is_void or not self._has_parent(look.path):
                return
            directory = published_path(look.path) or ""
            self._offers.put_directory(directory_entry(directory, mtime_ns))
            kept = set()
            for name in names:
                below = join(look.path, name)
                published = published_path(below)
                if published is not None:
                    kept.add(split(published)[1])
                    self._agenda.add(below)
            for name in self._offers.names(directory) - kept:
                self._withdraw(join(directory, name))

    def saw_file(self, look: Look, key: StatKey) -> bool:
        """Take in the state of a file; return whether the look goes on.

        It does not if the file is written now, or is offered in this state already.
        """
        with self._changing():
            look.inode = key.ino
            if self._agenda.is_written(look.path, key.ino):
                self._agenda.wait_for_writer(key.ino, look.path)
                self._withdraw_local(look.path)
            elif self._is_news(look.path, key) and self._has_parent(look.path):
                return True
            self._agenda.finish(look)
            return False

    def _is_news(self, path: str, key: StatKey) -> bool:
        rival = self._offers.file(published_path(path) or "")
        if rival is None:
            return True
        if rival.local_path != path:
            return published_path(path) == path  # form C goes before the same name in form D
        if rival.key == key and not self._agenda.is_doubted(key.ino):
            return False
        self._withdraw(rival.path)
        return True

    def is_doubted(self, key: StatKey) -> bool:
        """Return whether the index must not be believed about this file."""
        with self._lock:
            return self._agenda.is_doubted(key.ino)

    def offer(self, look: Look, key: StatKey, file_id: FileId) -> None:
        """End a look with an offer, unless something happened to the file meanwhile."""
        path = published_path(look.path)
        assert path is not None
        with self._changing():
            self._agenda.finish(look)
            if look.is_void or not self._has_parent(look.path):
                return
            self._agenda.believe(key.ino)
            entry = Entry(path, key.size, key.mtime_ns, file_id)
            self._offers.put_file(SharedFile(entry, look.path, key))

    def _has_parent(self, path: str) -> bool:
        """Return whether the directory of `path` is offered; if not, have it looked at."""
        parent = split(path)[0]
        if not path or self._offers.has_directory(published_path(parent) or ""):
            return True
        self._agenda.add(parent)
        return False

    def take_withdrawn(self) -> list[str]:
        """Return the paths that are not offered any more, each once; for the index."""
        with self._lock:
            gone = [path for path in self._withdrawn if self._offers.file(path) is None]
            self._withdrawn.clear()
            return gone

    def suspect(self, paths: Iterable[str]) -> None:
        """Have these paths given out by `take_withdrawn` if they are not offered by then."""
        with self._lock:
            self._withdrawn.update(paths)

    def has_work(self) -> bool:
        """Return whether there is something to do at once."""
        with self._lock:
            return self._agenda.has_due() or self._agenda.has_due_large()

    def has_quick_work(self) -> bool:
        """Return whether there is something that large files have to wait for."""
        with self._lock:
            return self._agenda.has_due()

    def needs_tidying(self) -> bool:
        """Return whether there is something to do that can wait."""
        with self._lock:
            return self._agenda.has_put_off() or bool(self._withdrawn)

    def recall(self) -> None:
        """Make due what was put off."""
        with self._lock:
            self._agenda.recall()

    def unsettled(self) -> int:
        """Return how many paths wait to be looked at or hashed."""
        with self._lock:
            return len(self._agenda)

    # Questions.

    @property
    def is_paused(self) -> bool:
        """Whether questions are answered with nothing."""
        return self._is_paused

    @property
    def version(self) -> int:
        """Differs whenever an answer may."""
        with self._lock:
            return self._own_version + self._offers.version

    def entry(self, path: str) -> Entry | None:
        """Return what is offered at a path."""
        with self._lock:
            return None if self._is_paused else self._offers.entry(path)

    def listing(self, path: str) -> Sequence[Entry] | None:
        """Return what is offered in a directory, sorted by name."""
        with self._lock:
            return None if self._is_paused else self._offers.listing(path)

    def holders(self, file_id: FileId) -> list[SharedFile]:
        """Return the files with this content, paused or not."""
        with self._lock:
            return self._offers.holders(file_id)

    def offered(self, matches: Iterable[tuple[str, FileId]]) -> list[Entry]:
        """Return the entries of those (path, file id) that are offered."""
        with self._lock:
            files = [] if self._is_paused else [(self._offers.file(p), i) for p, i in matches]
        return [file.entry for file, file_id in files if file and file.file_id == file_id]

    def state(self, path: str) -> tuple[State, FileId | None]:
        """Return how a local path stands, and its content if that is known."""
        published = published_path(path)
        with self._lock:
            if published is None or path in self._refused:
                return "private", None
            file = self._offers.file(published)
            if file is not None and file.local_path != path:
                return "private", None  # others cannot tell its name from that file's
            if file is not None:
                return "paused" if self._is_paused else "published", file.file_id
            return "published" if self._offers.has_directory(published) else "hashing", None

    def totals(self) -> tuple[int, int]:
        """Return how many files and bytes are offered."""
        with self._lock:
            return len(self._offers), self._offers.total_bytes
