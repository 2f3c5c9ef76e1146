"""All ways to a servent at once, and the first link wins.

Each way that fails says why, in words for people: what they can do depends on it. A way that is
dearer to others begins later, or as soon as all before it have failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import trio

from p2pfs.errors import (
    LinkError,
    ShutdownError,
    SilentError,
    TooManyFilesError,
    UnreachableError,
)
from p2pfs.journal import printable
from p2pfs.link import (
    ASKS_NOTHING,
    STAGGER_S,
    Channel,
    First,
    Judge,
    Knocks,
    Link,
    Listener,
    LocalServent,
    Network,
    RefusedError,
    dial_servent,
)
from p2pfs.overlay import Handlers
from p2pfs.protocol import Address, Guide, LinkKind, PeerInfo, Punch, Push, Relay, ServentId
from p2pfs.rates import RateLimit
from p2pfs.reach.circuits import Circuits
from p2pfs.reach.favours import Routes
from p2pfs.reach.guides import Befriend, Guides
from p2pfs.reach.punch import Punches
from p2pfs.reach.push import Pushes
from p2pfs.reach.relays import Relays
from p2pfs.reach.shared import SharedLinks, give_back

REACH_S: Final = 3.5
"""How long a connection may take that a reader waits for: two lost SYN, which Linux sends again
after 1 and 3 s. A router that swallows what it does not let in is known for one by then, and a
read fails within five seconds, a last search for other sources included."""

PUNCH_AFTER_S: Final = 1.0
"""When both are to dial at once: by then it is likely that neither dial comes through."""

HIDDEN_PUNCH_AFTER_S: Final = 0.5
"""The same where a router hides us, so that nobody can dial back."""

RELAY_AFTER_S: Final = 3.0
"""When a neighbour is asked to relay: whatever else leads there has mostly done so by then."""

RELAY_SOONER_S: Final = 0.5
"""How long before a relay is asked beside a meeting that may be in vain, as behind a router that
shows each connection from another port. Where both can meet they mostly have by then."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to a servent."""

    name: str
    after_s: float
    """When it is tried at the latest, if no other has led there."""
    go: Callable[[], Awaitable[Link]]


