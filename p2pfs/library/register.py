"""The agenda, the offers and the holdings under one lock: every step that must not be torn.

Kernel threads bring facts, the worker's thread brings what it saw, and everybody asks. Each
method takes the lock once, never waits for the disk, and goes through a bounded number of
names: what concerns a whole directory is given and taken in pieces.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from msgspec.structs import replace

from p2pfs.library.agenda import Agenda, Look, Sign
from p2pfs.library.holdings import Holding, Holdings
from p2pfs.library.names import join, other_forms, published_path, split, why_private
from p2pfs.library.offers import Changes, Offers, Page, SharedFile, directory_entry
from p2pfs.library.status import Identity, StatKey, Status
from p2pfs.protocol import Entry, FileId

SETTLED_NS: Final = 100_000_000
"""A file's times move in ticks of the kernel's clock (4 ms, 10 at most). Two writes within
one tick leave the same times; after this long, the next write is sure to leave others."""

NAMES_AT_ONCE: Final = 256
"""Names that one step goes through: about half a millisecond."""

NO_KEYS: Final[Mapping[str, StatKey]] = MappingProxyType({})

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


class Register:
    """What is offered, what is held, and what has to be looked at before more can be."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._agenda = Agenda()
        self._offers = Offers()
        self._holdings = Holdings()
        self._withdrawn: set[str] = set()
        self._adrift: set[Identity] = set()
        """Files of which a name was taken back: maybe nothing of them is left to serve."""
        self._withdrawn_early: set[str] = set()
        self._adrift_early: set[Identity] = set()
        """Of these two, what has to wait until a look has ended."""
        self._is_paused = False
        self._own_version = 0

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            yield
        self._on_change()

    # Facts. `status` is None for what is gone or cannot be looked at.

    def touched(self, path: str, status: Status | None, sign: Sign) -> None:
        """Take back what no longer holds at `path`; have it looked at, with all below it."""
        with self._changing():
            self._agenda.touch(path, sign)
            self._offers.forgive(path)
            if status is None:
                self._has_parent(path)
            elif status.is_file:
                self._note_file(path, status, sign)
            self._check_offer(path, status, sign)

    def write_began(self, path: str, status: Status | None) -> None:
        """Take back the file that is written, under all its names, until the last writer ends."""
        with self._changing():
            file = status.key.identity if status is not None and status.is_file else None
            self._agenda.write_began(path, file)
            holding = self._holdings.at(file) if file is not None else None
            for name in {path, *(holding.paths if holding is not None else ())}:
                offer = self._file_at(name)
                if offer is not None:
                    self._doubt_if_fresh(offer)
                    self._withdraw(offer.path)
                    self._agenda.add(name)

    def is_open(self, path: str) -> bool:
        """Return whether a writer has told of himself; it is looked at when he ends."""
        with self._lock:
            return self._agenda.is_open(path)

    def write_ended(self, path: str) -> None:
        """Have a file looked at whose last writer has gone."""
        with self._changing():
            self._agenda.write_ended(path)

    def start_over(self) -> None:
        """Take back everything and have everything looked at."""
        with self._changing():
            self._withdraw("")
            self._agenda.touch("", Sign.FOUND)

    def set_paused(self, is_paused: bool) -> None:
        """Answer nothing to questions while paused."""
        with self._changing():
            self._own_version += is_paused != self._is_paused
            self._offers.changes.note_all()
            self._is_paused = is_paused

    def _note_file(self, path: str, status: Status, sign: Sign) -> None:
        """Take in that a file is at `path`, also for its other names."""
        file = status.key.identity
        self._agenda.identify(path, file)
        if sign is Sign.WRITTEN:
            self._agenda.suspect(file)
        holding = self._holdings.at(file)
        if holding is not None and holding.key != status.key:
            for name in holding.paths:
                if name != path and self._is_offered_as(name, file):
                    self._agenda.touch(name, sign)
                    self._check_offer(name, status, sign)

    def _check_offer(self, path: str, status: Status | None, sign: Sign) -> None:
        """Take back what is offered for a path if what is there now may be something else."""
        file = self._file_at(path)
        if file is None:
            self._check_directory(path, status)
        elif status is None or status.key.identity != file.key.identity:
            self._withdraw(file.path)
        elif status.key.has_bytes_of(file.key):
            if sign is Sign.WRITTEN:
                self._doubt_if_fresh(file)
                if status.key != file.key:
                    self._agenda.doubt(file.key.identity)
            if self._agenda.is_doubted(file.key.identity):
                self._withdraw(file.path)
        elif sign is Sign.ATTRIBUTES and status.key.size == file.key.size:
            self._retime(file, status.key)
        else:
            self._withdraw(file.path)

    def _check_directory(self, path: str, status: Status | None) -> None:
        known = self._offers.directory(published_path(path) or "")
        if status is None or not status.is_directory or known not in (None, status.key.identity):
            self._withdraw_local(path)

    def _retime(self, file: SharedFile, key: StatKey) -> None:
        """Offer the same bytes with other times."""
        entry = Entry(file.path, file.size, key.mtime_ns, file.file_id)
        self._offers.put_file(replace(file, entry=entry, key=key, is_filed=False))
        self._holdings.put(file.local_path, key, file.file_id)

    def _file_at(self, path: str) -> SharedFile | None:
        """Return the file that is offered for this local path."""
        file = self._offers.file(published_path(path) or "")
        return file if file is not None and file.local_path == path else None

    def _is_offered_as(self, path: str, file: Identity) -> bool:
        offer = self._file_at(path)
        return offer is not None and offer.key.identity == file

    def _doubt_if_fresh(self, file: SharedFile) -> None:
        if time.time_ns() - file.key.ctime_ns < SETTLED_NS:
            self._agenda.doubt(file.key.identity)

    def _withdraw(self, path: str) -> None:
        self._note_gone(self._offers.withdraw(path))
        self._note_gone(self._offers.dismantle(NAMES_AT_ONCE))

    def _note_gone(self, files: Iterable[SharedFile]) -> None:
        for file in files:
            self._withdrawn.add(file.path)
            self._adrift.add(file.key.identity)
            for twin in other_forms(file.local_path):  # not offered as long as this one was
                self._agenda.add(twin)

    def _withdraw_local(self, path: str) -> None:
        """Take back what a local path stands for, not what has its name in another form."""
        published = published_path(path)
        if published is not None:
            file = self._offers.file(published)
            if file is None or file.local_path == path:
                self._withdraw(published)

    # What who reads has found.

    def spoiled(self, file: Identity) -> None:
        """Take back a file whose bytes are not those that were offered; have it hashed anew."""
        with self._changing():
            self._agenda.doubt(file)
            holding = self._holdings.at(file)
            if holding is not None:
                self._holdings.drop(holding)
                for path in holding.paths:
                    self._look_again(path, file)

    def misplaced(self, path: str, file: Identity) -> None:
        """Take back a file that was not at its place any more; it may turn up at another."""
        with self._changing():
            self._adrift.add(file)
            self._look_again(path, file)

    def refile(self, path: str) -> None:
        """Have a published path looked at as if it were new: the index does not have it."""
        with self._changing():
            file = self._offers.file(path)
            if file is not None:
                self._withdraw(path)
                self._agenda.touch(file.local_path, Sign.WRITTEN)

    def seen(self, path: str, key: StatKey) -> None:
        """Note the state of a file that was read: it may have been written unnoticed."""
        with self._lock:
            file = self._file_at(path)
            if file is None or file.key.has_bytes_of(key):
                return
        with self._changing():
            self._look_again(path, key.identity)

    def _look_again(self, path: str, file: Identity) -> None:
        if self._is_offered_as(path, file):
            self._withdraw_local(path)
            self._agenda.touch(path, Sign.NAMES)

    # The worker.

    def take(self, *, large: bool = False) -> Look | None:
        """Begin a look at the next path, or at the next large file."""
        with self._lock:
            return self._agenda.take_large() if large else self._agenda.take()

    def finish(self, look: Look) -> None:
        """End a look."""
        with self._changing():
            self._end(look)

    def _end(self, look: Look) -> None:
        self._agenda.finish(look)
        self._withdrawn |= self._withdrawn_early
        self._withdrawn_early.clear()
        self._adrift |= self._adrift_early
        self._adrift_early.clear()

    def refuse(self, look: Look, reason: str | None) -> None:
        """End a look at what cannot be offered, for a reason, or because nothing is there."""
        with self._changing():
            self._end(look)
            if look.is_void:
                return
            self._withdraw_local(look.path)
            self._hold_no_more(look)
            if reason is not None and self._has_parent(look.path):
                self._own_version += self._offers.refusal(look.path) != reason
                self._offers.refuse(look.path, reason)

    def _hold_no_more(self, look: Look) -> None:
        """Serve a file no more under the name at which it was looked."""
        holding = self._holdings.at(look.key.identity) if look.key is not None else None
        if holding is not None:
            holding.paths = tuple(path for path in holding.paths if path != look.path)
            self._adrift.add(holding.key.identity)

    def look_at(self, path: str) -> None:
        """Have a path looked at."""
        with self._changing():
            self._agenda.add(path, Sign.NAMES)

    def put_off(self, look: Look) -> None:
        """End a look that failed for now."""
        with self._changing():
            self._end(look)
            self._agenda.put_off(look)

    def put_aside(self, look: Look) -> None:
        """End a look at a large file, which waits until what is quick is done."""
        with self._lock:
            self._agenda.finish(look)
            self._agenda.add_large(look)

    def saw_directory(self, look: Look, key: StatKey) -> bool:
        """Offer a directory; return whether its names are wanted."""
        with self._changing():
            if look.is_void or not self._has_parent(look.path):
                self._end(look)
                return False
            path = published_path(look.path) or ""
            if self._offers.directory(path) != key.identity:
                self._withdraw(path)
            self._offers.put_directory(directory_entry(path, key.mtime_ns), key.identity)
            return True

    def saw_names(
        self, look: Look, names: Sequence[str], keys: Mapping[str, StatKey] = NO_KEYS
    ) -> bool:
        """Have local paths in a directory looked at; return whether more are wanted.

        If it is only the directory that has changed, those that are known are left alone; and so
        is a file in any case that is in the state in which it is offered.
        """
        with self._changing():
            if look.is_void:
                return False
            for path in names:
                if self._is_settled(path, keys.get(path)):
                    continue
                if look.sign >= Sign.FOUND or not self._is_known(path):
                    self._agenda.add(path)
            return True

    def _is_settled(self, path: str, key: StatKey | None) -> bool:
        file = self._file_at(path) if key is not None else None
        if file is None or file.key != key or not file.is_filed:
            return False
        identity = file.key.identity
        is_written = self._agenda.is_written(path, identity)
        return not is_written and not self._agenda.suspicion(identity)

    def recollect_directory(self, path: str, key: StatKey) -> None:
        """Offer a directory as it is, if that above it is offered."""
        with self._changing():
            if self._offers.entry(path) is None or path == "":
                self._offers.put_directory(directory_entry(path, key.mtime_ns), key.identity)

    def recollect(self, directory: str, files: Sequence[SharedFile]) -> set[str]:
        """Offer files of one directory that were offered in an earlier life.

        Returns the paths of those that are; of the others more is known by now.
        """
        with self._changing():
            if self._offers.directory(directory) is None:
                return set()
            found = [file for file in files if self._is_unheard_of(file)]
            self._offers.fill(directory, found)
            for file in found:
                self._holdings.put(file.path, file.key, file.file_id)
            return {file.path for file in found}

    def _is_unheard_of(self, file: SharedFile) -> bool:
        path, identity = file.path, file.key.identity
        if self._offers.entry(path) is not None or self._agenda.knows(path):
            return False
        if self._agenda.is_written(path, identity) or self._agenda.suspicion(identity):
            return False
        holding = self._holdings.at(identity)
        return holding is None or holding.file_id == file.file_id

    def _is_known(self, path: str) -> bool:
        published = published_path(path) or ""
        file = self._offers.file(published)
        is_offered = file.local_path == path if file else self._offers.directory(published)
        return bool(is_offered) or self._offers.refusal(path) is not None

    def names(self, path: str) -> list[str]:
        """Return the names that are offered in a local directory."""
        with self._lock:
            return self._offers.names(published_path(path) or "")

    def miss(self, look: Look, names: Iterable[str]) -> None:
        """Take back names that a directory has no more."""
        with self._changing():
            if not look.is_void:
                directory = published_path(look.path) or ""
                for name in names:
                    self._withdraw(join(directory, name))

    def saw_file(self, look: Look, key: StatKey) -> bool:
        """Take in the state of a file; return whether the look goes on.

        It does not if the file is written now, or is offered in this state already.
        """
        with self._changing():
            look.key = key
            if self._agenda.is_written(look.path, key.identity):
                self._agenda.wait_for_writer(key.identity, look.path)
                self._withdraw_local(look.path)
            elif not look.is_void and self._is_news(look, key) and self._has_parent(look.path):
                return True
            self._end(look)
            return False

    def _is_news(self, look: Look, key: StatKey) -> bool:
        published = published_path(look.path) or ""
        rival = self._offers.file(published)
        if rival is None:
            return True
        if rival.local_path != look.path:
            return published == look.path  # form C goes before the same name in form D
        is_doubted = self._agenda.is_doubted(key.identity)
        if rival.key == key and not is_doubted:
            self._agenda.believe(key.identity)
            return not rival.is_filed
        is_suspected = self._agenda.suspicion(key.identity) > 0
        if is_doubted or is_suspected or not rival.key.has_bytes_of(key):
            self._withdraw(rival.path)
        return True

    def is_doubted(self, key: StatKey) -> bool:
        """Return whether the index must not be believed about this file."""
        with self._lock:
            return self._agenda.is_doubted(key.identity)

    def suspicion(self, key: StatKey) -> int:
        """Return 0 unless it must be believed only if its ctime stands; see `Agenda`."""
        with self._lock:
            return self._agenda.suspicion(key.identity)

    def is_offered(self, path: str, file_id: FileId) -> bool:
        """Return whether a path is offered with this content."""
        with self._lock:
            file = self._offers.file(path)
            return file is not None and file.file_id == file_id

    def held(self, key: StatKey) -> Holding | None:
        """Return what a file holds, if its bytes are those that it was hashed with."""
        with self._lock:
            holding = self._holdings.at(key.identity)
            if holding is None or not key.has_bytes_of(holding.key):
                return None
            return replace(holding)

    def offer(
        self, look: Look, key: StatKey, file_id: FileId, *, is_sure: bool = True
    ) -> str | None:
        """End a look with an offer, unless something happened to the file meanwhile.

        What is not sure is compared with its first and last block when there is time. Returns
        the local path of a file that has no place since another has it, if there is such a file.
        """
        path = published_path(look.path)
        assert path is not None
        with self._changing():
            self._end(look)
            if look.is_void or not self._has_parent(look.path):
                return None
            rival = self._offers.file(path)
            if self._goes_before(rival, look.path):
                return look.path
            self._agenda.believe(key.identity)
            self._forget_other_content(look.path, key.identity, file_id)
            self._offers.forgive(look.path)
            entry = Entry(path, key.size, key.mtime_ns, file_id)
            self._offers.put_file(SharedFile(entry, look.path, key))
            self._holdings.put(look.path, key, file_id)
            if not is_sure:
                self._agenda.add_check(look.path)
            return rival.local_path if rival and rival.local_path != look.path else None

    def is_outdone(self, path: str) -> bool:
        """Return whether a file is offered that others cannot tell from this one by its name."""
        with self._lock:
            return self._goes_before(self._offers.file(published_path(path) or ""), path)

    def _goes_before(self, rival: SharedFile | None, path: str) -> bool:
        """Return whether what is offered in this path's place stays: it has its name in form C."""
        return rival is not None and rival.local_path != path and published_path(path) != path

    def _forget_other_content(self, path: str, file: Identity, file_id: FileId) -> None:
        """Take back the other names of a file that turned out to hold something else."""
        holding = self._holdings.at(file)
        if holding is not None and holding.file_id != file_id:
            self._holdings.drop(holding)
            for name in holding.paths:
                if name != path:
                    self._look_again(name, file)

    def _has_parent(self, path: str) -> bool:
        """Return whether the directory of `path` is offered; if not, have it looked at."""
        parent = split(path)[0]
        published = published_path(parent)
        if not path or published is None or self._offers.directory(published) is not None:
            return True
        self._agenda.add(parent)
        return False

    # Behind.

    def take_check(self) -> SharedFile | None:
        """Return a file that is offered and that nobody vouches for."""
        with self._changing():
            path = self._agenda.take_check()
            return None if path is None else self._file_at(path)

    def dismantle(self) -> bool:
        """Tell of some files that were below what was taken back; return whether more are."""
        with self._lock:
            if self._offers.is_whole():
                return False
        with self._changing():
            self._note_gone(self._offers.dismantle(NAMES_AT_ONCE))
            return not self._offers.is_whole()

    def take_withdrawn(self, limit: int) -> list[str]:
        """Return paths that are not offered any more, each once; for the index.

        Until a path has been looked at again, what the index has of it is kept: its file may
        still be served.
        """
        with self._lock:
            taken = [self._withdrawn.pop() for _ in range(min(limit, len(self._withdrawn)))]
            waiting = {path for path in taken if self._agenda.knows(path)}
            self._withdrawn_early |= waiting
            return [p for p in taken if p not in waiting and self._offers.file(p) is None]

    def suspect(self, paths: Iterable[str]) -> None:
        """Have these paths given out by `take_withdrawn` if they are not offered by then."""
        with self._lock:
            self._withdrawn.update(paths)

    def stale_doubts(self) -> list[Identity]:
        """Return files in doubt that are offered nowhere: the index must forget them."""
        with self._lock:
            return [file for file in self._agenda.stale_doubts() if not self._is_offered(file)]

    def believe(self, files: Iterable[Identity]) -> None:
        """Doubt nothing any more of files of which nothing is known any more."""
        with self._lock:
            for file in files:
                self._agenda.believe(file)

    def _is_offered(self, file: Identity) -> bool:
        """Return whether a file is offered; if so, have its doubts looked into."""
        holding = self._holdings.at(file)
        paths = holding.paths if holding is not None else ()
        offered = [path for path in paths if self._is_offered_as(path, file)]
        for path in offered:
            self._agenda.add(path, Sign.NAMES)
        return bool(offered)

    def let_go(self) -> bool:
        """Hold nothing any more of some files that have gone for good; whether there are more."""
        with self._lock:
            for _ in range(min(NAMES_AT_ONCE, len(self._adrift))):
                file = self._adrift.pop()
                holding = self._holdings.at(file)
                if holding is not None:
                    self._prune(file, holding)
            return bool(self._adrift)

    def _prune(self, file: Identity, holding: Holding) -> None:
        """Forget the names of a file under which it is not offered, nor will be."""
        if self._agenda.is_written("", file) or any(map(self._agenda.knows, holding.paths)):
            self._adrift_early.add(file)
            return
        holding.paths = tuple(p for p in holding.paths if self._is_offered_as(p, file))
        if not holding.paths:
            self._holdings.drop(holding)

    def has_work(self) -> bool:
        """Return whether there is something to do at once."""
        with self._lock:
            agenda = self._agenda
            is_due = agenda.has_due() or agenda.has_due_large() or agenda.has_checks()
            return is_due or not self._offers.is_whole()

    def has_quick_work(self) -> bool:
        """Return whether there is something that large files have to wait for."""
        with self._lock:
            return self._agenda.has_due()

    def needs_tidying(self) -> bool:
        """Return whether there is something to do that can wait."""
        with self._lock:
            return self._agenda.has_put_off() or bool(self._withdrawn or self._adrift)

    def recall(self) -> None:
        """Make due what was put off."""
        with self._lock:
            self._agenda.recall()

    def unsettled(self) -> int:
        """Return how many paths wait to be looked at or hashed."""
        with self._lock:
            return len(self._agenda) + (not self._offers.is_whole())

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

    def take_changes(self) -> Changes:
        """Return what has changed since this was last called."""
        with self._lock:
            changes, self._offers.changes = self._offers.changes, Changes()
            return changes

    def entry(self, path: str) -> Entry | None:
        """Return what is offered at a path."""
        with self._lock:
            return None if self._is_paused else self._offers.entry(path)

    def page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first so many entries of a directory behind a name."""
        with self._lock:
            return None if self._is_paused else self._offers.page(path, after, limit)

    def file_with(self, file_id: FileId) -> SharedFile | None:
        """Return a file that is offered with this content, paused or not."""
        with self._lock:
            for file, path in self._holdings.places(file_id):
                if self._is_offered_as(path, file):
                    return self._file_at(path)
            return None

    def holding(self, file_id: FileId) -> Holding | None:
        """Return a file that holds a content, offered or not at this moment."""
        with self._lock:
            return next(self._holdings.of(file_id), None)

    def places(self, file_id: FileId) -> list[tuple[Identity, str]]:
        """Return files and local paths where a content may be read."""
        with self._lock:
            return self._holdings.places(file_id)

    def offered(self, matches: Iterable[tuple[str, FileId]]) -> list[Entry]:
        """Return the entries of those (path, file id) that are offered."""
        with self._lock:
            files = [] if self._is_paused else [(self._offers.file(p), i) for p, i in matches]
        return [file.entry for file, file_id in files if file and file.file_id == file_id]

    def state(self, path: str) -> FileState:
        """Return how a local path stands, and its content if that is known."""
        reason = why_private(path)
        if reason is not None:
            return FileState("private", None, reason)
        published = published_path(path) or ""
        with self._lock:
            refusal = self._offers.refusal(path)
            if refusal is not None:
                return FileState("private", None, refusal)
            shown: State = "paused" if self._is_paused else "published"
            file = self._offers.file(published)
            if file is not None and file.local_path != path:
                return FileState("private", None, "others cannot tell its name from another's")
            if file is not None:
                return FileState(shown, file.file_id)
            is_offered = self._offers.directory(published) is not None
            return FileState(shown if is_offered else "hashing", None)

    def totals(self) -> tuple[int, int]:
        """Return how many files and bytes are offered."""
        with self._lock:
            return len(self._offers), self._offers.total_bytes
