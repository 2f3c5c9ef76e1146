"""List directories: by a flood, or by asking the few holders; all names, or only the new ones.

Calls that ask for the same directory at the same time share one question and its answer. All of
it belongs to the trio thread, except functions that say "any thread".
"""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import trio

from p2pfs.errors import LinkError, NoSourceError, NotAskedError, StalledError, TransferError
from p2pfs.latest import Latest
from p2pfs.namespace.ages import (
    FIRST_LISTING_S,
    MAX_TIMES,
    TRUST_S,
    Renewals,
    Times,
    look_s,
)
from p2pfs.namespace.belief import Belief
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.listing import Telling
from p2pfs.namespace.newcomers import Newcomers
from p2pfs.namespace.survey import MAX_DIRECT, Survey, SurveyResult
from p2pfs.namespace.tellers import AddressGroups
from p2pfs.protocol import PeerInfo, parent_of
from p2pfs.protocol.flood import Urgency
from p2pfs.tasks import Flight, SingleFlight, Tasks

REFRESH_SHARE: Final = 0.1
"""The part of the time for which a directory may be listed again in the background: a directory of
100,000 names takes seconds."""

SPREAD_EACH_S: Final = 0.005
LONGEST_SPREAD_S: Final = 1.5
"""The time over which news are asked about in the background, for each servent within the horizon
and at most: all who show the directory would ask the servent that told them at one moment. A look
at the directory does not wait for that."""

FORGIVEN_S: Final = 600.0
"""Within this time the servents of an address that break off listings make only one look fail.
After that their names are missing from the listing, and `partial` says so."""


