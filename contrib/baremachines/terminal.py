"""What a person at a terminal sees and types."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


class Terminal:
    """One end of a terminal at which a command runs."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int, silence_s: float) -> None:
        self.seen = ""
        self._process = process
        self._descriptor = descriptor
        self._silence_s = silence_s

    def wait_for(self, text: str) -> None:
        """Return when the text has been shown."""
        ends_at = time.monotonic() + self._silence_s
        while text not in self.seen:
            assert time.monotonic() < ends_at, f"not shown: {text}: {self.seen}"
            assert self._read(), f"not shown: {text}: {self.seen}"

    def type(self, text: str) -> None:
        """Type as a person does; the terminal may show it."""
        os.write(self._descriptor, text.encode())

    def wait(self, answers: Mapping[str, str] | None = None) -> int:
        """Return the exit status when the command has ended.

        Each time that a text of `answers` has newly been shown, what it stands for is typed.
        """
        answered = dict.fromkeys(answers or {}, 0)
        while self._read():
            for question, count in answered.items():
                if self.seen.count(question) > count:
                    answered[question] += 1
                    self.type((answers or {})[question])
        return self._process.wait(self._silence_s)

    def _read(self) -> bool:
        if not select.select([self._descriptor], [], [], self._silence_s)[0]:
            return False
        try:
            data = os.read(self._descriptor, 65_536)
        except OSError:  # what Linux gives when the other end is closed
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@contextlib.contextmanager
def at_a_terminal(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    silence_s: float = 60.0,
) -> Iterator[Terminal]:
    """Run a command at a terminal of its own; `silence_s` is how long it may show nothing."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours, silence_s)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
