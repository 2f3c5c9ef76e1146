"""Serve blocks, manifests and listings to those who dialled a transfer link to us.

Each link has one queue and one worker, so a peer has at most one upload at a time however
much it asks for, and the slots are passed round among peers in the order of their asking.
Small things (manifests, listings, short blocks) do not wait for a slot.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
import trio

from p2pfs.errors import LinkClosedError, NotFoundError, RejectedError, StaleError
from p2pfs.link import Link
from p2pfs.protocol.manifest import KIB, FileId, Manifest, block_span
from p2pfs.protocol.messages import (
    MAX_LISTING,
    Bye,
    ByeCode,
    Cancel,
    Entry,
    GetBlock,
    GetManifest,
    List,
    Listing,
    Message,
    Reject,
    RejectCode,
    ServentId,
)

log = logging.getLogger(__name__)

UPLOAD_SLOTS: Final = 8
"""Uploads at once: enough to fill any line, few enough that each moves (libtorrent)."""

SMALL_BYTES: Final = 512 * KIB
"""Contents up to this size pass the queue: nobody waits behind a film for a note."""

MAX_QUEUE: Final = 128
"""Requests that one peer may have waiting; at 3 s of a fast line's blocks there are fewer."""

MAX_LINKS: Final = 200
"""Transfer links accepted in all."""

MAX_LINKS_PER_PEER: Final = 4
"""Transfer links accepted from one peer; it needs one."""

MAX_PAGE_BYTES: Final = 60 * KIB
"""Entries of one page of a listing, encoded: what a frame holds, less its headers."""

MIN_RATE_BYTES_PER_S: Final = 16 * KIB
"""A peer that takes a block more slowly than this, after a grace of `GRACE_S`, loses its link:
it would hold a slot that others wait for."""

GRACE_S: Final = 20.0

RETRY_AFTER_MS: Final = 2_000
"""When a refused peer may ask again."""


class Share(Protocol):
    """What is served: the library, and what the cache holds of others' files."""

    @property
    def is_paused(self) -> bool:
        """Whether sharing is paused."""

    def list_directory(self, path: str) -> Sequence[Entry] | None:
        """Return a directory sorted by name, or None if there is none."""

    async def manifest(self, file_id: FileId) -> Manifest:
        """Return a manifest. Raises NotFoundError."""

    async def read_block(self, file_id: FileId, index: int) -> bytes:
        """Return one verified block. Raises NotFoundError, StaleError."""


@dataclass(slots=True)
class _Client:
    """One transfer link and what it still waits for."""

    link: Link
    queue: dict[int, Message] = field(default_factory=dict)
    news: trio.Event = field(default_factory=trio.Event)
    current: int = 0
    """The request being answered."""
    scope: trio.CancelScope | None = None
    """Cancels that answer."""


class Uploads:
    """Everything that others fetch from us."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._slots = trio.CapacityLimiter(UPLOAD_SLOTS)
        self._links: dict[ServentId, int] = {}

    def judge(self, peer: ServentId) -> Bye | None:
        """Return the BYE for a peer that dialled a transfer link, or None if it is welcome."""
        if self._links.get(peer, 0) >= MAX_LINKS_PER_PEER:
            return Bye(ByeCode.DUPLICATE, "too many transfer links")
        if sum(self._links.values()) >= MAX_LINKS:
            return Bye(ByeCode.FULL, "too many transfer links")
        return None

    async def serve(self, link: Link) -> None:
        """Answer what comes on a transfer link until it ends."""
        client = _Client(link)
        self._links[link.peer.id] = self._links.get(link.peer.id, 0) + 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answer_all, client)
                await link.run(lambda _link, message, number: self._asked(client, message, number))
                nursery.cancel_scope.cancel()
        finally:
            self._links[link.peer.id] -= 1
            if not self._links[link.peer.id]:
                del self._links[link.peer.id]

    def _asked(self, client: _Client, message: Message, number: int) -> None:
        """Take in a request, from the link's reader: never waits."""
        if isinstance(message, Cancel):
            client.queue.pop(number, None)
            if client.current == number and client.scope is not None:
                client.scope.cancel()
        elif isinstance(message, List):
            client.link.post(self._page(message), number)
        elif len(client.queue) >= MAX_QUEUE:
            client.link.post(Reject(RejectCode.BUSY, "queue is full", RETRY_AFTER_MS), number)
        else:
            client.queue[number] = message
            client.news.set()

    async def _answer_all(self, client: _Client) -> None:
        while True:
            while client.queue:
                number = next(iter(client.queue))
                message = client.queue.pop(number)
                client.current = number
                with trio.CancelScope() as client.scope:
                    await self._answer(client.link, message, number)
                client.scope, client.current = None, 0
            client.news = trio.Event()
            await client.news.wait()

    async def _answer(self, link: Link, message: Message, number: int) -> None:
        """Send the answer or the reason why there is none; every request ends in one."""
        try:
            if self._share.is_paused:
                raise RejectedError("sharing is paused", RejectCode.PAUSED)
            if isinstance(message, GetManifest):
                manifest = await self._share.manifest(FileId(message.file_id))
                await link.send_data(number, manifest.to_bytes())
            elif isinstance(message, GetBlock):
                await self._send_block(link, FileId(message.file_id), message.index, number)
        except NotFoundError as error:
            link.post(Reject(RejectCode.NOT_FOUND, str(error)[:200]), number)
        except StaleError as error:
            link.post(Reject(RejectCode.STALE, str(error)[:200]), number)
        except RejectedError as error:
            link.post(Reject(RejectCode(error.code), str(error), RETRY_AFTER_MS), number)
        except LinkClosedError:
            pass  # the reader task sees the end as well, and stops us
        except OSError as error:
            log.warning("upload failed peer=%s reason=%s", link.peer.id, error)
            link.post(Reject(RejectCode.FAILED, "the disk could not be read"), number)

    async def _send_block(self, link: Link, file_id: FileId, index: int, number: int) -> None:
        manifest = await self._share.manifest(file_id)
        if index >= manifest.block_count:
            raise NotFoundError("no such block")
        length = block_span(manifest.size, index)[1]
        async with self._slots if manifest.size > SMALL_BYTES else contextlib.nullcontext():
            with trio.move_on_after(GRACE_S + length / MIN_RATE_BYTES_PER_S) as scope:
                await link.send_data(number, await self._share.read_block(file_id, index))
        if scope.cancelled_caught:
            link.close(Bye(ByeCode.IDLE, "too slow"))

    def _page(self, wanted: List) -> Message:
        """Return the next page of a directory: as many entries as one frame holds."""
        entries = None if self._share.is_paused else self._share.list_directory(wanted.path)
        if entries is None:
            return Reject(RejectCode.NOT_FOUND, "no such directory")
        first = bisect.bisect_right(entries, wanted.after, key=_name)
        page: list[Entry] = []
        room = MAX_PAGE_BYTES
        for entry in entries[first : first + MAX_LISTING]:
            room -= len(msgspec.msgpack.encode(entry))
            if room < 0:
                break
            page.append(entry)
        return Listing(tuple(page), has_more=first + len(page) < len(entries))


def _name(entry: Entry) -> str:
    return entry.path.rpartition("/")[2]
