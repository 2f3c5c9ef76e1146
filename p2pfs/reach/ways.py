"""All ways to a servent at once: it is dialled, and asked to dial back, and the first link wins.

Each way that fails says why, in words for people: what they can do depends on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from p2pfs.errors import LinkError, SilentError, TooManyFilesError, UnreachableError
from p2pfs.journal import printable
from p2pfs.link import (
    STAGGER_S,
    Channel,
    Link,
    LocalServent,
    Network,
    RefusedError,
    dial_servent,
)
from p2pfs.protocol import Address, LinkKind, Message, PeerInfo, ServentId
from p2pfs.reach.push import Pushes

REACH_S: Final = 4.0
"""How long a connection may take that a reader waits for: two lost SYN. A router that swallows
what it does not let in is known for one by then."""


class Ways:
    """Opens transfer links, by whatever way leads to the peer."""

    def __init__(self, network: Network, local: LocalServent, pushes: Pushes) -> None:
        self._network = _Hasty(network)
        self._local = local
        self._pushes = pushes

    async def connect(self, peer: PeerInfo, addresses: Sequence[Address]) -> Link:
        """Return a transfer link to a peer; one that the peer has dialled is run already.

        Raises:
            RefusedError: the peer answered, and does not want this link.
            UnreachableError: no way leads to it; the text says why of each.
            TooManyFilesError: it is ours that no connection could be opened.
        """
        race = _Race()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(race.take, "dial", self._dial, peer, addresses, nursery.cancel_scope)
            with trio.move_on_after(STAGGER_S):
                await race.has_failed.wait()
            nursery.start_soon(race.take, "call", self._call, peer, addresses, nursery.cancel_scope)
        if race.link is not None:
            return race.link
        raise race.verdict(peer, self._pushes.way_to(ServentId(peer.id)) is not None)

    async def _dial(self, peer: PeerInfo, addresses: Sequence[Address]) -> Link:
        return await dial_servent(
            self._network, addresses, self._local, LinkKind.TRANSFER, ServentId(peer.id)
        )

    async def _call(self, peer: PeerInfo, _addresses: Sequence[Address]) -> Link:
        return await self._pushes.call_back(peer)


_Way = Callable[[PeerInfo, Sequence[Address]], Awaitable[Link]]


class _Race:
    """The ways that are tried, until one of them has led to the peer."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.has_failed = trio.Event()
        self._failures: dict[str, LinkError] = {}

    async def take(
        self,
        name: str,
        way: _Way,
        peer: PeerInfo,
        addresses: Sequence[Address],
        scope: trio.CancelScope,
    ) -> None:
        """Try one way; who succeeds, or is refused by the peer itself, ends the race."""
        try:
            link = await way(peer, addresses)
        except LinkError as error:
            self._failures[name] = error
            self.has_failed.set()
            if isinstance(error, RefusedError | TooManyFilesError):
                scope.cancel()
            return
        if self.link is None:
            self.link = link
            scope.cancel()
        else:  # both at one moment
            await _give_back(link)

    def verdict(self, peer: PeerInfo, is_known_to_live: bool) -> LinkError:
        """Return why no way has led to the peer."""
        for error in self._failures.values():
            if isinstance(error, RefusedError | TooManyFilesError | SilentError):
                return error
        dialled, called = self._failures["dial"], self._failures["call"]
        if is_known_to_live and isinstance(dialled, UnreachableError) and peer.addresses:
            where = f"{printable(peer.name)} at {peer.addresses[0]}"
            dialled = UnreachableError(f"{where} cannot be dialled: it seems to be behind a router")
        return UnreachableError(f"{dialled}; {called}")


async def _give_back(link: Link) -> None:
    link.lose("another way was quicker")
    if not link.is_run:
        with trio.CancelScope(shield=True):  # a link that was lost takes no time to run
            await link.run(_ignore)


def _ignore(_link: Link, _message: Message, _request_id: int) -> None:
    """Drop a message."""


class _Hasty:
    """The network, for those who cannot wait as long as it does."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def dial(self, address: Address) -> Channel:
        """Connect to `address` within REACH_S; see `Network.dial`."""
        with trio.move_on_after(REACH_S):
            return await self._network.dial(address)
        raise UnreachableError(f"no answer from {address} within {REACH_S:g} s")
