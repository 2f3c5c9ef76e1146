"""Have a servent that we cannot dial dial us (PROTOCOL.md, "Servents that cannot be dialled").

A router lets out what its hosts dial and lets in nothing else. A servent that has a link to such a
servent can ask it to dial another: its neighbours, and through them those who have had a hit of it,
since a hit leaves its way behind. This module also answers others' requests: it passes them on, and
dials when this servent is meant.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.errors import LinkError, SilentError, UnreachableError
from p2pfs.journal import printable
from p2pfs.link import Knocks, Link, LocalServent, Network, dial_servent
from p2pfs.protocol import (
    GUID_BYTES,
    MAX_TTL,
    Guid,
    LinkKind,
    PeerInfo,
    Push,
    Pushed,
    ServentId,
    dialable,
    without_zone,
)
from p2pfs.reach.favours import Favours, Routes
from p2pfs.tasks import Tasks

log = logging.getLogger(__name__)

PUSH_S: Final = 3.0
"""How long a servent has to dial back: two links there, one dial with a lost SYN."""

MAX_DIALS_BACK: Final = 8
"""Dials under way because others have asked for them."""


@dataclass(slots=True)
class _Awaited:
    """A servent that was asked to dial us."""

    peer: ServentId
    has_come: trio.Event = field(default_factory=trio.Event)
    link: Link | None = None


class Pushes:
    """The requests to dial back: ours, those of others, and those that we pass on."""

    def __init__(
        self,
        network: Network,
        local: LocalServent,
        routes: Routes,
        knocks: Knocks,
        serve: Callable[[Link], Awaitable[None]],
        is_banned: Callable[[ServentId], bool],
    ) -> None:
        """Prepare; `serve` runs a link that we dialled for its peer, which may ask on it."""
        self._network = network
        self._local = local
        self._routes = routes
        self._knocks = knocks
        self._serve = serve
        self._is_banned = is_banned
        self._awaited: dict[Guid, _Awaited] = {}
        self._favours = Favours()
        self.forget = self._favours.forget
        self._dials = 0
        self._tasks = Tasks()
        self.counters: Counter[str] = Counter()
        """How many requests of others ended how: `passed on`, `dialled`, and drops by reason."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the dials for others, until cancelled."""
        await self._tasks.run(task_status=task_status)

    # Our own requests.

    async def call_back(self, peer: PeerInfo) -> Link:
        """Have a servent dial us, and return the link; the task that serves it runs it.

        Raises:
            UnreachableError: nobody can ask it, or it did not dial; the text says which.
            SilentError: it is a neighbour, and says nothing.
        """
        way = self._routes.way_to(ServentId(peer.id))
        if way is None:
            raise UnreachableError("no neighbour is known that could ask it to dial back")
        if not self._favours.may_ask(way):
            raise UnreachableError(f"{printable(way.peer.name)} was asked too often for calls back")
        token = Guid(secrets.token_bytes(GUID_BYTES))
        awaited = self._awaited[token] = _Awaited(ServentId(peer.id))
        try:
            asked_at = trio.current_time()
            way.post(Push(token, peer.id, MAX_TTL))
            way.ping()
            with trio.move_on_after(PUSH_S):
                await awaited.has_come.wait()
        finally:
            del self._awaited[token]
        if awaited.link is None and way.peer.id == peer.id and way.heard_at < asked_at:
            raise SilentError(
                f"{printable(peer.name)} says nothing, on the link that it has either"
            )
        if awaited.link is None:
            through = printable(way.peer.name)
            text = f"asked through {through} to dial back, it did not within {PUSH_S:g} s"
            raise UnreachableError(text)
        return awaited.link

    def pushed(self, link: Link, token: Guid) -> None:
        """Take in that a link was dialled because of a PUSH, ours perhaps."""
        awaited = self._awaited.get(token)
        if awaited is not None and awaited.peer == link.peer.id and awaited.link is None:
            awaited.link = link
            awaited.has_come.set()

    # Requests of others.

    def got_push(self, link: Link, message: Push) -> None:
        """Pass a request on, or dial its asker if we are meant."""
        if not self._favours.is_within(link):
            self.counters["dropped: over budget"] += 1
            return
        asker = _asker(link, message)
        if not asker.addresses or asker.id == self._local.identity.id:
            self.counters["dropped: nowhere to dial"] += 1
        elif message.target == self._local.identity.id:
            self._knocks.named(asker.addresses, link.remote)
            self._dial_back(asker, message.token)
        else:
            self._pass_on(link, message, asker)

    def _pass_on(self, came_by: Link, message: Push, asker: PeerInfo) -> None:
        way = self._routes.way_to(ServentId(message.target))
        if message.ttl <= 1 or way is None or not self._favours.may_pass_on(came_by, way):
            self.counters["dropped: no way"] += 1
            return
        self.counters["passed on"] += 1
        seen = PeerInfo(asker.id, asker.name, tuple(map(without_zone, asker.addresses)))
        way.post(Push(message.token, message.target, message.ttl - 1, seen))

    def _dial_back(self, asker: PeerInfo, token: Guid) -> None:
        if self._dials >= MAX_DIALS_BACK or self._is_banned(ServentId(asker.id)):
            self.counters["dropped: too many dials"] += 1
        elif not self._knocks.may_knock(asker.addresses[0], ServentId(asker.id)):
            self.counters["dropped: too many knocks"] += 1
        elif self._tasks.are_running:
            self._dials += 1
            self._tasks.start(self._dial_and_serve, asker, token)

    async def _dial_and_serve(self, asker: PeerInfo, token: Guid) -> None:
        try:
            link = await dial_servent(
                self._network, asker.addresses, self._local, LinkKind.TRANSFER, ServentId(asker.id)
            )
        except LinkError as error:
            self._knocks.failed(asker.addresses[0], ServentId(asker.id), error)
            log.info("not dialled back peer=%s reason=%s", asker.id, error)
            return
        finally:
            self._dials -= 1
        self._knocks.was_welcome(asker.addresses[0], ServentId(asker.id))
        self.counters["dialled"] += 1
        link.post(Pushed(token))
        await self._serve(link)


def _asker(link: Link, message: Push) -> PeerInfo:
    """Return the asker, with the address at which it may be dialled from here, if there is one.

    An asker at the other end of this link is where we see it, whatever it says of itself.
    """
    if message.asker is None:
        return PeerInfo(link.peer.id, link.peer.name, link.seen_at[:1])
    told = message.asker
    return PeerInfo(told.id, told.name, dialable(told.addresses, link.remote)[:1])
