"""The results of one keyword search: hits of all servents, then more of those that have more.

A hit has room for fifty files and says how many there are. A servent that has more is asked for
them page by page, all such servents at once, and none for more than its share: one that has ten
thousand files must not crowd out the others, and nobody reads so many. Results left out are
counted.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Protocol

import trio

from p2pfs.errors import P2pfsError
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.nodes import Content, RemoteFile, believed
from p2pfs.namespace.query import KeywordQuery
from p2pfs.overlay import Hits, Outcome, is_match
from p2pfs.protocol import (
    MAX_LISTING,
    MAX_RESULTS,
    MAX_TOTAL,
    Entry,
    FileId,
    Listing,
    Match,
    PeerInfo,
    QueryHit,
    QueryKind,
    ServentId,
    Terms,
)
from p2pfs.protocol.flood import Urgency
from p2pfs.tasks import for_each

log = logging.getLogger(__name__)

SEARCH_TIMEOUT_S: Final = 5.0
"""How long a search may go on."""

PAGES_TIMEOUT_S: Final = 5.0
"""How long servents that have more results may take to send them."""

MAX_FILES: Final = 1_000
"""Files of one search: more than anybody reads. Beyond it no servent is asked for more."""

NOT_ALL: Final = "not everybody has answered in time"
NOBODY: Final = "nobody has answered"
"""The texts that are shown with the results of a search that was not complete, or asked nobody."""

MAX_ASKED: Final = 16
"""Servents asked for more at once."""


class RunSearch(Protocol):
    """Search within reach; see `Searches.run`."""

    def __call__(
        self,
        kind: QueryKind,
        text: str,
        *,
        rings: Sequence[int],
        timeout_s: float,
        is_enough: Callable[[Hits], bool],
        urgency: Urgency,
        terms: Terms | None,
    ) -> Awaitable[Outcome]:
        """Return the outcome; NotAskedError if the search may not be made now."""


MatchPage = Callable[[PeerInfo, Match], Awaitable[Listing]]
"""Ask a peer for further files that a query finds."""


class Gatherer:
    """Begins searches."""

    def __init__(
        self, catalogue: Catalogue, search: RunSearch, match_page: MatchPage, *, ttl: int
    ) -> None:
        self.catalogue = catalogue
        self.search = search
        self.match_page = match_page
        self.rings = range(1, ttl + 1)

    def begin(self, query: KeywordQuery) -> Gathering:
        """Return a search that has found nothing yet."""
        return Gathering(self, query)


class Gathering:
    """One keyword search."""

    def __init__(self, gatherer: Gatherer, query: KeywordQuery) -> None:
        self.query = query
        self._gatherer = gatherer
        self._catalogue = gatherer.catalogue
        self._providers: dict[ServentId, PeerInfo] = {}
        self._told: dict[ServentId, dict[str, Entry]] = {}
        """The files found, by path, in the order in which they came."""
        self._in_turn: Sequence[ServentId] = ()
        """The servents that have answered, by the link over which their hits came."""
        self._contents: set[Content] = set()
        self._missing: dict[ServentId, int] = {}
        """How many more files each servent has."""
        self.is_complete = False
        """Whether everybody within reach has answered."""
        self.has_asked = False
        """Whether any servent has answered."""

    async def run(self, urgency: Urgency = Urgency.PERSON, *, is_bounded: bool = False) -> None:
        """Search everywhere or, if it is bounded, until there is more than anybody reads.

        Results that came over one link alone are never enough: a liar may have made up all of them.

        Raises:
            NotAskedError: it may not be asked for now.
        """

        def is_enough(hits: Hits) -> bool:
            self.take_in(hits)
            return is_bounded and self._room <= 0 and self._told_besides(hits.busiest) >= MAX_FILES

        outcome = await self._gatherer.search(
            QueryKind.WORDS,
            self.query.words,
            rings=self._gatherer.rings,
            timeout_s=SEARCH_TIMEOUT_S,
            is_enough=is_enough,
            urgency=urgency,
            terms=self.query.terms,
        )
        self.take_in(outcome.hits)
        self.is_complete, self.has_asked = outcome.is_complete, outcome.has_asked
        await self._ask_for_more()

    def take_in(self, hits: Iterable[QueryHit]) -> None:
        """Add those of all hits so far that are new."""
        hits = list(hits)
        self._in_turn = [hit.provider.id for hit in hits]
        for hit in hits:
            if hit.provider.id not in self._providers:
                self._providers[hit.provider.id] = hit.provider
                left = min(hit.total, MAX_TOTAL) - len(hit.entries)
                self._missing[hit.provider.id] = max(0, left)
                self._learn(hit.provider, hit.entries)

    def _learn(self, provider: PeerInfo, entries: Iterable[Entry]) -> None:
        good = [entry for entry in entries if is_match(self.query.wanted, entry)]
        told = self._told.setdefault(provider.id, {})
        for entry in self._catalogue.learn(provider, good):
            told[entry.path] = entry
            self._contents.add(Content(FileId(entry.file_id), entry.size))

    def _told_besides(self, some: Container[ServentId]) -> int:
        return sum(len(told) for source, told in self._told.items() if source not in some)

    @property
    def _room(self) -> int:
        return MAX_FILES - len(self._contents)

    def partial(self, shown: int) -> str | None:
        """Return why so many results may not be all, for people; None if they are.

        A file that several servents have and have not told yet counts once for each of them.
        """
        reasons = [] if self.is_complete else [NOT_ALL if self.has_asked else NOBODY]
        total = max(shown, len(self._contents)) + sum(self._missing.values())
        if total > shown:
            reasons.append(f"{shown:,} of {total:,} results: more words find others")
        return "; ".join(reasons) or None

    async def _ask_for_more(self) -> None:
        have_more = [self._providers[source] for source, left in self._missing.items() if left]
        if not have_more or self._room <= 0:
            return
        share = max(MAX_RESULTS, self._room // len(have_more))
        with trio.move_on_after(PAGES_TIMEOUT_S):
            await for_each(have_more, partial(self._ask_one, share), at_once=MAX_ASKED)

    async def _ask_one(self, share: int, provider: PeerInfo) -> None:
        """Ask one servent for more results, until it has sent its share or all."""
        try:
            while share > 0 and self._room > 0 and self._missing[provider.id]:
                share -= await self._ask_for_page(provider, min(share, MAX_LISTING))
        except P2pfsError as error:
            log.info("no further matches peer=%s reason=%s", provider.id, error)

    async def _ask_for_page(self, provider: PeerInfo, limit: int) -> int:
        """Add one more page; return how many files were on it, at least one."""
        told = self._told[provider.id]
        had = len(told)
        after = next(reversed(told), "")
        wanted = Match(self.query.words, self.query.terms, after, limit)
        page = await self._gatherer.match_page(provider, wanted)
        fresh = [entry for entry in page.entries[:limit] if entry.path not in told]
        self._learn(provider, fresh)
        left = self._missing[provider.id] - len(fresh)
        is_end = not page.has_more or len(told) == had
        self._missing[provider.id] = 0 if is_end else max(1, left)
        return max(1, len(fresh))

    def files(self) -> dict[Content, RemoteFile]:
        """Return each content once; the results of one link do not all come before the others."""
        offers: dict[Content, dict[ServentId, Entry]] = {}
        for source in self._in_turn:
            for entry in self._told[source].values():
                content = Content(FileId(entry.file_id), entry.size)
                offers.setdefault(content, {}).setdefault(source, entry)
        return {content: self._file(content, by) for content, by in offers.items()}

    def _file(self, content: Content, by: Mapping[ServentId, Entry]) -> RemoteFile:
        entry = believed(by, self._catalogue.offers.chosen())
        sources = tuple(self._providers[source] for source in by)
        return RemoteFile(entry.path, content.size, entry.mtime_ns, content.file_id, sources)

    def rows(self) -> Sequence[RemoteFile]:
        """Return each content at each path where somebody publishes it, sorted by path."""
        rows: dict[tuple[str, Content], dict[ServentId, Entry]] = {}
        for source, told in self._told.items():
            for path, entry in told.items():
                content = Content(FileId(entry.file_id), entry.size)
                rows.setdefault((path, content), {})[source] = entry
        return [self._file(content, by) for (_, content), by in sorted(rows.items(), key=_by_path)]


def _by_path(row: tuple[tuple[str, Content], object]) -> tuple[str, Content]:
    return row[0]
