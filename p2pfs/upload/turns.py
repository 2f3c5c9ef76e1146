"""Whose turn it is to be sent blocks.

A turn is some blocks of one request, which are read together and sent. It begins in a slot, and
leaves the slot early when its link takes nothing: from then on it is parked, and the rest of it
goes as slowly as the link likes while others use the slot. What all turns hold in memory is
bounded. A turn that finds no room waits, or a parked one gives way to it. Bytes that are sent
aside, without a slot, count as well: they take no turn from others. A turn, and such bytes, are
over when their link has taken all but a little.

Identities are free, so turns go round among networks, within a network among addresses, and
within an address among peers: the one served longest ago is next. No network has more turns at
once than another that wants some, or wanted some lately: each slot takes a part of the line.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from p2pfs.latest import Latest
from p2pfs.link import Link
from p2pfs.protocol import MIB, groups_of, who_gives_way

MAX_HELD_BYTES: Final = 48 * MIB
"""Memory of all turns together, those aside included. A servent that rests has as much itself, and
is to stay below 200 MiB whatever is asked of it."""

MAX_HELD_BESIDE_BYTES: Final = 32 * MIB
"""Memory of all others when a turn begins that takes more: one block of the largest file has
64 MiB."""

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

    @property
    def network(self) -> str:
        """The network that it counts for."""
        return groups_of(self.host)[0]

    @property
    def names(self) -> tuple[str, str, str]:
        """The network, the address and the peer that it is for."""
        return (*groups_of(self.host), self.link.peer.id)

    def parked_s(self, now: float) -> float:
        """Return for how long it is parked."""
        return 0.0 if self.parked_at is None else now - self.parked_at


class Turns:
    """All turns: running, parked and waiting."""

    def __init__(self, slots: int) -> None:
        """Start with all slots free."""
        self._slots = slots
        self._waiting: dict[Turn, None] = {}
        self._running: dict[Turn, None] = {}
        self._aside: dict[Turn, None] = {}
        self._parked: dict[Turn, None] = {}
        self._ending: dict[Turn, None] = {}
        """Those that gave way, until they have let go of what they hold."""
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
            for turns in (self._waiting, *self._holding):
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
        while self._waiting and (turn := self._next()):
            self._begin(turn)

    def _next(self) -> Turn | None:
        """Return the turn that begins next, if one may.

        Two hundred may wait, and this is asked at the end of each turn: with a look at all others
        for each of them it took 50 ms.
        """
        at_share = self._networks_at_their_share()
        has_slot = len(self._running) < self._slots
        able = [
            one
            for one in self._waiting
            if one.is_aside or (has_slot and one.network not in at_share)
        ]
        least: dict[str, int] = {}  # that an address found no room for
        for turn in sorted(able, key=self._when_served):
            if turn.held_bytes >= least.get(turn.names[1], math.inf):
                continue
            if self._has_room(turn) or self._make_room(turn):
                return turn
            least[turn.names[1]] = turn.held_bytes
        return None

    def _begun(self, turn: Turn) -> dict[Turn, None]:
        """Return those among which a turn is from its beginning until it is parked."""
        return self._aside if turn.is_aside else self._running

    def _begin(self, turn: Turn) -> None:
        del self._waiting[turn]
        self._begun(turn)[turn] = None
        number = next(self._number)
        for name in turn.names:
            self._served[name] = number
        turn.began.set()

    def _when_served(self, turn: Turn) -> tuple[int, ...]:
        return tuple(self._served.get(name, 0) for name in turn.names)

    def _networks_at_their_share(self) -> set[str]:
        """Return which networks may have no turn more, since others want some too."""
        counts = Counter(one.network for one in self._running)
        since = trio.current_time() - LATELY_S
        wanting = {network for network, at in self._took_at.items() if at > since}
        wanting |= {one.network for one in (*self._waiting, *self._running) if not one.is_aside}
        fewest = [*sorted(counts[one] for one in wanting)[:2], self._slots, self._slots]

        def least_besides(network: str) -> int:
            return fewest[counts[network] == fewest[0]]

        return {one for one in wanting if counts[one] >= max(1, least_besides(one))}

    @property
    def _holding(self) -> Sequence[dict[Turn, None]]:
        return (self._running, self._aside, self._parked, self._ending)

    def _has_room(self, turn: Turn, besides: Iterable[Turn] = ()) -> bool:
        """Return whether a turn has room, or would have without some others."""
        held = sum(one.held_bytes for turns in self._holding for one in turns)
        held -= sum(one.held_bytes for one in besides)
        is_large = turn.held_bytes > MAX_HELD_BESIDE_BYTES
        most = MAX_HELD_BESIDE_BYTES if is_large else MAX_HELD_BYTES - turn.held_bytes
        return held <= most

    def _make_room(self, turn: Turn) -> bool:
        """Let those parked links go that give way to a turn; return whether it has room now.

        Nothing is said to them, which would be behind all that they do not take.
        """
        while not self._has_room(turn, self._ending):
            victim = self._who_gives_way(turn)
            if victim is None:
                return False
            del self._parked[victim]
            self._ending[victim] = None
            victim.link.lose("too slow, and others wait")
        return self._has_room(turn)

    def _who_gives_way(self, turn: Turn) -> Turn | None:
        """Return the longest parked of the largest group, or of all, or None."""
        parked, now = tuple(self._parked), trio.current_time()
        victim = who_gives_way(
            parked, turn.host, host_of=lambda one: one.host, weight=lambda one: one.parked_s(now)
        )
        if victim is None and parked and parked[0].parked_s(now) >= PARKED_S:
            victim = parked[0]
        return victim
