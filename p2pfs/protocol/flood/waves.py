"""The waves of copies: what a servent waits for, and the echo that ends each (PROTOCOL.md).

A wave is one copy of a query on its way, named by its GUID and the TTL of the copies that it
sends. It waits for a DONE of every link that it went to, and for the own share if the query was
new. Then, or at its deadline, it sends its own DONE to where it came from. A hit or a DONE counts
only from a link that the wave went to and that has not sent DONE.

No time is read here: it is passed in.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from p2pfs.protocol import MAX_TTL, Done, Enough, Guid, Query, QueryHit
from p2pfs.protocol.flood.decisions import (
    Decision,
    Deliver,
    Drop,
    DropReason,
    Finished,
    LinkId,
    Send,
)

MAX_WAVE_HITS: Final = 500
"""Hits that one copy of a query may bring back; a search keeps no more (`search.MAX_HITS`)."""

MAX_COUNT: Final = 2**32 - 1
"""The largest count that a DONE can carry; sums of claims stop there."""


@dataclass(slots=True)
class Wave:
    """One copy of a query on its way, until its DONE."""

    guid: Guid
    ttl: int
    """The TTL of the copies that it sends; with the GUID it names the wave."""
    came_from: LinkId | None
    """Where hits and DONE go; None if the search is our own."""
    came_as: int
    """The TTL by which the other side of that link knows it."""
    deadline: float
    needs_answer: bool = False
    """Whether the own share has yet to answer."""
    hits_of: dict[LinkId, int] = field(default_factory=dict)
    """The links that have yet to send DONE, and how many hits each has brought."""
    servents: int = 0
    hits: int = 0
    is_complete: bool = True
    skipped: int = 0
    first_for: Collection[LinkId] = ()
    """The links over which a ring of our own search was their first copy of it."""
    refusals: int = 0
    """Over how many links it did not go, or was not taken, because a budget is spent."""
    is_over: bool = False


class Waves:
    """The waves that wait for answers."""

    def __init__(self, has_room: Callable[[LinkId], bool]) -> None:
        """Begin without waves; `has_room` tells whether a link takes another hit now."""
        self._has_room = has_room
        self._waves: dict[tuple[Guid, int], Wave] = {}
        self._deadlines: list[tuple[float, int, Wave]] = []
        self._numbers = itertools.count()
        self.hits_passed = 0
        """Hits passed on or delivered."""

    def __len__(self) -> int:
        return len(self._waves)

    def begin(self, query: Query, ttl: int, came_from: LinkId | None, now: float) -> Wave:
        """Return the wave of a copy whose own copies have this TTL."""
        wave = Wave(query.guid, ttl, came_from, query.ttl, now + query.deadline_ms / 1000)
        self._waves[query.guid, ttl] = wave
        heapq.heappush(self._deadlines, (wave.deadline, next(self._numbers), wave))
        return wave

    def answered(self, guid: Guid, ttl: int, hits: Sequence[QueryHit]) -> list[Decision]:
        """Take in the answer of the own share to the copy of this TTL."""
        wave = self._waves.get((guid, ttl - 1))
        if wave is None or not wave.needs_answer:
            return []
        wave.needs_answer = False
        passed = [self._pass_hit(wave, hit) for hit in hits]
        return [*passed, *self.end_if_over(wave)]

    def got_hit(self, link: LinkId, hit: QueryHit) -> Decision:
        """Pass a hit back the way its query came, if its link was asked."""
        wave = self._asked_of(link, hit.guid, hit.ttl)
        if wave is None:
            return Drop(link, DropReason.NOT_ASKED)
        wave.hits_of[link] += 1
        # A search of our own keeps room for each link, so that one cannot crowd out others;
        # a relay's own neighbour would drop hits over the cap, wherever they came from.
        count = wave.hits_of[link] if wave.came_from is None else wave.hits + 1
        if count > MAX_WAVE_HITS:
            wave.is_complete = False
            return Drop(link, DropReason.TOO_MANY_HITS)
        return self._pass_hit(wave, hit)

    def got_done(self, link: LinkId, done: Done) -> list[Decision]:
        """Take in that the sub-tree behind a link has answered."""
        wave = self._asked_of(link, done.guid, done.ttl)
        if wave is None:
            return [Drop(link, DropReason.NOT_ASKED)]
        is_refusal = link in wave.first_for and _is_refusal(done)
        wave.refusals = min(MAX_COUNT, wave.refusals + max(done.refusals, is_refusal))
        wave.servents = min(MAX_COUNT, wave.servents + done.servents)
        wave.skipped = min(MAX_COUNT, wave.skipped + done.skipped)
        wave.is_complete &= done.is_complete
        return self._is_done_at(link, wave)

    def crossed(self, link: LinkId, guid: Guid, ttl: int) -> list[Decision] | None:
        """Take a copy for the DONE of those that it crossed on its link; None if there are none.

        The neighbour takes ours for its own DONE likewise. Of two copies whose TTLs are further
        apart one may have been sent because of the other.
        """
        near = (self._asked_of(link, guid, one) for one in (ttl - 1, ttl, ttl + 1))
        crossed = [wave for wave in near if wave is not None]
        if not crossed:
            return None
        return [decision for wave in crossed for decision in self._is_done_at(link, wave)]

    def _is_done_at(self, link: LinkId, wave: Wave) -> list[Decision]:
        del wave.hits_of[link]
        return self.end_if_over(wave)

    def give_up(self, guid: Guid, asker: LinkId | None) -> list[Decision]:
        """Forget the waves of one asker under a GUID; tell those that owe DONE for these alone.

        The asker is a neighbour, or None for a search of our own.
        """
        over = [wave for wave in self._of(guid) if wave.came_from == asker]
        for wave in over:
            self._forget(wave)
        passed_on = (wave for wave in over if wave.ttl > 1)  # the last answer at once
        owing = dict.fromkeys(link for wave in passed_on for link in wave.hits_of)
        awaited = {link for wave in self._of(guid) for link in wave.hits_of}
        return [Send(link, Enough(guid)) for link in owing if link not in awaited]

    def link_lost(self, link: LinkId) -> list[Decision]:
        """End, incomplete, waves that waited for a link alone; forget those that came from it."""
        decisions: list[Decision] = []
        for wave in list(self._waves.values()):
            if wave.came_from == link:
                self._forget(wave)
            elif wave.hits_of.pop(link, None) is not None:
                wave.is_complete = False
                decisions += self.end_if_over(wave)
        return decisions

    def end_if_over(self, wave: Wave) -> list[Decision]:
        """End a wave that waits for nothing any more."""
        return [] if wave.hits_of or wave.needs_answer else self._end(wave)

    def next_deadline(self) -> float | None:
        """Return when `expire` has something to do; None while nothing waits."""
        while self._deadlines and self._deadlines[0][2].is_over:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, now: float) -> list[Decision]:
        """End, incomplete, the waves that have reached their deadline."""
        decisions: list[Decision] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            wave = heapq.heappop(self._deadlines)[2]
            wave.is_complete = False
            decisions += self._end(wave)
        return decisions

    def _of(self, guid: Guid) -> Iterator[Wave]:
        """Yield the waves of a GUID."""
        waves = (self._waves.get((guid, ttl)) for ttl in range(MAX_TTL + 1))
        return (wave for wave in waves if wave is not None)

    def _asked_of(self, link: LinkId, guid: Guid, ttl: int) -> Wave | None:
        """Return the wave for which a link owes DONE, if there is one."""
        wave = self._waves.get((guid, ttl))
        return wave if wave is not None and link in wave.hits_of else None

    def _pass_hit(self, wave: Wave, hit: QueryHit) -> Decision:
        if wave.came_from is not None and not self._has_room(wave.came_from):
            wave.is_complete = False
            return Drop(wave.came_from, DropReason.NO_ROOM)
        wave.hits += 1
        self.hits_passed += 1
        if wave.came_from is None:
            return Deliver(hit)
        return Send(wave.came_from, replace(hit, ttl=wave.came_as))

    def _end(self, wave: Wave) -> list[Decision]:
        self._forget(wave)
        counts = (wave.servents, wave.hits, wave.is_complete, wave.skipped, wave.refusals)
        if wave.came_from is None:
            return [Finished(wave.guid, wave.came_as, *counts)]
        return [Send(wave.came_from, Done(wave.guid, wave.came_as, *counts))]

    def _forget(self, wave: Wave) -> None:
        wave.is_over = True
        # None: a query pushed out of the seen table may have come anew and taken the name.
        self._waves.pop((wave.guid, wave.ttl), None)


def _is_refusal(done: Done) -> bool:
    """Return whether this DONE of a query that was new to all says that it was not taken.

    A servent that takes it counts at least itself, and one that had it already says complete.
    """
    return done.servents == 0 and not done.is_complete
