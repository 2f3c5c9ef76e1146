"""Copy bytes between two neighbours that have no other way to each other (PROTOCOL.md, "Relays").

Each of the two opens a connection to us and presents the ticket that we gave it; from then on bytes
are copied. Their handshake goes through us like all else: we see how much they say and when, and
can change nothing unnoticed. One circuit passes RELAY_BYTES_PER_S, even if its ends could take
more.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.link import Link, Presented
from p2pfs.protocol import MIB, TICKET_BYTES, Guid, Relay, ServentId, groups_of
from p2pfs.rates import LOOK_AGAIN_S, RateLimit
from p2pfs.reach.favours import Favours, Routes
from p2pfs.tasks import Tasks

log = logging.getLogger(__name__)

RELAY_BYTES_PER_S: Final = 1 * MIB
"""Of one circuit, both ways together: a film can be watched. It costs a thousandth of a core."""

MAX_CIRCUITS: Final = 8
MAX_CIRCUITS_OF_NETWORK: Final = 4
MAX_CIRCUITS_OF_ONE: Final = 2
"""Circuits at once, those of which neighbours of one network are an end, and those of which one
neighbour is, or which those of one network have to one neighbour."""

JOIN_S: Final = 2.0
"""How long both ends have to come: three ways, and one lost SYN."""

RELAY_IDLE_S: Final = 150.0
"""A circuit on which nothing passes is ended; PING passes every 30 s."""


@dataclass(eq=False, slots=True)
class _Circuit:
    """Two neighbours, who asked first, and their connections to us as they come."""

    peers: tuple[ServentId, ServentId]
    networks: tuple[str, str]
    tickets: tuple[bytes, bytes]
    ends: dict[bytes, Presented] = field(default_factory=dict)
    is_whole: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def come(self, presented: Presented) -> None:
        self.ends[presented.ticket] = presented
        if len(self.ends) == len(self.tickets):
            self.is_whole.set()


class Relays:
    """The circuits that pass through us."""

    def __init__(self, routes: Routes, *, is_on: bool, limit: RateLimit) -> None:
        """All circuits together keep to `limit`, which other traffic shares."""
        self._routes = routes
        self._is_on = is_on
        self._limit = limit
        self._favours = Favours()
        self.forget = self._favours.forget
        self._tickets: dict[bytes, _Circuit] = {}
        self._circuits: list[_Circuit] = []
        self._tasks = Tasks()
        self.run = self._tasks.run
        self.passed_bytes = 0
        """Bytes that have passed through us, both ways."""
        self.counters: Counter[str] = Counter()
        """How many requests of others ended how: `granted`, and refusals by reason."""

    @property
    def circuits(self) -> int:
        """How many circuits there are now."""
        return len(self._circuits)

    def got_request(self, link: Link, message: Relay) -> None:
        """Grant a neighbour a circuit to another one, or tell it why not."""
        token, peer = Guid(message.token), ServentId(message.peer)
        other = self._routes.neighbours().get(peer)
        refusal = self._refusal(link, other)
        if refusal or other is None:
            self.counters[f"refused: {refusal}"] += 1
            link.post(Relay(token, peer, refusal=refusal))
            return
        self.counters["granted"] += 1
        here, there = secrets.token_bytes(TICKET_BYTES), secrets.token_bytes(TICKET_BYTES)
        networks = _network(link), _network(other)
        circuit = _Circuit((ServentId(link.peer.id), peer), networks, (here, there))
        self._circuits.append(circuit)
        self._tickets |= dict.fromkeys(circuit.tickets, circuit)
        self._tasks.start(self._run_circuit, circuit)
        link.post(Relay(token, peer, here))
        other.post(Relay(token, link.peer.id, there))

    def _refusal(self, link: Link, other: Link | None) -> str:
        if not self._is_on or not self._tasks.are_running:
            return "it does not relay"
        if other is None or other is link:
            return "it is not linked to both"
        if not self._has_room(link, other):
            return "it relays as much as it may"
        return "" if self._favours.may_pass_on(link, other) else "it was asked too often"

    def _has_room(self, link: Link, other: Link) -> bool:
        """Return whether there is room for a circuit that a neighbour wants to another one.

        Those of one network have few to any neighbour, or they would shut the only way to it.
        """
        here, there = _network(link), _network(other)
        own = sum(link.peer.id in one.peers for one in self._circuits)
        towards = [one.networks[0] for one in self._circuits if other.peer.id in one.peers]
        most = max(sum(n in one.networks for one in self._circuits) for n in (here, there))
        is_few = max(own, towards.count(here)) < MAX_CIRCUITS_OF_ONE
        return is_few and most < MAX_CIRCUITS_OF_NETWORK and len(self._circuits) < MAX_CIRCUITS

    def presented(self, presented: Presented) -> None:
        """Take the end of a circuit; a peer without a ticket of ours is hung up on."""
        circuit = self._tickets.pop(presented.ticket, None)
        if circuit is not None:
            circuit.come(presented)
        elif self._tasks.are_running:
            self._tasks.start(trio.aclose_forcefully, presented.channel.stream)

    async def _run_circuit(self, circuit: _Circuit) -> None:
        try:
            with trio.move_on_after(JOIN_S):
                await circuit.is_whole.wait()
            if circuit.is_whole.is_set():
                await self._copy(circuit)
        finally:
            self._circuits.remove(circuit)
            for ticket in circuit.tickets:
                self._tickets.pop(ticket, None)
            for end in circuit.ends.values():
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(end.channel.stream)

    async def _copy(self, circuit: _Circuit) -> None:
        """Copy both ways until both have ended, one breaks, or nothing passes."""
        here, there = (circuit.ends[ticket] for ticket in circuit.tickets)
        own = RateLimit(RELAY_BYTES_PER_S)
        limits = own, self._limit
        circuit.scope.deadline = trio.current_time() + RELAY_IDLE_S
        try:
            with circuit.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pass_on, circuit, here, there, limits)
                    nursery.start_soon(self._pass_on, circuit, there, here, limits)
        except* trio.BrokenResourceError:
            log.info("circuit broken peers=%s", circuit.peers)

    async def _pass_on(
        self, circuit: _Circuit, one: Presented, other: Presented, limits: Sequence[RateLimit]
    ) -> None:
        most = min(limit.piece_bytes for limit in limits if limit.is_set)
        data = one.rest or await one.channel.stream.receive_some(most)
        while data:
            await _within(limits, len(data))
            await other.channel.stream.send_all(data)
            self.passed_bytes += len(data)
            circuit.scope.deadline = trio.current_time() + RELAY_IDLE_S
            data = await one.channel.stream.receive_some(most)
        await other.channel.stream.send_eof()


def _network(link: Link) -> str:
    return groups_of(link.remote.host)[0]


async def _within(limits: Sequence[RateLimit], count: int) -> None:
    """Wait until all limits let something pass, and charge them."""
    while wait_s := max(limit.wait_s(trio.current_time()) for limit in limits):  # noqa: ASYNC110
        await trio.sleep(min(wait_s, LOOK_AGAIN_S))
    for limit in limits:
        limit.charge(count, trio.current_time())
