"""Find a neighbour of a servent, and make it ours (PROTOCOL.md, "No neighbour in common").

To have two dial at one moment, and to relay, takes a neighbour of both. A hit leaves its way
behind: along it the question goes who is a neighbour of the servent that gave it, and the answer
comes back. A servent that cannot be dialled has dialled its neighbours itself, so these can be
dialled.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from p2pfs.errors import LinkError, UnreachableError
from p2pfs.journal import printable
from p2pfs.latest import Latest
from p2pfs.link import Knocks, Link, LocalServent
from p2pfs.protocol import (
    MAX_TTL,
    Address,
    Guid,
    Guide,
    PeerInfo,
    ServentId,
    dialable,
    without_zone,
)
from p2pfs.protocol.flood import LinkId
from p2pfs.reach.favours import MAX_ROUTES, Favours, Questions, Routes
from p2pfs.tasks import SingleFlight, Tasks

GUIDE_TOLD_S: Final = 1.0
"""How long the answer may take: five links there and back."""

GUIDED_S: Final = 2.0
"""The same until the servent that was named is a neighbour: two dials of others begin after it."""

IN_VAIN_S: Final = 10.0
"""How long it stands that the one who was named could not be made a neighbour: a meeting and a
relay that are wanted for one reader do not wait for it twice."""

MAX_GUIDES_PASSED_ON: Final = 256
"""Questions of others whose answers can find their way back."""

Befriend = Callable[[ServentId, Sequence[Address]], Awaitable[object]]
"""Makes a servent a neighbour that others named; LinkError if not."""


class Guides:
    """The neighbours of servents that we want to reach, and the questions of others for those."""

    def __init__(
        self, local: LocalServent, routes: Routes, knocks: Knocks, befriend: Befriend
    ) -> None:
        """Have those that are named made neighbours by `befriend`."""
        self._local = local
        self._routes = routes
        self._knocks = knocks
        self._befriend = befriend
        self._favours = Favours()
        self.forget = self._favours.forget
        self._questions = Questions(lambda token, peer: Guide(token, peer, MAX_TTL), GUIDE_TOLD_S)
        self._common: Latest[ServentId, LinkId] = Latest(MAX_ROUTES)
        """The link to a neighbour of a servent."""
        self._in_vain: Latest[ServentId, tuple[float, str]] = Latest(MAX_ROUTES)
        """When a neighbour of a servent was not made ours, and why."""
        self._tasks = Tasks()
        self._asking: SingleFlight[ServentId] = SingleFlight(self._tasks)
        self.run = self._tasks.run
        self._passed_on: Latest[Guid, tuple[LinkId, LinkId]] = Latest(MAX_GUIDES_PASSED_ON)
        """Where a question came from, and where it went."""
        self.counters: Counter[str] = Counter()
        """What became of the questions of others: `told`, `passed on`, and drops by reason."""

    # Our own questions.

    async def common(self, peer: PeerInfo) -> Link | None:
        """Return a neighbour that is linked to a servent too, or may be; None if none is known.

        Takes GUIDED_S at most. Callers that want the same servent meanwhile share the question.

        Raises:
            UnreachableError: a neighbour of it was named, and cannot be made one of ours.
        """
        wanted = ServentId(peer.id)
        way = self._routes.way_to(wanted)
        if way is None or way.peer.id == wanted or self._common.get(wanted) == way.id:
            return way
        failed_at, why = self._in_vain.get(wanted, (-math.inf, ""))
        if trio.current_time() < failed_at + IN_VAIN_S:
            raise UnreachableError(why)
        await self._asking.start(wanted, self._ask, wanted, way).wait()
        return self._routes.way_to(wanted)

    async def _ask(self, wanted: ServentId, way: Link) -> None:
        """Ask who is a neighbour of a servent; if nobody says, its way is as good as any."""
        by = trio.current_time() + GUIDED_S
        told = await self._questions.ask(way, wanted) if self._favours.may_ask(way) else None
        if told is None or told.guide is None:
            return
        link = way
        if told.guide.id != way.peer.id:
            try:
                link = await self._made_neighbour(_as_seen(way, told.guide), way, by)
            except UnreachableError as error:
                self._in_vain[wanted] = trio.current_time(), str(error)
                raise
            self._routes.came_from(wanted, ServentId(link.peer.id))
        self._common[wanted] = link.id

    async def _made_neighbour(self, guide: PeerInfo, told_by: Link, by: float) -> Link:
        wanted = ServentId(guide.id)
        if wanted not in self._routes.neighbours():
            self._knocks.named(guide.addresses, told_by.remote)
            try:
                with trio.move_on_at(by):
                    await self._befriend(wanted, guide.addresses)
            except LinkError as error:
                raise UnreachableError(
                    f"{printable(guide.name)}, its neighbour: {error}"
                ) from error
        link = self._routes.neighbours().get(wanted)
        if link is None:
            text = f"{printable(guide.name)}, its neighbour, did not become ours"
            raise UnreachableError(f"{text} within {GUIDED_S:g} s")
        return link

    # Questions of others.

    def got_guide(self, link: Link, message: Guide) -> None:
        """Take in an answer to us, pass it back, or answer a question or pass it on."""
        if self._questions.is_answer(link, message):
            return
        if message.guide is not None:
            self._pass_back(link, message, message.guide)
        elif not self._favours.is_within(link):
            self.counters["dropped: over budget"] += 1
        elif ServentId(message.peer) in self._routes.neighbours():
            self._tell(link, message)
        else:
            self._pass_on(link, message)

    def _tell(self, link: Link, message: Guide) -> None:
        """Say that we are a neighbour; the receiver knows our addresses better than we do."""
        self.counters["told"] += 1
        own = PeerInfo(self._local.identity.id, "", ())
        link.post(Guide(message.token, message.peer, 1, own))

    def _pass_on(self, link: Link, message: Guide) -> None:
        way = self._routes.way_to(ServentId(message.peer))
        if message.ttl <= 1 or way is None or not self._favours.may_pass_on(link, way):
            self.counters["dropped: no way"] += 1
            return
        self.counters["passed on"] += 1
        self._passed_on[Guid(message.token)] = link.id, way.id
        way.post(Guide(message.token, message.peer, message.ttl - 1))

    def _pass_back(self, link: Link, message: Guide, guide: PeerInfo) -> None:
        came_by, went_by = self._passed_on.get(Guid(message.token), (None, None))
        if went_by != link.id:
            self.counters["dropped: no answer to anything"] += 1
            return
        del self._passed_on[Guid(message.token)]
        seen = _as_seen(link, guide)
        addresses = tuple(map(without_zone, seen.addresses))
        for back in self._routes.neighbours().values():
            if back.id == came_by and addresses:
                told = PeerInfo(seen.id, seen.name, addresses)
                back.post(Guide(message.token, message.peer, 1, told))


def _as_seen(link: Link, guide: PeerInfo) -> PeerInfo:
    """Return a servent with the addresses at which it may be dialled from here.

    One at the other end of this link is where we see it, whatever it says of itself.
    """
    if guide.id == link.peer.id:
        return PeerInfo(link.peer.id, link.peer.name, link.seen_at)
    return PeerInfo(guide.id, guide.name, dialable(guide.addresses, link.remote))
