"""The door of a servent: which dialling peers get in, and which part takes the link of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from p2pfs.link import Expected, Link, Listener, LocalServent, accept_links
from p2pfs.protocol import Address, Bye, ByeCode, Hello, LinkKind, ServentId
from p2pfs.upload.uploads import Uploads


class Neighbours(Protocol):
    """The owner of the links to neighbours."""

    @property
    def is_away(self) -> bool:
        """Whether the user has left."""
        ...

    def judge(self, peer: ServentId, remote: Address) -> Bye | None:
        """Return the BYE for a peer that dialled a neighbour link, or None if it is welcome."""
        ...

    def adopt(self, link: Link) -> Bye | None:
        """Take a greeted link as a neighbour and own it from now on."""
        ...


class Door:
    """Lets peers in, and keeps the transfer links that they dialled."""

    def __init__(
        self,
        local: LocalServent,
        neighbours: Neighbours,
        uploads: Uploads,
        is_banned: Callable[[ServentId], bool],
    ) -> None:
        self._local = local
        self._neighbours = neighbours
        self._uploads = uploads
        self._is_banned = is_banned
        self._visitors: set[Link] = set()
        self._scope = trio.CancelScope()

    @property
    def visitors(self) -> Sequence[Link]:
        """The transfer links of others that are open now."""
        return tuple(self._visitors)

    async def run(self, listener: Listener, expected: Expected) -> None:
        """Let peers in until the door is shut; some connections are `expected` by others."""
        with self._scope:
            await accept_links(listener, self._local, self.judge, self._take, expected)

    def shut(self) -> None:
        """Let no peer in any more, nor those that are being greeted."""
        self._scope.cancel()

    def judge(self, peer: ServentId, hello: Hello, remote: Address) -> Bye | None:
        """Return the BYE for a greeted peer, or None if it may stay."""
        if hello.kind is LinkKind.NEIGHBOUR:
            return self._neighbours.judge(peer, remote)
        if self._is_banned(peer):
            return Bye(ByeCode.BANNED, "banned for a while")
        if self._neighbours.is_away:
            return Bye(ByeCode.LEAVING, "has left the network")
        return self._uploads.judge(peer, remote)

    async def _take(self, link: Link) -> None:
        if link.kind is LinkKind.NEIGHBOUR:
            self._neighbours.adopt(link)
        else:
            await self.serve(link)

    async def serve(self, link: Link) -> None:
        """Serve a transfer link until it ends."""
        self._visitors.add(link)
        try:
            await self._uploads.serve(link)
        finally:
            self._visitors.discard(link)
