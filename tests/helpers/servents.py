"""Half servents: an identity that listens on a network in memory and serves links as told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from p2pfs.errors import LinkError
from p2pfs.link import Link
from p2pfs.link.greeting import answer_any
from p2pfs.link.replays import Replays
from p2pfs.protocol.fields import Address, Message, PeerInfo, ServentId
from p2pfs.protocol.identity import Identity, NetworkKey
from p2pfs.protocol.messages import Bye, Hello, LinkKind, Reject, RejectCode
from tests.helpers.memnet import MemoryNetwork

PORT = 4774

Answer = Callable[[Link, Message, int], None]
"""Takes in a message that arrived; posts what it likes."""


class HalfServent:
    """One host of the network, with the front door of a servent and nothing behind it."""

    def __init__(self, net: MemoryNetwork, host: str, name: str = "half") -> None:
        self.net = net
        self.host = net.host(host)
        self.name = name
        self.identity = Identity.generate()
        self.network_key = NetworkKey.open()
        self.address = Address(host, PORT)
        self.said: tuple[Address, ...] = ()
        """The addresses that it says are its own."""
        self.links: list[Link] = []
        """All that were accepted, in order."""
        self.replays: Replays | None = Replays()
        """What it takes of what is said early; None as a servent that hears nothing early."""
        self.knows: tuple[str, ...] = ()
        """What it says that it knows and older servents do not."""
        self.refusal: Bye | None = None
        """What every peer gets, if it is set."""

    @property
    def id(self) -> ServentId:
        return self.identity.id

    @property
    def info(self) -> PeerInfo:
        return PeerInfo(self.id, self.name, (self.address,))

    @property
    def open_links(self) -> list[Link]:
        return [link for link in self.links if link.ended is None]

    def hello(self, kind: LinkKind, observed: Address) -> Hello:
        return Hello(kind, self.name, PORT, observed, self.said, "half", self.knows)

    def _judge(self, _peer: ServentId, _hello: Hello, _remote: Address) -> Bye | None:
        return self.refusal

    async def listen(
        self,
        serve: Callable[[Link], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept links for ever and let `serve` run each of them."""
        listener = await self.host.listen(None, PORT)
        task_status.started()
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._greet, await listener.accept(), serve)

    async def _greet(self, channel, serve: Callable[[Link], Awaitable[None]]) -> None:
        try:
            take_early = None if self.replays is None else self.replays.take
            link = await answer_any(channel, self, self._judge, take_early=take_early)
        except LinkError:
            return
        assert isinstance(link, Link)
        self.links.append(link)
        await serve(link)


def answering(answer: Answer) -> Callable[[Link], Awaitable[None]]:
    """Return a way to serve links that takes in each message with `answer`."""

    async def serve(link: Link) -> None:
        await link.run(answer)

    return serve


def rejecting(code: RejectCode) -> Answer:
    """Return the answer that says no to everything."""
    return lambda link, _message, number: link.post(Reject(code, "no"), number)


def silent(_link: Link, _message: Message, _number: int) -> None:
    """Never answer."""


async def hang_up(link: Link) -> None:
    """Serve a link by closing it at once."""
    link.close()
    await link.run(silent)
