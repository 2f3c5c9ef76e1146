"""The Unix socket behind the verbs: only its owner, and root, can use it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from typing import Final

import trio

from p2pfs.config import socket_name
from p2pfs.errors import UnreachableError, UsageError
from p2pfs.link.sockets import CONNECT_S, LISTEN_BACKLOG, accept_stream

_PEER_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class UnixListener:
    """A listening Unix socket that only its owner, and root, can use."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        self._socket = trio.socket.from_stdlib_socket(sock)
        self._path = path

    async def accept(self) -> trio.SocketStream:
        """Wait for the next connection from our own user or root; others are hung up on."""
        while True:
            stream = await accept_stream(self._socket)
            if _peer_uid(stream.socket) in (0, os.geteuid()):
                return stream
            stream.socket.close()

    async def aclose(self) -> None:
        """Stop listening and remove the socket file."""
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        await trio.lowlevel.checkpoint()


async def listen_unix(path: str) -> UnixListener:
    """Listen on a Unix socket at `path`, mode 0600.

    The file of a servent that was killed is replaced. Two servents that start at the same
    moment are kept apart by the lock on the state directory, not here.

    Raises:
        UsageError: somebody listens there, or a file that is no socket is in the way.
        OSError: the directory cannot be written.
    """
    await _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The mode of the socket becomes that of the file. Unlike umask this touches
        # nobody else in the process, and unlike chmod it leaves no gap.
        os.fchmod(sock.fileno(), 0o600)
        with socket_name(path) as name:
            sock.bind(name)
        sock.listen(LISTEN_BACKLOG)
        return UnixListener(sock, path)
    except BaseException:
        sock.close()
        raise


async def dial_unix(path: str) -> trio.SocketStream:
    """Connect to the Unix socket at `path`.

    Raises:
        UnreachableError: nobody listens there.
    """
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_name(path) as name, trio.fail_after(CONNECT_S):
            await sock.connect(name)
    except (OSError, trio.TooSlowError) as error:
        sock.close()
        raise UnreachableError(f"nobody listens on {path}") from error
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def _remove_stale(path: str) -> None:
    try:
        is_socket = stat.S_ISSOCK(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise UsageError(f"{path} is in the way: it is not a socket")
    try:
        stream = await dial_unix(path)
    except UnreachableError:
        os.unlink(path)
        return
    await stream.aclose()
    raise UsageError(f"a servent is running already: it listens on {path}")


def _peer_uid(sock: trio.socket.SocketType) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(raw)
    return int(uid)
