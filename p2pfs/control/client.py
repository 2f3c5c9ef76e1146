"""The command line's side: find a running servent, ask it, wait for its answer.

Blocking, and light to import. Only `get` and `publish` may touch a mountpoint: a stuck mount
must not keep `status` or `unmount` from working.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NotRequired, TypedDict, cast

from p2pfs.config import SHARED, runtime_directories, socket_name
from p2pfs.control import RECORD, SILENCE_S, ExitStatus, VerbError
from p2pfs.control.opening import Destination, SourceFile
from p2pfs.control.paths import Id, SubtreeName, TreePath, here, holds, place_of
from p2pfs.errors import NotFoundError, UsageError
from p2pfs.state import lock_directory

OnProgress = Callable[[int, int], None]
"""Takes the number of bytes done, and of all bytes."""

SERVENT_END_S: Final = 30.0
"""The time in which a servent says BYE, syncs and unmounts."""

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class Row(TypedDict):
    """An entry of a directory: a file with its size and id, or another directory."""

    name: str
    is_directory: bool
    size: NotRequired[int]
    id: NotRequired[str]
    place: NotRequired[str]
    """Where a path leads that was looked at; a servent of an older version does not say."""


class Hangup:
    """Ends the requests that were made with it, from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self.is_ended = False

    @contextlib.contextmanager
    def covers(self, connection: socket.socket) -> Iterator[None]:
        """Let a connection be ended, for the length of the block."""
        with self._lock:
            if self.is_ended:
                raise ConnectionError
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)

    def end(self) -> None:
        """End all requests, running and later ones: each raises VerbError."""
        with self._lock:
            self.is_ended = True
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class Running:
    """A servent that answers."""

    pid: int
    mountpoint: str | None
    state_directory: str
    control_path: str

    @property
    def shared_directory(self) -> str:
        """The directory behind `shared/`."""
        return os.path.join(self.state_directory, SHARED)


def running_servents() -> list[Running]:
    """Return the servents of this user that run now."""
    found = (_servent_at(path) for path in _sockets())
    return [running for running in found if running is not None and _answers(running)]


def choose_servent(directory: str | None, path: str | None = None) -> Running:
    """Return the servent whose mount holds `directory`, or else that of a path that leads into one.

    If neither tells, it is the one whose mount holds the current directory, or the only one. A
    servent without a mount goes by its state directory.

    Raises:
        VerbError: there is none, or it is not clear which.
    """
    running = running_servents()
    if directory is not None:
        place = _place_of(directory, running)
        around = _around(running, place)
        around = around or [one for one in running if one.state_directory == place]
        if not around:
            raise VerbError(f"no servent runs at {directory}", ExitStatus.NO_SERVENT)
        return around[0]
    for place in (_place_of(path, running) if path else "", here()):
        if around := _around(running, place):
            return around[0]
    if not running:
        raise VerbError("no servent is running", ExitStatus.NO_SERVENT)
    if len(running) > 1:
        choices = ", ".join(sorted(one.mountpoint or one.state_directory for one in running))
        raise VerbError(
            f"several servents are running; choose with -m: {choices}", ExitStatus.USAGE
        )
    return running[0]


def servent_of(directory: str) -> Running:
    """Return the servent of exactly this mountpoint or state directory.

    Raises:
        VerbError: there is none.
    """
    running = running_servents()
    place = _place_of(directory, running)
    for one in running:
        if place in (one.mountpoint, one.state_directory):
            return one
    raise VerbError(f"no servent runs at {directory}", ExitStatus.NO_SERVENT)


