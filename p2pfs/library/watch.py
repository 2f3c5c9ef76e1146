"""What anybody changes in the backing directory, as the kernel's inotify tells it.

A directory is watched from before its first listing on, so that nothing is lost in between.
What was missed, because the queue was full or because there are more directories than may be
watched, is made up for by a look at the whole share.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Iterator
from typing import Final

import trio
from inotify_simple import INotify, flags

from p2pfs.library.offers import join

RESCAN_S: Final = 60.0
"""How often the whole share is looked at if not all of it can be watched."""

_CHANGES: Final = (
    flags.MODIFY | flags.ATTRIB | flags.CLOSE_WRITE | flags.MOVED_FROM | flags.MOVED_TO
    | flags.CREATE | flags.DELETE | flags.DELETE_SELF | flags.MOVE_SELF
    | flags.ONLYDIR | flags.EXCL_UNLINK
)  # fmt: skip

_NAMES: Final = (
    flags.MOVED_FROM | flags.MOVED_TO | flags.CREATE | flags.DELETE | flags.ONLYDIR
)  # fmt: skip

log = logging.getLogger(__name__)


class Watch:
    """Watches directories. `changed` is for trio's thread, the rest for any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inotify: INotify | None = None
        self._paths: dict[int, str] = {}
        self._above = 0
        self._name = ""
        self._is_whole = False
        """Whether every directory is watched that was to be."""
        self._is_rescan_due = False
        self._has_told = False

    def open(self, directory: str) -> None:
        """Begin. A failure is logged: then the share is looked at now and then.

        That the directory itself is removed or comes back is told by the one above: itself
        it is not gone as long as somebody, such as the tree, has it open.
        """
        above, self._name = os.path.split(os.path.abspath(directory))
        try:
            self._inotify = INotify(nonblocking=True)
            self._poll = select.poll()
            self._poll.register(self._inotify, select.POLLIN)
            self._above = self._inotify.add_watch(above, _NAMES)
        except OSError as error:
            self._miss(error)

    def close(self) -> None:
        """End. May be called again."""
        with self._lock:
            if self._inotify is not None:
                self._inotify.close()
            self._inotify = None
            self._paths.clear()

    def add(self, path: str, descriptor: int) -> None:
        """Watch an open directory, which is known under this path from now on."""
        with self._lock:
            if self._inotify is None:
                return
            try:
                number = self._inotify.add_watch(f"/proc/self/fd/{descriptor}", _CHANGES)
            except OSError as error:
                self._miss(error)
                return
            self._paths[number] = path
            if path == "":  # a look at the whole share begins
                self._is_whole = True

    async def changed(self) -> None:
        """Wait until there is something to take."""
        if self._inotify is None:
            await trio.sleep(RESCAN_S)
            self._is_rescan_due = True
        elif self._is_whole:
            await trio.lowlevel.wait_readable(self._inotify.fileno())
        else:
            with trio.move_on_after(RESCAN_S) as scope:
                await trio.lowlevel.wait_readable(self._inotify.fileno())
            self._is_rescan_due = scope.cancelled_caught and not self._is_whole

    def has_news(self) -> bool:
        """Return whether there is something to take."""
        if self._is_rescan_due or self._inotify is None:
            return self._is_rescan_due
        return bool(self._poll.poll(0))

    def take(self) -> list[str]:
        """Return the paths at or below which something changed, each once."""
        with self._lock:
            paths = dict.fromkeys(self._read())
        if self._is_rescan_due:
            self._is_rescan_due = False
            paths[""] = None
        return list(paths)

    def _read(self) -> Iterator[str]:
        for event in self._inotify.read(timeout=0) if self._inotify is not None else ():
            directory = self._paths.get(event.wd)
            if event.wd == self._above:
                if event.name == self._name:
                    yield ""
            elif event.mask & flags.Q_OVERFLOW:
                log.info("more changed than could be told: looking at everything")
                yield ""
            elif directory is None:
                continue
            elif event.mask & flags.IGNORED:
                del self._paths[event.wd]
                self._is_whole = self._is_whole and directory != ""
            else:
                yield join(directory, event.name) if event.name else directory

    def _miss(self, error: OSError) -> None:
        self._is_whole = False
        if not self._has_told:
            self._has_told = True
            log.warning(
                "not every change from outside will be noticed at once, but within %d s: %s",
                RESCAN_S,
                error.strerror,
            )
