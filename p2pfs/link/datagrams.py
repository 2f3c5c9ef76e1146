"""One question and its answer over UDP, as routers are asked."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

import trio

from p2pfs.errors import UnreachableError
from p2pfs.protocol import Address

MAX_ANSWER_BYTES: Final = 1_100
"""What PCP lets an answer have (RFC 6887, section 7)."""


async def ask_by_datagram(address: Address, question: bytes, waits_s: Sequence[float]) -> bytes:
    """Return the first answer to a question that is sent once for each wait.

    Raises:
        UnreachableError: nothing came from `address` in all these waits, or it refuses.
    """
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    with sock:
        try:
            await sock.connect((address.host, address.port))  # so that no other can answer
            for wait in waits_s:
                await sock.send(question)
                with trio.move_on_after(wait):
                    return await sock.recv(MAX_ANSWER_BYTES)
        except OSError as error:
            reason = errno.errorcode.get(error.errno or 0, str(error))
            raise UnreachableError(f"{address} does not answer: {reason}") from error
    raise UnreachableError(f"{address} does not answer")
