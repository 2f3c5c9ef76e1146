"""Pages of directories and of matches, with a limit for each address."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import trio

from p2pfs.errors import RejectedError
from p2pfs.latest import Latest
from p2pfs.library import Page
from p2pfs.link import Link
from p2pfs.protocol import (
    KIB,
    MAX_LISTING,
    Entry,
    List,
    Listing,
    Match,
    Message,
    Reject,
    RejectCode,
    groups_of,
    name_of,
)
from p2pfs.protocol.flood import TokenBucket

MAX_PAGE_BYTES: Final = 60 * KIB
"""Entries of one page of a listing, encoded: what a frame holds, less its headers."""

MATCHES_PER_S: Final = 1.0
MATCH_BURST: Final = 20
"""How often one address may ask for further matches: a page takes up to a tenth of a second of a
processor in a large share. A search of twenty pages is 10,000 files."""

PAGES_PER_S: Final = 20.0
PAGES_BURST: Final = 400
"""Pages of listings that one address may have: a page takes a millisecond of a processor. At once
it may have 200,000 names."""

MAX_ALLOWANCES: Final = 1_024
"""Addresses whose spending is remembered; the one that asked longest ago is forgotten first."""


class Lists(Protocol):
    """Directories that are listed, and an index that is searched."""

    @property
    def is_paused(self) -> bool:
        """Whether sharing is paused."""

    def list_page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first `limit` entries of a directory behind a name, None if there is none."""

    def limited_labels(self, path: str) -> Sequence[str]:
        """Return which names in the root a page of a directory tells to its asker alone."""

    async def matches(self, wanted: Match) -> tuple[Sequence[Entry], int]:
        """Return what a keyword query finds behind a path, and how many there are."""


@dataclass(slots=True)
class _Allowance:
    """How many pages one address may still have, under whatever ids."""

    matches: TokenBucket = field(default_factory=lambda: TokenBucket(MATCHES_PER_S, MATCH_BURST))
    pages: TokenBucket = field(default_factory=lambda: TokenBucket(PAGES_PER_S, PAGES_BURST))


class Pages:
    """Sends pages to peers that ask for them."""

    def __init__(self, lists_for: Callable[[Link], Lists]) -> None:
        """Prepare; `seen_by` gives what the peer of a link may see: see `Offer.seen_by`."""
        self._lists_for = lists_for
        self._allowances: Latest[str, _Allowance] = Latest(MAX_ALLOWANCES)

    async def send_matches(self, link: Link, wanted: Match, number: int) -> None:
        """Send further files that a keyword query finds: each time the index is searched anew.

        Raises:
            RejectedError: this address has asked for too many.
        """
        if not self._allowance(link).matches.take(trio.current_time()):
            raise RejectedError("too many searches", RejectCode.BUSY)
        entries, total = await self._lists_for(link).matches(wanted)
        page = _one_page(entries[: wanted.limit])
        await link.send(Listing(tuple(page), has_more=len(page) < total), number)

    async def send_page(self, link: Link, wanted: List, number: int) -> Message | None:
        """Send the next page of a directory; return the request for the pages after it."""
        await self._wait_for_page(link)
        page = _page(self._lists_for(link), wanted)
        await link.send(page, number)
        if isinstance(page, Listing) and not page.is_last:
            return List(wanted.path, name_of(page.entries[-1].path), wanted.pages - 1)
        return None

    async def _wait_for_page(self, link: Link) -> None:
        pages = self._allowance(link).pages
        while not pages.take(trio.current_time()):
            wait_s = pages.wait_s(trio.current_time())
            await trio.sleep(wait_s)

    def _allowance(self, link: Link) -> _Allowance:
        return self._allowances.renew(groups_of(link.remote.host)[1], _Allowance)


def _page(lists: Lists, wanted: List) -> Message:
    """Return the next page of a directory: as many entries as one frame holds."""
    page = None
    if not lists.is_paused:
        page = lists.list_page(wanted.path, wanted.after, MAX_LISTING)
    if page is None:
        return Reject(RejectCode.NOT_FOUND, "no such directory")
    entries = _one_page(page.entries, set(lists.limited_labels(wanted.path)))
    has_more = page.has_more or len(entries) < len(page.entries)
    is_last = not has_more or wanted.pages == 1
    return Listing(tuple(entries), has_more, is_last, _limited(lists, wanted.path, entries))


def _limited(lists: Lists, path: str, entries: Sequence[Entry]) -> tuple[str, ...]:
    labels = lists.limited_labels(path)
    names = {entry.path for entry in entries} if labels else ()
    return tuple(sorted(label for label in labels if path or label in names))


def _one_page(entries: Sequence[Entry], labels: Collection[str] = ()) -> list[Entry]:
    """Return as many of these entries as one frame holds, with their own labels."""
    if not labels and len(msgspec.msgpack.encode(entries)) <= MAX_PAGE_BYTES:  # most pages
        return list(entries)
    page: list[Entry] = []
    room = MAX_PAGE_BYTES
    for entry in entries:
        room -= len(msgspec.msgpack.encode(entry))
        if entry.path in labels:
            room -= len(msgspec.msgpack.encode(entry.path))
        if room < 0:
            break
        page.append(entry)
    return page
