"""Which servents have changed their shares, and where: they are asked before a directory is shown.

A neighbour says that its share has changed (CHANGED), and any servent within the horizon says in
which directories (NEWS). Either is a reason to ask that servent, and no other. A servent that says
so and is then slow to answer is not believed for a while: otherwise it could delay every `ls`. Nor
does one wait for it longer than answers from its address took before.

Values that other threads read are replaced and never changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from p2pfs.latest import Latest
from p2pfs.namespace.tellers import AddressGroups, GroupsOf
from p2pfs.protocol import PeerInfo, ServentId
from p2pfs.protocol.flood import TokenBucket

MUTED_S: Final = 60.0
"""How long CHANGED and NEWS of a servent are ignored that was slow to answer about an earlier one.
Its new names show when listings are refreshed."""

LATE_S: Final = 0.5
"""An answer that takes less counts for nothing, however often an `ls` waits for it."""

LATE_SHARE: Final = 0.05
LATE_BURST_S: Final = 4
"""The part of the time for which one servent may make `ls` wait for answers that take longer, and
how many seconds of that at once. One that always said that it had changed, and answered just in
time, let each `ls` take 1.4 s."""

MAX_PLACES: Final = 1_000
"""Directories of which changes are remembered; the oldest are forgotten."""

MAX_CHANGED_SERVENTS: Final = 200
"""Servents with changes that are remembered for one directory, and for EVERYWHERE: a third of a
full hall comes back at once. To ask all of them costs half a flood."""

SLOW_STRANGERS_PER_S: Final = 4 / 60
SLOW_STRANGERS_BURST: Final = 4
"""Slow strangers that are put up with. When there are more, NEWS of all strangers are ignored for
MUTED_S: identities are free, and each would make one `ls` wait."""

EVERYWHERE: Final = None
"""The place of NEWS that name no directories."""

_Told = tuple[tuple[PeerInfo, float], ...]


class NewsBoard:
    """The servents that say that they changed each directory, and when each said so."""

    def __init__(
        self,
        clock: Callable[[], float],
        groups_of: GroupsOf = lambda source: (source, source),
    ) -> None:
        """Begin empty; `groups_of` tells at which address a servent is."""
        self._clock = clock
        self._groups_of = groups_of
        self._changed: dict[ServentId, float] = {}
        """When each neighbour last said that its share changed."""
        self._changed_at = -math.inf
        """When any of them last said so."""
        self._linked_at: dict[ServentId, float] = {}
        """Since when each neighbour would have said so."""
        self._told: Latest[str | None, _Told] = Latest(MAX_PLACES)
        self._muted: Latest[AddressGroups, float] = Latest(MAX_PLACES)
        """Until when CHANGED and NEWS of each address with a slow servent are ignored."""
        self._patience = TokenBucket(SLOW_STRANGERS_PER_S, SLOW_STRANGERS_BURST)
        self._late: Latest[AddressGroups, TokenBucket] = Latest(MAX_PLACES)
        """For how many seconds the servents of each address may still make `ls` wait."""
        self._took_s: Latest[AddressGroups, float] = Latest(MAX_PLACES)
        """How long a servent of each address took last to answer; nothing once one was mute."""
        self._deaf_until = -math.inf
        """Until when NEWS of strangers are ignored."""

    def neighbour_came(self, peer: ServentId) -> None:
        """Note that a neighbour is linked from now on, and would say if its share changed."""
        self._linked_at[peer] = self._clock()

    def would_tell(self, peer: ServentId, since: float) -> bool:
        """Return whether a change of a servent since then would have been noted. Any thread."""
        linked_at = self._linked_at.get(peer, math.inf)
        return linked_at < since and self._muted.get(self._groups_of(peer), -math.inf) < since

    def neighbour_changed(self, peer: ServentId) -> bool:
        """Note CHANGED from a neighbour; return False if it is ignored now."""
        if self._is_muted(peer):
            return False
        self._changed[peer] = self._changed_at = self._clock()
        return True

    def told(self, peer: PeerInfo, directories: Iterable[str], *, is_all: bool) -> bool:
        """Note NEWS from a servent; return False if it is ignored now."""
        if self._is_muted(peer.id) or self._clock() < self._deaf_until:
            return False
        for place in (*directories, *([EVERYWHERE] if is_all else [])):
            others = [one for one in self._told.get(place, ()) if one[0].id != peer.id]
            self._told[place] = (*others, (peer, self._clock()))[-MAX_CHANGED_SERVENTS:]
        return True

    def changed_at(self, peer: ServentId) -> float:
        """Return when a neighbour last said that its share changed; minus infinity if never."""
        return self._changed.get(peer, -math.inf)

    @property
    def has_changes(self) -> bool:
        """Whether any neighbour has said that its share changed. Any thread."""
        return bool(self._changed)

    def changed_since(self, since: float) -> Collection[ServentId]:
        """Return the neighbours that said since then that their shares changed. Any thread."""
        if since >= self._changed_at:
            return ()
        return {peer for peer, at in list(self._changed.items()) if at > since}

    def of(
        self,
        path: str,
        since: float,
        neighbours: Iterable[PeerInfo],
        holders: Callable[[], Collection[PeerInfo]],
    ) -> Sequence[PeerInfo]:
        """Return the servents that said since then that they changed a directory. Any thread."""
        found = {peer.id: peer for peer in neighbours if self.changed_at(peer.id) > since}
        found |= {peer.id: peer for peer, at in self._told.get(path, ()) if at > since}
        everywhere = [(peer, at) for peer, at in self._told.get(EVERYWHERE, ()) if at > since]
        if everywhere:
            here = {peer.id for peer in holders()}
            found |= {peer.id: peer for peer, _ in everywhere if not path or peer.id in here}
        return list(found.values())

    def answered(self, peer: ServentId, took_s: float, *, is_stranger: bool) -> None:
        """Note how long an `ls` waited for a servent; one that is slow again and again is muted."""
        now, address = self._clock(), self._groups_of(peer)
        self._took_s[address] = took_s
        if took_s <= LATE_S:
            return
        allowed = self._late.renew(address, lambda: TokenBucket(LATE_SHARE, LATE_BURST_S))
        allowed.wait_s(now)  # this adds what it has earned since
        allowed.spend(took_s)
        if allowed.wait_s(now):
            self.mute(peer, is_stranger=is_stranger)

    def took_s(self, peers: Iterable[ServentId]) -> float:
        """Return how long the slowest of these servents took last; 0 of who is new or was mute."""
        return max((self._took_s.get(self._groups_of(peer), 0.0) for peer in peers), default=0.0)

    def mute(self, peer: ServentId, *, is_stranger: bool) -> None:
        """Ignore CHANGED and NEWS of a servent for MUTED_S: it was slow to answer about them.

        Those of all others at its address too: identities are free.
        """
        self.forget(peer)
        self._muted[self._groups_of(peer)] = self._clock() + MUTED_S
        self._took_s.pop(self._groups_of(peer), None)
        if is_stranger and not self._patience.take(self._clock()):
            self._deaf_until = self._clock() + MUTED_S
            self._told.clear()

    def forget(self, peer: ServentId) -> None:
        """Forget that a servent changed anything; not that it was slow, as it may come again."""
        self._changed.pop(peer, None)
        self._linked_at.pop(peer, None)
        for place, told in list(self._told.items()):
            if any(one[0].id == peer for one in told):
                self._told[place] = tuple(one for one in told if one[0].id != peer)

    def forget_all(self) -> None:
        """Forget all changes, and which servents were slow."""
        self._changed.clear()
        self._linked_at.clear()
        self._told.clear()
        self._muted.clear()

    def _is_muted(self, peer: ServentId) -> bool:
        return self._clock() < self._muted.get(self._groups_of(peer), -math.inf)
