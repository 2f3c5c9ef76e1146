"""Another servent's user who reads all that he sees, again and again, while somebody writes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.helpers.mounted import PATIENCE_S, until


class Onlooker:
    """Collects every content of every file below one directory, on a thread of its own.

    Errors are honest answers to who reads what somebody changes; bytes must be right.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._seen: dict[str, set[bytes]] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_on)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def seen(self) -> dict[str, set[bytes]]:
        """Return all contents so far, by path below the directory."""
        with self._lock:
            return {path: set(contents) for path, contents in self._seen.items()}

    def wait_for(self, path: str, content: bytes) -> None:
        """Return when a file was seen with this content."""
        until(lambda: content in self.seen().get(path, ()))

    def _look_on(self) -> None:
        known: dict[Path, int] = {}
        while not self._is_over.wait(0.02):
            for path in self._files():
                try:
                    inode = path.stat().st_ino  # another for each content
                    if known.get(path) == inode:
                        continue
                    content = path.read_bytes()
                except OSError:
                    continue
                known[path] = inode
                with self._lock:
                    name = str(path.relative_to(self._directory))
                    self._seen.setdefault(name, set()).add(content)

    def _files(self) -> Iterator[Path]:
        for directory, _, names in os.walk(self._directory):
            for name in names:
                if self._is_over.is_set():
                    return
                yield Path(directory, name)