class Ways:
    """Opens transfer links, by whatever way leads to the peer, and helps others to theirs."""

    def __init__(
        self,
        network: Network,
        local: LocalServent,
        listener: Callable[[], Listener],
        neighbours: Callable[[], Mapping[ServentId, Link]],
        judge: Judge,
        serve: Callable[[Link], Awaitable[None]],
        is_banned: Callable[[ServentId], bool],
        knocks: Knocks,
        befriend: Befriend,
        *,
        relays: bool,
        relay_limit: RateLimit,
    ) -> None:
        """Ask `neighbours`. Links that others want of us are judged and served as any.

        Servents that may bring us together with others are made neighbours by `befriend`.
        """
        self._network = _Hasty(network)
        self._local = local
        self._routes = Routes(neighbours)
        self._knocks = knocks
        self.pushes = Pushes(network, local, self._routes, knocks, serve, is_banned)
        self._shared = SharedLinks(serve, judge)
        self.guides = Guides(local, self._routes, knocks, befriend)
        self.punches = Punches(
            local, listener, self._routes, knocks, self._shared, self.guides, is_banned
        )
        self.relays = Relays(self._routes, is_on=relays, limit=relay_limit)
        self.circuits = Circuits(
            self._network, local, self.relays, self._shared, self.guides, knocks, is_banned
        )
        self.came_from = self._routes.came_from
        self.pushed = self.pushes.pushed
        self.came = self.punches.came
        self.presented = self.relays.presented

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what others ask for, until cancelled."""
        async with trio.open_nursery() as nursery:
            for part in (
                self._shared, self.pushes, self.punches, self.relays, self.guides, self.circuits,
            ):  # fmt: skip
                await nursery.start(part.run)
            task_status.started()

    @property
    def handlers(self) -> Handlers:
        """The handlers of PUSH, PUNCH, RELAY and GUIDE."""
        return {
            Push: self.pushes.got_push,
            Punch: self.punches.got_punch,
            Relay: self.circuits.got_relay,
            Guide: self.guides.got_guide,
        }

    def forget(self, link: Link) -> None:
        """Forget a neighbour that is gone."""
        for part in (self.pushes, self.punches, self.relays, self.circuits, self.guides):
            part.forget(link)

    async def connect(
        self, peer: PeerInfo, addresses: Sequence[Address], first: First = ASKS_NOTHING
    ) -> Link:
        """Return a transfer link to a peer; one that the peer has dialled is run already.

        If it is dialled, the requests of `first` need not wait for the link.

        Raises:
            RefusedError: the peer answered, and does not want this link.
            UnreachableError: no way leads to it; the text says why of each.
            TooManyFilesError: it is ours that no connection could be opened.
        """
        shared = self._shared.to(ServentId(peer.id))
        if shared is not None:
            return shared
        race = _WaysTried()

        def doubted() -> None:
            race.hasten(RELAY_SOONER_S)

        ways = (
            _Way("dial", 0.0, lambda: self._dial(peer, addresses, first)),
            _Way("push", STAGGER_S, lambda: self.pushes.call_back(peer)),
            _Way("punch", self._punch_after_s(peer), lambda: self.punches.call(peer, doubted)),
            _Way("relay", RELAY_AFTER_S, lambda: self.circuits.call(peer)),
        )
        link = await race.run(ways)
        if link is not None:
            return link
        is_known_to_live = self._routes.way_to(ServentId(peer.id)) is not None
        error = race.verdict(peer, is_known_to_live)
        if isinstance(error, UnreachableError):
            self._routes.led_nowhere(ServentId(peer.id))
        raise error

    def _punch_after_s(self, peer: PeerInfo) -> float:
        return HIDDEN_PUNCH_AFTER_S if self.punches.is_hidden(peer) else PUNCH_AFTER_S

    async def _dial(self, peer: PeerInfo, addresses: Sequence[Address], first: First) -> Link:
        return await dial_servent(
            self._network,
            addresses,
            self._local,
            LinkKind.TRANSFER,
            ServentId(peer.id),
            knocks=self._knocks,
            first=first,
        )


class _WaysTried:
    """The ways that are tried, until one of them has led to the peer."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._under_way = 0
        self._changed = trio.Event()
        self._turn = trio.CancelScope()
        """The wait for the turn of the next way."""
        self._failures: dict[str, LinkError] = {}

    async def run(self, ways: Sequence[_Way]) -> Link | None:
        """Return the first link, or None if no way leads to the peer."""
        began_at = trio.current_time()
        try:
            async with trio.open_nursery() as nursery:
                for way in ways:
                    await self._wait_turn(began_at + way.after_s)
                    self._under_way += 1
                    nursery.start_soon(self._take, way, nursery.cancel_scope)
        except BaseException:  # cancelled from outside, perhaps with a link in hand
            if self._link is not None:
                await give_back(self._link, "not wanted any more")
            raise
        return self._link

    async def _wait_turn(self, at: float) -> None:
        """Wait until it is time, or nothing is tried any more."""
        with trio.move_on_at(at) as self._turn:
            while self._under_way:
                await self._changed.wait()

    def hasten(self, within_s: float) -> None:
        """Let the next way begin so soon at the latest."""
        self._turn.deadline = min(self._turn.deadline, trio.current_time() + within_s)

    async def _take(self, way: _Way, scope: trio.CancelScope) -> None:
        """Try one way; one that succeeds, or that the peer itself refuses, ends the race."""
        try:
            link = await way.go()
        except LinkError as error:
            self._failed(way, error)
            if isinstance(error, RefusedError | TooManyFilesError):
                scope.cancel()
            return
        except ShutdownError as error:  # what it needs of us has ended before the race
            self._failed(way, UnreachableError(str(error)))
            return
        if self._link is None:
            self._link = link
            scope.cancel()
        else:  # both at one moment
            await give_back(link, "another way was quicker")

    def _failed(self, way: _Way, error: LinkError) -> None:
        self._failures[way.name] = error
        self._under_way -= 1
        self._changed.set()
        self._changed = trio.Event()

    def verdict(self, peer: PeerInfo, is_known_to_live: bool) -> LinkError:
        """Return why no way has led to the peer."""
        for error in self._failures.values():
            if isinstance(error, RefusedError | TooManyFilesError | SilentError):
                return error
        dialled = self._failures.pop("dial")
        if is_known_to_live and isinstance(dialled, UnreachableError) and peer.addresses:
            where = f"{printable(peer.name)} at {peer.addresses[0]}"
            dialled = UnreachableError(f"{where} cannot be dialled: it seems to be behind a router")
        return UnreachableError("; ".join(map(str, (dialled, *self._failures.values()))))


class _Hasty:
    """The network, for callers that cannot wait as long as it does."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def dial(self, address: Address) -> Channel:
        """Connect to `address` within REACH_S; see `Network.dial`."""
        with trio.move_on_after(REACH_S):
            return await self._network.dial(address)
        raise UnreachableError(f"no answer from {address} within {REACH_S:g} s")
