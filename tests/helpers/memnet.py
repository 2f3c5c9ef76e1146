"""A network in memory: dial and listen without sockets, on trio's clock.

    net = MemoryNetwork(latency_s=0.02)
    a, b = net.host("a"), net.host("b")
    listener = await b.listen(None, 4000)
    channel = await a.dial(listener.address)

Buffers are bounded, so that a reader that does not read is felt by the sender. Latency and
rates pass at once under `autojump_clock`. `cut` resets connections, `freeze` and `partition`
stop all movement without closing anything, which is what a pulled cable looks like.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import trio
from trio.lowlevel import ParkingLot

from p2pfs.errors import UnreachableError, UsageError
from p2pfs.link.interfaces import Surroundings
from p2pfs.link.sockets import CONNECT_S, LISTEN_BACKLOG, Channel, WaitChange
from p2pfs.protocol.fields import Address

BUFFER_BYTES = 64 * 1024
"""Bytes in flight one way before a sender waits."""

FIRST_FREE_PORT = 49_152


PART_S = 0.5
"""What comes on a slow line comes in parts of this length, as TCP hands it on."""


class MemoryNetwork:
    """Hosts by name, and what is wrong with the wires between them."""

    def __init__(self, *, latency_s: float = 0.0, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.latency_s = latency_s
        self.buffer_bytes = buffer_bytes
        self.carried_bytes = 0
        """What all hosts together have sent so far."""
        self._hosts: dict[str, MemoryHost] = {}
        self._latencies: dict[frozenset[str], float] = {}
        self._frozen: set[str] = set()
        self._side: dict[str, int] = {}
        self._moved = ParkingLot()
        self._knocks: dict[tuple[Address, Address], Knock] = {}

    async def meet(self, here: MemoryHost, at: Address, there: Address) -> Channel:
        """Connect two hosts that both dial the other where its router shows it."""
        knock = self._knocks.pop((there, at), None)
        if knock is not None:
            wire = Wire(knock.host, here)
            await trio.sleep(2 * self.latency(here.name, knock.host.name))
            knock.give(Channel(wire.streams[0], at, there))
            return Channel(wire.streams[1], there, at)
        own = self._knocks[at, there] = Knock(here)
        try:
            return await own.wait()
        finally:
            if self._knocks.get((at, there)) is own:
                del self._knocks[at, there]

    def host(self, name: str) -> MemoryHost:
        """Return the host of that name, which exists from now on."""
        return self._hosts.setdefault(name, MemoryHost(self, name))

    def find(self, name: str) -> MemoryHost | None:
        return self._hosts.get(name)

    def moved(self, host: MemoryHost, name: str) -> None:
        """Know a host by another name; its connections were made from the old one."""
        self.freeze(host.name)
        self._hosts[name] = self._hosts.pop(host.name)

    def also_known(self, name: str, other: str) -> None:
        """Let a host be dialled at another address too."""
        self._hosts[other] = self._hosts[name]

    def set_latency(self, one: str, other: str, seconds: float) -> None:
        """Set the time of one way between two hosts."""
        self._latencies[frozenset((one, other))] = seconds

    def latency(self, one: str, other: str) -> float:
        return self._latencies.get(frozenset((one, other)), self.latency_s)

    def set_upload_rate(self, name: str, bytes_per_s: float) -> None:
        """Bound what a host sends, over all its connections together."""
        self.host(name).rate = bytes_per_s

    def cut(self, name: str, other: str | None = None) -> None:
        """Reset all connections of a host, or those with one `other`; both ends see it."""
        for wire in list(self.host(name).wires):
            if other is None or other in wire.ends:
                wire.reset()

    def freeze(self, name: str) -> None:
        """Let nothing in or out of a host, and close nothing."""
        self._frozen.add(name)

    def thaw(self, name: str) -> None:
        """Undo `freeze`; what was on the way arrives."""
        self._frozen.discard(name)
        self._wake()

    def partition(self, *groups: Iterable[str]) -> None:
        """Let nothing pass between hosts of different groups; the unnamed are one more group."""
        self._side = {name: side for side, group in enumerate(groups, 1) for name in group}

    def heal(self) -> None:
        """Undo `partition`; what was on the way arrives."""
        self._side = {}
        self._wake()

    def is_stopped(self, one: str, other: str) -> bool:
        return bool(self._frozen & {one, other}) or self._side.get(one) != self._side.get(other)

    async def wait_moving(self, one: str, other: str) -> None:
        while self.is_stopped(one, other):
            await self._moved.park()

    def _wake(self) -> None:
        self._moved.unpark_all()
        for host in self._hosts.values():
            for wire in host.wires:
                wire.wake()


class Knock:
    """A dial that comes through when the other side dials too."""

    def __init__(self, host: MemoryHost) -> None:
        self.host = host
        self._channel: Channel | None = None
        self._has_come = trio.Event()

    def give(self, channel: Channel) -> None:
        self._channel = channel
        self._has_come.set()

    async def wait(self) -> Channel:
        await self._has_come.wait()
        assert self._channel is not None
        return self._channel


class MemoryHost:
    """One host's view of the network: a `p2pfs.link.Network`."""

    def __init__(self, net: MemoryNetwork, name: str) -> None:
        self.net = net
        self.name = name
        self.rate = math.inf
        self.free_at = 0.0
        """When the upload line will have sent what it was given."""
        self.wires: set[Wire] = set()
        self.listeners: dict[int, MemoryListener] = {}
        self.ports = itertools.count(FIRST_FREE_PORT)
        self.dials = 0
        """Connections that it has begun and that are not there yet."""
        self.is_plugged_in = True
        self.is_behind_router = False
        """Whether it dials others and nobody can dial it, unless it dials them at that time."""
        self.is_symmetric = False
        """Whether its router shows each connection from another port."""
        self._changes = ParkingLot()

    def move(self, name: str) -> None:
        """Have another address from now on; what is connected hears nothing any more."""
        self.net.moved(self, name)
        self.name = name
        self.tell_of_change()

    def tell_of_change(self) -> None:
        """Let who watches know that something has changed, or was renewed."""
        self._changes.unpark_all()

    def unplug(self) -> None:
        self.is_plugged_in = False
        self.net.freeze(self.name)
        self.tell_of_change()

    def plug_in(self) -> None:
        self.is_plugged_in = True
        self.net.thaw(self.name)
        self.tell_of_change()

    def surroundings(self) -> Surroundings:
        return Surroundings(frozenset({self.name}), frozenset(["eth0"] * self.is_plugged_in))

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[WaitChange]:
        yield self._changes.park

    async def dial(self, address: Address) -> Channel:
        peer = self.net.find(address.host)
        if peer is None:
            raise UnreachableError(f"cannot resolve name {address.host!r}")
        try:
            with trio.fail_after(CONNECT_S):
                return await self._connect(peer, address)
        except trio.TooSlowError:
            text = f"no answer from {address} within {CONNECT_S:.0f} s"
            raise UnreachableError(text) from None

    async def dial_from(self, port: int, address: Address) -> Channel:
        """Connect from a port, which may be one that is listened at."""
        peer = self.net.find(address.host)
        if peer is None:
            raise UnreachableError(f"cannot resolve name {address.host!r}")
        here = Address(self.name, next(self.ports) if self.is_symmetric else port)
        with trio.move_on_after(CONNECT_S):
            if peer.is_behind_router:
                return await self.net.meet(self, here, address)
            channel = await self._connect(peer, address, here)
            return replace(channel, local=Address(self.name, port))
        raise UnreachableError(f"no answer from {address} within {CONNECT_S:.0f} s")

    async def _connect(
        self, peer: MemoryHost, address: Address, local: Address | None = None
    ) -> Channel:
        self.dials += 1
        try:
            return await self._reach(peer, address, local)
        finally:
            self.dials -= 1

    async def _reach(self, peer: MemoryHost, address: Address, local: Address | None) -> Channel:
        await self.net.wait_moving(self.name, peer.name)
        await trio.sleep(2 * self.net.latency(self.name, peer.name))
        await self.net.wait_moving(self.name, peer.name)
        if peer.is_behind_router:
            await trio.sleep_forever()
        listener = peer.listeners.get(address.port)
        if listener is None:
            raise UnreachableError(f"connection refused by {address}")
        wire = Wire(self, peer)
        local = local or Address(self.name, next(self.ports))
        try:
            await listener.queue.send(Channel(wire.streams[1], local, address))
        except BaseException as error:
            wire.reset()
            if isinstance(error, trio.BrokenResourceError):
                raise UnreachableError(f"connection refused by {address}") from None
            raise
        return Channel(wire.streams[0], address, local)

    async def listen(self, host: str | None, port: int) -> MemoryListener:
        await trio.lowlevel.checkpoint()
        address = Address(self.name, port or next(self.ports))
        if host not in (None, self.name) or address.port in self.listeners:
            raise UsageError(f"cannot listen on {Address(host or self.name, port)}")
        self.listeners[address.port] = MemoryListener(self, address)
        return self.listeners[address.port]


