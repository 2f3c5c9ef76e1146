"""Keep what `network/` shows true, with few questions and short waits.

The catalogue knows names; the browser decides when a name is worth asking for, whom to ask
and how long to wait. Three ways to ask, cheapest first:

- not at all: known names, names remembered as absent, names below a directory that was just
  listed, no neighbour;
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
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from p2pfs.catalogue import Catalogue, Knowledge, Node, RemoteDirectory, RemoteFile
from p2pfs.errors import P2pfsError, RejectedError, RemoteProtocolError, ShutdownError
from p2pfs.protocol.budgets import TokenBucket
from p2pfs.protocol.messages import (
    MAX_QUERY_TEXT_BYTES,
    Entry,
    Listing,
    PeerInfo,
    QueryHit,
    QueryKind,
    RejectCode,
    ServentId,
)
from p2pfs.search import Outcome, Searches, is_answer

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
"""Directories in which a search for a name is remembered."""

MAX_PAGES: Final = 200
"""Pages of one listing from one servent: 100,000 names, more than any `ls` is for."""

QUERIES_PER_MINUTE: Final = 25
"""Floods we start, a little below what neighbours allow (`budgets`)."""

QUERY_BURST: Final = 20
"""Floods that may follow one another at once."""

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
        self._budget = TokenBucket(QUERIES_PER_MINUTE / 60, QUERY_BURST)
        self._flights: dict[tuple[str, str], trio.Event] = {}
        self._changed: dict[ServentId, float] = {}
        self._looked_at: dict[str, float] = {}
        self._nursery: trio.Nursery | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._has_ended = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the questions under way, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._has_ended = True

    # From memory, on any thread.

    def known(self, path: str) -> Node | Knowledge:
        """Return what is known of a path; UNKNOWN if asking the network may help."""
        node = self._catalogue.lookup(path, self._clock())
        if node is Knowledge.UNKNOWN and not self._worth_asking(path):
            return Knowledge.ABSENT
        if (
            isinstance(node, RemoteFile | RemoteDirectory)
            and path
            and self._is_outdated(path, node)
        ):
            return Knowledge.UNKNOWN
        return node

    def known_children(self, path: str) -> Sequence[Node] | Knowledge:
        """Return a directory as last listed, and ask again behind if that was a while ago."""
        listed_at = self._catalogue.listed_at(path)
        if not self._neighbours():
            return self._catalogue.children(path)
        if listed_at is None or self._news_since(listed_at):
            return Knowledge.UNKNOWN
        if self._clock() - listed_at > REFRESH_AFTER_S:
            self._from_any_thread(self._start_listing, path)
        return self._catalogue.children(path)

    def _worth_asking(self, path: str) -> bool:
        if not self._neighbours():
            return False
        parent = path.rpartition("/")[0]
        listed_at = self._catalogue.listed_at(parent)
        if listed_at is None or self._news_since(listed_at):
            return True
        return self._clock() - listed_at > REFRESH_AFTER_S

    def _is_outdated(self, path: str, node: Node) -> bool:
        """Return whether a neighbour that has the node said that its share changed since."""
        parent = path.rpartition("/")[0]
        listed_at = self._catalogue.listed_at(parent) or 0.0
        changed = self._changed
        return any(changed.get(source.id, 0.0) > listed_at for source in node.sources)

    def _news_since(self, listed_at: float) -> Sequence[PeerInfo]:
        """Return the neighbours whose shares changed since a time."""
        return [p for p in self._neighbours() if self._changed.get(p.id, 0.0) > listed_at]

    def _from_any_thread(self, start: Callable[[str], object], path: str) -> None:
        if self._token is not None:
            self._token.run_sync_soon(start, path, idempotent=True)

    # From the network, on the trio thread.

    async def find(self, path: str) -> Node | None:
        """Return what is at `path`, asking for it if it is not known.

        Returns None after `FIND_TIMEOUT_S` at most. Never raises for what the network does,
        but ShutdownError when we end.
        """
        parent = path.rpartition("/")[0]
        with trio.move_on_after(FIND_TIMEOUT_S):
            if self._to_ask(parent) or self._is_second_look(parent):
                await self._shared("list", parent, self._list)
            else:
                await self._shared("find", path, self._find)
        node = self._catalogue.lookup(path, self._clock())
        return None if isinstance(node, Knowledge) else node

    def _is_second_look(self, parent: str) -> bool:
        """Return whether another name in this directory was looked for lately.

        Whoever looks for two will look for more: one listing costs less than many searches.
        """
        now = self._clock()
        before = self._looked_at.pop(parent, None)
        self._looked_at[parent] = now
        while len(self._looked_at) > MAX_LOOKED_AT:
            del self._looked_at[next(iter(self._looked_at))]
        return before is not None and now - before < TRUST_S

    async def list(self, path: str) -> Sequence[Node]:
        """Return a directory, asked for now; after `LIST_TIMEOUT_S` what has come by then.

        Raises:
            ShutdownError: we end.
        """
        with trio.move_on_after(LIST_TIMEOUT_S):
            await self._shared("list", path, self._list)
        return self._catalogue.children(path)

    def peer_changed(self, peer: ServentId) -> None:
        """Note that a neighbour's share is not what it was."""
        self._changed[peer] = self._clock()
        self._catalogue.forget_absences()

    def peer_left(self, peer: ServentId) -> None:
        """Forget what a servent offered that has left the network."""
        self._changed.pop(peer, None)
        self._catalogue.forget(peer)

    def peer_lost(self, peer: ServentId) -> None:
        """Note that a neighbour is gone without a word; the next look shows who is still there."""
        self._changed.pop(peer, None)
        if self._neighbours():
            self._catalogue.expire()

    async def _shared(self, verb: str, path: str, ask: Callable[[str], Awaitable[None]]) -> None:
        if not self._has_ended:
            await self._start(verb, path, ask).wait()
        if self._has_ended:  # what is known now is no answer
            raise ShutdownError("the servent is shutting down")

    def _start_listing(self, path: str) -> None:
        self._start("list", path, self._list)

    def _start(self, verb: str, path: str, ask: Callable[[str], Awaitable[None]]) -> trio.Event:
        """Start a question in our own nursery, or join the one under way."""
        key = (verb, path)
        if key not in self._flights:
            assert self._nursery is not None
            self._flights[key] = trio.Event()
            self._nursery.start_soon(self._fly, key, ask)
        return self._flights[key]

    async def _fly(self, key: tuple[str, str], ask: Callable[[str], Awaitable[None]]) -> None:
        try:
            await ask(key[1])
        except BaseException:
            self._has_ended = True
            raise
        finally:
            self._flights.pop(key).set()

    async def _find(self, path: str) -> None:
        outcome = await self._flood(
            QueryKind.PATH, path, range(1, self._ttl + 1), FIND_TIMEOUT_S, is_enough=bool
        )
        if outcome is None:
            return
        for hit in outcome.hits:
            self._catalogue.learn(hit.provider, hit.entries)
        if outcome.is_complete and not outcome.hits:
            self._catalogue.keep_only(path, ())
        if not outcome.hits and (outcome.servents or outcome.is_complete):
            self._catalogue.remember_absent(path, self._clock() + ABSENT_S)

    async def _list(self, path: str) -> None:
        began_at = self._clock()
        directly = self._to_ask(path)
        if directly:
            await self._list_directly(path, directly)
        elif not await self._list_by_flood(path):
            await self._list_directly(path, self._catalogue.directory_sources(path)[:MAX_DIRECT])
            return  # not everybody was asked
        self._catalogue.mark_listed(path, began_at)

    def _to_ask(self, path: str) -> Sequence[PeerInfo]:
        """Return whom to ask for a directory one by one; nobody if only a flood will do."""
        listed_at = self._catalogue.listed_at(path)
        if listed_at is not None and self._clock() - listed_at < TRUST_S:
            news = self._news_since(listed_at)
            if news:
                return news
        return self._holders(path)

    def _holders(self, path: str) -> Sequence[PeerInfo]:
        """Return all holders of a directory, if they are few and surely all; else nothing."""
        parent_listed_at = self._catalogue.listed_at(path.rpartition("/")[0])
        holders = self._catalogue.directory_sources(path)
        if not path or parent_listed_at is None or len(holders) > MAX_DIRECT:
            return ()
        return holders if self._clock() - parent_listed_at < TRUST_S else ()

    async def _list_by_flood(self, path: str) -> bool:
        """Ask everybody for a directory; False if our budget does not allow it now."""
        outcome = await self._flood(QueryKind.DIRECTORY, path, (self._ttl,), LIST_TIMEOUT_S)
        if outcome is None:
            return False
        for hit in outcome.hits:
            self._learn_hit(path, hit)
        if outcome.is_complete:
            self._catalogue.keep_only(path, [hit.provider.id for hit in outcome.hits])
        longer = [hit.provider for hit in outcome.hits if hit.total > len(hit.entries)]
        await self._list_directly(path, longer[:MAX_DIRECT])
        return True

    def _learn_hit(self, path: str, hit: QueryHit) -> None:
        if hit.total > len(hit.entries):
            self._catalogue.learn(hit.provider, hit.entries)
        else:
            self._catalogue.learn_listing(hit.provider, path, hit.entries)

    async def _flood(
        self,
        kind: QueryKind,
        text: str,
        rings: Sequence[int],
        timeout_s: float,
        *,
        is_enough: Callable[[Sequence[QueryHit]], bool] = lambda _hits: False,
    ) -> Outcome | None:
        """Search within our own budget; None if it is used up or the text too long to ask."""
        if len(text.encode()) > MAX_QUERY_TEXT_BYTES or not self._budget.take(self._clock()):
            return None
        return await self._searches.run(
            kind, text, rings=rings, timeout_s=timeout_s, is_enough=is_enough
        )

    async def _list_directly(self, path: str, holders: Sequence[PeerInfo]) -> None:
        with trio.move_on_after(LIST_TIMEOUT_S):
            async with trio.open_nursery() as nursery:
                for holder in holders:
                    nursery.start_soon(self._list_at, holder, path)

    async def _list_at(self, holder: PeerInfo, path: str) -> None:
        """Take in one servent's whole listing; if it cannot be had, keep what is known."""
        try:
            entries = await self._pages(holder, path)
        except RejectedError as error:
            if error.code == RejectCode.NOT_FOUND:
                self._catalogue.forget_path(holder.id, path)
        except P2pfsError as error:
            log.info("listing failed peer=%s reason=%s", holder.id, error)
        else:
            self._catalogue.learn_listing(holder, path, entries)

    async def _pages(self, holder: PeerInfo, path: str) -> Sequence[Entry]:
        entries: deque[Entry] = deque()
        after = ""
        for _page in range(MAX_PAGES):
            page = await self._fetch_listing(holder, path, after)
            entries += (e for e in page.entries if is_answer(QueryKind.DIRECTORY, path, e))
            if not page.has_more or not page.entries:
                break
            last = page.entries[-1].path.rpartition("/")[2]
            if last <= after:
                raise RemoteProtocolError("a listing that does not go forward")
            after = last
        return tuple(entries)
