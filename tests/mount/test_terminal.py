"""What a peer calls itself and its files never reaches a terminal raw."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from p2pfs.config import parse_endpoint
from p2pfs.link.sockets import TcpNetwork
from p2pfs.protocol import (
    Address,
    Bye,
    ByeCode,
    Done,
    Entry,
    FileId,
    Hello,
    Identity,
    LinkKind,
    PeerInfo,
    Query,
    sign_hit,
)
from tests.helpers.leftovers import left_below
from tests.helpers.mounted import Servent, Servents, errno_name, open_servents, until
from tests.helpers.rogues import RawPeer

pytestmark = pytest.mark.fuse

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\rgood\n\x08\u202egpj.exe\u2066\u200b\x7f"
"""A title, a cleared screen, a colour, a second line, and letters that run backwards."""

NAMES = (f"bad {HOSTILE}", "bad \n", "bad \u202e", "bad \x1b[1m", "../bad", "bad\u200b", "bad/..")
"""Names that no listing may show."""


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents
    assert left_below(tmp_path) == []


class HostilePeer:
    """A neighbour that is honest in all but its words."""

    def __init__(self, peer: RawPeer, identity: Identity) -> None:
        self._peer = peer
        self._identity = identity
        self._info = PeerInfo(identity.id, HOSTILE, (peer.channel.remote,))

    async def greet(self) -> None:
        remote = self._peer.channel.remote
        await self._peer.send(Hello(LinkKind.NEIGHBOUR, HOSTILE, 0, remote, (), HOSTILE))
        await self._peer.receive()

    async def answer_queries(self) -> None:
        while True:
            message, _ = await self._peer.receive()
            if isinstance(message, Query):
                await self._answer(message)

    async def _answer(self, query: Query) -> None:
        entries = [entry(name) for name in (*NAMES, "bad but shown")]
        hit = sign_hit(self._identity, query.guid, query.ttl, self._info, entries, len(entries))
        await self._peer.send(hit)
        await self._peer.send(Done(query.guid, query.ttl, 1, 1, is_complete=True))

    async def leave(self) -> None:
        await self._peer.send(Bye(ByeCode.LEAVING, HOSTILE))
        await self._peer.aclose()


def entry(name: str) -> Entry:
    return Entry(name, 1000, 0, FileId(random.Random(name).randbytes(32)))


@contextlib.asynccontextmanager
async def hostile_neighbour(of: str) -> AsyncIterator[HostilePeer]:
    identity, endpoint = Identity.generate(), parse_endpoint(of)
    address = Address(endpoint.host, endpoint.port)
    raw = await RawPeer.dial(
        TcpNetwork(), address, LinkKind.NEIGHBOUR, identity=identity, hello=False
    )
    peer = HostilePeer(raw, identity)
    await peer.greet()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer_queries)
        yield peer
        nursery.cancel_scope.cancel()
    await peer.leave()


def raw_characters(text: str) -> list[str]:
    """Return what a text holds beside lines and columns of printable characters."""
    return [c for c in text if not c.isprintable() and c not in "\n\t"]


def shown_on_a_terminal(servent: Servent, *verb: str) -> str:
    """Return what a verb shows where it thinks that it speaks to a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "p2pfs", *verb, "-m", str(servent.state)]
    # A dumb terminal: what remains of escape sequences is the peer's.
    environment = os.environ | {"TERM": "dumb", "COLUMNS": "300"}
    subprocess.run(command, env=environment, stdout=theirs, stderr=theirs, check=True)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes any more
        while data := os.read(ours, 65_536):
            shown += data
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


async def test_no_raw_character_of_a_peer_is_shown_or_logged(servents: Servents) -> None:
    run = trio.to_thread.run_sync
    victim = await run(servents.start, "victim", "--stall-timeout", "10")
    async with hostile_neighbour(await run(lambda: victim.address)):
        await run(until, victim.neighbours)
        assert await run(victim.neighbours) == [HOSTILE]
        await run(victim.sees, "bad but shown")
        assert await run(os.listdir, victim.network) == ["bad but shown"]
        told = await run(told_of_the_peer, victim)
        for name in NAMES:
            assert await run(errno_name, os.stat, f"{victim.network}/{name}") == "ENOENT"
        # Nobody can dial it: that is an event.
        read = (victim.network / "bad but shown").read_bytes
        assert await run(errno_name, read) == "EHOSTUNREACH"
    await run(until, lambda: not victim.neighbours())
    told += await run(told_in_the_end, victim)

    for text in told:
        assert raw_characters(text) == [], text
    assert all("owned" in text for text in told[:3])


def told_of_the_peer(victim: Servent) -> list[str]:
    """Return all that names the peer, the surest first."""
    return [
        (victim.mountpoint / ".p2pfs/peers").read_text(),
        victim.p2pfs("peers").stdout,
        shown_on_a_terminal(victim, "peers"),
        victim.p2pfs("peers", "--json").stdout,
        victim.p2pfs("search", "bad").stdout,
        victim.p2pfs("search", "--json", "bad").stdout,
        shown_on_a_terminal(victim, "search", "bad"),
        victim.attribute("bad but shown", "peers"),
    ]


def told_in_the_end(victim: Servent) -> list[str]:
    return [
        victim.p2pfs("events").stdout,
        shown_on_a_terminal(victim, "events"),
        (victim.mountpoint / ".p2pfs/events").read_text(),
        (victim.state / "p2pfs.log").read_text(),
        victim.output(),
    ]
