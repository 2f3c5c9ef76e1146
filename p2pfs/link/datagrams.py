"""One question to a router and its answer, over UDP or TCP: no link, and no servent there."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio

from p2pfs.errors import UnreachableError
from p2pfs.protocol import Address

MAX_ANSWER_BYTES: Final = 1_100
"""What PCP lets an answer have (RFC 6887, section 7), and more than one to a search."""

MAX_ANSWERS: Final = 8
"""Answers to one search that are looked at: a router has some devices, and each answers once."""

MAX_HEARD: Final = 256
"""Datagrams that are read for one search: others may send what they like."""

MORE_ANSWERS_S: Final = 0.5
"""How long is waited for another answer to a search."""

_READ_BYTES: Final = 4_096

IsWhole = Callable[[bytes | bytearray], bool]
"""Tells whether an answer has come whole, though the other end has not hung up."""


async def ask_by_datagram(address: Address, question: bytes, waits_s: Sequence[float]) -> bytes:
    """Return the first answer to a question that is sent once for each wait.

    Raises:
        UnreachableError: nothing came from `address` in all these waits, or it refuses.
    """
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with sock, _unreachable(address):
        await sock.connect((address.host, address.port))  # so that no other can answer
        for wait in waits_s:
            await sock.send(question)
            with trio.move_on_after(wait):
                return await sock.recv(MAX_ANSWER_BYTES)
    raise UnreachableError(f"{address} does not answer")


async def search_by_datagram(
    here: str, group: Address, host: str, questions: Sequence[bytes], wait_s: float
) -> Sequence[bytes]:
    """Return what one host answers to questions to it and to a multicast group, MAX_ANSWERS.

    They leave by the interface that has the address `here`. The host may answer from any port.

    Raises:
        UnreachableError: they cannot be sent.
    """
    found: dict[bytes, None] = {}
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with sock, _unreachable(group):
        await sock.bind((here, 0))
        sock.setsockopt(
            trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, ipaddress.IPv4Address(here).packed
        )
        for question in questions:
            await sock.sendto(question, (group.host, group.port))
            await sock.sendto(question, (host, group.port))
        with trio.move_on_after(wait_s) as scope:
            for _ in range(MAX_HEARD):
                answer, sender = await sock.recvfrom(MAX_ANSWER_BYTES)
                if sender[0] == host and len(found) < MAX_ANSWERS:
                    found[answer] = None
                    scope.deadline = min(scope.deadline, trio.current_time() + MORE_ANSWERS_S)
    return list(found)


async def ask_by_stream(
    address: Address, question: bytes, most_bytes: int, is_whole: IsWhole
) -> bytes:
    """Return what comes back on a connection, until it is whole or ends.

    Raises:
        UnreachableError: nobody is there, or more than so many bytes came.
    """
    answer = bytearray()
    with _unreachable(address):
        async with await trio.open_tcp_stream(address.host, address.port) as stream:
            await stream.send_all(question)
            while not is_whole(answer) and (more := await stream.receive_some(_READ_BYTES)):
                answer += more
                if len(answer) > most_bytes:
                    raise UnreachableError(f"{address} does not come to an end")
    return bytes(answer)


@contextmanager
def _unreachable(address: Address) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, str(error))
        raise UnreachableError(f"{address} does not answer: {reason}") from error
    except trio.BrokenResourceError as error:
        raise UnreachableError(f"{address} has hung up") from error
