"""The swarm: right bytes or the right error, quickly, whatever the sources do."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from p2pfs.cache import BlockCache
from p2pfs.download.outstanding import MAX_IN_FLIGHT_BYTES
from p2pfs.download.patience import OUT_OF_REACH_S
from p2pfs.download.source import MANIFEST
from p2pfs.download.swarm import Swarm
from p2pfs.errors import (
    BusyError,
    CacheFullError,
    CorruptError,
    LinkClosedError,
    NoSourceError,
    NotAskedError,
    P2pfsError,
    RejectedError,
    RemoteProtocolError,
    ShutdownError,
    StaleError,
    StalledError,
    TransferError,
    UnreachableError,
)
from p2pfs.protocol.flood import Urgency
from p2pfs.protocol.manifest import MIB
from p2pfs.protocol.messages import RejectCode
from tests.helpers.contents import Content
from tests.helpers.sizes import BLOCK, INTERESTING_SIZES
from tests.helpers.threads import run_directly
from tests.helpers.upstream import STALL_S, FakeSource, FakeUpstream, open_swarm, peer

GONE = UnreachableError("refused")
STALE = RejectedError("changed", RejectCode.STALE)
PAUSED = RejectedError("paused", RejectCode.PAUSED)
ABSENT = RejectedError("no such content", RejectCode.NOT_FOUND)
SOON = RejectedError("not here yet", RejectCode.NOT_FOUND, retry_after_s=0.2)
SHORT_STALL_S = 2.0
READ_BYTES = 128 * 1024  # what the kernel asks for when a file is read in sequence


async def read_all(swarm: Swarm, size: int, *, step: int = READ_BYTES) -> bytes:
    """Read as a mount does: from the cache if it is there, else through the swarm."""
    parts = []
    for offset in range(0, size, step):
        length = min(step, size - offset)
        descriptor = swarm.locate_nowait(offset, length)
        if descriptor is None:
            descriptor = await swarm.locate(offset, length)
        parts.append(os.pread(descriptor, length, offset))
        await trio.lowlevel.checkpoint()
    return b"".join(parts)


# What is read


@pytest.mark.parametrize("size", INTERESTING_SIZES)
async def test_one_source_gives_every_size(
    tmp_path: Path, size: int, autojump_clock: MockClock
) -> None:
    content = Content.of(size)
    upstream = FakeUpstream([FakeSource(content)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await read_all(swarm, size) == content.data
        assert await swarm.read(0, size + 100) == content.data
        assert await swarm.read(size, 10) == b""


async def test_an_empty_file_asks_nobody(tmp_path: Path, autojump_clock: MockClock) -> None:
    content = Content.of(0)
    upstream = FakeUpstream([FakeSource(content)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await swarm.read(0, 4096) == b""

    assert upstream.requests == []


async def test_manifest_and_block_are_asked_for_in_one_go(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(20 * BLOCK)
    source = FakeSource(content, latency_s=0.5)
    upstream = FakeUpstream([source])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        started_at = trio.current_time()
        assert await swarm.read(10 * BLOCK, 4096) == content.part(10 * BLOCK, 4096)

        assert trio.current_time() - started_at == pytest.approx(0.5)
    assert sorted(upstream.requests[:2]) == [(peer(0).id, MANIFEST), (peer(0).id, 10)]


async def test_a_small_file_is_one_exchange_with_one_source(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(10_240)
    upstream = FakeUpstream([FakeSource(content) for _ in range(3)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await swarm.read(0, 128 * 1024) == content.data

    assert sorted(upstream.requests) == [(peer(0).id, MANIFEST), (peer(0).id, 0)]


async def test_what_is_read_in_sequence_is_asked_for_in_sequence(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(40 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, rate_bytes_s=2e6)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        for offset in range(0, content.size, READ_BYTES):
            await swarm.read(offset, READ_BYTES)

    asked = [index for index in upstream.requests_of(0) if index != MANIFEST]
    assert asked == list(range(40))


async def test_a_random_read_fetches_its_block_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(20 * BLOCK)
    upstream = FakeUpstream([FakeSource(content)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        await swarm.read(7 * BLOCK + 12, 4096)
        await trio.sleep(5)
        await swarm.read(3 * BLOCK, 4096)
        await trio.sleep(5)

    assert upstream.request_counts() == {MANIFEST: 1, 7: 1, 3: 1}


async def test_two_readers_share_each_transfer(tmp_path: Path, autojump_clock: MockClock) -> None:
    content = Content.of(30 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, rate_bytes_s=4 * MIB)])
    got = []

    async def reader(swarm: Swarm) -> None:
        got.append(await read_all(swarm, content.size))

    async with open_swarm(tmp_path, content, upstream) as swarm, trio.open_nursery() as nursery:
        nursery.start_soon(reader, swarm)
        nursery.start_soon(reader, swarm)

    assert got == [content.data, content.data]
    assert set(upstream.request_counts().values()) == {1}


async def test_two_readers_at_different_places_both_do_well(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Together they are as quick as the source, and neither waits for the other's end."""
    content = Content.of(160 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, rate_bytes_s=10 * MIB)])
    ended_at: list[float] = []

    async def reader(swarm: Swarm, first: int) -> None:
        for offset in range(first * BLOCK, (first + 80) * BLOCK, READ_BYTES):
            assert await swarm.read(offset, READ_BYTES) == content.part(offset, READ_BYTES)
        ended_at.append(trio.current_time())

    async with open_swarm(tmp_path, content, upstream) as swarm:
        started_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, swarm, 0)
            nursery.start_soon(reader, swarm, 80)

    ideal_s = content.size / (10 * MIB)
    assert all(0.7 * ideal_s < time - started_at < 1.1 * ideal_s for time in ended_at)


