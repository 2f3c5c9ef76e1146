"""The library: facts from the tree in, offers and verified blocks out."""

from __future__ import annotations

import contextlib
import functools
import math
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from p2pfs.config import SharedDirectory
from p2pfs.library.answers import Answers, FileState
from p2pfs.library.books import Books
from p2pfs.library.doubts import Sign
from p2pfs.library.facts import Facts
from p2pfs.library.index import ANY, DamagedIndexError, Index
from p2pfs.library.offers import Changes, Page, SharedFile
from p2pfs.library.searching import Searching
from p2pfs.library.serving import Serving
from p2pfs.library.share import Share
from p2pfs.library.tidying import Tidying
from p2pfs.library.watch import Watch
from p2pfs.library.worker import Worker
from p2pfs.protocol import Entry, FileId, Manifest, Terms, phrases_of
from p2pfs.roots import Root, Roots
from p2pfs.tasks import kept_up
from p2pfs.threads import RunInThread

GATHER_S: Final = 0.01
"""How long the first change waits for company. Files that are copied in one after the other
are then looked at, hashed and filed together: one hop and one transaction for some ten. With
three times as long a thousand small ones were published no sooner."""

LOOK_AT_ROOTS_S: Final = 1.0
"""How often it is looked whether a disk that was pulled out is there again: within two seconds
of that its files are offered. A look costs a few microseconds each."""

RETRY_S: Final = 1.0
"""How long a file that keeps changing, or a full disk, is left alone."""


@dataclass(frozen=True, slots=True)
class LibraryStatistics:
    """A snapshot."""

    files: int
    """Offered, each path counted."""
    bytes: int
    hashing: int
    """Paths that wait to be looked at or hashed."""


