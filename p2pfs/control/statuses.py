"""The bounds of requests on the control socket, and the exit statuses."""

from __future__ import annotations

import enum
from typing import Final

from p2pfs import errors

MAX_REQUEST_BYTES: Final = 4 * 1024**2
"""The longest request: more than most kernels let a command line hold."""

ALIVE_EVERY_S: Final = 5.0
"""The time between two signs of life from a servent that works on a request."""

SILENCE_S: Final = 20.0
"""After this silence the client takes the servent for stuck."""


RECORD: Final = "record"
"""The verb that returns the record, for a client that finds the socket alone."""


class ExitStatus(enum.IntEnum):
    """The exit statuses of the command: commands.md, "Exit statuses"."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    """Also timed out, and not asked because a budget is spent."""
    CORRUPT = 5
    NO_SERVENT = 6


class VerbError(errors.P2pfsError):
    """The servent could not do what the verb asked; `status` is the exit status."""

    def __init__(self, text: str, status: ExitStatus) -> None:
        super().__init__(text)
        self.status = status


_STATUS_OF: Final[tuple[tuple[type[errors.P2pfsError], ExitStatus], ...]] = (
    (errors.UsageError, ExitStatus.USAGE),
    (errors.NotFoundError, ExitStatus.NOT_FOUND),
    (errors.CorruptError, ExitStatus.CORRUPT),
    (errors.TooManyFilesError, ExitStatus.FAILED),
    (errors.LinkError, ExitStatus.UNREACHABLE),
    (errors.RemoteProtocolError, ExitStatus.UNREACHABLE),
    (errors.NoSourceError, ExitStatus.UNREACHABLE),
    (errors.StalledError, ExitStatus.UNREACHABLE),
    (errors.BusyError, ExitStatus.UNREACHABLE),
    (errors.NotAskedError, ExitStatus.UNREACHABLE),
)


def exit_status_of(error: errors.P2pfsError) -> ExitStatus:
    """Return the exit status of an error."""
    if isinstance(error, VerbError):
        return error.status
    found = (status for kind, status in _STATUS_OF if isinstance(error, kind))
    return next(found, ExitStatus.FAILED)
