"""Ask all servents that may have a directory: everybody by a flood, or some one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from p2pfs.errors import NotAskedError
from p2pfs.namespace.ages import FIRST_LISTING_S
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.listing import Listings, Telling
from p2pfs.namespace.partials import Partial
from p2pfs.namespace.refused import Refused
from p2pfs.overlay import Hits, Outcome, Searches
from p2pfs.protocol import PeerInfo, QueryHit, QueryKind, ServentId
from p2pfs.protocol.flood import Urgency
from p2pfs.tasks import FewAtOnce, for_each

QUIET_S: Final = 0.5
"""A search for a directory goes on while hits come no further apart than this."""

LONGEST_S: Final = 120.0
"""The longest that a listing may take while answers come: identities are free, and hundreds of
servents that tell without end must not hold it up. It fails then, and the next listing shows the
names that have come."""

MAX_DIRECT: Final = 16
"""Holders asked one by one instead of by a flood, and how many of any number at once."""

Tellings = dict[PeerInfo, Telling | None]
"""Servents that have a directory, each with its listing; None if its turn did not come."""


@dataclass(frozen=True, slots=True)
class SurveyResult:
    """The outcome of asking for a directory."""

    asked: Tellings
    is_cut: bool = False
    is_unanswered: bool = False
    silent: tuple[PeerInfo, ...] = ()
    """Servents that were known to have it, and did not answer a flood that not all answered."""
    is_refused: bool = False
    """Whether a flood did not go everywhere, because a budget is spent."""

    def partial(self) -> Partial:
        """Return why the listing is not whole, if it is not."""
        heard_out = {h for h, one in self.asked.items() if one and (one.is_whole or one.is_cut)}
        unheard = (h for h in (*self.asked, *self.silent) if h not in heard_out)
        is_cut = self.is_cut or any(one and one.is_cut for one in self.asked.values())
        return Partial(tuple(unheard), is_cut, self.is_unanswered, is_refused=self.is_refused)


class Survey:
    """Asks for directories. Belongs to the trio thread."""

    def __init__(
        self,
        catalogue: Catalogue,
        searches: Searches,
        listings: Listings,
        refused: Refused,
        ttl: int,
        clock: Callable[[], float],
    ) -> None:
        self._catalogue = catalogue
        self._searches = searches
        self._listings = listings
        self._refused = refused
        self._ttl = ttl
        self._clock = clock
        self.horizon = 0
        """Servents that the last listing by a flood has reached."""

    async def by_flood(self, path: str, urgency: Urgency) -> SurveyResult:
        """Ask everybody for a directory; NotAskedError if that may not be now.

        Hits are learned as they come, and a servent that has more than fits one is asked for it at
        once.
        """
        learned: set[ServentId] = set()
        asked: Tellings = {}
        began_at = self._clock()
        known = self._catalogue.holders.of(path) if path else ()
        outcome: Outcome | NotAskedError = Outcome(Hits(), 0, is_complete=False)
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + LONGEST_S
            tasks = FewAtOnce(nursery, MAX_DIRECT)

            def learn(hits: Sequence[QueryHit]) -> bool:
                for hit in hits:
                    if hit.provider.id not in learned:
                        learned.add(hit.provider.id)
                        if self._learn_hit(path, hit, began_at):
                            asked[hit.provider] = None
                            tasks.start(self._hear_one, path, asked, began_at, hit.provider)
                return False

            try:
                outcome = await self._searches.run(
                    QueryKind.DIRECTORY,
                    path,
                    rings=(self._ttl,),
                    timeout_s=FIRST_LISTING_S,
                    quiet_s=QUIET_S,
                    is_enough=learn,
                    urgency=urgency,
                    is_patient=True,
                )
                learn(outcome.hits)
                if not path:  # elsewhere filters keep it from most
                    self._note_horizon(outcome)
                if outcome.is_complete:
                    found = [hit.provider.id for hit in outcome.hits]
                    self._catalogue.keep_only(path, found, began_at)
            except NotAskedError as error:
                outcome = error
        if isinstance(outcome, NotAskedError):
            raise outcome
        silent = () if outcome.is_complete else (p for p in known if p.id not in learned)
        is_refused = self._refused.is_believed(outcome)
        told = (asked, outcome.is_cut, not outcome.is_complete, tuple(silent), is_refused)
        return SurveyResult(*told)

    def _note_horizon(self, outcome: Outcome) -> None:
        """Note how many were reached: a network that cannot bear it is not asked more often."""
        least = 0 if outcome.is_complete else self.horizon
        self.horizon = max(least, outcome.servents)

    def _learn_hit(self, path: str, hit: QueryHit, began_at: float) -> bool:
        """Learn the entries of a hit; return whether its provider has more."""
        if hit.total > len(hit.entries):
            most = self._listings.learned_of_hit(hit.provider, path)
            few = hit.entries if most >= len(hit.entries) else hit.entries[: int(most)]
            self._catalogue.learn(hit.provider, few)
            return True
        self._catalogue.learn_listing(hit.provider, path, hit.entries, began_at)
        return False

    async def hear(
        self, path: str, holders: Sequence[PeerInfo], *, within_s: float = LONGEST_S
    ) -> SurveyResult:
        """Ask these servents for a directory, some at a time, and wait for as long as pages come.

        Pages that come later, or after `within_s`, are learned in the background.
        """
        asked: Tellings = dict.fromkeys(holders)
        since = self._clock()
        with trio.move_on_after(within_s):
            hear = partial(self._hear_one, path, asked, since)
            await for_each(holders, hear, at_once=MAX_DIRECT)
        return SurveyResult(asked)

    async def _hear_one(self, path: str, asked: Tellings, since: float, holder: PeerInfo) -> None:
        """Wait for a listing that has begun since then: one under way may lack changes."""
        asked[holder] = telling = self._listings.start(holder, path)
        if await telling.heard_out() and telling.began_at < since:
            asked[holder] = telling = self._listings.start(holder, path)
            await telling.heard_out()
