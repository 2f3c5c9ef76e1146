"""Serve blocks, manifests and listings to peers that dialled a transfer link to us.

Each peer has one turn at a time however many links it has and however much it asks for, and the
slots are passed round as `turns` says. A link that has no room for data gets no slot, and one that
stops taking data loses it. Small things (manifests, listings, blocks of small contents) wait for no
slot and for no large block of the same link. But nothing is read for a link before it has room, and
the bytes that are read and not sent are bounded for all links together. All file data keeps to one
limit, if there is one: pieces of it pass in the same order as turns.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final, Protocol

import trio

from p2pfs.errors import (
    LinkClosedError,
    NotFoundError,
    NotYetError,
    P2pfsError,
    RejectedError,
    StaleError,
)
from p2pfs.link import FIRST_DATA_BYTES, Link
from p2pfs.protocol import (
    KIB,
    MAX_REASON_LENGTH,
    Address,
    Bye,
    ByeCode,
    Cancel,
    FileId,
    GetBlocks,
    GetContents,
    GetManifest,
    Guid,
    List,
    Manifest,
    Match,
    Message,
    Pushed,
    Reject,
    RejectCode,
    ServentId,
    block_bytes_for,
    block_count_for,
    cut,
    manifest_bytes_for,
    pack_contents,
)
from p2pfs.rates import LOOK_AGAIN_S, RateLimit
from p2pfs.upload.pages import Lists, Pages
from p2pfs.upload.refusals import Refusals
from p2pfs.upload.together import TOGETHER_BYTES, SmallShare, read_together, take_together
from p2pfs.upload.turns import Turns
from p2pfs.upload.under_way import UnderWay
from p2pfs.upload.visitors import TURN_BYTES, Client, Peer, Queue, Visitors, close_when_idle

log = logging.getLogger(__name__)

UPLOAD_SLOTS: Final = 8
"""Uploads at once: enough to fill any line, few enough that each moves (libtorrent)."""

UNQUEUED_BYTES: Final = 512 * KIB
"""Contents up to this size pass the queue: a note does not wait behind a film."""

MAX_QUEUE: Final = 128
"""Requests that one peer may have waiting; 3 s of a fast line's blocks are fewer."""

MIN_RATE_BYTES_PER_S: Final = 16 * KIB
"""A peer that takes blocks more slowly than this loses its link: it would hold memory and a
place that others wait for."""

GRACE_S: Final = 20.0
"""Extra time that a peer gets in each turn: a line that has a bad moment is not a bad line."""

RETRY_AFTER_MS: Final = 2_000
"""When a refused peer may ask again."""

NOT_YET_MS: Final = 200
"""When to ask again for a block that is on its way here."""


