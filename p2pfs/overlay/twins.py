"""Notice that another servent uses our identity.

Theory. Two servents with one key, as with a copied state directory, push each other out: each peer
keeps one link to an id, and ends the other with BYE (DUPLICATE). Links that cross end so too, and
so do those of a servent that was killed and starts anew. But then there is soon another link to
that peer, or it happens once. A sign is such an end after which no link to that peer is there;
some signs, some time apart, are no accident.
"""

from __future__ import annotations

import math
from typing import Final

from p2pfs.journal import Journal

SIGN_AFTER_S: Final = 10.0
"""How long after such an end we check whether there is another link: a crossing dial takes
less."""

SIGNS_APART_S: Final = 20.0
"""Signs that are closer together are one: a restart meets all neighbours at once."""

SIGNS: Final = 3
WITHIN_S: Final = 900.0
"""After so many signs within this time the user is warned."""

TWIN_WARNING_S: Final = 3_600.0

TEXT: Final = (
    "another servent uses this identity: neighbours take the two for one. "
    "Give one of them a state directory of its own"
)


class Twins:
    """The signs of another servent with our key."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._signs: list[float] = []
        self._told_at = -math.inf

    def sign(self, now: float) -> None:
        """Note that a peer holds us for linked, and is not linked to us."""
        self._signs = [at for at in self._signs if at > now - WITHIN_S]
        if self._signs and now < self._signs[-1] + SIGNS_APART_S:
            return
        self._signs.append(now)
        if len(self._signs) >= SIGNS and now >= self._told_at + TWIN_WARNING_S:
            self._told_at = now
            self._journal.warning(TEXT)
