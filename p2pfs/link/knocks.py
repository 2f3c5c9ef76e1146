"""How often addresses are dialled that others name, and which peer pays when no servent is there.

Theory. A stranger can name any address. Each dial costs the machines there a packet or a line in a
log, so dials are counted by the network that an address is of (/24, /48), over all who name it:
KNOCKS_AT_FIRST at once, then KNOCKS_PER_MINUTE. A dial that leads to the servent that was named
costs nothing, and shows that servents live there, as a neighbour's link from there does: of their
network KNOCK_BURST are dialled at once, for a third of a hall may just have left, and KNOCKS_EARNED
more for each that is found. A liar who has a servent beside its victim, or behind the same router,
has to greet for each of these. When the burst is used up, each dial in vain costs twice what the
last one did. It also costs the neighbour that named the address first, so one whose addresses lead
to no servent is soon ignored.

Where a servent answered within PROVEN_S, or at a dial that the book of contacts remembers, is our
own knowledge: dialling that servent there again is not counted, and neither is what the user named.
Others that are said to be at the same address are counted: identities are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.errors import LinkError, TooManyFilesError, UnreachableError
from p2pfs.latest import Latest
from p2pfs.protocol import Address, ServentId, groups_of
from p2pfs.protocol.flood import TokenBucket

KNOCKS_PER_MINUTE: Final = 2
KNOCKS_AT_FIRST: Final = 2
KNOCK_BURST: Final = 8
"""Dials to one network because others name an address of it, which lead to no servent: as many at
once where nobody is known to be, and where a servent is."""

KNOCKS_EARNED: Final = 2
"""Dials in vain for which one makes up that leads to a servent: many of a network may have gone."""

NAMED_PER_MINUTE: Final = 6
NAMED_BURST: Final = 24
"""Such dials to addresses that one network of neighbours named, on the word of others perhaps."""

TURN_S: Final = 20.0
"""The longest wait for a turn: a dial of another is over by then, connection and greeting."""

PROVEN_S: Final = 1_800.0
"""How long it counts that the right servent answered at an address: as long as it is passed on."""

MAX_KNOCKED: Final = 1_024
"""Networks whose dials are counted, and whose names."""

MAX_ADDRESSES_NAMED: Final = 4_096
"""Addresses of which it is known who named them, or that a servent answered there."""


@dataclass(slots=True)
class _Target:
    """The dials to one network whose addresses others name."""

    allowance: TokenBucket = field(
        default_factory=lambda: TokenBucket(KNOCKS_PER_MINUTE / 60, KNOCK_BURST)
    )
    is_lived_in: bool = False
    """Whether a servent was found there."""
    under_way: int = 0
    """Dials that may still turn out to be in vain."""
    cost: int = 1
    """What the next dial in vain costs."""
    changed: trio.Event = field(default_factory=trio.Event)

    def may_knock(self) -> bool:
        """Return whether a dial may begin now."""
        return not self.wait_s(self.under_way)

    def wait_s(self, under_way: int = 0) -> float:
        """Return how long no dial may begin beside so many others."""
        kept = 0 if self.is_lived_in else KNOCK_BURST - KNOCKS_AT_FIRST
        return self.allowance.wait_s(trio.current_time(), under_way + kept)

    def over(self) -> None:
        """Note that a dial is over, so that others may have their turn."""
        self.under_way = max(0, self.under_way - 1)  # it may have been forgotten meanwhile
        self.changed.set()
        self.changed = trio.Event()


class Knocks:
    """The dials that others have us make."""

    def __init__(
        self, has_answered: Callable[[ServentId, Address], bool] = lambda _peer, _address: False
    ) -> None:
        """Dial at any time where a servent `has_answered`."""
        self._has_answered = has_answered
        self._targets: Latest[str, _Target] = Latest(MAX_KNOCKED)
        self._tellers: Latest[str, TokenBucket] = Latest(MAX_KNOCKED)
        self._named_by: Latest[Address, str] = Latest(MAX_ADDRESSES_NAMED)
        self._proven_at: Latest[tuple[ServentId | None, Address], float] = Latest(
            MAX_ADDRESSES_NAMED
        )
        """When a servent answered at an address; None stands for any servent."""

    def named(self, addresses: Iterable[Address], told_by: Address) -> None:
        """Note that a neighbour named addresses, unless another one did so that is still heard."""
        for address in addresses:
            if address not in self._named_by or self._is_overdrawn(address):
                self._named_by[address] = groups_of(told_by.host)[0]

    def lives_at(self, remote: Address) -> None:
        """Note that a servent is linked to us from there."""
        self._target(remote).is_lived_in = True

    def start_afresh(self) -> None:
        """Forget the dials in vain: the network of this machine has changed."""
        self._targets.clear()
        self._tellers.clear()

    def may_knock(self, address: Address, peer: ServentId | None = None) -> bool:
        """Begin a dial, and return whether it may be made; the caller then reports how it ended.

        None stands for any servent.
        """
        target = self._target(address)
        is_refused = not target.may_knock() or self._is_overdrawn(address)
        if is_refused and not self._is_proven(address, peer):
            return False
        target.under_way += 1
        return True

    async def wait_turn(self, address: Address, peer: ServentId | None = None) -> None:
        """Begin a dial as soon as it may be made; the caller then reports how it ended.

        Raises:
            UnreachableError: it may not be made within TURN_S.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(TURN_S):
            while not self.may_knock(address, peer):
                target = self._target(address)
                if not target.under_way or self._is_overdrawn(address):
                    raise UnreachableError(f"{address} was named by others, too often in vain")
                await target.changed.wait()
            return
        raise UnreachableError(f"{address} was not dialled: others of its network take too long")

    def was_welcome(self, address: Address, peer: ServentId) -> None:
        """Note that a dial has led to the servent that was named."""
        self._proven_at[peer, address] = self._proven_at[None, address] = trio.current_time()
        target = self._target(address)
        target.is_lived_in = True
        target.allowance.top_up(KNOCKS_EARNED)
        target.cost = 1
        target.over()
        teller = self._teller(address)
        if teller is not None:
            teller.spend(-1)

    def failed(
        self, address: Address, peer: ServentId | None, error: BaseException, times: int = 1
    ) -> None:
        """Note that a dial has failed: in vain, unless that is not the fault of who is there.

        It may have been made several times.
        """
        if isinstance(error, LinkError) and not isinstance(error, TooManyFilesError):
            self.was_in_vain(address, peer, times)
        else:
            self.was_given_up(address)

    def was_in_vain(self, address: Address, peer: ServentId | None = None, times: int = 1) -> None:
        """Note that a dial has not led to the servent that was named."""
        target = self._target(address)
        if not self._is_proven(address, peer):
            target.allowance.spend(min(target.cost * times, KNOCK_BURST))
            if target.wait_s():  # the burst is used up
                target.cost = min(2 * target.cost, KNOCK_BURST)
            teller = self._teller(address)
            if teller is not None:
                teller.spend(1)
        target.over()

    def was_given_up(self, address: Address) -> None:
        """Note that a dial was ended before anything came of it."""
        self._target(address).over()

    def _target(self, address: Address) -> _Target:
        return self._targets.renew(groups_of(address.host)[0], _Target)

    def _teller(self, address: Address) -> TokenBucket | None:
        network = self._named_by.get(address)
        if network is None:
            return None
        return self._tellers.renew(network, lambda: TokenBucket(NAMED_PER_MINUTE / 60, NAMED_BURST))

    def _is_overdrawn(self, address: Address) -> bool:
        """Return whether the neighbour that named an address has named too many in vain."""
        teller = self._teller(address)
        return teller is not None and teller.wait_s(trio.current_time()) > 0.0

    def _is_proven(self, address: Address, peer: ServentId | None) -> bool:
        if peer is not None and self._has_answered(peer, address):
            return True
        return trio.current_time() < self._proven_at.get((peer, address), -PROVEN_S) + PROVEN_S
