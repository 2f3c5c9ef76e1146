"""How a source of a content stands, and why it gives nothing.

How it stands is one of five states, and what happens to it is one of five events: `STANDINGS` is
the table.

An error of a link or of the protocol becomes a `Trouble`, by which the picker judges a source.
When reads must be failed, the trouble of all sources together becomes a `TransferError`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
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
    SilentError,
    StaleError,
    StalledError,
    TooManyFilesError,
    TransferError,
)
from p2pfs.protocol import RejectCode


class Trouble(enum.Enum):
    """Why a source gave nothing, in order of precedence.

    The verdict on all sources is the first member here that any of them has. Moving one changes
    which errno readers get.
    """

    TOO_MANY_FILES = enum.auto()
    """Ours: nothing was asked of it."""
    SILENT = enum.auto()
    BUSY = enum.auto()
    CORRUPT = enum.auto()
    STALE = enum.auto()
    CLOSED = enum.auto()
    UNREACHABLE = enum.auto()


class Standing(enum.Enum):
    """How a source has behaved so far."""

    NEW = enum.auto()
    """It has shown nothing: it promises."""
    PROVEN = enum.auto()
    """It gave a block when it was asked last."""
    FAILING = enum.auto()
    """It gave nothing when it was asked last. It is asked again after a pause."""
    OUTDATED = enum.auto()
    """It says that it does not have the content any more."""
    LIAR = enum.auto()
    """It gave a wrong block. It is never asked again."""


class SourceEvent(enum.Enum):
    """What happens to a source."""

    GAVE = enum.auto()
    FAILED = enum.auto()
    OUTDATED = enum.auto()
    LIED = enum.auto()
    FORGIVEN = enum.auto()
    """It is to be tried anew: it was found again, or a reader came after all had failed."""


STANDINGS: Final[Mapping[Standing, Mapping[SourceEvent, Standing]]] = {
    Standing.NEW: {
        SourceEvent.GAVE: Standing.PROVEN,
        SourceEvent.FAILED: Standing.FAILING,
        SourceEvent.OUTDATED: Standing.OUTDATED,
        SourceEvent.LIED: Standing.LIAR,
        SourceEvent.FORGIVEN: Standing.NEW,
    },
    Standing.PROVEN: {
        SourceEvent.GAVE: Standing.PROVEN,
        SourceEvent.FAILED: Standing.FAILING,
        SourceEvent.OUTDATED: Standing.OUTDATED,
        SourceEvent.LIED: Standing.LIAR,
        SourceEvent.FORGIVEN: Standing.PROVEN,
    },
    Standing.FAILING: {
        SourceEvent.GAVE: Standing.PROVEN,
        SourceEvent.FAILED: Standing.FAILING,
        SourceEvent.OUTDATED: Standing.OUTDATED,
        SourceEvent.LIED: Standing.LIAR,
        SourceEvent.FORGIVEN: Standing.NEW,
    },
    Standing.OUTDATED: {
        SourceEvent.GAVE: Standing.PROVEN,
        SourceEvent.FAILED: Standing.FAILING,
        SourceEvent.OUTDATED: Standing.OUTDATED,
        SourceEvent.LIED: Standing.LIAR,
        SourceEvent.FORGIVEN: Standing.NEW,
    },
    Standing.LIAR: dict.fromkeys(SourceEvent, Standing.LIAR),
}

DROPPED: Final = frozenset({Standing.OUTDATED, Standing.LIAR})
"""A source that stands so is asked no more; the others are, after a pause."""

_EVENTS: Final = {Trouble.STALE: SourceEvent.OUTDATED, Trouble.CORRUPT: SourceEvent.LIED}
# The event of these troubles; that of any other is FAILED.


_ERRORS: Final[dict[Trouble, tuple[type[TransferError], str]]] = {
    Trouble.TOO_MANY_FILES: (TooManyFilesError, "too many open files"),
    Trouble.SILENT: (StalledError, "nothing arrived for the stall time"),
    Trouble.BUSY: (BusyError, "every holder refuses for now"),
    Trouble.CORRUPT: (CorruptError, "every holder sends wrong bytes"),
    Trouble.STALE: (StaleError, "it was changed or unpublished, and no one else has it"),
    Trouble.CLOSED: (NoSourceError, "its holders have gone"),
    Trouble.UNREACHABLE: (NoSourceError, "no holder can be reached"),
}

_TROUBLE_OF_ERROR: Final[tuple[tuple[type[P2pfsError], Trouble], ...]] = (
    (LinkClosedError, Trouble.CLOSED),
    (TooManyFilesError, Trouble.TOO_MANY_FILES),
    (SilentError, Trouble.SILENT),
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


def error_of(trouble: Trouble, detail: str = "") -> TransferError:
    """Return the error that reads fail with when this is the trouble with all sources."""
    kind, text = _ERRORS[trouble]
    return kind(f"{text}: {detail}" if detail else text)


def event_of(trouble: Trouble) -> SourceEvent:
    """Return the event that a trouble is for its source."""
    return _EVENTS.get(trouble, SourceEvent.FAILED)
