"""Follow which servents come, change and go, so that `network/` shows it.

A neighbour that comes may have more than was listed; one that changes makes its listings old; one
that leaves takes its names along. Servents further away say the same by NEWS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from p2pfs.namespace.ages import Times
from p2pfs.namespace.belief import Belief
from p2pfs.namespace.catalogue import Catalogue
from p2pfs.namespace.newcomers import Newcomers
from p2pfs.protocol import PeerInfo, ServentId, check_path

OPEN_S: Final = 30.0
"""For this time after a directory was shown, it is listed again as soon as a servent says that it
changed."""

LEAVING_S: Final = 60.0
"""How old, by its clock and ours, the NEWS that a servent leaves may be and still be believed."""

OVERTAKEN_S: Final = 5.0
"""By how much a servent's last hits may come later than its NEWS that it leaves: they may have
gone another way."""


class Comings:
    """Takes in that servents come, change and go. Belongs to the trio thread."""

    def __init__(
        self,
        catalogue: Catalogue,
        confided: Catalogue,
        belief: Belief,
        newcomers: Newcomers,
        *,
        neighbours: Callable[[], Sequence[PeerInfo]],
        shown_at: Times[str],
        list_anew: Callable[[str], object],
        clock: Callable[[], float],
    ) -> None:
        """Have a directory listed anew by `list_anew` if it was shown lately (`shown_at`).

        What servents show to us alone is in `confided`.
        """
        self._catalogue = catalogue
        self._confided = confided
        self._belief = belief
        self._newcomers = newcomers
        self._neighbours = neighbours
        self._shown_at = shown_at
        self._list_anew = list_anew
        self._clock = clock

    def joined(self, peer: ServentId) -> None:
        """Note a new neighbour: every listing is old, since it may have more.

        In a large network not everybody may ask anew whenever a link changes. There a listing
        that is not due yet is still shown, and no absence is concluded from it.
        """
        self._belief.note_change()
        self._belief.board.neighbour_came(peer)
        if self._newcomers.moved(peer):
            self._belief.widened()
        else:
            self._catalogue.forget_absences()

    def changed(self, peer: ServentId) -> None:
        """Note that a neighbour has changed its share (CHANGED)."""
        if self._belief.board.neighbour_changed(peer):
            self._belief.note_change()
            self._catalogue.forget_absences()

    def got_news(self, peer: PeerInfo, directories: Sequence[str], *, is_all: bool) -> None:
        """Note NEWS of a servent; directories that were shown lately are listed again at once."""
        good = [path for path in directories if not path or check_path(path) is None]
        if not self._belief.board.told(peer, good, is_all=is_all):
            return
        self._catalogue.holders.heard(peer.id)
        self._catalogue.forget_absences(None if is_all else good)
        for path in good:
            if self._clock() - self._shown_at.get(path) < OPEN_S:
                self._list_anew(path)

    def got_leaving(self, peer: ServentId, age_s: float) -> None:
        """Forget a servent that said `age_s` ago that it leaves, unless it has come back.

        Any servent may have kept such NEWS from another day. So NEWS that are old are not
        believed, nor NEWS older than the last sign of that servent.
        """
        since = self._catalogue.holders.heard_at(peer) - (self._clock() - age_s)
        is_neighbour = any(peer == one.id for one in self._neighbours())
        if abs(age_s) <= LEAVING_S and since <= OVERTAKEN_S and not is_neighbour:
            self.left(peer)

    def left(self, peer: ServentId) -> None:
        """Forget the offers of a servent that has left the network."""
        self._belief.board.forget(peer)
        self._catalogue.forget(peer)
        self._confided.forget(peer)

    def all_left(self) -> None:
        """Forget the offers of everybody: we have left the network."""
        self._belief.board.forget_all()
        self._catalogue.keep_only("", ())
        self._confided.keep_only("", ())

    def lost(self, peer: ServentId, *, is_there: bool = False) -> None:
        """Note that a neighbour is gone without BYE; a listing will show which servents remain.

        One that `is_there` has ended the link alone.
        """
        self._belief.board.forget(peer)
        if self._neighbours() and not is_there and self._newcomers.moved(peer):
            self._catalogue.expire(self._clock())
