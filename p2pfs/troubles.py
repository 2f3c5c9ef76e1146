"""Between what goes wrong at a source and what a reader is told: two tables and their readers.

An error of a link or of the protocol becomes a `Trouble`, by which the picker judges a source.
When readers must be failed, the trouble of all sources together becomes a `TransferError`.
"""

from __future__ import annotations

from typing import Final

from p2pfs.errors import (
    BusyError,
    CorruptError,
    LinkClosedError,
    LinkError,
    NoSourceError,
    P2pfsError,
    RejectedError,
    RemoteProtocolError,
    StaleError,
    StalledError,
    TransferError,
)
from p2pfs.protocol.messages import RejectCode
from p2pfs.source import Trouble

_ERRORS: Final[dict[Trouble, tuple[type[TransferError], str]]] = {
    Trouble.SILENT: (StalledError, "nothing arrived for the stall time"),
    Trouble.BUSY: (BusyError, "every holder refuses for now"),
    Trouble.CORRUPT: (CorruptError, "every holder sends wrong bytes"),
    Trouble.STALE: (StaleError, "it was changed or unpublished, and no one else has it"),
    Trouble.CLOSED: (NoSourceError, "its holders have gone"),
    Trouble.UNREACHABLE: (NoSourceError, "no holder can be reached"),
}

_TROUBLE_OF_ERROR: Final[tuple[tuple[type[P2pfsError], Trouble], ...]] = (
    (LinkClosedError, Trouble.CLOSED),
    (LinkError, Trouble.UNREACHABLE),
    (RemoteProtocolError, Trouble.CORRUPT),
    (StalledError, Trouble.SILENT),
)  # the first that fits; any other error is a bug

_TROUBLE_OF_REJECT: Final[dict[int, Trouble]] = {
    RejectCode.NOT_FOUND: Trouble.STALE,
    RejectCode.STALE: Trouble.STALE,
    RejectCode.PAUSED: Trouble.BUSY,
    RejectCode.BUSY: Trouble.BUSY,
    RejectCode.FAILED: Trouble.BUSY,
}


def trouble_of(error: P2pfsError) -> Trouble:
    """Return what an error says of the source that it came from; raises one that is a bug."""
    if isinstance(error, RejectedError):
        return _TROUBLE_OF_REJECT.get(error.code, Trouble.BUSY)
    for kind, trouble in _TROUBLE_OF_ERROR:
        if isinstance(error, kind):
            return trouble
    raise error


def error_of(trouble: Trouble) -> TransferError:
    """Return what readers are told when this is the trouble with all sources."""
    kind, text = _ERRORS[trouble]
    return kind(text)
