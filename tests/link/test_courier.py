"""A proxy for the datagrams of one engine, and who else may use it: nobody."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import AsyncIterator

import pytest
import trio

from p2pfs.errors import UsageError
from p2pfs.link import LOOPBACK, Courier, open_courier
from p2pfs.protocol import Address

SOON_S = 10.0
A_WHILE_S = 0.2


def wrap(message: bytes) -> bytes:
    return b"W" + message


def unwrap(datagram: bytes) -> bytes | None:
    return datagram[1:] if datagram.startswith(b"W") else None


def datagram_socket() -> trio.socket.SocketType:
    return trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)


@pytest.fixture
async def courier(nursery: trio.Nursery) -> Courier:
    courier = open_courier(Address(LOOPBACK, 0), wrap, unwrap)
    await nursery.start(courier.run)
    return courier


@pytest.fixture
async def engine() -> AsyncIterator[trio.socket.SocketType]:
    with datagram_socket() as engine:
        await engine.bind((LOOPBACK, 0))
        yield engine


@pytest.fixture
async def other() -> AsyncIterator[trio.socket.SocketType]:
    with datagram_socket() as other:
        await other.bind((LOOPBACK, 0))
        yield other


def header(address: tuple[str, int]) -> bytes:
    host = ipaddress.IPv4Address(address[0]).packed
    return struct.pack(">HBB4sH", 0, 0, 1, host, address[1])


async def associate(courier: Courier, user: str, password: str) -> tuple[str, int] | None:
    """Ask for a port to send to, as libtorrent does; None if there is none to be had."""
    async with await trio.open_tcp_stream(LOOPBACK, courier.proxy_port) as stream:
        await stream.send_all(b"\x05\x02\x00\x02")
        if await stream.receive_some(2) != b"\x05\x02":
            return None
        words = [bytes([len(word)]) + word.encode() for word in (user, password)]
        await stream.send_all(b"\x01" + b"".join(words))
        if await stream.receive_some(2) != b"\x01\x00":
            return None
        await stream.send_all(b"\x05\x03\x00\x01" + bytes(6))
        answer = await stream.receive_some(10)
        return str(ipaddress.IPv4Address(answer[4:8])), int.from_bytes(answer[8:10], "big")


async def told(sock: trio.socket.SocketType) -> tuple[bytes, tuple[str, int]]:
    with trio.fail_after(SOON_S):
        return await sock.recvfrom(2_000)


async def is_silent(sock: trio.socket.SocketType) -> bool:
    with trio.move_on_after(A_WHILE_S):
        await sock.recvfrom(2_000)
        return False
    return True


async def test_what_the_engine_says_is_wrapped_and_answers_are_unwrapped(courier, engine, other):
    inside = await associate(courier, courier.user, courier.password)
    assert inside is not None
    courier.engine_port = engine.getsockname()[1]

    await engine.sendto(header(other.getsockname()) + b"ping", inside)
    asked, outside = await told(other)
    await other.sendto(b"Wpong", outside)
    answer, _ = await told(engine)

    assert asked == b"Wping"
    assert answer == header(other.getsockname()) + b"pong"


async def test_what_cannot_be_unwrapped_does_not_reach_the_engine(courier, engine, other):
    inside = await associate(courier, courier.user, courier.password)
    courier.engine_port = engine.getsockname()[1]
    await engine.sendto(header(other.getsockname()) + b"ping", inside)
    _, outside = await told(other)

    await other.sendto(b"d1:y1:qe", outside)

    assert await is_silent(engine)
    assert courier.dropped == 1


@pytest.mark.parametrize(
    ("host", "port"),
    [("9.9.9.9", 53), ("224.0.0.7", 5000), ("255.255.255.255", 5000), ("0.0.0.0", 5000)],
)
async def test_nothing_is_carried_where_strangers_have_no_servent(
    courier, monkeypatch, host: str, port: int
):
    carried = []
    monkeypatch.setattr("p2pfs.link.courier._send", lambda _socket, _what, to: carried.append(to))
    courier.engine_port = 5000

    for to in ((host, port), ("9.9.9.9", 5000)):
        courier._carry_out(header(to) + b"ping", (LOOPBACK, courier.engine_port))

    assert carried == [("9.9.9.9", 5000)]


@pytest.mark.parametrize("user", [True, False])
async def test_who_has_not_the_password_gets_no_port(courier, user):
    name, password = (courier.user, "guess") if user else ("guess", courier.password)

    assert await associate(courier, name, password) is None
    assert not courier.is_used.is_set()


async def test_another_program_of_this_machine_sends_nothing_through_it(courier, engine, other):
    inside = await associate(courier, courier.user, courier.password)
    courier.engine_port = engine.getsockname()[1]
    with datagram_socket() as stranger:
        await stranger.sendto(header(other.getsockname()) + b"ping", inside)

        assert await is_silent(other)


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x05\x01\x00", b"\x05\xff", bytes(300)]
)
async def test_whatever_is_said_to_it_it_goes_on(courier, engine, other, said):
    async with await trio.open_tcp_stream(LOOPBACK, courier.proxy_port) as stream:
        await stream.send_all(said) if said else None

    assert await associate(courier, courier.user, courier.password) is not None


@pytest.mark.parametrize("cut", range(10))
async def test_a_datagram_without_a_whole_header_is_dropped(courier, engine, other, cut):
    inside = await associate(courier, courier.user, courier.password)
    courier.engine_port = engine.getsockname()[1]

    await engine.sendto(header(other.getsockname())[:cut], inside)
    await engine.sendto(header((LOOPBACK, 0)) + b"ping", inside)
    await engine.sendto(header(other.getsockname()) + b"ping", inside)

    assert (await told(other))[0] == b"Wping"


async def test_a_port_that_is_taken_is_told(other):
    host, port = other.getsockname()

    with pytest.raises(UsageError, match=f"UDP port {port} cannot be used"):
        open_courier(Address(host, port), wrap, unwrap)
