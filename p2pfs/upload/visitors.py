"""The transfer links that others dialled to us: which peer may have one, and which gives way.

A link that asks for nothing is closed after VISITOR_IDLE_S. When all are taken, a newcomer of a
smaller group takes the place of the idlest of the largest group, and any newcomer that of one
that has rested for RESTING_S.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.link import Link
from p2pfs.protocol import (
    KIB,
    Address,
    Bye,
    ByeCode,
    Message,
    ServentId,
    largest_crowd,
    who_gives_way,
)
from p2pfs.upload.together import Together
from p2pfs.upload.turns import Turn

MAX_VISITORS: Final = 200
"""Transfer links accepted in all."""

MAX_LINKS_PER_PEER: Final = 4
"""Transfer links accepted from one peer; it needs one."""

VISITOR_IDLE_S: Final = 150.0
"""A link without requests is closed after this time. The servent that dialled it closes it
long before."""

RESTING_S: Final = 0.5
"""A link without requests for this time gives way to anybody when all are taken: to dial anew
costs a round trip, and three hundred people in a hall ask for a listing within 1.5 s."""

TURN_BYTES: Final = 1024 * KIB
"""Blocks read at once and sent in one turn: a hop to a thread costs as much as a block, and
others wait no longer for theirs."""

QUICK_TURN_BYTES: Final = 4 * TURN_BYTES
QUICK_TURN_S: Final = 0.05
"""The same for a link that took all of its last turn within this time: others do not wait longer
for theirs, and to begin and end a turn costs as much as to send a megabyte."""


@dataclass(eq=False, slots=True)
class Queue:
    """Requests of one link that wait for the same worker, in the order of their asking."""

    waiting: dict[int, Message] = field(default_factory=dict)
    news: trio.Event = field(default_factory=trio.Event)
    current: int = 0
    """The request being answered."""
    scope: trio.CancelScope | None = None
    """Cancels that answer."""
    together: Together = field(default_factory=Together)
    """What was read for some of those that wait."""

    def put(self, message: Message, number: int) -> None:
        """Queue a request."""
        self.waiting[number] = message
        self.news.set()

    def cancel(self, number: int) -> None:
        """Drop a request, or cancel its answer if that is under way."""
        self.waiting.pop(number, None)
        self.together.forget(number)
        if self.current == number and self.scope is not None:
            self.scope.cancel()


@dataclass(eq=False, slots=True)
class Client:
    """One transfer link and the requests that wait on it."""

    link: Link
    quick: Queue = field(default_factory=Queue)
    bulk: Queue = field(default_factory=Queue)
    used_at: float = field(default_factory=trio.current_time)
    """When it asked for something last, or was sent the end of an answer."""
    turn_bytes: int = TURN_BYTES
    """Bytes that its next turn may have: fewer if it stopped taking data in its last one."""

    def turn_was(self, turn: Turn, sent_bytes: int, took_s: float) -> None:
        """Let the next turn have twice as much as the last, or one block if that was parked."""
        most = QUICK_TURN_BYTES if took_s < QUICK_TURN_S else TURN_BYTES
        was_slow = turn.parked_at is not None
        self.turn_bytes = 0 if was_slow else min(most, max(self.turn_bytes, 2 * sent_bytes))

    def idle_s(self, now: float) -> float:
        """Return for how long nothing is asked of us; 0 while something is, either way."""
        queues = (self.quick, self.bulk)
        is_used = self.link.awaits_answers or any(q.waiting or q.current for q in queues)
        return 0.0 if is_used else now - self.used_at


@dataclass(slots=True)
class Peer:
    """All links of one peer."""

    clients: list[Client] = field(default_factory=list)
    turn: trio.Lock = field(default_factory=trio.Lock)
    """Held while a large block is sent to it."""

    @property
    def waiting(self) -> int:
        """The number of requests that wait on all its links."""
        return sum(len(c.quick.waiting) + len(c.bulk.waiting) for c in self.clients)


class Visitors:
    """The transfer links that were accepted, by peer."""

    def __init__(self) -> None:
        self._peers: dict[ServentId, Peer] = {}

    def judge(self, peer: ServentId, remote: Address) -> Bye | None:
        """Return the BYE for a peer that dialled a transfer link, or None if it is welcome."""
        if peer in self._peers and len(self._peers[peer].clients) >= MAX_LINKS_PER_PEER:
            return Bye(ByeCode.DUPLICATE, "too many transfer links")
        if len(self._live()) >= MAX_VISITORS and self._who_gives_way(remote.host) is None:
            return Bye(ByeCode.FULL, "too many transfer links")
        return None

    @contextlib.contextmanager
    def welcome(self, link: Link) -> Iterator[tuple[Client, Peer]]:
        """Keep a place for a link that was judged at this moment, for the length of the block."""
        self._make_room(link.remote.host)
        peer = self._peers.setdefault(link.peer.id, Peer())
        client = Client(link)
        peer.clients.append(client)
        try:
            yield client, peer
        finally:
            peer.clients.remove(client)
            if not peer.clients:
                del self._peers[link.peer.id]

    def _live(self) -> list[Client]:
        return [c for peer in self._peers.values() for c in peer.clients if c.link.ended is None]

    def _who_gives_way(self, newcomer: str) -> Client | None:
        """Return the link whose place somebody from this host takes, or None."""
        live, now = self._live(), trio.current_time()
        victim = who_gives_way(live, newcomer, host_of=_host_of, weight=lambda c: c.idle_s(now))
        if victim is None:
            idlest = max(largest_crowd(live, _host_of, 0), key=lambda c: c.idle_s(now))
            victim = idlest if idlest.idle_s(now) >= RESTING_S else None
        return victim

    def _make_room(self, newcomer: str) -> None:
        if len(self._live()) >= MAX_VISITORS:
            victim = self._who_gives_way(newcomer)
            assert victim is not None, "it was judged at this moment"
            victim.link.close(Bye(ByeCode.IDLE, "others wait for a link"))


async def close_when_idle(client: Client) -> None:
    """Close a link that was asked for nothing for VISITOR_IDLE_S."""
    idle_s = 0.0
    while idle_s < VISITOR_IDLE_S:
        await trio.sleep(VISITOR_IDLE_S - idle_s)
        idle_s = client.idle_s(trio.current_time())
    client.link.close(Bye(ByeCode.IDLE, "not used"))


def _host_of(client: Client) -> str:
    return client.link.remote.host
