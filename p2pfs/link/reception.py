"""Accepting links: greet those who dial us, as many at once as there may be."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from p2pfs.errors import LinkError, UsageError
from p2pfs.link.greeting import Judge, LocalServent, answer_link
from p2pfs.link.live import Link
from p2pfs.link.sockets import Channel, Listener, Network
from p2pfs.tasks import guarded

log = logging.getLogger(__name__)

MAX_GREETINGS: Final = 64
"""Greetings under way at once: each holds a descriptor and costs four slow curve operations."""

Take = Callable[[Link], Awaitable[None]]
"""Owns a greeted link from then on: must run it, for as long as it lasts if it likes."""


async def listen(network: Network, host: str | None, ports: Sequence[int]) -> Listener:
    """Listen at the first of these ports that is free.

    Raises:
        UsageError: the last of them is not free, or the host is none of this machine.
    """
    *first, last = ports
    for port in first:
        with contextlib.suppress(UsageError):
            return await network.listen(host, port)
    return await network.listen(host, last)


async def accept_links(listener: Listener, local: LocalServent, judge: Judge, take: Take) -> None:
    """Greet whoever dials and pass the links to `take`, until cancelled; closes the listener."""
    await _Reception(listener, local, judge, take).run()


class _Reception:
    """The greetings under way, oldest first."""

    def __init__(self, listener: Listener, local: LocalServent, judge: Judge, take: Take) -> None:
        self._listener = listener
        self._local = local
        self._judge = judge
        self._take = take
        self._greetings: dict[trio.CancelScope, str] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    channel = await self._listener.accept()
                    self._make_room()
                    scope = trio.CancelScope()
                    self._greetings[scope] = channel.remote.host
                    nursery.start_soon(guarded, self._receive, channel, scope)
            finally:
                with trio.CancelScope(shield=True):  # closing a listener does not wait
                    await self._listener.aclose()

    def _make_room(self) -> None:
        """Give up the oldest greeting of the host that has most of them.

        Honest greetings take a few round trips, so who opens connections and says nothing
        pushes out its own. Refusing the newest instead would let it shut the door.
        """
        if len(self._greetings) >= MAX_GREETINGS:
            (busiest, _), *_rest = Counter(self._greetings.values()).most_common(1)
            oldest = next(scope for scope, host in self._greetings.items() if host == busiest)
            del self._greetings[oldest]
            oldest.cancel()

    async def _receive(self, channel: Channel, scope: trio.CancelScope) -> None:
        link = None
        try:
            with scope:
                link = await answer_link(channel, self._local, self._judge)
        except LinkError as error:
            log.info("link refused remote=%s reason=%s", channel.remote, error)
        finally:
            self._greetings.pop(scope, None)
        if link is not None:
            await self._take(link)
        elif scope.cancelled_caught:
            log.info("link refused remote=%s reason=too many greetings", channel.remote)
