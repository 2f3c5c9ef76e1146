"""Have two servents dial each other at one moment (PROTOCOL.md, "Dialling at one moment").

A router lets in packets that answer packets which it has let out. If two servents behind routers
dial each other from the ports at which they listen, the packets of each open its own router for
the other: the kernels make one connection of the two dials. A neighbour of both sends each the
address at which it sees the other, and the moment to begin. Neighbours are dialled from that port
too, so that it sees the right one.

Then both ends have dialled, or one of them was dialled, so the servent with the smaller id begins
the handshake. Measurements are in contrib/docs/reach.md.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from p2pfs.errors import LinkError, UnreachableError
from p2pfs.journal import printable
from p2pfs.link import (
    Channel,
    Dialler,
    Judge,
    Knocks,
    Link,
    Listener,
    LocalServent,
    PortTakenError,
    answer_link,
    greet,
)
from p2pfs.protocol import (
    MAX_MEETING_MS,
    MIN_PORT,
    Address,
    Guid,
    LinkKind,
    PeerInfo,
    Punch,
    ServentId,
    dialable,
    without_zone,
)
from p2pfs.reach.favours import Favours, Questions, Routes
from p2pfs.reach.guides import Guides
from p2pfs.reach.meeting import Meeting
from p2pfs.reach.shared import SharedLinks, only
from p2pfs.tasks import Tasks

log = logging.getLogger(__name__)

TOLD_S: Final = 1.0
"""How long a neighbour has to bring us together: one round trip, and what was lost sent again."""

MAX_MEETINGS: Final = 8
"""Meetings under way because others have asked for them."""


class OwnPort:
    """Dials from the port at which we listen, until a neighbour sees through a router which it is.

    All others are dialled from another port (link.Dialler): two behind routers who dial each other
    from those ports at one moment would meet, and both would begin the handshake.
    """

    def __init__(
        self,
        network: Dialler,
        listener: Callable[[], Listener],
        neighbours: Callable[[], Iterable[Link]],
    ) -> None:
        self._network = network
        self._listener = listener
        self._neighbours = neighbours

    async def dial(self, address: Address) -> Channel:
        """Connect to `address`; see `Network.dial`."""
        listener = self._listener()
        is_seen = any(link.local.port == listener.address.port for link in self._neighbours())
        if not is_seen and listener.is_hidden_from(address.host):
            with contextlib.suppress(PortTakenError):
                return await listener.dial(address)
        return await self._network.dial(address)


class Punches:
    """The meetings that we want, those that others want of us, and those that we arrange."""

    def __init__(
        self,
        local: LocalServent,
        listener: Callable[[], Listener],
        routes: Routes,
        knocks: Knocks,
        shared: SharedLinks,
        guides: Guides,
        is_banned: Callable[[ServentId], bool],
    ) -> None:
        """The links of meetings are `shared`: of two ports no second connection can be made."""
        self._local = local
        self._listener = listener
        self._routes = routes
        self._knocks = knocks
        self._shared = shared
        self._guides = guides
        self._is_banned = is_banned
        self._favours = Favours()
        self._questions = Questions(Punch, TOLD_S)
        self._meetings: dict[ServentId, Meeting] = {}
        self._invited: set[ServentId] = set()
        """The servents that we are to meet because others have asked for it."""
        self._tasks = Tasks()
        self.forget = self._favours.forget
        self.counters: Counter[str] = Counter()
        """How many requests of others ended how: `arranged`, `met`, and drops by reason."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the meetings that others want, until cancelled."""
        await self._tasks.run(task_status=task_status)

    # Our own meetings.

    def is_hidden(self, peer: PeerInfo) -> bool:
        """Return whether a router stands between us and the neighbour that leads to a servent."""
        way = self._routes.way_to(ServentId(peer.id))
        return way is not None and self._listener().is_hidden_from(way.remote.host)

    async def call(self, peer: PeerInfo, doubted: Callable[[], object]) -> Link:
        """Meet a servent, and return the link; the task that serves it runs it.

        `doubted` is called before, if a router on the way shows another port than that at which
        its servent listens: many such routers show each connection from another one.

        Raises:
            UnreachableError: nobody can arrange it, or we did not meet; the text says which.
        """
        way = await self._guides.common(peer)
        if way is None or way.peer.id == peer.id:
            raise UnreachableError("no neighbour is known that could have both dial at once")
        through = printable(way.peer.name)
        if not self._favours.may_ask(way):
            raise UnreachableError(f"{through} was asked too often for meetings")
        told = await self._questions.ask(way, ServentId(peer.id))
        if told is None:
            raise UnreachableError(f"{through} did not have both dial at once")
        places = _places(told, way)
        if not places:
            raise UnreachableError(f"{through} names no address at which to meet")
        if len(places) > 1 or self._is_shown_elsewhere():
            doubted()
        await trio.sleep(told.after_ms / 1000)
        return await self._met_now(ServentId(peer.id), places)

    def _is_shown_elsewhere(self) -> bool:
        """Return whether a neighbour sees us at another port than that from which we dialled it."""
        port = self._listener().address.port
        return any(
            link.direction == "out" and link.local.port == port != link.hello.observed.port
            for link in self._routes.neighbours().values()
        )

    async def _met_now(self, peer: ServentId, places: Sequence[Address]) -> Link:
        """Meet a servent, or wait for the meeting that it wants, and have the link served."""
        under_way = self._meetings.get(peer)
        if under_way is not None:
            await under_way.is_over.wait()
            met = self._shared.to(peer)
            if met is not None:
                return met
        allowed = [place for place in places if self._knocks.may_knock(place, peer)]
        if not allowed:
            raise UnreachableError(f"{places[0]}, where to meet, was dialled too often in vain")
        link = await self._meet(peer, allowed, only(peer))
        await self._shared.put(link)
        return link

    # Requests of others.

    def got_punch(self, link: Link, message: Punch) -> None:
        """Take in an answer to us, arrange a meeting, or go to one."""
        if self._questions.is_answer(link, message):
            return
        if not self._favours.is_within(link):
            self.counters["dropped: over budget"] += 1
        elif message.addresses:
            self._go(link, message)
        else:
            self._arrange(link, message)

    def _arrange(self, link: Link, message: Punch) -> None:
        """Tell both where the other is, each so much earlier as it takes longer to hear of it."""
        other = self._routes.neighbours().get(ServentId(message.peer))
        if other is None or not self._favours.may_pass_on(link, other):
            self.counters["dropped: no neighbour of both"] += 1
            return
        self.counters["arranged"] += 1
        token, latest = Guid(message.token), max(_way_ms(link), _way_ms(other))
        for to, whom in ((link, other), (other, link)):
            after_ms = min(latest - _way_ms(to), MAX_MEETING_MS)
            to.post(Punch(token, whom.peer.id, _seen_at(whom), after_ms))

    def _go(self, link: Link, message: Punch) -> None:
        peer, places = ServentId(message.peer), _places(message, link)
        self._knocks.named(places, link.remote)
        if not places or peer == self._local.identity.id or self._is_banned(peer):
            self.counters["dropped: nobody to meet"] += 1
        elif len(self._invited) >= MAX_MEETINGS or peer in self._invited | self._meetings.keys():
            self.counters["dropped: too many meetings"] += 1
        elif not self._tasks.are_running:
            return
        elif not (places := [place for place in places if self._knocks.may_knock(place, peer)]):
            self.counters["dropped: too many knocks"] += 1
        else:
            self._invited.add(peer)
            self._tasks.start(self._meet_and_serve, peer, places, message.after_ms / 1000)

    async def _meet_and_serve(
        self, peer: ServentId, places: Sequence[Address], after_s: float
    ) -> None:
        try:
            await trio.sleep(after_s)
            link = await self._meet(peer, places, self._shared.judge_of(peer))
        except LinkError as error:
            log.info("not met peer=%s reason=%s", peer, error)
            return
        finally:
            self._invited.discard(peer)
        self.counters["met"] += 1
        await self._shared.keep(link)

    # Meeting.

    async def _meet(self, peer: ServentId, places: Sequence[Address], judge: Judge) -> Link:
        """Dial a servent that dials us, and return the first link; `knocks` hears how it ended."""
        meeting = self._meeting(peer, places, judge)
        try:
            if peer in self._meetings:
                raise UnreachableError("it is being met already")
            self._meetings[peer] = meeting
            try:
                link = await meeting.run()
            finally:
                del self._meetings[peer]
                meeting.is_over.set()
        except BaseException as error:
            for place in places:
                self._knocks.failed(place, peer, error, meeting.tries[place])
            raise
        met_at = link.remote if link.remote in places else places[0]
        self._knocks.was_welcome(met_at, peer)
        for place in places:
            if place != met_at:
                self._knocks.was_given_up(place)
        return link

    def _meeting(self, peer: ServentId, places: Sequence[Address], judge: Judge) -> Meeting:
        local, is_first = self._local, self._local.identity.id < peer

        async def greeted(channel: Channel) -> Link:
            if not is_first:
                return await answer_link(channel, local, judge)
            return await greet(channel, str(channel.remote), local, LinkKind.TRANSFER, peer)

        return Meeting(self._listener(), places, greeted, most=1 if is_first else len(places))

    def came(self, channel: Channel) -> bool:
        """Take a connection that was accepted, if it is of a servent that we are meeting."""
        for meeting in self._meetings.values():
            if channel.remote in meeting.places and meeting.came(channel):
                return True
        return False


def _places(message: Punch, link: Link) -> Sequence[Address]:
    """Return where a servent may be met: ports of one host, which may be dialled from here."""
    places = dialable(message.addresses, link.remote)
    return [one for one in places if one.host == places[0].host]


def _seen_at(link: Link) -> tuple[Address, ...]:
    """Return where a neighbour is seen: its mapping first, and then where it says it listens."""
    seen = without_zone(link.remote)
    places = [seen, Address(seen.host, link.hello.listen_port)]
    if link.direction == "out":
        places.pop()
    return tuple(dict.fromkeys(one for one in places if one.port >= MIN_PORT))


def _way_ms(link: Link) -> int:
    return round(500 * (link.rtt_s or 0.0))
