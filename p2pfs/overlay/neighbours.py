"""Join the network, stay joined, and leave it: the links to the neighbours.

The overlay holds the links and judges which peers may have one; `degree` decides which to dial. A
message of a neighbour goes to the handler that the owner has named for its type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import trio

from p2pfs.journal import Journal
from p2pfs.link import Dialler, Knocks, Link, LocalServent
from p2pfs.overlay.bans import FLOOD_BAN_S, Bans
from p2pfs.overlay.contacts import Contact, ContactBook
from p2pfs.overlay.degree import DegreeKeeper
from p2pfs.overlay.exchange import Exchange
from p2pfs.overlay.slots import Slots
from p2pfs.overlay.twins import SIGN_AFTER_S, Twins
from p2pfs.protocol import (
    MAX_ADDRESSES,
    MAX_ALTERNATIVES,
    Address,
    Bye,
    ByeCode,
    GetPeers,
    Message,
    PeerInfo,
    ServentId,
    groups_of,
)
from p2pfs.tasks import called, guarded, kept_up

_ROOM: Final = Address("room", 0)
"""The teller of all that is announced in the room, for `Knocks`."""

_REPLACED: Final = "replaced by a newer link"

Handler = Callable[[Link, Any], None]
"""Takes in one message of a neighbour, of the type that it stands under in a table."""

Handlers = Mapping[type[Message], Handler]
"""The handler of each type of message."""


class OverlayOwner(Protocol):
    """The owner of the overlay, as far as the overlay calls it."""

    @property
    def handlers(self) -> Handlers:
        """The handlers of all messages of neighbours but GET_PEERS and PEERS."""
        ...

    def neighbour_opened(self, link: Link) -> None:
        """Note that a neighbour is there."""

    def neighbour_lost(self, link: Link) -> None:
        """Note that a neighbour is gone; `link.ended` and `link.bye` say why."""

    def leaving(self) -> None:
        """Note that BYE is about to go to all neighbours."""

    def start_walk(self) -> None:
        """Send one random walk on its way."""


class Overlay:
    """The neighbours of this servent."""

    def __init__(
        self,
        network: Dialler,
        local: LocalServent,
        contacts: ContactBook,
        journal: Journal,
        bans: Bans,
        knocks: Knocks,
        *,
        degree: int,
        min_neighbours: int,
        max_neighbours: int,
        wall_clock: Callable[[], float],
    ) -> None:
        self._contacts = contacts
        self._journal = journal
        self._bans = bans
        self._knocks = knocks
        self._wall_clock = wall_clock
        self.degree = DegreeKeeper(
            network,
            local,
            contacts,
            journal,
            self,
            degree=degree,
            min_neighbours=min_neighbours,
            max_neighbours=max_neighbours,
            is_banned=self._is_banned,
            start_walk=self._start_walk,
            knocks=knocks,
            wall_clock=wall_clock,
        )
        self._exchange = Exchange(
            contacts, knocks, local.identity.id, wall_clock, self.degree.look_again
        )
        self.heard_of = self._exchange.heard_of
        self._links: dict[ServentId, Link] = {}
        self._slots = Slots(
            self._links,
            local.identity.id,
            degree=degree,
            most=max_neighbours,
            is_banned=self._is_banned,
            alternatives=lambda: self._exchange.some(MAX_ALTERNATIVES),
        )
        self._twins = Twins(journal)
        self._handlers: Handlers = {}
        self._ends = trio.lowlevel.ParkingLot()
        """The tasks that wait for a link to end."""
        self._owner: OverlayOwner
        self._nursery: trio.Nursery

    @property
    def is_away(self) -> bool:
        """True after `leave`, until the next `join`."""
        return self._slots.is_away

    @property
    def neighbours(self) -> Sequence[Link]:
        """The links that are open now. May be asked from any thread."""
        return tuple(self._links.values())

    @property
    def links(self) -> Mapping[ServentId, Link]:
        """The links that are open now, by the peer at the other end."""
        return self._links

    def chosen(self) -> Mapping[ServentId, tuple[str, str]]:
        """Return the neighbours that we dialled, each with the address groups of its host."""
        return {
            link.peer.id: groups_of(link.remote.host)
            for link in self.neighbours
            if link.direction == "out"
        }

    async def run(
        self, owner: OverlayOwner, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Own the neighbour links and keep their number right, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._owner = owner
            self._nursery = nursery
            self._handlers = {
                **owner.handlers,
                **self._exchange.handlers,
            }
            task_status.started()
            await kept_up(self.degree.run)

    async def join(self, address: Address) -> PeerInfo:
        """Join through the servent at `address`, which is tried again later if it fails now.

        Raises:
            UnreachableError, HandshakeError, RefusedError: the text is fit for people.
        """
        self._slots.is_away = False
        return await self.degree.dial(self._contacts.add_join(address))

    def join_later(self, address: Address) -> None:
        """Join through `address` as soon as it answers."""
        self._contacts.add_join(address)
        self.degree.start_afresh()

    async def join_invited(self, peer: ServentId, addresses: Sequence[Address]) -> PeerInfo:
        """Join through a servent that an invitation names, and no other; else as `join`."""
        self._slots.is_away = False
        return await self.degree.dial(self._contacts.add_invited(peer, addresses))

    async def meet(self, peer: ServentId | None, addresses: Sequence[Address]) -> PeerInfo:
        """Make a servent a neighbour that others named, at once and once.

        Raises:
            UnreachableError, HandshakeError, RefusedError: the text is fit for people.
        """
        return await self.degree.dial(Contact(tuple(addresses)[:MAX_ADDRESSES], peer))

    def join_invited_later(self, peer: ServentId, addresses: Sequence[Address]) -> None:
        """Join through a servent that an invitation names as soon as it answers."""
        self._contacts.add_invited(peer, addresses)
        self.degree.start_afresh()

    def came_near(self, name: str, addresses: Sequence[Address]) -> None:
        """Dial a servent that was announced in the same room (reach.Meeting)."""
        self._contacts.came_near(name, addresses)
        self._knocks.named(addresses, _ROOM)
        self.degree.look_again()

    def went_away(self, name: str) -> None:
        """Forget where a servent of the same room was; a link to it lives on (reach.Meeting)."""
        self._contacts.went_away(name)

    def start_afresh(self) -> None:
        """Dial all known peers as at the start: the network of this machine has changed."""
        self._contacts.start_afresh()
        self.degree.start_afresh()

    def failing_joins(self) -> list[str]:
        """Return a line for each address to join through that has not answered, with why."""
        return [
            f"cannot join yet: {contact.trouble}"
            if contact.trouble
            else f"no answer yet from {contact.addresses[0]}"
            for contact in self._contacts.unanswered()
        ]

    async def leave(self) -> None:
        """Send BYE to every neighbour, and wait until their links have ended.

        The links get a second at most to take it; no new ones are made until `join`.
        """
        self._slots.is_away = True
        if self._links:
            self._owner.leaving()
        for link in self.neighbours:
            link.close(Bye(ByeCode.LEAVING, "leaving the network"))
        while self._links:
            await self._ends.park()

    def ban(self, peer: ServentId, text: str) -> None:
        """Drop a neighbour that floods, and ban it for FLOOD_BAN_S."""
        self._bans.ban(peer, trio.current_time(), FLOOD_BAN_S)
        self.expel(peer, Bye(ByeCode.FLOOD, text))

    def expel(self, peer: ServentId, bye: Bye) -> None:
        """Drop a neighbour that was banned, if it is one."""
        link = self._links.get(peer)
        if link is not None:
            self._journal.warning(f"{link.peer.name} is banned for a while: {bye.text}")
            link.close(bye)

    def _start_walk(self) -> None:
        self._owner.start_walk()

    # Who may be a neighbour.

    def judge(self, peer: ServentId, remote: Address) -> Bye | None:
        """Return the BYE that a peer that dialled us gets, or None if it is welcome."""
        return self._slots.judge(peer, remote)

    def has_room(self) -> bool:
        """Return whether we would take another neighbour; a walk that ends here asks."""
        return self._slots.has_room()

    def is_crossed(self, peer: ServentId) -> bool:
        """Return whether there is a link to a peer that is too young for another one."""
        return self._slots.is_crossed(peer)

    def _is_banned(self, peer: ServentId) -> bool:
        return self._bans.is_banned(peer, trio.current_time())

    def adopt(self, link: Link) -> Bye | None:
        """Take a greeted link as a neighbour and own it from now on.

        Much may have happened since its handshake began, so it is judged again. Returns the BYE
        that it got if it is refused.
        """
        is_inbound = link.direction == "in"
        peer = link.peer.id
        slots = self._slots
        refusal = slots.judge(peer, link.remote) if is_inbound else slots.judge_dialled(peer)
        if refusal is not None:
            self._nursery.start_soon(guarded, link.refuse, refusal)
            return refusal
        former = self._give_place(link)
        self._knocks.named(link.peer.addresses, link.remote)
        self._knocks.lives_at(link.remote)
        self._exchange.opened(link)
        self._nursery.start_soon(guarded, self._keep, link)
        try:
            self._contacts.shook_hands(
                link.peer,
                self._wall_clock(),
                link.remote,
                is_dialled=not is_inbound,
            )
            if former is None:
                self._journal.info(f"neighbour {link.peer.name} joined from {link.remote}")
            self._owner.neighbour_opened(link)
        except Exception:
            link.close()  # a bug: nobody else would know of this neighbour
            raise
        self.degree.changed()
        link.post(GetPeers())
        return None

    def _give_place(self, link: Link) -> Link | None:
        """End the links that make room for a welcome one; return the former one to its peer."""
        victim = self._slots.who_makes_room(link)
        if victim is not None:
            victim.close(self._slots.full())
            self._lost(victim)
        former = self._links.get(link.peer.id)
        if former is not None:
            former.close(Bye(ByeCode.DUPLICATE, _REPLACED))
            self._lost(former)
        self._links[link.peer.id] = link
        return former

    async def _keep(self, link: Link) -> None:
        try:
            await link.run(self._said)
        finally:
            if self._links.get(link.peer.id) is link:
                now = trio.current_time()
                self._contacts.lost(link.peer.id, now, now - link.opened_at)
                self._lost(link)

    def _lost(self, link: Link) -> None:
        del self._links[link.peer.id]
        self._exchange.lost(link)
        if not _is_replaced(link):
            self._journal.info(f"neighbour {link.peer.name} is gone: {link.ended}")
        called(self._owner.neighbour_lost, link)
        self._ends.unpark_all()
        if link.bye is not None and link.bye.code is ByeCode.DUPLICATE:
            self.held_for_linked(ServentId(link.peer.id))
        self.degree.changed()

    def held_for_linked(self, peer: ServentId) -> None:
        """Note that a peer says that it is linked to us already."""
        self._nursery.start_soon(guarded, self._look_for_twin, peer)

    async def _look_for_twin(self, peer: ServentId) -> None:
        await trio.sleep(SIGN_AFTER_S)
        if peer not in self._links and not self.is_away:
            self._twins.sign(trio.current_time())

    def _said(self, link: Link, message: Message, _request_id: int) -> None:
        handle = self._handlers.get(type(message))
        if handle is not None:  # else it answers nothing that we asked
            handle(link, message)

    def introduced(self, peer: PeerInfo, told_by: Link) -> None:
        """Note a peer that a walk of ours found: it becomes a neighbour if one is wanted."""
        self.heard_of(peer, told_by.remote, is_introduced=True)


def _is_replaced(link: Link) -> bool:
    """Return whether another link to the same peer has taken the place of one, on either side."""
    by_peer = link.bye is not None and link.bye.code is ByeCode.DUPLICATE
    return by_peer or str(link.ended).endswith(_REPLACED)
