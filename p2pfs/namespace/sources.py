"""The servents that have told of their shares: who they are, and when each was last heard of.

Not locked: the catalogue guards it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from typing import Final

from p2pfs.latest import Latest
from p2pfs.namespace.places import Claims, Digest
from p2pfs.protocol import PeerInfo, ServentId

MAX_SERVENTS_HELD: Final = 10_000
"""Servents held that have told of their shares, each with its addresses; some megabytes."""


class Sources:
    """All servents that have told of their shares, a bounded number."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._infos: dict[ServentId, PeerInfo] = {}
        self._heard_at: Latest[ServentId, float] = Latest(MAX_SERVENTS_HELD)
        """When each of them was last heard of, the latest last."""
        self.version = 0
        """Another number after each change of those that are held, or of their facts."""

    def __contains__(self, source: ServentId) -> bool:
        """Return whether a servent is held."""
        return source in self._infos

    def get(self, source: ServentId) -> PeerInfo | None:
        """Return a servent if it is held."""
        return self._infos.get(source)

    def ids(self) -> Collection[ServentId]:
        """Return the ids of all."""
        return self._infos.keys()

    def all(self) -> tuple[PeerInfo, ...]:
        """Return all."""
        return tuple(self._infos.values())

    def infos(self, holders: Iterable[ServentId]) -> tuple[PeerInfo, ...]:
        """Return the known ones among some servents, each once."""
        infos = self._infos
        return tuple(infos[i] for i in dict.fromkeys(holders) if i in infos)

    def infos_of(self, holder: ServentId) -> tuple[PeerInfo, ...]:
        """Return what is known of a servent, if it is held."""
        info = self._infos.get(holder)
        return () if info is None else (info,)

    def digest(self, claims: Claims) -> Digest:
        """Return the known ones among the servents that make some claims, and the latest time."""
        digest = claims.digest
        if digest is None or digest.at != self.version:
            newest_ns = max(claims.by.values(), default=0)
            digest = claims.digest = Digest(self.version, self.infos(claims.by), newest_ns)
        return digest

    def put(self, source: PeerInfo, busy: Callable[[], Container[ServentId]]) -> bool:
        """Note a servent that was heard of; return whether there is room for it.

        If there are too many it takes the place of those that are not `busy`: that have no entries.
        """
        if source.id not in self._infos and len(self._infos) >= MAX_SERVENTS_HELD:
            self.keep(busy())
            if len(self._infos) >= MAX_SERVENTS_HELD:
                return False
        if self._infos.get(source.id) != source:
            self._infos[source.id] = source
            self.version += 1
        self._heard_at[source.id] = self._clock()
        return True

    def heard(self, source: ServentId) -> None:
        """Note that a servent is there, if it is held."""
        if source in self._infos:
            self._heard_at[source] = self._clock()

    def heard_at(self, source: ServentId) -> float:
        """Return when a servent was last heard of; minus infinity if it is not known."""
        return self._heard_at.get(source, -math.inf)

    def heard_since(self, since: float) -> Iterator[ServentId]:
        """Yield the servents that have been heard of since then, the latest first."""
        late = itertools.takewhile(lambda one: one[1] >= since, reversed(self._heard_at.items()))
        return (source for source, _ in late)

    def unheard(self, since: float, limit: int) -> Sequence[PeerInfo]:
        """Return servents that have not been heard of since then, the longest silent first."""
        silent = itertools.takewhile(lambda one: one[1] < since, self._heard_at.items())
        return [self._infos[source] for source, _ in itertools.islice(silent, limit)]

    def keep(self, kept: Container[ServentId]) -> None:
        """Forget all others."""
        for source in [one for one in self._infos if one not in kept]:
            self.forget(source)

    def forget(self, source: ServentId) -> None:
        """Forget a servent."""
        self.version += source in self._infos
        self._infos.pop(source, None)
        self._heard_at.pop(source, None)
