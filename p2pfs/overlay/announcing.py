"""Tell neighbours which names our share has, and that it has changed.

New names go into our filter and to every neighbour before CHANGED does, on the same ordered
links: a search that follows does not leave us out. Names that are gone leave the filter later, when
it is made anew from all that is offered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol

import trio

from p2pfs.overlay.flooding import MessageRouter
from p2pfs.protocol import MAX_NEWS_BYTES, MAX_NEWS_DIRECTORIES, Entry
from p2pfs.protocol.flood import (
    ALL,
    NEWS_OF_ONE_BURST,
    NEWS_OF_ONE_PER_S,
    SENDING_SHARE,
    Bits,
    Keys,
    TokenBucket,
    with_positions,
)

ANNOUNCE_AFTER_S: Final = 0.2
"""Neighbours get CHANGED at most this often."""

ARRIVED_AFTER_S: Final = 1.0
"""A servent that comes says so when it has been linked for so long: it has several neighbours by
then, and no one of them can keep that to itself."""

MADE_ANEW_S: Final = 60.0
"""How often the filter is made anew after something has gone."""

MADE_ANEW_SHARE: Final = 0.01
"""The part of the time that this may take: it reads all that is offered."""

FILTERED_AT_ONCE: Final = 100
"""Entries put into a filter without a break: a millisecond."""


MAX_NAMED_BYTES: Final = MAX_NEWS_BYTES // 4
"""Of directories in one NEWS; the rest is for our addresses at their longest, key and signature."""


class Offered(Protocol):
    """A file or a directory of a share."""

    @property
    def path(self) -> str:
        """Its path."""
        ...

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        ...


class Changes(Protocol):
    """The changes of a share."""

    @property
    def added(self) -> Sequence[Offered]:
        """Entries that are offered and were not before."""
        ...

    @property
    def directories(self) -> Collection[str]:
        """Directories of which the listing is another one."""
        ...

    @property
    def has_lost(self) -> bool:
        """Whether something is not offered any more."""
        ...

    @property
    def is_all(self) -> bool:
        """Whether anything may have changed."""
        ...


class Page(Protocol):
    """A part of a directory."""

    @property
    def entries(self) -> Sequence[Entry]:
        """The entries of the page."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether there is more behind."""
        ...