class Share(Lists, SmallShare, Protocol):
    """The contents that are served: the library, and the cached blocks of others' files."""

    async def manifest(self, file_id: FileId) -> Manifest:
        """Return a manifest. Raises NotFoundError."""

    async def read_blocks(self, file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        """Return these blocks, verified, up to the first that is not here, at least one.

        Raises NotFoundError, StaleError.
        """


@contextlib.asynccontextmanager
async def _until_called(lock: trio.Lock) -> AsyncIterator[Callable[[], None]]:
    """Hold a lock until the function that this gives is called, or to the end of the block."""
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


class Uploads:
    """All that others fetch from us."""

    def __init__(
        self,
        share: Share,
        seen_by: Callable[[ServentId], Share] | None = None,
    ) -> None:
        """Serve a share; `seen_by` tells the part of it that a peer sees."""
        self._share = share
        self._seen_by = seen_by or (lambda _peer: share)
        self.limit = RateLimit()
        """What may be sent to all peers together."""
        self._next = Turns(slots=1)
        """Held by the task that passes the limit next."""
        self.on_pushed: Callable[[Link, Guid], object] = lambda _link, _token: None
        """Is called with a link on which we may ask too: the peer has dialled it because of a
        PUSH."""
        self.sent_bytes = 0
        """File data that was put on its way."""
        self.under_way = UnderWay()
        self._turns = Turns(UPLOAD_SLOTS)
        self._visitors = Visitors()
        self._pages = Pages(self._share_for)
        self._refusals = Refusals()

    def _share_for(self, link: Link) -> Share:
        return self._seen_by(link.peer.id)

    def judge(self, peer: ServentId, remote: Address) -> Bye | None:
        """Return the BYE for a peer that dialled a transfer link, or None if it is welcome."""
        return self._visitors.judge(peer, remote)

    async def serve(self, link: Link) -> None:
        """Answer the requests on a transfer link until it ends.

        It is judged again: others may have come since its handshake began.
        """
        refusal = self.judge(link.peer.id, link.remote)
        if refusal is not None:
            await link.refuse(refusal)
            return
        with self._visitors.welcome(link) as (client, peer):
            async with trio.open_nursery() as nursery:
                for queue in (client.quick, client.bulk):
                    nursery.start_soon(self._answer_all, queue, client, peer)
                nursery.start_soon(close_when_idle, client)
                await link.run(functools.partial(self._asked, client, peer))
                nursery.cancel_scope.cancel()

    def _asked(
        self, client: Client, peer: Peer, _link: Link, message: Message, number: int
    ) -> None:
        """Queue a request, from the link's reader: never waits."""
        client.used_at = trio.current_time()
        if isinstance(message, Pushed):
            self.on_pushed(client.link, Guid(message.token))
        elif isinstance(message, Cancel):
            client.quick.cancel(number)
            client.bulk.cancel(number)
        elif peer.waiting >= MAX_QUEUE:
            refusal = Reject(RejectCode.BUSY, "queue is full", RETRY_AFTER_MS)
            self._refuse(client.link, refusal, number)
        elif isinstance(message, GetBlocks) and self._is_large(client.link, message):
            client.bulk.put(message, number)
        else:
            client.quick.put(message, number)

    def _is_large(self, link: Link, wanted: GetBlocks) -> bool:
        size = self._share_for(link).size_of(FileId(wanted.file_id))
        return size is not None and size > UNQUEUED_BYTES

    async def _answer_all(self, queue: Queue, client: Client, peer: Peer) -> None:
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
        self, client: Client, peer: Peer, message: Message, number: int
    ) -> Message | None:
        """Send the answer or the reason why there is none; every request ends in one.

        Returns the part that is still to be answered, in its next turn.
        """
        link = client.link
        try:
            if isinstance(message, List):
                return await self._pages.send_page(link, message, number)
            if self._share.is_paused:
                raise RejectedError("sharing is paused", RejectCode.PAUSED)
            if isinstance(message, Match):
                await self._pages.send_matches(link, message, number)
            elif isinstance(message, GetManifest):
                await self._send_manifest(client, message, number)
            elif isinstance(message, GetBlocks):
                await self._send_blocks(client, peer, message, number)
            elif isinstance(message, GetContents):
                await self._send_contents(client, message, number)
            else:
                raise RejectedError("that is no request", RejectCode.NOT_FOUND)
        except LinkClosedError:
            pass  # the reader task sees the end as well, and stops us
        except NotYetError as error:  # a reader asks for it again, as it is told to
            link.post(_refusal(error, link), number)
        except (P2pfsError, OSError) as error:
            self._refuse(link, _refusal(error, link), number)
        except Exception:
            log.exception("a bug of ours: not answered %r", message)
            link.post(Reject(RejectCode.FAILED, "a bug"), number)
        return None

    def _refuse(self, link: Link, refusal: Reject, number: int) -> None:
        """Say no, and read a link more slowly whose address or network draws many refusals."""
        link.post(refusal, number)
        self._charge(link, 1)

    def _charge(self, link: Link, refusals: int) -> None:
        host, now = link.remote.host, trio.current_time()
        for _ in range(refusals):
            wait_s = self._refusals.wait_s(host, now)
            if wait_s:
                link.read_later(wait_s)

    async def _send_manifest(self, client: Client, wanted: GetManifest, number: int) -> None:
        link, file_id = client.link, FileId(wanted.file_id)
        size = self._share_for(link).size_of(file_id) or 0
        async with self._aside(client, manifest_bytes_for(size)) as blocked:
            manifest = await self._share_for(link).manifest(file_id)
            await self._send(link, number, [manifest.to_bytes()], blocked=blocked)

    async def _send_contents(self, client: Client, wanted: GetContents, number: int) -> None:
        """Send small contents, and say of the others that they are to be asked for alone."""
        link = client.link
        left = deque(FileId(file_id) for file_id in wanted.file_ids)
        while left:
            share = self._share_for(link)
            some = take_together(share, left)
            async with self._aside(client, sum(some.values())) as blocked:
                found = await read_together(share, some)
                part = pack_contents(found.values())
                await self._send(link, number, [part], is_last=not left, blocked=blocked)
            self._charge(link, list(found.values()).count(None))
            for file_id, data in found.items():
                if data is not None:
                    self.under_way.gave(link.peer, file_id, len(data))

    async def _send_blocks(
        self, client: Client, peer: Peer, wanted: GetBlocks, number: int
    ) -> None:
        """Send blocks, some in each turn, up to the first that is not here."""
        file_id, link = FileId(wanted.file_id), client.link
        size = await self._size_of(link, file_id)
        if max(wanted.indexes) >= block_count_for(size):
            raise NotFoundError("no such block")
        left = wanted.indexes
        with self.under_way.answering(link.peer, file_id, size) as upload:

            async def send_some(count: int, blocked: Callable[[], object]) -> None:
                nonlocal left
                small = await self._read_small(client, number, wanted, size)
                blocks = small or await self._share_for(link).read_blocks(file_id, left[:count])
                left = left[len(blocks) :]
                await self._send(
                    link, number, blocks, is_last=not left, sent=upload.sent, blocked=blocked
                )

            while left:
                if size <= UNQUEUED_BYTES:  # needs no turn
                    count = min(len(left), TURN_BYTES // block_bytes_for(size))
                    async with self._aside(client, count * size) as blocked:
                        await send_some(count, blocked)
                    continue
                async with self._place(client, peer, size, len(left)) as (count, blocked):
                    await send_some(count, blocked)

    async def _read_small(
        self, client: Client, number: int, wanted: GetBlocks, size: int
    ) -> list[bytes]:
        """Return a small content that is read together with others, nothing if it is not."""
        if size > TOGETHER_BYTES:
            return []
        queue = client.quick
        data = queue.together.take(number, wanted)
        if data is None:
            share = self._share_for(client.link)
            data = await queue.together.read(share, number, wanted, queue.waiting)
        return [] if data is None else [data]

    async def _size_of(self, link: Link, file_id: FileId) -> int:
        """Return the size of a content; from memory if it can be, since the index takes a hop.

        Raises:
            NotFoundError: it is not here.
        """
        share = self._share_for(link)
        size = share.size_of(file_id)
        return (await share.manifest(file_id)).size if size is None else size

    @contextlib.asynccontextmanager
    async def _place(
        self, client: Client, peer: Peer, size: int, most: int
    ) -> AsyncIterator[tuple[int, Callable[[], object]]]:
        """Wait until blocks of a content may be sent; give how many, and a function to park."""
        link, block_bytes = client.link, block_bytes_for(size)
        await _wait_room(link)
        async with _until_called(peer.turn) as give_way:
            count = min(most, max(1, client.turn_bytes // block_bytes))
            sent_bytes = count * block_bytes
            async with self._turns.turn(link, sent_bytes + FIRST_DATA_BYTES) as turn:

                def blocked() -> None:
                    self._turns.park(turn)
                    give_way()  # to another link of the peer: this one may lead to it no more

                began_at = trio.current_time()
                with link.reserved():
                    yield count, blocked
                    await _wait_little(link, blocked)  # the rest is in nobody's turn
            client.turn_was(turn, sent_bytes, trio.current_time() - began_at)

    @contextlib.asynccontextmanager
    async def _aside(self, client: Client, read_bytes: int) -> AsyncIterator[Callable[[], object]]:
        """Wait until so many bytes may be read beside the turns; give a function to park.

        A few are read as soon as the link has room, so they wait for nothing.
        """
        link = client.link
        await _wait_room(link, client.quick.together.forget_all)
        if read_bytes <= FIRST_DATA_BYTES:
            yield _nothing
            return
        held_bytes = read_bytes + FIRST_DATA_BYTES
        async with self._turns.turn(link, held_bytes, is_aside=True) as turn:
            blocked = functools.partial(self._turns.park, turn)
            with link.reserved():
                yield blocked
                await _wait_little(link, blocked)

    async def _send(
        self,
        link: Link,
        number: int,
        blocks: list[bytes],
        *,
        is_last: bool = True,
        sent: Callable[[int], object] = _nothing,
        blocked: Callable[[], object] = _nothing,
    ) -> None:
        """Send a part of an answer, some at a time; `sent` is told how much."""
        piece_bytes = self.limit.piece_bytes if self.limit.is_set else link.sealed_bytes
        for some, is_end in cut(blocks, piece_bytes):
            count = sum(map(len, some))
            await self._pass(link, count)
            # What waits for nothing needs no deadline: two of them were a third of the time that
            # the answer with a small file takes.
            with contextlib.nullcontext() if link.has_room else _patience(link, count):
                await link.send_data(number, *some, is_last=is_last and is_end, blocked=blocked)
            self._turns.took(link)
            self.sent_bytes += count
            sent(count)

    async def _pass(self, link: Link, count: int) -> None:
        """Wait until so many bytes may be sent."""
        if not self.limit.is_set:
            return
        async with self._next.turn(link):
            while (wait_s := self.limit.wait_s(trio.current_time())) > 0:  # noqa: ASYNC110 - it is a time
                await trio.sleep(min(wait_s, LOOK_AGAIN_S))
            self.limit.charge(count, trio.current_time())


async def _wait_room(link: Link, blocked: Callable[[], object] = _nothing) -> None:
    """Wait until a link takes data; `blocked` is called once that has taken a moment."""
    if not link.has_room:
        with _patience(link, link.sealed_bytes):
            await link.wait_room(blocked)


async def _wait_little(link: Link, blocked: Callable[[], object]) -> None:
    """Wait until a link has taken most of what it was sent; see `_wait_room`."""
    with _patience(link, link.sealed_bytes):
        await link.wait_little(blocked)


@contextlib.contextmanager
def _patience(link: Link, count: int) -> Iterator[None]:
    """Bound how long a link takes for so many bytes; a peer that is too slow loses it."""
    with trio.move_on_after(GRACE_S + count / MIN_RATE_BYTES_PER_S) as patience:
        yield
    if patience.cancelled_caught:
        link.close(Bye(ByeCode.IDLE, "too slow"))


def _refusal(error: P2pfsError | OSError, link: Link) -> Reject:
    """Return the refusal that tells a peer why it does not get what it asked for."""
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
