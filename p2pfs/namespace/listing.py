"""One servent's listing of one directory: page after page, until it is whole or cut short.

A caller that shows the directory waits while pages come, and no longer: see `Telling.heard_out`. A
listing that nobody waits for any more goes on in the background, and the catalogue learns its
pages. It is whole only if every page has come and every name was held. Nothing is concluded from a
listing that is not whole.

All of this belongs to the trio thread.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import trio

from p2pfs.errors import (
    NoSourceError,
    P2pfsError,
    RejectedError,
    RemoteProtocolError,
    StalledError,
    TransferError,
)
from p2pfs.latest import Latest
from p2pfs.link import PAGE_SILENCE_S
from p2pfs.namespace.ages import FIRST_LISTING_S
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.claims import ANY_ROOM, NAMES_AT_FIRST, NameRoom
from p2pfs.namespace.confided import Confided
from p2pfs.namespace.ends import Ends
from p2pfs.overlay import answers_in
from p2pfs.protocol import (
    MAX_PAGES_ASKED,
    MIN_LISTING,
    Entry,
    Listing,
    PeerInfo,
    RejectCode,
    ServentId,
    name_of,
)
from p2pfs.tasks import Tasks

log = logging.getLogger(__name__)

SLOW_AFTER_S: Final = 10.0
MIN_NAMES_PER_S: Final = 1_000
"""After SLOW_AFTER_S a servent that tells fewer names than this is not waited for any more: one
servent that trickles must not hold up a look at a directory that many have."""

MAX_NAMES: Final = 150_000
"""Names of one directory that are taken from one servent."""

LEARNED_AT_ONCE: Final = 100
"""Entries learned without a break: half a millisecond."""

MAX_CUT: Final = 1_000
"""Listings of which it is remembered that they were cut; the latest."""

CUT_AGAIN_S: Final = 300.0
"""A directory that one servent has more of than is held is not asked of it again for this time:
one without end takes seconds of processor each time, and each look would ask again. Changes in an
honest directory of so many names are seen so much later."""

ListPages = Callable[[PeerInfo, str, str, Callable[[Listing], object]], Awaitable[None]]
"""Ask a peer for the next pages of a directory, behind a name, and hand on each as it comes."""


class Telling:
    """One servent's listing of one directory, under way or over."""

    def __init__(self, holder: PeerInfo, path: str, began_at: float) -> None:
        self.holder = holder
        self.path = path
        self.began_at = began_at
        self.names: set[str] = set()
        """Those that are learned."""
        self.counted = 0
        """Names that are not learned before it has come to its end."""
        self._told = 0
        self.is_whole = False
        """Whether all pages have come and all names are held."""
        self.is_cut = False
        """Whether there are more names than are held."""
        self.is_for_all = True
        """Whether it is heard for a directory that many have, and may not crowd it."""
        self.is_over = False
        self.error: P2pfsError | None = None
        """Why it ended before all pages had come."""
        self._asked_at = self.heard_at = trio.current_time()
        """When the last page came; before the first one, when it was asked for."""
        self._has_begun = self._is_told = False
        self._pages: deque[Listing] = deque()
        """Pages that have come and are not learned yet."""
        self._news = trio.Event()

    async def heard_out(self) -> bool:
        """Wait while pages come, and return whether the listing is whole.

        False when nothing has come for FIRST_LISTING_S at first or PAGE_SILENCE_S later, when it
        trickles, and when it cannot be had.
        """
        while not self.is_over and not self._trickles():
            with trio.move_on_at(self._silent_at()):
                await self._news.wait()
            if trio.current_time() >= self._silent_at():
                break
        return self.is_whole

    @property
    def broke_off(self) -> bool:
        """Whether pages have come, and not all of them until now."""
        return self._has_begun and not self.is_whole and not self.is_cut

    def heard(self, page: Listing) -> None:
        """Note that a page has come."""
        self._pages.append(page)
        self._told += len(page.entries)
        self._has_begun = True
        self.heard_at = trio.current_time()
        self._wake()

    def begin_again(self) -> int:
        """Note that all is asked for anew; return how many names there were."""
        count, self.counted = len(self.names) + self.counted, 0
        self._is_told = False
        return count

    def told_all(self) -> None:
        """Note that no page will come any more; some may be there still."""
        self._is_told = True
        self._wake()

    async def next_page(self) -> Listing | None:
        """Return the next page to learn, waiting for it; None at the end."""
        while not self._pages:
            if self._is_told:
                return None
            await self._news.wait()
        self._wake()
        return self._pages.popleft()

    async def has_room(self) -> None:
        """Wait until few pages wait to be learned."""
        while len(self._pages) >= MAX_PAGES_ASKED:
            await self._news.wait()

    def end(self) -> None:
        """Note that every page that has come is learned."""
        self.is_over = True
        self._wake()

    def failure(self) -> TransferError:
        """Return the error for a caller that needs the whole listing."""
        name = self.holder.name
        if self.error is None:
            return StalledError(f"{name!r} is slow in listing: look again in a while")
        if isinstance(self.error, TransferError):
            return self.error
        return NoSourceError(f"{name!r} cannot be listed: {self.error}")

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def _silent_at(self) -> float:
        return self.heard_at + (PAGE_SILENCE_S if self._has_begun else FIRST_LISTING_S)

    def _trickles(self) -> bool:
        told_for_s = trio.current_time() - self._asked_at - SLOW_AFTER_S
        return told_for_s > 0 and self._told < told_for_s * MIN_NAMES_PER_S


