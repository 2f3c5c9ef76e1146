"""Our encrypted link alone, between two processes: no FUSE, no disk, no verification.

python raw_link.py serve                    prints the port and serves one link
python raw_link.py fetch PORT BYTES         prints the seconds that the bytes took
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from typing import Final

import trio

from p2pfs.link import Link, answer_link, dial_servent
from p2pfs.link.sockets import TcpNetwork
from p2pfs.protocol.fields import Address
from p2pfs.protocol.identity import Identity, NetworkKey
from p2pfs.protocol.manifest import FILE_ID_BYTES, MAX_BLOCKS, MIN_BLOCK_BYTES, FileId
from p2pfs.protocol.messages import GetBlocks, Hello, LinkKind

ASKED_AHEAD: Final = 8
"""Blocks that are on their way at once."""

HOST: Final = "127.0.0.1"


class Party:
    """One end of the link."""

    identity = Identity.generate()
    network_key = NetworkKey.open()

    def hello(self, kind: LinkKind, observed: Address) -> Hello:
        return Hello(kind, "bench", 0, observed, (), "bench")


async def serve() -> None:
    """Answer every request of one link with the same block."""
    listener = await TcpNetwork().listen(HOST, 0)
    print(listener.address.port, flush=True)
    link = await answer_link(await listener.accept(), Party(), lambda *_: None)
    requests, to_answer = trio.open_memory_channel[int](MAX_BLOCKS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer, link, to_answer)
        await link.run(lambda _link, _message, number: requests.send_nowait(number))
        nursery.cancel_scope.cancel()


async def answer(link: Link, requests: trio.MemoryReceiveChannel[int]) -> None:
    block = os.urandom(MIN_BLOCK_BYTES)
    async for number in requests:
        await link.send_data(number, block)


async def fetch(port: int, size: int) -> None:
    """Fetch `size` bytes in blocks, some at once."""
    link = await dial_servent(TcpNetwork(), [Address(HOST, port)], Party(), LinkKind.TRANSFER)
    indexes = iter(range(size // MIN_BLOCK_BYTES))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run, lambda *_: None)
        started = time.perf_counter()
        async with trio.open_nursery() as fetchers:
            for _ in itertools.repeat(None, ASKED_AHEAD):
                fetchers.start_soon(fetch_blocks, link, indexes)
        print(time.perf_counter() - started)
        nursery.cancel_scope.cancel()


async def fetch_blocks(link: Link, indexes: Iterator[int]) -> None:
    file_id = FileId(bytes(FILE_ID_BYTES))
    for index in indexes:
        request = GetBlocks(file_id, (index % MAX_BLOCKS,))
        await link.ask.fetch(request, size_limit=MIN_BLOCK_BYTES)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve"]:
            trio.run(serve)
        case ["fetch", port, size]:
            trio.run(fetch, int(port), int(size))