class Lister:
    """Lists directories, each by one question at a time. Paths are as published."""

    def __init__(
        self,
        catalogue: Catalogue,
        newcomers: Newcomers,
        belief: Belief,
        survey: Survey,
        tasks: Tasks,
        *,
        neighbours: Callable[[], Sequence[PeerInfo]],
        clock: Callable[[], float],
    ) -> None:
        self._catalogue = catalogue
        self._newcomers = newcomers
        self._belief = belief
        self._survey = survey
        self._tasks = tasks
        self._neighbours = neighbours
        self._clock = clock
        self._flights: SingleFlight[tuple[str, str]] = SingleFlight(tasks)
        self._renewals: Renewals[str] = Renewals(tasks, clock, self._start_again)
        self._broke_off_at: Times[AddressGroups] = Times()
        """When a servent at each address last broke off a listing."""
        self._late: Latest[str, Flight] = Latest(MAX_TIMES)
        """The question about each directory that a look has waited for in vain."""
        self._listed_at: Times[str] = Times()
        """When everybody was last asked for a directory, new neighbours or not."""
        self._took_s: Times[str] = Times()
        """How long that took."""
        self._took_all_s: Times[str] = Times()
        """How long it took when all have answered."""

    # Listings that the caller waits for.

    async def for_look(self, path: str) -> None:
        """List a directory for somebody who looks at it, or only its new names; as `all`.

        Where all of it was listed a moment ago he waits no longer than others' answers take, and
        for new names no longer than those have taken before who changed something: `look_s`. The
        question goes on behind, and no other look waits for it: `is_late`. Nor does it fail then
        because a newcomer broke off: the earlier names are shown, and `Partials` has who broke off.
        """
        is_new = self._belief.has_mere_news(path)
        verb, ask = ("news", self._list_news) if is_new else ("all", self._list)
        flight = self._flights.start((verb, path), ask, path)
        patience_s = self._patience_s(path, is_new)
        with trio.move_on_after(patience_s):
            try:
                await flight.wait()
            except (NoSourceError, StalledError):
                if patience_s == math.inf:
                    raise
            return
        self._late[path] = flight
        self._newcomers.were_late()

    def is_late(self, path: str) -> bool:
        """Return whether the answers about a directory were waited for and are not all here."""
        flight = self._late.get(path)
        return flight is not None and not flight.is_over

    def _patience_s(self, path: str, is_new: bool) -> float:
        if is_new:
            return self._belief.patience_s(path)
        if self._clock() - self._listed_at.get(path) >= TRUST_S:
            return math.inf
        return look_s(self._took_all_s.get(path))

    async def renew(self, path: str) -> None:
        """List a directory, or only the changes in it, as far as servents answer now."""
        try:
            if self._belief.has_mere_news(path):
                await self.what_is_new(path)
            else:
                await self.all(path)
        except TransferError:
            self._tasks.check()

    async def all(self, path: str) -> None:
        """Ask all servents that may have a directory.

        Raises:
            NotAskedError: everybody may not be asked now, and nobody is known to have it.
            NoSourceError, StalledError: a servent broke off in the middle.
            ShutdownError: we end.
        """
        await self._ask("all", path, self._list)

    async def what_is_new(self, path: str) -> None:
        """Ask the servents that changed a directory; the names of others are believed."""
        await self._ask("news", path, self._list_news)

    async def _ask(self, verb: str, path: str, ask: Callable[[str], Awaitable[None]]) -> None:
        await self._flights.start((verb, path), ask, path).wait()

    # Listings in the background.

    def look(self, path: str, after_s: float) -> None:
        """List a directory again in the background if it is older than `after_s`. Any thread.

        Not for as long as it is sure to be what it was, and as holders are taken for all.
        """
        age_s = self._belief.age(path)
        if age_s > after_s and self._neighbours():
            if age_s < self._belief.trust_s and self._belief.is_kept_up(path):
                return
            took_s = max(0.0, self._took_s.get(path))
            self._renewals.look(path, age_s, max(after_s, took_s / REFRESH_SHARE))

    def start_on_news(self, path: str) -> None:
        """Ask in the background for the changes in a directory, if there are said to be any."""
        if self._belief.has_mere_news(path):
            self._flights.start(("soon", path), self._list_news_soon, path)

    def _start_again(self, path: str) -> None:
        self._flights.start(("again", path), self._list_again, path)

    async def _list_again(self, path: str) -> None:
        """List a directory again, after those above it that are old.

        Once these are fresh the holders of all below are known, so that to refresh two hundred
        directories costs the flood of one. Raises NotAskedError.
        """
        labels = path.split("/") if path else []
        above = ["/".join(labels[:depth]) for depth in range(len(labels))]
        old = (one for one in above if self._belief.age(one) > self._belief.trust_s)
        for directory in (*old, path):
            await self._ask("all", directory, self._refresh)

    async def _refresh(self, path: str) -> None:
        await self._list(path, Urgency.REFRESH)

    # How it is done.

    async def _list_news_soon(self, path: str) -> None:
        spread_s = min(self._survey.horizon * SPREAD_EACH_S, LONGEST_SPREAD_S)
        await trio.sleep(random.uniform(0, spread_s))  # noqa: S311 - no secret
        if self._belief.has_mere_news(path):
            await self._ask("news", path, self._list_news)

    async def _list_news(self, path: str) -> None:
        began_at = self._clock()
        news = self._belief.news(path)
        heard = await self._survey.hear(path, news, within_s=FIRST_LISTING_S)
        asked = {peer: one for peer, one in heard.asked.items() if one is not None}
        # Of these tellings alone: another of the same servent may have begun in this moment.
        slow = [peer for peer, telling in asked.items() if not telling.is_over]
        unasked = [peer for peer in heard.asked if peer not in asked]
        self._belief.caught_up(path, began_at, slow, unasked)
        for peer, telling in asked.items():
            if telling.is_over:
                self._belief.waited(peer, telling.heard_at - began_at)

    async def _list(self, path: str, urgency: Urgency = Urgency.PERSON) -> None:
        began_at = self._clock()
        await self._renew_above(path)
        holders = self._belief.holders(path)
        if 0 < len(holders) <= MAX_DIRECT:
            heard = await self._survey.hear(path, holders)
            heard = replace(heard, is_refused=self._belief.has_unasked(parent_of(path)))
        else:
            try:
                heard = await self._survey.by_flood(path, urgency)
            except NotAskedError:
                known = holders or self._catalogue.holders.of(path)[:MAX_DIRECT]
                if not known or urgency is not Urgency.PERSON:
                    raise
                heard = await self._survey.hear(path, known)
                if not holders:  # the next look asks everybody
                    partial = replace(heard, is_unanswered=True).partial()
                    self._belief.partials.note(path, began_at, partial)
                    return
        self._conclude(path, began_at, heard)

    def _conclude(self, path: str, began_at: float, heard: SurveyResult) -> None:
        took_s = self._clock() - began_at
        self._took_s.put(path, took_s)
        partial = heard.partial()
        if partial.unheard or partial.is_unanswered:
            self._newcomers.were_late()
        else:
            self._newcomers.have_answered()
        if not partial:
            self._took_all_s.put(path, took_s)
        self._listed_at.put(path, began_at)
        self._catalogue.holders.mark_listed(path, began_at)
        self._belief.partials.note(path, began_at, partial)
        self._fail_once(path, [one for one in heard.asked.values() if one is not None])

    async def _renew_above(self, path: str) -> None:
        """List the directories above one again, if that was done before and is long ago.

        Then the holders of all that is below are known: a walk that takes minutes costs a flood
        now and then, not one for each directory.
        """
        parent = parent_of(path)
        was_listed = bool(path) and self._listed_at.get(parent) > -math.inf
        if was_listed and self._belief.age(parent) >= self._belief.trust_s:
            with contextlib.suppress(TransferError):
                await self.all(parent)
            self._tasks.check()

    def _fail_once(self, path: str, tellings: Sequence[Telling]) -> None:
        """Raise for a servent that broke off its listing, unless it did so lately.

        So for one that cannot be reached, if no name is known: an empty directory is a part too.
        """
        now = self._clock()
        for telling in tellings:
            is_gone = isinstance(telling.error, LinkError)
            if telling.broke_off or (is_gone and not self._catalogue.shown.children(path)):
                address = self._catalogue.groups_of(telling.holder.id)
                was_at = self._broke_off_at.get(address)
                self._broke_off_at.put(address, now)
                if now - was_at > FORGIVEN_S:
                    raise telling.failure()
