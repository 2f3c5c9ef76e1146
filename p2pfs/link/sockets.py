"""Dial and listen over TCP.

`Network` is what the rest of p2pfs knows of the outside; `TcpNetwork` is the real one.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from p2pfs.errors import TooManyFilesError, UnreachableError, UsageError
from p2pfs.link.interfaces import (
    Surroundings,
    hosts_of_machine,
    is_behind_router,
    surroundings_of_machine,
)
from p2pfs.protocol import Address

CONNECT_S: Final = 10.0
"""Long enough for a lost SYN or two; libtorrent waits 15 s, Syncthing 10 s."""

LISTEN_BACKLOG: Final = 128
"""Connections that the kernel holds for us while we are busy."""

ACCEPT_PAUSE_S: Final = 0.1
"""How long to leave a listener alone that is out of descriptors or memory."""

USER_TIMEOUT_MS: Final = 20_000
"""How long sent bytes may be unacknowledged: then the connection is over (tcp(7)). The
kernel alone would try for a quarter of an hour."""

SEND_BUFFER_BYTES: Final = 1024 * 1024
"""Unsent bytes below which the kernel asks for more. trio's own 16 KiB wakes the writer of a
transfer link for every frame."""

FIRST_SEND_BUFFER_BYTES: Final = SEND_BUFFER_BYTES // 16
"""The same for a peer that has not shown yet how much it takes: one that takes little would have a
megabyte of our line before anybody noticed."""

_TOO_MANY: Final = frozenset({errno.EMFILE, errno.ENFILE})
_OUT_OF_ROOM: Final = _TOO_MANY | {errno.ENOMEM, errno.ENOBUFS}
_TAKEN: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})
_NO_IPV6: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What binding to `::` gives where the kernel knows IPv6 but it is switched off."""

_AF_NETLINK: Final = getattr(socket, "AF_NETLINK", -1)
_RTNETLINK_GROUPS: Final = 0x001 | 0x010 | 0x100 | 0x040 | 0x400
"""Links, and the addresses and routes of IPv4 and IPv6 (linux/rtnetlink.h)."""

NETLINK_BYTES: Final = 64 * 1024
"""More than the kernel puts into one message."""

POLL_S: Final = 10.0
"""How often this machine's addresses are compared where the kernel reports no changes."""


@dataclass(frozen=True)
class Channel:
    """A live byte stream and the addresses of its ends."""

    stream: trio.abc.HalfCloseableStream
    remote: Address
    local: Address


class PortTakenError(UnreachableError):
    """No connection can be made from this port to this address: there is or was one just now."""


class Listener(Protocol):
    """Where others can reach us."""

    @property
    def address(self) -> Address:
        """Where it listens, with the real port."""

    def addresses(self) -> Sequence[Address]:
        """Return where others may dial it now, the likeliest first. Any thread."""

    def is_hidden_from(self, host: str) -> bool:
        """Return whether a router stands between us and a host, and shows its own address."""

    async def dial(self, address: Address) -> Channel:
        """Connect to an IP address from the port that this listens at.

        Raises:
            UnreachableError, TooManyFilesError: as `Network.dial`; PortTakenError if our end is in
                use.
        """

    async def accept(self) -> Channel:
        """Wait for the next connection, for ever; trio.ClosedResourceError once closed."""

    async def aclose(self) -> None:
        """Stop listening."""


class Dialler(Protocol):
    """The part of a network that connects to others."""

    async def dial(self, address: Address) -> Channel:
        """Connect to `address`.

        Raises:
            UnreachableError: it refuses, does not answer within CONNECT_S, or its name
                does not resolve; the text says which and is fit for people.
            TooManyFilesError: this process may not open more files.
        """


class Network(Dialler, Protocol):
    """The outside, as the rest of p2pfs knows it."""

    async def listen(self, host: str | None, port: int) -> Listener:
        """Listen on `host`, or on every interface if None; port 0 takes any free one.

        Raises:
            UsageError: the address is taken, or is not ours.
        """

    def surroundings(self) -> Surroundings:
        """Return how this machine is connected now."""

    def changes(self) -> AbstractAsyncContextManager[WaitChange]:
        """Watch how this machine is connected, for the length of the block.

        The block is given a function to await: it returns when something may have changed.
        """