class _Cut(NamedTuple):
    """A listing that was cut: when it was begun, and whether it was for all."""

    began_at: float
    was_for_all: bool


_NEVER_CUT: Final = _Cut(-math.inf, was_for_all=True)


class Listings:
    """The listings of single servents that are under way, one for each servent and directory."""

    def __init__(
        self,
        catalogue: Catalogue,
        list_pages: ListPages,
        tasks: Tasks,
        clock: Callable[[], float],
        confided: Confided | None = None,
    ) -> None:
        """Learn the pages in `catalogue`, and the names shown to us alone in `confided`."""
        self._catalogue = catalogue
        self._confided = confided or Confided(catalogue)
        self._list_pages = list_pages
        self._tasks = tasks
        self._clock = clock
        self._tellings: dict[tuple[ServentId, str], Telling] = {}
        self._cut: Latest[tuple[ServentId, str], _Cut] = Latest(MAX_CUT)
        """The last listing of each that was cut."""
        self._ends = Ends(catalogue.groups_of, clock)

    def start(self, holder: PeerInfo, path: str, *, is_for_all: bool = True) -> Telling:
        """Ask a servent for a directory, or join the listing under way; raises ShutdownError.

        Names that it has no more are forgotten, and the directory if it does not have that. A
        listing that was cut lately is over at once, cut again. Where it is not for all, but for
        somebody who looks at this servent alone, only `MAX_NAMES` and the bound of all names held
        cut it.
        """
        telling = self.under_way(holder, path)
        if telling is None:
            telling = Telling(holder, path, self._clock())
            telling.is_for_all = is_for_all
            cut = self._cut.get((holder.id, path), _NEVER_CUT)
            is_alike = is_for_all or not cut.was_for_all
            if is_alike and telling.began_at - cut.began_at < CUT_AGAIN_S:
                telling.is_cut = True
                telling.end()
            else:
                self._tellings[holder.id, path] = telling
                self._tasks.start(self._hear, telling)
        return telling

    def under_way(self, holder: PeerInfo, path: str) -> Telling | None:
        """Return the listing of a directory that a servent is telling now, if it is."""
        return self._tellings.get((holder.id, path))

    def was_cut(self, holder: PeerInfo, path: str) -> bool:
        """Return whether the last listing had more names than are held. Any thread."""
        return (holder.id, path) in self._cut

    def learned_of_hit(self, holder: PeerInfo, path: str) -> float:
        """Return how many names are learned of a hit whose sender has more to list."""
        return self._unended_room(holder, path) if self.was_cut(holder, path) else math.inf

    async def _hear(self, telling: Telling) -> None:
        try:
            await self._take_in_all(telling)
            await self._conclude(telling)
        finally:
            del self._tellings[telling.holder.id, telling.path]
            telling.end()

    async def _conclude(self, telling: Telling) -> None:
        """Forget the names that the holder has no more, if its listing is whole."""
        holder, path, error = telling.holder, telling.path, telling.error
        began_at, names = telling.began_at, telling.names
        catalogue = self._book(holder, path)
        if isinstance(error, RejectedError) and error.code == RejectCode.NOT_FOUND:
            catalogue.forget_path(holder.id, path)
        elif error is not None:
            log.info("listing failed peer=%s reason=%s", holder.id, error)
            return
        elif not telling.is_cut:
            for book, its_names in self._books(holder, path, names):
                for _part in book.keeping_names(holder, path, its_names, began_at):
                    await trio.lowlevel.checkpoint()
        elif telling.counted:
            await self._shrink(telling)
        telling.is_whole = not telling.is_cut
        self._cut.pop((holder.id, path), None)
        if telling.is_cut:
            self._cut[holder.id, path] = _Cut(began_at, telling.is_for_all)
        catalogue.holders.mark_listed_by(holder.id, path, began_at)

    async def _shrink(self, telling: Telling) -> None:
        """Forget most of a listing without end: of its hit too, and what came before others'."""
        holder, path = telling.holder, telling.path
        most = self._unended_room(holder, path)
        if most < math.inf:
            few = set(heapq.nsmallest(int(most), telling.names))
            for _part in self._catalogue.keeping_names(holder, path, few, math.inf):
                await trio.lowlevel.checkpoint()

    def _unended_room(self, holder: PeerInfo, path: str) -> float:
        """Return how many names stay of a listing that is cut, all at its address as one."""
        taken = self._catalogue.holders.room(holder.id, path).taken
        few = max(0.0, self._ends.unended_names() - taken)
        return max(few, self._ends.expected(holder.id, path))

    def _book(self, holder: PeerInfo, path: str) -> Catalogue:
        """Return the catalogue that learns what a servent has at a path."""
        is_confided = self._confided.has(holder.id, path)
        return self._confided.catalogue if is_confided else self._catalogue

    def _books(
        self, holder: PeerInfo, path: str, names: set[str]
    ) -> Sequence[tuple[Catalogue, set[str]]]:
        """Return the catalogues that learn names of a directory; those of the root are in both."""
        if path:
            return [(self._book(holder, path), names)]
        confided = {name for name in names if self._confided.has(holder.id, name)}
        books, apart = [(self._catalogue, names - confided)], self._confided.catalogue
        # Also if it names none any more: then all that it had shown to us alone is gone.
        return [*books, (apart, confided)] if apart.holders.entries(holder.id, "") else books

    async def _take_in_all(self, telling: Telling) -> None:
        """Learn all pages, or count what more there is before that is learned too."""
        await self._take_in(telling)
        if telling.counted and telling.error is None and not telling.is_cut:
            holder, path = telling.holder, telling.path
            self._ends.reached(holder.id, path, telling.begin_again())
            await self._take_in(telling)
            telling.is_cut |= telling.counted > 0

    async def _take_in(self, telling: Telling) -> None:
        """Take in page after page; while some are learned, the next are on their way."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_all, telling)
            while (page := await telling.next_page()) is not None:
                if not await self._learn(telling, page):
                    nursery.cancel_scope.cancel()
                    return

    async def _ask_all(self, telling: Telling) -> None:
        """Ask for pages until all have come, never far ahead of those that are learned."""
        after: str | None = ""
        while after is not None:
            after = await self._ask(telling, after)
            await telling.has_room()
        telling.told_all()

    async def _ask(self, telling: Telling, after: str) -> str | None:
        """Ask for the next pages; return the name to go on behind, None at the end or if it fails.

        Then the telling has the error.
        """
        last, has_more = after, False

        def take(page: Listing) -> None:
            nonlocal last, has_more
            last, has_more = _checked(page, last), page.has_more
            telling.heard(page)

        try:
            await self._list_pages(telling.holder, telling.path, after, take)
        except P2pfsError as error:
            telling.error = error
            return None
        return last if has_more else None

    async def _learn(self, telling: Telling, page: Listing) -> bool:
        """Learn a page, a little at a time; return whether there is room for more."""
        if telling.counted:  # it is told anew, if it is learned
            telling.counted += len(page.entries)
            return self._is_counted_on(telling)
        names = [] if telling.path else [entry.path for entry in page.entries]
        self._confided.note_page(telling.holder.id, telling.path, names, page.limited)
        room = self._room(telling, page)
        for first in range(0, len(page.entries), LEARNED_AT_ONCE):
            some = page.entries[first : first + LEARNED_AT_ONCE]
            if telling.counted or len(telling.names) >= room.at_first:
                telling.counted += len(some)
                continue
            telling.is_cut = self._learn_some(telling, some) or len(telling.names) > room.names
            if telling.is_cut:
                return False
            await trio.lowlevel.checkpoint()
            if len(telling.names) <= NAMES_AT_FIRST:  # of many such one address makes many
                room = self._room(telling, page)
        return telling.counted == 0 or self._is_counted_on(telling)

    def _is_counted_on(self, telling: Telling) -> bool:
        """Return whether more is counted of a listing that is not learned yet."""
        telling.is_cut = self._has_no_end(telling)
        return not telling.is_cut

    def _room(self, telling: Telling, page: Listing) -> NameRoom:
        """Return how many names are taken in of a listing with a page, as things are."""
        holder, path = telling.holder.id, telling.path
        room = ANY_ROOM
        if telling.is_for_all and len(telling.names) + len(page.entries) > LEARNED_AT_ONCE:
            room = self._catalogue.holders.room(holder, path)
        at_first = max(room.at_first, self._ends.expected(holder, path))
        return NameRoom(min(room.names, MAX_NAMES), at_first)

    def _has_no_end(self, telling: Telling) -> bool:
        """Return whether a listing that is counted is given up; all at its address count as one."""
        holder = telling.holder.id
        address = self._catalogue.groups_of(holder)
        others = (t for t in self._tellings.values() if t.counted)
        alike = (t for t in others if self._catalogue.groups_of(t.holder.id) == address)
        has_none = sum(one.counted for one in alike) > MAX_NAMES
        if has_none:
            self._ends.missed(holder)
        return has_none or self._ends.is_doubted(holder)

    def _learn_some(self, telling: Telling, entries: Sequence[Entry]) -> bool:
        """Take in some entries; return whether there was no room for all of them."""
        good = answers_in(telling.path, entries)
        own = self._of_them_confided(telling, good)
        for entry in own:
            self._confided.note(entry)
        is_full = False
        for book, told in (
            (self._catalogue, [entry for entry in good if entry not in own] if own else good),
            (self._confided.catalogue, own),
        ):
            turned_away = book.dropped
            believed = book.learn(telling.holder, told) if told else ()
            telling.names.update([name_of(entry.path) for entry in believed])
            is_full |= book.dropped > turned_away
        return is_full

    def _of_them_confided(self, telling: Telling, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return those of some entries of a listing that its holder shows to us alone."""
        holder = telling.holder.id
        if telling.path:  # then it is all of them, or none
            return entries if self._confided.has(holder, telling.path) else ()
        return [entry for entry in entries if self._confided.has(holder, entry.path)]


def _checked(page: Listing, after: str) -> str:
    """Return the last name of a page that may follow a name; raise for one that may not."""
    if page.has_more and len(page.entries) < MIN_LISTING:
        raise RemoteProtocolError("a page of a listing with hardly anything on it")
    if not page.entries:
        return after
    last = name_of(page.entries[-1].path)
    if last <= after:
        raise RemoteProtocolError("a listing that does not go forward")
    return last
