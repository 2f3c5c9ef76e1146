"""The state of the library, under one lock, and the steps that keep its parts consistent.

Kernel threads bring facts, the worker's thread brings its findings, and any thread asks. Each of
them is a class of its own over these books: `Facts`, `Looks`, `Tidying`, `Answers`. Each of their
methods takes the lock once, never waits for the disk, and goes through a bounded number of names:
what concerns a whole directory is given and taken in pieces.

A published path stands in one of five ways:

=========  =======================================================================
way        what it means
=========  =======================================================================
unknown    nobody has looked yet
offered    `offers` has its file, and `holdings` what the file holds
withdrawn  it is not offered until it was looked at; `holdings` may serve its bytes
refused    it is there and stays private, for a reason that `offers` keeps
gone       nothing is known of it any more, and the index forgets it
=========  =======================================================================

.. code-block:: text

    unknown, withdrawn, refused --offer--> offered
    unknown, withdrawn, offered --refuse with a reason--> refused
    unknown, withdrawn, offered, refused --refuse without a reason, miss--> gone
    offered --touched with a change, write_began, misplaced, lost, start_over--> withdrawn
    offered, withdrawn --spoiled--> unknown
    offered --touched, other attributes alone--> offered, with its new time
    refused --touched--> unknown

Every step to `unknown` or `withdrawn` puts the path on the agenda, so that nothing is forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from p2pfs.library.agenda import Agenda, Look
from p2pfs.library.doubts import Doubts, Sign
from p2pfs.library.holdings import Holdings
from p2pfs.library.names import other_forms, published_path, split
from p2pfs.library.offers import Offers, SharedFile
from p2pfs.library.status import Identity
from p2pfs.library.writers import WriterCounts

NAMES_A_STEP: Final = 256
"""Names that one step goes through: about half a millisecond."""


class Leavings:
    """Names and files of which an offer was taken back: maybe the index has to forget them.

    Those about which a look is still to come are set aside until one has ended.
    """

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.files: set[Identity] = set()
        self._early_paths: set[str] = set()
        self._early_files: set[Identity] = set()

    def __bool__(self) -> bool:
        """Return whether anything is noted here."""
        return bool(self.paths or self.files)

    def set_aside(self, paths: Iterable[str] = (), files: Iterable[Identity] = ()) -> None:
        """Keep these until a look has ended."""
        self._early_paths.update(paths)
        self._early_files.update(files)

    def look_ended(self) -> None:
        """Take these up again."""
        self.paths |= self._early_paths
        self._early_paths.clear()
        self.files |= self._early_files
        self._early_files.clear()


class Books:
    """The offers, the holdings, the doubts, the writers and the agenda of one library."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        """Start with nothing; `on_change` is called after each change, without the lock."""
        self._on_change = on_change
        self.lock = threading.Lock()
        self.doubts = Doubts()
        self.agenda = Agenda(self.doubts)
        self.writers = WriterCounts()
        self.offers = Offers()
        self.holdings = Holdings()
        self.leavings = Leavings()
        self.change_count = 0
        """How many changes others than the worker have made."""
        self.is_attended = False
        """Whether the worker will look at the agenda before it rests: then it need not be woken.
        To wake it for each of three facts a file took nine system calls."""
        self.is_paused = False
        self.own_version = 0
        """Counts what changes an answer and no offer."""

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for a change, and call `on_change` afterwards if a task waits for it."""
        with self.lock:
            self.change_count += 1
            before = self.version
            yield
            is_awaited = self.version != before or not self.is_attended
        if is_awaited:
            self._on_change()

    @property
    def version(self) -> int:
        """A number that is another one after each change of an answer. With the lock held."""
        return self.own_version + self.offers.version

    # The rest is called with the lock held.

    def file_at(self, path: str) -> SharedFile | None:
        """Return the file that is offered for this local path."""
        file = self.offers.file(published_path(path) or "")
        return file if file is not None and file.local_path == path else None

    def is_offered_as(self, path: str, file: Identity) -> bool:
        """Return whether a local path is offered, and is this file."""
        offer = self.file_at(path)
        return offer is not None and offer.key.identity == file

    def is_expected(self, path: str) -> bool:
        """Return whether a path will be looked at, now or when its writer has closed."""
        return self.agenda.knows(path) or self.writers.is_open(path)

    def withdraw(self, path: str) -> None:
        """Take back all offers at and below a published path."""
        self.note_gone(self.offers.withdraw(path))
        self.note_gone(self.offers.dismantle(NAMES_A_STEP))

    def note_gone(self, files: Iterable[SharedFile]) -> None:
        """Note files that are not offered any more."""
        for file in files:
            self.leavings.paths.add(file.path)
            self.leavings.files.add(file.key.identity)
            for twin in other_forms(file.local_path):  # not offered as long as this one was
                self.agenda.add(twin)

    def withdraw_local(self, path: str) -> None:
        """Take back the offers at a local path, but not those of its name in another form."""
        published = published_path(path)
        if published is not None:
            file = self.offers.file(published)
            if file is None or file.local_path == path:
                self.withdraw(published)

    def look_again(self, path: str, file: Identity) -> None:
        """Take back a file if it is offered at a path, and have the path looked at."""
        if self.is_offered_as(path, file):
            self.withdraw_local(path)
            self.agenda.touch(path, Sign.NAMES)

    def has_parent(self, path: str) -> bool:
        """Return whether the directory of `path` is offered; if not, have it looked at."""
        parent = split(path)[0]
        published = published_path(parent)
        if not path or published is None or self.offers.directory(published) is not None:
            return True
        self.agenda.add(parent)
        return False

    def end(self, look: Look) -> bool:
        """End a look; return whether its finding may be offered."""
        self.leavings.look_ended()
        return self.agenda.finish(look)
