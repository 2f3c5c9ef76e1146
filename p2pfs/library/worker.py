"""Look at what is due, hash it, file it, offer it: one bounded hop in a thread at a time.

What is quick goes first: between two hops on a large file, everything small gets its turn.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import stat
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from p2pfs.config import IDENTITY, LOCK
from p2pfs.errors import BadBlockError
from p2pfs.library.agenda import Look, Sign
from p2pfs.library.hashing import STEP_BYTES, Hashing
from p2pfs.library.ignoring import IGNORE, IS_IGNORED, Ignoring
from p2pfs.library.index import DamagedIndexError, Index, Record
from p2pfs.library.mounted import Mounted
from p2pfs.library.names import first_private, holds_state, join, published_path, split, why_private
from p2pfs.library.notices import Notices, Tell
from p2pfs.library.offers import SharedFile
from p2pfs.library.recollection import Recollection
from p2pfs.library.register import NAMES_AT_ONCE, NO_KEYS, Register
from p2pfs.library.share import ChangedError, Share
from p2pfs.library.status import StatKey, Status
from p2pfs.library.watch import Watch
from p2pfs.protocol import MAX_FILE_BYTES, MIB, FileId, block_span
from p2pfs.roots import Roots

BATCH_FILES: Final = 64
"""Files in one hop and one transaction: 64 small ones take about 10 ms."""

BATCH_BYTES: Final = 8 * MIB
"""Bytes hashed in one hop before it ends; the last file may exceed it."""

HOP_S: Final = 0.01
"""How long steps of a large file may follow each other in one hop, if nothing else is due. A hop
costs 0.3 ms beside its work, which was a tenth of what hashing took."""

YIELD_S: Final = 0.0002
"""How long the interpreter is left to other threads after some hundred names. Without a pause
each of them waits its turn of 5 ms, at every call."""

SAVE_FILES: Final = 10_000
SAVE_S: Final = 5.0
"""What the index takes in before it is written, while more comes at once. What a kill takes of
it is hashed again."""

FORGET_AT_ONCE: Final = 500
"""Paths that the index forgets in one transaction: who asks it meanwhile waits some 10 ms."""

GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""What says that nothing is there; the last one of a name that no file can have."""

PASSING: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN})
"""What fails for now, and says nothing of the file."""

_IS_STATE: Final = "it is the state directory of a servent"
_IS_OURS: Final = "it is in a mount of p2pfs"
_IS_ELSEWHERE: Final = "it is on another file system, which can be shared by a name of its own"
_IS_BUG: Final = "a bug of ours keeps it from being hashed: see the log"

_BUG_MET: Final = "a bug of ours: file is not published path=%r"

log = logging.getLogger(__name__)


class _Known(NamedTuple):
    """What is known of a file without reading it."""

    file_id: FileId
    key: StatKey
    """The state in which its bytes were these."""
    is_sure: bool
    """Whether its ctime is the same, or it was told why it is not."""
    is_filed: bool
    """Whether the index has it under its path."""
    is_current: bool = False
    """Whether the index has it in its present state."""


@dataclass(slots=True)
class _Batch:
    """What one hop has found."""

    looks: list[Look] = field(default_factory=list)
    hashed_bytes: int = 0
    known: list[tuple[Look, StatKey, _Known]] = field(default_factory=list)
    """Files that the index has under their paths, maybe in another state of the same bytes."""
    found: list[tuple[Look, StatKey, Record, bool]] = field(default_factory=list)
    """Files that the index has to take in before they are offered, and whether that is sure."""

    def has_room(self) -> bool:
        return len(self.looks) < BATCH_FILES and self.hashed_bytes < BATCH_BYTES


