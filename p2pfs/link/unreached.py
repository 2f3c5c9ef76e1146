"""The last failure to reach each peer: it stands for a moment.

A hundred blocks that wait for a peer that could not be reached, or that hung up at once, are then
not a hundred dials.
"""

from __future__ import annotations

from typing import Final

import trio

from p2pfs.errors import (
    LinkError,
    P2pfsError,
    RejectedError,
    SilentError,
    TooManyFilesError,
    UnreachableError,
)
from p2pfs.latest import Latest
from p2pfs.link.greeting import RefusedError
from p2pfs.protocol import ByeCode, RejectCode, ServentId

REDIAL_AFTER_S: Final = 1.0
"""How long the last failure to reach a peer stands for the next."""

MAX_FAILURES: Final = 10_000
"""Failures that are remembered: far more than there are dials in REDIAL_AFTER_S."""


class Unreached:
    """The peers that could not be reached a moment ago, and why. Belongs to the trio thread."""

    def __init__(self) -> None:
        self._failures: Latest[ServentId, tuple[float, LinkError]] = Latest(MAX_FAILURES)

    def failed(self, peer: ServentId, error: LinkError) -> None:
        """Note why a peer could not be reached; an earlier failure of it is forgotten."""
        self._failures[peer] = (trio.current_time(), error.with_traceback(None))
        self._forget_old()

    def why(self, peer: ServentId) -> P2pfsError | None:
        """Return the error for a request to a peer, a new one each time; None if it may be dialled.

        A peer that had no room is busy, as one without a slot is.
        """
        self._forget_old()
        if peer not in self._failures:
            return None
        error = self._failures[peer][1]
        if isinstance(error, RefusedError) and error.bye.code is ByeCode.FULL:
            return RejectedError(str(error), RejectCode.BUSY)
        if isinstance(error, TooManyFilesError | SilentError):
            return type(error)(str(error))
        return UnreachableError(str(error))

    def forget(self, peer: ServentId) -> None:
        """Let a peer be dialled at once."""
        self._failures.pop(peer, None)

    def forget_all(self) -> None:
        """Let every peer be dialled at once."""
        self._failures.clear()

    def _forget_old(self) -> None:
        since = trio.current_time() - REDIAL_AFTER_S
        self._failures.forget_while(lambda failure: failure[0] <= since)
