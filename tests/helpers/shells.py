"""A shell on a terminal of its own, in which a test types."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

TIMEOUT_S = 60


class Shell:
    """Where the test types, and what it sees."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.seen = ""
        """All that the shell wrote, echo and control sequences with it."""

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._terminal, text.encode())

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return when the shell has written this since the last wait."""
        ends_at = time.monotonic() + TIMEOUT_S
        while (match := re.search(pattern, self.seen, re.DOTALL)) is None:
            rest = ends_at - time.monotonic()
            if rest <= 0 or not select.select([self._terminal], [], [], rest)[0]:
                raise AssertionError(f"not seen: {pattern}; seen: {self.seen!r}")
            self.seen += os.read(self._terminal, 65_536).decode(errors="replace")
        self.seen = self.seen[match.end() :]
        return match


@contextmanager
def shell(command: Sequence[str], **environment: str) -> Iterator[Shell]:
    """Start a shell that ends with the block."""
    master, slave = os.openpty()
    with subprocess.Popen(
        ["setsid", "--ctty", *command],  # job control needs a terminal that is the shell's own
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200"} | environment,
    ) as process:
        os.close(slave)
        try:
            yield Shell(master)
        finally:
            os.close(master)
            process.kill()
