"""Worlds with servents behind routers, and what their neighbours may have them do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from p2pfs.protocol import Address, Guid, PeerInfo, Punch, Push
from p2pfs.reach.punch import MAX_MEETINGS
from p2pfs.reach.push import MAX_DIALS_BACK
from p2pfs.servent import Servent
from tests.helpers.contents import Content
from tests.helpers.world import World, host, open_world

FILM = Content.of(300_000)

BOTH: Final = (1, 2)
"""The servents behind routers of `between_routers`."""


@asynccontextmanager
async def behind_router(readers: int = 1) -> AsyncIterator[World]:
    """Give 0, who does not relay, 1 with a film behind a router, and readers that know 0."""
    async with open_world(latency_s=0.02) as world:
        await world.start(relay=False)
        await world.start(joins=[0], max_neighbours=1)
        world.net.host(host(1)).is_behind_router = True
        await world.linked(1, 1)
        for _ in range(readers - 1):
            await world.start(joins=[0], max_neighbours=1)
        await world.linked(readers, *[1] * readers)
        await world.share(1, "film.mkv", FILM.data)
        yield world


@asynccontextmanager
async def between_routers(latency_s: float = 0.05, seed: int = 0) -> AsyncIterator[World]:
    """Give 0, who does not relay, and behind routers 1 with a film and 2, who know 0 alone."""
    async with open_world(latency_s=latency_s, seed=seed) as world:
        await world.start(relay=False)
        for number in BOTH:
            world.net.host(host(number)).is_behind_router = True
            await world.start(joins=[0], max_neighbours=1)
        await world.linked(2, 1, 1)
        await world.share(1, "film.mkv", FILM.data)
        yield world


def push(number: int, target: str, asker: PeerInfo | None = None) -> Push:
    return Push(Guid(bytes([number] * 16)), target, 3, asker)


def punch(number: int, peer: str, addresses: Sequence[Address] = ()) -> Punch:
    return Punch(Guid(bytes([number] * 16)), peer, tuple(addresses))


@dataclass(frozen=True)
class Favour:
    """A message by which a neighbour has a servent dial somebody."""

    world: Callable[[], AbstractAsyncContextManager[World]]
    ask: Callable[[Servent, int, Sequence[Address]], None]
    """Ask for the dial of these addresses, with a GUID of this number."""
    counters: Callable[[Servent], Mapping[str, int]]
    nowhere: str
    """How the drop of one is counted that names no address where a servent may be."""
    too_many: str
    """How the drop of one is counted that comes while MOST are being done."""
    most: int


def _push(servent: Servent, number: int, addresses: Sequence[Address]) -> None:
    asker = PeerInfo("b" * 32, "victim", tuple(addresses))
    message = push(number, servent.whereabouts.identity.id, asker)
    servent.ways.pushes.got_push(servent.overlay.neighbours[0], message)


def _punch(servent: Servent, number: int, addresses: Sequence[Address]) -> None:
    message = punch(number, "abcdefghijklmnop"[number % 16] * 32, addresses)
    servent.ways.punches.got_punch(servent.overlay.neighbours[0], message)


FAVOURS: Final = {
    "push": Favour(
        behind_router,
        _push,
        lambda servent: servent.ways.pushes.counters,
        "dropped: nowhere to dial",
        "dropped: too many dials",
        MAX_DIALS_BACK,
    ),
    "punch": Favour(
        between_routers,
        _punch,
        lambda servent: servent.ways.punches.counters,
        "dropped: nobody to meet",
        "dropped: too many meetings",
        MAX_MEETINGS,
    ),
}
