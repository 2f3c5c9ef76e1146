"""Serve blocks, manifests and listings to those who dialled a transfer link to us.

Each peer has one upload at a time however many links it has and however much it asks for, and
the slots are passed round among peers in the order of their asking. Small things (manifests,
listings, blocks of small contents) wait for no slot and for no large block of the same link.
All file data keeps to one limit, if there is one: pieces of it take turns among all links.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import trio

from p2pfs.errors import (
    LinkClosedError,
    NotFoundError,
    NotYetError,
    P2pfsError,
    RejectedError,
    StaleError,
)
from p2pfs.library import Page
from p2pfs.link import Link
from p2pfs.protocol import (
    KIB,
    MAX_LISTING,
    MAX_REASON_LENGTH,
    Bye,
    ByeCode,
    Cancel,
    Entry,
    FileId,
    GetBlocks,
    GetManifest,
    List,
    Listing,
    Manifest,
    Match,
    Message,
    Reject,
    RejectCode,
    ServentId,
    block_bytes_for,
    block_count_for,
)
from p2pfs.protocol.flood import TokenBucket
from p2pfs.rates import RateLimit
from p2pfs.upload.under_way import UnderWay

log = logging.getLogger(__name__)

UPLOAD_SLOTS: Final = 8
"""Uploads at once: enough to fill any line, few enough that each moves (libtorrent)."""

SMALL_BYTES: Final = 512 * KIB
"""Contents up to this size pass the queue: nobody waits behind a film for a note."""

MAX_QUEUE: Final = 128
"""Requests that one peer may have waiting; 3 s of a fast line's blocks are fewer."""

TURN_BYTES: Final = 1024 * KIB
"""Blocks read at once and sent in one turn: a hop to a thread costs as much as a block, and
others wait no longer for theirs."""

MAX_LINKS: Final = 200
"""Transfer links accepted in all."""

MAX_LINKS_PER_PEER: Final = 4
"""Transfer links accepted from one peer; it needs one."""

MAX_PAGE_BYTES: Final = 60 * KIB
"""Entries of one page of a listing, encoded: what a frame holds, less its headers."""

MIN_RATE_BYTES_PER_S: Final = 16 * KIB
"""A peer that takes blocks more slowly than this loses its link: it would hold a slot that
others wait for."""

GRACE_S: Final = 20.0
"""What it gets on top in each turn: a bad moment of a line is no bad line."""

NOT_YET_MS: Final = 200
"""When to ask again for a block that is on its way here."""

MATCHES_PER_S: Final = 1.0
MATCH_BURST: Final = 20
"""How often one peer may ask for further matches: a page takes up to a tenth of a second of a
processor in a large share. A search of twenty pages is 10,000 files."""

RETRY_AFTER_MS: Final = 2_000
"""When a refused peer may ask again."""


