"""Random walks, by which a newcomer finds neighbours all over the network (PROTOCOL.md, "Walks").

A walk takes each step to a random neighbour, never straight back. Where it ends, the servent
offers itself, and its Introduce goes back the way the walk came. A walk that comes through a
servent again keeps its first way back, so the way home has no loops.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import WALK_STEPS, Guid, Introduce, Walk
from p2pfs.protocol.crowds import Choose
from p2pfs.protocol.flood.decisions import (
    Decision,
    Drop,
    DropReason,
    Introduced,
    LinkId,
    OfferSelf,
    Send,
)

WALK_S: Final = 30.0
"""How long a walk may take to end and be answered: ten links there, ten back, one dial."""

MAX_WALKS: Final = 4_096
"""Walks remembered in all; the oldest make room."""


@dataclass(slots=True)
class _Path:
    """The way back of one walk."""

    came_from: LinkId | None
    at: float
    sent_to: set[LinkId] = field(default_factory=set)


class Walks:
    """The walks that came through here lately."""

    def __init__(self) -> None:
        self._paths: Latest[Guid, _Path] = Latest(MAX_WALKS)

    def __len__(self) -> int:
        return len(self._paths)

    def originate(
        self, guid: Guid, links: Sequence[LinkId], choose: Choose[LinkId], now: float
    ) -> list[Decision]:
        """Start a walk of our own; nothing happens without a link."""
        if not links:
            return []
        self._path(guid, None, now)
        return [self._step(Walk(guid, WALK_STEPS), links, choose)]

    def got_walk(
        self, link: LinkId, walk: Walk, links: Iterable[LinkId], choose: Choose[LinkId], now: float
    ) -> list[Decision]:
        """Pass a walk on over one of `links`, or end it here."""
        onward = [other for other in links if other != link]
        path = self._path(walk.guid, link, now)
        if walk.steps > 0 and onward:
            return [self._step(walk, onward, choose)]
        if path.came_from is None:
            return [Drop(link, DropReason.CAME_HOME)]
        return [OfferSelf(link, walk.guid)]

    def got_introduce(
        self, link: LinkId, introduce: Introduce, links: Container[LinkId], now: float
    ) -> list[Decision]:
        """Pass an offer back the way its walk came: one for a walk, from where it went."""
        self._forget_old(now)
        path = self._paths.get(introduce.guid)
        if path is None or link not in path.sent_to:
            return [Drop(link, DropReason.NOT_ASKED)]
        del self._paths[introduce.guid]
        if path.came_from is None:
            return [Introduced(introduce.peer)]
        if path.came_from not in links:
            return [Drop(link, DropReason.NO_LINK)]
        return [Send(path.came_from, introduce)]

    def _step(self, walk: Walk, onward: Sequence[LinkId], choose: Choose[LinkId]) -> Send:
        link = choose(onward)
        self._paths[walk.guid].sent_to.add(link)
        return Send(link, Walk(walk.guid, walk.steps - 1))

    def _path(self, guid: Guid, came_from: LinkId | None, now: float) -> _Path:
        self._forget_old(now)
        if guid not in self._paths:  # else it keeps its first way back
            self._paths[guid] = _Path(came_from, now)
        return self._paths[guid]

    def _forget_old(self, now: float) -> None:
        self._paths.forget_while(lambda path: path.at <= now - WALK_S)
