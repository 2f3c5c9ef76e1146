"""The peers that neighbours name to us, and the peers that are named to them.

A neighbour is asked for peers once, when its link opens, and answers once. An address that it
names is dialled only if it can be reached from where the neighbour is, and is passed on only after
the right servent has answered there, or was seen at that host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import trio

from p2pfs.link import Knocks, Link
from p2pfs.overlay.contacts import ContactBook
from p2pfs.protocol import MAX_PEERS, Address, GetPeers, Message, PeerInfo, Peers, dialable
from p2pfs.protocol.flood import LinkId, TokenBucket

GET_PEERS_PER_S: Final = 1 / 60
GET_PEERS_BURST: Final = 3
"""How often a neighbour may ask for peers: a joiner asks once, and our answer is a thousand
times as long as its question."""


@dataclass(slots=True)
class _Quota:
    """The questions that a neighbour may still ask, and whether it owes an answer."""

    asks: TokenBucket = field(default_factory=lambda: TokenBucket(GET_PEERS_PER_S, GET_PEERS_BURST))
    owes_peers: bool = True
    """Whether our GET_PEERS is unanswered: peers that nobody asked for are not taken in."""


class Exchange:
    """The peers that neighbours name, and those that are named to them."""

    def __init__(
        self,
        contacts: ContactBook,
        knocks: Knocks,
        own_id: str,
        wall_clock: Callable[[], float],
        on_heard: Callable[[], object],
    ) -> None:
        """Keep named peers in `contacts`; `on_heard` is called whenever one was named."""
        self._contacts = contacts
        self._knocks = knocks
        self._own_id = own_id
        self._wall_clock = wall_clock
        self._on_heard = on_heard
        self._quotas: dict[LinkId, _Quota] = {}
        self.handlers: dict[type[Message], Callable[[Link, Any], None]] = {
            GetPeers: self._asked_for_peers,
            Peers: self._told_of_peers,
        }
        """The handlers of messages about peers."""

    def opened(self, link: Link) -> None:
        """Expect the peers that a new neighbour knows; the caller asks for them."""
        self._quotas[link.id] = _Quota()

    def lost(self, link: Link) -> None:
        """Forget the quota of a neighbour that is gone."""
        del self._quotas[link.id]

    def _asked_for_peers(self, link: Link, _message: GetPeers) -> None:
        if self._quotas[link.id].asks.take(trio.current_time()):
            link.post(Peers(self.some(MAX_PEERS, but=link.peer.id)))

    def _told_of_peers(self, link: Link, message: Peers) -> None:
        """Note the peers that a neighbour names, once, as we asked."""
        quota = self._quotas[link.id]
        if quota.owes_peers:
            quota.owes_peers = False
            for peer in message.peers:
                self.heard_of(peer, link.remote)

    def heard_of(self, peer: PeerInfo, told_by: Address, *, is_introduced: bool = False) -> None:
        """Note a peer that another one named, if its addresses may be dialled from there."""
        addresses = dialable(peer.addresses, told_by)
        if addresses and peer.id != self._own_id:
            known = PeerInfo(peer.id, peer.name, addresses)
            self._knocks.named(addresses, told_by)
            self._contacts.heard_of(known, is_introduced=is_introduced)
            self._on_heard()

    def some(self, count: int, but: str = "") -> tuple[PeerInfo, ...]:
        """Return some peers that may be passed on, without the one that asks."""
        fresh = (peer for peer in self._contacts.fresh(self._wall_clock()) if peer.id != but)
        return tuple(islice(fresh, count))
