"""Dial a servent at all of its addresses.

An address that swallows packets holds up a dial for CONNECT_S. So the next address is tried
STAGGER_S later beside it, or at once when one fails, as RFC 8305 does for names (and
`trio.open_tcp_stream`, which explains at length why). Only connections race. One at a time is
greeted: of two greetings the servent would take the later for the better link.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from p2pfs.errors import LinkError, TooManyFilesError, UnreachableError
from p2pfs.link.greeting import ASKS_NOTHING, BeforeHello, First, LocalServent, RefusedError, greet
from p2pfs.link.knocks import Knocks
from p2pfs.link.live import Link
from p2pfs.link.sockets import Channel, Dialler
from p2pfs.protocol import Address, LinkKind, ServentId

STAGGER_S: Final = 0.25
"""How long an address is waited for before the next is tried beside it (RFC 8305, section 8)."""

TWICE_AFTER_S: Final = 0.4
"""The same where one address is dialled twice. A SYN that is lost is sent again after a second."""


async def dial_servent(
    network: Dialler,
    addresses: Sequence[Address],
    local: LocalServent,
    kind: LinkKind,
    expected_id: ServentId | None = None,
    claim: BeforeHello | None = None,
    knocks: Knocks | None = None,
    first: First = ASKS_NOTHING,
) -> Link:
    """Open a link to the servent that has these addresses; the caller must `run` it.

    The requests of `first` need not wait for the link; see `greet`.

    With `knocks`, the addresses were named by others, and are dialled no oftener than it allows.

    Takes at most CONNECT_S, STAGGER_S for each address, and HANDSHAKE_S for each that something
    answers at; with `knocks` also TURN_S. Cancelling it leaves no connection behind.

    Raises:
        RefusedError: the servent does not want this link. It has answered itself, so its
            other addresses are not asked.
        UnreachableError, HandshakeError: no address leads to it; the text says why for each.
        TooManyFilesError: it is ours that no connection could be opened.
    """
    left = list(dict.fromkeys(addresses))
    failures: list[LinkError] = []
    while left:
        race = _Race(network, left, knocks, expected_id)
        channel = await race.run()
        left = race.left
        failures += race.failures
        if channel is None:
            break
        assert race.winner is not None
        try:
            with _told(knocks, race.winner, expected_id):
                link = await greet(
                    channel, str(race.winner), local, kind, expected_id, claim, first
                )
        except RefusedError:
            raise
        except LinkError as failure:
            failures.append(failure)
        else:
            if knocks is not None:
                knocks.was_welcome(race.winner, ServentId(link.peer.id))
            return link
    own = next((failure for failure in failures if isinstance(failure, TooManyFilesError)), None)
    if own is not None or len(failures) == 1:
        raise own or failures[0]
    raise UnreachableError("; ".join(map(str, failures)) or "it has no address to be dialled at")


async def dial_twice(network: Dialler, address: Address) -> Channel:
    """Connect to an address, and once more beside that if nothing answers soon.

    For a caller who cannot wait until a lost packet is sent again. Cancelling it leaves no
    connection behind. Errors as for `Dialler.dial`.
    """
    race = _Race(network, (address, address), stagger_s=TWICE_AFTER_S)
    channel = await race.run()
    if channel is None:
        raise race.failures[0]
    return channel


@contextlib.contextmanager
def _told(knocks: Knocks | None, address: Address, expected_id: ServentId | None) -> Iterator[None]:
    """Report to `knocks` how a dial has failed, by how the block ends."""
    if knocks is None:
        yield
        return
    try:
        yield
    except RefusedError as refusal:
        knocks.was_welcome(address, refusal.peer_id)
        raise
    except BaseException as error:
        knocks.failed(address, expected_id, error)
        raise


class _Race:
    """Dials of several addresses, until something answers at one of them."""

    def __init__(
        self,
        network: Dialler,
        addresses: Sequence[Address],
        knocks: Knocks | None = None,
        expected_id: ServentId | None = None,
        stagger_s: float = STAGGER_S,
    ) -> None:
        self._network = network
        self._stagger_s = stagger_s
        self._knocks = knocks
        self._expected_id = expected_id
        self._channel: Channel | None = None
        self.left = list(addresses)
        """The addresses that have neither failed nor won."""
        self.failures: list[LinkError] = []
        self.winner: Address | None = None

    async def run(self) -> Channel | None:
        """Return the first connection, or None if no address answers."""
        try:
            async with trio.open_nursery() as nursery:
                await self._start(nursery)
        except BaseException:  # cancelled from outside, perhaps with a connection in hand
            if self._channel is not None:
                self._give_up(self.winner)
                await trio.aclose_forcefully(self._channel.stream)
            raise
        return self._channel

    async def _start(self, nursery: trio.Nursery) -> None:
        addresses = tuple(self.left)
        for number, address in enumerate(addresses, 1):
            over = trio.Event()
            nursery.start_soon(self._dial, address, over, nursery.cancel_scope)
            with trio.move_on_after(self._stagger_s if number < len(addresses) else math.inf):
                await over.wait()

    async def _dial(self, address: Address, over: trio.Event, scope: trio.CancelScope) -> None:
        try:
            channel = await self._connect(address)
        except LinkError as failure:
            self.left.remove(address)
            self.failures.append(failure)
        else:
            await self._arrived(address, channel, scope)
        finally:
            over.set()

    async def _arrived(self, address: Address, channel: Channel, scope: trio.CancelScope) -> None:
        if self.winner is None:
            self.left.remove(address)
            self.winner, self._channel = address, channel
            scope.cancel()
        else:  # two arrived at one moment; this address stays for another race
            self._give_up(address)
            await trio.aclose_forcefully(channel.stream)

    async def _connect(self, address: Address) -> Channel:
        if self._knocks is None:
            return await self._network.dial(address)
        await self._knocks.wait_turn(address, self._expected_id)
        try:
            return await self._network.dial(address)
        except BaseException as error:
            self._knocks.failed(address, self._expected_id, error)
            raise

    def _give_up(self, address: Address | None) -> None:
        if self._knocks is not None and address is not None:
            self._knocks.was_given_up(address)
