"""Carry the datagrams of a foreign engine through a port of ours, wrapped as we like.

An engine such as libtorrent opens ports of its own and talks to the world directly. It can be told
to send everything through a SOCKS5 proxy (RFC 1928), in which each datagram stands beside the
address that it goes to or comes from. The courier is that proxy, for one engine in this process: it
wraps what leaves, unwraps what comes, and drops what cannot be unwrapped before the engine sees it.
So no stranger's datagram reaches an engine whose datagrams are sealed. What leaves goes where
strangers have told the engine, so nothing is carried to a port of a service, nor to many at once,
and little to where nobody answers.

Others on this machine can connect to the courier too. It wants a password, and takes datagrams
from the engine's port alone.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Final

import trio

from p2pfs.errors import UsageError
from p2pfs.link.rations import Rations
from p2pfs.protocol import Address, Scope, reaches

LOOPBACK: Final = "127.0.0.1"

MAX_DATAGRAM_BYTES: Final = 2_048
"""A message of Mainline has at most some 1,400, wrapped or not."""

CARRIED_AT_ONCE: Final = 16
"""Datagrams carried before other tasks get their turn. They come in bursts, and to wake for each
of them cost an idle servent as much processor time as all else."""

SOCKS_GREETING_S: Final = 10.0
"""How long a client may take to say what it wants; the engine takes no time."""

_DATAGRAM_HEADER: Final = struct.Struct(">HBB4sH")
"""Reserved, fragment, kind of address, address, port."""

_IPV4: Final = 1

_SOCKS_VERSION: Final = b"\x05"
_BY_PASSWORD: Final = b"\x02"
_AUTHENTICATION: Final = b"\x01"
_ASSOCIATE: Final = b"\x05\x03\x00"
_DONE: Final = b"\x00"

Wrap = Callable[[bytes], bytes]
Unwrap = Callable[[bytes], bytes | None]
"""Returns what was wrapped; None if it is not for us."""


class Courier:
    """A SOCKS5 proxy for the datagrams of one engine. IPv4 alone."""

    def __init__(self, outside: socket.socket, wrap: Wrap, unwrap: Unwrap) -> None:
        """Carry through `outside`, which never blocks; `open_courier` opens it."""
        self._outside = outside
        self._wrap = wrap
        self._unwrap = unwrap
        self._inside = _datagram_socket()
        self._rations = Rations()
        self.user, self.password = secrets.token_hex(8), secrets.token_hex(16)
        self.proxy_port = 0
        """Where the engine finds the proxy, on LOOPBACK."""
        self.engine_port = 0
        """From where the engine sends, on LOOPBACK; nothing is carried until it is known."""
        self.is_used = trio.Event()
        """Set once the engine has found the proxy; what it sends before is lost."""
        self.dropped = 0
        """Datagrams from outside that could not be unwrapped."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry, until cancelled."""
        with self._inside, self._outside:
            self._inside.bind((LOOPBACK, 0))
            async with trio.open_nursery() as nursery:
                listeners = await trio.open_tcp_listeners(0, host=LOOPBACK)
                self.proxy_port = listeners[0].socket.getsockname()[1]
                nursery.start_soon(_carry, self._inside, self._carry_out)
                nursery.start_soon(_carry, self._outside, self._carry_in)
                nursery.start_soon(trio.serve_listeners, self._serve, listeners)
                task_status.started()

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Associate one connection with our port inside, until it ends."""
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                with trio.move_on_after(SOCKS_GREETING_S) as scope:
                    if not await self._is_associated(stream):
                        return
                if not scope.cancelled_caught:
                    self.is_used.set()
                    await _wait_closed(stream)

    async def _is_associated(self, stream: trio.SocketStream) -> bool:
        count = (await _exactly(stream, 2))[1]
        if _BY_PASSWORD not in await _exactly(stream, count):
            return False
        await stream.send_all(_SOCKS_VERSION + _BY_PASSWORD)
        user = await _exactly(stream, (await _exactly(stream, 2))[1])
        password = await _exactly(stream, (await _exactly(stream, 1))[0])
        known = f"{self.user}\n{self.password}".encode()
        if not secrets.compare_digest(user + b"\n" + password, known):
            return False
        await stream.send_all(_AUTHENTICATION + _DONE)
        request = await _exactly(stream, 4)
        await _exactly(stream, 6)  # where it will send from: the engine says nothing there
        if request[:3] != _ASSOCIATE or request[3] != _IPV4:
            return False
        host, port = self._inside.getsockname()
        where = ipaddress.IPv4Address(host).packed + struct.pack(">H", port)
        await stream.send_all(_SOCKS_VERSION + _DONE + _DONE + bytes([_IPV4]) + where)
        return True

    def _carry_out(self, datagram: bytes, sender: tuple[str, int]) -> None:
        if sender != (LOOPBACK, self.engine_port) or len(datagram) < _DATAGRAM_HEADER.size:
            return
        _, fragment, kind, host, port = _DATAGRAM_HEADER.unpack_from(datagram)
        to = Address(socket.inet_ntoa(host), port)
        if fragment == 0 and kind == _IPV4 and self._may_carry(to):
            message = self._wrap(datagram[_DATAGRAM_HEADER.size :])
            _send(self._outside, message, (to.host, to.port))

    def _may_carry(self, to: Address) -> bool:
        return reaches(to, Scope.MACHINE) and self._rations.may_send(to, trio.current_time())

    def _carry_in(self, datagram: bytes, sender: tuple[str, int]) -> None:
        message = self._unwrap(datagram)
        if message is None or not self.engine_port:
            self.dropped += 1
            return
        host, port = sender
        self._rations.came_from(Address(host, port))
        header = _DATAGRAM_HEADER.pack(0, 0, _IPV4, socket.inet_aton(host), port)
        _send(self._inside, header + message, (LOOPBACK, self.engine_port))


def open_courier(where: Address, wrap: Wrap, unwrap: Unwrap) -> Courier:
    """Return a courier that is at an IPv4 address outside; port 0 is any free one.

    Raises:
        UsageError: the port is taken, or the address is not of this machine.
    """
    outside = _datagram_socket()
    try:
        outside.bind((where.host, where.port))
    except OSError as error:
        outside.close()
        reason = errno.errorcode.get(error.errno or 0, str(error))
        raise UsageError(f"UDP port {where.port} cannot be used: {reason}") from error
    return Courier(outside, wrap, unwrap)


def _datagram_socket() -> socket.socket:
    # Not trio's: a send there looks its address up first, which costs more than all else.
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock


async def _carry(sock: socket.socket, hand_on: Callable[[bytes, tuple[str, int]], object]) -> None:
    """Hand on what a socket receives, with its sender, until cancelled."""
    while True:
        await trio.lowlevel.wait_readable(sock)
        for _ in range(CARRIED_AT_ONCE):
            try:
                datagram, sender = sock.recvfrom(MAX_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            except OSError:  # of one that was sent: nobody is there
                continue
            hand_on(datagram, (sender[0], sender[1]))


def _send(sock: socket.socket, datagram: bytes, address: tuple[str, int]) -> None:
    """Send a datagram, if it can be sent now; it is dropped if not."""
    with contextlib.suppress(OSError):
        sock.sendto(datagram, address)


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    """Return so many bytes; trio.BrokenResourceError if there are fewer."""
    got = b""
    while len(got) < count:
        more = await stream.receive_some(count - len(got))
        if not more:
            raise trio.BrokenResourceError("it ended before it said all")
        got += more
    return got


async def _wait_closed(stream: trio.SocketStream) -> None:
    while await stream.receive_some(MAX_DATAGRAM_BYTES):
        pass
