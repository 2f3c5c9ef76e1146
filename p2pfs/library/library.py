"""The library: facts from the tree in, offers and verified blocks out."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from p2pfs.config import SharedDirectory
from p2pfs.library.answers import Answers, FileState
from p2pfs.library.books import Books
from p2pfs.library.doubts import Sign
from p2pfs.library.facts import Facts
from p2pfs.library.index import ANY, DamagedIndexError, Index
from p2pfs.library.offers import Changes, Page, SharedFile
from p2pfs.library.rounds import ChangeSignal, Rounds
from p2pfs.library.searching import Searching
from p2pfs.library.serving import Serving
from p2pfs.library.share import Share
from p2pfs.library.status import Status, key_of, status_of
from p2pfs.library.watch import Watch
from p2pfs.library.worker import Worker
from p2pfs.protocol import Entry, FileId, Manifest, Terms, phrases_of
from p2pfs.roots import Root, Roots
from p2pfs.threads import RunInThread


@dataclass(frozen=True, slots=True)
class LibraryStatistics:
    """A snapshot."""

    files: int
    """Offered, each path counted."""
    bytes: int
    hashing: int
    """Paths that wait to be looked at or hashed."""


class Library:
    """The offers of the directories behind `shared/`.

    Facts and questions that are not async may come from any thread at any time, also before
    `run` and after it, and never wait for more than a few file attributes.
    """

    def __init__(
        self,
        roots: Roots,
        index_path: str,
        run_in_thread: RunInThread,
        watch: Watch | None = None,
        on_lost: Callable[[], object] = lambda: None,
        tell: Callable[[str, str], object] = lambda _path, _text: None,
        *,
        is_shared_by_root: bool = False,
    ) -> None:
        """Prepare; with `watch` it notices changes by other programs in the directories.

        `on_lost` is called, in a worker thread, when the directory itself has gone; `tell` is
        called once with each path that is not published, and the reason, and with directories
        that are shared where they lie as they go and come back. In a mount of root's that others
        use (`is_shared_by_root`), files that they may not read are not published, unless root
        made them there.
        """
        self._roots = roots
        self._share = Share(roots, None if watch is None else watch.add)
        self._index = Index(index_path)
        self._alarm = ChangeSignal()
        books = Books(self._alarm.wake)
        books.offers.is_limited = lambda path: not roots.audiences.may_see(path, None)
        self._facts = Facts(books)
        self._answers = Answers(books)
        self._worker = Worker(
            self._share,
            roots,
            self._index,
            books,
            watch,
            on_lost,
            tell,
            is_shared_by_root=is_shared_by_root,
        )
        failed = self._worker.index_failed
        self._serving = Serving(self._share, self._index, self._facts, self._answers, failed)
        self._searching = Searching(self._index, self._answers, failed)
        self._run_in_thread = run_in_thread
        self._rounds = Rounds(self._worker, books, roots, watch, self._alarm, run_in_thread)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the whole share, then at whatever is touched, until cancelled.

        Files that the index knows are offered without being read. A cancellation waits for
        the step of hashing under way, some milliseconds. Failures of the disk are logged.
        """
        await self._rounds.prepare()
        self._facts.start_over()
        task_status.started()
        await self._rounds.run()

    async def share(self, shared: SharedDirectory) -> Root:
        """Share a directory where it lies, in this life and later ones.

        Raises:
            UsageError: it cannot be shared, or not under this name.
            OSError: the next start would not know of it: it is not shared.
        """
        with trio.CancelScope(shield=True):  # or it would be noted, and not looked at
            root = await self._run_in_thread(self._roots.add, shared)
            await self._run_in_thread(self._worker.root_changed, root.name)
        return root

    async def unshare(self, name: str) -> Root:
        """Share a directory no more; nothing in it is touched.

        Raises:
            NotFoundError: nothing is shared under this name.
            UsageError: config.toml shares it.
            OSError: the next start would share it again.
        """
        with trio.CancelScope(shield=True):  # or it would be noted, and offered nevertheless
            root = await self._run_in_thread(self._roots.remove, name)
            await self._run_in_thread(self._worker.root_changed, name)
        self._roots.audiences.withdraw(name)
        self._alarm.ring()
        return root

    # Facts, from the tree. Paths are local ones, below the directory.

    def write_began(self, path: str, *, is_new: bool = False) -> None:
        """Note that a writer may change this file from now on: it is offered no more.

        Call it before the file is opened, and `created` after the opening created it. If the
        opening can do nothing else (`is_new`), no file is looked for.
        """
        self._facts.write_began(path, None if is_new else self._share.status(path))

    def created(self, path: str, status: os.stat_result) -> None:
        """Note that a writer that has begun created this file."""
        self._facts.touched(path, status_of(status), Sign.WRITTEN)

    def write_ended(self, path: str) -> None:
        """Note that one writer of this path has closed; after the last one it is hashed.

        A writer whose file was renamed counts as begun at the new path and ended at the old.
        """
        self._facts.write_ended(path)

    def touched(self, path: str, lost: os.stat_result | None = None) -> None:
        """Note that something at or below this path changed, bytes maybe: look again.

        A file that has vanished from this path, or is another one, is offered no more on return.
        `lost` is the state in which a file was that has lost this name: if its content can be
        nowhere else, its readers are told so at once, and wait for no look.
        """
        status = self._share.status(path)
        self._lost_name(path, lost, status)
        self._facts.touched(path, status, Sign.WRITTEN)

    def attributes_changed(self, path: str) -> None:
        """Note that mode, owner, times or extended attributes were set: the bytes are the same.

        It stays offered, with its new time. If somebody writes the file, it is looked at
        afterwards anyway.
        """
        if self._facts.is_open(path):
            return
        self._facts.touched(path, self._share.status(path), Sign.ATTRIBUTES)

    def names_changed(self, old: str, new: str, lost: os.stat_result | None = None) -> None:
        """Note that something was renamed, or has a second name: the bytes are the same.

        On return nothing is offered under a name that is gone, and soon all under the new
        one. Its readers go on reading. `lost` is the file that had the new name, as for `touched`.
        """
        self._facts.touched(old, self._share.status(old), Sign.NAMES)
        status = self._share.status(new)
        self._lost_name(new, lost, status)
        self._facts.touched(new, status, Sign.NAMES)

    def _lost_name(self, path: str, lost: os.stat_result | None, status: Status | None) -> None:
        """Note that a file has lost a name; what is there now may have the same content."""
        if lost is not None:
            has_gone = status is None or status.key.size != lost.st_size
            is_last = has_gone and lost.st_nlink == 1
            self._facts.lost_name(path, key_of(lost).identity, is_last=is_last)

    # Questions, answered from memory. Nothing is offered while paused.

    def find_path(self, path: str) -> Entry | None:
        """Return the entry that is offered at a path, as others see it."""
        return self._answers.entry(path)

    def list_page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first `limit` entries of a directory behind a name, None if there is none.

        They are sorted by name in code point order. The root is the empty path.
        """
        return self._answers.page(path, after, limit)

    def find_id(
        self, file_id: FileId, may_see: Callable[[str], bool] = lambda _path: True
    ) -> SharedFile | None:
        """Return a file with this content, of those whose paths may be seen."""
        return None if self.is_paused else self._answers.file_with(file_id, may_see)

    def may_serve(self, file_id: FileId, may_see: Callable[[str], bool]) -> bool:
        """Return whether a content is held at a path that may be seen, or is not held at all."""
        places = self._answers.places(file_id)
        return not places or any(may_see(path) for _, path in places)

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content that can be served, even if no path has it just now."""
        holding = self._answers.holding(file_id)
        return None if holding is None else holding.key.size

    def file_state(self, path: str) -> FileState:
        """Return how the file at a local path stands."""
        return self._answers.state(path)

    def statistics(self) -> LibraryStatistics:
        """Return how much is offered, paused or not."""
        return LibraryStatistics(*self._answers.totals(), self._answers.unsettled())

    # Questions to the disk.

    async def totals(self, directory: str) -> tuple[int, int]:
        """Return how many files and bytes are known below a directory, offered now or not."""
        return await self._run_in_thread(self._totals, directory)

    def _totals(self, directory: str) -> tuple[int, int]:
        try:
            return self._index.totals(directory)
        except (DamagedIndexError, sqlite3.Error) as error:
            self._worker.index_failed(error)
            return 0, 0

    async def match_words(
        self,
        text: str,
        limit: int,
        terms: Terms | None = None,
        after: str = "",
        spent: Callable[[float], object] = lambda _seconds: None,
        may_see: Callable[[str], bool] | None = None,
    ) -> tuple[Sequence[Entry], int]:
        """Return the first `limit` files behind a path that a keyword query finds, and how many.

        They come in the order in which they were filed. Those that were not looked at count as
        found; the count ends at MAX_TOTAL. `spent` is called with the processor time, in seconds.
        With `may_see`, files whose paths may not be seen are neither found nor counted: then all
        files are looked at.

        Raises:
            NotFoundError: nothing is filed under that path any more.
        """
        if self.is_paused or not (phrases_of(text) or terms):
            return (), 0
        found, total, seconds = await self._run_in_thread(
            self._searching.match, text, limit, terms or ANY, after, may_see
        )
        spent(seconds)
        return found, total

    async def manifest(self, file_id: FileId) -> Manifest:
        """Return the manifest of a content that is held.

        Raises:
            NotFoundError: it is not.
        """
        # One for each block that is served: a hop to a thread would cost as much as the block.
        known = self._serving.manifest_at_hand(file_id)
        if known is not None:
            await trio.lowlevel.checkpoint()
            return known
        return await self._run_in_thread(self._serving.manifest, file_id)

    async def read_blocks(self, file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        """Return blocks of a content that is held, up to the first that is not to be had.

        Each is verified just now. What it is verified against vouches for it, whatever has
        happened to its file: so a read outlasts all that leaves the bytes as they are. A file
        whose bytes turn out to be others is withdrawn and hashed anew; if the same content is
        there under another path, the blocks come from that. One hop to a thread for all of them:
        it costs as much as a block.

        Raises (if not even the first is to be had):
            NotFoundError: the content is not held, or has no such block; NotYetError if its
                file is being looked for, which has been renamed, say.
            StaleError: no file holds it any more.
            OSError: it cannot be read now, and nothing is known to be wrong with it.
        """
        return await self._run_in_thread(self._serving.read_blocks, file_id, indexes)

    async def read_small(self, file_ids: Sequence[FileId]) -> list[bytes | None]:
        """Return contents of one block each, verified, None for each that is not to be had so.

        One hop to a thread for all of them; `read_blocks` says of one why it is not to be had.
        """
        return await self._run_in_thread(self._serving.read_small, file_ids)

    # Pausing and waiting.

    @property
    def is_paused(self) -> bool:
        """Whether questions are answered with nothing, and uploads should be refused."""
        return self._answers.is_paused

    def pause(self) -> None:
        """Offer nothing until `resume`. Files are still hashed."""
        self._facts.set_paused(True)

    def resume(self) -> None:
        """Offer everything again."""
        self._facts.set_paused(False)

    @property
    def version(self) -> int:
        """A number that grows with each change of the offers or of the state of a file."""
        return self._answers.version

    def take_changes(self) -> Changes:
        """Return what has changed in the offer since this was last called."""
        return self._answers.take_changes()

    async def wait_changed(self, version: int) -> int:
        """Wait until the version is another one, and return it. Needs `run` to be running."""
        await trio.lowlevel.checkpoint()
        while self.version == version:
            await self._alarm.wait()
        return self.version

    async def wait_idle(self) -> None:
        """Wait until every file is offered that can be. Needs `run` to be running.

        Files that somebody writes are not waited for.
        """
        await trio.lowlevel.checkpoint()
        while self._answers.unsettled():
            await self._alarm.wait()
