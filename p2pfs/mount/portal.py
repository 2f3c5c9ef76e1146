"""The way from kernel threads into trio, open in both directions at any time.

A thread that waits here is let go in any case: by the
answer, by a signal to the reader, by the end of the mount, or by the end of trio.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import trio

from p2pfs.filesystem import Later, NowOrLater, os_error

T = TypeVar("T")

POLL_INTERVAL_S: Final = 0.1
"""How often a waiting call checks whether its reader was interrupted. libfuse does not wake
it; at this rate sixty waiting readers cost nothing that can be measured."""

INTERRUPT_GRACE_S: Final = 0.3
"""How long a cancelled request may take to end before its reader is let go without it."""


class Portal:
    """Runs each `Later` of the tree in a nursery of the mount's."""

    def __init__(
        self,
        nursery: trio.Nursery,
        is_interrupted: Callable[[], bool],
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        """Ask on the kernel thread that waits: was its call interrupted, or will the caller go?"""
        self._token = trio.lowlevel.current_trio_token()
        self._nursery = nursery
        self._is_interrupted, self._is_leaving = is_interrupted, is_leaving
        self._is_closed = False

    def settle(self, answer: NowOrLater[T]) -> T:
        """Return an answer, waiting for it if it comes later. For kernel threads.

        Whatever happens to trio, the wait ends: with EINTR when the reader is interrupted,
        with ESHUTDOWN when the portal closes or trio is no more.
        """
        return self._wait(answer, self._is_interrupted) if isinstance(answer, Later) else answer

    def wait_for_read(self, later: Later[T]) -> T:
        """Wait likewise for bytes that are read, and watch the reader's signals ourselves.

        The kernel reads ahead in the background. It lets no program interrupt that, not even one
        that waits for the page; so a reader with a signal to take gets EINTR. The kernel then asks
        for the page again, in the foreground, and there it does tell us of the signal.
        """
        return self._wait(later, lambda: self._is_interrupted() or self._is_leaving())

    def _wait(self, later: Later[T], is_interrupted: Callable[[], bool]) -> T:
        request: _Request[Any] = _Request(later.fetch)
        self._in_trio(self._start, request)
        while not request.ended.wait(POLL_INTERVAL_S):
            if is_interrupted():
                self._in_trio(request.scope.cancel)
                if not request.ended.wait(INTERRUPT_GRACE_S):
                    raise os_error(errno.EINTR)
                break
            self._in_trio(_nothing)
        value = request.result()
        self._hold(later.held_s(value), is_interrupted)
        return later.finish(value)

    def _hold(self, seconds: float, is_interrupted: Callable[[], bool]) -> None:
        """Let some time pass, if the reader is not interrupted: then EINTR."""
        ends_at = time.monotonic() + seconds
        while (left_s := ends_at - time.monotonic()) > 0 and not self._is_closed:
            time.sleep(min(left_s, POLL_INTERVAL_S))
            if is_interrupted():
                raise os_error(errno.EINTR)

    def close(self) -> None:
        """Refuse new requests and cancel those under way: ESHUTDOWN. For trio's thread."""
        self._is_closed = True
        self._nursery.cancel_scope.cancel()

    def _start(self, request: _Request[T]) -> None:
        # In trio's thread, as `close` is: no request can start after it.
        if self._is_closed:
            request.ended.set()
        else:
            self._nursery.start_soon(request.run)

    def _in_trio(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._token.run_sync_soon(call, *arguments)
        except trio.RunFinishedError:
            raise os_error(errno.ESHUTDOWN) from None


@dataclass(eq=False, slots=True)
class _Request(Generic[T]):
    """One call that waits for trio."""

    fetch: Callable[[], Awaitable[T]]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: threading.Event = field(default_factory=threading.Event)
    values: list[T] = field(default_factory=list)
    """The answer, once there is one."""
    error: Exception | None = None

    async def run(self) -> None:
        """Run the request in the trio thread; whatever it raises is kept for `result`."""
        try:
            with self.scope:
                self.values.append(await self.fetch())
            if self.scope.cancelled_caught:
                self.error = os_error(errno.EINTR)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            self.error = error
        finally:
            self.ended.set()

    def result(self) -> T:
        """Return the answer in the thread that waited, or raise what was raised."""
        if self.values:
            return self.values[0]
        if self.error is not None:
            raise self.error
        raise os_error(errno.ESHUTDOWN)


def _nothing() -> None:
    """Do nothing, in trio: that it can be asked to shows that it lives."""
