"""Tasks that are started by calls which do not wait for them.

A search that several readers share, or a transfer that outlives the read which began it,
must not live in the nursery of whoever came first. Each part that has such tasks owns one
`Tasks`, whose `run` is called where the life of the part is decided.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import trio

from p2pfs.errors import ShutdownError

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
        """Own the tasks, these to begin with, until cancelled or until one of them fails."""
        async with trio.open_nursery() as nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._nursery = nursery
            try:
                for function in first:
                    self.start(function)
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
            await function(*arguments)
        except ShutdownError:
            if self._nursery is not None:
                raise  # else it only could not go on, as everything
        except BaseException:
            # Whoever waits for what this task did, and wakes now, must see that all is over.
            self._nursery = None
            raise

    def soon(
        self, call: Callable[[*Ts], object], *arguments: *Ts, idempotent: bool = False
    ) -> None:
        """Call in trio's thread, soon, from any thread; not at all before `run` or after trio."""
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(call, *arguments, idempotent=idempotent)
