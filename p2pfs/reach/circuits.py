"""Reach a servent through a neighbour of both that relays (PROTOCOL.md, "Relays").

The last of all ways: it costs others their bandwidth. The neighbour gives both a ticket; each opens
a connection to it, presents that, and from then on talks to the other. The end that asked begins
the handshake. Both ends know each other; the relay knows only that they talk.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from p2pfs.errors import LinkError, UnreachableError
from p2pfs.journal import printable
from p2pfs.link import (
    Channel,
    Dialler,
    Knocks,
    Link,
    LocalServent,
    answer_link,
    dial_twice,
    greet,
    present,
)
from p2pfs.protocol import TICKET_BYTES, LinkKind, PeerInfo, Relay, ServentId, groups_of
from p2pfs.reach.favours import Favours, Questions
from p2pfs.reach.guides import Guides
from p2pfs.reach.relays import Relays
from p2pfs.reach.shared import SharedLinks
from p2pfs.tasks import Tasks

log = logging.getLogger(__name__)

GRANTED_S: Final = 1.0
"""How long a neighbour has to say whether it relays: a round trip, and what was lost sent again."""

MAX_ENTERED: Final = 16
MAX_ENTERED_OF_ONE: Final = 4
"""Circuits that are being entered because others have asked for them, and those through relays of
one address: where nobody comes to the other end a place is taken for some seconds, for nothing."""


class Circuits:
    """The circuits that we want, and those that others want to us."""

    def __init__(
        self,
        network: Dialler,
        local: LocalServent,
        relays: Relays,
        shared: SharedLinks,
        guides: Guides,
        knocks: Knocks,
        is_banned: Callable[[ServentId], bool],
    ) -> None:
        """Requests for circuits through us go to `relays`."""
        self._network = network
        self._local = local
        self._guides = guides
        self._knocks = knocks
        self._relays = relays
        self._shared = shared
        self._is_banned = is_banned
        self._favours = Favours()
        self._questions = Questions(Relay, GRANTED_S)
        self._entered: Counter[str] = Counter()
        """How many are being entered through relays of an address."""
        self._tasks = Tasks()
        self.run = self._tasks.run
        self.forget = self._favours.forget
        self.counters: Counter[str] = Counter()
        """How many requests of others ended how: `entered`, and drops by reason."""

    async def call(self, peer: PeerInfo) -> Link:
        """Reach a servent through a relay, and return the link; the task that serves it runs it.

        Raises:
            UnreachableError: nobody relays, or the other has not come; the text says which.
        """
        way = await self._guides.common(peer)
        if way is None or way.peer.id == peer.id:
            raise UnreachableError("no neighbour is known that could relay")
        through = printable(way.peer.name)
        if not self._favours.may_ask(way):
            raise UnreachableError(f"{through} was asked too often to relay")
        told = await self._questions.ask(way, ServentId(peer.id))
        if told is None:
            raise UnreachableError(f"{through} was asked to relay, and says nothing")
        if len(told.ticket) != TICKET_BYTES:
            raise UnreachableError(f"{through} was asked to relay: {printable(told.refusal)}")
        channel = await self._enter(way, bytes(told.ticket))
        link = await greet(
            channel, f"{printable(peer.name)} through {through}", self._local,
            LinkKind.TRANSFER, ServentId(peer.id),
        )  # fmt: skip
        await self._shared.put(link)
        return link

    async def _enter(self, relay: Link, ticket: bytes) -> Channel:
        """Open our end of a circuit, where the relay is seen and nowhere else."""
        if not relay.seen_at:
            raise UnreachableError(f"{printable(relay.peer.name)} relays, and cannot be dialled")
        where, peer = relay.seen_at[0], ServentId(relay.peer.id)
        if not self._knocks.may_knock(where, peer):
            raise UnreachableError(f"{where}, which relays, was dialled too often in vain")
        try:
            channel = await dial_twice(self._network, where)
            await present(channel, self._local, ticket)
        except BaseException as error:
            self._knocks.failed(where, peer, error)
            raise
        self._knocks.was_given_up(where)  # nobody has said who that is
        return channel

    # Requests of others.

    def got_relay(self, link: Link, message: Relay) -> None:
        """Take in an answer to us, enter a circuit, or let the relays judge a request."""
        if self._questions.is_answer(link, message):
            return
        if not self._favours.is_within(link):
            self.counters["dropped: over budget"] += 1
        elif len(message.ticket) == TICKET_BYTES:
            self._go(link, message)
        elif not message.refusal:
            self._relays.got_request(link, message)

    def _go(self, link: Link, message: Relay) -> None:
        peer, (_, address) = ServentId(message.peer), groups_of(link.remote.host)
        of_one, of_all = self._entered[address], self._entered.total()
        is_full = of_one >= MAX_ENTERED_OF_ONE or of_all >= MAX_ENTERED
        if is_full or self._is_banned(peer) or not link.seen_at:
            self.counters["dropped: too many circuits"] += 1
        elif self._tasks.are_running:
            self._entered[address] += 1
            self._tasks.start(self._enter_and_serve, link, peer, bytes(message.ticket))

    async def _enter_and_serve(self, relay: Link, peer: ServentId, ticket: bytes) -> None:
        try:
            channel = await self._enter(relay, ticket)
            link = await answer_link(channel, self._local, self._shared.judge_of(peer))
        except LinkError as error:
            log.info("no circuit peer=%s relay=%s reason=%s", peer, relay.peer.id, error)
            return
        finally:
            self._entered[groups_of(relay.remote.host)[1]] -= 1
            self._entered += Counter()  # drops those of whom there are none
        self.counters["entered"] += 1
        await self._shared.keep(link)
