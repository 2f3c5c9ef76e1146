"""Questions to the library, answered from memory. No answer changes the books."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from p2pfs.library.books import Books
from p2pfs.library.holdings import Holding
from p2pfs.library.names import published_path, why_private
from p2pfs.library.offers import Changes, Page, SharedFile
from p2pfs.library.status import Identity
from p2pfs.protocol import Entry, FileId

State = Literal["hashing", "published", "paused", "private"]


@dataclass(frozen=True, slots=True)
class FileState:
    """How one file or directory in `shared/` stands."""

    state: State
    """`hashing`: will be offered when its writers are done and it is hashed. `private`: stays
    here, for its name, its kind or because it cannot be read."""
    file_id: FileId | None
    """Its content, once it is offered."""
    reason: str = ""
    """Why it is private; nothing if a leading dot says that it is meant to be."""


class Answers:
    """Answers from any thread. Others see nothing while the library is paused."""

    def __init__(self, books: Books) -> None:
        self._books = books

    @property
    def is_paused(self) -> bool:
        """Whether questions are answered with nothing."""
        return self._books.is_paused

    @property
    def version(self) -> int:
        """A number that is another one after each change of an answer."""
        with self._books.lock:
            return self._books.version

    def take_changes(self) -> Changes:
        """Return what has changed since this was last called."""
        offers = self._books.offers
        with self._books.lock:
            changes, offers.changes = offers.changes, Changes()
            return changes

    def entry(self, path: str) -> Entry | None:
        """Return the entry that is offered at a path."""
        with self._books.lock:
            return None if self._books.is_paused else self._books.offers.entry(path)

    def page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first so many entries of a directory behind a name."""
        with self._books.lock:
            return None if self._books.is_paused else self._books.offers.page(path, after, limit)

    def file_with(
        self, file_id: FileId, may_see: Callable[[str], bool] = lambda _path: True
    ) -> SharedFile | None:
        """Return an offered file with this content, among those that the asker may see."""
        books = self._books
        with books.lock:
            if file_id not in books.holdings:
                return None
            for file, path in books.holdings.places(file_id):
                if may_see(path) and books.is_offered_as(path, file):
                    return books.file_at(path)
            return None

    def holding(self, file_id: FileId) -> Holding | None:
        """Return a file that holds a content, offered or not at this moment."""
        with self._books.lock:
            return next(self._books.holdings.of(file_id), None)

    def is_sought(self, file_id: FileId) -> bool:
        """Return whether a content that is not where it was may turn up in a look to come."""
        books = self._books
        with books.lock:
            is_held = next(books.holdings.of(file_id), None) is not None
            return is_held and books.agenda.has_looks()

    def places(self, file_id: FileId) -> list[tuple[Identity, str]]:
        """Return files and local paths where a content may be read."""
        with self._books.lock:
            return self._books.holdings.places(file_id)

    def offered(self, matches: Iterable[tuple[str, FileId]]) -> list[SharedFile]:
        """Return the files of those (path, file id) that are offered."""
        books = self._books
        with books.lock:
            files = [] if books.is_paused else [(books.offers.file(p), i) for p, i in matches]
        return [file for file, file_id in files if file and file.file_id == file_id]

    def state(self, path: str) -> FileState:
        """Return how a local path stands, and its content if that is known."""
        reason = why_private(path)
        if reason is not None:
            return FileState("private", None, reason)
        offers, published = self._books.offers, published_path(path) or ""
        with self._books.lock:
            refusal = offers.refusal(path)
            if refusal is not None:
                return FileState("private", None, refusal)
            shown: State = "paused" if self._books.is_paused else "published"
            file = offers.file(published)
            if file is not None and file.local_path != path:
                return FileState("private", None, "others cannot tell its name from another's")
            if file is not None:
                return FileState(shown, file.file_id)
            is_offered = offers.directory(published) is not None
            return FileState(shown if is_offered else "hashing", None)

    def totals(self) -> tuple[int, int]:
        """Return how many files and bytes are offered."""
        with self._books.lock:
            return len(self._books.offers), self._books.offers.total_bytes

    def unsettled(self) -> int:
        """Return how many paths wait to be looked at or hashed."""
        with self._books.lock:
            return len(self._books.agenda) + (not self._books.offers.is_whole())
