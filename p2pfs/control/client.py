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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from p2pfs.config import SHARED, runtime_directories, socket_name
from p2pfs.control import RECORD, SILENCE_S, ExitStatus, VerbError
from p2pfs.control.opening import Destination, Source
from p2pfs.control.paths import Id, Subtree, TreePath
from p2pfs.errors import UsageError
from p2pfs.state import lock_directory

OnProgress = Callable[[int, int], None]
"""Takes the bytes done and their whole number."""

END_S: Final = 30.0
"""A servent that was told to end has said BYE, synced and unmounted by then."""

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


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


def choose_servent(directory: str | None) -> Running:
    """Return the servent of this mountpoint, of the current directory, or the only one.

    A servent without a mount goes by its state directory.

    Raises:
        VerbError: there is none, or it is not clear which.
    """
    running = running_servents()
    if directory is not None:
        places = places_of(directory)
        found = [one for one in running if {one.mountpoint, one.state_directory} & places]
        if not found:
            raise VerbError(f"no servent runs at {directory}", ExitStatus.NO_SERVENT)
        return found[0]
    around = [one for one in running if one.mountpoint and _holds(one.mountpoint, _here())]
    if around:
        return max(around, key=lambda one: len(one.mountpoint or ""))
    if not running:
        raise VerbError("no servent is running", ExitStatus.NO_SERVENT)
    if len(running) > 1:
        choices = ", ".join(sorted(one.mountpoint or one.state_directory for one in running))
        raise VerbError(
            f"several servents are running; choose with -m: {choices}", ExitStatus.USAGE
        )
    return running[0]


def forget_dead(directory: str) -> None:
    """Remove the socket and the record of a killed servent of this directory."""
    places = places_of(directory)
    for path in _records():
        record = _read_record(path)
        if record is None or not {record.mountpoint, record.state_directory} & places:
            continue
        # While we hold the lock no other can start there, and who runs there has it.
        with contextlib.suppress(UsageError), lock_directory(Path(record.state_directory)):
            Path(record.control_path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def ask(
    running: Running,
    verb: str,
    args: Mapping[str, object] | None = None,
    on_progress: OnProgress = lambda _done, _size: None,
    descriptors: Sequence[int] = (),
) -> object:
    """Have the servent do a verb and return its result.

    `on_progress` is called with the bytes done and their whole number; the servent gets
    descriptors of its own for the same open files.

    Raises:
        VerbError: it could not, it is gone, or it was silent for 20 s.
    """
    request = {"verb": verb, "args": dict(args or {})}
    try:
        with _connected(running) as connection:
            _send(connection, json.dumps(request).encode() + b"\n", descriptors)
            return _result(connection, on_progress)
    except TimeoutError as error:
        raise VerbError("the servent does not answer", ExitStatus.UNREACHABLE) from error
    except (OSError, ValueError) as error:
        raise VerbError("the servent ended before it answered", ExitStatus.NO_SERVENT) from error


def get(
    running: Running, target: TreePath | Id, destination: Destination, on_progress: OnProgress
) -> None:
    """Download a file.

    Raises:
        VerbError: the servent could not.
        UsageError, OSError: the destination did not take it.
    """
    args = {"path": str(target), **destination.arguments}
    try:
        done = ask(running, "get", args, on_progress, destination.descriptors)
    except VerbError as error:
        raise destination.failure(error) from error
    is_there_already = bool(cast("Mapping[str, object]", done)["is_there_already"])
    destination.finish(is_there_already=is_there_already)


def publish(
    running: Running, source: Source, path: str, on_progress: OnProgress
) -> Mapping[str, object]:
    """Copy a file to a path in `shared/`, and return how it stands there.

    Raises:
        VerbError: the servent could not.
    """
    args = {"path": str(TreePath(Subtree.SHARED, path)), "mode": source.mode}
    done = ask(running, "publish", args, on_progress, [source.descriptor])
    return cast("Mapping[str, object]", done)


def end_servent(running: Running) -> None:
    """Have a servent end, and return when its process is gone.

    Raises:
        VerbError: it did not end in time, not even when it was sent SIGTERM.
    """
    with contextlib.suppress(ProcessLookupError):
        process = os.pidfd_open(running.pid)
        try:
            if _listener_of(running) == running.pid:  # else its number may be another's by now
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


def places_of(directory: str) -> set[str]:
    """Return what `directory` may be known as.

    It is not looked at itself, but for whether it is a symbolic link, which the kernel answers
    without the servent.
    """
    places = set[str]()
    whole = os.path.abspath(directory)
    while whole not in places:
        parent, name = os.path.split(whole)
        real = os.path.join(os.path.realpath(parent), name)
        places |= {whole, real}
        with contextlib.suppress(OSError):
            whole = os.path.normpath(os.path.join(os.path.dirname(real), os.readlink(real)))
    return places


def _ended(process: int) -> bool:
    return bool(select.select([process], [], [], END_S)[0])


def _result(connection: socket.socket, on_progress: Callable[[int, int], None]) -> object:
    for line in connection.makefile("rb"):
        answer = json.loads(line)
        if "ok" in answer:
            result: object = answer["ok"]
            return result
        if "error" in answer:
            raise VerbError(str(answer["error"]), ExitStatus(answer["status"]))
        progress = answer.get("progress")
        if progress is not None:
            on_progress(progress["done_bytes"], progress["size"])
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


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # below a mount that is gone
        return "/"


def _holds(mountpoint: str, path: str) -> bool:
    return path == mountpoint or path.startswith(mountpoint.rstrip("/") + "/")
