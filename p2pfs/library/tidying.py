"""Work that can wait: paths that were put off, and files that have gone and are forgotten."""

from __future__ import annotations

from collections.abc import Iterable

from p2pfs.library.books import NAMES_A_STEP, Books
from p2pfs.library.doubts import Sign
from p2pfs.library.holdings import Holding
from p2pfs.library.status import Identity


class Tidying:
    """Goes through paths that were put off and files that have gone, some names at a time."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def is_due(self) -> bool:
        """Return whether there is something to do that can wait."""
        with self._books.lock:
            return self._books.agenda.has_put_off() or bool(self._books.leavings)

    def recall(self) -> None:
        """Make all paths due that were put off."""
        with self._books.lock:
            self._books.agenda.recall()

    def dismantle(self) -> bool:
        """Note some files below directories that were taken back; return whether there are more."""
        books = self._books
        with books.lock:
            if books.offers.is_whole():
                return False
        with books.lock:
            books.note_gone(books.offers.dismantle(NAMES_A_STEP))
            return not books.offers.is_whole()

    def take_withdrawn(self, limit: int) -> list[str]:
        """Return paths that are not offered any more, each once; for the index.

        Until a path has been looked at again, its record in the index is kept: its file may
        still be served.
        """
        books = self._books
        with books.lock:
            withdrawn = books.leavings.paths
            taken = [withdrawn.pop() for _ in range(min(limit, len(withdrawn)))]
            waiting = {path for path in taken if books.is_expected(path)}
            books.leavings.set_aside(paths=waiting)
            return [p for p in taken if p not in waiting and books.offers.file(p) is None]

    def suspect(self, paths: Iterable[str]) -> None:
        """Have `take_withdrawn` return those of these paths that are not offered by then."""
        with self._books.lock:
            self._books.leavings.paths.update(paths)

    def stale_doubts(self) -> list[Identity]:
        """Return files in doubt that are offered nowhere: the index must forget them."""
        books = self._books
        with books.lock:
            if len(books.agenda):  # a look may come to them
                return []
            doubted = [one for one in books.doubts.files() if not books.writers.concerns(one)]
            return [file for file in doubted if not self._is_offered(file)]

    def believe(self, files: Iterable[Identity]) -> None:
        """Doubt nothing any more of files of which nothing is known any more."""
        with self._books.lock:
            for file in files:
                self._books.doubts.believe(file)

    def _is_offered(self, file: Identity) -> bool:
        """Return whether a file is offered; if so, have its doubts looked into."""
        holding = self._books.holdings.at(file)
        paths = holding.paths if holding is not None else ()
        offered = [path for path in paths if self._books.is_offered_as(path, file)]
        for path in offered:
            self._books.agenda.add(path, Sign.NAMES)
        return bool(offered)

    def let_go(self) -> bool:
        """Forget holdings of some files that have gone for good; return whether there are more."""
        books = self._books
        with books.lock:
            adrift = books.leavings.files
            for _ in range(min(NAMES_A_STEP, len(adrift))):
                file = adrift.pop()
                holding = books.holdings.at(file)
                if holding is not None:
                    self._prune(file, holding)
            return bool(adrift)

    def _prune(self, file: Identity, holding: Holding) -> None:
        """Forget the names of a file under which it is not offered, nor will be."""
        books = self._books
        if books.writers.is_written("", file) or any(map(books.is_expected, holding.paths)):
            books.leavings.set_aside(files=[file])
            return
        paths = [path for path in holding.paths if books.is_offered_as(path, file)]
        if paths:
            books.holdings.rename(holding, paths)
        else:
            books.holdings.drop(file)
