"""Keep the number of neighbours right: which peer to dial next, and when to walk.

Theory. A neighbour is good for a search if it leads elsewhere than the others do. Peers that
the user named come first, then peers that random walks of ours found, since a walk ends
anywhere. Peers that others list lead back to where we are (average path 13.5 hops,
369 of 2,000 servents within TTL 4; with walks 3.3 hops and 1,997), so they are dialled only
by a servent that has too few neighbours for walks to start from.

A servent is dialled about as often as it dials, if the network goes on growing. So it dials
until half of its degree are links of its own choice. A servent that dialled the whole degree
had twice as many links: the mean was 24 in a network of 1,000 that grew. The last servents to
come are not dialled by anybody. They dial more when they have had fewer than two thirds of the
degree for a while; if they went on to the whole degree, the mean of 40 would be 18.

Networks take turns in being dialled, and one counts for half of those dialled at most, as long as
others are known: else who has many addresses of one network in the book would surround a newcomer.

Servents in the same room come before all others, and count apart: a few of them are dialled beside
the rest, since they are quick, and a room full of them must not keep us from the world outside.

Every change that may matter wakes the loop: a link opened or ended, a peer was named, a dial
is over. Between these it sleeps until the next dial or walk is due.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import trio

from p2pfs.errors import LinkError
from p2pfs.journal import Journal
from p2pfs.link import Dialler, Knocks, Link, LocalServent, RefusedError, dial_servent
from p2pfs.overlay.contacts import Contact, ContactBook
from p2pfs.protocol import Address, Bye, ByeCode, LinkKind, PeerInfo, ServentId, groups_of
from p2pfs.protocol.flood import TokenBucket
from p2pfs.tasks import guarded

log = logging.getLogger(__name__)

MAX_DIALS: Final = 3
"""Dials under way at once: a joiner is quick and nobody is knocked over (Hyperswarm)."""

WALK_AFTER_S: Final = (0.2, 1.0, 5.0, 15.0, 60.0, 600.0)
"""Waits between walks while neighbours are wanted; starts again when a neighbour comes or goes.
A small network has nobody more to offer: it must not be asked for ever."""

AFRESH_PER_S: Final = 0.2
AFRESH_BURST: Final = 30
"""How often walks start again for that: else somebody who comes and goes all the time would have us
wait for the first walk for ever, and never take those whom we know."""

WALKS_AT_ONCE: Final = 4
"""Walks in one round: as many candidates, since each ends somewhere else."""

PATIENT_WALKS: Final = 2
"""Rounds of walks after which a servent with too few neighbours, or with none of its own choice,
takes any peer it knows."""

WAIT_FOR_DIALS_S: Final = 60.0
"""How long a servent that has dialled enough waits to be dialled itself, before it dials more:
others find it by walks, of which a newcomer makes five rounds in this time."""

CHOSEN: Final = 1 / 2
"""The part of the degree that a servent dials at once. Strangers could surround a servent that
has fewer links of its own choice."""

NEAR_DIALLED: Final = 4
"""How many servents in the same room are dialled, beside the degree: with so many each, thirty
in a room hang together, and the room does not fill the slots of one of them."""

NEAR_AT_ONCE: Final = MAX_DIALS - 1
"""How many of the dials under way are to servents in the same room: a liar who announces there what
never answers does not keep us from the others."""

OF_ONE_NETWORK: Final = 1 / 2
"""The part of those that a servent dials at once that one network (/24, /48) counts for."""

ENOUGH: Final = 2 / 3
"""The part of the degree with which a servent is content after it has waited."""

IDLE_WAIT_S: Final = 600.0
"""The longest sleep of the loop."""


class LinkHolder(Protocol):
    """The holder of the links, as far as the degree keeper calls it."""

    @property
    def links(self) -> Mapping[ServentId, Link]:
        """The links that are open now."""
        ...

    def is_crossed(self, peer: ServentId) -> bool:
        """Return whether a peer was linked so lately that no second link to it is wanted."""
        ...

    @property
    def is_away(self) -> bool:
        """Whether nobody is to be dialled, because the user has left."""
        ...

    def adopt(self, link: Link) -> Bye | None:
        """Take a link that was dialled as a neighbour, or return the BYE that it got."""
        ...

    def heard_of(self, peer: PeerInfo, told_by: Address, *, is_introduced: bool = False) -> None:
        """Note a peer that another one named."""
        ...

    def held_for_linked(self, peer: ServentId) -> None:
        """Note that a peer says that it is linked to us already."""
        ...


class DegreeKeeper:
    """Dials and walks until there are enough neighbours."""

    def __init__(
        self,
        network: Dialler,
        local: LocalServent,
        contacts: ContactBook,
        journal: Journal,
        neighbourhood: LinkHolder,
        *,
        degree: int,
        min_neighbours: int,
        max_neighbours: int,
        is_banned: Callable[[ServentId], bool],
        start_walk: Callable[[], None],
        knocks: Knocks,
        wall_clock: Callable[[], float],
    ) -> None:
        self._network = network
        self._local = local
        self._contacts = contacts
        self._journal = journal
        self._neighbourhood = neighbourhood
        self._chosen = int(degree * CHOSEN)
        self._enough = int(degree * ENOUGH)
        self._min = min_neighbours
        self._max = max_neighbours
        self._is_banned = is_banned
        self._start_walk = start_walk
        self._knocks = knocks
        self._wall_clock = wall_clock
        self._dialling: dict[int, Contact] = {}
        self._claimed: set[ServentId] = set()
        """Peers that are being greeted by one dial of ours."""
        self._walks = 0
        self._next_walk_at = 0.0
        self._afresh = TokenBucket(AFRESH_PER_S, AFRESH_BURST)
        self._short_since: float | None = None
        """Since when there have been fewer neighbours than are enough."""
        self._changes = trio.lowlevel.ParkingLot()

    async def run(self) -> None:
        """Keep the degree, until cancelled; dials under way are cancelled too."""
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                if not self._neighbourhood.is_away:
                    self._dial_some(nursery, now)
                    self._walk_if_due(now)
                with trio.move_on_at(self._next_look_at(now)):
                    await self._changes.park()  # nothing was awaited since `now`: none is missed

    def look_again(self) -> None:
        """Decide anew: a peer was named, or a dial is over."""
        self._changes.unpark_all()

    def start_afresh(self) -> None:
        """Walk and dial as at the start."""
        now = trio.current_time()
        self._walks, self._next_walk_at = 0, now + WALK_AFTER_S[0]
        if not self._neighbourhood.links:
            self._contacts.hasten(now)
        self.look_again()

    def changed(self) -> None:
        """Walk and dial as at the start, or go on if that was often so: a link came or went."""
        if self._afresh.take(trio.current_time()) or not self._neighbourhood.links:
            self.start_afresh()
        else:
            self.look_again()

    def _wants_more(self, now: float) -> bool:
        links, outgoing = self._neighbourhood.links, len(self._outgoing())
        if len(links) >= self._enough:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        if outgoing + len(self._dialling) < self._chosen or len(links) < self._min:
            return len(links) < self._max
        return self._short_since is not None and now >= self._short_since + WAIT_FOR_DIALS_S

    def _outgoing(self) -> list[Link]:
        """Return the links to neighbours that we dialled, without those in the same room."""
        near, links = self._contacts.near_ids(), self._neighbourhood.links
        return [one for peer, one in links.items() if one.direction == "out" and peer not in near]

    def _others(self, contacts: Sequence[Contact]) -> list[Contact]:
        """Return those of other networks, if too many of those that we dialled are of one."""
        most = int(self._chosen * OF_ONE_NETWORK)
        dialled = self._dialled()
        is_short = sum(min(count, most) for count in dialled.values()) < self._chosen
        is_one_sided = any(count > most for count in dialled.values())
        if not is_short or not is_one_sided or len(self._neighbourhood.links) >= self._max:
            return []
        return [one for one in contacts if not one.is_near and dialled[one.network] < most]

    def _dialled(self) -> Counter[str]:
        """Count by network those that we have dialled, or dial now, outside the room."""
        under_way = [one.network for one in self._dialling.values() if not one.is_near]
        return Counter([groups_of(link.remote.host)[0] for link in self._outgoing()] + under_way)

    def _dial_some(self, nursery: trio.Nursery, now: float) -> None:
        due = [contact for contact in self._candidates(now) if contact.next_try_at <= now]
        while due and len(self._dialling) < MAX_DIALS:
            contact = self._first_of(due)
            due.remove(contact)
            if self._is_wanted(contact, now):
                self._dialling[id(contact)] = contact
                nursery.start_soon(guarded, self._dial_quietly, contact)

    def _first_of(self, due: Sequence[Contact]) -> Contact:
        """Return whom to dial next: of those equally well chosen one of a network dialled least."""
        dialled = self._dialled()
        return min(
            due,
            key=lambda one: (
                not one.is_near, not one.is_join, not one.is_introduced, dialled[one.network]
            ),
        )  # fmt: skip

    def _is_wanted(self, contact: Contact, now: float) -> bool:
        if contact.is_near:
            return self._near_wanted() > 0
        return self._wants_more(now) or bool(self._others([contact]))

    def _candidates(self, now: float) -> list[Contact]:
        """Return the contacts that may be dialled, best first."""
        links = self._neighbourhood.links
        wants_more, near = self._wants_more(now), self._near_wanted()
        is_short = len(links) < self._min or not self._outgoing()
        takes_any = not links or (is_short and self._walks >= PATIENT_WALKS)
        free = [
            contact
            for contact in self._contacts.unlinked(links)
            if id(contact) not in self._dialling
            and not (contact.id and self._is_banned(contact.id))
        ]
        wanted = [c for c in free if c.is_near][:near]
        if wants_more:
            wanted += [c for c in free if not c.is_near and (c.is_chosen or takes_any)]
        else:
            wanted += self._others(free)
        return wanted

    def _near_wanted(self) -> int:
        """Return how many more servents in the same room to dial now."""
        links = self._neighbourhood.links
        if len(links) >= self._max:
            return 0
        near = self._contacts.near_ids()
        linked = sum(link.direction == "out" and peer in near for peer, link in links.items())
        dialled = sum(contact.is_near for contact in self._dialling.values())
        return min(NEAR_DIALLED - linked, NEAR_AT_ONCE - dialled)

    async def _dial_quietly(self, contact: Contact) -> None:
        try:
            await self.dial(contact)
        except LinkError as error:
            if contact.is_join and contact.failures == 1:
                self._journal.warning(f"cannot join yet: {error}")
            log.info("dial failed address=%s reason=%s", contact.addresses[0], error)
        finally:
            self._dialling.pop(id(contact), None)
            self.look_again()

    async def dial(self, contact: Contact) -> PeerInfo:
        """Dial a contact, and make it a neighbour.

        Raises:
            UnreachableError, HandshakeError, RefusedError: the text is fit for people; the
                contact is tried again later.
        """
        try:
            return await self._dial(contact)
        except LinkError as error:
            self._failed(contact, str(error))
            raise
        except Exception:
            self._failed(contact, "a bug of ours")  # else it would be dialled at once
            raise

    def _failed(self, contact: Contact, reason: str) -> None:
        has_neighbours = bool(self._neighbourhood.links)
        contact.failed(trio.current_time(), reason, has_neighbours=has_neighbours)
        self.look_again()

    async def _dial(self, contact: Contact) -> PeerInfo:
        try:
            return await self._greet(contact)
        except RefusedError as refusal:
            linked = self._neighbourhood.links.get(refusal.peer_id)
            if linked is not None and refusal.bye.code is ByeCode.DUPLICATE:
                contact.succeeded(linked.peer, self._wall_clock())
                return linked.peer
            if refusal.bye.code is ByeCode.DUPLICATE:
                self._neighbourhood.held_for_linked(refusal.peer_id)
            for peer in refusal.bye.alternatives:
                self._neighbourhood.heard_of(peer, refusal.remote)
            raise

    async def _greet(self, contact: Contact) -> PeerInfo:
        """Dial a contact, and let no other dial of ours greet the same peer meanwhile.

        An address that the user named and one that a peer named may lead to one servent. Its
        end of two links that are made at once is not the one of them that ours is.
        """
        claimed: list[ServentId] = []

        async def claim(peer: ServentId) -> None:
            while peer in self._claimed and peer not in claimed:
                await self._changes.park()
            if self._neighbourhood.is_crossed(peer):
                bye = Bye(ByeCode.DUPLICATE, "linked already")
                raise RefusedError(bye.text, bye, peer, contact.addresses[0])
            self._claimed.add(peer)
            claimed.append(peer)

        expected = None if contact.is_join and not contact.is_pinned else contact.id
        dial = contact.addresses, self._local, LinkKind.NEIGHBOUR, expected, claim
        knocks = None if contact.is_join else self._knocks
        try:
            link = await dial_servent(self._network, *dial, knocks)
            contact.succeeded(link.peer, self._wall_clock())
            self._adopt(link)
            return link.peer
        finally:
            self._claimed.difference_update(claimed)
            self.look_again()

    def _adopt(self, link: Link) -> None:
        """Adopt a link that we dialled; RefusedError if it turns out that we have no room."""
        bye = self._neighbourhood.adopt(link)
        if bye is not None and bye.code is not ByeCode.DUPLICATE:
            text = f"not linked to {link.remote}: {bye.text}"
            raise RefusedError(text, bye, link.peer.id, link.remote)

    def _walk_if_due(self, now: float) -> None:
        if not self._neighbourhood.links or now < self._next_walk_at or not self._wants_more(now):
            return
        for _walk in range(WALKS_AT_ONCE):
            self._start_walk()
        wait = WALK_AFTER_S[min(self._walks + 1, len(WALK_AFTER_S) - 1)]
        self._walks, self._next_walk_at = self._walks + 1, now + wait

    def _next_look_at(self, now: float) -> float:
        waits = [now + IDLE_WAIT_S]
        if self._neighbourhood.is_away:
            return waits[0]
        if not self._wants_more(now):
            if self._short_since is not None:
                waits.append(self._short_since + WAIT_FOR_DIALS_S)
        elif self._neighbourhood.links:
            waits.append(self._next_walk_at)
        if len(self._dialling) < MAX_DIALS:
            waits += (contact.next_try_at for contact in self._candidates(now))
        return max(now, min(waits))
