"""The exceptions of p2pfs, sorted by whose fault it is.

A few that carry more than a text stand where that is known: `link.RefusedError` and
`control.VerbError`.

Errors change shape at borders. `download.standing` turns the error of a source into its `Trouble`,
and the trouble of all sources into the `TransferError` that readers get. What leaves the servent is
made of these by `filesystem.answers` (an `OSError`), `upload.uploads` (a REJECT for a peer) and
`control.statuses` (an exit status). An `OSError` of a disk or of a socket becomes one of these
where it happens.
"""

from __future__ import annotations

from typing import Final

INTERRUPTED: Final = 130
"""The exit status after Ctrl-C, as shells have it: 128 and the number of SIGINT."""


class P2pfsError(Exception):
    """The root of the family. Its text is fit to be shown to the user as one line."""


class UsageError(P2pfsError):
    """The person at the keyboard asked for something that cannot be; one line, no traceback."""


class ProtocolError(P2pfsError):
    """Somebody broke the protocol. Abstract: raise one of the two below."""


class LocalProtocolError(ProtocolError):
    """Our own code broke the protocol: a bug of ours, never a peer's doing."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol. Close that link and carry on."""


class LinkError(P2pfsError):
    """A link could not be opened or has ended. Normal life in a network of strangers."""


class UnreachableError(LinkError):
    """The address refused, did not answer in time, or does not resolve."""


class SilentError(UnreachableError):
    """A servent cannot be dialled, and says nothing on the link that it has: it may wake up."""


class HandshakeError(LinkError):
    """Something answered, but it is not a servent we can talk to; the text says what it is."""


class LinkClosedError(LinkError):
    """The link ended while an answer was awaited."""


class RejectedError(P2pfsError):
    """A peer answered a request with REJECT; `code` is a `messages.RejectCode`."""

    def __init__(self, text: str, code: int, retry_after_s: float = 0.0) -> None:
        super().__init__(text)
        self.code = code
        self.retry_after_s = retry_after_s


class TransferError(P2pfsError):
    """A reader cannot have its bytes. The subclass says why: see file-system.md."""


class NotFoundError(TransferError):
    """Nobody within the horizon has such a path; or, raised where it is offered: it is not here."""


class NotYetError(NotFoundError):
    """A block is not here yet. The offering side alone raises it, and tells the peer that asks."""


class NoSourceError(TransferError):
    """It was found, but no holder can be reached."""


class StalledError(TransferError):
    """Nothing arrived in time: for a read the stall time, though holders are there.

    Listings and pages that a neighbour does not send have times of their own.
    """


class CorruptError(TransferError):
    """Every holder sends wrong bytes."""


class StaleError(TransferError):
    """The holder changed or unpublished the file and no one else has it."""


class BusyError(TransferError):
    """Holders refused (paused, full) until the stall time was over."""


class NotAskedError(TransferError):
    """Others were not asked: our budget of searches is spent, or theirs for us.

    It says nothing of what they have. Asking again is worth while in `wait_s` seconds.
    """

    def __init__(self, text: str, wait_s: float = 0.0) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class CacheFullError(TransferError):
    """The cache cannot grow: the disk is full, or open files hold the whole quota."""


class TooManyFilesError(TransferError, LinkError):
    """This process may not open more files: the cache cannot, and no link can be opened."""


class ShutdownError(TransferError):
    """The servent is shutting down."""


class BugError(TransferError):
    """A bug of ours, which the log has with its traceback: `tasks` says what becomes of it."""


class BadBlockError(P2pfsError):
    """A block is not what the manifest says it is."""
