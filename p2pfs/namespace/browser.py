"""Keep what `network/` shows true, with few questions and short waits.

The catalogue knows names; the browser decides when a name is worth asking for, whom to ask
and how long to wait. Three ways to ask, cheapest first:

- not at all: known names, names remembered as absent, names below a directory that was just
  listed, names that programs look up anywhere where no directory is known, no neighbour;
- directly: a directory whose few holders are known is listed over transfer links (LIST), so
  `find network/` floods once for the root and never again;
- by a flood: one PATH or DIRECTORY query within the horizon.

The simpler design, a flood for each directory, was given up: a walk through two hundred
directories would be two hundred floods, more than any neighbour's budget allows.

`known` and `known_children` may be called from any thread and never wait; the rest belongs
to the trio thread. Questions under way are shared: who asks the same again waits for the
same answer, and a waiter that is cancelled disturbs nobody.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from p2pfs.errors import NotAskedError, P2pfsError, RejectedError, RemoteProtocolError, StalledError
from p2pfs.namespace.catalogue import Catalogue, Knowledge, Node
from p2pfs.overlay import Searches, is_answer
from p2pfs.protocol import (
    Listing,
    PeerInfo,
    QueryHit,
    QueryKind,
    RejectCode,
    ServentId,
    check_path,
    is_probe,
)
from p2pfs.protocol.flood import Urgency
from p2pfs.tasks import SingleFlight, Tasks

log = logging.getLogger(__name__)

FIND_TIMEOUT_S: Final = 2.0
"""The longest that a look at an unknown name may take (DESIGN 2.1)."""

LIST_TIMEOUT_S: Final = 1.5
"""The longest that the first listing of a directory may take (DESIGN 2.1)."""

ABSENT_S: Final = 10.0
"""How long a name that nobody had is not asked for again (DESIGN 2.1)."""

REFRESH_AFTER_S: Final = 3.0
"""A listing older than this is shown at once and asked for again behind: with it, what is
published anywhere within the horizon is listed within five seconds (DESIGN 4)."""

TRUST_S: Final = 30.0
"""How long the holders found by a flood are taken for all holders of what lies below."""

MAX_DIRECT: Final = 16
"""Holders asked one by one; with more, a flood is cheaper."""

MAX_LOOKED_AT: Final = 1_000
"""Directories of which it is remembered when they were looked at; the oldest is forgotten."""

MAX_PAGES: Final = 200
"""Pages of one listing from one servent: 100,000 names, more than any `ls` is for."""

PAGES_TIMEOUT_S: Final = 30.0
"""How long one servent's listing may go on behind those who no longer wait for it: the forty
pages of 20,000 names take eight seconds from the other side of the world."""

MUTED_S: Final = 60.0
"""How long the news of a neighbour are not waited for that said that it changed and was slow to
say what: else it could delay every `ls`. What is new there shows when listings are refreshed."""

FetchListing = Callable[[PeerInfo, str, str], Awaitable[Listing]]
"""Ask a peer for one page of a directory, after a name."""


class Browser:
    """What the tree below `network/` asks."""

    def __init__(
        self,
        catalogue: Catalogue,
        searches: Searches,
        fetch_listing: FetchListing,
        *,
        neighbours: Callable[[], Sequence[PeerInfo]],
        ttl: int,
        clock: Callable[[], float],
    ) -> None:
        self._catalogue = catalogue
        self._searches = searches
        self._fetch_listing = fetch_listing
        self._neighbours = neighbours
        self._ttl = ttl
        self._clock = clock
        self._news_at = float("-inf")
        self._changed: dict[ServentId, float] = {}
        """When each neighbour last said that its share changed."""
        self._muted: dict[ServentId, float] = {}
        """Until when it is not listened to for that."""
        self._looked_at = _Times()
        self._caught_up_at = _Times()
        """When the neighbours with news were last asked for a directory, and nobody else."""
        self._refreshed_at = _Times()
        self._tasks = Tasks()
        self._flights: SingleFlight[tuple[str, str]] = SingleFlight(self._tasks)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the questions under way, until cancelled."""
        await self._tasks.run(task_status=task_status)

    # From memory, on any thread.

    def known(self, path: str) -> Node | Knowledge:
        """Return what is known of a path; UNKNOWN if asking the network may help."""
        node = self._catalogue.lookup(path, self._clock())
        if node is Knowledge.UNKNOWN and not self._worth_asking(path):
            return Knowledge.ABSENT
        if isinstance(node, Knowledge) or not path:
            return node
        if self._is_outdated(path, node):
            return Knowledge.UNKNOWN
        self._refresh_behind(_parent(path), TRUST_S)
        return node

    def known_children(self, path: str) -> Sequence[Node] | Knowledge:
        """Return a directory as last listed, and ask again behind if that was a while ago."""
        return self._catalogue.children(path) if self.may_show(path) else Knowledge.UNKNOWN

    def may_show(self, path: str) -> bool:
        """Return whether a directory may be shown as known; ask again behind if it is old."""
        if self._neighbours():
            if self._catalogue.listed_at(path) is None or self._news(path):
                return False
            self._refresh_behind(path, REFRESH_AFTER_S)
        return True

    def _worth_asking(self, path: str) -> bool:
        if not self._neighbours():
            return False
        parent = _parent(path)
        if is_probe(_name(path)):
            return self._is_probe_worth_asking(parent)
        return self.age(parent) > REFRESH_AFTER_S or bool(self._news(parent))

    def _is_probe_worth_asking(self, parent: str) -> bool:
        """Return whether a directory is worth a listing for a name that programs look up anywhere.

        Only where there is such a directory, and if it was not listed before.
        """
        self._refresh_behind(parent, TRUST_S)
        is_listed = self._catalogue.listed_at(parent) is not None and not self._news(parent)
        return self._is_there(parent) and not is_listed

    def _is_there(self, directory: str) -> bool:
        """Return whether a directory is known to exist; the root always does."""
        return not directory or bool(self._catalogue.directory_sources(directory))

    def _is_outdated(self, path: str, node: Node) -> bool:
        """Return whether a neighbour that has the node said that its share changed since."""
        since = self._heard_at(_parent(path))
        return any(self.changed_at(source.id) > since for source in node.sources)

    def changed_at(self, peer: ServentId) -> float:
        """Return when a neighbour last said that its share changed; minus infinity if never."""
        return self._changed.get(peer, -math.inf)

    def age(self, path: str) -> float:
        """Return how long ago everybody was asked for a directory; infinite if never."""
        listed_at = self._catalogue.listed_at(path)
        return math.inf if listed_at is None else self._clock() - listed_at

    def _heard_at(self, path: str) -> float:
        """Return how old the neighbours' news are that a directory may lack."""
        listed_at = self._catalogue.listed_at(path)
        return max(-math.inf if listed_at is None else listed_at, self._caught_up_at.get(path))

    def _news(self, path: str) -> Sequence[PeerInfo]:
        """Return the neighbours that changed since they were last asked for a directory."""
        since = self._heard_at(path)
        return [peer for peer in self._neighbours() if self.changed_at(peer.id) > since]

    def _refresh_behind(self, path: str, after_s: float) -> None:
        """Ask again for a directory that is older than that; nobody waits for it. Any thread."""
        now = self._clock()
        if not self._neighbours() or self.age(path) <= after_s:
            return
        if now - self._refreshed_at.get(path) > REFRESH_AFTER_S:
            self._tasks.soon(self._start_refresh, path, idempotent=True)

    # From the network, on the trio thread.

    async def find(self, path: str) -> Node | None:
        """Return what is at `path`, asking for it if it is not known.

        Returns None after `FIND_TIMEOUT_S` at most, and at once for a name that nobody can
        publish.

        Raises:
            NotAskedError: it is not known, and may not be asked for now.
            ShutdownError: we end.
        """
        if path and check_path(path) is not None:
            return None
        parent = _parent(path)
        not_asked: NotAskedError | None = None
        try:
            with trio.move_on_after(FIND_TIMEOUT_S):
                if self._has_mere_news(parent):
                    await self._ask("news", parent, self._list_news)
                elif (
                    self._holders(parent) or self._is_mere_probe(path) or self._is_second_look(path)
                ):
                    await self._ask("list", parent, self._list)
                else:
                    await self._ask("find", path, self._find)
        except NotAskedError as error:
            not_asked = error
        node = self._catalogue.lookup(path, self._clock())
        if node is Knowledge.UNKNOWN and not_asked is not None:
            raise not_asked
        return None if isinstance(node, Knowledge) else node

    def _is_mere_probe(self, path: str) -> bool:
        """Return whether a name that programs look up anywhere is in a directory that exists."""
        return is_probe(_name(path)) and self._is_there(_parent(path))

    def _is_second_look(self, path: str) -> bool:
        """Return whether another name in the same directory was looked for lately.

        Whoever looks for two will look for more: one listing costs less than many searches.
        """
        if ("find", path) in self._flights:
            return False
        now, parent = self._clock(), _parent(path)
        before = self._looked_at.get(parent)
        self._looked_at.put(parent, now)
        return now - before < TRUST_S

    def _has_mere_news(self, path: str) -> bool:
        """Return whether a directory needs no more than the news of some neighbours."""
        return self.age(path) < TRUST_S and bool(self._news(path))

    async def list(self, path: str) -> Sequence[Node]:
        """Return a directory, asked for now; after `LIST_TIMEOUT_S` what has come by then.

        Raises:
            NotAskedError: nobody may be asked for it now.
            ShutdownError: we end.
        """
        with trio.move_on_after(LIST_TIMEOUT_S):
            if self._has_mere_news(path):
                self._refresh_behind(path, REFRESH_AFTER_S)
                await self._ask("news", path, self._list_news)
            else:
                await self._ask("list", path, self._list)
        return self._catalogue.children(path)

    def peer_joined(self) -> None:
        """Note a new neighbour: every listing is old, since it may have more."""
        self._news_at = self._clock()
        self._catalogue.expire(self._clock())

    def peer_changed(self, peer: ServentId) -> None:
        """Note that a neighbour's share is not what it was."""
        if self._clock() < self._muted.get(peer, -math.inf):
            return
        self._news_at = self._changed[peer] = self._clock()
        self._catalogue.forget_absences()

    def peer_left(self, peer: ServentId) -> None:
        """Forget what a servent offered that has left the network."""
        self._forget_news(peer)
        self._catalogue.forget(peer)

    def all_left(self) -> None:
        """Forget what everybody offered: we have left the network."""
        self._changed.clear()
        self._muted.clear()
        self._catalogue.keep_only("", ())

    def peer_lost(self, peer: ServentId) -> None:
        """Note that a neighbour is gone without a word; the next look shows who is still there."""
        self._forget_news(peer)
        if self._neighbours():
            self._catalogue.expire(self._clock())

    def _forget_news(self, peer: ServentId) -> None:
        self._changed.pop(peer, None)
        self._muted.pop(peer, None)

    async def _ask(self, verb: str, path: str, ask: Callable[[str], Awaitable[None]]) -> None:
        """Ask a question of our own, or wait for the answer to the same one."""
        await self._flights.start((verb, path), ask, path).wait()

    def _start_refresh(self, path: str) -> None:
        self._refreshed_at.put(path, self._clock())
        if self._tasks.are_running:
            self._flights.start(("refresh", path), self._refresh, path)

    async def _find(self, path: str) -> None:
        began_at = self._clock()
        rings = range(1, self._ttl + 1)
        outcome = await self._searches.run(
            QueryKind.PATH, path, rings=rings, timeout_s=FIND_TIMEOUT_S, is_enough=bool
        )
        for hit in outcome.hits:
            self._catalogue.learn(hit.provider, hit.entries)
        if outcome.is_complete and not outcome.hits:
            self._catalogue.keep_only(path, ())
        has_news = self._news_at > began_at  # it may have been published behind our question
        if not outcome.hits and outcome.servents and not has_news:
            self._catalogue.remember_absent(path, self._clock() + ABSENT_S)

    async def _refresh(self, path: str) -> None:
        """List a directory again, after those above it that are old.

        Once these are fresh the holders of what is below are known, so that to refresh two
        hundred directories costs the flood of one. Raises NotAskedError.
        """
        labels = path.split("/") if path else []
        above = ["/".join(labels[:depth]) for depth in range(len(labels))]
        for directory in (*(d for d in above if self.age(d) > TRUST_S), path):
            await self._flights.start(("list", directory), self._refresh_one, directory).wait()

    async def _refresh_one(self, path: str) -> None:
        await self._list(path, Urgency.REFRESH)

    async def _list_news(self, path: str) -> None:
        """Ask the neighbours with news for a directory; what others have is held for true."""
        began_at = self._clock()
        news = self._news(path)
        for slow in await self._list_directly(path, news):
            self._changed.pop(slow.id, None)
            self._muted[slow.id] = self._clock() + MUTED_S
        self._caught_up_at.put(path, began_at)

    async def _list(self, path: str, urgency: Urgency = Urgency.PERSON) -> None:
        """Ask all for a directory: those who have it if they are known, else everybody.

        Raises:
            NotAskedError: everybody may not be asked now, and nobody is known to have it.
        """
        began_at = self._clock()
        holders = self._holders(path)
        if holders:
            await self._list_directly(path, holders)
        else:
            try:
                await self._list_by_flood(path, urgency)
            except NotAskedError:
                some = self._catalogue.directory_sources(path)[:MAX_DIRECT]
                if not some or urgency is not Urgency.PERSON:
                    raise
                await self._list_directly(path, some)
                return  # not everybody was asked
        self._catalogue.mark_listed(path, began_at)

    def _holders(self, path: str) -> Sequence[PeerInfo]:
        """Return all holders of a directory, if they are few and surely all; else nothing."""
        holders = self._catalogue.directory_sources(path)
        if not path or not holders or self.age(_parent(path)) >= TRUST_S:
            return ()
        maybe = {peer.id: peer for peer in (*self._news(_parent(path)), *holders)}
        return tuple(maybe.values()) if len(maybe) <= MAX_DIRECT else ()

    async def _list_by_flood(self, path: str, urgency: Urgency) -> None:
        """Ask everybody for a directory; NotAskedError if that may not be now.

        Hits are taken in as they come: whoever waits may leave before the last.
        """
        learned: set[ServentId] = set()

        def learn(hits: Sequence[QueryHit]) -> bool:
            for hit in hits:
                if hit.provider.id not in learned:
                    learned.add(hit.provider.id)
                    self._learn_hit(path, hit)
            return False

        outcome = await self._searches.run(
            QueryKind.DIRECTORY,
            path,
            rings=(self._ttl,),
            timeout_s=LIST_TIMEOUT_S,
            is_enough=learn,
            urgency=urgency,
        )
        learn(outcome.hits)
        if outcome.is_complete:
            self._catalogue.keep_only(path, [hit.provider.id for hit in outcome.hits])
        longer = [hit.provider for hit in outcome.hits if hit.total > len(hit.entries)]
        await self._list_directly(path, longer[:MAX_DIRECT])

    def _learn_hit(self, path: str, hit: QueryHit) -> None:
        if hit.total > len(hit.entries):
            self._catalogue.learn(hit.provider, hit.entries)
        else:
            self._catalogue.learn_listing(hit.provider, path, hit.entries)

    async def _list_directly(self, path: str, holders: Sequence[PeerInfo]) -> Sequence[PeerInfo]:
        """Ask these servents for a directory, and return who is not done after a while.

        Their listings go on behind, and what comes is taken in.
        """
        flights = {
            peer: self._flights.start((peer.id, path), self._list_at, peer, path)
            for peer in holders
        }
        with trio.move_on_after(LIST_TIMEOUT_S):
            for flight in flights.values():
                await flight.wait()
        return [peer for peer, flight in flights.items() if not flight.has_ended]

    async def _list_at(self, holder: PeerInfo, path: str) -> None:
        """Take in one servent's whole listing; if it cannot be had, keep what is known."""
        try:
            await self.list_share(holder, path)
        except P2pfsError as error:
            log.info("listing failed peer=%s reason=%s", holder.id, error)

    async def list_share(self, holder: PeerInfo, path: str) -> None:
        """Take in what one servent has in a directory, asked of itself, page by page.

        What it says that it does not have, or has not any more, is forgotten.

        Raises:
            LinkError, RejectedError, RemoteProtocolError, StalledError: it cannot be had now.
        """
        began_at = self._clock()
        try:
            with trio.fail_after(PAGES_TIMEOUT_S):
                await self._take_pages(holder, path)
        except RejectedError as error:
            if error.code != RejectCode.NOT_FOUND:
                raise
            self._catalogue.forget_path(holder.id, path)
        except trio.TooSlowError:
            raise StalledError(f"{holder.name!r} is too slow in listing") from None
        self._catalogue.mark_listed_by(holder.id, path, began_at)

    async def _take_pages(self, holder: PeerInfo, path: str) -> None:
        names: set[str] = set()
        after = ""
        for _page in range(MAX_PAGES):
            page = await self._fetch_listing(holder, path, after)
            good = [e for e in page.entries if is_answer(QueryKind.DIRECTORY, path, e)]
            names.update(_name(entry.path) for entry in good)
            self._catalogue.learn(holder, good)
            if not page.has_more or not page.entries:
                self._catalogue.keep_names(holder, path, names)
                return
            last = _name(page.entries[-1].path)
            if last <= after:
                raise RemoteProtocolError("a listing that does not go forward")
            after = last


class _Times:
    """When something last happened to each of the directories that it happened to lately."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def get(self, path: str) -> float:
        """Return the time, or minus infinity. Any thread."""
        return self._at.get(path, -math.inf)

    def put(self, path: str, at: float) -> None:
        self._at.pop(path, None)
        self._at[path] = at
        while len(self._at) > MAX_LOOKED_AT:
            del self._at[next(iter(self._at))]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]
