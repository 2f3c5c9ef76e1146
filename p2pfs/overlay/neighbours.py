"""Join the network, stay joined, and leave it.

The overlay holds the neighbour links and keeps their number right: it dials those whom the
user named, those it knows, and those whom random walks introduce. Connecting to whatever
list one servent returns, as the first paper had it, builds a clustered graph (average path
13.5 hops, 369 of 2,000 servents within TTL 4; with walks 3.3 hops and 1,997), so the list is
only what a newcomer starts from.

What neighbours say to each other beyond that (queries, hits) goes to the owner.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from p2pfs.errors import LinkError, UnreachableError
from p2pfs.journal import Journal
from p2pfs.link import Link, LocalServent, Network, RefusedError, dial_link
from p2pfs.overlay.bans import FLOOD_BAN_S, Bans
from p2pfs.overlay.contacts import Contact, ContactBook
from p2pfs.protocol import (
    MAX_ALTERNATIVES,
    MAX_PEERS,
    Address,
    Bye,
    ByeCode,
    GetPeers,
    LinkKind,
    Message,
    PeerInfo,
    Peers,
    ServentId,
    dialable,
)
from p2pfs.protocol.flood import LinkId, TokenBucket

log = logging.getLogger(__name__)

MAX_DIALS: Final = 3
"""Dials under way at once: a joiner is quick and nobody is knocked over (Hyperswarm)."""

WALK_AFTER_S: Final = (0.2, 1.0, 5.0, 15.0, 60.0, 600.0)
"""Waits between walks while neighbours are wanted; starts again when a neighbour comes or goes.
A small network has nobody more to offer: it must not be asked for ever."""

WALKS_AT_ONCE: Final = 4
"""Walks in one round: as many candidates, since each ends somewhere else."""

PATIENT_WALKS: Final = 2
"""Rounds of walks after which a servent with too few neighbours takes any peer it knows."""

SIMULTANEOUS_S: Final = 10.0
"""Two links to one peer that began within this time crossed each other; a later second link
means that the peer has forgotten the first."""

GET_PEERS_PER_S: Final = 1 / 60
GET_PEERS_BURST: Final = 3
"""How often a neighbour may ask for peers: a joiner asks once, and our answer is a thousand
times as long as its question."""

IDLE_WAIT_S: Final = 600.0
"""The longest sleep of the loop that keeps the degree."""


class Owner(Protocol):
    """What the overlay tells and asks of its owner."""

    def neighbour_opened(self, link: Link) -> None:
        """A neighbour is there."""

    def neighbour_lost(self, link: Link) -> None:
        """A neighbour is gone; `link.ended` and `link.bye` say why."""

    def neighbour_said(self, link: Link, message: Message) -> None:
        """A neighbour sent something that is not about joining."""

    def start_walk(self) -> None:
        """Send one random walk on its way."""


@dataclass(slots=True)
class _Manners:
    """What a neighbour may still ask and tell us."""

    asks: TokenBucket = field(default_factory=lambda: TokenBucket(GET_PEERS_PER_S, GET_PEERS_BURST))
    owes_peers: bool = True
    """Whether our GET_PEERS is unanswered: peers that nobody asked for are not taken in."""


class Overlay:
    """The neighbours of this servent."""

    def __init__(
        self,
        network: Network,
        local: LocalServent,
        contacts: ContactBook,
        journal: Journal,
        bans: Bans,
        *,
        degree: int,
        min_neighbours: int,
        max_neighbours: int,
        wall_clock: Callable[[], float],
    ) -> None:
        self._network = network
        self._local = local
        self._contacts = contacts
        self._journal = journal
        self._bans = bans
        self._degree = degree
        self._min = min_neighbours
        self._max = max_neighbours
        self._wall_clock = wall_clock
        self._links: dict[ServentId, Link] = {}
        self._dialling: set[int] = set()
        self._manners: dict[LinkId, _Manners] = {}
        self._walks = 0
        self._next_walk_at = 0.0
        self._news = trio.lowlevel.ParkingLot()
        self._owner: Owner
        self._nursery: trio.Nursery
        self.is_away = False
        """True after `leave`, until the next `join`."""

    @property
    def neighbours(self) -> Sequence[Link]:
        """The links that are open now. May be asked from any thread."""
        return tuple(self._links.values())

    async def run(
        self, owner: Owner, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Own the neighbour links and keep their number right, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._owner = owner
            self._nursery = nursery
            task_status.started()
            await self._keep_degree()

    async def join(self, address: Address) -> PeerInfo:
        """Join through the servent at `address`, which is tried again later if it fails now.

        Raises:
            UnreachableError, HandshakeError, RefusedError: the text is fit for people.
        """
        self.is_away = False
        return await self._dial(self._contacts.add_join(address))

    def join_later(self, address: Address) -> None:
        """Join through `address` as soon as it answers."""
        self._contacts.add_join(address)
        self._look_around()

    def failing_joins(self) -> list[str]:
        """Return a line for each address to join through that has not answered, with why."""
        return [
            f"cannot join yet: {contact.trouble}"
            if contact.trouble
            else f"no answer yet from {contact.addresses[0]}"
            for contact in self._contacts.unanswered()
        ]

    async def leave(self) -> None:
        """Tell every neighbour that we leave, and wait until they have been told.

        The links get a second at most to take it; no new ones are made until `join`.
        """
        self.is_away = True
        for link in self.neighbours:
            link.close(Bye(ByeCode.LEAVING, "leaving the network"))
        while self._links:
            await self._news.park()

    def ban(self, peer: ServentId, text: str) -> None:
        """Drop a neighbour that floods, and do not deal with it for a while."""
        self._bans.ban(peer, trio.current_time(), FLOOD_BAN_S)
        self.expel(peer, Bye(ByeCode.FLOOD, text))

    def expel(self, peer: ServentId, bye: Bye) -> None:
        """Drop a neighbour that was banned, if it is one."""
        link = self._links.get(peer)
        if link is not None:
            self._journal.warning(f"{link.peer.name} is banned for a while: {bye.text}")
            link.close(bye)

    # Who may be a neighbour.

    def judge(self, peer: ServentId) -> Bye | None:
        """Return the BYE that a peer who dialled us gets, or None if it is welcome."""
        if peer == self._local.identity.id:
            return Bye(ByeCode.DUPLICATE, "that is this servent itself")
        if self._is_banned(peer):
            return Bye(ByeCode.BANNED, "banned for a while")
        if self.is_away:
            return Bye(ByeCode.LEAVING, "has left the network")
        known = self._links.get(peer)
        if known is not None:
            return self._judge_second(known, peer)
        if len(self._links) >= self._max:
            return Bye(ByeCode.FULL, "no room for more neighbours", self._some(MAX_ALTERNATIVES))
        return None

    def has_room(self) -> bool:
        """Return whether we would take another neighbour; a walk that ends here asks.

        Also beyond the degree that we look for: whom only those with few neighbours take in
        ends up among themselves.
        """
        return not self.is_away and len(self._links) < self._max

    def _is_banned(self, peer: ServentId) -> bool:
        return self._bans.is_banned(peer, trio.current_time())

    def _judge_second(self, known: Link, peer: ServentId) -> Bye | None:
        if self._crossed(known) and self._is_kept(known.direction, peer):
            return Bye(ByeCode.DUPLICATE, "linked already")
        return None

    def _crossed(self, known: Link) -> bool:
        return trio.current_time() - known.opened_at < SIMULTANEOUS_S

    def _is_kept(self, direction: str, peer: ServentId) -> bool:
        """Return whether, of two links that crossed, this is the one that both sides keep.

        It is the one that the servent with the smaller id dialled.
        """
        return (direction == "out") == (self._local.identity.id < peer)

    def adopt(self, link: Link) -> Bye | None:
        """Take a greeted link as a neighbour and own it from now on.

        Much may have happened since its handshake began, so it is judged again; returns what
        it was told if it is refused.
        """
        refusal = self.judge(link.peer.id)
        if refusal is not None:
            self._nursery.start_soon(link.refuse, refusal)
            return refusal
        former = self._links.get(link.peer.id)
        if former is not None:
            former.close(Bye(ByeCode.DUPLICATE, "replaced by a newer link"))
            self._lost(former)
        self._links[link.peer.id] = link
        self._manners[link.id] = _Manners()
        self._contacts.shook_hands(link.peer, self._wall_clock())
        self._journal.info(f"neighbour {link.peer.name} joined from {link.remote}")
        self._owner.neighbour_opened(link)
        self._look_around()
        link.post(GetPeers())
        self._nursery.start_soon(self._keep, link)
        return None

    async def _keep(self, link: Link) -> None:
        try:
            await link.run(self._said)
        finally:
            if self._links.get(link.peer.id) is link:
                now = trio.current_time()
                self._contacts.lost(link.peer.id, now, now - link.opened_at)
                self._lost(link)

    def _lost(self, link: Link) -> None:
        del self._links[link.peer.id], self._manners[link.id]
        self._journal.info(f"neighbour {link.peer.name} is gone: {link.ended}")
        self._owner.neighbour_lost(link)
        self._look_around()

    def _said(self, link: Link, message: Message, _request_id: int) -> None:
        if isinstance(message, GetPeers):
            if self._manners[link.id].asks.take(trio.current_time()):
                link.post(Peers(self._some(MAX_PEERS)))
        elif isinstance(message, Peers):
            self._told(link, message)
        else:
            self._owner.neighbour_said(link, message)

    def _told(self, link: Link, message: Peers) -> None:
        """Note the peers that a neighbour names, once, as we asked."""
        manners = self._manners[link.id]
        if manners.owes_peers:
            manners.owes_peers = False
            for peer in message.peers:
                self._heard_of(peer, link.remote)

    def introduced(self, peer: PeerInfo, told_by: Link) -> None:
        """Note a peer whom a walk of ours found: it becomes a neighbour if one is wanted."""
        self._heard_of(peer, told_by.remote, is_introduced=True)

    def _heard_of(self, peer: PeerInfo, told_by: Address, *, is_introduced: bool = False) -> None:
        addresses = dialable(peer.addresses, told_by)
        if addresses and peer.id != self._local.identity.id:
            known = PeerInfo(peer.id, peer.name, addresses)
            self._contacts.heard_of(known, is_introduced=is_introduced)
            self._news.unpark_all()

    def _some(self, count: int) -> tuple[PeerInfo, ...]:
        fresh = self._contacts.fresh(self._wall_clock())
        return tuple(random.sample(fresh, min(count, len(fresh))))

    # Keeping the degree.

    def _look_around(self) -> None:
        """Start walks and dials afresh: the neighbourhood has changed."""
        self._walks, self._next_walk_at = 0, trio.current_time() + WALK_AFTER_S[0]
        self._news.unpark_all()

    async def _keep_degree(self) -> None:
        while True:
            now = trio.current_time()
            if not self.is_away and self._wants_more():
                self._dial_some(now)
                self._walk_if_due(now)
            with trio.move_on_at(self._next_look_at(now)):
                await self._news.park()  # nothing was awaited since `now`: no news is missed

    def _wants_more(self) -> bool:
        """Half of the links should be our own choice, or strangers could surround us."""
        outgoing = sum(link.direction == "out" for link in self._links.values())
        count = len(self._links)
        return count < self._degree or (outgoing < self._degree // 2 and count < self._max)

    def _dial_some(self, now: float) -> None:
        for contact in self._candidates():
            if len(self._dialling) >= MAX_DIALS:
                return
            if contact.next_try_at <= now:
                self._dialling.add(id(contact))
                self._nursery.start_soon(self._dial_quietly, contact)

    def _candidates(self) -> list[Contact]:
        """Return whom to dial, best first.

        Those of whom others told us are dialled only while walks cannot give us enough: a
        graph built from lists is clustered.
        """
        count = len(self._links)
        takes_any = not count or (count < self._min and self._walks >= PATIENT_WALKS)
        return [
            contact
            for contact in self._contacts.unlinked(self._links)
            if (contact.is_chosen or takes_any)
            and id(contact) not in self._dialling
            and not (contact.id and self._is_banned(contact.id))
        ]

    async def _dial_quietly(self, contact: Contact) -> None:
        try:
            await self._dial(contact)
        except LinkError as error:
            if contact.is_join and contact.failures == 1:
                self._journal.warning(f"cannot join yet: {error}")
            log.info("dial failed address=%s reason=%s", contact.addresses[0], error)
        finally:
            self._dialling.discard(id(contact))
            self._news.unpark_all()

    async def _dial(self, contact: Contact) -> PeerInfo:
        """Dial a contact at its addresses in turn, and make it a neighbour."""
        error: LinkError = UnreachableError("no address")
        for address in contact.addresses:
            try:
                link = await dial_link(
                    self._network, address, self._local, LinkKind.NEIGHBOUR, contact.id
                )
            except RefusedError as refusal:
                linked = self._links.get(refusal.peer_id)
                if linked is not None and refusal.bye.code is ByeCode.DUPLICATE:
                    contact.succeeded(linked.peer, self._wall_clock())
                    return linked.peer
                for peer in refusal.bye.alternatives:
                    self._heard_of(peer, refusal.remote)
                error = refusal
                break
            except LinkError as failure:
                error = failure
            else:
                contact.succeeded(link.peer, self._wall_clock())
                self._check_adopted(link)
                return link.peer
        contact.failed(trio.current_time(), str(error))
        self._news.unpark_all()
        raise error

    def _check_adopted(self, link: Link) -> None:
        """Adopt a link that we dialled; RefusedError if it turns out that we have no room."""
        bye = self.adopt(link)
        if bye is not None and bye.code is not ByeCode.DUPLICATE:
            text = f"not linked to {link.remote}: {bye.text}"
            raise RefusedError(text, bye, link.peer.id, link.remote)

    def _walk_if_due(self, now: float) -> None:
        if not self._links or now < self._next_walk_at:
            return
        for _walk in range(WALKS_AT_ONCE):
            self._owner.start_walk()
        wait = WALK_AFTER_S[min(self._walks + 1, len(WALK_AFTER_S) - 1)]
        self._walks, self._next_walk_at = self._walks + 1, now + wait

    def _next_look_at(self, now: float) -> float:
        if self.is_away or not self._wants_more():
            return now + IDLE_WAIT_S
        waits = [now + IDLE_WAIT_S]
        if self._links:
            waits.append(self._next_walk_at)
        if len(self._dialling) < MAX_DIALS:
            waits += (contact.next_try_at for contact in self._candidates())
        return max(now, min(waits))
