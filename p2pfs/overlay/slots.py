"""Which of those that dial, or were dialled, gets one of the places for neighbours.

Places for peers that we dial are apart from those for peers that dial us. When the latter are
taken, a newcomer from a smaller address group takes the place of the latest of the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import trio

from p2pfs.link import Link
from p2pfs.overlay.degree import CHOSEN
from p2pfs.protocol import Address, Bye, ByeCode, PeerInfo, ServentId, who_gives_way

MOST_RESERVED: Final = 1 / 4
"""The part of all slots that is kept for peers that we dial, at most: a servent
with room for a few neighbours only lets others in all the same."""

SIMULTANEOUS_S: Final = 10.0
"""A peer is not dialled again within this time of a link to it: the greeting of a dial that crossed
that link may take so long."""

CROSSING_S: Final = 1.0
"""A servent that has a link says no HELLO for another one (`is_crossed`). So the HELLO of a peer
that we have dialled crosses ours only if it was on its way when our link was greeted; lost, it
comes again within this time. A later one means that the peer has that link no more."""


class Slots:
    """The places for neighbours, judged by the links that are open now."""

    def __init__(
        self,
        links: Mapping[ServentId, Link],
        own_id: ServentId,
        *,
        degree: int,
        most: int,
        is_banned: Callable[[ServentId], bool],
        alternatives: Callable[[], tuple[PeerInfo, ...]],
    ) -> None:
        """Judge by `links`, of which there are `most`; `alternatives` are named in a refusal."""
        self._links = links
        self._own_id = own_id
        self._most = most
        self._reserved = int(min(degree * CHOSEN, most * MOST_RESERVED))
        self._is_banned = is_banned
        self._alternatives = alternatives
        self.is_away = False
        """Whether nobody gets a place, since the user has left."""

    def judge(self, peer: ServentId, remote: Address) -> Bye | None:
        """Return the BYE that a peer that dialled us gets, or None if it is welcome."""
        refusal = self._judge_any(
            peer, is_crossed=self._is_dialled(peer) and self._is_young(peer, CROSSING_S)
        )
        if refusal is not None or peer in self._links or self._is_one_free():
            return refusal
        return None if self._who_gives_way(remote.host) else self.full()

    def judge_dialled(self, peer: ServentId) -> Bye | None:
        """Return the BYE that a peer that we dialled gets, or None if it is still wanted."""
        refusal = self._judge_any(peer, is_crossed=self.is_crossed(peer))
        if refusal is None and peer not in self._links and len(self._links) >= self._most:
            return self.full()
        return refusal

    def has_room(self) -> bool:
        """Return whether we would take another neighbour; a walk that ends here asks.

        There is room beyond the degree that we look for: if only servents with few neighbours
        accepted newcomers, the newcomers would be linked to each other alone.
        """
        return not self.is_away and self._is_one_free()

    def who_makes_room(self, link: Link) -> Link | None:
        """Return the neighbour that goes so that a welcome link has a place, if one has to."""
        if link.direction == "out" or link.peer.id in self._links or self._is_one_free():
            return None
        victim = self._who_gives_way(link.remote.host)
        assert victim is not None, "it was judged at this moment"
        return victim

    def is_crossed(self, peer: ServentId) -> bool:
        """Return whether there is a link to a peer that is too young for another one."""
        return self._is_young(peer, SIMULTANEOUS_S)

    def _is_young(self, peer: ServentId, age_s: float) -> bool:
        known = self._links.get(peer)
        return known is not None and trio.current_time() - known.opened_at < age_s

    def _is_dialled(self, peer: ServentId) -> bool:
        return peer in self._links and self._links[peer].direction == "out"

    def full(self) -> Bye:
        """Return the BYE for a peer that has no place."""
        return Bye(ByeCode.FULL, "no room for more neighbours", self._alternatives())

    def _judge_any(self, peer: ServentId, *, is_crossed: bool) -> Bye | None:
        if peer == self._own_id:
            return Bye(ByeCode.DUPLICATE, "that is this servent itself")
        if self._is_banned(peer):
            return Bye(ByeCode.BANNED, "banned for a while")
        if self.is_away:
            return Bye(ByeCode.LEAVING, "has left the network")
        if is_crossed and self._is_kept(self._links[peer].direction, peer):
            return Bye(ByeCode.DUPLICATE, "linked already")
        return None

    def _is_kept(self, direction: str, peer: ServentId) -> bool:
        """Return whether, of two links that crossed, this is the one that both sides keep.

        It is the one that the servent with the smaller id dialled.
        """
        return (direction == "out") == (self._own_id < peer)

    def _is_one_free(self) -> bool:
        """Return whether a place for those that dial us is free."""
        is_room = len(self._links) < self._most
        return is_room and len(self._inbound()) < self._most - self._reserved

    def _inbound(self) -> list[Link]:
        return [link for link in self._links.values() if link.direction == "in"]

    def _who_gives_way(self, newcomer: str) -> Link | None:
        """Return the neighbour whose place somebody from this host takes: the latest, or None."""
        return who_gives_way(
            self._inbound(),
            newcomer,
            host_of=lambda link: link.remote.host,
            weight=lambda link: link.opened_at,
        )
