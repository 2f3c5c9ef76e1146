"""Serve blocks, manifests and listings to those who dialled a transfer link to us.

Each peer has one turn at a time however many links it has and however much it asks for, and the
slots are passed round as `turns` says. A link that has no room for data gets no slot, and one
that stops taking data loses it. Small things (manifests, listings, blocks of small contents)
wait for no slot and for no large block of the same link. All file data keeps to one limit, if
there is one: pieces of it pass in the same order as turns.

A link that asks for nothing is closed after IDLE_S. When all links are taken, a newcomer of a
smaller group takes the place of the idlest of the largest group, and any newcomer that of one
that has rested for RESTING_S.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
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
from p2pfs.latest import Latest
from p2pfs.library import Page
from p2pfs.link import SEALED_BYTES, Link
from p2pfs.protocol import (
    KIB,
    MAX_LISTING,
    MAX_REASON_LENGTH,
    Address,
    Bye,
    ByeCode,
    Cancel,
    Entry,
    FileId,
    GetBlocks,
    GetManifest,
    Guid,
    List,
    Listing,
    Manifest,
    Match,
    Message,
    Pushed,
    Reject,
    RejectCode,
    ServentId,
    block_bytes_for,
    block_count_for,
    groups_of,
    largest_crowd,
    who_gives_way,
)
from p2pfs.protocol.flood import TokenBucket
from p2pfs.rates import RateLimit
from p2pfs.upload.turns import Turn, Turns
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
"""A peer that takes blocks more slowly than this loses its link: it would hold memory and a
place that others wait for."""

IDLE_S: Final = 150.0
"""A link without requests is closed after this time. Who dialled it closes it long before, if
it is a servent."""

RESTING_S: Final = 10.0
"""A link without requests for this time gives way to anybody when all are taken: to dial anew
costs two round trips."""

GRACE_S: Final = 20.0
"""What it gets on top in each turn: a bad moment of a line is no bad line."""

NOT_YET_MS: Final = 200
"""When to ask again for a block that is on its way here."""

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
    used_at: float = field(default_factory=trio.current_time)
    """When it asked for something last, or was sent the end of an answer."""
    turn_bytes: int = TURN_BYTES
    """What its next turn may have: less for one that stopped taking data in its last."""

    def turn_was(self, turn: Turn) -> None:
        """Let the next turn have twice as much as the last, or one block if that was parked."""
        was_slow = turn.parked_at is not None
        self.turn_bytes = 0 if was_slow else min(TURN_BYTES, 2 * turn.held_bytes)

    def idle_s(self, now: float) -> float:
        """Return for how long nothing is asked of us; 0 while something is, either way."""
        queues = (self.quick, self.bulk)
        is_used = self.link.awaits_answers or any(q.waiting or q.current for q in queues)
        return 0.0 if is_used else now - self.used_at


@dataclass(slots=True)
class _Peer:
    """All links of one peer."""

    clients: list[_Client] = field(default_factory=list)
    turn: trio.Lock = field(default_factory=trio.Lock)
    """Held by those large blocks that are being sent to it."""

    @property
    def waiting(self) -> int:
        return sum(len(c.quick.waiting) + len(c.bulk.waiting) for c in self.clients)


@contextlib.asynccontextmanager
async def _until_called(lock: trio.Lock) -> AsyncIterator[Callable[[], None]]:
    """Hold a lock until what this gives is called, or else to the end of the block."""
    await lock.acquire()
    is_held = True

    def release() -> None:
        nonlocal is_held
        if is_held:
            is_held = False
            lock.release()

    try:
        yield release
    finally:
        release()


def _nothing(*_: object) -> None:
    """Take note of nothing."""


@dataclass(slots=True)
class _Allowance:
    """What one address may still ask for, whoever it says that it is."""

    matches: TokenBucket = field(default_factory=lambda: TokenBucket(MATCHES_PER_S, MATCH_BURST))
    pages: TokenBucket = field(default_factory=lambda: TokenBucket(PAGES_PER_S, PAGES_BURST))


class Uploads:
    """Everything that others fetch from us."""

    def __init__(self, share: Share, limit: RateLimit | None = None) -> None:
        """Serve a share, at any rate or within a limit."""
        self._share = share
        self._limit = limit
        self._next = Turns(slots=1)
        """Held by who passes the limit next."""
        self.on_pushed: Callable[[Link, Guid], object] = lambda _link, _token: None
        """Told of a link on which we may ask too: the peer has dialled it because of a PUSH."""
        self.sent_bytes = 0
        """File data that was put on its way."""
        self.under_way = UnderWay()
        self._turns = Turns(UPLOAD_SLOTS)
        self._peers: dict[ServentId, _Peer] = {}
        self._allowances: Latest[str, _Allowance] = Latest(MAX_ALLOWANCES)

    def judge(self, peer: ServentId, remote: Address) -> Bye | None:
        """Return the BYE for a peer that dialled a transfer link, or None if it is welcome."""
        if peer in self._peers and len(self._peers[peer].clients) >= MAX_LINKS_PER_PEER:
            return Bye(ByeCode.DUPLICATE, "too many transfer links")
        if len(self._live()) >= MAX_LINKS and self._who_gives_way(remote.host) is None:
            return Bye(ByeCode.FULL, "too many transfer links")
        return None

    def _live(self) -> list[_Client]:
        return [c for peer in self._peers.values() for c in peer.clients if c.link.ended is None]

    def _who_gives_way(self, newcomer: str) -> _Client | None:
        """Return the link whose place somebody from this host takes, or None."""
        live, now = self._live(), trio.current_time()
        victim = who_gives_way(live, newcomer, host_of=_host_of, weight=lambda c: c.idle_s(now))
        if victim is None:
            idlest = max(largest_crowd(live, _host_of, 0), key=lambda c: c.idle_s(now))
            victim = idlest if idlest.idle_s(now) >= RESTING_S else None
        return victim

    def _make_room(self, newcomer: str) -> None:
        if len(self._live()) >= MAX_LINKS:
            victim = self._who_gives_way(newcomer)
            assert victim is not None, "it was judged at this moment"
            victim.link.close(Bye(ByeCode.IDLE, "others wait for a link"))

    async def serve(self, link: Link) -> None:
        """Answer what comes on a transfer link until it ends.

        It is judged again: others may have come since its handshake began.
        """
        refusal = self.judge(link.peer.id, link.remote)
        if refusal is not None:
            await link.refuse(refusal)
            return
        self._make_room(link.remote.host)
        peer = self._peers.setdefault(link.peer.id, _Peer())
        client = _Client(link)
        peer.clients.append(client)
        try:
            async with trio.open_nursery() as nursery:
                for queue in (client.quick, client.bulk):
                    nursery.start_soon(self._answer_all, queue, client, peer)
                nursery.start_soon(_close_when_idle, client)
                await link.run(lambda _, message, number: self._asked(client, message, number))
                nursery.cancel_scope.cancel()
        finally:
            peer.clients.remove(client)
            if not peer.clients:
                del self._peers[link.peer.id]

    def _asked(self, client: _Client, message: Message, number: int) -> None:
        """Take in a request, from the link's reader: never waits."""
        client.used_at = trio.current_time()
        if isinstance(message, Pushed):
            self.on_pushed(client.link, Guid(message.token))
        elif isinstance(message, Cancel):
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

    async def _answer_all(self, queue: _Queue, client: _Client, peer: _Peer) -> None:
        while True:
            while queue.waiting:
                number = next(iter(queue.waiting))
                message = queue.waiting.pop(number)
                queue.current = number
                rest: Message | None = None
                with trio.CancelScope() as queue.scope:
                    rest = await self._answer(client, peer, message, number)
                if rest is not None and not queue.scope.cancel_called:
                    queue.waiting[number] = rest  # behind what else was asked for meanwhile
                queue.scope, queue.current = None, 0
                client.used_at = trio.current_time()
            queue.news = trio.Event()
            await queue.news.wait()

    async def _answer(
        self, client: _Client, peer: _Peer, message: Message, number: int
    ) -> Message | None:
        """Send the answer or the reason why there is none; every request ends in one.

        Returns what is still to be answered of it, in its next turn.
        """
        link = client.link
        try:
            if isinstance(message, List):
                return await self._send_page(link, message, number)
            if self._share.is_paused:
                raise RejectedError("sharing is paused", RejectCode.PAUSED)
            if isinstance(message, Match):
                await self._send_matches(link, message, number)
            elif isinstance(message, GetManifest):
                manifest = await self._share.manifest(FileId(message.file_id))
                await self._send(link, number, manifest.to_bytes())
            elif isinstance(message, GetBlocks):
                await self._send_blocks(client, peer, message, number)
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

    async def _send_matches(self, link: Link, wanted: Match, number: int) -> None:
        """Send further files that a keyword query finds: each time the index is searched anew."""
        if not self._allowance(link).matches.take(trio.current_time()):
            raise RejectedError("too many searches", RejectCode.BUSY)
        entries, total = await self._share.matches(wanted)
        page = _one_page(entries[: wanted.limit])
        await link.send(Listing(tuple(page), has_more=len(page) < total), number)

    async def _send_page(self, link: Link, wanted: List, number: int) -> Message | None:
        """Send the next page of a directory; return what to ask for those behind it."""
        await self._wait_for_page(link)
        page = self._page(wanted)
        await link.send(page, number)
        if isinstance(page, Listing) and not page.is_last:
            return List(wanted.path, _name(page.entries[-1]), wanted.pages - 1)
        return None

    async def _wait_for_page(self, link: Link) -> None:
        pages = self._allowance(link).pages
        while not pages.take(trio.current_time()):
            wait_s = pages.wait_s(trio.current_time())
            await trio.sleep(wait_s)

    def _allowance(self, link: Link) -> _Allowance:
        address = groups_of(link.remote.host)[1]
        self._allowances[address] = allowance = self._allowances.get(address) or _Allowance()
        return allowance

    async def _send_blocks(
        self, client: _Client, peer: _Peer, wanted: GetBlocks, number: int
    ) -> None:
        """Send blocks, some in each turn, up to the first that is not here."""
        file_id, link = FileId(wanted.file_id), client.link
        size = (await self._share.manifest(file_id)).size
        if max(wanted.indexes) >= block_count_for(size):
            raise NotFoundError("no such block")
        left = wanted.indexes
        with self.under_way.answering(link.peer, file_id, size) as upload:
            while left:
                async with self._place(client, peer, size) as (count, blocked):
                    blocks = await self._share.read_blocks(file_id, left[:count])
                    left = left[len(blocks) :]
                    data = b"".join(blocks)
                    await self._send(
                        link, number, data, is_last=not left, sent=upload.sent, blocked=blocked
                    )

    @contextlib.asynccontextmanager
    async def _place(
        self, client: _Client, peer: _Peer, size: int
    ) -> AsyncIterator[tuple[int, Callable[[], object]]]:
        """Wait until blocks of a content may be sent; give how many, and what to call if blocked.

        Those of a small one need no turn.
        """
        block_bytes = block_bytes_for(size)
        if size <= SMALL_BYTES:
            yield TURN_BYTES // block_bytes, _nothing
            return
        with _patience(client.link, SEALED_BYTES):
            await client.link.wait_room()
        async with _until_called(peer.turn) as give_way:
            count = max(1, client.turn_bytes // block_bytes)
            async with self._turns.turn(client.link, count * block_bytes) as turn:

                def blocked() -> None:
                    self._turns.park(turn)
                    give_way()  # to another link of the peer: this one may lead to it no more

                yield count, blocked
                with _patience(client.link, SEALED_BYTES):  # else all would send at once
                    await client.link.wait_room(blocked)
            client.turn_was(turn)

    async def _send(
        self,
        link: Link,
        number: int,
        data: bytes,
        *,
        is_last: bool = True,
        sent: Callable[[int], object] = _nothing,
        blocked: Callable[[], object] = _nothing,
    ) -> None:
        """Send a part of an answer, in pieces; `sent` is told of each."""
        rest = memoryview(data)
        piece_bytes = self._limit.piece_bytes if self._limit else SEALED_BYTES
        while rest:
            piece, rest = rest[:piece_bytes], rest[piece_bytes:]
            await self._pass(link, len(piece))
            is_end = is_last and not rest
            with _patience(link, len(piece)):
                await link.send_data(number, piece, is_last=is_end, blocked=blocked)
            self._turns.took(link)
            self.sent_bytes += len(piece)
            sent(len(piece))

    async def _pass(self, link: Link, count: int) -> None:
        """Wait until so many bytes may be sent."""
        if self._limit is not None:
            async with self._next.turn(link):
                await trio.sleep(self._limit.wait_s(trio.current_time()))
                self._limit.charge(count, trio.current_time())

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


async def _close_when_idle(client: _Client) -> None:
    """Close a link that was asked for nothing for IDLE_S."""
    idle_s = 0.0
    while idle_s < IDLE_S:
        await trio.sleep(IDLE_S - idle_s)
        idle_s = client.idle_s(trio.current_time())
    client.link.close(Bye(ByeCode.IDLE, "not used"))


@contextlib.contextmanager
def _patience(link: Link, count: int) -> Iterator[None]:
    """Bound how long a link takes for so many bytes; who is too slow loses it."""
    with trio.move_on_after(GRACE_S + count / MIN_RATE_BYTES_PER_S) as patience:
        yield
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


def _host_of(client: _Client) -> str:
    return client.link.remote.host


def _name(entry: Entry) -> str:
    return entry.path.rpartition("/")[2]
