"""Whose turn it is to be sent blocks.

A turn is some blocks of one request, which are read together and sent. It begins in a slot, and
leaves the slot early when its link takes nothing: from then on it is parked, and what is left of
it goes as slowly as the link likes while others use the slot. What all turns hold in memory is
bounded. A turn that finds no room waits, or a parked one gives way to it. So is what is sent
aside, without a slot: it takes no turn from others, and its bytes count like those of a turn.

Identities are free, so turns go round among networks, within a network among addresses, and
within an address among peers: the one served longest ago is next. No network has more turns at
once than another that wants some, or wanted some lately: each slot takes a part of the line.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.latest import Latest
from p2pfs.link import Link
from p2pfs.protocol import MIB, Bye, ByeCode, groups_of, who_gives_way

MAX_HELD_BYTES: Final = 96 * MIB
"""Memory of all turns together, and of what is sent aside: one block of the largest file, and room
for blocks of others."""

MAX_LAST_SERVED: Final = 4_096
"""Networks, addresses and peers of which it is known when they were served last."""


PARKED_S: Final = 10.0
"""A turn that has been parked for so long gives way to any that finds no room."""

LATELY_S: Final = 2.0
"""A network that took something so long ago still wants its share: its reader is about to ask
for more. A reader that takes a piece every so often has earned that: it costs 128 KiB/s."""


@dataclass(eq=False, slots=True)
class Turn:
    """Some blocks for one link, and the memory that they take."""

    link: Link
    held_bytes: int
    is_aside: bool = False
    """Whether it needs no slot, for what it sends is small."""
    began: trio.Event = field(default_factory=trio.Event)
    parked_at: float | None = None
    """Since when its link takes nothing, or too little."""

    @property
    def host(self) -> str:
        """The address that it counts for."""
        return self.link.remote.host

    def parked_s(self, now: float) -> float:
        """Return for how long it is parked."""
        return 0.0 if self.parked_at is None else now - self.parked_at

    @property
    def network(self) -> str:
        """The network that it counts for."""
        return groups_of(self.host)[0]


class Turns:
    """All turns: running, parked and waiting."""

    def __init__(self, slots: int) -> None:
        """Start with all slots free."""
        self._slots = slots
        self._waiting: dict[Turn, None] = {}
        self._running: dict[Turn, None] = {}
        self._aside: dict[Turn, None] = {}
        self._parked: dict[Turn, None] = {}
        self._served: Latest[str, int] = Latest(MAX_LAST_SERVED)
        """When each was served, as a number that only grows."""
        self._took_at: Latest[str, float] = Latest(MAX_LAST_SERVED)  # of networks, oldest first
        self._number = itertools.count(1)

    @contextlib.asynccontextmanager
    async def turn(
        self, link: Link, held_bytes: int = 0, *, is_aside: bool = False
    ) -> AsyncIterator[Turn]:
        """Wait for a slot, and hold it for the length of the block or until the turn is parked.

        Aside of the slots it waits for room in memory alone.
        """
        turn = Turn(link, held_bytes, is_aside)
        self._waiting[turn] = None
        try:
            self._begin_those_who_may()
            while not turn.began.is_set():
                with trio.move_on_after(LATELY_S):
                    await turn.began.wait()
                self._begin_those_who_may()
            yield turn
        finally:
            for turns in (self._waiting, self._running, self._aside, self._parked):
                turns.pop(turn, None)
            self._begin_those_who_may()

    def park(self, turn: Turn) -> None:
        """Take the slot from a turn whose link takes nothing; its bytes still count."""
        if turn in self._running or turn in self._aside:
            del self._begun(turn)[turn]
            self._parked[turn] = None
            turn.parked_at = trio.current_time()
            self._begin_those_who_may()

    def took(self, link: Link) -> None:
        """Note that a link takes data."""
        network, now = groups_of(link.remote.host)[0], trio.current_time()
        self._took_at[network] = now
        self._took_at.forget_while(lambda at: at <= now - LATELY_S)

    def _begin_those_who_may(self) -> None:
        left = list(self._waiting)
        while left := [one for one in left if one.is_aside or len(self._running) < self._slots]:
            turn = min(left, key=self._when_served)
            left.remove(turn)
            if self._is_its_share(turn) and (self._has_room(turn) or self._make_room(turn)):
                self._begin(turn)

    def _begun(self, turn: Turn) -> dict[Turn, None]:
        """Return those among which a turn is from its beginning until it is parked."""
        return self._aside if turn.is_aside else self._running

    def _begin(self, turn: Turn) -> None:
        del self._waiting[turn]
        self._begun(turn)[turn] = None
        number = next(self._number)
        for name in _names(turn):
            self._served[name] = number
        turn.began.set()

    def _when_served(self, turn: Turn) -> tuple[int, ...]:
        return tuple(self._served.get(name, 0) for name in _names(turn))

    def _is_its_share(self, turn: Turn) -> bool:
        """Return whether a network may have one turn more, while others want some too."""
        if turn.is_aside:
            return True
        counts = Counter(one.network for one in self._running)
        since = trio.current_time() - LATELY_S
        wanting = {network for network, at in self._took_at.items() if at > since}
        wanting |= {one.network for one in (*self._waiting, *self._running) if not one.is_aside}
        least = min((counts[one] for one in wanting - {turn.network}), default=self._slots)
        return counts[turn.network] < max(1, least)

    def _has_room(self, turn: Turn) -> bool:
        held = sum(one.held_bytes for one in (*self._running, *self._aside, *self._parked))
        return not held or held + turn.held_bytes <= MAX_HELD_BYTES

    def _make_room(self, turn: Turn) -> bool:
        """Hang up on those parked links that give way to a turn, until it has room."""
        while not self._has_room(turn):
            victim = self._who_gives_way(turn)
            if victim is None:
                return False
            del self._parked[victim]
            victim.link.close(Bye(ByeCode.IDLE, "too slow, and others wait"))
        return True

    def _who_gives_way(self, turn: Turn) -> Turn | None:
        """Return the longest parked of the largest group, or of all, or None."""
        parked, now = tuple(self._parked), trio.current_time()
        victim = who_gives_way(
            parked, turn.host, host_of=lambda one: one.host, weight=lambda one: one.parked_s(now)
        )
        if victim is None and parked and parked[0].parked_s(now) >= PARKED_S:
            victim = parked[0]
        return victim


def _names(turn: Turn) -> tuple[str, str, str]:
    """Return the network, the address and the peer that a turn is for."""
    return (*groups_of(turn.host), turn.link.peer.id)
