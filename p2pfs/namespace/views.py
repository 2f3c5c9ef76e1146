"""The catalogue, and all that fills it and shows it, put together once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from p2pfs.journal import Journal
from p2pfs.link import TransferLinks
from p2pfs.namespace.browser import Browser
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.confided import Confided
from p2pfs.namespace.contents import Contents
from p2pfs.namespace.disputes import Disputes
from p2pfs.namespace.gathering import Gatherer
from p2pfs.namespace.keywords import Results
from p2pfs.namespace.peers import Shares
from p2pfs.namespace.showing import Here
from p2pfs.overlay import Searches
from p2pfs.protocol import FileId, PeerInfo


class Namespace:
    """What others offer, as `network/`, `search/` and `peers/` show it."""

    def __init__(
        self,
        here: Here,
        searches: Searches,
        links: TransferLinks,
        journal: Journal,
        *,
        neighbours: Callable[[], Sequence[PeerInfo]],
        path_of: Callable[[FileId], str | None],
        ttl: int,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        kept_path: str,
        confided_path: str | None = None,
    ) -> None:
        """Prepare; `path_of` tells the path at which a content was last read."""
        self.catalogue = Catalogue(here, clock=clock)
        self.confided = Confided(self.catalogue, confided_path, clock=clock)
        searches.is_withheld = self.confided.holds
        disputes = Disputes(self.catalogue, links.fetch_manifest, clock)
        self.browser = Browser(
            self.catalogue,
            searches,
            links.list_pages,
            disputes,
            journal,
            neighbours=neighbours,
            ttl=ttl,
            clock=clock,
            confided=self.confided,
        )
        self.gatherer = Gatherer(self.catalogue, searches.run, links.match_page, ttl=ttl)
        self.results = Results(
            self.catalogue,
            self.gatherer,
            disputes,
            clock=clock,
            wall_clock=wall_clock,
            kept_path=kept_path,
        )
        self.shares = Shares(
            self.catalogue,
            self.browser,
            neighbours=neighbours,
            clock=clock,
            confided=self.confided,
        )
        self.contents = Contents(
            self.catalogue, searches, links.fetch_manifest, path_of=path_of, ttl=ttl
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the questions under way, until cancelled."""
        async with trio.open_nursery() as nursery:
            for view in (self.browser, self.results, self.shares):
                await nursery.start(view.run)
            task_status.started()

    def all_left(self) -> None:
        """Forget what everybody offered: we have left the network."""
        self.browser.comings.all_left()
        self.results.all_left()