class Share(Protocol):
    """Our own share."""

    @property
    def is_paused(self) -> bool:
        """Whether nothing of it is offered now."""
        ...

    @property
    def version(self) -> int:
        """Differs whenever something has changed."""
        ...

    async def wait_changed(self, version: int) -> int:
        """Wait until the version is another one, and return it."""
        ...

    def take_changes(self) -> Changes:
        """Return what has changed since this was last called."""
        ...

    def list_page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first entries of a directory behind a name."""
        ...


class OwnFilter:
    """The filter of our own share."""

    def __init__(self, share: Share, keys: Keys) -> None:
        self._share = share
        self._keys = keys
        self._bits = 0
        self._is_known = False
        """Whether nothing is offered that is not in it."""
        self._has_lost = False
        self._made_at = trio.current_time()
        self._took_s = 0.0

    @property
    def bits(self) -> Bits:
        """The filter that neighbours may have now."""
        if self._share.is_paused:
            return 0
        return self._bits if self._is_known and not self._is_full(self._bits) else ALL

    @property
    def renew_at(self) -> float:
        """When it is to be made anew, if something has gone; infinity if not."""
        if not self._has_lost or self._share.is_paused:
            return float("inf")
        return self._made_at + max(MADE_ANEW_S, self._took_s / MADE_ANEW_SHARE)

    def note(self, changes: Changes) -> None:
        """Note changes before they are taken in."""
        self._is_known = self._is_known and not changes.is_all
        self._has_lost |= changes.has_lost

    async def take_in(self, entries: Sequence[Offered]) -> None:
        """Take in entries that are offered anew."""
        for first in range(0, len(entries), FILTERED_AT_ONCE):
            if self._is_full(self._bits):
                return
            self._bits = self._with(self._bits, entries[first : first + FILTERED_AT_ONCE])
            await trio.lowlevel.checkpoint()

    async def renew(self) -> None:
        """Make it anew from the whole offer, if that is due."""
        if self._share.is_paused or (self._is_known and trio.current_time() < self.renew_at):
            return
        self._has_lost, self._is_known, began_at = False, True, trio.current_time()
        bits = 0
        for entries in self._all_offered():
            bits = self._with(bits, entries)
            if self._is_full(bits):
                break
            await trio.lowlevel.checkpoint()
        self._bits, self._made_at = bits, trio.current_time()
        self._took_s = self._made_at - began_at

    def _all_offered(self) -> Iterator[Sequence[Entry]]:
        """Yield all entries that are offered, some at a time."""
        directories = [""]
        while directories:
            path, after, has_more = directories.pop(), "", True
            while has_more:
                page = self._share.list_page(path, after, FILTERED_AT_ONCE)
                has_more = page is not None and page.has_more
                entries = () if page is None else page.entries
                if entries:
                    directories += [entry.path for entry in entries if entry.is_directory]
                    after = entries[-1].path.rpartition("/")[2]
                yield entries

    def _is_full(self, bits: int) -> bool:
        """Return whether so much is set that neighbours ask us everything, whatever else there is.

        A hundred thousand names fill a filter, and no more than half of them are looked at.
        """
        return bits.bit_count() > self._keys.bits // 2

    def _with(self, bits: int, entries: Iterable[Offered]) -> int:
        offered = ((entry.path, entry.is_directory) for entry in entries)
        return with_positions(bits, self._keys.of_shares(offered))


class Tidings:
    """Changes of our share of which NEWS are still to be sent."""

    def __init__(self) -> None:
        self._pace = TokenBucket(NEWS_OF_ONE_PER_S * SENDING_SHARE, NEWS_OF_ONE_BURST - 1)
        self._directories: set[str] = set()
        self._is_all = self._has_any = False
        self._not_before = -math.inf
        self._version = 0

    def note(self, changes: Changes) -> None:
        """Note where something has changed."""
        self._has_any |= changes.is_all or bool(changes.directories)
        self._is_all |= changes.is_all
        self._directories.update(changes.directories)
        length = sum(len(path.encode()) for path in self._directories)
        if len(self._directories) > MAX_NEWS_DIRECTORIES or length > MAX_NAMED_BYTES:
            self._directories, self._is_all = {""}, True

    def note_arrival(self, now: float) -> None:
        """Note that no servent knows what we share."""
        self._directories, self._is_all, self._has_any = {""}, True, True
        self._not_before = now + ARRIVED_AFTER_S

    def due_at(self, now: float) -> float:
        """Return when NEWS of the changes may be sent; infinity if there are none."""
        if not self._has_any:
            return math.inf
        return max(now + self._pace.wait_s(now), self._not_before)

    def take(self, now: float, now_ms: int) -> tuple[int, Sequence[str], bool] | None:
        """Return version, directories and whether there are others, if NEWS may be sent now."""
        if not self._has_any or now < self._not_before or not self._pace.take(now):
            return None
        told = sorted(self._directories), self._is_all
        self._directories, self._is_all, self._has_any = set(), False, False
        return self.version(now_ms), *told

    def version(self, now_ms: int) -> int:
        """Return the version of NEWS that are sent now."""
        self._version = max(self._version + 1, now_ms)
        return self._version


class Announcer:
    """Announces our share to the neighbours, and its changes through the horizon."""

    def __init__(
        self,
        share: Share,
        message_router: MessageRouter,
        keys: Keys,
        *,
        ttl: int,
        wall_clock: Callable[[], float],
    ) -> None:
        self._share = share
        self._message_router = message_router
        self._keys = keys
        self._ttl = ttl
        self._wall_clock = wall_clock
        self._tidings = Tidings()
        self._waiting = trio.CancelScope()

    def arrived(self) -> None:
        """Tell all servents within the horizon, soon, that we have come or are back."""
        if self._has_any:
            self._tidings.note_arrival(trio.current_time())
            self._waiting.cancel()

    def leaving(self) -> None:
        """Tell all servents within the horizon that we leave, if we share anything."""
        if self._has_any:
            self._message_router.tell_news(
                self._ttl, self._tidings.version(self._now_ms), (), False
            )

    @property
    def _has_any(self) -> bool:
        page = None if self._share.is_paused else self._share.list_page("", "", 1)
        return page is not None and bool(page.entries)

    @property
    def _now_ms(self) -> int:
        return int(self._wall_clock() * 1000)

    async def run(self) -> None:
        """Announce changes, until cancelled."""
        own = OwnFilter(self._share, self._keys)
        version = self._share.version
        await self._renew(own)
        while True:
            changed = None
            due_at = min(own.renew_at, self._tidings.due_at(trio.current_time()))
            with trio.move_on_at(due_at) as self._waiting:
                changed = await self._share.wait_changed(version)
            await self._renew(own)
            if changed is not None:
                version = changed
                self._message_router.tell_changed()
            self._tell_news()
            await trio.sleep(ANNOUNCE_AFTER_S)

    def _tell_news(self) -> None:
        told = self._tidings.take(trio.current_time(), self._now_ms)
        if told is not None:
            self._message_router.tell_news(self._ttl, *told)

    async def _renew(self, own: OwnFilter) -> None:
        """Bring our filter up to date with the offer, and send the part of it that comes first."""
        changes = self._share.take_changes()
        own.note(changes)
        self._tidings.note(changes)
        self._message_router.set_own_filter(own.bits)
        await own.take_in(changes.added)
        await own.renew()
        self._message_router.set_own_filter(own.bits)
