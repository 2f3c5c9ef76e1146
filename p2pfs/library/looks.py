"""The worker's looks at paths: how they begin, what they find, how they end.

For the worker's thread, which holds no lock between two calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from p2pfs.library.agenda import Look
from p2pfs.library.books import Books
from p2pfs.library.doubts import Sign, Trust
from p2pfs.library.holdings import Holding
from p2pfs.library.names import published_path
from p2pfs.library.offers import SharedFile, directory_entry, file_offered
from p2pfs.library.status import Identity, StatKey
from p2pfs.protocol import FileId, join_path

NO_KEYS: Final[Mapping[str, StatKey]] = MappingProxyType({})


class Looks:
    """Begins looks and ends them, with an offer, a refusal, or until another time.

    Tasks that wait for a change are not woken by each step: the worker's rounds wake them once
    after each hop. Trio's thread, woken for each of three steps a file, took a fifth of the time of
    indexing, and the interpreter from the worker each time.
    """

    def __init__(self, books: Books) -> None:
        self._books = books

    def take(self, *, large: bool = False) -> Look | None:
        """Begin a look at the next path, or at the next large file."""
        with self._books.lock:
            return self._books.agenda.take_large() if large else self._books.agenda.take()

    def take_check(self) -> SharedFile | None:
        """Return a file that is offered and was believed without a proof."""
        with self._books.lock:
            path = self._books.agenda.take_check()
            return None if path is None else self._books.file_at(path)

    def has_work(self) -> bool:
        """Return whether there is something to do at once."""
        with self._books.lock:
            agenda = self._books.agenda
            is_due = agenda.has_due() or agenda.has_due_large() or agenda.has_checks()
            return is_due or not self._books.offers.is_whole()

    def has_quick_work(self) -> bool:
        """Return whether there is something that large files have to wait for."""
        with self._books.lock:
            return self._books.agenda.has_due()

    # Ends of a look.

    def finish(self, look: Look) -> None:
        """End a look without an offer or a refusal."""
        with self._books.lock:
            self._books.end(look)

    def put_off(self, look: Look) -> None:
        """End a look that failed for now."""
        with self._books.lock:
            self._books.leavings.look_ended()
            self._books.agenda.put_off(look)

    def put_aside(self, look: Look) -> None:
        """End a look at a large file, which waits until all quick looks are done."""
        with self._books.lock:
            self._books.agenda.put_aside(look)

    def refuse(self, look: Look, reason: str | None, key: StatKey | None = None) -> None:
        """End a look at a path that cannot be offered, for a reason or because nothing is there.

        A file that is there in the state `key` is not served any more.
        """
        books = self._books
        with books.lock:
            if key is not None:
                look.key = key
            if not books.end(look):
                return
            books.withdraw_local(look.path)
            self._hold_no_more(look)
            if reason is not None and books.has_parent(look.path):
                books.own_version += books.offers.refusal(look.path) != reason
                books.offers.refuse(look.path, reason)

    def _hold_no_more(self, look: Look) -> None:
        """Serve a file no more under the name at which it was looked."""
        books = self._books
        holding = books.holdings.at(look.key.identity) if look.key is not None else None
        if holding is not None:
            books.holdings.rename(holding, [path for path in holding.paths if path != look.path])
            books.leavings.files.add(holding.key.identity)

    def offer(
        self, look: Look, key: StatKey, file_id: FileId, *, is_sure: bool = True
    ) -> str | None:
        """End a look with an offer, unless something happened to the file meanwhile.

        A file that is not sure to have this content is compared with its first and last block
        when there is time. Returns the local path of a file that has no place since another has
        it, if there is such a file.
        """
        path = published_path(look.path)
        assert path is not None
        books = self._books
        with books.lock:
            if not books.end(look) or not books.has_parent(look.path):
                return None
            rival = books.offers.file(path)
            if _goes_before(rival, look.path):
                return look.path
            books.doubts.believe(key.identity)
            self._forget_other_content(look.path, key.identity, file_id)
            books.offers.forgive(look.path)
            file = file_offered(path, look.path, key, file_id)
            books.offers.put_file(file)
            books.holdings.put(file)
            if not is_sure:
                books.agenda.add_check(look.path)
            return rival.local_path if rival and rival.local_path != look.path else None

    def _forget_other_content(self, path: str, file: Identity, file_id: FileId) -> None:
        """Take back the other names of a file that turned out to hold something else."""
        holding = self._books.holdings.at(file)
        if holding is not None and holding.file_id != file_id:
            self._books.holdings.drop(file)
            for name in holding.paths:
                if name != path:
                    self._books.look_again(name, file)

    # Directories.

    def saw_directory(self, look: Look, key: StatKey) -> bool:
        """Offer a directory; return whether its names are wanted."""
        books = self._books
        with books.lock:
            if look.is_void or not books.has_parent(look.path):
                books.end(look)
                return False
            path = published_path(look.path) or ""
            if books.offers.directory(path) != key.identity:
                books.withdraw(path)
            books.offers.forgive(look.path)
            books.offers.put_directory(directory_entry(path, key.mtime_ns), key.identity)
            return True

    def saw_names(
        self, look: Look, seen: Mapping[str, str], keys: Mapping[str, StatKey] = NO_KEYS
    ) -> bool:
        """Have local paths in a directory looked at; return whether more are wanted.

        With each comes its name as others see it.
        If it is only the directory that has changed, those that are known are left alone; and so
        is a file in any case that is in the state in which it is offered.
        """
        with self._books.lock:
            if look.is_void:
                return False
            offered = self._books.offers.children(published_path(look.path) or "")
            for path, name in seen.items():
                if self._is_settled(path, offered.get(name), keys.get(path)):
                    continue
                if look.sign >= Sign.FOUND or not self._is_known(path):
                    self._books.agenda.add(path)
            return True

    def miss(self, look: Look, names: Iterable[str]) -> None:
        """Take back names that a directory has no more."""
        with self._books.lock:
            if not look.is_void:
                directory = published_path(look.path) or ""
                for name in names:
                    self._books.withdraw(join_path(directory, name))

    def has_names(self, path: str) -> bool:
        """Return whether anything is offered in a local directory."""
        with self._books.lock:
            return bool(self._books.offers.children(published_path(path) or ""))

    def names(self, path: str) -> list[str]:
        """Return the names that are offered in a local directory."""
        with self._books.lock:
            return list(self._books.offers.children(published_path(path) or ""))

    def _is_settled(self, path: str, file: object, key: StatKey | None) -> bool:
        if key is None or not isinstance(file, SharedFile) or file.local_path != path:
            return False
        if file.key != key or not file.is_filed:
            return False
        return self._is_trusted(path, file.key.identity)

    def _is_known(self, path: str) -> bool:
        offers = self._books.offers
        published = published_path(path) or ""
        file = offers.file(published)
        is_offered = file.local_path == path if file else offers.directory(published)
        return bool(is_offered) or offers.refusal(path) is not None

    # Files.

    def saw_file(self, look: Look, key: StatKey) -> bool:
        """Note the state of a file; return whether the look goes on.

        It does not if the file is written now, or is offered in this state already.
        """
        books = self._books
        with books.lock:
            books.agenda.identify(look, key)
            if books.writers.is_written(look.path, key.identity):
                books.writers.wait(key.identity, look.path)
                books.withdraw_local(look.path)
            elif not look.is_void and self._is_new(look, key) and books.has_parent(look.path):
                return True
            books.end(look)
            return False

    def _is_new(self, look: Look, key: StatKey) -> bool:
        books = self._books
        published = published_path(look.path) or ""
        rival = books.offers.file(published)
        if rival is None:
            return True
        if rival.local_path != look.path:
            return published == look.path  # form C goes before the same name in form D
        trust = books.doubts.trust(key.identity)
        if rival.key == key and trust is not Trust.NONE:
            books.doubts.believe(key.identity)
            return not rival.is_filed
        if trust is not Trust.FULL or not rival.key.has_bytes_of(key):
            books.withdraw(rival.path)
        return True

    def trust(self, key: StatKey) -> Trust:
        """Return how far the times of a file are believed."""
        with self._books.lock:
            return self._books.doubts.trust(key.identity)

    def suspicion(self, key: StatKey) -> int:
        """Return a number that differs after each new reason to trust a file less."""
        with self._books.lock:
            return self._books.doubts.suspicion(key.identity)

    def is_offered(self, path: str, file_id: FileId) -> bool:
        """Return whether a path is offered with this content."""
        with self._books.lock:
            file = self._books.offers.file(path)
            return file is not None and file.file_id == file_id

    def held(self, key: StatKey) -> Holding | None:
        """Return the holding of a file, if its bytes are those that were hashed."""
        with self._books.lock:
            holding = self._books.holdings.at(key.identity)
            if holding is None or not key.has_bytes_of(holding.key):
                return None
            return holding

    def is_outdone(self, path: str) -> bool:
        """Return whether a file is offered that others cannot tell from this one by its name."""
        with self._books.lock:
            return _goes_before(self._books.offers.file(published_path(path) or ""), path)

    # Earlier lives.

    def recollect_directory(self, path: str, key: StatKey) -> None:
        """Offer a directory as it is, if that above it is offered."""
        offers = self._books.offers
        with self._books.lock:
            if offers.entry(path) is None or path == "":
                offers.put_directory(directory_entry(path, key.mtime_ns), key.identity)

    def recollect(self, directory: str, files: Mapping[str, SharedFile]) -> Collection[str]:
        """Offer files of one directory, by path, that were offered in an earlier life.

        Returns the paths that are offered now; the others have had a look since.
        """
        books = self._books
        with books.lock:
            heard_of = books.offers.taken(directory, files) | books.agenda.known(files)
            if heard_of or books.writers or books.doubts:
                files = {
                    path: file
                    for path, file in files.items()
                    if path not in heard_of and self._is_trusted(path, file.key.identity)
                }
            kept = books.holdings.add_all(files)
            books.offers.fill(directory, list(kept.values()))
            return kept.keys()

    def _is_trusted(self, path: str, file: Identity) -> bool:
        """Return whether nobody writes a file, or has left it in doubt."""
        is_written = self._books.writers.is_written(path, file)
        return not is_written and self._books.doubts.trust(file) is Trust.FULL


def _goes_before(rival: SharedFile | None, path: str) -> bool:
    """Return whether a rival in this path's place stays: one that has its name in form C."""
    return rival is not None and rival.local_path != path and published_path(path) != path