class Share(Protocol):
    """What is served: the library, and what the cache holds of others' files."""

    @property
    def is_paused(self) -> bool:
        """Whether sharing is paused."""

    def size_of(self, file_id: FileId) -> int | None:
        """Return the size of a content, from memory; None if it is not here."""

    def list_page(self, path: str, after: str, limit: int) -> Page | None:
        """Return the first `limit` entries of a directory behind a name, None if there is none."""

    async def matches(self, wanted: Match) -> tuple[Sequence[Entry], int]:
        """Return what a keyword query finds behind a path, and how many there are."""

    async def manifest(self, file_id: FileId) -> Manifest:
        """Return a manifest. Raises NotFoundError."""

    async def read_blocks(self, file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        """Return these blocks, verified, up to the first that is not here, at least one.

        Raises NotFoundError, StaleError.
        """


@dataclass(eq=False, slots=True)
class _Queue:
    """Requests of one link that wait for the same worker, in the order of their asking."""

    waiting: dict[int, Message] = field(default_factory=dict)
    news: trio.Event = field(default_factory=trio.Event)
    current: int = 0
    """The request being answered."""
    scope: trio.CancelScope | None = None
    """Cancels that answer."""

    def put(self, message: Message, number: int) -> None:
        self.waiting[number] = message
        self.news.set()

    def cancel(self, number: int) -> None:
        self.waiting.pop(number, None)
        if self.current == number and self.scope is not None:
            self.scope.cancel()


@dataclass(eq=False, slots=True)
class _Client:
    """One transfer link and what it still waits for."""

    link: Link
    quick: _Queue = field(default_factory=_Queue)
    bulk: _Queue = field(default_factory=_Queue)


@dataclass(slots=True)
class _Peer:
    """All links of one peer."""

    clients: list[_Client] = field(default_factory=list)
    turn: trio.Lock = field(default_factory=trio.Lock)
    """Held by those large blocks that are being sent to it."""
    matches: TokenBucket = field(default_factory=lambda: TokenBucket(MATCHES_PER_S, MATCH_BURST))
    """What it may ask for of MATCH."""

    @property
    def waiting(self) -> int:
        return sum(len(c.quick.waiting) + len(c.bulk.waiting) for c in self.clients)


class Uploads:
    """Everything that others fetch from us."""

    def __init__(self, share: Share, limit: RateLimit | None = None) -> None:
        """Serve a share, at any rate or within a limit."""
        self._share = share
        self._limit = limit
        self._next = trio.Lock()
        """Held by who passes the limit next."""
        self.sent_bytes = 0
        """File data that was put on its way."""
        self.under_way = UnderWay()
        self._slots = trio.CapacityLimiter(UPLOAD_SLOTS)
        self._peers: dict[ServentId, _Peer] = {}

    def judge(self, peer: ServentId) -> Bye | None:
        """Return the BYE for a peer that dialled a transfer link, or None if it is welcome."""
        if peer in self._peers and len(self._peers[peer].clients) >= MAX_LINKS_PER_PEER:
            return Bye(ByeCode.DUPLICATE, "too many transfer links")
        if sum(len(known.clients) for known in self._peers.values()) >= MAX_LINKS:
            return Bye(ByeCode.FULL, "too many transfer links")
        return None

    async def serve(self, link: Link) -> None:
        """Answer what comes on a transfer link until it ends.

        It is judged again: others may have come since its handshake began.
        """
        refusal = self.judge(link.peer.id)
        if refusal is not None:
            await link.refuse(refusal)
            return
        peer = self._peers.setdefault(link.peer.id, _Peer())
        client = _Client(link)
        peer.clients.append(client)
        try:
            async with trio.open_nursery() as nursery:
                for queue in (client.quick, client.bulk):
                    nursery.start_soon(self._answer_all, queue, link, peer)
                await link.run(lambda _, message, number: self._asked(client, message, number))
                nursery.cancel_scope.cancel()
        finally:
            peer.clients.remove(client)
            if not peer.clients:
                del self._peers[link.peer.id]

    def _asked(self, client: _Client, message: Message, number: int) -> None:
        """Take in a request, from the link's reader: never waits."""
        if isinstance(message, Cancel):
            client.quick.cancel(number)
            client.bulk.cancel(number)
        elif self._peers[client.link.peer.id].waiting >= MAX_QUEUE:
            client.link.post(Reject(RejectCode.BUSY, "queue is full", RETRY_AFTER_MS), number)
        elif isinstance(message, GetBlocks) and self._is_large(FileId(message.file_id)):
            client.bulk.put(message, number)
        else:
            client.quick.put(message, number)

    def _is_large(self, file_id: FileId) -> bool:
        return (self._share.size_of(file_id) or 0) > SMALL_BYTES

    async def _answer_all(self, queue: _Queue, link: Link, peer: _Peer) -> None:
        while True:
            while queue.waiting:
                number = next(iter(queue.waiting))
                message = queue.waiting.pop(number)
                queue.current = number
                rest: Message | None = None
                with trio.CancelScope() as queue.scope:
                    rest = await self._answer(link, peer, message, number)
                if rest is not None and not queue.scope.cancel_called:
                    queue.waiting[number] = rest  # behind what else was asked for meanwhile
                queue.scope, queue.current = None, 0
            queue.news = trio.Event()
            await queue.news.wait()

    async def _answer(
        self, link: Link, peer: _Peer, message: Message, number: int
    ) -> Message | None:
        """Send the answer or the reason why there is none; every request ends in one.

        Returns what is still to be answered of it, in its next turn.
        """
        try:
            if isinstance(message, List):
                return await self._send_page(link, message, number)
            if self._share.is_paused:
                raise RejectedError("sharing is paused", RejectCode.PAUSED)
            if isinstance(message, Match):
                await self._send_matches(link, peer, message, number)
            elif isinstance(message, GetManifest):
                manifest = await self._share.manifest(FileId(message.file_id))
                await self._send(link, number, manifest.to_bytes())
            elif isinstance(message, GetBlocks):
                await self._send_blocks(link, peer, message, number)
            else:
                raise RejectedError("that is no request", RejectCode.NOT_FOUND)
        except LinkClosedError:
            pass  # the reader task sees the end as well, and stops us
        except (P2pfsError, OSError) as error:
            link.post(_refusal(error, link), number)
        except Exception:
            log.exception("a bug of ours: not answered %r", message)
            link.post(Reject(RejectCode.FAILED, "a bug"), number)
        return None

    async def _send_matches(self, link: Link, peer: _Peer, wanted: Match, number: int) -> None:
        """Send further files that a keyword query finds: each time the index is searched anew."""
        if not peer.matches.take(trio.current_time()):
            raise RejectedError("too many searches", RejectCode.BUSY)
        entries, total = await self._share.matches(wanted)
        page = _one_page(entries[: wanted.limit])
        await link.send(Listing(tuple(page), has_more=len(page) < total), number)

    async def _send_page(self, link: Link, wanted: List, number: int) -> Message | None:
        """Send the next page of a directory; return what to ask for those behind it."""
        page = self._page(wanted)
        await link.send(page, number)
        if isinstance(page, Listing) and not page.is_last:
            return List(wanted.path, _name(page.entries[-1]), wanted.pages - 1)
        return None

    async def _send_blocks(self, link: Link, peer: _Peer, wanted: GetBlocks, number: int) -> None:
        """Send blocks, some in each turn, up to the first that is not here."""
        file_id = FileId(wanted.file_id)
        size = (await self._share.manifest(file_id)).size
        if max(wanted.indexes) >= block_count_for(size):
            raise NotFoundError("no such block")
        a_turn = max(1, TURN_BYTES // block_bytes_for(size))
        left = wanted.indexes
        with self.under_way.answering(link.peer, file_id, size) as upload:
            while left:
                async with contextlib.AsyncExitStack() as place:
                    if size > SMALL_BYTES:
                        await place.enter_async_context(peer.turn)
                        await place.enter_async_context(self._slots)
                    blocks = await self._share.read_blocks(file_id, left[:a_turn])
                    left = left[len(blocks) :]
                    data = b"".join(blocks)
                    await self._send(link, number, data, is_last=not left, sent=upload.sent)

    async def _send(
        self,
        link: Link,
        number: int,
        data: bytes,
        *,
        is_last: bool = True,
        sent: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """Send a part of an answer, in pieces if there is a limit; `sent` is told of each."""
        if self._limit is None:
            await _send_piece(link, number, data, is_last=is_last)
            self.sent_bytes += len(data)
            sent(len(data))
            return
        rest = memoryview(data)
        while rest:
            piece, rest = rest[: self._limit.piece_bytes], rest[self._limit.piece_bytes :]
            await self._pass(len(piece), self._limit)
            await _send_piece(link, number, piece, is_last=is_last and not rest)
            self.sent_bytes += len(piece)
            sent(len(piece))

    async def _pass(self, count: int, limit: RateLimit) -> None:
        """Wait until so many bytes may be sent; who comes first is first."""
        async with self._next:
            await trio.sleep(limit.wait_s(trio.current_time()))
            limit.charge(count, trio.current_time())

    def _page(self, wanted: List) -> Message:
        """Return the next page of a directory: as many entries as one frame holds."""
        page = None
        if not self._share.is_paused:
            page = self._share.list_page(wanted.path, wanted.after, MAX_LISTING)
        if page is None:
            return Reject(RejectCode.NOT_FOUND, "no such directory")
        entries = _one_page(page.entries)
        has_more = page.has_more or len(entries) < len(page.entries)
        return Listing(tuple(entries), has_more, is_last=not has_more or wanted.pages == 1)


def _one_page(entries: Sequence[Entry]) -> list[Entry]:
    """Return as many of these entries as one frame holds."""
    page: list[Entry] = []
    room = MAX_PAGE_BYTES
    for entry in entries:
        room -= len(msgspec.msgpack.encode(entry))
        if room < 0:
            break
        page.append(entry)
    return page


async def _send_piece(link: Link, number: int, data: bytes | memoryview, *, is_last: bool) -> None:
    """Send a part of an answer; who takes it too slowly loses the link."""
    with trio.move_on_after(GRACE_S + len(data) / MIN_RATE_BYTES_PER_S) as patience:
        await link.send_data(number, data, is_last=is_last)
    if patience.cancelled_caught:
        link.close(Bye(ByeCode.IDLE, "too slow"))


def _refusal(error: P2pfsError | OSError, link: Link) -> Reject:
    """Return what a peer is told of why it does not get what it asked for."""
    if isinstance(error, NotYetError):
        return Reject(RejectCode.NOT_FOUND, str(error)[:MAX_REASON_LENGTH], NOT_YET_MS)
    if isinstance(error, NotFoundError):
        return Reject(RejectCode.NOT_FOUND, str(error)[:MAX_REASON_LENGTH])
    if isinstance(error, StaleError):
        return Reject(RejectCode.STALE, str(error)[:MAX_REASON_LENGTH])
    if isinstance(error, RejectedError):
        return Reject(RejectCode(error.code), str(error)[:MAX_REASON_LENGTH], RETRY_AFTER_MS)
    log.warning("upload failed peer=%s reason=%s", link.peer.id, error)
    return Reject(RejectCode.FAILED, "the disk could not be read")


def _name(entry: Entry) -> str:
    return entry.path.rpartition("/")[2]