def forget_dead(directory: str) -> None:
    """Remove the socket and the record of a killed servent of this directory."""
    for path in _records():
        record = _read_record(path)
        if record is None or directory not in (record.mountpoint, record.state_directory):
            continue
        # While we hold the lock none can start there; a running servent would hold it.
        with contextlib.suppress(UsageError), lock_directory(Path(record.state_directory)):
            Path(record.control_path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def dead_place_of(directory: str, dead: Collection[str]) -> str | None:
    """Return which of some dead mountpoints a path leads to, without a system call on any."""
    place = place_of(directory, [*dead, *_mountpoints(running_servents())])
    return place if place in dead else None


def ask(
    running: Running,
    verb: str,
    args: Mapping[str, object] | None = None,
    on_progress: OnProgress = lambda _done, _size: None,
    descriptors: Sequence[int] = (),
    hangup: Hangup | None = None,
) -> object:
    """Have the servent do a verb and return its result.

    `on_progress` is called with the bytes done and their whole number; the servent gets
    descriptors of its own for the same open files. Another thread may end it by `hangup`.

    Raises:
        VerbError: it could not, it is gone, or it was silent for 20 s.
    """

    def on_piece(piece: Mapping[str, object]) -> None:
        on_progress(cast("int", piece["done_bytes"]), cast("int", piece["size"]))

    return _asked(running, verb, args or {}, on_piece, descriptors, hangup)


def list_directory(
    running: Running, target: TreePath, hangup: Hangup | None = None
) -> tuple[Sequence[Row], str | None]:
    """Return the entries of a directory, by name, and the reason if some are missing.

    Raises:
        VerbError: the servent could not list it.
    """
    rows: list[Row] = []

    def on_piece(piece: Mapping[str, object]) -> None:
        rows.extend(cast("Sequence[Row]", piece["rows"]))

    end = _asked(running, "list", {"path": str(target)}, on_piece, (), hangup)
    return rows, cast("Mapping[str, str | None]", end)["partial"]


def _asked(
    running: Running,
    verb: str,
    args: Mapping[str, object],
    on_piece: Callable[[Mapping[str, object]], None],
    descriptors: Sequence[int],
    hangup: Hangup | None,
) -> object:
    request = {"verb": verb, "args": dict(args)}
    try:
        with _connected(running) as connection, (hangup or Hangup()).covers(connection):
            _send(connection, json.dumps(request).encode() + b"\n", descriptors)
            return _result(connection, on_piece)
    except TimeoutError as error:
        raise VerbError("the servent does not answer", ExitStatus.UNREACHABLE) from error
    except (OSError, ValueError) as error:
        raise VerbError("the servent ended before it answered", ExitStatus.NO_SERVENT) from error


def get(
    running: Running,
    target: TreePath | Id,
    destination: Destination,
    on_progress: OnProgress,
    *,
    typed: str | None = None,
    hangup: Hangup | None = None,
) -> int:
    """Download a file, and return its size. Errors name `typed`, if it is given.

    Raises:
        VerbError: the servent could not.
        UsageError, OSError: the destination did not take it.
    """
    args = {"path": str(target), **destination.arguments}
    if typed is not None:
        args["typed"] = typed
    try:
        done = ask(running, "get", args, on_progress, destination.descriptors, hangup)
    except VerbError as error:
        raise destination.failure(error) from error
    answer = cast("Mapping[str, object]", done)
    destination.finish(is_there_already=bool(answer["is_there_already"]))
    return cast("int", answer["size"])


def publish(
    running: Running,
    source: SourceFile,
    path: str,
    on_progress: OnProgress,
    *,
    hangup: Hangup | None = None,
) -> Mapping[str, object]:
    """Copy a file to a path in `shared/`, and return its path and state.

    Raises:
        VerbError: the servent could not.
    """
    args = {"path": str(TreePath(SubtreeName.SHARED, path)), "mode": source.mode}
    done = ask(running, "publish", args, on_progress, [source.descriptor], hangup)
    return cast("Mapping[str, object]", done)


def end_servent(running: Running) -> None:
    """Have a servent end, and return when its process is gone.

    Raises:
        VerbError: it did not end in time, not even after SIGTERM.
    """
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(running.pid)
        try:
            if (
                _listener_of(running) == running.pid
            ):  # else another process may have its number by now
                _end(running, process)
        finally:
            os.close(process)


def _end(running: Running, process: int) -> None:
    with contextlib.suppress(VerbError):  # gone already, or stuck
        ask(running, "shutdown")
    if not _ended(process):
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not _ended(process):
            text = f"the servent (process {running.pid}) does not end"
            raise VerbError(text, ExitStatus.FAILED)


def _place_of(directory: str, running: Sequence[Running]) -> str:
    """Return where a path leads, without a system call inside a mount."""
    try:
        return place_of(directory, _mountpoints(running))
    except (NotFoundError, OSError):  # it leads nowhere, and no servent is there
        return ""


def _mountpoints(running: Sequence[Running]) -> list[str]:
    return [one.mountpoint for one in running if one.mountpoint]


def _around(running: Sequence[Running], place: str) -> list[Running]:
    """Return the servents whose mounts hold a place, the innermost first."""
    around = [one for one in running if one.mountpoint and holds(one.mountpoint, place)]
    return sorted(around, key=lambda one: len(one.mountpoint or ""), reverse=True)


def _ended(process: int) -> bool:
    return bool(select.select([process], [], [], SERVENT_END_S)[0])


def _result(connection: socket.socket, on_piece: Callable[[Mapping[str, object]], None]) -> object:
    for line in connection.makefile("rb"):
        answer = json.loads(line)
        if "ok" in answer:
            result: object = answer["ok"]
            return result
        if "error" in answer:
            raise VerbError(str(answer["error"]), ExitStatus(answer["status"]))
        progress = answer.get("progress")
        if progress is not None:
            on_piece(progress)
    raise ConnectionError


@contextlib.contextmanager
def _connected(running: Running) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SILENCE_S)
        with socket_name(running.control_path) as name:
            connection.connect(name)
        yield connection


def _send(connection: socket.socket, request: bytes, descriptors: Sequence[int]) -> None:
    if descriptors:
        request = request[socket.send_fds(connection, [request], descriptors) :]
    if request:  # an empty send fails too when the servent has answered already
        connection.sendall(request)


def _answers(running: Running) -> bool:
    return _listener_of(running) is not None


def _listener_of(running: Running) -> int | None:
    """Return the process that listens on the servent's socket, or None if none does."""
    try:
        with _connected(running) as connection:
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
    except OSError:
        return None
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    return pid


def _records() -> list[Path]:
    return [path for place in runtime_directories() for path in sorted(place.glob("*.json"))]


def _sockets() -> list[Path]:
    return [path for place in runtime_directories() for path in sorted(place.glob("*.sock"))]


def _servent_at(path: Path) -> Running | None:
    """Return which servent listens on a socket, as its record says or, without one, itself."""
    known = _read_record(path.with_suffix(".json"))
    if known is not None:
        return known
    with contextlib.suppress(VerbError):
        return _running(ask(Running(0, None, "", os.fspath(path)), RECORD), path)
    return None


def _read_record(path: Path) -> Running | None:
    try:
        return _running(json.loads(path.read_text()), path.with_suffix(".sock"))
    except (OSError, ValueError):
        return None


def _running(record: object, control_path: Path) -> Running | None:
    match record:
        case {"pid": int(pid), "mountpoint": None | str() as mountpoint, "state": str(state)}:
            return Running(pid, mountpoint, state, os.fspath(control_path))
    return None
