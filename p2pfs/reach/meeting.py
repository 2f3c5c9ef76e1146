"""Dial a servent that dials us, from the port at which we listen, until there is a link.

Each end may have two addresses of the other, is refused by a router that has let nothing out yet,
and may find that it was dialled before it has dialled. Each connection that comes of it is greeted:
one at a time by the end that begins the handshake, and all at once by the other end.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from p2pfs.errors import LinkError, UnreachableError
from p2pfs.link import Channel, Link, Listener
from p2pfs.protocol import Address
from p2pfs.reach.shared import give_back

log = logging.getLogger(__name__)

MEETING_S: Final = 2.0
"""How long both dial: a lost SYN each, and again."""

GREETING_LEFT_S: Final = 2.0
"""The least time that is left for the greeting, once they are connected."""

MEETING_MOST_S: Final = 10.0
"""How long a meeting may last, however many connections come: it has one of few places."""

KNOCK_AGAIN_S: Final = 0.05
"""The pause after a router has refused: the other one has let nothing out yet. In the trials five
tries were the most."""

MAX_TRIES: Final = 10
"""Dials to one address: a host there that is no servent is left alone after them."""


class Meeting:
    """Dials to a servent that dials us, until there is a link."""

    def __init__(
        self,
        listener: Listener,
        places: Sequence[Address],
        greeted: Callable[[Channel], Awaitable[Link]],
        most: int,
    ) -> None:
        """Greet so many connections at once as `most`: the end that begins them greets one."""
        self.places = places
        self.is_over = trio.Event()
        self.tries: Counter[Address] = Counter()
        """How often each place was dialled."""
        self._listener = listener
        self._greeted = greeted
        self._turns = trio.Semaphore(most)
        self._nursery: trio.Nursery | None = None
        self._link: Link | None = None
        self._ends_at = 0.0

    async def run(self) -> Link:
        """Return the first link, which is not run yet.

        Raises:
            UnreachableError: the other did not come.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._ends_at = trio.current_time() + MEETING_MOST_S
                nursery.cancel_scope.deadline = trio.current_time() + MEETING_S
                self._nursery = nursery
                nursery.start_soon(trio.sleep_forever)
                for place in self.places:
                    nursery.start_soon(self._dial, place)
        except BaseException:
            if self._link is not None:
                await give_back(self._link, "not wanted any more")
            raise
        finally:
            self._nursery = None
        if self._link is None:
            raise UnreachableError(
                f"both dialled at once, and {self.places[0]} was not met within {MEETING_S:g} s"
            )
        return self._link

    async def _dial(self, place: Address) -> None:
        while self.tries[place] < MAX_TRIES:
            self.tries[place] += 1
            try:
                channel = await self._listener.dial(place)
            except LinkError:
                await trio.sleep(KNOCK_AGAIN_S)
            else:
                await self._greet(channel)
                return

    def came(self, channel: Channel) -> bool:
        """Take a connection that the other has made; return False if it is too late."""
        if self._nursery is None or self._link is not None:
            return False
        self._nursery.start_soon(self._greet, channel)
        return True

    async def _greet(self, channel: Channel) -> None:
        assert self._nursery is not None
        scope = self._nursery.cancel_scope
        least = max(scope.deadline, trio.current_time() + GREETING_LEFT_S)
        scope.deadline = min(least, self._ends_at)
        try:
            await self._turns.acquire()
        except BaseException:
            await trio.aclose_forcefully(channel.stream)
            raise
        try:
            link = await self._greeted(channel)
        except LinkError as error:
            log.info("not met remote=%s reason=%s", channel.remote, error)
        else:
            await self._keep(link, scope)
        finally:
            self._turns.release()

    async def _keep(self, link: Link, scope: trio.CancelScope) -> None:
        if self._link is None:
            self._link = link
            scope.cancel()
        else:  # both at one moment
            await give_back(link, "met already")
