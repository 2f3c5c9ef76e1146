"""Accepting links: greet peers that dial us, MAX_GREETINGS of them at once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from p2pfs.errors import LinkError, UsageError
from p2pfs.latest import Latest
from p2pfs.link.allowance import AddressAllowances
from p2pfs.link.greeting import Judge, LocalServent, Presented, answer_any
from p2pfs.link.live import Link
from p2pfs.link.replays import Replays
from p2pfs.link.sockets import Channel, Listener, Network
from p2pfs.protocol import Connection, LinkKind, State, groups_of, largest_crowd
from p2pfs.protocol.flood import TokenBucket
from p2pfs.tasks import guarded

log = logging.getLogger(__name__)

MAX_GREETINGS: Final = 64
"""Greetings under way at once: each holds a descriptor and costs four slow curve operations."""

GREETINGS_PER_S: Final = 20.0
GREETING_BURST: Final = 400
"""Greetings of one network: each costs two to three milliseconds of a processor. A lab of three
hundred may come at once."""

BRIEF_S: Final = 5.0
BRIEF_GREETINGS: Final = 4
"""Greetings that a neighbour costs its network besides which has ended its link so soon: to take it
in and to let it go costs as much as two, and it is back at once. Who stays longer is bounded by the
places for neighbours."""

MAX_RATES: Final = 1_024
"""Networks whose greetings are counted; the one that dialled longest ago is forgotten first."""

GREETING_STATES: Final = tuple(State)
"""How far a greeting may be, in order."""

TakeLink = Callable[[Link], Awaitable[None]]
"""Owns a greeted link from then on: must run it, for as long as it lasts if it likes."""


async def listen(network: Network, host: str | None, ports: Sequence[int]) -> Listener:
    """Listen at the first of these ports that is free.

    Raises:
        UsageError: the last of them is not free, or the host is none of this machine.
    """
    *first, last = ports
    for port in first:
        with contextlib.suppress(UsageError):
            return await network.listen(host, port)
    return await network.listen(host, last)


class Expected(Protocol):
    """The part that waits for connections which are not for the servent itself."""

    def came(self, channel: Channel) -> bool:
        """Take a connection, and return True; or leave it to be greeted."""

    def presented(self, presented: Presented) -> None:
        """Take a connection on which a ticket was presented."""


async def accept_links(
    listener: Listener,
    local: LocalServent,
    judge: Judge,
    take: TakeLink,
    expected: Expected | None = None,
) -> None:
    """Greet all that dial and pass their links to `take`, until cancelled; closes the listener."""
    await _Reception(listener, local, judge, take, expected).run()


@dataclass(eq=False, slots=True)
class _Greeting:
    """A greeting under way."""

    host: str
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    connection: Connection | None = None

    def began(self, connection: Connection) -> None:
        """Note the connection, once there is one."""
        self.connection = connection

    @property
    def steps(self) -> int:
        """How far it is."""
        return 0 if self.connection is None else GREETING_STATES.index(self.connection.state)


def _host_of(greeting: _Greeting) -> str:
    return greeting.host


class _Reception:
    """The greetings under way, oldest first."""

    def __init__(
        self,
        listener: Listener,
        local: LocalServent,
        judge: Judge,
        take: TakeLink,
        expected: Expected | None,
    ) -> None:
        self._listener = listener
        self._local = local
        self._judge = judge
        self._take = take
        self._expected = expected
        self._greetings: dict[_Greeting, None] = {}
        self._replays = Replays()
        self._rates: Latest[str, TokenBucket] = Latest(MAX_RATES)
        self._allowances = AddressAllowances()

    async def run(self) -> None:
        """Greet who dials, until cancelled."""
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    channel = await self._listener.accept()
                    if self._expected is not None and self._expected.came(channel):
                        continue
                    if not self._may_begin(channel.remote.host):
                        await trio.aclose_forcefully(channel.stream)
                        continue
                    self._make_room()
                    greeting = _Greeting(channel.remote.host)
                    self._greetings[greeting] = None
                    nursery.start_soon(guarded, self._receive, channel, greeting)
            finally:
                with trio.CancelScope(shield=True):  # closing a listener does not wait
                    await self._listener.aclose()

    def _may_begin(self, host: str) -> bool:
        """Charge a greeting to the network that it comes from: it costs a processor milliseconds.

        TCP has proven the address, so to close the connection is the cheapest refusal there is.
        """
        return self._rate_of(host).take(trio.current_time())

    def _rate_of(self, host: str) -> TokenBucket:
        return self._rates.renew(
            groups_of(host)[0], lambda: TokenBucket(GREETINGS_PER_S, GREETING_BURST)
        )

    def _make_room(self) -> None:
        """Give up a greeting: of those that came least far, the oldest of the largest group.

        Honest greetings take a few round trips, so who opens connections and says nothing
        pushes out its own. Refusing the newest instead would let it shut the door.
        """
        if len(self._greetings) >= MAX_GREETINGS:
            least = min(greeting.steps for greeting in self._greetings)
            behind = [greeting for greeting in self._greetings if greeting.steps == least]
            for part in (0, 1):
                behind = largest_crowd(behind, _host_of, part)
            del self._greetings[behind[0]]
            behind[0].scope.cancel()

    async def _receive(self, channel: Channel, greeting: _Greeting) -> None:
        answered = None
        try:
            with greeting.scope:
                answered = await answer_any(
                    channel, self._local, self._judge, greeting.began, self._replays.take
                )
        except LinkError as error:
            log.info("link refused remote=%s reason=%s", channel.remote, error)
        finally:
            self._greetings.pop(greeting, None)
        if isinstance(answered, Link):
            answered.count_with(self._allowances.of(channel.remote.host))
            await self._take(answered)
            await self._charge_if_brief(answered)
        elif answered is not None:
            await self._pass_on(answered)
        elif greeting.scope.cancelled_caught:
            log.info("link refused remote=%s reason=too many greetings", channel.remote)

    async def _charge_if_brief(self, link: Link) -> None:
        """Charge a neighbour that is soon gone more: who comes and goes may do so more rarely.

        Not one that had to go, since there is no room or we leave: it would have stayed.
        """
        if link.kind is LinkKind.NEIGHBOUR:
            with trio.move_on_at(link.opened_at + BRIEF_S):
                await link.wait_over()
                if link.is_peers_doing:
                    self._rate_of(link.remote.host).spend(BRIEF_GREETINGS)

    async def _pass_on(self, presented: Presented) -> None:
        if self._expected is None:
            await trio.aclose_forcefully(presented.channel.stream)
        else:
            self._expected.presented(presented)