async def test_a_cancelled_reader_disturbs_no_other(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(8 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, latency_s=1)])
    got = []

    async def reader(swarm: Swarm) -> None:
        got.append(await swarm.read(0, 2 * BLOCK))

    async with open_swarm(tmp_path, content, upstream) as swarm, trio.open_nursery() as nursery:
        nursery.start_soon(reader, swarm)
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.5) as scope:
            await swarm.read(BLOCK, BLOCK)

    assert scope.cancelled_caught
    assert got == [content.data[: 2 * BLOCK]]


async def test_when_the_last_reader_goes_the_transfers_end_by_themselves(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(400 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, rate_bytes_s=4 * MIB)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        with trio.move_on_after(2):
            await read_all(swarm, content.size)
        await trio.sleep(20)

        assert upstream.pending == 0
        assert swarm.statistics().state == "idle"
        assert swarm.statistics().done_bytes < 2 * 4 * MIB + 17 * MIB


async def test_a_seek_is_served_before_the_read_ahead(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(200 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, rate_bytes_s=2 * MIB)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        await read_all(swarm, 20 * BLOCK)
        for place in (150, 60, 199, 3):
            started_at = trio.current_time()
            assert await swarm.read(place * BLOCK, 4096) == content.part(place * BLOCK, 4096)
            assert trio.current_time() - started_at < 1.5


async def test_sequential_reading_keeps_the_source_busy_though_reads_are_cached(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(200 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, latency_s=0.1, rate_bytes_s=20 * MIB)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        started_at = trio.current_time()
        assert await read_all(swarm, content.size) == content.data

        assert trio.current_time() - started_at < 1.15 * content.size / (20 * MIB) + 0.3


async def test_never_more_than_the_limit_is_in_flight(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(300 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, latency_s=0.2) for _ in range(8)])
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, upstream.pending)
            await trio.sleep(0.01)

    async with open_swarm(tmp_path, content, upstream) as swarm, trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        assert await read_all(swarm, content.size) == content.data
        nursery.cancel_scope.cancel()

    assert 16 < most <= MAX_IN_FLIGHT_BYTES // BLOCK + 1


# Several sources


async def test_a_source_that_joins_is_used_within_two_seconds(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(200 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, rate_bytes_s=5e6) for _ in range(2)])
    late = upstream.sources.pop(peer(1).id)

    async with open_swarm(tmp_path, content, upstream) as swarm, trio.open_nursery() as nursery:
        nursery.start_soon(read_all, swarm, content.size)
        await trio.sleep(3)
        upstream.sources[peer(1).id] = late
        swarm.add_sources([peer(1)])
        await trio.sleep(2)
        assert len(upstream.requests_of(1)) > 5
        nursery.cancel_scope.cancel()


