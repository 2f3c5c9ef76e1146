"""The picker: which block from which source next, with time as a number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfs.download.known import MAX_KNOWN_SOURCES, MAX_SOURCES
from p2pfs.download.outstanding import MAX_AHEAD_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_BYTES
from p2pfs.download.picker import Picker
from p2pfs.download.probing import PROBE_AFTER_S, Probes
from p2pfs.download.rendezvous import Rendezvous
from p2pfs.download.sharing import ASSIGNED_PATIENCE_S, CREDIT_BLOCKS, CREDIT_S
from p2pfs.download.source import (
    DOUBT,
    FIRST_BLOCKS,
    MANIFEST,
    MAX_PAUSE_S,
    MIN_PATIENCE_S,
    RATE_MEMORY_S,
    UNPROVEN_DOUBT,
    UNPROVEN_PATIENCE_S,
    RateMeter,
    Request,
    Source,
)
from p2pfs.download.standing import Trouble
from p2pfs.protocol import MIB, PeerInfo, ServentId
from p2pfs.protocol.manifest import GIB
from tests.helpers.sizes import BLOCK
from tests.helpers.upstream import peer

SIZE = 100 * BLOCK
OWN_ID = ServentId("z" * 32)


def picker_with(count: int, size: int = SIZE) -> Picker:
    picker = Picker(size, OWN_ID)
    picker.add_sources(peer(number) for number in range(count))
    return picker


def arrive(picker: Picker, request: Request, now: float) -> None:
    picker.received(request, now)
    picker.ended(request, now)


def prove(picker: Picker, rates: list[float], now: float) -> float:
    """Let every source show its rate with one block each; return the time after."""
    slowest = max(BLOCK / rate for rate in rates)
    requests: dict[str, Request] = {}
    for request in picker.next_requests(now, [], range(FIRST_BLOCKS * len(rates))):
        if request.source.id in requests:
            picker.ended(request, now)
        requests.setdefault(request.source.id, request)
    for number, rate in enumerate(rates):
        picker.received(requests[peer(number).id], now + BLOCK / rate)
    for request in requests.values():
        picker.ended(request, now + slowest)
    return now + slowest


def indexes_of(requests: list[Request], source: PeerInfo) -> list[int]:
    return [request.index for request in requests if request.source == source]


def test_what_a_reader_waits_for_comes_before_read_ahead() -> None:
    requests = picker_with(1).next_requests(0.0, [MANIFEST, 40], range(41, 60))

    assert [request.index for request in requests] == [MANIFEST, 40, 41]


def test_an_unproven_source_gets_two_blocks_beside_the_manifest() -> None:
    requests = picker_with(3).next_requests(0.0, [MANIFEST], range(100))

    assert indexes_of(requests, peer(0)) == [MANIFEST, 0, 1]
    assert indexes_of(requests, peer(1)) == [2, 3]
    assert indexes_of(requests, peer(2)) == [4, 5]


def test_nothing_is_asked_for_twice() -> None:
    picker = picker_with(2)
    first = picker.next_requests(0.0, [0], range(1, 10))

    assert picker.next_requests(0.1, [0], range(1, 4)) == []
    picker.received(first[0], 0.1)
    again = picker.next_requests(0.1, [0], range(1, 4))
    assert 0 not in [request.index for request in again]


def test_at_most_eight_sources_are_asked() -> None:
    requests = picker_with(12).next_requests(0.0, range(100), [])

    assert len({request.source.id for request in requests}) == MAX_SOURCES


def test_sources_beyond_the_limit_are_not_remembered() -> None:
    picker = Picker(SIZE, OWN_ID)

    picker.add_sources(PeerInfo(f"{number:a>32}", "", ()) for number in range(200))

    assert picker.source_count == MAX_KNOWN_SOURCES


def test_a_proven_source_gets_a_second_of_its_rate() -> None:
    picker = picker_with(1)
    now = prove(picker, [3 * MIB], 0.0)

    requests = picker.next_requests(now, [], range(10, 100))

    assert sum(request.length for request in requests) == 3 * MIB


def test_read_ahead_leaves_room_for_a_seek() -> None:
    picker = picker_with(1, size=GIB)
    now = prove(picker, [1e9], 0.0)

    ahead = picker.next_requests(now, [], range(10, 1000))
    demanded = picker.next_requests(now, range(2000, 2100), [])

    assert sum(request.length for request in ahead) == MAX_AHEAD_IN_FLIGHT_BYTES
    assert sum(request.length for request in demanded) == (
        MAX_IN_FLIGHT_BYTES - MAX_AHEAD_IN_FLIGHT_BYTES
    )


def test_of_the_largest_blocks_one_is_on_its_way() -> None:
    requests = picker_with(3, size=1024 * GIB).next_requests(0.0, [5, 6], range(7, 20))

    assert [request.index for request in requests] == [5]
    assert requests[0].length == 64 * MIB


def test_sources_are_loaded_by_their_rates() -> None:
    picker = picker_with(2, size=GIB)
    now = prove(picker, [30e6, 10e6], 0.0)

    requests = picker.next_requests(now, [], range(10, 1000))

    fast, slow = (len(indexes_of(requests, peer(number))) for number in range(2))
    assert fast == pytest.approx(3 * slow, abs=3)


def test_a_waiting_reader_is_given_the_quickest_source() -> None:
    picker = picker_with(3)
    now = prove(picker, [1e6, 50e6, 5e6], 0.0)

    (request,) = picker.next_requests(now, [70], [])

    assert request.source == peer(1)


def test_a_forgotten_rate_is_measured_anew() -> None:
    picker = picker_with(1)
    now = prove(picker, [50e6], 0.0)

    requests = picker.next_requests(now + RATE_MEMORY_S + 1, [], range(10, 50))

    assert len(requests) == FIRST_BLOCKS


# Stuck sources


def test_a_silent_unproven_source_is_replaced_after_its_patience() -> None:
    picker = picker_with(2)
    (first,) = picker.next_requests(0.0, [0], [])
    in_doubt_at = UNPROVEN_DOUBT * UNPROVEN_PATIENCE_S
    assert picker.next_deadline(0.0) == PROBE_AFTER_S
    assert picker.next_deadline(PROBE_AFTER_S) == in_doubt_at
    assert picker.next_deadline(in_doubt_at) == UNPROVEN_PATIENCE_S

    assert picker.next_requests(UNPROVEN_PATIENCE_S - 0.01, [], [0]) == []
    (second,) = picker.next_requests(UNPROVEN_PATIENCE_S, [], [0])

    assert second.source != first.source
    assert picker.rivals(second) == (first, second)


def test_a_proven_source_that_stops_is_replaced_sooner() -> None:
    picker = picker_with(2)
    now = prove(picker, [20e6, 20e6], 0.0)
    (first,) = picker.next_requests(now, [50], [])

    (second,) = picker.next_requests(now + MIN_PATIENCE_S, [50], [])

    assert {first.source.id, second.source.id} == {peer(0).id, peer(1).id}


def test_what_a_reader_waits_for_is_asked_of_another_after_half_the_patience() -> None:
    picker = picker_with(2)
    now = prove(picker, [20e6, 20e6], 0.0)
    waited_for, ahead = picker.next_requests(now, [50], [51])
    arrive(picker, ahead, now)

    assert picker.next_requests(now + 0.9 * DOUBT * MIN_PATIENCE_S, [50], []) == []
    assert picker.next_requests(now + DOUBT * MIN_PATIENCE_S, [], [50]) == []
    (second,) = picker.next_requests(now + DOUBT * MIN_PATIENCE_S, [50], [])

    assert second.source == ahead.source != waited_for.source
    assert picker.next_requests(now + DOUBT * MIN_PATIENCE_S, [50], []) == []


def test_a_source_that_others_relieved_while_in_doubt_has_been_silent_all_the_time() -> None:
    picker = picker_with(2)
    now = prove(picker, [20e6, 20e6], 0.0)
    (silent,) = picker.next_requests(now, [50], [])
    now += 0.6 * MIN_PATIENCE_S
    (rescue,) = picker.next_requests(now, [50], [])
    arrive(picker, rescue, now)
    picker.ended(silent, now)

    requests = {r.source.id: r for r in picker.next_requests(now, [], [51, 52])}
    arrive(picker, requests.pop(rescue.source.id), now)
    (again,) = requests.values()
    now += 0.5 * MIN_PATIENCE_S

    assert [r.index for r in picker.next_requests(now, [], [again.index])] == [again.index]


def test_a_stuck_source_gets_nothing_new_and_a_block_redeems_it() -> None:
    picker = picker_with(1)
    (first, second) = picker.next_requests(0.0, [0, 1], [])

    assert picker.next_requests(5.0, [2], []) == []
    assert picker.is_starved(5.0, [2])
    arrive(picker, first, 5.0)

    assert not picker.is_starved(5.0, [2])
    assert second in picker.rivals(second)
    assert [request.index for request in picker.next_requests(5.0, [2], [])] == [2]


def test_a_stuck_source_that_others_relieved_is_left_alone_for_a_while() -> None:
    picker = picker_with(2)
    now = prove(picker, [20e6, 20e6], 0.0)
    (stuck,) = picker.next_requests(now, [50], [])
    now += MIN_PATIENCE_S
    (rescue,) = picker.next_requests(now, [50], [])
    arrive(picker, rescue, now + 0.01)
    picker.ended(stuck, now + 0.01)

    requests = picker.next_requests(now + 0.02, [51], range(52, 60))

    assert {request.source for request in requests} == {rescue.source}


def test_the_last_block_is_asked_of_a_quicker_source_too() -> None:
    picker = picker_with(1)
    now = prove(picker, [0.3e6], 0.0)
    slow, middle = picker.next_requests(now, [], [99, 50])
    picker.add_sources([peer(1)])
    (quick,) = picker.next_requests(now, [], [51])
    arrive(picker, quick, now + 0.01)

    (second,) = picker.next_requests(now + 0.01, [], [99, 50])

    assert (slow.source, second.source) == (peer(0), peer(1))
    assert (second.index, middle.index) == (99, 50)


# Troubled sources


def test_a_liar_is_never_asked_again() -> None:
    picker = picker_with(1)
    first, second = picker.next_requests(0.0, [0, 1], [])
    picker.received(first, 0.1)

    assert picker.lied(first.source) == (second,)
    for request in (first, second):
        picker.ended(request, 0.1)
    picker.add_sources([peer(0)])
    picker.forgive()

    assert picker.next_requests(100.0, [0], []) == []
    assert picker.is_hopeless(0)
    assert picker.verdict([0], 0.0) is Trouble.CORRUPT


def test_a_failing_source_is_asked_at_longer_and_longer_intervals() -> None:
    picker = picker_with(1)
    now, pauses = 0.0, []
    for _ in range(5):
        (request,) = picker.next_requests(now, [0], [])
        picker.failed(request, Trouble.UNREACHABLE, now)
        pauses.append(picker.next_deadline(now) - now)
        now = picker.next_deadline(now)

    assert pauses == [1, 2, 4, 8, 8]


def test_requests_that_fail_together_count_once() -> None:
    picker = picker_with(1)
    for request in picker.next_requests(0.0, [MANIFEST, 0, 1], []):
        picker.failed(request, Trouble.UNREACHABLE, 0.0)

    assert picker.next_deadline(0.0) == 1


def test_a_pause_is_kept_though_a_search_finds_the_source_but_has_an_end() -> None:
    picker = picker_with(1)
    (request,) = picker.next_requests(0.0, [0], [])
    picker.failed(request, Trouble.BUSY, 0.0, pause_s=4e6)

    picker.add_sources([peer(0)])

    assert picker.next_requests(MAX_PAUSE_S - 1, [0], []) == []
    assert len(picker.next_requests(MAX_PAUSE_S, [0], [])) == 1


def test_a_source_that_a_search_finds_again_is_asked_at_once() -> None:
    picker = picker_with(1)
    (request,) = picker.next_requests(0.0, [0], [])
    picker.failed(request, Trouble.STALE, 0.0)
    assert picker.is_hopeless(0)

    picker.add_sources([peer(0)])

    assert not picker.is_hopeless(0)
    assert len(picker.next_requests(0.0, [0], [])) == 1


def test_a_source_that_lacks_a_block_gives_the_others() -> None:
    picker = picker_with(1)
    (request,) = picker.next_requests(0.0, [7], [])
    picker.lacked(request, 0.0)

    assert picker.is_starved(0.0, [7])
    assert [request.index for request in picker.next_requests(0.0, [7, 8], [])] == [8]
    assert (picker.is_hopeless(7), picker.is_hopeless(8)) == (True, False)
    assert picker.verdict([7], 0.0) is Trouble.STALE


# Other readers


OTHER_READERS = [peer(number) for number in range(1, 5)]
RENDEZVOUS = Rendezvous(OWN_ID)
RENDEZVOUS.update(ServentId(reader.id) for reader in OTHER_READERS)
OTHERS_BLOCK = next(index for index in range(100) if RENDEZVOUS.reader_of(index))
OWN_BLOCK = next(index for index in range(100) if not RENDEZVOUS.reader_of(index))


def reader_of(index: int) -> PeerInfo:
    """Return the other reader that a block is assigned to."""
    return next(reader for reader in OTHER_READERS if reader.id == RENDEZVOUS.reader_of(index))


def picker_among_readers() -> Picker:
    """Return a picker with one source, peer 0, and other readers."""
    picker = picker_with(1)
    picker.add_sources(OTHER_READERS, are_readers=True)
    picker.next_requests(0.0, [], [])  # takes note of who the others are
    return picker


def test_a_block_is_asked_of_the_reader_whose_it_is() -> None:
    picker = picker_among_readers()

    (request,) = picker.next_requests(0.0, [OTHERS_BLOCK], [])

    assert request.source == reader_of(OTHERS_BLOCK)


def test_our_own_blocks_are_asked_of_the_source() -> None:
    picker = picker_among_readers()
    for request in picker.next_requests(0.0, [], range(40)):
        if request.source != peer(0):
            picker.lacked(request, 0.0, 0.2)

    assert picker.is_ours(OWN_BLOCK)
    (request,) = picker.next_requests(0.0, [OWN_BLOCK], []) or picker._outstanding.asked_for(
        OWN_BLOCK
    )
    assert request.source == peer(0)


def test_what_a_reader_will_have_soon_is_asked_for_again_and_then_of_the_source() -> None:
    picker = picker_among_readers()
    now = prove_source(picker)
    reader = reader_of(OTHERS_BLOCK)
    (first,) = picker.next_requests(now, [OTHERS_BLOCK], [])
    picker.lacked(first, now, 0.2)

    assert picker.next_requests(now + 0.1, [OTHERS_BLOCK], []) == []
    assert picker.next_deadline(now + 0.1) == pytest.approx(now + 0.2)
    (again,) = picker.next_requests(now + 0.3, [OTHERS_BLOCK], [])
    assert again.source == reader
    picker.lacked(again, now + 0.3, 5.0)
    assert picker.next_requests(now + 0.9 * CREDIT_S, [OTHERS_BLOCK], []) == []
    (instead,) = picker.next_requests(now + CREDIT_S, [OTHERS_BLOCK], [])
    assert instead.source == peer(0)


def test_who_has_given_much_is_waited_for_longer() -> None:
    picker = picker_among_readers()
    now = prove_source(picker)
    reader = picker._sources[reader_of(OTHERS_BLOCK).id]
    reader.given = 100
    (first,) = picker.next_requests(now, [OTHERS_BLOCK], [])
    picker.lacked(first, now, 5.0)

    assert picker.next_requests(now + 0.9 * ASSIGNED_PATIENCE_S, [OTHERS_BLOCK], []) == []
    (instead,) = picker.next_requests(now + ASSIGNED_PATIENCE_S, [OTHERS_BLOCK], [])
    assert instead.source == peer(0)


def test_what_a_reader_is_not_fetching_is_asked_of_the_source_at_once() -> None:
    picker = picker_among_readers()
    (first,) = picker.next_requests(0.0, [OTHERS_BLOCK], [])
    picker.lacked(first, 0.0)

    (instead,) = picker.next_requests(0.0, [OTHERS_BLOCK], [])

    assert instead.source == peer(0)


def test_what_the_only_source_will_have_soon_is_asked_for_again_however_long_that_takes() -> None:
    picker, now = picker_with(1), 0.0
    for request in picker.next_requests(now, [OWN_BLOCK], []):
        arrive(picker, request, now)

    asked_at = now
    while now < 10 * ASSIGNED_PATIENCE_S:
        for request in picker.next_requests(now, [OTHERS_BLOCK], []):
            picker.lacked(request, now, 0.2)
            asked_at = now
        picker.next_requests(now, [OTHERS_BLOCK], [])
        now = picker.next_deadline(now)
        assert now < asked_at + 1.0


def test_nothing_is_promised_if_nobody_has_the_whole() -> None:
    picker = Picker(SIZE, OWN_ID)
    picker.add_sources([peer(1)])
    (request,) = picker.next_requests(0.0, [OWN_BLOCK], [])
    assert picker.is_ours(OWN_BLOCK)

    picker.lacked(request, 0.0)

    assert not picker.is_ours(OWN_BLOCK)


def prove_source(picker: Picker, block_s: float = 0.01) -> float:
    """Let the source show what a block takes it; return the time after."""
    for request in picker.next_requests(0.0, [OWN_BLOCK], []):
        arrive(picker, request, block_s)
    return block_s


@pytest.mark.parametrize(
    ("block_s", "waits_s"),
    [(0.01, CREDIT_S), (1.0, CREDIT_BLOCKS * 1.0), (100.0, ASSIGNED_PATIENCE_S)],
    ids=["quick", "slow", "very slow"],
)
def test_other_readers_have_as_much_credit_as_two_blocks_take_at_the_source(
    block_s: float, waits_s: float
) -> None:
    picker = picker_among_readers()
    for reader in OTHER_READERS:
        picker._sources[ServentId(reader.id)].is_partial = True
    now = prove_source(picker, block_s)
    another = next(i for i in range(OTHERS_BLOCK + 1, 100) if RENDEZVOUS.reader_of(i))
    for request in picker.next_requests(now, [OTHERS_BLOCK], [another]):
        picker.lacked(request, now, 50.0)

    assert picker.next_requests(now + 0.99 * waits_s, [OTHERS_BLOCK], []) == []
    (instead,) = picker.next_requests(now + waits_s, [OTHERS_BLOCK], [])
    assert instead.source == peer(0)
    assert picker.next_requests(now + waits_s, [another], []), "no credit is left"


@pytest.mark.parametrize(
    ("troubles", "verdict"),
    [
        ([], Trouble.UNREACHABLE),
        ([Trouble.UNREACHABLE, Trouble.UNREACHABLE], Trouble.UNREACHABLE),
        ([Trouble.UNREACHABLE, Trouble.STALE], Trouble.STALE),
        ([Trouble.STALE, Trouble.CORRUPT], Trouble.CORRUPT),
        ([Trouble.CORRUPT, Trouble.BUSY], Trouble.BUSY),
        ([Trouble.BUSY, Trouble.SILENT], Trouble.SILENT),
        ([Trouble.UNREACHABLE, None], Trouble.SILENT),
    ],
)
def test_the_verdict_over_all_sources(troubles: list[Trouble | None], verdict: Trouble) -> None:
    picker = picker_with(len(troubles))
    requests = picker.next_requests(0.0, range(FIRST_BLOCKS * len(troubles)), [])
    for number, trouble in enumerate(troubles):
        request = next(request for request in requests if request.source == peer(number))
        if trouble is not None:
            picker.failed(request, trouble, 0.0)

    assert picker.verdict([0], 0.0) is verdict


# Rates


def test_a_rate_is_what_came_over_the_time_it_took() -> None:
    meter = RateMeter()
    assert meter.rate is None

    for _ in range(100):
        meter.add(1000, 0.1)

    assert meter.rate == pytest.approx(10_000)


def test_a_rate_follows_a_change_within_seconds() -> None:
    meter = RateMeter()
    for _ in range(100):
        meter.add(1000, 0.1)
    for _ in range(60):
        meter.add(100, 0.1)

    assert meter.rate == pytest.approx(1000, rel=1.5)
    assert meter.rate_after(60) == pytest.approx(0, abs=1)


# Asking more and more


def test_a_source_may_take_minutes_for_a_block_while_others_are_tried() -> None:
    """A slow one gives a part of it now and then, so no stall time ends this."""
    picker = picker_with(3)
    (slow,) = picker.next_requests(0.0, [0], [])
    others = picker.next_requests(1.0, [0], [])
    for other in others:
        picker.failed(other, Trouble.UNREACHABLE, 1.0)

    again = picker.next_requests(1_000.0, [0], [])

    assert {request.source.id for request in again} == {peer(1).id, peer(2).id}
    assert {request.index for request in again} == {slow.index}


def test_once_all_sources_may_be_asked_no_time_changes_that() -> None:
    probes = Probes()
    probes.count(0, 0.0)

    assert probes.count(0, 10.0) == MAX_KNOWN_SOURCES
    probes.look_at = math.inf
    assert probes.count(0, 10.0) == MAX_KNOWN_SOURCES
    assert probes.look_at == math.inf


# The law


@given(data=st.data(), count=st.integers(1, 10))
@settings(max_examples=50)
def test_whatever_happens_the_books_balance(data: st.DataObject, count: int) -> None:
    """Random events: limits hold, no source is asked twice for a block, and all can end."""
    picker, now = picker_with(count, size=400 * BLOCK), 0.0
    live: list[Request] = []
    received: set[Request] = set()
    done: set[int] = set()
    for _ in range(data.draw(st.integers(1, 40))):
        now += data.draw(st.sampled_from([0.0, 0.01, 0.3, 3.0, 30.0]))
        first = data.draw(st.integers(1, 399))  # block 0 is first asked for at the end
        wanted = [index for index in range(first, min(first + 60, 400)) if index not in done]
        live += picker.next_requests(now, wanted[:3], wanted[3:])
        assert len({(r.source.id, r.index) for r in live}) == len(live)
        assert sum(r.length for r in live) <= MAX_IN_FLIGHT_BYTES * MAX_SOURCES
        if not live:
            continue
        request = data.draw(st.sampled_from(live))
        event = data.draw(st.sampled_from(["received", "ended", "failed", "lied"]))
        if event == "received" and request not in received:
            picker.received(request, now)
            received.add(request)
            continue
        if event == "failed" and request not in received:
            picker.failed(request, data.draw(st.sampled_from(list(Trouble))), now)
        if event == "lied":
            picker.lied(request.source)
        if request in received:
            done.add(request.index)
        picker.ended(request, now)
        live.remove(request)
    for request in live:
        picker.ended(request, now)

    picker.add_sources([peer(20)])
    picker.forgive()
    assert len(picker.next_requests(now + 100, [0], [])) == 1


def test_sources_may_be_counted_while_others_are_added(monkeypatch: pytest.MonkeyPatch):
    """What another thread does in between is done here between two looks at a source."""
    picker = picker_with(3)
    numbers = iter(range(3, 100))

    def adds_one(_source: Source) -> bool:
        picker.add_sources([peer(next(numbers))])
        return False

    monkeypatch.setattr(Source, "is_dropped", property(adds_one))

    assert picker.source_count == 3
