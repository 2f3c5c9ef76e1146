"""Transfer links to other servents: one each, dialled when needed, closed when idle.

Swarms and listings name the peer that they ask; this module finds or opens the link to it.
Many requests share a link by their request ids. A peer that could not be reached is not dialled
again for a moment (`unreached`). A banned peer is neither dialled nor asked.

A peer that owes an answer and falls silent is dialled anew beside its link. If that leads to it,
the new link takes the place of the old, and requests there fail and are made again. So a read
goes on within seconds when the address of either side has changed.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.errors import (
    LinkError,
    ShutdownError,
    UnreachableError,
)
from p2pfs.latest import Latest
from p2pfs.link.greeting import First
from p2pfs.link.live import Link
from p2pfs.link.requests import Asked
from p2pfs.link.unreached import REDIAL_AFTER_S, Unreached
from p2pfs.protocol import (
    CONTENTS,
    MAX_ADDRESSES,
    MAX_CONTENT_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_PAGES_ASKED,
    MIN_BLOCK_BYTES,
    Address,
    Bye,
    ByeCode,
    ContentsCutter,
    FileId,
    GetBlocks,
    GetContents,
    GetManifest,
    List,
    Listing,
    Match,
    Message,
    PeerInfo,
    ServentId,
    servent_id,
)
from p2pfs.tasks import Flight, SingleFlight, Tasks

IDLE_S: Final = 60.0
"""A link unused for so long is closed; opening a new one costs a round trip or two."""

PAGE_SILENCE_S: Final = 5.0
"""A page of a listing comes from memory: a peer that needs longer is not there."""

MAX_KEYS: Final = 10_000
"""Servents whose public key is known from their hits: 3 MB."""

MAX_LINKS: Final = 200
"""Links dialled at once. Hits can name any number of servents, descriptors are few."""


Deliver = Callable[[bytes], object]
"""Takes in the next block, whole; never waits."""


class _Cutter:
    """Cuts an answer of several blocks where one ends and the next begins."""

    def __init__(self, lengths: Iterable[int], deliver: Deliver) -> None:
        self._lengths = deque(lengths)
        self._deliver = deliver
        self._pieces: list[memoryview] = []
        self._missing = self._lengths.popleft()

    def take(self, piece: memoryview) -> None:
        """Take in the next piece; all are no more than the lengths together."""
        while len(piece) >= self._missing > 0:
            self._pieces.append(piece[: self._missing])
            piece = piece[self._missing :]
            self._next()
        if piece:
            self._pieces.append(piece)
            self._missing -= len(piece)

    def finish(self) -> None:
        """Deliver the part of a block that has come, if it has not come whole."""
        if self._missing:
            self._next()

    def _next(self) -> None:
        block, self._pieces = b"".join(self._pieces), []
        self._missing = self._lengths.popleft() if self._lengths else 0
        self._deliver(block)


@dataclass(slots=True)
class _Dial:
    """A dial under way, and where to."""

    addresses: tuple[Address, ...]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    asking: list[Asked] = field(default_factory=list)
    """What waits for the link."""

    @contextlib.contextmanager
    def waiting(self, asked: Asked) -> Iterator[None]:
        """Have a request made as the link is opened, for the length of the block."""
        self.asking.append(asked)
        try:
            yield
        except BaseException:
            asked.is_given_up = True
            raise
        finally:
            self.asking.remove(asked)

    def also_at(self, addresses: Sequence[Address]) -> None:
        """Dial these addresses first, beginning anew, if they are others."""
        if not set(addresses) <= set(self.addresses):
            merged = dict.fromkeys((*addresses, *self.addresses))
            self.addresses = tuple(merged)[: 2 * MAX_ADDRESSES]
            self.scope.cancel()


@dataclass(slots=True)
class _Open:
    """A link, and when it was last wanted."""

    link: Link
    used_at: float


Connect = Callable[[PeerInfo, Sequence[Address], First], Awaitable[Link]]
"""Opens a transfer link to a peer, at one of these addresses or otherwise; LinkError if not.

