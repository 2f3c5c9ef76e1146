"""Calls that may never return: those to a file system whose server is silent.

A thread in such a call can be neither ended nor waited for, so it is one that is left behind.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Final, Generic, TypeVar

T = TypeVar("T")

DISK_ANSWERS_S: Final = 10.0
"""How long a disk is waited for: one that has to spin up takes less."""


class Attempt(Generic[T]):
    """One call, in a thread of its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        """Make the call."""
        self._call = call
        self._outcome: Future[T] = Future()
        Thread(target=self._run, daemon=True).start()

    def result(self, within_s: float) -> T | None:
        """Return what the call returns, or raise what it raises; None if it is not over by then."""
        try:
            self._outcome.exception(within_s)
        except TimeoutError:
            return None
        return self._outcome.result()

    def _run(self) -> None:
        try:
            self._outcome.set_result(self._call())
        except BaseException as error:  # noqa: BLE001 - it is for who waits
            self._outcome.set_exception(error)
