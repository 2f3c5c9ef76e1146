"""Keep what `network/` shows true, with few questions and short waits.

The catalogue knows names; the browser decides when a name is worth asking for, which servents to
ask and how long to wait. Three ways to ask, cheapest first:

- not at all: known names, names remembered as absent, names below a directory that was just
  listed, names that programs look up anywhere where no directory is known, no neighbour;
- directly: a directory whose few holders are known is listed over transfer links (LIST), so
  `find network/` floods once for the root and never again;
- by a flood: one PATH or DIRECTORY query within the horizon.

The simpler design, a flood for each directory, was given up: a walk through two hundred
directories would be two hundred floods, more than any neighbour's budget allows.

Theory. A listing is a claim about a time: everybody within the horizon was asked then. A name that
such a listing lacks is absent, but only if every holder of the directory told all of it
(`Partial`), and only until a servent says that it has changed there (`NewsBoard`) or the listing is
too old. If nobody was asked, or not all have answered, a name is therefore never "absent": it is
searched for, or the call fails. Nor does a listing speak of names that came after it had begun,
whenever it ends: a call that joins one under way asks again after it, and names that were found
meanwhile stay. A shown listing may be old by a refresh interval, never by more, because each look
at an old one renews it in the background; one whose holders are all neighbours that would have said
CHANGED is as they say (`Belief.is_kept_up`). Nothing that a stranger says makes a caller wait
longer than the bounds below: a servent that is slow is not believed for a while, one that breaks
off fails one look, one that trickles is not waited for.

`known` and `known_children` may be called from any thread and never wait; the rest belongs to the
trio thread. Questions under way are shared: a call with the same question waits for the same
answer, and a waiter that is cancelled disturbs no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio

from p2pfs.journal import Journal
from p2pfs.namespace.ages import (
    FIND_TIMEOUT_S,
    REFRESH_AFTER_S,
    Times,
)
from p2pfs.namespace.belief import Belief
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.comings import Comings
from p2pfs.namespace.confided import Confided
from p2pfs.namespace.confirming import Confirmer
from p2pfs.namespace.disputes import Disputes
from p2pfs.namespace.finder import Finder
from p2pfs.namespace.lister import Lister
from p2pfs.namespace.listing import Listings, ListPages, Telling
from p2pfs.namespace.newcomers import Newcomers
from p2pfs.namespace.nodes import Knowledge, Node, RemoteFile
from p2pfs.namespace.partials import Partial
from p2pfs.namespace.refused import Refused
from p2pfs.namespace.survey import Survey
from p2pfs.namespace.view import View
from p2pfs.overlay import Searches
from p2pfs.protocol import PeerInfo, ServentId, check_path, is_probe, name_of, parent_of
from p2pfs.tasks import SingleFlight, Tasks, kept_up


@dataclass(frozen=True, slots=True)
class Sight:
    """How much of the network `network/` shows, and how soon."""

    horizon: int | None
    """Servents that the last listing of the root has reached; None if it has reached none."""
    look_s: float | None
    """Seconds that the last listing took for which others were asked; None before the first."""
    partial: str | None
    """What keeps the top of `network/` from being whole; None if nothing does."""


class Browser(View):
    """What the tree below `network/` asks."""

    def __init__(
        self,
        catalogue: Catalogue,
        searches: Searches,
        list_pages: ListPages,
        disputes: Disputes,
        journal: Journal,
        *,
        neighbours: Callable[[], Sequence[PeerInfo]],
        ttl: int,
        clock: Callable[[], float],
        confided: Confided | None = None,
    ) -> None:
        self._catalogue = catalogue
        confided = confided or Confided(catalogue)
        self._books = catalogue, confided.catalogue
        self._disputes = disputes
        self._neighbours = neighbours
        self._clock = clock
        self._look_s: float | None = None
        self._shown_at: Times[str] = Times()
        """When each directory was last shown to somebody."""
        self._tasks = Tasks()
        self._fading: SingleFlight[str] = SingleFlight(self._tasks)
        self._listings = Listings(catalogue, list_pages, self._tasks, clock, confided)
        refused = Refused(clock)
        self._survey = Survey(catalogue, searches, self._listings, refused, ttl, clock)
        self._belief = Belief(
            catalogue,
            journal,
            neighbours=neighbours,
            horizon=lambda: self._survey.horizon,
            clock=clock,
        )
        self._newcomers = Newcomers(catalogue.groups_of, clock)
        self._lister = Lister(
            catalogue,
            self._newcomers,
            self._belief,
            self._survey,
            self._tasks,
            neighbours=neighbours,
            clock=clock,
        )
        self.comings = Comings(
            *self._books,
            self._belief,
            self._newcomers,
            neighbours=neighbours,
            shown_at=self._shown_at,
            list_anew=lambda path: self._tasks.soon(
                self._lister.start_on_news, path, idempotent=True
            ),
            clock=clock,
        )
        """Where it is told that servents come, change and go."""
        self._finder = Finder(
            catalogue,
            searches,
            disputes,
            self._belief,
            self._lister,
            refused,
            self._tasks,
            ttl,
            clock,
        )
        self._confirmer = Confirmer(
            self._books,
            self.ask_one,
            lambda: {peer.id for peer in neighbours()},
            clock,
            on_gone=self.comings.left,
        )
        for book in self._books:
            book.on_fading = lambda: self._tasks.soon(self._start_fading, idempotent=True)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the questions under way, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._tasks.run)
            nursery.start_soon(kept_up, self._confirmer.run)
            task_status.started()

    # From memory, on any thread.

    def known(self, path: str) -> Node | Knowledge:
        """Return the node that memory has at a path; UNKNOWN if asking the network may help."""
        shown = path
        node, path = self._catalogue.shown.look(path, self._clock())
        if node is Knowledge.UNKNOWN and not self._worth_asking(path):
            # A listing may have ended since the lookup, and brought the name: look it up again.
            node = self._catalogue.shown.lookup(shown, self._clock())
            if isinstance(node, Knowledge):
                return Knowledge.ABSENT
        if isinstance(node, Knowledge) or not path:
            return node
        if self._belief.is_outdated(path, node) or self._disputes.concern(node):
            return Knowledge.UNKNOWN
        self._lister.look(parent_of(path), self._belief.trust_s)
        return node

    def known_children(self, path: str) -> Sequence[Node] | Knowledge:
        """Return a directory as last listed; one that is old is listed again in the background."""
        published = self._catalogue.shown.published(path)
        self._shown_at.put(published, self._clock())
        may_show = self.may_show(published)
        return self._catalogue.shown.children(path) if may_show else Knowledge.UNKNOWN

    def settled(self, nodes: Sequence[Node]) -> Sequence[Node]:
        """Return some children without those of disputed size."""
        return self._disputes.left_out(nodes)

    def may_show(self, path: str) -> bool:
        """Return whether memory will do for a directory; renew an old one in the background."""
        if self._neighbours():
            if not self._belief.is_listed(path) and not self._lister.is_late(path):
                return False
            self._lister.look(path, self._belief.refresh_after_s)
        return True

    def _worth_asking(self, path: str) -> bool:
        if not self._neighbours():
            return False
        parent = parent_of(path)
        if is_probe(name_of(path)):
            return self._is_probe_worth_asking(parent)
        return self.age(parent) > REFRESH_AFTER_S or not self._belief.is_conclusive(parent)

    def partial(self, path: str) -> str | None:
        """Return what keeps the listing of a directory from being whole; None if nothing does."""
        published = self._catalogue.shown.published(path)
        partial = self._belief.partials.of(published) or Partial()
        return str(replace(partial, is_early=self._lister.is_late(published))) or None

    def hold(self, file: RemoteFile) -> Callable[[], None]:
        """Let a name stay with its content; see `ShownTree.hold`."""
        return self._catalogue.shown.hold(file)

    def partial_of(self, holder: PeerInfo, path: str) -> str | None:
        """Return what keeps the last listing of one servent from being whole."""
        return str(Partial(is_cut=True)) if self._listings.was_cut(holder, path) else None

    def partial_directories(self) -> Sequence[str]:
        """Return the directories whose listings are not whole, by path."""
        return self._belief.partials.directories()

    def sight(self) -> Sight:
        """Return how much of the network is shown. Any thread."""
        return Sight(self._survey.horizon or None, self._look_s, self.partial(""))

    def _is_probe_worth_asking(self, parent: str) -> bool:
        """Return whether a directory is worth a listing for a name that programs look up anywhere.

        Only if the directory is known to be there, and no earlier listing is conclusive.
        """
        self._lister.look(parent, self._belief.trust_s)
        return self._catalogue.holders.have(parent) and not self._belief.is_conclusive(parent)

    def changed_at(self, peer: ServentId) -> float:
        """Return when a neighbour last said that its share changed; minus infinity if never."""
        return self._belief.board.changed_at(peer)

    def age(self, path: str) -> float:
        """Return how long ago everybody was asked for a directory; infinite if never."""
        return self._belief.age(path)

    # From the network, on the trio thread.

    async def find(self, path: str) -> Node | None:
        """Return the node at `path`, asking for it if it is not known.

        The first hit ends the search, so other versions of the name may be missing. Returns None
        if nothing came in `FIND_TIMEOUT_S`, and at once for a name that nobody can publish.

        Raises:
            NotAskedError: it is not known, and may not be asked for now.
            ShutdownError: we end.
        """
        if path and check_path(path) is not None:
            return None
        with trio.move_on_after(FIND_TIMEOUT_S):
            await self._finder.look_for(path)
        node = self._catalogue.shown.lookup(path, self._clock())
        return None if isinstance(node, Knowledge) else node

    async def list(self, path: str) -> Sequence[Node]:
        """Return a directory, asked for now.

        Goes on while answers come, and ends when all have answered, or FIRST_LISTING_S after the
        last answer; `partial` then says whose names are missing. A directory that was listed a
        moment ago is there after twice the time that that took, and after FIRST_LISTING_S at most;
        likewise one of which some servents have news.

        Raises:
            NotAskedError: nobody may be asked for it now.
            NoSourceError, StalledError: a servent broke off in the middle. Another look shows
                what has come.
            ShutdownError: we end.
        """
        began_at, published = self._clock(), self._catalogue.shown.published(path)
        if self._belief.has_mere_news(published):
            self._lister.look(published, self._belief.refresh_after_s)
        await self._lister.for_look(published)
        self._look_s = self._clock() - began_at
        nodes: list[Node] = []
        for part in self._catalogue.shown.parts(path):
            nodes += part
            await trio.lowlevel.checkpoint()
        return nodes

    def ask_one(self, holder: PeerInfo, path: str, *, is_for_all: bool = True) -> Telling:
        """Ask one servent for a directory, or join the listing under way; raises ShutdownError.

        Of a directory that others have too all names are taken in only if it is not for all.
        """
        return self._listings.start(holder, path, is_for_all=is_for_all)

    def _start_fading(self) -> None:
        if self._tasks.are_running:
            self._fading.start("", self._fade)

    async def _fade(self) -> None:
        """Forget the claims that are to be forgotten, a little at a time."""
        while any(book.fade() for book in self._books):
            await trio.lowlevel.checkpoint()
