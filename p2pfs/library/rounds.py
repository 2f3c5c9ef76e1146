"""When the worker works: soon after something is due, but not while others write."""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Final

import trio

from p2pfs.library.books import Books
from p2pfs.library.tidying import Tidying
from p2pfs.library.watch import Watch
from p2pfs.library.worker import Worker
from p2pfs.roots import Roots
from p2pfs.tasks import kept_up
from p2pfs.threads import RunInThread

GATHER_CHANGES_S: Final = 0.01
"""How long the first change waits for company. Files that are copied in one after the other
are then looked at, hashed and filed together: one hop and one transaction for some ten. With
three times as long a thousand small ones were published no sooner."""

CALM_S: Final = 0.04
"""How long a program that changes one file after the other must leave them alone to have ended. To
look for that every ten milliseconds, and at the watch as often, was a tenth of the processor time
that unpacking an archive takes, all of it on trio's thread."""

GIVE_WAY_S: Final = 1.0
"""How long the worker waits for a pause of a program that changes one file after the other. A hop
after each file took a third of the processor time that unpacking an archive takes, and the
interpreter from the writers."""

WORK_S: Final = 0.5
"""How long it then works, if there is so much to do, before it waits again."""

LOOK_AT_ROOTS_S: Final = 1.0
"""How often each directory that is shared where it lies is looked at: the files of a disk that is
back are offered within two seconds. A look at one costs a few microseconds."""

LEFT_ALONE_S: Final = 1.0
"""How long a file that keeps changing, or a full disk, is left alone."""


class ChangeSignal:
    """Wakes tasks that wait for a change, once for any number of changes."""

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_ringing = False
        self._rung = trio.Event()

    def set_up(self) -> None:
        """Begin to wake tasks of the event loop from which this is called."""
        self._token = trio.lowlevel.current_trio_token()
        self._is_ringing = False

    def take_down(self) -> None:
        """Stop waking tasks from other threads."""
        self._token = None

    def wake(self) -> None:
        """Wake all who wait; from any thread."""
        token = self._token
        if token is not None and not self._is_ringing:
            self._is_ringing = True  # each call would write to trio's pipe
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self.ring)

    def ring(self) -> None:
        """Wake all who wait; from trio's thread, at once."""
        self._is_ringing = False
        rung, self._rung = self._rung, trio.Event()
        rung.set()

    async def wait(self) -> None:
        """Wait for the next change."""
        await self._rung.wait()


class Rounds:
    """Has the worker hop in threads, and wakes it when something outside has changed."""

    def __init__(
        self,
        worker: Worker,
        books: Books,
        roots: Roots,
        watch: Watch | None,
        alarm: ChangeSignal,
        run_in_thread: RunInThread,
    ) -> None:
        self._worker = worker
        self._books = books
        self._tidying = Tidying(books)
        self._roots = roots
        self._watch = watch
        self._alarm = alarm
        self._run_in_thread = run_in_thread
        self._given_way_to = 0
        self._resting = trio.Event()
        """Set while the worker waits for the alarm; else it looks at the watch by itself."""

    async def prepare(self) -> None:
        """Open the watch, and look which directories are there that are shared where they lie."""
        self._alarm.set_up()
        if self._watch is not None:
            self._watch.open(self._roots.directory)
        for name in await self._run_in_thread(self._roots.look):
            self._worker.tell_if_away(name)

    async def run(self) -> None:
        """Work until cancelled; the step under way is waited for, and all is closed."""
        try:
            async with trio.open_nursery() as nursery:
                if self._watch is not None:
                    nursery.start_soon(kept_up, functools.partial(self._watch_files, self._watch))
                    nursery.start_soon(kept_up, functools.partial(self._watch_mounts, self._watch))
                nursery.start_soon(kept_up, self._watch_roots)
                await kept_up(self._work)
        finally:
            self._books.is_attended = False
            self._alarm.take_down()
            with trio.CancelScope(shield=True):
                await self._run_in_thread(self._worker.close)
            if self._watch is not None:
                self._watch.close()

    async def _watch_files(self, watch: Watch) -> None:
        """Wake the worker, which takes what has changed."""
        while True:
            await self._resting.wait()
            await watch.changed()
            await trio.sleep(GATHER_CHANGES_S)
            self._alarm.ring()

    async def _watch_mounts(self, watch: Watch) -> None:
        """Wake the worker, which looks whether something was mounted below the share."""
        while True:
            await watch.mounts_changed()
            self._alarm.ring()

    async def _watch_roots(self) -> None:
        """Look whether directories that are shared where they lie have come or gone."""
        while True:
            while not self._roots:
                await self._alarm.wait()
            await trio.sleep(LOOK_AT_ROOTS_S)
            await self._run_in_thread(self._worker.look_at_roots)

    async def _work(self) -> None:
        tidy_at = math.inf
        while True:
            if self._tidying.is_due():
                tidy_at = min(tidy_at, trio.current_time() + LEFT_ALONE_S)
            if trio.current_time() >= tidy_at:
                tidy_at = math.inf
                await self._run_in_thread(self._worker.tidy)
                continue
            # First: a fact, or a withdrawal, that comes now has to wake it.
            self._books.is_attended = False
            withdrawn = self._roots.audiences.withdrawn
            if not self._worker.has_work():
                self._roots.forget(withdrawn)
                self._resting.set()
                with trio.move_on_at(tidy_at):
                    await self._alarm.wait()
            else:
                if self._resting.is_set():  # else the watch waits for this very one
                    self._resting = trio.Event()
                self._books.is_attended = True
                await self._give_way()
                await self._hop_for_a_while()

    async def _give_way(self) -> None:
        """Wait until nobody has changed anything for a moment, or long enough."""
        ends_at = trio.current_time() + GIVE_WAY_S
        calm_s = GATHER_CHANGES_S
        while trio.current_time() < ends_at:
            changes = self._books.change_count
            if self._given_way_to == changes:
                return
            self._given_way_to = changes
            await trio.sleep(calm_s)
            calm_s = min(2 * calm_s, CALM_S)

    async def _hop_for_a_while(self) -> None:
        """Do the work that was due when this began, or as much of it as the time allows."""
        ends_at = trio.current_time() + WORK_S
        while True:
            is_fine = await self._run_in_thread(self._worker.hop)
            self._alarm.ring()
            if not is_fine:
                await trio.sleep(LEFT_ALONE_S)
            if not is_fine or not self._worker.is_behind or trio.current_time() >= ends_at:
                return