class MemoryListener:
    """A listening port of a memory host."""

    def __init__(self, host: MemoryHost, address: Address) -> None:
        self._port = address.port
        self._host = host
        self.queue, self._accepted = trio.open_memory_channel[Channel](LISTEN_BACKLOG)

    @property
    def address(self) -> Address:
        return Address(self._host.name, self._port)

    def addresses(self) -> tuple[Address, ...]:
        return (self.address,)

    def is_hidden_from(self, host: str) -> bool:
        return self._host.is_behind_router and host != self._host.name

    async def dial(self, address: Address) -> Channel:
        return await self._host.dial_from(self._port, address)

    async def accept(self) -> Channel:
        return await self._accepted.receive()

    async def aclose(self) -> None:
        if self._host.listeners.get(self.address.port) is self:
            del self._host.listeners[self.address.port]
            while self._accepted.statistics().current_buffer_used:
                await self._accepted.receive_nowait().stream.aclose()
            self._accepted.close()
        await trio.lowlevel.checkpoint()


class Wire:
    """One connection: two streams and a pipe each way."""

    def __init__(self, dialler: MemoryHost, listener: MemoryHost) -> None:
        self.ends = (dialler.name, listener.name)
        self._hosts = (dialler, listener)
        there, back = Pipe(dialler, listener), Pipe(listener, dialler)
        self._pipes = (there, back)
        self.streams = (MemoryStream(self, there, back), MemoryStream(self, back, there))
        for host in self._hosts:
            host.wires.add(self)

    def reset(self) -> None:
        for pipe in self._pipes:
            pipe.reset()
        self.forget()

    def forget(self) -> None:
        for host in self._hosts:
            host.wires.discard(self)

    def wake(self) -> None:
        for pipe in self._pipes:
            pipe.wake()


