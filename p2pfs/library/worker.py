"""Look at paths that are due, hash the files, file them, offer them: a bounded hop at a time.

Quick work goes first: between two hops on a large file, every small file gets its turn.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from p2pfs.library.answers import Answers
from p2pfs.library.books import Books
from p2pfs.library.doubts import Sign
from p2pfs.library.facts import Facts
from p2pfs.library.findings import Findings
from p2pfs.library.ignoring import Ignoring
from p2pfs.library.index import DamagedIndexError, Index
from p2pfs.library.large import HOP_S, Hasher
from p2pfs.library.looking import YIELD_S, Looking
from p2pfs.library.looks import Looks
from p2pfs.library.mounted import Mounted
from p2pfs.library.names import published_path
from p2pfs.library.notices import Notices, Tell
from p2pfs.library.publishing import Publishing
from p2pfs.library.recollection import Recollection
from p2pfs.library.refusing import Refusing
from p2pfs.library.share import Share
from p2pfs.library.tidying import Tidying
from p2pfs.library.watch import Watch
from p2pfs.roots import Roots

FORGET_AT_ONCE: Final = 500
"""Paths that the index forgets in one transaction: a question meanwhile waits some 10 ms."""

log = logging.getLogger(__name__)


class Worker:
    """The thread side of the library. `hop` and `tidy` must not run at the same time."""

    def __init__(
        self,
        share: Share,
        roots: Roots,
        index: Index,
        books: Books,
        watch: Watch | None,
        on_lost: Callable[[], object],
        tell: Tell,
        *,
        is_shared_by_root: bool,
    ) -> None:
        """Prepare; see `Library` for what the arguments mean."""
        self._share = share
        self._roots = roots
        self._mounted = mounted = Mounted(roots)
        self._watch = watch
        self._tell = tell
        self._index = index
        self._facts = facts = Facts(books)
        self._looks = looks = Looks(books)
        self._tidying = tidying = Tidying(books)
        ignoring = Ignoring(share)
        refusing = Refusing(looks, Answers(books), Notices(tell), on_lost)
        self._hasher = Hasher(share, looks, refusing)
        self._looking = Looking(
            share,
            roots,
            mounted,
            ignoring,
            index,
            facts,
            looks,
            refusing,
            self._hasher,
            is_shared_by_root=is_shared_by_root,
        )
        self._publishing = Publishing(share, index, facts, looks, refusing)
        self._changed_roots: deque[str] = deque()
        self._recollection = Recollection(
            share,
            roots,
            mounted,
            index,
            looks,
            tidying,
            ignoring,
            is_trusting=not is_shared_by_root,
        )
        self.is_behind = False
        """Whether the last hop has left something that was due when it began."""
        self._is_index_open = False
        self._is_index_damaged = False
        self._is_index_failing = False

    def has_work(self) -> bool:
        """Return whether a hop would do something."""
        if self._watch is not None and self._watch.has_changes():
            return True
        is_busy = self._hasher.is_busy or self._looks.has_work()
        return is_busy or self._recollection.is_due or self._mounted.has_changed()

    def hop(self) -> bool:
        """Do the next bounded piece of work, up to about 20 ms.

        Returns False if the index failed, and it is better to wait before the next hop. The
        failure of a single file, a bug of ours included, is logged and that file skipped until
        it is touched.
        """
        findings = Findings()
        try:
            with self._share.staying():
                self._do_some(findings)
        except (DamagedIndexError, sqlite3.Error, OSError) as error:
            self.index_failed(error)
            self._put_off(findings)
            return False
        except Exception:
            self._put_off(findings)  # files without a bug wait for the next hop and are not lost
            raise
        self._is_index_failing = False
        return True

    def _do_some(self, findings: Findings) -> None:
        self._open_index()
        self._take_changes()
        self._take_roots()
        self._tidying.dismantle()
        if self._recollection.is_due:
            self._recollect()
            self.is_behind = True
            return
        self._looking.look_at_some(findings)
        self._hasher.go_on(findings)
        self._publishing.publish(findings)
        self._publishing.save()
        if not self._hasher.is_busy:
            self._publishing.check_one()
        self.is_behind = self._hasher.is_busy or not findings.has_room()

    def _put_off(self, findings: Findings) -> None:
        for look in (*findings.looks, *(look for look, *_ in findings.found)):
            self._looks.put_off(look)

    def tidy(self) -> None:
        """Forget files that are gone for good; take up paths that were put off.

        In this order: a file that grows all the time is put off again and again.
        """
        try:
            while not self._looks.has_quick_work() and self._forget_some():
                time.sleep(YIELD_S)
        except (DamagedIndexError, sqlite3.Error) as error:
            self.index_failed(error)
        self._tidying.recall()

    def _forget_some(self) -> bool:
        """Forget some files that are gone; return whether there are more."""
        is_more = self._tidying.let_go()
        if paths := self._tidying.take_withdrawn(FORGET_AT_ONCE):
            # A disk that was pulled out comes back as it was.
            self._index.remove(path for path in paths if not self._roots.is_away(path))
        if doubts := self._tidying.stale_doubts():
            self._index.forget(doubts)
            self._tidying.believe(doubts)
        self._index.commit()
        return is_more or bool(paths)

    def close(self) -> None:
        """Let go of the index and of the table of mounts."""
        with contextlib.suppress(DamagedIndexError, sqlite3.Error):  # it is hashed again
            self._index.commit()
        self._index.close()
        self._mounted.close()

    # The index.

    def index_failed(self, error: Exception) -> None:
        """Note that the index failed. A damaged one is made anew, and all files are hashed anew."""
        if not self._is_index_failing:  # a full disk fails every second, one line is enough
            log.warning("index failed error=%r", str(error))
            self._tell("", f"nothing new is published: the index fails: {error}")
        self._is_index_failing = True
        for path in self._index.take_lost():
            self._facts.lost(path)
        if isinstance(error, DamagedIndexError):
            self._is_index_damaged = True
            self._facts.start_over()

    def _open_index(self) -> None:
        if self._is_index_damaged:
            self._index.rebuild()
            self._is_index_damaged = False
        elif not self._is_index_open:
            self._index.open()
            self._recollection.begin("")
        self._is_index_open = True

    def _recollect(self) -> None:
        ends_at = time.monotonic() + HOP_S
        while self._recollection.is_due:
            self._recollection.step()
            if time.monotonic() >= ends_at:
                return
            time.sleep(YIELD_S)

    # Changes.

    def root_changed(self, name: str) -> None:
        """Note that a directory is shared where it lies, or no more, or is there again.

        Any thread. On return nothing is offered of a directory that is not there.
        """
        self._changed_roots.append(name)
        self._facts.touched(name, self._share.status(name), Sign.FOUND)

    def look_at_roots(self) -> None:
        """Have those directories looked at, shared where they lie, that came or went. Any thread.

        The user is told of each.
        """
        for name in self._roots.look():
            self.root_changed(name)
            if not self.tell_if_away(name):
                self._tell(name, "shared again")

    def tell_if_away(self, name: str) -> bool:
        """Tell the user if a directory is not there that is shared where it lies. Any thread."""
        root = self._roots.of(name)
        if root is None or not root.away:
            return False
        self._tell(name, f"{root.shared.directory} is not shared now: {root.away}")
        return True

    def _take_roots(self) -> None:
        while self._changed_roots:
            name = self._changed_roots.popleft()
            self._mounted.look_again()
            if self._watch is not None and self._roots.of(name) is None:
                self._watch.forget(name)
            self._recollection.begin(name)

    def _take_changes(self) -> None:
        """Note the changes that the watch has seen before any path is looked at.

        So a change that came through the mount is not noted again after the file was hashed.
        """
        changes = self._watch.take() if self._watch is not None else {}
        if self._roots and self._mounted.has_changed():
            # First: what lay on a disk that was pulled out was not removed from it.
            self.look_at_roots()
        for path in self._mounted.changes():
            self._facts.touched(path, self._looking.status(path), Sign.NAMES)
        for path, sign in changes.items():
            if self._facts.is_open(path):
                continue
            if published_path(path) is not None:
                self._facts.touched(path, self._looking.status(path), sign)
            else:
                self._looking.look_at_private(path)
