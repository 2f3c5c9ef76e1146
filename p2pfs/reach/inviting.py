"""Invite others, and follow invitations (`p2pfs.invitations` has their form)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from p2pfs.config import Config, Endpoint
from p2pfs.errors import LinkError, UnreachableError, UsageError
from p2pfs.invitations import LAST_END, MAX_ADDRESSES, MAX_SERVENTS, Invitation, Invited
from p2pfs.journal import Journal
from p2pfs.keys import invitation_key, is_of_network
from p2pfs.overlay import Overlay, Whereabouts
from p2pfs.protocol import Address, PeerInfo, ServentId, scope_of
from p2pfs.threads import RunInThread


class Inviting:
    """The invitations that this servent makes, and those that it was given."""

    def __init__(
        self,
        config: Config,
        overlay: Overlay,
        whereabouts: Whereabouts,
        journal: Journal,
        run_in_thread: RunInThread,
        wall_clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._overlay = overlay
        self._whereabouts = whereabouts
        self._journal = journal
        self._run_in_thread = run_in_thread
        self._wall_clock = wall_clock
        self.refused: list[str] = []
        """Why nobody is joined through some that the configuration names, a line for each."""

    def make(self, for_s: float) -> Invitation:
        """Return an invitation to join through us, or through others that we could dial.

        Raises:
            UsageError: nobody could dial us, the network key cannot be handed on, or the clock
                of this machine is a century ahead.
        """
        ends_at = int(self._wall_clock() + for_s)
        if ends_at > LAST_END:
            raise UsageError("the clock of this machine is wrong: it says that 2106 is over")
        us = self._whereabouts
        own = Invited(us.identity.id, places_of(us.addresses()))
        others = (link.peer for link in self._overlay.neighbours if link.direction == "out")
        servents = [own, *(Invited(peer.id, places_of(peer.addresses)) for peer in others)]
        reachable = tuple(one for one in servents if one.places)[:MAX_SERVENTS]
        if not reachable:
            raise UsageError("this servent has no address that others could dial")
        key = invitation_key(self._config)
        return Invitation(ends_at, reachable, key)

    def join_later(self) -> None:
        """Join through all that the configuration names, as soon as they answer."""
        for join in self._config.joins:
            if isinstance(join, Endpoint):
                self._overlay.join_later(Address(join.host, join.port))
            elif join.has_ended(self._wall_clock()):
                self.refused.append(f"not joined: this invitation ended on {join.end}")
                self._journal.warning(self.refused[-1])
            else:
                for one in join.servents:
                    self._overlay.join_invited_later(ServentId(one.id), _addresses(one))

    async def join(self, invitation: Invitation) -> tuple[PeerInfo, Address]:
        """Join through one of the servents that an invitation names, in their order.

        Raises:
            UsageError: it has ended, or is for another network than this servent's.
            UnreachableError: none of them answers; the text says why of each.
        """
        if invitation.has_ended(self._wall_clock()):
            raise UsageError(f"this invitation ended on {invitation.end}: ask for another")
        key = self._whereabouts.network_key
        if not await self._run_in_thread(is_of_network, invitation, key):
            raise UsageError("this invitation is for another network than this servent's")
        failures = []
        for one in invitation.servents:
            try:
                peer = await self._overlay.join_invited(ServentId(one.id), _addresses(one))
            except LinkError as error:
                failures.append(str(error))
                await trio.lowlevel.checkpoint()
            else:
                return peer, _addresses(one)[0]
        raise UnreachableError("; ".join(failures))


def places_of(addresses: Iterable[Address]) -> tuple[Endpoint, ...]:
    """Return the addresses that others may dial: link-local ones hold on one line alone."""
    usable = (one for one in addresses if "%" not in one.host and scope_of(one.host) is not None)
    return tuple(Endpoint(one.host, one.port) for one in usable)[:MAX_ADDRESSES]


def _addresses(invited: Invited) -> tuple[Address, ...]:
    return tuple(Address(place.host, place.port) for place in invited.places)
