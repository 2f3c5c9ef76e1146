"""What this servent has on disk: its shares, its cache, its settings and its memories.

All of it works without any peer. The state directory holds the files, see `state`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Final

import trio

from p2pfs.cache import BlockCache
from p2pfs.config import Config
from p2pfs.download import load_pins
from p2pfs.history import History
from p2pfs.journal import Journal
from p2pfs.library import Library, Watch
from p2pfs.overlay import ContactBook
from p2pfs.protocol import FileId, PeerInfo
from p2pfs.roots import open_roots
from p2pfs.settings import Settings
from p2pfs.state import Leftovers
from p2pfs.tasks import kept_up
from p2pfs.threads import RunInThread, lane

LIBRARY_THREADS: Final = 16
CACHE_THREADS: Final = 16
"""Threads that read and write files: more than keep one disk busy."""

STATE_THREADS: Final = 2
"""Threads for files that are written seldom: pins, contacts."""


class OnDisk:
    """The parts of a servent that read and write files."""

    def __init__(
        self,
        config: Config,
        journal: Journal,
        wall_clock: Callable[[], float],
        run_in_thread: RunInThread | None,
        watch: Watch | None,
    ) -> None:
        """Open all parts. `run_in_thread` replaces the lanes of all of them, for tests."""
        self.run_in_thread = run_in_thread or lane(STATE_THREADS)
        self.settings = Settings(config, wall_clock, self.run_in_thread)
        self.leftovers = Leftovers(config.leftovers_directory)
        self.history = History(config.history_path, wall_clock, self.run_in_thread)
        self.roots = open_roots(config)
        self.library = Library(
            self.roots,
            os.fspath(config.index_path),
            run_in_thread or lane(LIBRARY_THREADS),
            watch,
            on_lost=lambda: journal.error(
                "the directory behind shared/ was removed: unmount, and mount again"
            ),
            tell=lambda path, text: journal.info(text, f"shared/{path}".rstrip("/")),
            is_shared_by_root=config.allow_other and os.geteuid() == 0,
        )
        if config.paused_path.exists():
            self.library.pause()
        self.pinned = load_pins(os.fspath(config.pins_path))
        """The files that were pinned when the servent began."""
        self.cache = BlockCache(
            os.fspath(config.cache_directory),
            config.cache_limit_bytes,
            run_in_thread or lane(CACHE_THREADS),
            kept=[(FileId(entry.file_id), entry.size) for entry in self.pinned],
        )
        self._contacts_path = os.fspath(config.peers_path)
        self.contacts = ContactBook.load(self._contacts_path)
        self.settings.on_change(
            "cache-size", lambda config: self.cache.resize(config.cache_limit_bytes)
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the tasks of these parts until cancelled."""
        keep_contacts = functools.partial(
            self.contacts.keep_saved, self._contacts_path, self.run_in_thread
        )
        async with trio.open_nursery() as nursery:
            for part in (self.library, self.settings, self.history):
                await nursery.start(part.run)
            nursery.start_soon(kept_up, keep_contacts)
            task_status.started()

    def save_contacts(self) -> None:
        """Save the contacts as they are now: nothing is learnt of them any more."""
        self.contacts.save(self._contacts_path)

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content whose manifest is here."""
        size = self.cache.size_of(file_id)
        if size is not None:
            return size
        shared = self.library.find_id(file_id)
        return None if shared is None else shared.size

    def fetched(
        self, path: str, content: tuple[FileId, int], taken: Mapping[PeerInfo, int]
    ) -> None:
        """Note in the history which peers gave how many bytes of a content."""
        file_id, size = content
        is_whole = sum(taken.values()) == size or self.cache.is_whole(file_id)
        self.history.fetched(path, file_id, size, taken, is_whole=is_whole)
