"""Listings of directories that are not whole, and why: a servent did not tell all, or it was cut.

A name that a whole listing lacks is absent. Nothing is concluded from a listing that is not
whole, and people are told why it is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from p2pfs.journal import Journal
from p2pfs.latest import Latest
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.protocol import PeerInfo

MAX_PARTIAL: Final = 1_000
"""Directories of which it is remembered why their listings are not whole."""

MAX_SERVENTS_NAMED: Final = 5
"""Servents that are named where some have not told all."""

TOLD_EVERY_S: Final = 600.0
"""How often people are told that names made room for others: a flooder makes them do it all the
time."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What keeps the listing of a directory from being whole."""

    unheard: tuple[PeerInfo, ...] = ()
    """Servents that have the directory and have not told all of it."""
    is_cut: bool = False
    """Whether there were more names than are held."""
    is_unanswered: bool = False
    """Whether somebody within the horizon may not have answered."""
    is_early: bool = False
    """Whether it is shown while some are still being asked."""
    is_refused: bool = False
    """Whether somebody was not asked, because a budget is spent."""

    def __bool__(self) -> bool:
        """Return whether anything keeps it from being whole."""
        return self.is_doubtful or self.is_unanswered

    @property
    def is_lacking(self) -> bool:
        """Whether names are known to be missing."""
        return bool(self.unheard) or self.is_cut

    @property
    def is_doubtful(self) -> bool:
        """Whether names are missing that a search by path might still find.

        A servent that did not answer for the listing would not answer such a search either; one
        that was not asked might.
        """
        return self.is_lacking or self.is_refused

    def __str__(self) -> str:
        """Return the reasons as text for people."""
        reasons = []
        if self.unheard:
            names = [repr(peer.name) for peer in self.unheard[:MAX_SERVENTS_NAMED]]
            rest = len(self.unheard) - len(names)
            names += [f"{rest} more"] if rest else []
            reasons.append(f"not all was told by {', '.join(names)}")
        if self.is_cut:
            reasons.append("there are more names than are held")
        if self.is_refused:
            reasons.append("not everybody was asked: too many searches go on")
        elif self.is_unanswered:
            reasons.append("not everybody has answered in time")
        elif self.is_early:
            reasons.append("not everybody has answered yet")
        return "; ".join(reasons)


class Partials:
    """The directories whose last listing was not whole."""

    def __init__(self, catalogue: Catalogue, journal: Journal) -> None:
        self._catalogue = catalogue
        self._journal = journal
        self._partial: Latest[str, tuple[float, Partial]] = Latest(MAX_PARTIAL)
        """By path, each with when the listing was begun."""
        self._told = 0
        """How many names had made room for others when people were last told."""
        self._told_at = -math.inf

    def of(self, path: str) -> Partial | None:
        """Return why a listing is not whole. Any thread.

        Servents that have told all since then do not count.
        """
        began_at, partial = self._partial.get(path, (0.0, None))
        if self._has_lost(path):
            partial = replace(partial or Partial(), is_cut=True)
        if partial is None:
            return None
        if not partial.is_refused and not self._catalogue.holders.have(path):
            return None
        heard = (self._catalogue.holders.listed_by(peer.id, path) for peer in partial.unheard)
        late = zip(partial.unheard, heard, strict=True)
        unheard = tuple(peer for peer, at in late if at is None or at < began_at)
        return replace(partial, unheard=unheard) or None

    def directories(self) -> Sequence[str]:
        """Return the directories whose listings are not whole, by path. Any thread."""
        paths = {*tuple(self._partial), *self._catalogue.holders.lost()}
        return sorted(path for path in paths if self.of(path))

    def _has_lost(self, path: str) -> bool:
        """Return whether names of a directory have made room for others since it was listed."""
        holders = self._catalogue.holders
        return holders.lost_at(path) >= (holders.listed_at(path) or -math.inf) > -math.inf

    def add(self, path: str, began_at: float, unheard: Sequence[PeerInfo]) -> None:
        """Note servents that changed a directory and did not answer when they were asked for it."""
        known = self.of(path) or Partial()
        if unheard:
            every = dict.fromkeys((*known.unheard, *unheard))
            self.note(path, began_at, replace(known, unheard=tuple(every)))

    def note(self, path: str, began_at: float, partial: Partial) -> None:
        """Note whether a listing was whole; say so once if names are known to be missing."""
        self._tell_lost(began_at)
        was_lacking = path in self._partial and self._partial[path][1].is_lacking
        self._partial.pop(path, None)
        if not partial:
            return
        if len(self._partial) == MAX_PARTIAL:
            oldest = next(iter(self._partial))
            self._catalogue.holders.mark_listed(oldest, -math.inf)  # nothing is concluded from it
        self._partial[path] = began_at, partial
        if partial.is_lacking and not was_lacking:
            self._journal.warning(f"the listing of {path or 'network/'} is not whole: {partial}")

    def _tell_lost(self, now: float) -> None:
        """Say, now and then, that names had to make room for others'."""
        lost = self._catalogue.evicted
        if lost > self._told and now - self._told_at >= TOLD_EVERY_S:
            paths = [path or "network/" for path in self._catalogue.holders.lost()]
            where = f"lately in {paths[-1]}" if paths else "of servents that have gone"
            self._journal.warning(
                f"{lost - self._told:,} names of others made room for more, {where}: "
                "those of the largest network of servents go first"
            )
            self._told, self._told_at = lost, now