class Library:
    """What the directories behind `shared/` offer.

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
        """Prepare; `watch` makes it notice what others change in the directories.

        `on_lost` is called, in a worker thread, when the directory itself has gone; `tell`
        with the path of each thing that is not published and the reason, once. In a mount of
        root's that others use (`is_shared_by_root`), what they may not read is not published,
        unless root made it there.
        """
        self._roots = roots
        self._watch = watch
        self._share = Share(roots, None if watch is None else watch.add)
        self._index = Index(index_path)
        books = Books(self._wake)
        self._facts = Facts(books)
        self._answers = Answers(books)
        self._tidying = Tidying(books)
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
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_waking = False
        self._woken = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the whole share, then at whatever is touched, until cancelled.

        Files that the index knows are offered without being read. A cancellation waits for
        the step of hashing under way, some milliseconds. Failures of the disk are logged.
        """
        self._token = trio.lowlevel.current_trio_token()
        self._is_waking = False
        if self._watch is not None:
            self._watch.open(self._roots.directory)
        await self._run_in_thread(self._roots.look)
        self._facts.start_over()
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                if self._watch is not None:
                    nursery.start_soon(kept_up, functools.partial(self._heed, self._watch))
                    nursery.start_soon(kept_up, functools.partial(self._heed_mounts, self._watch))
                nursery.start_soon(kept_up, self._heed_roots)
                await kept_up(self._work)
        finally:
            self._token = None
            with trio.CancelScope(shield=True):
                await self._run_in_thread(self._worker.close)
            if self._watch is not None:
                self._watch.close()

    async def _heed(self, watch: Watch) -> None:
        """Wake the worker, which takes what has changed."""
        while True:
            await watch.changed()
            self._set_woken()
            await trio.sleep(GATHER_S)

    async def _heed_mounts(self, watch: Watch) -> None:
        """Wake the worker, which looks whether something was mounted below the share."""
        while True:
            await watch.mounts_changed()
            self._set_woken()

    async def _heed_roots(self) -> None:
        """Look whether what is shared where it lies is there, or there again."""
        while True:
            while not self._roots:
                await self._woken.wait()
            await trio.sleep(LOOK_AT_ROOTS_S)
            await self._run_in_thread(self._look_at_roots)

    def _look_at_roots(self) -> None:
        for name in self._roots.look():
            self._worker.root_changed(name)

    async def share(self, shared: SharedDirectory) -> Root:
        """Share a directory where it lies, in this life and later ones.

        Raises:
            UsageError: it cannot be shared, or not under this name.
            OSError: the next start would not know of it: it is not shared.
        """
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
        root = await self._run_in_thread(self._roots.remove, name)
        await self._run_in_thread(self._worker.root_changed, name)
        return root

    async def _work(self) -> None:
        tidy_at = math.inf
        while True:
            if self._tidying.is_due():
                tidy_at = min(tidy_at, trio.current_time() + RETRY_S)
            if trio.current_time() >= tidy_at:
                tidy_at = math.inf
                await self._run_in_thread(self._worker.tidy)
            elif not self._worker.has_work():
                with trio.move_on_at(tidy_at):
                    await self._woken.wait()
                    await trio.sleep(GATHER_S)
            elif await self._run_in_thread(self._worker.hop):
                self._set_woken()
            else:
                await trio.sleep(RETRY_S)

    def _wake(self) -> None:
        """Wake the worker and those who wait for a change; from any thread."""
        token = self._token
        if token is not None and not self._is_waking:
            self._is_waking = True  # each call would write to trio's pipe
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._set_woken)

    def _set_woken(self) -> None:
        self._is_waking = False
        woken, self._woken = self._woken, trio.Event()
        woken.set()

    # Facts, from the tree. Paths are local ones, below the directory.

    def write_began(self, path: str) -> None:
        """Note that a writer may change this file from now on: it is offered no more.

        Call it before the file is opened, and `touched` after the opening created it.
        """
        self._facts.write_began(path, self._share.status(path))

    def write_ended(self, path: str) -> None:
        """Note that one writer of this path has closed; after the last one it is hashed.

        A writer whose file was renamed counts as begun at the new path and ended at the old.
        """
        self._facts.write_ended(path)

    def touched(self, path: str) -> None:
        """Note that something at or below this path changed, bytes maybe: look again.

        What has vanished from this path, or is another file, is offered no more on return.
        """
        self._facts.touched(path, self._share.status(path), Sign.WRITTEN)

    def attributes_changed(self, path: str) -> None:
        """Note that mode, owner, times or extended attributes were set: the bytes are the same.

        It stays offered, with its new time.
        """
        self._facts.touched(path, self._share.status(path), Sign.ATTRIBUTES)

    def names_changed(self, old: str, new: str) -> None:
        """Note that something was renamed, or has a second name: the bytes are the same.

        On return nothing is offered under a name that is gone, and soon all under the new
        one. Who reads it goes on reading.
        """
        for path in (old, new):
            self._facts.touched(path, self._share.status(path), Sign.NAMES)

    # Questions, answered from memory. Nothing is offered while paused.

    def find_path(self, path: str) -> Entry | None:
        """Return what is offered at a path, as others see it."""
        return self._answers.entry(path)

    def list_page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first `limit` entries of a directory behind a name, None if there is none.

        They are sorted by name in code point order. The root is the empty path.
        """
        return self._answers.page(path, after, limit)

    def find_id(self, file_id: FileId) -> SharedFile | None:
        """Return a file with this content."""
        return None if self.is_paused else self._answers.file_with(file_id)

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content that can be served, be it named at this moment or not."""
        holding = self._answers.holding(file_id)
        return None if holding is None else holding.key.size

    def file_state(self, path: str) -> FileState:
        """Return how the file at a local path stands."""
        return self._answers.state(path)

    def statistics(self) -> LibraryStatistics:
        """Return what is offered, paused or not."""
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
    ) -> tuple[Sequence[Entry], int]:
        """Return the first `limit` files behind a path that a keyword query finds, and how many.

        They come in the order in which they were filed. Those that were not looked at count as
        found; the count ends at MAX_TOTAL. `spent` is told what processor time that took.

        Raises:
            NotFoundError: nothing is filed under that path any more.
        """
        if self.is_paused or not (phrases_of(text) or terms):
            return (), 0
        found, total, seconds = await self._run_in_thread(
            self._searching.match, text, limit, terms or ANY, after
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

    async def read_block(self, file_id: FileId, index: int) -> bytes:
        """Return one block of a content that is held, verified just now.

        What it is verified against vouches for it, whatever has happened to its file: so a
        read outlasts all that leaves the bytes as they are. A file whose bytes turn out to be
        others is withdrawn and hashed anew; if the same content is there under another path,
        the block comes from that.

        Raises:
            NotFoundError: the content is not held, or has no such block; NotYetError if its
                file is being looked for, which has been renamed, say.
            StaleError: no file holds it any more.
            OSError: it cannot be read now, and nothing is known to be wrong with it.
        """
        (block,) = await self.read_blocks(file_id, (index,))
        return block

    async def read_blocks(self, file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        """Return these blocks up to the first that is not to be had, as `read_block` would.

        It fails as that does if the first is not. One hop to a thread for all of them: it
        costs as much as a block.
        """
        return await self._run_in_thread(self._serving.read_blocks, file_id, indexes)

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
        """Grows whenever what is offered, or how a file stands, has changed."""
        return self._answers.version

    def take_changes(self) -> Changes:
        """Return what has changed in the offer since this was last called."""
        return self._answers.take_changes()

    async def wait_changed(self, version: int) -> int:
        """Wait until the version is another one, and return it. Needs `run` to be running."""
        await trio.lowlevel.checkpoint()
        while self.version == version:
            await self._woken.wait()
        return self.version

    async def wait_idle(self) -> None:
        """Wait until every file is offered that can be. Needs `run` to be running.

        Files that somebody writes are not waited for.
        """
        await trio.lowlevel.checkpoint()
        while self._answers.unsettled():
            await self._woken.wait()
