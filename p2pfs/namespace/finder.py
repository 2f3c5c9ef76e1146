"""Finding one name: its directory is listed where that is cheaper, else the name is searched for.

A name that a whole and fresh listing of its directory lacks is absent. A search asks ring after
ring, and its first hit ends it. If all have answered and nobody had the name, that is remembered
for ABSENT_S, unless something may have changed in between. If somebody was silent, the look finds
nothing and the next one asks again: programs that look for a name which is not there must go on,
but nothing is concluded. With a silent neighbour thirty names looked for three times cost 4 s and
3 queries, as if it were remembered; one name looked for each second waits 1 s each time.

Somebody who was not asked, because those between us have passed on as much as they may, is another
matter: a moment later he would be. So the search is made once more then, and fails if that does not
help (`Refused`).

All of this belongs to the trio thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from p2pfs.errors import NotAskedError
from p2pfs.namespace.ages import (
    FIND_TIMEOUT_S,
    FIRST_LISTING_S,
    REFRESH_AFTER_S,
    TRUST_S,
    Times,
)
from p2pfs.namespace.belief import Belief
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.disputes import Disputes
from p2pfs.namespace.lister import Lister
from p2pfs.namespace.nodes import Knowledge, RemoteFile, may_be_suffixed
from p2pfs.namespace.refused import Refused
from p2pfs.namespace.survey import MAX_DIRECT
from p2pfs.overlay import Outcome, Searches
from p2pfs.protocol import FileId, QueryKind, is_probe, name_of, parent_of
from p2pfs.tasks import SingleFlight, Tasks

ABSENT_S: Final = 10.0
"""How long a name that no servent had is not searched for again."""

AGAIN_AFTER_S: Final = 0.5
"""How long after a search that did not go everywhere it is made once more."""

LISTING_S: Final = 1.0
"""How long an unknown name waits for the listing of its directory before it is searched for."""


class Finder:
    """Asks others for single names, each at most once at a time."""

    def __init__(
        self,
        catalogue: Catalogue,
        searches: Searches,
        disputes: Disputes,
        belief: Belief,
        lister: Lister,
        refused: Refused,
        tasks: Tasks,
        ttl: int,
        clock: Callable[[], float],
    ) -> None:
        self._catalogue = catalogue
        self._searches = searches
        self._disputes = disputes
        self._belief = belief
        self._lister = lister
        self._ttl = ttl
        self._clock = clock
        self._flights: SingleFlight[tuple[str, str]] = SingleFlight(tasks)
        self._refused = refused
        self._looked_at: Times[str] = Times()
        """When a program last asked for an unknown name in each directory."""

    async def look_for(self, path: str) -> None:
        """Ask others for a path, and for its file's manifest if several sizes are announced."""
        node = self._catalogue.shown.lookup(path, self._clock())
        if not self._disputes.concern(node):
            published = self._catalogue.shown.published(path)
            if not await self._is_told_by_listing(path, published):
                await self._ask("find", published, self._find)
            node = self._catalogue.shown.lookup(path, self._clock())
        if isinstance(node, RemoteFile) and self._disputes.concern(node):
            await self._ask("size", node.file_id.hex(), self._settle)

    async def _settle(self, file_id: str) -> None:
        await self._disputes.settle(FileId(bytes.fromhex(file_id)))

    async def _is_told_by_listing(self, path: str, published: str) -> bool:
        """List the directory of a path if that is cheaper than a search for the path.

        Returns whether the path is known now, or surely absent. Names that programs look up
        anywhere are not searched for: NotAskedError if the listing does not decide. The suffixed
        name of a version is found in no other way.
        """
        parent, began_at = parent_of(published), self._clock()
        is_mere_probe = is_probe(name_of(path)) and self._catalogue.holders.have(parent)
        is_version = self._catalogue.holders.have(parent) and may_be_suffixed(name_of(path))
        few = 0 < len(self._belief.holders(parent)) <= MAX_DIRECT
        is_cheaper = self._belief.has_mere_news(parent) or few or is_mere_probe or is_version
        if not is_cheaper and not self._is_second_look(published):
            return False
        with trio.move_on_after(FIRST_LISTING_S if is_mere_probe else LISTING_S):
            await self._lister.renew(parent)
            if self._belief.has_mere_news(parent):
                await self._lister.renew(parent)  # of changes since the joined question
        is_fresh = is_mere_probe or self._belief.heard_at(parent) > began_at - REFRESH_AFTER_S
        if self._is_known(path) or (is_fresh and self._belief.is_conclusive(parent)):
            return True
        if is_mere_probe:
            raise NotAskedError("its directory was not listed whole", REFRESH_AFTER_S)
        return False

    def _is_known(self, path: str) -> bool:
        return not isinstance(self._catalogue.shown.lookup(path, self._clock()), Knowledge)

    def _is_second_look(self, path: str) -> bool:
        """Return whether a program asked for another unknown name in the same directory lately.

        It will ask for more, and one listing costs less than many searches.
        """
        if ("find", path) in self._flights:
            return False
        now, parent = self._clock(), parent_of(path)
        before = self._looked_at.get(parent)
        self._looked_at.put(parent, now)
        return now - before < TRUST_S

    async def _ask(self, verb: str, path: str, ask: Callable[[str], Awaitable[None]]) -> None:
        """Ask a question of our own, or wait for the answer to the same one."""
        await self._flights.start((verb, path), ask, path).wait()

    async def _find(self, path: str) -> None:
        began_at = self._clock()
        outcome = await self._search(path)
        if not outcome.hits and self._refused.is_believed(outcome):
            await trio.sleep(AGAIN_AFTER_S)
            outcome = await self._search(path)
            if outcome.refusals and not outcome.hits:
                raise NotAskedError("not everybody could be asked: try again in a while")
        for hit in outcome.hits:
            self._catalogue.learn_found(hit.provider, hit.entries)
        if outcome.is_complete and not outcome.hits:
            self._catalogue.keep_only(path, (), began_at)
            if not self._belief.may_have_changed(parent_of(path), began_at):
                self._catalogue.remember_absent(path, self._clock() + ABSENT_S)

    async def _search(self, path: str) -> Outcome:
        return await self._searches.run(
            QueryKind.PATH,
            path,
            rings=range(1, self._ttl + 1),
            timeout_s=FIND_TIMEOUT_S,
            is_enough=bool,
            is_patient=True,
        )