WaitChange = Callable[[], Awaitable[object]]


class TcpNetwork:
    """The Internet: TCP over IPv4 and IPv6."""

    async def dial(self, address: Address) -> Channel:
        """Connect to `address`, trying all that its name stands for; see `Network.dial`."""
        try:
            with trio.fail_after(CONNECT_S):
                stream = await trio.open_tcp_stream(address.host, address.port)
        except trio.TooSlowError:
            text = (
                f"no answer from {address} within {CONNECT_S:.0f} s; "
                "a firewall or router may keep its port closed"
            )
            raise UnreachableError(text) from None
        except (socket.gaierror, UnicodeError, ValueError) as error:
            raise UnreachableError(f"cannot resolve name {address.host!r}") from error
        except OSError as error:
            raise _not_dialled(address, error) from error
        channel = _channel(stream)
        if channel is None:
            raise UnreachableError(f"{address} hung up at once")
        return channel

    async def listen(self, host: str | None, port: int) -> TcpListener:
        """Listen on TCP; without a `host` one socket takes IPv4 and, where it exists, IPv6."""
        try:
            return TcpListener(await _listening_socket(host, port))
        except (OSError, UnicodeError, ValueError, OverflowError) as error:
            where = Address(host or "0.0.0.0", port)  # noqa: S104  -- words in a message
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"cannot listen on {where}: {reason}") from error

    def surroundings(self) -> Surroundings:
        """Return how this machine is connected now."""
        return surroundings_of_machine()

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[WaitChange]:
        """Watch links, addresses and routes by rtnetlink; see `Network.changes`."""
        try:
            watch = trio.socket.socket(_AF_NETLINK, socket.SOCK_RAW)
            await watch.bind((0, _RTNETLINK_GROUPS))
        except OSError:  # another system than Linux, or a sandbox: changes are not reported
            yield functools.partial(trio.sleep, POLL_S)
            return
        with watch:
            yield functools.partial(_heard_of_change, watch)


