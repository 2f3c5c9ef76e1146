"""Changes in the backing directory by any program, from the kernel's inotify.

A directory is watched from before its first listing on, so that no change is lost in between.
Changes are missed if the queue is full, or if there are more directories than may be watched:
then the whole share is looked at.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections.abc import Iterator
from typing import Final

import trio
from inotify_simple import INotify, flags

from p2pfs.library.doubts import Sign
from p2pfs.mounts import MOUNTINFO
from p2pfs.protocol import join_path

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
    """Watches directories. `changed` is for trio's thread, all else for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inotify: INotify | None = None
        self._mounts: select.epoll | None = None
        """Readable when the table of mounts has changed; the table itself is readable always."""
        self._paths: dict[int, dict[str, None]] = {}
        self._above = 0
        self._name = ""
        self._is_whole = False
        """Whether every directory is watched that was to be."""
        self._is_rescan_due = False
        self._has_told = False

    def open(self, directory: str) -> None:
        """Begin to watch. A failure is logged, and the share is looked at now and then instead.

        The directory above is watched for the removal and return of the directory itself, which
        has no event of its own as long as somebody, such as the tree, has it open.
        """
        above, self._name = os.path.split(os.path.abspath(directory))
        self._table = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._mounts = select.epoll()
        self._mounts.register(self._table, select.EPOLLPRI)
        try:
            self._inotify = INotify(nonblocking=True)
            self._poll = select.poll()
            self._poll.register(self._inotify, select.POLLIN)
            self._above = self._inotify.add_watch(above, _NAMES)
        except OSError as error:
            self._miss(error)

    def close(self) -> None:
        """Stop watching. May be called again."""
        with self._lock:
            if self._inotify is not None:
                self._inotify.close()
            self._inotify = None
            self._paths.clear()
            if self._mounts is not None:
                self._mounts.close()
                os.close(self._table)
            self._mounts = None

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
            # A bind mount gives one directory two paths; one that was renamed keeps the old one
            # until something happens there.
            self._paths.setdefault(number, {})[path] = None
            if path == "":  # a look at the whole share begins
                self._is_whole = True

    def forget(self, path: str) -> None:
        """Stop watching directories that are known at or below this path and no other."""
        below = f"{path}/"
        with self._lock:
            for number, paths in list(self._paths.items()):
                for one in [one for one in paths if one == path or one.startswith(below)]:
                    del paths[one]
                if not paths and self._inotify is not None:
                    with contextlib.suppress(OSError):  # it has gone by itself
                        self._inotify.rm_watch(number)

    async def changed(self) -> None:
        """Wait until `take` may return a change."""
        if self._inotify is None:
            await trio.sleep(RESCAN_S)
            self._is_rescan_due = True
        elif self._is_whole:
            await trio.lowlevel.wait_readable(self._inotify.fileno())
        else:
            with trio.move_on_after(RESCAN_S) as scope:
                await trio.lowlevel.wait_readable(self._inotify.fileno())
            self._is_rescan_due = scope.cancelled_caught and not self._is_whole

    async def mounts_changed(self) -> None:
        """Wait until something has been mounted or unmounted, wherever it is."""
        assert self._mounts is not None
        await trio.lowlevel.wait_readable(self._mounts.fileno())
        self._mounts.poll(0)

    def has_changes(self) -> bool:
        """Return whether `take` would return a change."""
        if self._is_rescan_due or self._inotify is None:
            return self._is_rescan_due
        return bool(self._poll.poll(0))

    def take(self) -> dict[str, Sign]:
        """Return the paths at or below which something changed, and the sign of each change."""
        paths: dict[str, Sign] = {}
        with self._lock:
            for path, sign in self._read():
                paths[path] = max(sign, paths.get(path, sign))
        if self._is_rescan_due:
            self._is_rescan_due = False
            paths[""] = Sign.FOUND
        return paths

    def _read(self) -> Iterator[tuple[str, Sign]]:
        for event in self._inotify.read(timeout=0) if self._inotify is not None else ():
            if event.wd == self._above:
                if event.name == self._name:
                    yield "", Sign.FOUND
            elif event.mask & flags.Q_OVERFLOW:
                log.info("more changed than could be told: looking at everything")
                yield "", Sign.FOUND
            elif event.mask & flags.IGNORED:
                self._is_whole = self._is_whole and "" not in self._paths.pop(event.wd, ())
            else:
                sign = Sign.WRITTEN if event.mask & flags.MODIFY else Sign.NAMES
                for directory in self._paths.get(event.wd, ()):
                    yield join_path(directory, event.name) if event.name else directory, sign

    def _miss(self, error: OSError) -> None:
        self._is_whole = False
        if not self._has_told:
            self._has_told = True
            log.warning(
                "not every change from outside will be noticed at once, but within %d s: %s",
                RESCAN_S,
                error.strerror,
            )
