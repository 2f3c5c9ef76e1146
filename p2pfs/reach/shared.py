"""Links on which both ends ask, because a second link between the two would be hard to get."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from p2pfs.errors import ShutdownError
from p2pfs.link import Judge, Link
from p2pfs.protocol import Address, Bye, ByeCode, Hello, LinkKind, ServentId
from p2pfs.tasks import Tasks


class SharedLinks:
    """The links of meetings and circuits, each served until it ends."""

    def __init__(self, serve: Callable[[Link], Awaitable[None]], judge: Judge) -> None:
        """`judge` says who may ask us, and `serve` runs a link and answers."""
        self._serve = serve
        self._judge = judge
        self._links: dict[ServentId, Link] = {}
        self._tasks = Tasks()
        self.run = self._tasks.run

    def to(self, peer: ServentId) -> Link | None:
        """Return the link to a servent, if there is one that leads to it still."""
        link = self._links.get(peer)
        return None if link is None or link.ended is not None or link.is_silent else link

    async def keep(self, link: Link) -> None:
        """Serve a link until it ends."""
        peer = ServentId(link.peer.id)
        self._links[peer] = link
        try:
            await self._serve(link)
        finally:
            if self._links.get(peer) is link:
                del self._links[peer]
            if not link.is_run:
                await give_back(link, "it could not be served")

    async def put(self, link: Link) -> None:
        """Have a link served, and return when it is run.

        Raises:
            ShutdownError: we end, and the link is closed.
        """
        try:
            self._tasks.start(self.keep, link)
        except ShutdownError as error:
            await give_back(link, str(error))
            raise
        while not link.is_run:
            await trio.lowlevel.checkpoint()

    def judge_of(self, peer: ServentId) -> Judge:
        """Return a judge that lets in one servent, if it is welcome."""

        def judge(found: ServentId, hello: Hello, remote: Address) -> Bye | None:
            return only(peer)(found, hello, remote) or self._judge(found, hello, remote)

        return judge


def only(peer: ServentId) -> Judge:
    """Return a judge that lets in one servent, to ask for files or be asked."""

    def judge(found: ServentId, hello: Hello, _remote: Address) -> Bye | None:
        if (found, hello.kind) == (peer, LinkKind.TRANSFER):
            return None
        return Bye(ByeCode.DUPLICATE, "somebody else was to be met")

    return judge


async def give_back(link: Link, reason: str) -> None:
    """End a link that nobody needs, whether or not it is run already."""
    link.lose(reason)
    if not link.is_run:
        with trio.CancelScope(shield=True):  # a link that was lost takes no time to run
            await link.run(lambda _link, _message, _request_id: None)
