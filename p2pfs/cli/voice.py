"""The output of the command, as the user wants it: as text, as JSON, or nothing.

All printing is done here, and by `screen` on terminals. Text from the servent goes through
`printable`, because peers wrote parts of it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import locale
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

from p2pfs.journal import printable
from p2pfs.wording import Estimate, Record, field_lines, row_line

PLAIN_EVERY_S: Final = 5.0
"""Time between two lines of progress where there is no terminal."""

OnProgress = Callable[[int, int], None]
"""Takes the bytes that are done and their whole number."""


@dataclass
class Voice:
    """How this run of the command speaks. With `--json` it prints one JSON text, always."""

    as_json: bool = False
    is_quiet: bool = False
    """Whether confirmations and progress are left out; results and errors are printed."""
    is_verbose: bool = False

    def done(self, text: str, record: object) -> None:
        """Confirm in one line that a verb is done."""
        if self.as_json:
            print(json.dumps(record))
        self.said(text)

    def said(self, text: str) -> None:
        """Confirm one part of a verb; with --json the whole is printed at the end."""
        if not self.is_quiet and not self.as_json:
            with _closed_is_fine():
                print(printable(text), flush=True)

    def say(self, lines: Sequence[str], record: object) -> None:
        """Confirm a verb in several lines, with the next steps."""
        if self.as_json or not self.is_quiet:
            with _closed_is_fine():
                self.lines(lines, record)
                sys.stdout.flush()  # a servent in the foreground goes on

    def lines(self, lines: Sequence[str], record: object) -> None:
        """Print a result, also with --quiet."""
        if self.as_json:
            print(json.dumps(record))
        for line in () if self.as_json else lines:
            print(printable(line))

    def fields(self, record: Record) -> None:
        """Show one record, a line for each field."""
        if self.as_json:
            print(json.dumps(record))
            return
        for key, value in record.items():
            print("\n".join(field_lines(key, value)))

    def table(self, rows: Sequence[Record], columns: Sequence[str], nothing: str) -> None:
        """Show records as a table on a terminal, or else with tabs between the columns.

        Without records `nothing` goes to stderr; a program that reads the output gets no line.
        """
        if self.as_json:
            print(json.dumps(rows))
        elif not rows:
            self.note(nothing)
        elif sys.stdout.isatty():
            from p2pfs.cli.screen import show_table  # noqa: PLC0415 - it is slow to load

            show_table(rows, columns)
        else:
            for row in rows:
                print(row_line(row, columns))

    def note(self, text: str) -> None:
        """Print advice on stderr, unless --quiet or --json is given."""
        if not self.is_quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Print a warning on stderr; with --json it is part of the result instead."""
        if not self.as_json:
            complain(text)

    def aside(self, text: str) -> None:
        """Print advice on stderr, also with --json, which has no place for it."""
        if not self.is_quiet:
            complain(text)

    def failed(self, text: str, status: int, hint: str = "") -> None:
        """Say why there is no result; people get the hint too."""
        if self.as_json:
            with contextlib.suppress(OSError):
                print(json.dumps({"error": text, "status": status}), flush=True)
                return
        complain(text)
        if hint and not self.as_json:
            with contextlib.suppress(OSError):
                print(hint, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[OnProgress]:
        """Show on stderr, in one place, how something goes on."""
        if self.is_quiet:
            yield lambda _done, _size: None
        elif has_screen(sys.stderr):
            from p2pfs.cli.screen import progress_bar  # noqa: PLC0415 - it is slow to load

            with progress_bar(title) as on_progress:
                yield on_progress
        else:
            yield _plain_progress(title)


@contextlib.contextmanager
def _closed_is_fine() -> Iterator[None]:
    """Let a verb succeed though its output is closed: it is done, and nobody reads of it."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EBADF:
            raise


def complain(text: str) -> None:
    """Print one line to stderr, if anybody takes it."""
    with contextlib.suppress(OSError):
        print(f"p2pfs: {printable(text)}", file=sys.stderr, flush=True)


def prompt(text: str) -> None:
    """Ask for something on stderr, in the line where it is typed."""
    with contextlib.suppress(OSError):
        print(text, end="", file=sys.stderr, flush=True)


def has_screen(stream: TextIO) -> bool:
    """Return whether lines can be rewritten there; a dumb terminal cannot."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def told(error: OSError) -> str:
    """Return the text of an OSError, without its number."""
    place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{place}{error.strerror or error}"


def typed(text: str) -> str:
    """Decode an argument that was typed on a terminal whose encoding is not UTF-8.

    Python gives us bytes that are not UTF-8 as surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        with contextlib.suppress(UnicodeError, LookupError):
            return os.fsencode(text).decode(locale.getencoding())
    return text


def _plain_progress(title: str) -> OnProgress:
    """Return a function that prints a line of progress now and then."""
    estimate = Estimate()
    printed_at = time.monotonic()

    def on_progress(done: int, size: int) -> None:
        nonlocal printed_at
        estimate.reached(done, size)
        if time.monotonic() - printed_at >= PLAIN_EVERY_S:
            printed_at = time.monotonic()
            with contextlib.suppress(OSError):
                text = printable(f"{title}: {estimate.text()}")
                print(text, file=sys.stderr, flush=True)

    return on_progress
