"""Ask servents that were not heard of for long whether they are there, and forget who is not.

A search that everybody has answered tells who is gone. Where somebody never answers none ever
does, and what was told would be shown for ever; so whoever is not heard of in any other way is
asked for its root itself, and is forgotten when it cannot be reached time and again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import trio

from p2pfs.errors import RejectedError
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.listing import Telling
from p2pfs.protocol import PeerInfo, ServentId

CONFIRM_S: Final = 600.0
"""How long what a servent has told is held for true without another word of it."""

CONFIRM_EVERY_S: Final = 60.0
"""How often it is looked for such servents, and how far apart one is asked again."""

STRIKES: Final = 2
"""How often in a row one is not reached that is taken for gone."""

ASKED_AT_ONCE: Final = 8
ASKED_EACH_TIME: Final = 200
"""Servents that are asked: all of MAX_SOURCES within the hour."""

Ask = Callable[[PeerInfo, str], Telling]
"""Ask one servent for a directory, or join who has."""


class Confirmer:
    """Finds out who is gone without a word."""

    def __init__(
        self,
        catalogue: Catalogue,
        ask: Ask,
        neighbours: Callable[[], Collection[ServentId]],
        clock: Callable[[], float],
        on_gone: Callable[[ServentId], object],
    ) -> None:
        """Prepare; `neighbours` are known to be there. None of them: then nobody is asked."""
        self._catalogue = catalogue
        self._ask = ask
        self._neighbours = neighbours
        self._clock = clock
        self._on_gone = on_gone
        self._strikes: dict[ServentId, int] = {}

    async def run(self) -> None:
        """Ask now and then, until cancelled."""
        while True:
            await trio.sleep(CONFIRM_EVERY_S)
            neighbours = self._neighbours()
            if not neighbours:
                continue  # we hear of nobody, and that says nothing of them
            since = self._clock() - CONFIRM_S
            silent = self._catalogue.unheard(since, ASKED_EACH_TIME)
            self._strikes = {s: n for s, n in self._strikes.items() if s in {p.id for p in silent}}
            limit = trio.CapacityLimiter(ASKED_AT_ONCE)
            async with trio.open_nursery() as nursery:
                for peer in silent:
                    if peer.id in neighbours:
                        self._catalogue.heard(peer.id)
                    else:
                        nursery.start_soon(self._confirm, peer, limit)

    async def _confirm(self, peer: PeerInfo, limit: trio.CapacityLimiter) -> None:
        """Ask one servent; forget it if it is gone."""
        async with limit:
            telling = self._ask(peer, "")
            await telling.heard_out()
        if telling.is_whole or telling.names or isinstance(telling.error, RejectedError):
            self._strikes.pop(peer.id, None)
            self._catalogue.heard(peer.id)
            return
        self._strikes[peer.id] = self._strikes.get(peer.id, 0) + 1
        if self._strikes[peer.id] >= STRIKES:
            del self._strikes[peer.id]
            self._on_gone(peer.id)
