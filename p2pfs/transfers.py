"""Transfer links to other servents: one each, dialled when needed, closed when idle.

Swarms and listings say whom they want something from; this module finds or opens the link.
Many requests share a link by their request ids. A peer that could not be reached is not
dialled again for a moment, so that a hundred waiting blocks are not a hundred dials.
"""

from __future__ import annotations

from typing import Final

import trio

from p2pfs.errors import LinkError, RemoteProtocolError, UnreachableError
from p2pfs.link import Link, LocalServent, dial_link
from p2pfs.network import Network
from p2pfs.protocol.manifest import MAX_MANIFEST_BYTES, FileId
from p2pfs.protocol.messages import (
    Bye,
    ByeCode,
    GetBlock,
    GetManifest,
    LinkKind,
    List,
    Listing,
    Message,
    PeerInfo,
    ServentId,
)

IDLE_S: Final = 60.0
"""A link unused for so long is closed; opening a new one costs two round trips."""

REDIAL_AFTER_S: Final = 1.0
"""How long the last failure to reach a peer stands for the next."""

LISTING_TIMEOUT_S: Final = 5.0
"""One page of a listing comes from memory: a peer that needs longer is not there."""


class TransferLinks:
    """The transfer links that we dialled."""

    def __init__(self, network: Network, local: LocalServent) -> None:
        self._network = network
        self._local = local
        self._links: dict[ServentId, Link] = {}
        self._used_at: dict[ServentId, float] = {}
        self._dials: dict[ServentId, trio.Event] = {}
        self._failures: dict[ServentId, tuple[float, LinkError]] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the links until cancelled, and close those that are not used."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                await trio.sleep(IDLE_S)
                self._close_idle(trio.current_time() - IDLE_S)

    async def list_page(self, peer: PeerInfo, path: str, after: str) -> Listing:
        """Return one page of a peer's directory.

        Raises:
            LinkError, RejectedError, StalledError: it cannot be had now.
            RemoteProtocolError: the answer is something else.
        """
        link = await self._link_to(peer)
        answer = await link.request(List(path, after), timeout_s=LISTING_TIMEOUT_S)
        if not isinstance(answer, Listing):
            raise RemoteProtocolError(f"asked for a listing, got {type(answer).__name__}")
        return answer

    async def fetch_manifest(self, peer: PeerInfo, file_id: FileId) -> bytes:
        """Return the bytes of a manifest, unverified. Errors as for `fetch_block`."""
        return bytes(await self._fetch(peer, GetManifest(file_id), MAX_MANIFEST_BYTES))

    async def fetch_block(
        self, peer: PeerInfo, file_id: FileId, index: int, length: int
    ) -> bytearray:
        """Return what a peer sent for a block, unverified and of at most `length` bytes.

        Raises:
            UnreachableError, HandshakeError, RefusedError: there is no link to be had.
            LinkClosedError: the link ended before the answer was whole.
            RejectedError: the peer said no.
        """
        return await self._fetch(peer, GetBlock(file_id, index), length)

    async def _fetch(self, peer: PeerInfo, message: Message, size_limit: int) -> bytearray:
        link = await self._link_to(peer)
        return await link.fetch(message, size_limit=size_limit)

    async def _link_to(self, peer: PeerInfo) -> Link:
        """Return the open link to a peer, or open one; those who ask at once share the dial."""
        while True:
            link = self._links.get(peer.id)
            if link is not None and link.ended is None:
                self._used_at[peer.id] = trio.current_time()
                return link
            failed_at, error = self._failures.get(peer.id, (float("-inf"), None))
            if error is not None and trio.current_time() - failed_at < REDIAL_AFTER_S:
                raise UnreachableError(str(error)) from error
            if peer.id not in self._dials:
                assert self._nursery is not None
                self._dials[peer.id] = trio.Event()
                self._nursery.start_soon(self._open, peer)
            await self._dials[peer.id].wait()

    async def _open(self, peer: PeerInfo) -> None:
        try:
            link = await self._dial(peer)
        except LinkError as error:
            self._failures[peer.id] = (trio.current_time(), error)
            self._dials.pop(peer.id).set()
            return
        except BaseException:
            self._dials.pop(peer.id).set()
            raise
        self._failures.pop(peer.id, None)
        self._links[peer.id] = link
        self._used_at[peer.id] = trio.current_time()
        self._dials.pop(peer.id).set()
        try:
            await link.run(_ignore)
        finally:
            if self._links.get(peer.id) is link:
                del self._links[peer.id]

    async def _dial(self, peer: PeerInfo) -> Link:
        error: LinkError = UnreachableError(f"no address of {peer.name!r} can be dialled")
        for address in peer.addresses:
            try:
                return await dial_link(
                    self._network, address, self._local, LinkKind.TRANSFER, peer.id
                )
            except LinkError as failure:
                error = failure
        raise error

    def _close_idle(self, since: float) -> None:
        for peer, link in list(self._links.items()):
            if self._used_at[peer] < since and not link.is_busy:
                link.close(Bye(ByeCode.IDLE, "not needed any more"))

    def drop(self, peer: ServentId, text: str) -> None:
        """Close the link to a peer that misbehaves."""
        link = self._links.get(peer)
        if link is not None:
            link.close(Bye(ByeCode.PROTOCOL, text))


def _ignore(_link: Link, _message: Message, _request_id: int) -> None:
    """Drop what a peer sends unasked on a link that we dialled: it may only answer."""
