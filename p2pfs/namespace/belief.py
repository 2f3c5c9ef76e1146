"""Which conclusions the listings of directories allow, and for how long.

A listing is a claim about a time: everybody within the horizon was asked then. A name that it lacks
is absent if every holder of the directory listed all of it, until a servent says that the directory
has changed, or until the listing is too old. Memory alone, from any thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from p2pfs.journal import Journal
from p2pfs.namespace.ages import REFRESH_AFTER_S, TRUST_S, Times, look_s
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.news import NewsBoard
from p2pfs.namespace.nodes import Node
from p2pfs.namespace.partials import Partials
from p2pfs.protocol import PeerInfo, parent_of

REFRESH_EACH_S: Final = 0.25
LONGEST_REFRESH_S: Final = 600.0
"""How much older a listing may be for each servent within the horizon, and at most. A network
carries some ten floods a second, however large it is. Changes in between are told by NEWS."""


class Belief:
    """How far the listings of directories are believed. Paths are as published."""

    def __init__(
        self,
        catalogue: Catalogue,
        journal: Journal,
        *,
        neighbours: Callable[[], Sequence[PeerInfo]],
        horizon: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        """Prepare; `horizon` tells how many servents a flood reaches, as far as is known."""
        self._catalogue = catalogue
        self._neighbours = neighbours
        self._horizon = horizon
        self._clock = clock
        self.board = NewsBoard(clock, catalogue.groups_of)
        self.partials = Partials(catalogue, journal)
        self._changed_at = -math.inf
        """When a neighbour last came, or last said that its share changed."""
        self._widened_at = -math.inf
        """When a neighbour last came."""
        self._caught_up_at: Times[str] = Times()
        """When each directory was last asked for of those alone who had changed it."""

    # How old a listing is, and may be.

    def age(self, path: str) -> float:
        """Return how long ago everybody was asked for a directory; infinite if never."""
        listed_at = self._catalogue.holders.listed_at(path)
        return math.inf if listed_at is None else self._clock() - listed_at

    @property
    def refresh_after_s(self) -> float:
        """How old a listing is that is asked for again by a flood."""
        return min(max(REFRESH_AFTER_S, self._horizon() * REFRESH_EACH_S), LONGEST_REFRESH_S)

    @property
    def trust_s(self) -> float:
        """How long the holders found by a flood are taken for all."""
        return max(TRUST_S, self.refresh_after_s)

    def widened(self) -> None:
        """Note a new neighbour: there may be more than the listings show."""
        self._changed_at = self._widened_at = now = self._clock()
        bearable_s = self.refresh_after_s
        self._catalogue.expire(now - bearable_s if bearable_s > REFRESH_AFTER_S else now)

    # Changes since a listing.

    def heard_at(self, path: str) -> float:
        """Return the time up to which the changes of a directory are in its listing."""
        listed_at = self._catalogue.holders.listed_at(path)
        return max(-math.inf if listed_at is None else listed_at, self._caught_up_at.get(path))

    def caught_up(
        self,
        path: str,
        began_at: float,
        slow: Sequence[PeerInfo],
        unasked: Sequence[PeerInfo],
    ) -> None:
        """Note that servents that changed a directory were asked; `slow` did not answer.

        The next look asks those that were `unasked`, since all before them were slow.
        """
        if not unasked:
            self._caught_up_at.put(path, began_at)
        self.partials.add(path, began_at, (*slow, *unasked))
        neighbours = {peer.id for peer in self._neighbours()}
        for peer in slow:
            self.board.mute(peer.id, is_stranger=peer.id not in neighbours)

    def waited(self, peer: PeerInfo, took_s: float) -> None:
        """Note how long an `ls` has waited for what a servent has changed."""
        is_stranger = all(peer.id != one.id for one in self._neighbours())
        self.board.answered(peer.id, took_s, is_stranger=is_stranger)

    def news(self, path: str) -> Sequence[PeerInfo]:
        """Return the servents that say that they changed a directory since they last listed it."""
        return self.news_since(path, self.heard_at(path))

    def news_since(self, path: str, since: float) -> Sequence[PeerInfo]:
        """Return the servents that say that they changed a directory since then."""
        sources = partial(self._catalogue.holders.of, path)
        return self.board.of(path, since, self._neighbours(), sources)

    def patience_s(self, path: str) -> float:
        """Return how long a look waits for those that changed a directory."""
        return look_s(self.board.took_s(peer.id for peer in self.news(path)))

    def note_change(self) -> None:
        """Note that there may be more, anywhere: the share of a neighbour has changed."""
        self._changed_at = self._clock()

    def may_have_changed(self, path: str, since: float) -> bool:
        """Return whether there may be more in a directory than there was then."""
        return self._changed_at > since or bool(self.news_since(path, since))

    def has_mere_news(self, path: str) -> bool:
        """Return whether it is enough to ask the servents that changed a directory."""
        return self.age(path) < self.trust_s and bool(self.news(path))

    def is_outdated(self, path: str, node: Node) -> bool:
        """Return whether a neighbour that has a node has changed its share since it was listed."""
        if not self.board.has_changes:
            return False
        changed = self.board.changed_since(self.heard_at(parent_of(path)))
        return bool(changed) and any(source.id in changed for source in node.sources)

    # Conclusions.

    def is_listed(self, path: str) -> bool:
        """Return whether a directory was listed, and no servent has changed it since."""
        return self._catalogue.holders.listed_at(path) is not None and not self.news(path)

    def is_kept_up(self, path: str) -> bool:
        """Return whether to ask those who have a directory would tell nothing new.

        All of them are known, and are neighbours that would have said that they changed it.
        """
        listed_at, holders = self._catalogue.holders.listed_at(path), self.holders(path)
        if listed_at is None or not holders or not self.is_listed(path) or self.partials.of(path):
            return False
        return all(self.board.would_tell(peer.id, listed_at) for peer in holders)

    def is_conclusive(self, path: str) -> bool:
        """Return whether a name that the listing of a directory lacks is absent."""
        listed_at = self._catalogue.holders.listed_at(path)
        if not self.is_listed(path) or listed_at is None or listed_at < self._widened_at:
            return False
        lacks = self.partials.of(path)
        return lacks is None or not lacks.is_doubtful

    def has_unasked(self, path: str) -> bool:
        """Return whether somebody was not asked for a directory because budgets were spent."""
        lacks = self.partials.of(path)
        return lacks is not None and lacks.is_refused

    def holders(self, path: str) -> Sequence[PeerInfo]:
        """Return all holders of a directory if none can be missing; else nothing."""
        parent = parent_of(path)
        holders = self._catalogue.holders.of(path)
        if not path or not holders or self.age(parent) >= self.trust_s:
            return ()
        maybe = {peer.id: peer for peer in (*self.news(parent), *holders)}
        return tuple(maybe.values())