class Pipe:
    """One direction of a wire. The bytes in it are those on the way and those not read."""

    def __init__(self, sender: MemoryHost, receiver: MemoryHost) -> None:
        self._sender = sender
        self._net = sender.net
        self._ends = (sender.name, receiver.name)
        self._queue: deque[tuple[float, bytes]] = deque()  # (when it arrives, what); b"" = end
        self._size = 0
        self.is_reset = False
        self.is_shut_by_sender = False
        self.is_shut_by_receiver = False
        self._changed = ParkingLot()

    def wake(self) -> None:
        self._changed.unpark_all()

    def reset(self) -> None:
        self.is_reset = True
        self._queue.clear()
        self.wake()

    def shut_by_sender(self) -> None:
        if not self.is_shut_by_sender:
            self.is_shut_by_sender = True
            self._append(b"")

    def shut_by_receiver(self) -> None:
        self.is_shut_by_receiver = True
        self.wake()

    @property
    def _room(self) -> int:
        return self._net.buffer_bytes - self._size

    @property
    def _is_stopped(self) -> bool:
        return self._net.is_stopped(*self._ends)

    def _append(self, data: bytes) -> None:
        """Put data on the line; of what takes its time, each part comes when it is through."""
        most = max(1, int(min(len(data), self._sender.rate * PART_S)))
        for offset in range(0, max(1, len(data)), most):
            self._append_part(data[offset : offset + most])

    def _append_part(self, data: bytes) -> None:
        # The line of the sender is shared by all its pipes, hence its clock and not ours.
        start = max(trio.current_time(), self._sender.free_at)
        self._sender.free_at = start + len(data) / self._sender.rate
        self._queue.append((self._sender.free_at + self._net.latency(*self._ends), data))
        self._size += len(data)
        self._net.carried_bytes += len(data)
        self.wake()

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        offset = 0
        while True:
            self._check_sendable()
            if offset == len(data):
                return
            if self._room > 0:
                part = data[offset : offset + self._room]
                self._append(part)
                offset += len(part)
            else:
                await self._changed.park()

    async def wait_room(self) -> None:
        await trio.lowlevel.checkpoint()
        self._check_sendable()
        while self._room <= 0:
            await self._changed.park()
            self._check_sendable()

    def _check_sendable(self) -> None:
        if self.is_shut_by_sender:
            raise trio.ClosedResourceError("this end was closed")
        if self.is_reset or (self.is_shut_by_receiver and not self._is_stopped):
            raise trio.BrokenResourceError("the connection was reset")

    async def receive(self, max_bytes: int) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self.is_shut_by_receiver:
                raise trio.ClosedResourceError("this end was closed")
            if self.is_reset:
                raise trio.BrokenResourceError("the connection was reset")
            due = self._queue[0][0] if self._queue and not self._is_stopped else math.inf
            if due <= trio.current_time():
                return self._take(max_bytes)
            with trio.move_on_at(due):
                await self._changed.park()

    def _take(self, max_bytes: int) -> bytes:
        parts: list[bytes] = []
        wanted, now = max_bytes, trio.current_time()
        while self._queue and wanted and self._queue[0][0] <= now:
            due, data = self._queue[0]
            if not data:
                break  # the end stays where it is, for every later call to see
            self._queue.popleft()
            if len(data) > wanted:
                self._queue.appendleft((due, data[wanted:]))
                data = data[:wanted]
            parts.append(data)
            wanted -= len(data)
        self._size -= max_bytes - wanted
        self.wake()
        return b"".join(parts)


class MemoryStream(trio.abc.HalfCloseableStream):
    """One end of a wire; holds to the same contract as a socket's stream."""

    def __init__(self, wire: Wire, out: Pipe, into: Pipe) -> None:
        self._wire = wire
        self._out = out
        self._in = into
        self._busy: set[str] = set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._alone("send"):
            await self._out.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        with self._alone("send"):
            await self._out.wait_room()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is None:
            max_bytes = BUFFER_BYTES
        if not isinstance(max_bytes, int):
            raise TypeError("max_bytes must be an integer")
        if max_bytes < 1:
            raise ValueError("max_bytes must be positive")
        with self._alone("receive"):
            return await self._in.receive(max_bytes)

    async def send_eof(self) -> None:
        with self._alone("send"):
            self._out.shut_by_sender()
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self._out.shut_by_sender()
        self._in.shut_by_receiver()
        if self._out.is_shut_by_receiver:
            self._wire.forget()
        await trio.lowlevel.checkpoint()

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        if what in self._busy:
            raise trio.BusyResourceError(f"another task is in {what}")
        self._busy.add(what)
        try:
            yield
        finally:
            self._busy.discard(what)
