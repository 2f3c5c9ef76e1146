"""Answer the command line while the servent runs."""

from __future__ import annotations

import array
import contextlib
import errno
import json
import logging
import os
import select
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import trio

from p2pfs.config import Config
from p2pfs.control import ALIVE_EVERY_S, MAX_REQUEST_BYTES, RECORD, ExitStatus, exit_status_of
from p2pfs.control.files import is_temporary
from p2pfs.control.verbs import HANDED, VERBS, Args, Servent
from p2pfs.errors import P2pfsError, UsageError
from p2pfs.link import UnixListener, listen_unix
from p2pfs.tasks import guarded, kept_up

log = logging.getLogger(__name__)

REQUEST_S: Final = 10.0
"""The time that a client gets to send its request."""

SHUTDOWN: Final = "shutdown"
"""The verb that ends the process."""

DOOR_LOOK_S: Final = 30.0
"""The time between two checks that socket and record still exist."""

MAX_DESCRIPTORS: Final = 4
"""The most descriptors of one request; `get` has two."""

HUNG_UP_LOOK_S: Final = 0.2
"""The time between two checks whether a client that closed its half has hung up."""

_READ_BYTES: Final = 65_536
_CONTROL_BYTES: Final = trio.socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)


async def serve_control(
    servent: Servent,
    shut_down: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer verbs until cancelled; `shut_down` is what the verb of that name calls.

    Reports started once verbs can connect. When it ends, socket and record are gone.

    Raises:
        UsageError: a servent is running already for this state directory.
    """
    door = _Door(servent.config)
    await door.open()
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            nursery.start_soon(kept_up, door.keep_open)
            while True:
                stream = await door.accept()
                nursery.start_soon(guarded, _Client(servent, shut_down, stream).serve)
    finally:
        with trio.CancelScope(shield=True):
            await door.close()


class _Door:
    """The socket and the record beside it, by which verbs find us."""

    def __init__(self, config: Config) -> None:
        self._path = config.control_path
        self._record = self._path.with_suffix(".json")
        self._text = json.dumps(_record(config))
        self._listener: UnixListener | None = None
        self._inode = 0
        self._opened = trio.Event()

    async def open(self) -> None:
        """Listen, and write the record; neither is there if that fails."""
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        self._listener = await listen_unix(os.fspath(self._path))
        try:
            self._inode = self._path.lstat().st_ino
            self._record.write_text(self._text)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.close()
            raise
        self._opened.set()
        self._opened = trio.Event()

    async def accept(self) -> trio.SocketStream:
        """Wait for the next client."""
        while True:
            if self._listener is None:
                await self._opened.wait()
                continue
            with contextlib.suppress(trio.ClosedResourceError):  # it is opened anew
                return await self._listener.accept()

    async def keep_open(self) -> None:
        """Open it anew when somebody has removed it: programs clean /tmp of old files."""
        while True:
            await trio.sleep(DOOR_LOOK_S)
            if self._is_there():
                continue
            await self.close()
            try:
                await self.open()
                log.info("the control socket was removed, and made anew path=%s", self._path)
            except (OSError, UsageError) as error:
                log.info("the control socket was removed path=%s: %s", self._path, error)

    def _is_there(self) -> bool:
        try:
            return self._path.lstat().st_ino == self._inode and self._record.exists()
        except OSError:
            return False

    async def close(self) -> None:
        """Stop listening, and remove socket and record."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.aclose()
        self._record.unlink(missing_ok=True)


def _record(config: Config) -> Mapping[str, object]:
    """Return the record by which verbs choose this servent."""
    mountpoint: Path | None = config.mountpoint
    return {
        "pid": os.getpid(),
        "mountpoint": mountpoint and os.fspath(mountpoint),
        "state": os.fspath(config.state_directory),
    }


class _Client:
    """One connection: one request, its progress, its answer."""

    def __init__(
        self, servent: Servent, shut_down: Callable[[], None], stream: trio.SocketStream
    ) -> None:
        self._servent = servent
        self._shut_down = shut_down
        self._stream = stream
        self._sending = trio.Lock()
        self._descriptors: list[int] = []
        self._is_out_of_descriptors = False

    async def serve(self) -> None:
        """Serve the client; no fault of the client is raised."""
        async with self._stream:
            try:
                line = b""
                with trio.move_on_after(REQUEST_S):
                    line = await self._receive_line()
                if line:
                    await self._work(line)
            finally:
                await self._close_descriptors()

    async def _receive_line(self) -> bytes:
        """Return the first line, and keep the descriptors that come with it.

        Bytes behind the line are ignored. Of a line that is cut off, its beginning is returned.
        """
        received = bytearray()
        while b"\n" not in received:
            data = await self._receive_with_descriptors()
            is_too_much = len(received) > MAX_REQUEST_BYTES
            if is_too_much or len(self._descriptors) > MAX_DESCRIPTORS:
                return b""
            if not data:
                return bytes(received)
            received += data
        return bytes(received[: received.index(b"\n")])

    async def _work(self, line: bytes) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_gone, nursery.cancel_scope)
            nursery.start_soon(self._show_that_we_are_alive)
            answer = await self._answer(line)
            await self._close_descriptors()  # first: the client goes on with what they hold
            await self._send(answer)
            nursery.cancel_scope.cancel()

    async def _answer(self, line: bytes) -> object:
        try:
            verb, args = _parsed(line)
            if verb == SHUTDOWN:
                return await self._end()
            if verb == RECORD:
                return {"ok": _record(self._servent.config)}
            if self._is_out_of_descriptors:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            args = {**args, HANDED: tuple(self._descriptors)}
            return {"ok": await VERBS[verb](self._servent, args, self._report)}
        except P2pfsError as error:
            return {"error": str(error), "status": exit_status_of(error)}
        except OSError as error:
            shared = self._servent.config.shared_directory
            return {"error": _told(error, shared), "status": ExitStatus.FAILED}
        except Exception:
            log.exception("verb failed request=%r", line)
            return {"error": "a bug of ours: see the log", "status": ExitStatus.FAILED}

    async def _end(self) -> object:
        # The answer goes first: once cancelled we could not send it.
        await self._send({"ok": None})
        self._shut_down()
        return {"ok": None}

    async def _cancel_when_gone(self, scope: trio.CancelScope) -> None:
        while await self._receive():
            pass
        # It may only have said that it has nothing more to say.
        while not _has_hung_up(self._stream.socket):  # noqa: ASYNC110 - poll(2) alone tells
            await trio.sleep(HUNG_UP_LOOK_S)
        scope.cancel()

    async def _show_that_we_are_alive(self) -> None:
        while True:
            await trio.sleep(ALIVE_EVERY_S)
            await self._report(None)

    async def _report(self, progress: object) -> None:
        await self._send({"progress": progress})

    async def _receive(self) -> bytes:
        """Return the next bytes; none at the end."""
        try:
            return await self._stream.receive_some(_READ_BYTES)
        except trio.BrokenResourceError:
            return b""

    async def _receive_with_descriptors(self) -> bytes:
        try:
            data, control, flags, _address = await self._stream.socket.recvmsg(
                _READ_BYTES, _CONTROL_BYTES, trio.socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            return b""
        self._descriptors += _descriptors_in(control)
        self._is_out_of_descriptors |= bool(flags & trio.socket.MSG_CTRUNC)
        return data

    async def _close_descriptors(self) -> None:
        """Close the descriptors in a thread: for a file in our own mount, trio must answer."""
        with trio.CancelScope(shield=True):
            while self._descriptors:
                await trio.to_thread.run_sync(_close, self._descriptors.pop())

    async def _send(self, answer: object) -> None:
        async with self._sending:
            # A client that is gone is noticed where we wait for it.
            with contextlib.suppress(trio.BrokenResourceError):
                await self._stream.send_all(json.dumps(answer).encode() + b"\n")


def _descriptors_in(control: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message: they are ours to close."""
    found = array.array("i")
    for level, kind, data in control:
        if (level, kind) == (trio.socket.SOL_SOCKET, trio.socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) // found.itemsize * found.itemsize])
    return found.tolist()


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # a close that fails after a write that did
        os.close(descriptor)


def _has_hung_up(sock: trio.socket.SocketType) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLHUP)
    return bool(poll.poll(0))


def _parsed(line: bytes) -> tuple[str, Args]:
    try:
        request = json.loads(line)
        verb, args = request["verb"], request["args"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError("not a request") from error
    if not isinstance(verb, str) or not isinstance(args, dict):
        raise UsageError("not a request")
    if verb not in VERBS and verb not in (SHUTDOWN, RECORD):
        raise UsageError(f"this servent, of another version, does not know {verb!r}")
    return verb, args


def _told(error: OSError, shared: Path) -> str:
    """Return an error for people; paths in the share are given as in the mount.

    Names of descriptors and of unfinished copies are left out: no user has typed them.
    """
    text = error.strerror or str(error)
    if not isinstance(error.filename, str) or is_temporary(os.path.basename(error.filename)):
        return text
    place = Path(error.filename)
    is_shared = place.is_relative_to(shared)
    return f"{text}: {Path('shared', place.relative_to(shared)) if is_shared else place}"
