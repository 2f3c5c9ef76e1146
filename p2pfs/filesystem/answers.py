"""How the tree answers: at once, later, or with an errno.

An answer from memory or a local disk is returned at once, on the thread that asked. One that needs
the network is returned as `Later`: the caller runs it in trio and waits as it sees fit. So the tree
knows neither threads nor FUSE, and a cached read never crosses into trio.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeAlias, TypeVar

from p2pfs.errors import (
    BugError,
    BusyError,
    CacheFullError,
    CorruptError,
    NoSourceError,
    NotAskedError,
    NotFoundError,
    ShutdownError,
    StaleError,
    StalledError,
    TooManyFilesError,
    TransferError,
)

T = TypeVar("T")


def _same(value: Any) -> Any:  # noqa: ANN401 - whatever it is
    return value


def not_at_all(_value: object) -> float:
    """Hold no answer back."""
    return 0.0


@dataclass(frozen=True, slots=True)
class Later(Generic[T]):
    """An answer that has to be fetched."""

    fetch: Callable[[], Awaitable[Any]]
    """Run it in trio, once. It raises `OSError` with an errno, and may be cancelled."""
    finish: Callable[[Any], T] = _same
    """Run it on the thread that asked: it makes the answer from the fetched value."""
    held_s: Callable[[Any], float] = not_at_all
    """How long the answer is held back once the value is there: it is made from it after that."""


NowOrLater: TypeAlias = T | Later[T]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes that lie in an open file until the reader's own is released.

    A content of others is whole and does not change. A file of the user's may be cut or changed by
    a program that writes it, as on a disk.
    """

    descriptor: int
    offset: int
    length: int

    def __len__(self) -> int:
        """Return how many bytes there are."""
        return self.length


ERRNO_OF: Final[Mapping[type[TransferError], int]] = MappingProxyType(
    {
        NotFoundError: errno.ENOENT,
        NoSourceError: errno.EHOSTUNREACH,
        StalledError: errno.ETIMEDOUT,
        CorruptError: errno.EIO,
        StaleError: errno.ESTALE,
        BusyError: errno.EBUSY,
        NotAskedError: errno.EAGAIN,
        CacheFullError: errno.ENOSPC,
        TooManyFilesError: errno.EMFILE,
        ShutdownError: errno.ESHUTDOWN,
        BugError: errno.EIO,
    }
)
"""The errno of each failed transfer, as file-system.md has it in "When a read fails".

A kind that is missing here is our bug: EIO."""


def os_error(code: int, path: str | None = None) -> OSError:
    """Return the error with its errno and the system's words for it."""
    return OSError(code, os.strerror(code), path)


def as_os_error(error: TransferError, path: str) -> OSError:
    """Return the error that a reader of `path` gets for a failed transfer."""
    code = next((ERRNO_OF[kind] for kind in type(error).__mro__ if kind in ERRNO_OF), errno.EIO)
    return OSError(code, str(error) or os.strerror(code), path)
