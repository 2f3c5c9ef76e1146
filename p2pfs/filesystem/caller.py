"""The program that makes a call, as far as the tree must know it."""

from __future__ import annotations

from typing import Protocol


class Caller(Protocol):
    """The program whose call is being answered; asked on the thread of that call.

    Its answers are guesses, good enough for convenience and not for permissions.
    """

    def program(self) -> str:
        """Return its name as the system has it, cut at 15 bytes; empty if it is not known."""
        ...

    def command(self) -> str:
        """Return its command line, words apart by spaces; empty if it is not known."""
        ...

    def user(self) -> int:
        """Return the number of the user whose program it is."""
        ...

    def makes_directory(self) -> bool:
        """Return whether it seems to be about to create a directory."""
        ...
