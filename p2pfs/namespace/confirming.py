"""Ask servents that were not heard of for long whether they are there, and forget those that left.

A search that everybody has answered shows which servents are gone. While one servent never
answers, no search is complete, and names of servents that left would be shown for ever. So a
servent that is not heard of in any other way is asked for its root directly. It is forgotten when
it could not be reached several times in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

import trio

from p2pfs.errors import RejectedError
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.listing import Telling
from p2pfs.protocol import PeerInfo, ServentId
from p2pfs.tasks import for_each

CONFIRM_S: Final = 600.0
"""How long the names of a servent are believed after its last message."""

CONFIRM_EVERY_S: Final = 60.0
"""How often silent servents are looked for, and the time between two questions to one of them."""

STRIKES: Final = 2
"""Failures in a row after which a servent is taken for gone."""

ASKED_AT_ONCE: Final = 8
ASKED_EACH_TIME: Final = 200
"""Servents that are asked at once, and in each round: all of MAX_SOURCES within the hour."""

AskServent = Callable[[PeerInfo, str], Telling]
"""Ask one servent for a directory, or join the listing that is under way."""


class Confirmer:
    """Finds servents that left without a BYE."""

    def __init__(
        self,
        books: Sequence[Catalogue],
        ask: AskServent,
        neighbours: Callable[[], Collection[ServentId]],
        clock: Callable[[], float],
        on_gone: Callable[[ServentId], object],
    ) -> None:
        """Prepare. `neighbours` are known to be there; without any neighbour nobody is asked.

        A servent is heard of if it is in one of the `books`.
        """
        self._books = books
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
                continue  # we are cut off, and silence says nothing about others
            since = self._clock() - CONFIRM_S
            silent = self._silent(since)
            self._strikes = {s: n for s, n in self._strikes.items() if s in {p.id for p in silent}}
            for peer in silent:
                if peer.id in neighbours:
                    self._heard(peer.id)
            unheard = [peer for peer in silent if peer.id not in neighbours]
            await for_each(unheard, self._confirm, at_once=ASKED_AT_ONCE)

    def _silent(self, since: float) -> Sequence[PeerInfo]:
        """Return servents that are in some book, and in no book were heard of since then."""
        unheard = {
            peer.id: peer
            for book in self._books
            for peer in book.holders.unheard(since, ASKED_EACH_TIME)
        }
        return [
            peer
            for peer in unheard.values()
            if all(book.holders.heard_at(peer.id) < since for book in self._books)
        ]

    def _heard(self, servent: ServentId) -> None:
        for book in self._books:
            book.holders.heard(servent)

    async def _confirm(self, peer: PeerInfo) -> None:
        """Ask one servent; forget it if it is gone."""
        telling = self._ask(peer, "")
        await telling.heard_out()
        if telling.is_whole or telling.names or isinstance(telling.error, RejectedError):
            self._strikes.pop(peer.id, None)
            self._heard(peer.id)
            return
        self._strikes[peer.id] = self._strikes.get(peer.id, 0) + 1
        if self._strikes[peer.id] >= STRIKES:
            del self._strikes[peer.id]
            self._on_gone(peer.id)
