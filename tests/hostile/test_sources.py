"""Any number of servents may promise a content: who gives it is found, and costs little more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from p2pfs.download.known import MAX_KNOWN_SOURCES, MAX_SOURCES, KnownSources
from p2pfs.download.picker import Picker
from p2pfs.download.readahead import MAX_PROMISED, ReadAhead
from p2pfs.download.source import MANIFEST
from p2pfs.download.standing import Trouble
from p2pfs.download.swarm import Swarm
from p2pfs.errors import BusyError, P2pfsError, RejectedError, StalledError
from p2pfs.protocol import MIB, Address, PeerInfo, RejectCode
from tests.helpers.contents import Content
from tests.helpers.memorycache import MemoryCachedFile
from tests.helpers.sizes import BLOCK
from tests.helpers.upstream import STALL_S, FakeSource, FakeUpstream, peer

FILM = Content.of(64 * MIB, seed=5)
READ_BYTES = 128 * 1024
GOOD_BYTES_PER_S = 20e6
MOST = 1.3
"""Times what it takes without the others."""


def good(rate_bytes_s: float = GOOD_BYTES_PER_S) -> FakeSource:
    return FakeSource(FILM, latency_s=0.02, rate_bytes_s=rate_bytes_s)


def dead() -> FakeSource:
    """Say that it has it, take the link, and never answer."""
    source = FakeSource(FILM, latency_s=0.02)
    source.stop()
    return source


def promising() -> FakeSource:
    """Be about to have each block, for ever."""
    error = RejectedError("not here yet", RejectCode.NOT_FOUND)
    error.retry_after_s = 0.2
    return FakeSource(FILM, latency_s=0.02, error=error)


async def seconds_to_read(
    sources: Sequence[FakeSource], readers: Sequence[FakeSource] = ()
) -> float:
    """Return how long one reader needs for the whole film."""
    upstream = FakeUpstream([*sources, *readers])
    cached = MemoryCachedFile(FILM)
    swarm = Swarm(cached, [peer(n) for n in range(len(sources))], upstream, STALL_S)
    swarm.add_sources([], [peer(n) for n in range(len(sources), len(upstream.sources))])
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        began_at = trio.current_time()
        for offset in range(0, FILM.size, READ_BYTES):
            await swarm.read(offset, READ_BYTES)
        nursery.cancel_scope.cancel()
    return trio.current_time() - began_at


@pytest.mark.parametrize("count", [8, 63])
async def test_dead_ones_known_first_cost_a_moment(count: int, autojump_clock: MockClock):
    alone = await seconds_to_read([good()])

    among = await seconds_to_read([dead() for _ in range(count)] + [good()])

    assert among <= MOST * alone


@pytest.mark.parametrize("count", [8, 16, 32, 63])
async def test_slow_ones_known_first_give_way_to_the_quick(count: int, autojump_clock: MockClock):
    alone = await seconds_to_read([good()])

    among = await seconds_to_read([good(300e3) for _ in range(count)] + [good()])

    assert among <= MOST * alone


def test_a_manifest_that_came_makes_nobody_wait_longer_for_the_first_block():
    picker = Picker(FILM.size, "z" * 32)
    picker.add_sources(peer(number) for number in range(MAX_KNOWN_SOURCES))
    asked = picker.next_requests(0.0, [MANIFEST, 0], [])
    manifest = next(request for request in asked if request.index == MANIFEST)
    asked += picker.next_requests(0.5, [MANIFEST, 0], [])
    picker.received(manifest, 0.6)

    asked += picker.next_requests(0.75, [0], [])

    assert sum(request.index == 0 for request in asked) == MAX_KNOWN_SOURCES


def test_others_are_tried_while_all_that_are_known_are_slow():
    sources = KnownSources()
    sources.add(peer(number) for number in range(3 * MAX_SOURCES))
    for source in list(sources)[:MAX_SOURCES]:
        source.meter.add(300_000, 1.0)

    tried = [source for source in sources.enlisted(0.0) if source.rate(0.0) is None]

    assert len(tried) == MAX_SOURCES


@pytest.mark.parametrize("count", [8, 60])
async def test_readers_who_promise_and_never_have_cost_a_moment(
    count: int, autojump_clock: MockClock
):
    alone = await seconds_to_read([good()])

    among = await seconds_to_read([good()], [promising() for _ in range(count)])

    assert among <= MOST * alone


async def test_who_has_nothing_and_wants_to_be_asked_at_once_is_asked_seldom(
    autojump_clock: MockClock,
):
    asked = 0

    class Eager(FakeSource):
        def refusal(self, index: int) -> P2pfsError | None:
            nonlocal asked
            if index == MANIFEST:
                return None
            asked += 1
            error = RejectedError("soon", RejectCode.NOT_FOUND)
            error.retry_after_s = 0.001
            return error

    upstream = FakeUpstream([Eager(FILM)])
    swarm = Swarm(MemoryCachedFile(FILM), upstream.peers, upstream, STALL_S)
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        with trio.move_on_after(20):
            await swarm.read(0, READ_BYTES)
        nursery.cancel_scope.cancel()

    assert asked <= 45


async def test_who_is_found_after_64_dead_ones_is_used(autojump_clock: MockClock):
    upstream = FakeUpstream([*(dead() for _ in range(MAX_KNOWN_SOURCES)), good()])
    upstream.found = [peer(MAX_KNOWN_SOURCES)]
    cached = MemoryCachedFile(FILM)
    swarm = Swarm(cached, upstream.peers[:-1], upstream, STALL_S)
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        with trio.fail_after(5):
            await swarm.read(0, READ_BYTES)
        nursery.cancel_scope.cancel()


def promises(count: int, host: str) -> list[PeerInfo]:
    return [
        PeerInfo(peer(number).id, "", (Address(host, 4774),)) for number in range(100, 100 + count)
    ]


def test_promises_of_one_address_do_not_take_all_places():
    picker = Picker(100 * BLOCK, "z" * 32)
    picker.add_sources(promises(MAX_KNOWN_SOURCES, "10.6.6.6"))

    picker.add_sources([PeerInfo(peer(1).id, "", (Address("10.0.0.1", 4774),))])

    assert peer(1).id in picker._sources
    assert len(picker._sources) == MAX_KNOWN_SOURCES


def test_a_liar_that_made_room_is_not_taken_back():
    picker = Picker(100 * BLOCK, "z" * 32)
    picker.add_sources(promises(MAX_KNOWN_SOURCES, "10.6.6.6"))
    liar = picker.next_requests(0.0, [0], [])[0]
    picker.failed(liar, Trouble.CORRUPT, 0.0)
    picker.add_sources([peer(1)])
    assert liar.source.id not in picker._sources

    elsewhere = (Address("10.0.0.9", 4774),)  # where it would find a place
    picker.add_sources([PeerInfo(liar.source.id, "", elsewhere)])

    assert liar.source.id not in picker._sources


@pytest.mark.parametrize("size", [MIB, 1 << 40])
async def test_a_manifest_that_never_comes_is_waited_for_no_longer_than_the_stall_time(
    size: int, autojump_clock: MockClock
):
    cached = MemoryCachedFile(FILM)
    cached.size = size
    await until_failed(Swarm(cached, [peer(0)], FakeUpstream([dead()]), STALL_S), StalledError)


async def test_who_says_soon_without_end_is_waited_for_no_longer_than_the_stall_time(
    autojump_clock: MockClock,
):
    error = RejectedError("soon", RejectCode.BUSY)
    error.retry_after_s = 1.0
    upstream = FakeUpstream([FakeSource(FILM, error=error) for _ in range(8)])

    await until_failed(Swarm(MemoryCachedFile(FILM), upstream.peers, upstream, STALL_S), BusyError)


async def until_failed(swarm: Swarm, why: type[Exception]) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        with trio.fail_after(STALL_S + 1), pytest.raises(why):
            await swarm.read(0, 100)
        nursery.cancel_scope.cancel()


async def test_bytes_are_progress_though_no_block_is_whole(autojump_clock: MockClock):
    slow = good(BLOCK / (3 * STALL_S))
    swarm = Swarm(MemoryCachedFile(FILM), [peer(0)], FakeUpstream([slow]), STALL_S)
    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        with trio.fail_after(8 * STALL_S):
            assert len(await swarm.read(0, 100)) == 100
        nursery.cancel_scope.cancel()


def test_others_have_no_more_fetched_than_our_own_readers_have_read_and_a_window():
    ahead = ReadAhead(1000 * BLOCK)
    ahead.advance(0, 10, 0.0)

    promised = 0
    for index in range(1, 1000):
        if ahead.promise(index):
            promised += 1
            ahead.arrived(index)

    assert promised <= MAX_PROMISED + 1