class TcpListener:
    """A listening TCP socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = trio.socket.from_stdlib_socket(sock)
        _share_port(self._socket)
        self.address = _address(sock.getsockname())
        self._takes_ipv4 = sock.family == socket.AF_INET or not sock.getsockopt(
            socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
        )

    def is_hidden_from(self, host: str) -> bool:
        """Return whether a router stands between us and a host; see `Listener`."""
        return is_behind_router(host)

    async def dial(self, address: Address) -> Channel:
        """Connect from the port that this listens at; see `Listener`.

        The listener shares its port since it listens, and not before: nobody else can have it.
        """
        try:
            stream = await self._connected(address)
        except trio.TooSlowError:
            raise UnreachableError(f"no answer from {address} within {CONNECT_S:.0f} s") from None
        except OSError as error:
            if error.errno in _TAKEN:
                raise PortTakenError(_why_not(address, error)) from error
            raise _not_dialled(address, error) from error
        channel = _channel(stream)
        if channel is None:
            raise UnreachableError(f"{address} hung up at once")
        return channel

    async def _connected(self, address: Address) -> trio.SocketStream:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _share_port(sock)
            await sock.bind((self._host_of(family), self.address.port))
            with trio.fail_after(CONNECT_S):
                await sock.connect((address.host, address.port))
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)

    def _host_of(self, family: socket.AddressFamily) -> str:
        is_own = (":" in self.address.host) == (family == socket.AF_INET6)
        return self.address.host.partition("%")[0] if is_own else ""

    def addresses(self) -> Sequence[Address]:
        """Return its address, or if it listens on every interface, those of this machine."""
        host, port = self.address.host, self.address.port
        if not ipaddress.ip_address(host).is_unspecified:
            return (self.address,)
        hosts = hosts_of_machine(ipv4=self._takes_ipv4, ipv6=":" in host)
        return [Address(one, port) for one in hosts]

    async def accept(self) -> Channel:
        """Wait for the next connection; one that has ended by then is passed over."""
        while True:
            channel = _channel(await accept_stream(self._socket))
            if channel is not None:
                return channel

    async def aclose(self) -> None:
        """Stop listening; connections that were accepted live on."""
        self._socket.close()
        await trio.lowlevel.checkpoint()


async def _heard_of_change(watch: trio.socket.SocketType) -> None:
    """Wait until the kernel reports changes, and take in all that it reports at once."""
    with contextlib.suppress(OSError):  # ENOBUFS: it had more to report than there was room for
        await watch.recv(NETLINK_BYTES)


async def _listening_socket(host: str | None, port: int) -> socket.socket:
    if host is not None:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, sockname = found[0]
        where: tuple[Any, ...] = sockname  # of IPv6 with the interface that it is on
        return socket.create_server(where, family=family, backlog=LISTEN_BACKLOG)
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=LISTEN_BACKLOG
            )
        except OSError as error:
            if error.errno not in _NO_IPV6:
                raise
    return socket.create_server(("0.0.0.0", port), backlog=LISTEN_BACKLOG)  # noqa: S104  -- wanted


async def accept_stream(listening: trio.socket.SocketType) -> trio.SocketStream:
    """Wait for the next connection, for ever; trio.ClosedResourceError once closed."""
    while True:
        try:
            sock, _ = await listening.accept()
        except OSError as error:
            if listening.fileno() < 0:
                raise trio.ClosedResourceError("this listener was closed") from None
            if error.errno in _OUT_OF_ROOM:
                await trio.sleep(ACCEPT_PAUSE_S)
            continue  # the rest are errors of the connection, not of the listener: accept(2)
        return trio.SocketStream(sock)


def _share_port(sock: trio.socket.SocketType) -> None:
    """Let sockets of this user have the same port, that do likewise."""
    with contextlib.suppress(AttributeError, OSError):  # there are systems without it
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _channel(stream: trio.SocketStream) -> Channel | None:
    """Return the stream with its addresses, or None if the peer has hung up already."""
    try:
        remote, local = stream.socket.getpeername(), stream.socket.getsockname()
        with contextlib.suppress(AttributeError):  # the options are Linux's, one also macOS's
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, SEND_BUFFER_BYTES)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    except OSError:
        stream.socket.close()
        return None
    return Channel(stream, _address(remote), _address(local))


def bound_unsent(stream: trio.abc.HalfCloseableStream, times: int) -> None:
    """Let the kernel hold so many times FIRST_SEND_BUFFER_BYTES unsent, and no more than usual."""
    if isinstance(stream, trio.SocketStream):
        count = min(times * times * FIRST_SEND_BUFFER_BYTES, SEND_BUFFER_BYTES)
        with contextlib.suppress(AttributeError, OSError):  # other systems, and links that ended
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, count)


def _address(sockname: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    host, port = sockname[0].partition("%")[0], sockname[1]
    if ":" in host:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
        host = host if mapped is None else str(mapped)
    if len(sockname) == 4 and sockname[3] and ":" in host:
        host = f"{host}%{_name_of_interface(sockname[3])}"
    return Address(host, port)


def _name_of_interface(index: int) -> str:
    with contextlib.suppress(OSError):  # it is gone; the number means the same
        return socket.if_indextoname(index)
    return str(index)


def _numbers(error: OSError) -> list[int | None]:
    """Return the errnos of the single attempts, whose errors trio wraps."""
    cause = error.__cause__
    attempts = cause.exceptions if isinstance(cause, ExceptionGroup) else (cause or error,)
    return [attempt.errno for attempt in attempts if isinstance(attempt, OSError)]


def _not_dialled(address: Address, error: OSError) -> UnreachableError | TooManyFilesError:
    """Return why there is no connection: because of the address, or of this process."""
    if _TOO_MANY & set(_numbers(error)):
        return TooManyFilesError(os.strerror(errno.EMFILE))
    return UnreachableError(_why_not(address, error))


def _why_not(address: Address, error: OSError) -> str:
    """Return the reason for people."""
    numbers = _numbers(error)
    if errno.ECONNREFUSED in numbers:
        return f"connection refused by {address}"
    reasons = [os.strerror(number) for number in numbers if number is not None]
    return f"cannot reach {address}: {reasons[0] if reasons else error}"
