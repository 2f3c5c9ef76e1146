"""The text that libfuse and fusermount print when they cannot mount: there is no other report."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

_MAX_BYTES: Final = 64 * 1024
"""Far more than both ever write."""

_STDERR: Final = 2

_SPEAKERS: Final = (b"fuse: ", b"fusermount: ", b"fusermount3: ")
"""How the lines of libfuse and of the program that it runs begin."""


@contextlib.contextmanager
def libfuse_heard() -> Iterator[Callable[[], str]]:
    """Catch all text that is written to descriptor 2; afterwards the function returns it.

    libfuse writes there from C, and so does fusermount, which inherits it. Only their lines are
    returned, as one. Text of other writers is passed on at the end.
    """
    lines: list[bytes] = []
    with open(os.memfd_create("p2pfs-stderr"), "rb", buffering=0) as kept:
        try:
            with _written_to(kept.fileno()):
                yield lambda: "; ".join(_text(line) for line in lines if line.startswith(_SPEAKERS))
        finally:
            lines += os.pread(kept.fileno(), _MAX_BYTES, 0).splitlines(keepends=True)
            with contextlib.suppress(OSError):  # it is closed, or nobody listens there
                others = [line for line in lines if not line.startswith(_SPEAKERS)]
                os.write(_STDERR, b"".join(others))


@contextlib.contextmanager
def _written_to(descriptor: int) -> Iterator[None]:
    """Let descriptor 2, which may be closed, be another meanwhile."""
    try:
        former = os.dup(_STDERR)
    except OSError:
        former = None
    os.dup2(descriptor, _STDERR)
    try:
        yield
    finally:
        if former is None:
            os.close(_STDERR)
        else:
            os.dup2(former, _STDERR)
            os.close(former)


def _text(line: bytes) -> str:
    return line.decode(errors="replace").strip()
