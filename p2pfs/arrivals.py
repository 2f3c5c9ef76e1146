"""What follows when a neighbour comes, goes, brings a hit, or says that its share has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from p2pfs.download import Pins, Swarms
from p2pfs.link import Link, TransferLinks
from p2pfs.namespace import Comings, Tellers
from p2pfs.overlay import Announcer, Handlers, MessageRouter, Whereabouts
from p2pfs.protocol import ByeCode, Changed, PeerInfo, QueryHit, ServentId
from p2pfs.reach import Beyond, Ways


class Arrivals:
    """Passes events of neighbours on to the parts that they concern (overlay.OverlayOwner)."""

    def __init__(
        self,
        whereabouts: Whereabouts,
        message_router: MessageRouter,
        links: TransferLinks,
        ways: Ways,
        beyond: Beyond,
        comings: Comings,
        swarms: Swarms,
        pins: Pins,
        tellers: Tellers,
        announcer: Announcer,
        wall_clock: Callable[[], float],
    ) -> None:
        self._whereabouts = whereabouts
        self._message_router = message_router
        self._links = links
        self._ways = ways
        self._beyond = beyond
        self._comings = comings
        self._swarms = swarms
        self._pins = pins
        self._tellers = tellers
        self._announcer = announcer
        self._wall_clock = wall_clock

    def neighbour_opened(self, link: Link) -> None:
        """Take a new neighbour into the flood."""
        self._whereabouts.observed(link.hello.observed.host, link.remote.host)
        self._message_router.opened(link)
        if self._message_router.is_first(link):
            self._announcer.arrived()
        self._beyond.neighbour_opened(link)
        self._links.located(link.peer)
        self._tellers.proved(ServentId(link.peer.id), link.remote.host)
        self._comings.joined(link.peer.id)
        self._pins.neighbour_came()
        self._swarms.look_soon()

    def neighbour_lost(self, link: Link) -> None:
        """Forget a neighbour; if it said that it leaves, forget its offers too."""
        self._whereabouts.observed_no_more(link.hello.observed.host, link.remote.host)
        self._message_router.lost(link)
        self._ways.forget(link)
        self._beyond.neighbour_lost(link)
        if link.bye is not None and link.bye.code is ByeCode.LEAVING:
            self._comings.left(link.peer.id)
        else:
            self._comings.lost(link.peer.id, is_there=link.bye is not None)

    def leaving(self) -> None:
        """Tell everybody within the horizon that we leave."""
        self._announcer.leaving()

    @property
    def handlers(self) -> Handlers:
        """The handlers of messages of neighbours."""
        changed: Handlers = {Changed: self._neighbour_changed}
        return {
            **self._message_router.handlers,
            **changed,
            **self._ways.handlers,
            **self._beyond.handlers,
        }

    def _neighbour_changed(self, link: Link, _message: Changed) -> None:
        self._comings.changed(link.peer.id)
        self._swarms.look_soon()

    def heard_news(
        self, peer: PeerInfo, directories: Sequence[str], is_all: bool, version: int
    ) -> None:
        """Take in which directories of a share have changed; with `is_all`, others may have too.

        NEWS that name nothing say that their servent leaves.
        """
        if directories or is_all:
            self._comings.got_news(peer, directories, is_all=is_all)
        else:
            self._comings.got_leaving(peer.id, self._wall_clock() - version / 1000)

    def hit_came(self, hit: QueryHit, by: Link) -> None:
        """Note which neighbour has brought a hit of a servent."""
        provider = ServentId(hit.provider.id)
        self._links.learnt(provider, hit.public_key)
        self._ways.came_from(provider, by.peer.id)
        self._tellers.told(provider, by.remote.host)

    def start_walk(self) -> None:
        """Send one random walk on its way."""
        self._message_router.start_walk()
