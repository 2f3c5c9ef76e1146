"""Keep invitations out of the list of processes: that of a private network holds its key.

Every user of a machine can read the command lines of all (`ps`). So a command line with an
invitation is replaced at once, by one that reads it from its standard input; and a servent that
goes to the background gets it the same way.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from p2pfs.cli.voice import prompt
from p2pfs.config import parse_join
from p2pfs.errors import UsageError

STDIN: Final = "-"
"""Stands for the lines of the standard input, where an address or invitation could."""

FILE_MARK: Final = "@"
"""Before the name of a file: stands for the lines in it."""

MAX_LINES_BYTES: Final = 65_536
"""The most that is read: a hundred invitations, and the capacity of a pipe."""

_INVITATION: Final = re.compile(r"(?:p2pfs|peerfs):/*join/[^,]+", re.IGNORECASE)
"""One that is damaged, or was broken by a mail, is to be hidden too. A comma ends it in `-o`."""

_HELD: Final = "p2pfs-input"

_TAKERS: Final = frozenset({"mount", "serve", "join"})
"""Verbs whose command line may hold one, in words of its own or in those of `-o`."""


def conceal(words: Sequence[str]) -> None:
    """Start this command anew without the invitations in its words, if there are any.

    It returns if there are none.
    """
    found = ["".join(one.split()) for word in words[1:] for one in _INVITATION.findall(word)]
    verb = next((word for word in words[1:] if not word.startswith("-")), "")
    is_helper = os.path.basename(words[0]).startswith("mount.")
    if not found or not (is_helper or verb in _TAKERS):
        return
    _become_input("\n".join(found) + "\n")
    arguments = [_INVITATION.sub(STDIN, word) for word in sys.orig_argv[1:]]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - a list


def _become_input(text: str) -> None:
    """Let the standard input be a text."""
    descriptor = held(text)
    os.dup2(descriptor, 0)
    os.close(descriptor)


def held(text: str) -> int:
    """Return a descriptor from which a text can be read; it lies in memory alone."""
    descriptor = os.memfd_create(_HELD)
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def check_join(text: str) -> object:
    """Return the meaning of a word of the command line, without opening the file that it may name.

    Raises:
        ValueError: it is no address, no invitation, and stands for none.
    """
    if text == FILE_MARK:
        raise ValueError(f"{FILE_MARK} stands before the name of a file, and there is none")
    if text == STDIN or text.startswith(FILE_MARK):
        return text
    return parse_join(text)


def expanded(joins: Iterable[str]) -> list[str]:
    """Return addresses and invitations, with those for which `-` and `@FILE` stand.

    Raises:
        UsageError: there is none where one was to be read, or something else.
    """
    return list(dict.fromkeys(line for join in joins for line in _lines_of(join)))


def _lines_of(join: str) -> list[str]:
    if join == STDIN:
        return _lines_in(_read_input(), "" if _is_held() else "the standard input")
    if join.startswith(FILE_MARK):
        try:
            with open(os.path.expanduser(join[1:]), encoding="utf-8", errors="replace") as file:
                return _lines_in(file.read(MAX_LINES_BYTES), join)
        except OSError as error:
            raise UsageError(f"{join}: {error.strerror}") from error
    return [join]


def _is_held() -> bool:
    """Return whether the standard input is what the command line was concealed in."""
    return os.readlink("/proc/self/fd/0").startswith(f"/memfd:{_HELD}")


@functools.cache
def _read_input() -> str:
    """Read one line where a person types it, else all."""
    if sys.stdin.isatty():
        prompt("address or invitation: ")
        return sys.stdin.readline()
    return sys.stdin.read(MAX_LINES_BYTES)


def _lines_in(text: str, place: str) -> list[str]:
    lines = {number: line.strip() for number, line in enumerate(text.split("\n"), 1)}
    lines = {number: line for number, line in lines.items() if line}
    if not lines:
        raise UsageError(f"there is no address and no invitation in {place}")
    for number, line in lines.items():
        try:
            parse_join(line)
        except ValueError as error:
            raise UsageError(f"{place}, line {number}: {error}" if place else str(error)) from error
    return list(lines.values())
