"""Links to files: made for others, and checked (`p2pfs.filelinks` has their form)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from blake3 import blake3

from p2pfs.errors import UsageError
from p2pfs.filelinks import MAX_HINTS, FileLink
from p2pfs.invitations import Invited
from p2pfs.overlay import Whereabouts
from p2pfs.protocol import Address, FileId, PeerInfo, ServentId
from p2pfs.reach.inviting import places_of

MAX_PASSED_ON: Final = 64
"""Contents that are remembered because the user made links to them: the latest."""

LINK_TAG_BYTES: Final = 2
"""Enough to tell the few networks of one user apart. A reader of a link in public could try words
for the key of the network; of a million words, fifteen would fit."""

SHOWN_ID: Final = 8
"""Characters of the id of one whose name a link does not tell: that is its name for now."""

_LINK_TAG_CONTEXT: Final = "p2pfs 2026-11 network tag in links"

_MOST_OF_OURS: Final = 2
"""Addresses of this servent in a link: the first are those that reach farthest."""


class FileLinks:
    """The links that this servent makes, and those of others that it follows."""

    def __init__(self, whereabouts: Whereabouts) -> None:
        self._whereabouts = whereabouts
        self._passed_on: deque[FileId] = deque(maxlen=MAX_PASSED_ON)
        key = whereabouts.network_key
        digest = blake3(key.network_id, derive_key_context=_LINK_TAG_CONTEXT)
        self._tag = "" if key.psk is None else digest.hexdigest(LINK_TAG_BYTES)

    def to_own(self, file_id: FileId, name: str, size: int) -> str:
        """Return a link to a file that this servent shares. Any thread."""
        us = self._whereabouts
        places = places_of(us.addresses())[:_MOST_OF_OURS]
        holders = (Invited(us.identity.id, places),) if places else ()
        return FileLink(file_id.hex(), name, size, self._tag, holders).text()

    def to_others(self, file_id: FileId, name: str, size: int, sources: Iterable[PeerInfo]) -> str:
        """Return a link to a file of others. Any thread."""
        found = (Invited(peer.id, places_of(peer.addresses)[:1]) for peer in sources)
        holders = tuple(one for one in found if one.places)[:MAX_HINTS]
        return FileLink(file_id.hex(), name, size, self._tag, holders).text()

    def pass_on(self, file_id: FileId) -> None:
        """Note that the user has made a link to a content that is shared here."""
        if file_id in self._passed_on:
            self._passed_on.remove(file_id)
        self._passed_on.append(file_id)

    @property
    def passed_on(self) -> Sequence[FileId]:
        """The contents noted by `pass_on`, the latest first."""
        return tuple(reversed(self._passed_on))

    def check(self, link: FileLink) -> None:
        """Raise UsageError if a link is for another network than this servent's."""
        if link.network != self._tag:
            which = "another private network" if link.network else "the open network"
            own = "a private one" if self._tag else "the open one"
            raise UsageError(
                f"this link is for {which}, and this servent is in {own}: "
                "choose one of that network with -m, or join it first"
            )

    def holders_of(self, link: FileLink) -> Sequence[PeerInfo]:
        """Return the holders that a link names, except this servent."""
        us = self._whereabouts.identity.id
        return [_peer(one) for one in link.holders if one.id != us]


def _peer(named: Invited) -> PeerInfo:
    addresses = tuple(Address(place.host, place.port) for place in named.places)
    return PeerInfo(ServentId(named.id), named.id[:SHOWN_ID], addresses)