class Worker:
    """The thread side of the library. `hop` and `tidy` must not run at the same time."""

    def __init__(
        self,
        share: Share,
        roots: Roots,
        mounted: Mounted,
        index: Index,
        register: Register,
        watch: Watch | None,
        on_lost: Callable[[], object],
        tell: Tell,
        *,
        is_shared_by_root: bool,
    ) -> None:
        self._share = share
        self._roots = roots
        self._mounted = mounted
        self._on_lost = on_lost
        self._is_shared_by_root = is_shared_by_root
        self._is_lost = False
        self._watch = watch
        self._index = index
        self._register = register
        self._notices = Notices(tell)
        self._ignoring = Ignoring(share)
        self._large: tuple[Look, Hashing] | None = None
        self._left: Hashing | None = None
        """What was hashed of a file that was renamed, say, before it was done."""
        self._changed_roots: deque[str] = deque()
        self._recollection = Recollection(
            share,
            roots,
            mounted,
            index,
            register,
            self._ignoring,
            is_trusting=not is_shared_by_root,
        )
        self._saved_at = 0.0
        self._is_index_open = False
        self._is_index_damaged = False
        self._is_index_failing = False

    def has_work(self) -> bool:
        """Return whether a hop would do something."""
        if self._watch is not None and self._watch.has_news():
            return True
        is_busy = self._large is not None or self._register.has_work()
        return is_busy or self._recollection.is_due or self._mounted.has_changed()

    def hop(self) -> bool:
        """Do the next bounded piece of work, up to about 20 ms.

        Returns False if the index failed, and it is better to wait before the next hop. The
        failure of a single file, a bug of ours included, is logged and that file skipped until
        it is touched.
        """
        batch = _Batch()
        try:
            self._open_index()
            self._hear_of_changes()
            self._take_roots()
            self._register.dismantle()
            if self._recollection.is_due:
                self._recollect()
                return True
            self._look_at_some(batch)
            self._hash_large(batch)
            self._publish(batch)
            self._save()
            self._check_one()
        except (DamagedIndexError, sqlite3.Error, OSError) as error:
            self.index_failed(error)
            self._put_off(batch)
            return False
        except Exception:
            self._put_off(batch)  # what has no bug waits for the next hop and is not lost
            raise
        self._is_index_failing = False
        return True

    def _put_off(self, batch: _Batch) -> None:
        for look in (*batch.looks, *(look for look, *_ in batch.found)):
            self._register.put_off(look)

    def tidy(self) -> None:
        """Take up what was put off; forget what is gone for good."""
        self._register.recall()
        try:
            while not self._register.has_quick_work():
                if not self._forget_some():
                    return
                time.sleep(YIELD_S)
        except (DamagedIndexError, sqlite3.Error) as error:
            self.index_failed(error)

    def _forget_some(self) -> bool:
        """Forget some of what is gone; return whether there is more."""
        is_more = self._register.let_go()
        if paths := self._register.take_withdrawn(FORGET_AT_ONCE):
            # A disk that was pulled out comes back as it was.
            self._index.remove(path for path in paths if not self._roots.is_away(path))
        if doubts := self._register.stale_doubts():
            self._index.forget(doubts)
            self._register.believe(doubts)
        self._index.commit()
        return is_more or bool(paths)

    def close(self) -> None:
        """Let go of the index and of the table of mounts."""
        with contextlib.suppress(DamagedIndexError, sqlite3.Error):  # it is hashed again
            self._index.commit()
        self._index.close()
        self._mounted.close()

    def index_failed(self, error: Exception) -> None:
        """Take in that the index failed. A damaged one is made anew, all files hashed anew."""
        if not self._is_index_failing:  # a full disk fails every second, one line is enough
            log.warning("index failed error=%r", str(error))
        self._is_index_failing = True
        for path in self._index.take_lost():
            self._register.refile(path)
        if isinstance(error, DamagedIndexError):
            self._is_index_damaged = True
            self._register.start_over()

    def _open_index(self) -> None:
        if self._is_index_damaged:
            self._index.rebuild()
            self._is_index_damaged = False
        elif not self._is_index_open:
            self._index.open()
            self._recollection.begin("")
        self._is_index_open = True

    def root_changed(self, name: str) -> None:
        """Take in that a directory is shared where it lies, or no more, or is there again.

        Any thread. On return nothing is offered of what is not there.
        """
        self._changed_roots.append(name)
        self._register.touched(name, self._share.status(name), Sign.FOUND)

    def _take_roots(self) -> None:
        while self._changed_roots:
            name = self._changed_roots.popleft()
            self._mounted.look_again()
            if self._watch is not None and self._roots.of(name) is None:
                self._watch.forget(name)
            self._recollection.begin(name)

    def _recollect(self) -> None:
        ends_at = time.monotonic() + HOP_S
        while self._recollection.is_due:
            self._recollection.step()
            if time.monotonic() >= ends_at:
                return
            time.sleep(YIELD_S)

    def _hear_of_changes(self) -> None:
        """Take in what was changed, through the mount or not, before anything is looked at.

        So what the tree did and told is not heard again after the file has been hashed.
        """
        heard = self._watch.take() if self._watch is not None else {}
        if self._roots and self._mounted.has_changed():
            # First: what lay on a disk that was pulled out was not removed from it.
            for name in self._roots.look():
                self.root_changed(name)
        for path in self._mounted.changes():
            self._register.touched(path, self._status(path), Sign.NAMES)
        for path, sign in heard.items():
            if self._register.is_open(path):
                continue
            if published_path(path) is not None:
                self._register.touched(path, self._status(path), sign)
            else:
                self._look_at_private(path)

    def _status(self, path: str) -> Status | None:
        return None if self._mounted.holds(path) else self._share.status(path)

    # What is quick.

    def _look_at_some(self, batch: _Batch) -> None:
        while batch.has_room():
            look = self._register.take()
            if look is None:
                return
            batch.looks.append(look)
            if published_path(look.path) is None:
                self._register.finish(look)
                self._look_at_private(look.path)
            else:
                self._look_at(look, batch)

    def _look_at_private(self, path: str) -> None:
        """Tell why it stays private; have the directory looked at if that says something of it."""
        highest, reason = first_private(path)
        if reason and self._status(highest) is not None:
            self._notices.private(highest, reason)
        directory, name = split(path)
        if published_path(directory) is None:
            return
        if name == IDENTITY:
            self._register.look_at(directory)
        elif name == IGNORE:
            self._register.touched(directory, self._status(directory), Sign.FOUND)

    def _look_at(self, look: Look, batch: _Batch) -> None:
        try:
            status = None if self._mounted.holds(look.path) else self._share.look(look.path)
            if status is None or self._mounted.has_device(status.key.device):
                self._refuse(look, _IS_OURS)
            elif status.is_directory and self._roots.is_elsewhere(look.path, status.key.device):
                self._refuse(look, _IS_ELSEWHERE)
            elif self._ignoring.is_ignored(look.path, is_directory=status.is_directory):
                look.key = status.key
                self._register.refuse(look, IS_IGNORED)
            elif not self._may_be_read(look.path, status):
                look.key = status.key
                self._refuse(look, "other users of this machine may not read it")
            elif status.is_directory:
                self._look_into(look, status)
            elif self._is_beside_key(look.path):
                self._refuse(look, _IS_STATE)
                self._register.look_at(split(look.path)[0])
            elif self._is_wanted(look, status):
                self._look_at_file(look, status.key, batch)
        except OSError as error:
            self._file_failed(look, error)
        except (DamagedIndexError, sqlite3.Error):
            raise
        except Exception:
            log.exception(_BUG_MET, look.path)
            self._refuse(look, _IS_BUG)

    def _may_be_read(self, path: str, status: Status) -> bool:
        """Return whether the users of root's mount have not kept this from each other.

        Root can read everything. What he publishes is what all may read, and what its owner
        made through the mount, but not in a directory that a user keeps to himself.
        """
        if not self._is_shared_by_root or status.is_open_to_all or path == "":
            return True
        if not status.mode & stat.S_IRUSR or (status.is_directory and status.uid != os.geteuid()):
            return False
        return self._share.is_meant(path, status.uid)

    def _is_beside_key(self, path: str) -> bool:
        """Return whether this is the second of the files that mark a state directory."""
        directory, name = split(path)
        return name == LOCK and self._share.status(join(directory, IDENTITY)) is not None

    def _look_into(self, look: Look, status: Status) -> None:
        names = self._share.names(look.path)
        self._is_lost = self._is_lost and look.path != ""
        if trouble := self._ignoring.look_into(look.path, names):
            self._notices.private(look.path, f"its {trouble}")
        if holds_state(names):
            self._refuse(look, _IS_STATE)
        elif self._register.saw_directory(look, status.key):
            self._take_names(look, names)
            self._register.finish(look)

    def _take_names(self, look: Look, names: list[str]) -> None:
        """Have the names in a directory looked at, and take back what it has no more."""
        kept = set()
        for some in _batched(names, NAMES_AT_ONCE):
            paths = []
            for path in (join(look.path, name) for name in some):
                published = published_path(path)
                if published is None:
                    self._notices.private(path, why_private(path) or "")
                else:
                    kept.add(split(published)[1])
                    paths.append(path)
            if not self._register.saw_names(look, paths, self._keys(look, paths)):
                return
            time.sleep(YIELD_S)
        lacking = [name for name in self._register.names(look.path) if name not in kept]
        for some in _batched(lacking, NAMES_AT_ONCE):
            self._register.miss(look, some)

    def _keys(self, look: Look, paths: Sequence[str]) -> Mapping[str, StatKey]:
        """Return the states of files in a directory, if that may spare a look at each."""
        is_of_use = look.sign >= Sign.FOUND and bool(self._register.names(look.path))
        if not is_of_use or self._is_shared_by_root or self._ignoring.has_patterns:
            return NO_KEYS
        names = {split(path)[1]: path for path in paths}
        found = self._share.keys(look.path, names)
        return {names[name]: key for name, key in found.items()}

    def _is_wanted(self, look: Look, status: Status) -> bool:
        """Return whether what is there has to be hashed or found in the index."""
        if status.is_link:
            self._refuse(look, "it is a symbolic link")
        elif not status.is_file:
            self._refuse(look, "it is neither a file nor a directory")
        elif status.key.size > MAX_FILE_BYTES:
            self._refuse(look, "it is too large")
        elif self._register.saw_file(look, status.key):
            return True
        else:
            self._tell_twin(look.path)
        return False

    def _look_at_file(self, look: Look, key: StatKey, batch: _Batch) -> None:
        path = published_path(look.path) or ""
        known = self._recall(look, path, key)
        if known is not None:
            with self._share.opened(look.path, key.identity):
                pass  # or it could be read before, and cannot now
            if known.is_filed:
                batch.known.append((look, key, known))
                return
            manifest = self._index.manifest(known.file_id)
            if manifest is not None:
                record = Record(path, key if known.is_sure else known.key, manifest)
                batch.found.append((look, key, record, known.is_sure))
                return
        if key.size > STEP_BYTES:
            self._register.put_aside(look)
        else:
            batch.hashed_bytes += key.size
            self._step(look, Hashing(self._share, look.path, key, 0), batch)

    def _recall(self, look: Look, path: str, key: StatKey) -> _Known | None:
        """Return what is known of a file whose bytes have not changed since they were hashed."""
        if self._register.is_doubted(key):
            return None
        known = self._remember(look, path, key) or self._look_up(path, key)
        is_suspected = self._register.suspicion(key) > 0
        if known is None or (is_suspected and known.key.ctime_ns != key.ctime_ns):
            return None
        return known

    def _remember(self, look: Look, path: str, key: StatKey) -> _Known | None:
        holding = self._register.held(key)
        if holding is None:
            return None
        is_sure = look.sign < Sign.FOUND or holding.key.ctime_ns == key.ctime_ns
        is_filed = self._register.is_offered(path, holding.file_id)
        return _Known(holding.file_id, holding.key, is_sure, is_filed)

    def _look_up(self, path: str, key: StatKey) -> _Known | None:
        filed = self._index.find(key)
        for file in filed:
            if file.path == path:
                is_sure = file.key.ctime_ns == key.ctime_ns
                return _Known(file.file_id, file.key, is_sure, True, file.key == key)
        for file in filed:
            # A name that it had before, or a hard link. Device numbers are given anew at each
            # start, so that this may be another file of a twin of that file system.
            if file.key.device == key.device and not self._is_another(file.path, key):
                return _Known(file.file_id, file.key, is_sure=False, is_filed=False)
        return None

    def _is_another(self, path: str, key: StatKey) -> bool:
        status = self._status(path)
        return status is not None and status.key.identity != key.identity

    # What takes long.

    def _hash_large(self, batch: _Batch) -> None:
        if self._large is None:
            self._begin_large(batch)
        ends_at = time.monotonic() + HOP_S
        while self._large is not None:
            look, hashing = self._large
            if look.is_void:
                self._register.finish(look)
                self._large, self._left = None, hashing
            elif self._step(look, hashing, batch):
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
            self._large = look, self._hashing(look.path, status.key)

    def _hashing(self, path: str, key: StatKey) -> Hashing:
        """Begin to hash a file, or go on if it was only renamed meanwhile."""
        left, self._left = self._left, None
        suspicion = self._register.suspicion(key)
        if left is None or left.suspicion != suspicion or not left.key.has_bytes_of(key):
            return Hashing(self._share, path, key, suspicion)
        left.path = path
        return left

    def _step(self, look: Look, hashing: Hashing, batch: _Batch) -> bool:
        """Hash one step of a file; return whether it is over, for better or worse."""
        try:
            manifest = hashing.step()
        except ChangedError:
            self._register.put_off(look)
            return True
        except OSError as error:
            self._left = hashing
            self._file_failed(look, error)
            return True
        except Exception:
            log.exception(_BUG_MET, look.path)
            self._refuse(look, _IS_BUG)
            return True
        if manifest is None:
            return False
        record = Record(published_path(look.path) or "", hashing.key, manifest)
        batch.found.append((look, hashing.key, record, True))
        return True

    def _check_one(self) -> None:
        """Compare a file that nobody vouches for with its first and last block."""
        if self._large is not None or self._register.has_quick_work():
            return
        file = self._register.take_check()
        if file is None:
            return
        try:
            self._compare(file)
        except (ChangedError, BadBlockError, OSError) as error:
            log.info("file has changed unnoticed path=%r error=%r", file.local_path, str(error))
            self._register.spoiled(file.key.identity)
        else:
            self._index.rekey([(file.path, file.key)])
            self._index.commit()

    def _compare(self, file: SharedFile) -> None:
        manifest = self._index.manifest(file.file_id)
        if manifest is None:
            raise ChangedError
        indexes = sorted({0, manifest.block_count - 1}) if file.size else []
        spans = [block_span(file.size, index) for index in indexes]
        _, blocks = self._share.read(file.local_path, file.key.identity, spans)
        for index, block in zip(indexes, blocks, strict=True):
            manifest.verify(index, block)

    # What comes out.

    def _save(self) -> None:
        """Have the index written if that is enough, or if nothing more will come at once.

        Many files in one transaction touch each page of it once. One with 64 of them wrote 24
        times as much as there is in the end.
        """
        if not self._index.unsaved:
            self._saved_at = time.monotonic()
        is_late = time.monotonic() - self._saved_at > SAVE_S
        if is_late or self._index.unsaved >= SAVE_FILES or not self._register.has_quick_work():
            self._index.commit()
            self._saved_at = time.monotonic()

    def _publish(self, batch: _Batch) -> None:
        """File first, offer second: what is offered has its manifest in the index.

        Of two names that others cannot tell apart, that in form C comes last, and stays.
        """
        to_come = {look.path for look, _, _ in batch.known if not look.is_void}
        batch.found = [one for one in batch.found if not self._is_outdone(one[0], to_come)]
        batch.found.sort(key=lambda one: published_path(one[0].path) == one[0].path)
        if batch.found:
            self._index.put([record for _, _, record, _ in batch.found])
        moved = [
            (published_path(look.path) or "", key)
            for look, key, known in batch.known
            if known.is_sure and not known.is_current
        ]
        if moved:
            self._index.rekey(moved)
        for look, key, known in batch.known:
            self._offer(look, key, known.file_id, is_sure=known.is_sure)
        for look, key, record, is_sure in batch.found:
            self._offer(look, key, record.manifest.file_id, is_sure=is_sure)

    def _is_outdone(self, look: Look, to_come: Collection[str]) -> bool:
        """Return whether another file has the place of one that was hashed; if so, let it be."""
        path = published_path(look.path)
        if path == look.path or not (path in to_come or self._register.is_outdone(look.path)):
            return False
        self._register.finish(look)
        self._tell_twin(look.path)
        return True

    def _offer(self, look: Look, key: StatKey, file_id: FileId, *, is_sure: bool) -> None:
        lost = self._register.offer(look, key, file_id, is_sure=is_sure)
        if lost is not None:
            self._tell_twin(lost)

    def _tell_twin(self, path: str) -> None:
        """Tell of a file whose name others cannot tell from another's, if it is one."""
        reason = self._register.state(path).reason
        if reason:
            self._notices.private(path, reason)

    def _file_failed(self, look: Look, error: OSError) -> None:
        if error.errno in PASSING:
            self._register.put_off(look)
        elif error.errno in GONE:
            self._register.refuse(look, None)
            if look.path == "" and not self._is_lost:
                self._is_lost = True
                self._on_lost()
        else:
            log.warning("file is not published path=%r error=%r", look.path, str(error))
            self._refuse(look, f"it cannot be read: {os.strerror(error.errno or errno.EIO)}")

    def _refuse(self, look: Look, reason: str) -> None:
        self._register.refuse(look, reason)
        self._notices.private(look.path, reason)


_T = TypeVar("_T")


def _batched(items: Sequence[_T], count: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), count):
        yield items[start : start + count]
