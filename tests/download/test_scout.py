"""When the network is asked for further sources, and when a swarm learns of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from p2pfs.download.scout import ASK_CATALOGUE_S, LOOK_PAUSES_S, Scout
from p2pfs.protocol import Entry, FileId, Guid, PeerInfo, QueryHit
from p2pfs.protocol.flood import Urgency
from tests.helpers.upstream import peer

FILE_ID = FileId(bytes(32))
SEARCH_S = 1.2


class _Catalogue:
    @property
    def offers(self) -> _Catalogue:
        return self

    def sources_of(self, _file_id: FileId, _size: int) -> Sequence[PeerInfo]:
        return ()


class _Swarm:
    wants_sources = True

    def __init__(self) -> None:
        self.told: list[tuple[float, list[PeerInfo], list[PeerInfo]]] = []

    def add_sources(self, sources: list[PeerInfo], readers: list[PeerInfo]) -> None:
        self.told.append((trio.current_time(), sources, readers))


def _hit(provider: PeerInfo, entry: Entry) -> QueryHit:
    return QueryHit(Guid(bytes(16)), 1, provider, (entry,), 1, bytes(32), bytes(64))


class _Upstream:
    """A network that gives a hit at once, and ends a search only after SEARCH_S."""

    def __init__(self) -> None:
        self.searched_at: list[float] = []

    async def search(
        self,
        file_id: FileId,
        size: int,
        _urgency: Urgency,
        found: Callable[[Sequence[QueryHit]], object],
    ) -> Sequence[QueryHit]:
        self.searched_at.append(trio.current_time())
        hits = [
            _hit(peer(1), Entry("film", size, 0, file_id)),
            _hit(peer(2), Entry(file_id.hex(), size, 0, file_id)),
        ]
        found(hits)
        await trio.sleep(SEARCH_S)
        return hits


@asynccontextmanager
async def looking() -> AsyncIterator[tuple[Scout, _Upstream, _Swarm]]:
    upstream, swarm = _Upstream(), _Swarm()
    scout = Scout(_Catalogue(), upstream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scout.run)
        scout.watch(swarm, (FILE_ID, 10), ())
        yield scout, upstream, swarm
        nursery.cancel_scope.cancel()


async def test_what_takes_a_second_to_fetch_costs_no_search_whoever_comes(
    autojump_clock: MockClock,
):
    async with looking() as (scout, upstream, _swarm):
        while trio.current_time() < 4:
            scout.look_soon()
            await trio.sleep(0.1)

    assert LOOK_PAUSES_S[0] <= upstream.searched_at[0] <= LOOK_PAUSES_S[0] + ASK_CATALOGUE_S


async def test_a_swarm_is_told_of_what_is_found_before_the_search_ends(autojump_clock: MockClock):
    async with looking() as (_scout, upstream, swarm):
        await trio.sleep(LOOK_PAUSES_S[0] + ASK_CATALOGUE_S + 0.1)

    assert swarm.told == [(upstream.searched_at[0], [peer(1)], [peer(2)])]
