"""The history of fetches: which content, for which user and program, from which peers, and when.

It is kept in the state directory over restarts, for its owner alone. It is bounded: when the file
is full, its older half goes. A crash loses at most the fetches of the last tenth of a second, and
only where many end one after the other.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pwd
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import trio

from p2pfs.latest import Latest
from p2pfs.protocol import FileId, PeerInfo, parent_of
from p2pfs.state import open_private, replace_file
from p2pfs.threads import RunInThread

log = logging.getLogger(__name__)

MAX_HISTORY_BYTES: Final = 4 * 1024**2
"""The largest size of the file: some 10,000 fetches. To read and parse it takes 50 ms."""

MAX_UNWRITTEN: Final = 10_000
"""The most fetches that wait to be written; a stuck disk takes no more memory."""

MAX_OPENED: Final = 10_000
"""The most contents, and directories, whose last opener is remembered."""

MAX_ROW_PEERS: Final = 8
"""The most peers in one row: those that gave most bytes."""

WRITES_APART_S: Final = 0.1
"""The pause after each writing. A fetch that comes in it waits, to be written with others: by
itself each took a fifth of the time that a small file takes."""

Record = Mapping[str, object]


class History:
    """The book of fetches."""

    def __init__(
        self, path: str | Path, wall_clock: Callable[[], float], run_in_thread: RunInThread
    ) -> None:
        """Keep the book at this path."""
        self._path = os.fspath(path)
        self._wall_clock = wall_clock
        self._run_in_thread = run_in_thread
        self._opened: Latest[FileId, tuple[str, int]] = Latest(MAX_OPENED)
        self._opened_in: Latest[str, tuple[str, int]] = Latest(MAX_OPENED)
        self._waiting: list[Record] = []
        self._has_come = trio.Event()
        self._writing = threading.Lock()

    def opened(self, file_id: FileId, program: str, uid: int, directory: str | None = None) -> None:
        """Note the program and user that open a content, in case it is fetched. Any thread.

        Other contents of the directory that are fetched ahead are theirs too.
        """
        self._opened[file_id] = program, uid
        if directory is not None:
            self._opened_in[directory] = program, uid

    def fetched(
        self,
        path: str,
        file_id: FileId,
        size: int,
        taken: Mapping[PeerInfo, int],
        *,
        is_whole: bool,
    ) -> None:
        """Note that bytes of a content have come from these peers. For trio's thread."""
        around = self._opened_in.get(parent_of(path), ("", None))
        program, uid = self._opened.get(file_id, around)
        givers = sorted(taken.items(), key=lambda one: -one[1])[:MAX_ROW_PEERS]
        row = {
            "time": round(self._wall_clock(), 3),
            "path": path,
            "id": file_id.hex(),
            "size": size,
            "bytes": sum(taken.values()),
            "whole": is_whole,
            "uid": uid,
            "program": program,
            "peers": [{"id": one.id, "name": one.name, "bytes": count} for one, count in givers],
        }
        if len(self._waiting) < MAX_UNWRITTEN:
            self._waiting.append(row)
            self._has_come.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write new fetches to the file, until cancelled; `close` writes the rest."""
        task_status.started()
        while True:
            await self._has_come.wait()
            self._has_come = trio.Event()
            await self._run_in_thread(self.close)
            await trio.sleep(WRITES_APART_S)

    def close(self) -> None:
        """Write the waiting fetches. If the disk refuses, they are lost, with a warning."""
        with self._writing:
            waiting, self._waiting = self._waiting, []
            if not waiting:
                return
            # Encoded here, in a thread and together: it took a fifth of the time that trio's
            # thread spent on a small file.
            lines = [json.dumps(row).encode() + b"\n" for row in waiting]
            try:
                self._append(b"".join(lines))
            except OSError as error:
                log.warning("history not written lines=%d reason=%s", len(waiting), error)

    async def rows(self, last: int) -> list[Record]:
        """Return the latest fetches, the oldest of them first."""
        await self._run_in_thread(self.close)
        lines = await self._run_in_thread(self._lines)
        found = (_row(line) for line in reversed(lines))
        latest = [row for row in found if row is not None][:last]
        return latest[::-1]

    async def clear(self) -> int:
        """Forget all fetches; return their number. OSError if they stay on the disk."""
        count = len(await self.rows(MAX_HISTORY_BYTES))
        await self._run_in_thread(self._empty)
        return count

    def _append(self, data: bytes) -> None:
        with open(self._path, "a+b", opener=open_private) as file:
            file.write(_line_ended(file) + data)
            size = file.tell()
        if size > MAX_HISTORY_BYTES:
            kept, room = [], MAX_HISTORY_BYTES // 2
            for line in reversed(self._lines()):
                room -= len(line)
                if room < 0:
                    break
                kept.append(line)
            replace_file(self._path, b"".join(reversed(kept)))

    def _lines(self) -> list[bytes]:
        with contextlib.suppress(FileNotFoundError):
            return Path(self._path).read_bytes().splitlines(keepends=True)
        return []

    def _empty(self) -> None:
        with self._writing, contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def _line_ended(file: BinaryIO) -> bytes:
    """Return what ends the last line of a book, if a full disk or a power cut has cut it."""
    if not file.seek(0, os.SEEK_END):
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def _row(line: bytes) -> Record | None:
    """Return the row of a line, or None for a line that a crash has cut."""
    try:
        row = json.loads(line)
        uid = row.pop("uid")
        row["user"] = None if uid is None else _name_of(uid)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(row)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)