What it is opened for may be asked at once."""

AddressesOf = Callable[[ServentId], Sequence[Address]]
"""Returns where a peer is known to be at this moment, if it is."""


class TransferLinks:
    """The transfer links that we dialled."""

    def __init__(
        self,
        connect: Connect,
        is_banned: Callable[[ServentId], bool],
        addresses_of: AddressesOf = lambda _peer: (),
    ) -> None:
        self._connect = connect
        self._is_banned = is_banned
        self._known_addresses = addresses_of
        self._links: dict[ServentId, _Open] = {}
        self.on_opened: Callable[[ServentId, str], object] = lambda _peer, _host: None
        """Called with each peer that was reached, and the host at which it was."""
        self._tasks = Tasks()
        self._dialling: SingleFlight[ServentId] = SingleFlight(self._tasks)
        self._dials: dict[ServentId, _Dial] = {}
        """Where to each peer is being dialled."""
        self._public_keys: Latest[ServentId, bytes] = Latest(MAX_KEYS)
        self._unreached = Unreached()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the links until cancelled, and close those that are not used."""
        await self._tasks.run(self._close_unused, task_status=task_status)

    async def _close_unused(self) -> None:
        while True:
            await trio.sleep(IDLE_S)
            self._close_idle(trio.current_time() - IDLE_S)

    async def list_pages(
        self, peer: PeerInfo, path: str, after: str, take: Callable[[Listing], object]
    ) -> None:
        """Ask for the next pages of a peer's directory, and hand on each as it comes.

        They are some, at least one; an older servent sends one whatever is asked.

        Raises:
            LinkError, RejectedError, StalledError: the next page cannot be had now.
        """
        asked = Asked(List(path, after, MAX_PAGES_ASKED), take_page=take)
        link = await self._link_to(peer, asked)
        await link.ask.pages(asked, silence_s=PAGE_SILENCE_S)

    async def match_page(self, peer: PeerInfo, wanted: Match) -> Listing:
        """Return further files of a peer that a keyword query finds; errors as for a listing."""
        asked = Asked(wanted)
        link = await self._link_to(peer, asked)
        page = await link.ask.answer(asked, timeout_s=PAGE_SILENCE_S)
        assert isinstance(page, Listing)
        return page

    async def fetch_manifest(self, peer: PeerInfo, file_id: FileId) -> bytes:
        """Return the bytes of a manifest, unverified. Errors as for `fetch_blocks`."""
        return await self._fetch(peer, GetManifest(file_id), MAX_MANIFEST_BYTES)

    def is_linked(self, peer: PeerInfo) -> bool:
        """Return whether there is an open link to a peer."""
        known = self._links.get(peer.id)
        return known is not None and known.link.ended is None

    async def fetch_small(self, peer: PeerInfo, file_id: FileId) -> bytes:
        """Return the answer of a peer for the only block of a content, unverified.

        The size that was announced need not be right, so it bounds nothing here. Errors as for
        `fetch_blocks`.
        """
        return await self._fetch(peer, GetBlocks(file_id, (0,)), MIN_BLOCK_BYTES)

    def gives_contents(self, peer: PeerInfo) -> bool:
        """Return whether a peer is linked, and may be asked for several contents at once."""
        known = self._links.get(peer.id)
        return known is not None and not known.link.ended and CONTENTS in known.link.hello.knows

    async def fetch_contents(
        self, peer: PeerInfo, file_ids: Sequence[FileId], take: Callable[[bytes | None], object]
    ) -> None:
        """Ask a peer for contents of one block, MAX_CONTENTS_ASKED of them at most.

        Each is handed on as it comes, in this order, unverified; None for each that is to be asked
        for alone. Errors as for `fetch_blocks`.
        """
        cutter = ContentsCutter(len(file_ids), take)
        most = len(file_ids) * MAX_CONTENT_BYTES
        asked = Asked(GetContents(tuple(file_ids)), most, cutter.receive)
        if not self.gives_contents(peer):  # else it may be sent before the peer's HELLO
            raise UnreachableError(f"{peer.name!r} is not linked any more")
        link = await self._link_to(peer, asked)
        await link.ask.finish(asked)

    async def _fetch(self, peer: PeerInfo, message: Message, size_limit: int) -> bytes:
        pieces: list[memoryview] = []
        asked = Asked(message, size_limit, pieces.extend)
        link = await self._link_to(peer, asked)
        await link.ask.finish(asked)
        return b"".join(pieces)  # once: a buffer that grows with each costs twice that

    async def fetch_blocks(
        self,
        peer: PeerInfo,
        file_id: FileId,
        wanted: Mapping[int, int],
        deliver: Deliver,
        heard: Callable[[], object] = lambda: None,
    ) -> None:
        """Ask a peer for blocks, and deliver each as soon as it is whole.

        `heard` is called whenever a part of a block comes.

        `wanted` gives the length of each block by index, at most MAX_BLOCKS_ASKED of them; they
        come in that order, unverified. If the peer says that this was all before it was, what
        it sent of the block that is missing is delivered as that block.

        Raises:
            UnreachableError, HandshakeError, RefusedError: there is no link to be had.
            LinkClosedError: the link ended before the answer was whole.
            RejectedError: the peer said no to the first block that was not delivered.
        """
        cutter = _Cutter(wanted.values(), deliver)

        def take(pieces: Sequence[memoryview]) -> None:
            heard()
            for piece in pieces:
                cutter.take(piece)

        asked = Asked(GetBlocks(file_id, tuple(wanted)), sum(wanted.values()), take)
        link = await self._link_to(peer, asked)
        await link.ask.finish(asked)
        cutter.finish()

    async def _link_to(self, peer: PeerInfo, asked: Asked) -> Link:
        """Return the open link to a peer, or open one; those who ask at once share the dial.

        The answer may be on its way then already.
        """
        if self._is_banned(peer.id):
            raise UnreachableError(f"{peer.name!r} is banned for a while")
        known = self._links.get(peer.id)
        if known is None or known.link.ended is not None:
            await self._wait_dialled(peer, asked)
            known = self._links.get(peer.id)
        if known is None or known.link.ended is not None:
            raise self._unreached.why(peer.id) or UnreachableError(f"{peer.name!r} hung up at once")
        known.used_at = trio.current_time()
        return known.link

    async def _wait_dialled(self, peer: PeerInfo, asked: Asked) -> None:
        """Dial a peer unless that has just failed, or wait for the dial under way."""
        if peer.id not in self._dialling:
            failure = self._unreached.why(peer.id)
            if failure is not None:
                raise failure
            self._make_room()
        try:
            flight = self._dial(peer, self._addresses_of(peer))
            dial = self._dials.get(peer.id)  # none if it is over, and only its end is awaited
            with contextlib.nullcontext() if dial is None else dial.waiting(asked):
                await flight.wait()
        except ShutdownError as error:
            raise UnreachableError(str(error)) from None

    def _dial(self, peer: PeerInfo, addresses: Sequence[Address]) -> Flight:
        """Dial a peer, beside the link to it if there is one, unless that is being done."""
        is_new = peer.id not in self._dialling
        flight = self._dialling.start(peer.id, self._open, peer)
        if is_new:
            self._dials[peer.id] = _Dial(tuple(addresses))
        return flight

    def _addresses_of(self, peer: PeerInfo) -> tuple[Address, ...]:
        return tuple(dict.fromkeys((*self._known_addresses(peer.id), *peer.addresses)))

    def _make_room(self) -> None:
        """Close the link that was unused longest if there are too many."""
        open_now = [known for known in self._links.values() if known.link.ended is None]
        if len(open_now) + len(self._dials) < MAX_LINKS:
            return
        idle = [known for known in open_now if not known.link.is_busy]
        if not idle:
            raise UnreachableError("too many transfer links are in use")
        min(idle, key=lambda known: known.used_at).link.close(_NOT_NEEDED)

    async def _open(self, peer: PeerInfo) -> None:
        dial = self._dials[peer.id]
        try:
            link = await self._dialled(peer, dial)
        except LinkError as error:
            self._unreached.failed(peer.id, error)
            return
        finally:
            del self._dials[peer.id]
        await self.adopt(link, peer)

    async def adopt(self, link: Link, peer: PeerInfo) -> None:
        """Keep a link that was dialled to a peer, or give it up if it is not needed."""
        if self._tasks.are_running and self._is_wanted(peer.id):
            self._links[peer.id] = known = _Open(link, trio.current_time())
            self.on_opened(ServentId(peer.id), link.remote.host)
            self._tasks.start(self._keep, peer, known)
        else:
            await link.refuse(_NOT_NEEDED)

    def _is_wanted(self, peer: ServentId) -> bool:
        """Return whether a new link may take its place, and end one there that is silent."""
        known = self._links.get(peer)
        if known is not None and known.link.is_silent:
            known.link.lose("silent: another link has taken its place")
        return known is None or known.link.ended is not None

    async def _dialled(self, peer: PeerInfo, dial: _Dial) -> Link:
        """Dial a peer, anew whenever another address of it becomes known."""
        while True:
            with trio.CancelScope() as dial.scope:
                first = First(self._public_keys.get(peer.id), lambda: tuple(dial.asking))
                return await self._connect(peer, dial.addresses, first)

    async def _keep(self, peer: PeerInfo, known: _Open) -> None:
        """Run the link to a peer until it ends."""
        link = known.link
        try:
            link.on_silent = lambda _link: self._doubt(peer, self._addresses_of(peer))
            # A link that the peer has dialled, as we had asked it to, serves its requests too.
            await (link.wait_over() if link.is_run else link.run(_ignore))
        finally:
            if self._links.get(peer.id) is known:
                del self._links[peer.id]
            if trio.current_time() - link.opened_at < REDIAL_AFTER_S:
                self._unreached.failed(peer.id, UnreachableError(f"{peer.name!r} hung up at once"))

    def learnt(self, peer: ServentId, public_key: bytes) -> None:
        """Note the key in a hit of a peer: by it the peer is asked as it is dialled."""
        if peer not in self._public_keys and servent_id(public_key) == peer:
            self._public_keys[peer] = public_key

    # Peers that fall silent, or move

    def located(self, peer: PeerInfo) -> None:
        """Note where a peer says that it is: it is dialled there if its link is silent."""
        self._unreached.forget(peer.id)
        known = self._links.get(peer.id)
        if peer.id in self._dials:
            self._dials[peer.id].also_at(peer.addresses)
        elif known is not None and known.link.is_silent:
            self._doubt(peer, peer.addresses)

    def _doubt(self, peer: PeerInfo, addresses: Sequence[Address]) -> None:
        """Dial a peer that is silent beside its link; again if that fails and it stays silent."""
        if self._tasks.are_running:
            self._dial(peer, addresses)

    @property
    def links(self) -> Sequence[Link]:
        """The links that are open now."""
        return [known.link for known in self._links.values()]

    def start_afresh(self) -> None:
        """Forget all failures: the network of this machine has changed."""
        self._unreached.forget_all()

    def _close_idle(self, since: float) -> None:
        for known in list(self._links.values()):
            if known.used_at < since and not known.link.is_busy:
                known.link.close(_NOT_NEEDED)

    def drop(self, peer: ServentId, bye: Bye) -> None:
        """Close the link to a peer that was banned, if there is one."""
        known = self._links.get(peer)
        if known is not None:
            known.link.close(bye)


_NOT_NEEDED: Final = Bye(ByeCode.IDLE, "not needed any more")


def _ignore(_link: Link, _message: Message, _request_id: int) -> None:
    """Drop what a peer sends unasked on a link that we dialled: it may only answer."""