async def test_one_liar_among_honest_ones_is_dropped_and_blamed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(60 * BLOCK)
    sources = [FakeSource(content, rate_bytes_s=10e6) for _ in range(4)]
    sources[0].lies_about = range(60)
    upstream = FakeUpstream(sources)

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await read_all(swarm, content.size) == content.data
        assert swarm.statistics().sources == 3

    assert set(upstream.blamed) == {peer(0).id}
    assert len(upstream.requests_of(0)) <= 4


async def test_a_wrong_manifest_drops_its_source(tmp_path: Path, autojump_clock: MockClock) -> None:
    content = Content.of(3 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, lies_about=[MANIFEST]), FakeSource(content)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await read_all(swarm, content.size) == content.data

    assert upstream.blamed == [peer(0).id]


async def test_a_silent_source_at_the_start_costs_less_than_three_seconds(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(10 * BLOCK)
    sources = [FakeSource(content), FakeSource(content)]
    sources[0].stop()

    async with open_swarm(tmp_path, content, FakeUpstream(sources)) as swarm:
        started_at = trio.current_time()
        assert await read_all(swarm, content.size) == content.data

        assert trio.current_time() - started_at < 3


async def test_a_reader_hardly_notices_that_one_of_four_sources_stopped(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(400 * BLOCK)
    sources = [FakeSource(content, rate_bytes_s=20e6) for _ in range(4)]
    waits = []

    async with open_swarm(tmp_path, content, FakeUpstream(sources)) as swarm:
        for offset in range(0, content.size, READ_BYTES):
            if offset == 100 * BLOCK:
                sources[2].stop()
            started_at = trio.current_time()
            assert await swarm.read(offset, READ_BYTES) == content.part(offset, READ_BYTES)
            waits.append(trio.current_time() - started_at)

    assert max(waits) < 1.5
    ideal_s = 100 * BLOCK / 80e6 + 300 * BLOCK / 60e6
    assert sum(waits) < ideal_s + 0.5


async def test_killing_sources_leaves_a_whole_file(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(120 * BLOCK)
    sources = [FakeSource(content, rate_bytes_s=4e6) for _ in range(6)]

    async with open_swarm(tmp_path, content, FakeUpstream(sources)) as swarm:
        for offset in range(0, content.size, READ_BYTES):
            if offset in (20 * BLOCK, 50 * BLOCK, 51 * BLOCK):
                sources[offset // BLOCK % 6].vanish(GONE)
            assert await swarm.read(offset, READ_BYTES) == content.part(offset, READ_BYTES)


async def test_the_last_blocks_do_not_wait_for_a_slow_source(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(20 * BLOCK)
    sources = [FakeSource(content, rate_bytes_s=10e6), FakeSource(content, rate_bytes_s=0.3e6)]

    async with open_swarm(tmp_path, content, FakeUpstream(sources)) as swarm:
        started_at = trio.current_time()
        assert await read_all(swarm, content.size) == content.data

        assert trio.current_time() - started_at < 3


# Failures: file-system.md, "When a read fails"


async def fails_with(swarm: Swarm, error: type[TransferError]) -> float:
    """Return how long it took a read to fail with this error."""
    started_at = trio.current_time()
    with pytest.raises(error):
        await swarm.read(0, 4096)
    return trio.current_time() - started_at


async def test_all_silent_is_a_stall_after_the_stall_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(4 * BLOCK)
    sources = [FakeSource(content), FakeSource(content)]
    for source in sources:
        source.stop()
    upstream = FakeUpstream(sources)

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await fails_with(swarm, StalledError) == pytest.approx(STALL_S)
        await wait_all_tasks_blocked()
        assert upstream.pending == 0
        assert swarm.statistics().state == "failed"

        for source in sources:
            source.go_on()
        assert await swarm.read(0, 4096) == content.data[:4096]
        assert swarm.statistics().state != "failed"


async def test_what_was_never_reached_is_given_up_after_seconds_and_some_searches(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(BLOCK)
    upstream = FakeUpstream([FakeSource(content, error=GONE) for _ in range(2)], search_s=0.0)

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await fails_with(swarm, NoSourceError) == pytest.approx(OUT_OF_REACH_S, abs=0.1)

    gaps = [b - a for a, b in zip(upstream.searched_at, upstream.searched_at[1:], strict=False)]
    assert gaps == pytest.approx([1, 2], abs=0.1)


async def test_a_source_that_has_given_and_is_gone_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(2 * BLOCK)
    source = FakeSource(content, lacks=[1])
    upstream = FakeUpstream([source], search_s=0.0)

    async with open_swarm(tmp_path, content, upstream) as swarm:
        await swarm.read(0, BLOCK)
        source.lacks, source.error = [], GONE
        began_at = trio.current_time()
        with pytest.raises(NoSourceError):
            await swarm.read(BLOCK, 4096)
        assert trio.current_time() - began_at == pytest.approx(STALL_S, abs=1)


async def test_no_source_at_all_is_no_source(tmp_path: Path, autojump_clock: MockClock) -> None:
    content = Content.of(BLOCK)

    async with open_swarm(tmp_path, content, FakeUpstream([])) as swarm:
        assert await fails_with(swarm, NoSourceError) == pytest.approx(STALL_S, abs=0.1)


async def test_a_search_that_was_not_allowed_counts_as_none(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(4 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, error=STALE), FakeSource(content)])
    del upstream.sources[peer(1).id]
    upstream.is_over_budget = True

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await fails_with(swarm, NotAskedError) == pytest.approx(STALL_S, abs=0.1)
        upstream.is_over_budget = False
        assert await fails_with(swarm, StaleError) < 2


async def test_the_first_search_of_a_reader_is_urgent_and_the_next_are_not(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(BLOCK)
    upstream = FakeUpstream([FakeSource(content, error=GONE)], search_s=0.0)

    async with open_swarm(tmp_path, content, upstream) as swarm:
        await fails_with(swarm, NoSourceError)

    first, *others = upstream.urgencies
    assert first is Urgency.PERSON
    assert set(others) == {Urgency.SOURCES}


async def test_lies_from_all_are_corrupt_after_one_more_search(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(4 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, lies_about=range(4)) for _ in range(3)])
    upstream.found = upstream.peers

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await fails_with(swarm, CorruptError) < 1
        assert await fails_with(swarm, CorruptError) < 1

    assert Counter(upstream.blamed) == {peer(number).id: 1 for number in range(3)}


async def test_changed_everywhere_is_stale_after_one_more_search(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(4 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, error=STALE) for _ in range(2)])
    upstream.found = upstream.peers

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await fails_with(swarm, StaleError) < 2

    assert len(upstream.searched_at) == 1


async def test_unpublished_during_the_read_is_stale_and_another_holder_takes_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(40 * BLOCK)
    upstream = FakeUpstream([FakeSource(content), FakeSource(content)])
    spare = upstream.sources.pop(peer(1).id)

    async with open_swarm(tmp_path, content, upstream) as swarm:
        await swarm.read(0, 4096)
        upstream.sources[peer(0).id].error = STALE
        with pytest.raises(StaleError):
            await swarm.read(30 * BLOCK, 4096)

        upstream.sources[peer(1).id] = spare
        upstream.found = [peer(1)]
        assert await swarm.read(30 * BLOCK, 4096) == content.block(30)[:4096]


async def test_a_holder_that_was_gone_for_a_moment_and_lacks_it_since_is_stale(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(40 * BLOCK)
    source = FakeSource(content)
    upstream = FakeUpstream([source])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        await swarm.read(0, 4096)
        source.error = LinkClosedError("it restarts")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(StaleError):
                    await swarm.read(30 * BLOCK, 4096)

            await trio.sleep(0.02)
            source.error = ABSENT


@pytest.mark.parametrize("error", [STALE, ABSENT])
async def test_unpublished_is_stale_though_a_search_has_just_found_its_holder_again(
    tmp_path: Path, autojump_clock: MockClock, error: RejectedError
) -> None:
    content = Content.of(40 * BLOCK)
    source = FakeSource(content)
    upstream = FakeUpstream([source], search_s=0.8 * SHORT_STALL_S)
    upstream.found = upstream.peers

    async with open_swarm(tmp_path, content, upstream, stall_s=SHORT_STALL_S) as swarm:
        await swarm.read(0, 4096)
        source.error, source.latency_s = error, 0.15 * SHORT_STALL_S
        with pytest.raises(StaleError):
            await swarm.read(30 * BLOCK, 4096)

    assert len(upstream.searched_at) == 1


async def test_a_holder_that_is_stuck_is_silent_whatever_it_has_said(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(40 * BLOCK)
    source = FakeSource(content)
    upstream = FakeUpstream([source])
    upstream.found = upstream.peers

    async with open_swarm(tmp_path, content, upstream) as swarm:
        await swarm.read(0, 4096)
        source.error = STALE
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def read() -> None:
                with pytest.raises(StalledError):
                    await swarm.read(30 * BLOCK, 4096)

            await trio.sleep(0.05)
            source.latency_s = math.inf


async def test_a_search_that_takes_longer_than_the_stall_time_is_a_stall(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(BLOCK)
    upstream = FakeUpstream([FakeSource(content, error=ABSENT)], search_s=2 * SHORT_STALL_S)

    async with open_swarm(tmp_path, content, upstream, stall_s=SHORT_STALL_S) as swarm:
        assert await fails_with(swarm, StalledError) == pytest.approx(SHORT_STALL_S, abs=0.1)


async def test_nobody_has_it_any_more_is_stale(tmp_path: Path, autojump_clock: MockClock) -> None:
    content = Content.of(4 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, error=ABSENT)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await fails_with(swarm, StaleError) < 2


async def test_sources_that_have_parts_make_a_whole_together(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(20 * BLOCK)
    sources = [FakeSource(content, lacks=range(start, 20, 2)) for start in (0, 1)]

    async with open_swarm(tmp_path, content, FakeUpstream(sources)) as swarm:
        assert await read_all(swarm, content.size) == content.data


async def test_a_block_that_nobody_has_fails_its_readers_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(200 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, lacks=[50], rate_bytes_s=4e6)])
    got = []

    async def reader(swarm: Swarm) -> None:
        got.append(await swarm.read(100 * BLOCK, 40 * BLOCK))

    async with open_swarm(tmp_path, content, upstream) as swarm, trio.open_nursery() as nursery:
        nursery.start_soon(reader, swarm)
        with pytest.raises(StaleError):
            await swarm.read(50 * BLOCK, 4096)

    assert got == [content.part(100 * BLOCK, 40 * BLOCK)]


async def test_refusals_until_the_stall_time_are_busy(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(BLOCK)
    upstream = FakeUpstream([FakeSource(content, error=PAUSED)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await fails_with(swarm, BusyError) == pytest.approx(STALL_S, abs=0.1)


async def test_soon_until_the_stall_time_is_busy(tmp_path: Path, autojump_clock: MockClock) -> None:
    content = Content.of(40 * BLOCK)
    source = FakeSource(content)

    async with open_swarm(tmp_path, content, FakeUpstream([source])) as swarm:
        await swarm.read(0, 4096)
        source.error = SOON
        with pytest.raises(BusyError):
            await swarm.read(30 * BLOCK, 4096)


async def test_a_source_is_asked_again_when_it_said(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(BLOCK)
    source = FakeSource(content, latency_s=0.0)
    source.error = RejectedError("slots taken", RejectCode.BUSY, retry_after_s=7.0)
    upstream = FakeUpstream([source])
    upstream.found = upstream.peers

    async with open_swarm(tmp_path, content, upstream) as swarm, trio.open_nursery() as nursery:
        started_at = trio.current_time()
        nursery.start_soon(swarm.read, 0, 4096)
        await trio.sleep(3)
        source.error = None

    asked_s = sorted({time - started_at for time in upstream.requested_at})
    assert asked_s == pytest.approx([0, 7])


async def test_a_source_that_vanished_and_came_back_is_used_again(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(60 * BLOCK)
    source = FakeSource(content, rate_bytes_s=4e6)
    upstream = FakeUpstream([source])
    got = []

    async def reader(swarm: Swarm) -> None:
        got.append(await read_all(swarm, content.size))

    async with open_swarm(tmp_path, content, upstream) as swarm, trio.open_nursery() as nursery:
        nursery.start_soon(reader, swarm)
        await trio.sleep(1)
        source.vanish(GONE)
        await trio.sleep(12)
        source.error = None

    assert got == [content.data]


async def test_an_ended_link_is_dialled_anew_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(4 * BLOCK)
    source = FakeSource(content, error=LinkClosedError("idle"))
    upstream = FakeUpstream([source])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        started_at = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(swarm.read, 0, BLOCK)
            await trio.sleep(0.02)
            source.error = None

        assert trio.current_time() - started_at < 0.2


async def test_a_search_in_need_brings_the_source_that_saves_the_read(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(4 * BLOCK)
    upstream = FakeUpstream([FakeSource(content, error=GONE), FakeSource(content)])
    upstream.found = [peer(1)]
    spare = upstream.peers[:1]

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert spare == [peer(0)]
        assert await swarm.read(0, 4096) == content.data[:4096]


async def test_a_peer_that_breaks_the_protocol_is_left_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(4 * BLOCK)
    rogue = FakeSource(content, error=RemoteProtocolError("nonsense"))
    upstream = FakeUpstream([rogue, FakeSource(content)])

    async with open_swarm(tmp_path, content, upstream) as swarm:
        assert await read_all(swarm, content.size) == content.data

    assert upstream.blamed == []
    assert len(upstream.requests_of(0)) <= 3


async def test_a_wrong_announced_size_is_corrupt_and_nobody_is_blamed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(4 * BLOCK)
    upstream = FakeUpstream([FakeSource(content)])

    async with open_swarm(tmp_path, content, upstream, size=content.size + 5) as swarm:
        assert await fails_with(swarm, CorruptError) < 1

    assert upstream.blamed == []


async def test_a_full_cache_fails_the_read_and_room_mends_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(8 * BLOCK)
    cache = BlockCache(str(tmp_path), 3 * BLOCK, run_directly)
    cached = cache.open_file(content.file_id, content.size)
    upstream = FakeUpstream([FakeSource(content)])
    swarm = Swarm(cached, upstream.peers, upstream, STALL_S)

    async with trio.open_nursery() as nursery:
        await nursery.start(swarm.run)
        assert await swarm.read(0, BLOCK) == content.block(0)
        with pytest.raises(CacheFullError):
            await swarm.read(4 * BLOCK, 4 * BLOCK)
        assert cache.used_bytes <= cache.limit_bytes

        cache.limit_bytes = 1 << 30
        assert await read_all(swarm, content.size) == content.data
        nursery.cancel_scope.cancel()
    cached.close()


async def test_the_end_of_the_swarm_releases_its_readers(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(8 * BLOCK)
    source = FakeSource(content)
    source.stop()
    upstream = FakeUpstream([source])
    outcomes = []

    async def reader(swarm: Swarm) -> None:
        with pytest.raises(ShutdownError):
            await swarm.read(0, 4096)
        outcomes.append("released")

    async with trio.open_nursery() as nursery:
        async with open_swarm(tmp_path, content, upstream) as swarm:
            nursery.start_soon(reader, swarm)
            await wait_all_tasks_blocked()
        with pytest.raises(ShutdownError):
            await swarm.read(0, 4096)

    assert outcomes == ["released"]
    assert upstream.pending == 0


async def test_sixty_stuck_readers_all_get_their_error(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(64 * BLOCK)
    source = FakeSource(content)
    source.stop()
    errors = []

    async def reader(swarm: Swarm, index: int) -> None:
        with pytest.raises(StalledError) as caught:
            await swarm.read(index * BLOCK, 4096)
        errors.append(caught.value)

    upstream = FakeUpstream([source])
    async with open_swarm(tmp_path, content, upstream) as swarm, trio.open_nursery() as nursery:
        for index in range(60):
            nursery.start_soon(reader, swarm, index)

    assert len(set(map(id, errors))) == 60


# Restarts


async def test_a_restart_fetches_only_what_is_missing_or_damaged(
    tmp_path: Path, autojump_clock: MockClock, expect_log: Callable[[str], None]
) -> None:
    expect_log("is damaged")
    content = Content.of(12 * BLOCK)
    upstream = FakeUpstream([FakeSource(content)])
    async with open_swarm(tmp_path, content, upstream) as swarm:
        await swarm.read(0, 6 * BLOCK)
        await trio.sleep(1)
        had = {index for index in upstream.request_counts() if index != MANIFEST}
    (name,) = tmp_path.iterdir()
    with name.open("r+b") as raw:
        raw.seek(2 * BLOCK + 5)
        raw.write(bytes([content.data[2 * BLOCK + 5] ^ 0x80]))

    again = FakeUpstream([FakeSource(content)])
    async with open_swarm(tmp_path, content, again) as swarm:
        assert await read_all(swarm, content.size) == content.data

    assert set(again.request_counts()) == set(range(12)) - had | {2}


async def test_a_whole_cached_file_needs_no_network(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(5 * BLOCK + 3)
    async with open_swarm(tmp_path, content, FakeUpstream([FakeSource(content)])) as swarm:
        await read_all(swarm, content.size)

    offline = FakeUpstream([])
    async with open_swarm(tmp_path, content, offline) as swarm:
        assert await read_all(swarm, content.size) == content.data

    assert offline.searched_at == []


# The law

FAULTS = st.sampled_from(
    [None, "lie", "stop", GONE, STALE, PAUSED, ABSENT, LinkClosedError("x"), "vanish", "manifest"]
)


@given(
    faults=st.lists(st.tuples(FAULTS, st.floats(0, 20)), max_size=5),
    reads=st.lists(
        st.tuples(st.integers(0, 8 * BLOCK), st.integers(1, 2 * BLOCK), st.floats(0, 10)),
        min_size=1,
        max_size=5,
    ),
    found=st.booleans(),
)
@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_every_read_gives_the_right_bytes_or_an_error_of_the_table(
    tmp_path_factory: pytest.TempPathFactory,
    autojump_clock: MockClock,
    faults: list[tuple[str | P2pfsError | None, float]],
    reads: list[tuple[int, int, float]],
    found: bool,
) -> None:
    """Sources turn faulty at random moments; reads come at others. None hangs."""
    content = Content.of(8 * BLOCK - 100)
    sources = [FakeSource(content, rate_bytes_s=1e6) for _ in faults]
    upstream = FakeUpstream(sources)
    upstream.found = upstream.peers if found else ()

    async def fault(source: FakeSource, kind: str | P2pfsError | None, after_s: float) -> None:
        await trio.sleep(after_s)
        match kind:
            case "lie":
                source.lies_about = range(8)
            case "manifest":
                source.lies_about = [MANIFEST]
            case "stop":
                source.stop()
            case "vanish":
                source.vanish(GONE)
            case P2pfsError():
                source.error = kind

    async def read(swarm: Swarm, offset: int, length: int, after_s: float) -> None:
        await trio.sleep(after_s)
        started_at = trio.current_time()
        with suppress(NoSourceError, StalledError, CorruptError, StaleError, BusyError):
            data = await swarm.read(offset, length)
            assert data == content.data[offset : offset + length]
        assert trio.current_time() - started_at < 3 * STALL_S

    path = tmp_path_factory.mktemp("cache")
    async with open_swarm(path, content, upstream) as swarm, trio.open_nursery() as nursery:
        for source, (kind, after_s) in zip(sources, faults, strict=True):
            nursery.start_soon(fault, source, kind, after_s)
        for offset, length, after_s in reads:
            nursery.start_soon(read, swarm, offset, length, after_s)


async def test_an_honest_source_among_any_faulty_ones_is_enough(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = Content.of(30 * BLOCK)
    sources = [
        FakeSource(content, lies_about=range(30)),
        FakeSource(content, error=GONE),
        FakeSource(content, error=STALE),
        FakeSource(content, error=PAUSED),
        FakeSource(content, rate_bytes_s=1e6),
        FakeSource(content, rate_bytes_s=math.inf),
    ]
    sources[5].stop()

    async with open_swarm(tmp_path, content, FakeUpstream(sources)) as swarm:
        assert await read_all(swarm, content.size) == content.data
