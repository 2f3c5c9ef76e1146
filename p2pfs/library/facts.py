"""Facts about changes: from the tree, from the watch, and from readers."""

from __future__ import annotations

import time
from typing import Final

from msgspec.structs import replace

from p2pfs.library.books import Books
from p2pfs.library.doubts import VERDICTS, Sign, Trust, Verdict, difference
from p2pfs.library.names import published_path
from p2pfs.library.offers import SharedFile
from p2pfs.library.status import Identity, StatKey, Status

SETTLED_NS: Final = 100_000_000
"""A file's times move in ticks of the kernel's clock (4 ms, 10 at most). Two writes within
one tick leave the same times; after this long, the next write is sure to leave others."""


class Facts:
    """Notes facts; on return nothing is offered that they leave in doubt.

    A `status` is None if nothing is at the path, or if its state cannot be read.
    """

    def __init__(self, books: Books) -> None:
        self._books = books

    def touched(self, path: str, status: Status | None, sign: Sign) -> None:
        """Take back offers at `path` that no longer hold; have it looked at, with all below it."""
        books = self._books
        with books.changing():
            is_file = status is not None and status.is_file
            if not (is_file and books.writers.is_open(path)):  # else the end of writing does it
                books.agenda.touch(path, sign)
            books.offers.forgive(path)
            if status is None:
                books.has_parent(path)
            elif status.is_file:
                self._note_file(path, status, sign)
            self._check_offer(path, status, sign)

    def lost_name(self, path: str, file: Identity, *, is_last: bool) -> None:
        """Serve a file no more under a name that was taken from it; `touched` comes after it.

        Unless that was its last, it is looked for when it is asked for.
        """
        books = self._books
        with books.changing():
            holding = books.holdings.at(file)
            if holding is None:
                return
            if is_last:
                books.holdings.drop(file)
            elif left := [name for name in holding.paths if name != path]:
                books.holdings.rename(holding, left)

    def look_at(self, path: str) -> None:
        """Have a path looked at."""
        with self._books.changing():
            self._books.agenda.add(path, Sign.NAMES)

    def start_over(self) -> None:
        """Take back everything and have everything looked at."""
        with self._books.changing():
            self._books.withdraw("")
            self._books.agenda.touch("", Sign.FOUND)

    def set_paused(self, is_paused: bool) -> None:
        """Answer as if nothing were offered while paused."""
        books = self._books
        with books.changing():
            books.own_version += is_paused != books.is_paused
            books.offers.changes.note_all()
            books.is_paused = is_paused

    # Writers.

    def write_began(self, path: str, status: Status | None) -> None:
        """Take back the file that is written, under all its names, until the last writer ends."""
        books = self._books
        with books.changing():
            file = status.key.identity if status is not None and status.is_file else None
            books.writers.began(path, file)
            books.agenda.write_began(path, file)
            if file is not None:
                books.doubts.suspect(file)
            holding = books.holdings.at(file) if file is not None else None
            for name in {path, *(holding.paths if holding is not None else ())}:
                offer = books.file_at(name)
                if offer is not None:
                    self._doubt_if_fresh(offer)
                    books.withdraw(offer.path)
                    books.agenda.add(name)

    def is_open(self, path: str) -> bool:
        """Return whether a writer of a path is known; the path is looked at when the last ends."""
        with self._books.lock:
            return self._books.writers.is_open(path)

    def write_ended(self, path: str) -> None:
        """Have a file looked at whose last writer has gone."""
        with self._books.changing():
            for other in self._books.writers.ended(path):
                self._books.agenda.touch(other, Sign.WRITTEN)

    # Facts from those who read blocks.

    def spoiled(self, file: Identity) -> None:
        """Take back a file whose bytes are not those that were offered; have it hashed anew."""
        books = self._books
        with books.changing():
            books.doubts.doubt(file)
            holding = books.holdings.at(file)
            if holding is not None:
                books.holdings.drop(file)
                for path in holding.paths:
                    books.look_again(path, file)

    def misplaced(self, path: str, file: Identity) -> None:
        """Take back a file that was not at its place any more; it may turn up at another."""
        with self._books.changing():
            self._books.leavings.files.add(file)
            self._books.look_again(path, file)

    def seen(self, path: str, key: StatKey) -> None:
        """Note the state of a file that was read: it may have been written unnoticed."""
        books = self._books
        with books.lock:
            file = books.file_at(path)
            if file is None or file.key.has_bytes_of(key):
                return
        with books.changing():
            books.look_again(path, key.identity)

    def lost(self, path: str) -> None:
        """Have a published path looked at as if it were new: the index does not have it."""
        books = self._books
        with books.changing():
            file = books.offers.file(path)
            if file is not None:
                books.withdraw(path)
                books.agenda.touch(file.local_path, Sign.WRITTEN)

    # Inside.

    def _note_file(self, path: str, status: Status, sign: Sign) -> None:
        """Note that a file is at `path`, also for its other names."""
        books, file = self._books, status.key.identity
        if books.writers.identify(path, file) or sign is Sign.WRITTEN:
            books.doubts.suspect(file)
        holding = books.holdings.at(file)
        if holding is not None and holding.key != status.key:
            for name in holding.paths:
                if name != path and books.is_offered_as(name, file):
                    books.agenda.touch(name, sign)
                    self._check_offer(name, status, sign)

    def _check_offer(self, path: str, status: Status | None, sign: Sign) -> None:
        """Take back the offer of a path if another content may be there now."""
        file = self._books.file_at(path)
        if file is None:
            self._check_directory(path, status)
            return
        key = status.key if status is not None else None
        verdict = VERDICTS[sign][difference(file.key, key)]
        if verdict is Verdict.RETIME and key is not None:
            self._retime(file, key)
            return
        if verdict is Verdict.DOUBT:
            self._books.doubts.doubt(file.key.identity)
        if verdict is Verdict.KEEP_IF_OLD:
            self._doubt_if_fresh(file)
        is_doubted = self._books.doubts.trust(file.key.identity) is Trust.NONE
        if verdict is Verdict.WITHDRAW or is_doubted:
            self._books.withdraw(file.path)

    def _check_directory(self, path: str, status: Status | None) -> None:
        known = self._books.offers.directory(published_path(path) or "")
        if status is None or not status.is_directory or known not in (None, status.key.identity):
            self._books.withdraw_local(path)

    def _retime(self, file: SharedFile, key: StatKey) -> None:
        """Offer the same bytes with other times."""
        retimed = replace(file, key=key, is_filed=False)
        self._books.offers.put_file(retimed)
        self._books.holdings.put(retimed)

    def _doubt_if_fresh(self, file: SharedFile) -> None:
        if time.time_ns() - file.key.ctime_ns < SETTLED_NS:
            self._books.doubts.doubt(file.key.identity)
