"""Keep a door open in the router: ask it to pass our port on, renew that, end it when we leave.

Theory. Behind a home router nobody outside can dial us. Most routers open a port for a host that
asks from inside. A mapping is a lease: it is renewed at half its time, asked for anew when this
machine is connected otherwise, and given back at the end. A servent that was killed leaves a
lease that ends by itself. Nothing is asked where there is no router to ask: without IPv4, or where
this machine has a public address itself.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import trio

from p2pfs.link import router_of_machine
from p2pfs.protocol import Address, Scope, scope_of
from p2pfs.reach.changes import Machine
from p2pfs.reach.routers import PCP_NONCE_BYTES, ask_router
from p2pfs.reach.wishes import Mapping, NotMappedError, Way, Wish

log = logging.getLogger(__name__)

ROUTER_RETRY_S: Final = 600.0
"""After how long a router that refused, or did not answer, is asked again."""

SOONEST_S: Final = 60.0
"""A lease is never renewed sooner: a router that grants seconds is not asked without end."""

UNMAP_S: Final = 2.0
"""How long giving a mapping back may take."""

AskRouter = Callable[[Wish], Awaitable[tuple[Mapping, Way]]]
"""Asks a router in one way after the other, as `ask_router` does."""

NO_ROUTER: Final = "no router in the way, or none to be seen"


class Reachable(Protocol):
    """The receiver of the address at which we are reached from outside."""

    def mapped(self, outside: Address | None, text: str) -> None:
        """Take in from where a router passes our port on, if it does, and a text for people."""


class PortMapping:
    """The mapping of our port in the router of this machine."""

    def __init__(
        self,
        addresses: Callable[[], Sequence[Address]],
        reachable: Reachable,
        machine: Machine,
        *,
        router: Callable[[], str | None] = router_of_machine,
        ask: AskRouter = ask_router,
    ) -> None:
        self._addresses = addresses
        self._reachable = reachable
        self._machine = machine
        self._router = router
        self._ask = ask
        self._nonce = secrets.token_bytes(PCP_NONCE_BYTES)
        self._text = ""

    async def run(self) -> None:
        """Keep the port mapped, until cancelled; then the mapping is given back."""
        while True:
            version = self._machine.version
            wish = self._wish()
            if wish is None:
                self._tell(None, NO_ROUTER)
                await self._machine.wait_changed(version)
                continue
            try:
                mapping, way = await self._ask(wish)
            except NotMappedError as error:
                self._tell(None, f"not mapped: {error}")
                await self._while_unchanged(wish, ROUTER_RETRY_S)
                continue
            self._tell(mapping.outside, f"mapped {mapping.outside} by {mapping.by}")
            await self._keep(wish, mapping, way)

    async def _keep(self, wish: Wish, mapping: Mapping, way: Way) -> None:
        """Hold a mapping for half its lease, or until this machine is connected otherwise."""
        is_kept = False
        try:
            is_kept = await self._while_unchanged(wish, max(mapping.lease_s / 2, SOONEST_S))
        finally:
            if not is_kept:
                await self._give_back(wish, way)

    async def _give_back(self, wish: Wish, way: Way) -> None:
        self._tell(None, NO_ROUTER)
        ending = dataclasses.replace(wish, lease_s=0)
        with trio.move_on_after(UNMAP_S, shield=True):
            try:
                await way(ending)
            except NotMappedError as error:
                log.info("mapping not given back reason=%s", error)

    async def _while_unchanged(self, wish: Wish, most_s: float) -> bool:
        """Wait, and return False as soon as we have another address or router."""
        with trio.move_on_after(most_s):
            version = self._machine.version
            while self._wish() == wish:
                version = await self._machine.wait_changed(version)
            return False
        return True

    def _wish(self) -> Wish | None:
        """Return the wish for the router, or None where nothing stands between us and the world."""
        router = self._router()
        own = [one for one in self._addresses() if ":" not in one.host]
        if router is None or not own or scope_of(own[0].host) is not Scope.SITE:
            return None
        return Wish(router, own[0], self._nonce)

    def _tell(self, outside: Address | None, text: str) -> None:
        if text != self._text:
            self._text = text
            self._reachable.mapped(outside, text)
