"""Tasks that outlive the calls which start them.

A search that several readers share, or a transfer that outlives the read which began it,
must not live in the nursery of the caller that came first. Each part that has such tasks owns one
`Tasks`, whose `run` is called where the life of the part is decided.

A bug ends the one task that has it, never the servent: it is logged with its traceback, callers
that wait for the task get a `BugError`, and everything else goes on. A bug, here, is any exception
that the task should not have let out.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Final, Generic, TypeVar, TypeVarTuple

import trio

from p2pfs.errors import BugError, P2pfsError, ShutdownError

log = logging.getLogger(__name__)

AGAIN_AFTER_S: Final = 1.0
"""The pause between a bug that has ended a task and the next attempt at it."""

AGAIN_AT_MOST_S: Final = 64.0
"""The same, doubled after each attempt that a bug has ended before so long: a bug at each does
not fill the log."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Ts = TypeVarTuple("Ts")


class Tasks:
    """The tasks of one part, for as long as `run` runs."""

    def __init__(self) -> None:
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None

    async def run(
        self,
        *first: Callable[[], Awaitable[None]],
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Own the tasks until cancelled; `first` are kept up, see `kept_up`."""
        async with trio.open_nursery() as nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._nursery = nursery
            try:
                for function in first:
                    self.start(kept_up, function)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    @property
    def are_running(self) -> bool:
        """Whether tasks can be started; false before and after."""
        return self._nursery is not None

    def check(self) -> None:
        """Raise ShutdownError if no task can be started."""
        if self._nursery is None:
            raise ShutdownError("the servent is shutting down")

    def start(self, function: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        """Start a task, from trio's thread; raises as `check` does."""
        self.check()
        assert self._nursery is not None
        self._nursery.start_soon(self._run_one, function, arguments)

    async def _run_one(
        self, function: Callable[[*Ts], Awaitable[None]], arguments: tuple[*Ts]
    ) -> None:
        try:
            await guarded(function, *arguments)
        except BaseException:
            # Mark us stopped before waiters run, so that they get ShutdownError.
            self._nursery = None
            raise

    def soon(
        self, call: Callable[[*Ts], object], *arguments: *Ts, idempotent: bool = False
    ) -> None:
        """Call in trio's thread, soon, from any thread; not at all before `run` or after trio."""
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(called, call, *arguments, idempotent=idempotent)


class Flight:
    """Work under way for all who wait for it; a waiter that is cancelled disturbs nobody."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._ended = trio.Event()
        self.error: P2pfsError | None = None
        """The error that it failed with, once it has ended."""

    @property
    def is_over(self) -> bool:
        """Whether the work is done, has failed or was cut short."""
        return self._ended.is_set()

    async def wait(self) -> None:
        """Return when the work is done.

        Raises:
            P2pfsError: the error that the work failed with; ShutdownError if it was cut short.
        """
        await self._ended.wait()
        self._tasks.check()
        if self.error is not None:
            raise self.error.with_traceback(None)

    async def run(self, function: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> None:
        """Do the work; for `SingleFlight`."""
        try:
            await function(*arguments)
        except P2pfsError as error:
            self.error = error
        except Exception:
            log.exception("a bug of ours ended one task: %s", _name_of(function))
            self.error = BugError("a bug of ours: see the log")
        finally:
            self._ended.set()


class SingleFlight(Generic[K]):
    """Work by key, done once for all callers that ask for it at the same time."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._flights: dict[K, Flight] = {}

    def __contains__(self, key: K) -> bool:
        """Return whether work of this key is under way."""
        return key in self._flights

    def __len__(self) -> int:
        """Return how much work is under way."""
        return len(self._flights)

    def start(self, key: K, function: Callable[[*Ts], Awaitable[None]], *arguments: *Ts) -> Flight:
        """Start work in a task of its own, or join the one under way; raises ShutdownError."""
        self._tasks.check()
        if key not in self._flights:
            flight = self._flights[key] = Flight(self._tasks)
            self._tasks.start(self._fly, key, flight, function, arguments)
        return self._flights[key]

    async def _fly(
        self,
        key: K,
        flight: Flight,
        function: Callable[[*Ts], Awaitable[None]],
        arguments: tuple[*Ts],
    ) -> None:
        try:
            await flight.run(function, *arguments)
        finally:
            del self._flights[key]


async def guarded(function: Callable[[*Ts], Awaitable[object]], *arguments: *Ts) -> bool:
    """Run a task and return whether it came through; a bug is logged and goes no further."""
    try:
        await function(*arguments)
    except ShutdownError:
        return True  # expected while the servent shuts down
    except Exception:
        log.exception("a bug of ours ended one task: %s", _name_of(function))
        return False
    return True


class FewAtOnce:
    """Tasks in a nursery of the caller's, of which a few run at once, as `guarded`."""

    def __init__(self, nursery: trio.Nursery, most: int) -> None:
        self._nursery = nursery
        self._turns = trio.CapacityLimiter(most)

    def start(self, function: Callable[[*Ts], Awaitable[object]], *arguments: *Ts) -> None:
        """Start a task; it waits for its turn first."""
        self._nursery.start_soon(self._run_one, function, arguments)

    async def _run_one(
        self, function: Callable[[*Ts], Awaitable[object]], arguments: tuple[*Ts]
    ) -> None:
        async with self._turns:
            await guarded(function, *arguments)


async def for_each(
    items: Iterable[T], function: Callable[[T], Awaitable[object]], *, at_once: int
) -> None:
    """Do something for each of the items, for so many of them at once; return when it is done."""
    async with trio.open_nursery() as nursery:
        tasks = FewAtOnce(nursery, at_once)
        for item in items:
            tasks.start(function, item)


async def kept_up(function: Callable[[], Awaitable[object]]) -> None:
    """Run a task that lasts as long as the servent; after a bug it begins anew."""
    pause_s = AGAIN_AFTER_S
    began_at = trio.current_time()
    while not await guarded(function):
        if trio.current_time() - began_at > AGAIN_AT_MOST_S:
            pause_s = AGAIN_AFTER_S
        await trio.sleep(pause_s)
        pause_s = min(2 * pause_s, AGAIN_AT_MOST_S)
        began_at = trio.current_time()


def called(call: Callable[[*Ts], object], *arguments: *Ts) -> None:
    """Call a function where no caller could take its exceptions; a bug in it is logged."""
    try:
        call(*arguments)
    except ShutdownError:
        pass
    except Exception:
        log.exception("a bug of ours ended one call: %s", _name_of(call))


def _name_of(function: Callable[..., object]) -> str:
    function = getattr(function, "func", function)  # of a `partial`
    return getattr(function, "__qualname__", repr(function))
