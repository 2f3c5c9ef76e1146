"""One query's life: its rings, what is believed, what is dropped, when it ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from p2pfs.errors import NotAskedError
from p2pfs.overlay import search as search_module
from p2pfs.overlay.search import (
    END_MARGIN_S,
    LAST_RING,
    MAX_HITS,
    MAX_HOP_S,
    MIN_HOP_S,
    Outcome,
    Searches,
    is_answer,
)
from p2pfs.protocol import (
    GUID_BYTES,
    MAX_DEADLINE_MS,
    MAX_QUERY_TEXT_BYTES,
    Address,
    Entry,
    Guid,
    Identity,
    PeerInfo,
    Query,
    QueryHit,
    QueryKind,
    sign_hit,
)
from p2pfs.protocol.flood.budgets import Urgency
from p2pfs.protocol.flood.decisions import Finished, Refused
from p2pfs.protocol.flood.routing import WIDE_TTL

ID = bytes(range(32))
NEAR, FAR = Address("10.0.0.2", 5001), Address("10.0.0.3", 5002)
WORDS, PATH, DIRECTORY = QueryKind.WORDS, QueryKind.PATH, QueryKind.DIRECTORY


class Network:
    """What is behind our neighbours: each ring does what the test says."""

    def __init__(self) -> None:
        self.asked: list[Query] = []
        self.urgencies: list[Urgency] = []
        self.has_neighbours = True
        self.on_ring: Callable[[Query], None] = self.end
        numbers = itertools.count()
        self.searches = Searches(
            self._flood, lambda: Guid(next(numbers).to_bytes(GUID_BYTES, "big"))
        )

    def _flood(self, query: Query, urgency: Urgency) -> bool:
        self.urgencies.append(urgency)
        if self.has_neighbours:
            last_ttl = self.asked[-1].ttl if self.asked else 0
            self.asked.append(query)
            self.on_ring(query)
            if last_ttl < WIDE_TTL < query.ttl:  # as the router does
                self.on_ring(replace(query, ttl=WIDE_TTL))
        return self.has_neighbours

    def end(self, query: Query, *, servents: int = 1, is_complete: bool = True, **rest) -> None:
        finished = Finished(query.guid, query.ttl, servents, 0, is_complete, **rest)
        self.searches.got_finished(finished)

    def hit(self, query: Query, *paths: str, told_by: Address = NEAR, **changes: object) -> None:
        self.searches.got_hit(replace(hit_of(query, *paths), **changes), told_by)

    async def run(
        self, kind: QueryKind = WORDS, text: str = "whale", rings: Sequence[int] = (1, 2, 3), **more
    ) -> Outcome:
        return await self.searches.run(kind, text, rings=rings, timeout_s=5, **more)


def hit_of(query: Query, *paths: str, identity: Identity | None = None) -> QueryHit:
    identity = identity or Identity.generate()
    provider = PeerInfo(identity.id, "provider", (Address("10.9.9.9", 4774),))
    entries = tuple(Entry(path, 1, 1, ID) for path in paths)
    return sign_hit(identity, query.guid, query.ttl, provider, entries, len(entries))


def paths(outcome: Outcome) -> list[str]:
    return [entry.path for hit in outcome.hits for entry in hit.entries]


# Rings.


async def test_rings_grow_under_one_guid_until_the_last():
    net = Network()

    outcome = await net.run()

    assert [query.ttl for query in net.asked] == [1, 2, 3]
    assert len({query.guid for query in net.asked}) == 1
    assert outcome == Outcome((), 3, is_complete=True)


async def test_hits_of_the_link_that_brought_most_files_are_known():
    net = Network()
    makers = {told_by: [Identity.generate() for _ in range(2)] for told_by in (NEAR, FAR)}

    def ring(query: Query) -> None:
        for told_by, paths in ((NEAR, ["whale"]), (FAR, ["whale 1", "whale 2"])):
            for identity in makers[told_by]:
                net.searches.got_hit(hit_of(query, *paths, identity=identity), told_by)
        net.end(query)

    net.on_ring = ring
    told = []
    outcome = await net.run(rings=[1], is_enough=lambda hits: bool(told.append(hits)))

    busiest = {identity.id for identity in makers[FAR]}
    assert outcome.hits.busiest == told[-1].busiest == busiest
    assert [hit.provider.id in busiest for hit in outcome.hits] == [False, True] * 2


@pytest.mark.parametrize(("rings", "ends"), [((1, 2, 5), 4), ((3, 4, 5), 3), ((5,), 2)])
async def test_a_far_ring_is_over_with_the_widest(rings: Sequence[int], ends: int):
    net = Network()

    outcome = await net.run(rings=rings)

    assert [query.ttl for query in net.asked] == [*rings]
    assert outcome.servents == ends
    assert outcome.is_complete


@pytest.mark.parametrize("cut", [4, 5])
async def test_a_far_ring_is_complete_only_if_the_widest_is(cut: int):
    net = Network()
    net.on_ring = lambda query: net.end(query, is_complete=query.ttl != cut)

    assert not (await net.run(rings=(5,))).is_complete


async def test_a_wide_ring_that_ends_late_counts_while_the_far_one_is_waited_for(
    autojump_clock: MockClock,
):
    net = Network()
    net.on_ring = lambda query: None if query.ttl == 4 else net.end(query)

    async with trio.open_nursery() as nursery:

        async def end_late() -> None:
            await trio.sleep(3)
            net.end(net.asked[-2])

        nursery.start_soon(end_late)
        outcome = await net.run(rings=(3, 4, 5), is_patient=True)

    assert trio.current_time() == pytest.approx(3)
    assert outcome.is_complete


async def test_what_an_honest_neighbour_passes_on_does_not_stand_before_its_own():
    """A liar is linked to it as well, and made up more files than anybody reads."""
    net, honest = Network(), Identity.generate()
    makers = [Identity.generate() for _ in range(25)]

    def ring(query: Query) -> None:
        for identity in makers:
            told_by = FAR if query.ttl == 1 else NEAR
            net.searches.got_hit(hit_of(query, "whale 1", "whale 2", identity=identity), told_by)
        net.searches.got_hit(hit_of(query, "whale", identity=honest), NEAR)
        net.end(query)

    net.on_ring = ring
    outcome = await net.run(rings=[1, 2])

    assert honest.id in [hit.provider.id for hit in outcome.hits[:2]]
    assert outcome.hits.busiest == {identity.id for identity in makers}


async def test_rings_stop_when_it_is_enough():
    net = Network()
    net.on_ring = lambda query: net.hit(query, "whale") if query.ttl == 2 else net.end(query)

    outcome = await net.run(is_enough=bool)

    assert [query.ttl for query in net.asked] == [1, 2]
    assert paths(outcome) == ["whale"]


async def test_rings_stop_when_the_whole_network_was_asked():
    net = Network()
    net.on_ring = lambda query: net.end(query, servents=0 if query.ttl == 2 else 4)

    outcome = await net.run()

    assert [query.ttl for query in net.asked] == [1, 2]
    assert outcome.is_complete


async def test_a_ring_that_filters_kept_from_everybody_does_not_end_the_search():
    net = Network()
    net.on_ring = lambda query: net.end(query, servents=0, skipped=4 if query.ttl == 1 else 0)

    outcome = await net.run()

    assert [query.ttl for query in net.asked] == [1, 2]
    assert outcome.is_complete
    assert outcome.has_asked


async def test_who_was_left_out_because_of_a_filter_has_answered():
    net = Network()
    net.on_ring = lambda query: net.end(query, servents=0, skipped=4)

    outcome = await net.run()

    assert len(net.asked) == 3
    assert outcome.has_asked


async def test_a_ring_that_was_cut_short_does_not_end_the_search():
    net = Network()
    net.on_ring = lambda query: net.end(query, servents=0, is_complete=False)

    outcome = await net.run()

    assert len(net.asked) == 3
    assert not outcome.is_complete


async def test_with_nobody_to_ask_nothing_is_known_of_the_horizon():
    net = Network()
    net.has_neighbours = False

    assert await net.run() == Outcome((), 0, is_complete=False)


async def test_a_search_that_was_not_begun_is_no_search_without_hits():
    net = Network()
    net.on_ring = lambda query: net.searches.got_refused(Refused(query.guid, 2.2))

    with pytest.raises(NotAskedError, match="too many searches: try again in 3 s") as raised:
        await net.run(urgency=Urgency.REFRESH)

    assert raised.value.wait_s == 2.2
    assert net.urgencies == [Urgency.REFRESH]
    assert not net.searches._running


async def test_a_search_that_no_neighbour_took_was_not_asked():
    net = Network()
    net.on_ring = lambda query: net.end(query, servents=0, is_complete=False, refusals=2)

    with pytest.raises(NotAskedError):
        await net.run()
    assert len(net.asked) == 1


async def test_a_search_that_some_neighbours_took_was_asked():
    net = Network()
    net.on_ring = lambda query: net.end(query, servents=3, is_complete=False, refusals=2)

    assert await net.run() == Outcome((), 9, is_complete=False, refusals=2)


async def test_silence_is_no_refusal():
    net = Network()
    net.on_ring = lambda query: net.end(query, servents=0, is_complete=False)

    assert await net.run() == Outcome((), 0, is_complete=False)


async def test_the_end_of_an_earlier_ring_is_not_that_of_a_later_one(autojump_clock: MockClock):
    net = Network()
    net.on_ring = lambda query: net.end(replace(query, ttl=1))

    outcome = await net.run()

    assert [query.ttl for query in net.asked] == [1, 2, 3]
    assert not outcome.is_complete
    assert trio.current_time() < 5


async def test_a_search_whose_time_is_over_before_it_can_wait_ends_with_what_has_come(
    mock_clock: MockClock,
):
    network = Network()

    def answer_while_the_machine_stands_still(query: Query) -> None:
        network.hit(query, "whale.txt")
        mock_clock.jump(6)  # past the whole search

    network.on_ring = answer_while_the_machine_stands_still
    outcome = await network.run()
    assert [hit.entries[0].path for hit in outcome.hits] == ["whale.txt"]
    assert not outcome.is_complete


async def test_a_search_ends_at_its_timeout_with_what_has_come(autojump_clock: MockClock):
    net = Network()
    net.on_ring = lambda query: net.hit(query, "whale") if query.ttl == 1 else None

    with trio.fail_after(5.1):
        outcome = await net.run(is_patient=True)

    assert trio.current_time() >= 5
    assert paths(outcome) == ["whale"]
    assert not outcome.is_complete


@pytest.mark.parametrize(
    ("round_trips_s", "timeout_s", "asked_at"),
    [
        ([0.0], 5, [0, MIN_HOP_S, 3 * MIN_HOP_S]),
        ([0.3, 0.1], 5, [0, 0.3, 0.3 + 0.5]),
        ([9.0], 5, [0, MAX_HOP_S, 3 * MAX_HOP_S]),
        ([math.inf], 0.9, [0, 0.3, 0.6]),
    ],
    ids=["near", "measured", "bounded", "short of time"],
)
async def test_a_ring_ends_when_its_time_is_over_whoever_owes_an_answer(
    autojump_clock: MockClock, round_trips_s: list[float], timeout_s: float, asked_at: list[float]
):
    net = Network()
    times: list[float] = []
    net.on_ring = lambda _query: times.append(trio.current_time())
    net.searches._round_trips_s = lambda: round_trips_s

    await net.searches.run(WORDS, "whale", rings=(1, 2, 3), timeout_s=timeout_s, is_patient=True)

    assert times == pytest.approx(asked_at)
    assert [query.deadline_ms for query in net.asked] == pytest.approx(
        [1_000 * (timeout_s - END_MARGIN_S - at) for at in asked_at], abs=1
    )
    assert trio.current_time() == pytest.approx(timeout_s)


async def test_the_last_ring_ends_likewise_unless_somebody_concludes_from_it(
    autojump_clock: MockClock,
):
    net = Network()
    net.on_ring = lambda _query: None
    net.searches._round_trips_s = lambda: [0.2]

    outcome = await net.run()

    assert trio.current_time() == pytest.approx(0.2 + 0.4 + 0.6 * LAST_RING)
    assert outcome == Outcome((), 0, is_complete=False)
    assert [query.deadline_ms for query in net.asked[:1]] == [5_000 - 1_000 * END_MARGIN_S]


async def test_the_last_ring_goes_on_while_hits_come(autojump_clock: MockClock):
    net = Network()
    net.on_ring = lambda _query: None

    async def answer() -> None:
        for number in range(4):
            await trio.sleep(MAX_HOP_S - 0.1)
            net.hit(net.asked[0], f"whale {number}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        outcome = await net.run()

    assert len(outcome.hits) == 4
    assert trio.current_time() == pytest.approx(5 * MAX_HOP_S - 4 * 0.1)


async def test_who_answers_after_its_ring_is_heard_and_counted(autojump_clock: MockClock):
    net = Network()

    def ring(query: Query) -> None:
        if query.ttl == 3:
            net.hit(net.asked[0], "whale")
            net.end(net.asked[0], servents=2, is_complete=False)
            net.end(query, servents=5)

    net.on_ring = ring
    outcome = await net.run()

    assert paths(outcome) == ["whale"]
    assert outcome.servents == 7
    assert trio.current_time() < 1


async def test_a_cancelled_search_takes_in_nothing_more(autojump_clock: MockClock):
    net = Network()
    net.on_ring = lambda _query: None
    with trio.move_on_after(0.5):
        await net.run()

    net.hit(net.asked[0], "whale")
    net.end(net.asked[0])

    assert net.searches.bad_hits == 0
    assert net.searches._running == {}


async def test_a_text_too_long_for_a_query_is_not_asked_for():
    net = Network()

    assert await net.run(text="é" * (MAX_QUERY_TEXT_BYTES // 2)) != Outcome((), 0, False)
    assert await net.run(text="é" * (MAX_QUERY_TEXT_BYTES // 2) + "x") == Outcome((), 0, False)
    assert len(net.asked) == 3


# What is believed.


async def found(net: Network, on_ring: Callable[[Query], None], **more) -> Outcome:
    """Run one ring in which `on_ring` happens."""

    def ring(query: Query) -> None:
        on_ring(query)
        net.end(query)

    net.on_ring = ring
    return await net.run(rings=(1,), **more)


async def test_a_forged_signature_is_dropped_and_counted():
    net = Network()

    outcome = await found(net, lambda query: net.hit(query, "whale", signature=bytes(64)))

    assert outcome.hits == ()
    assert net.searches.bad_hits == 1


async def test_a_hit_signed_by_another_than_its_provider_is_dropped_and_counted():
    net, other = Network(), PeerInfo(Identity.generate().id, "other", ())

    outcome = await found(net, lambda query: net.hit(query, "whale", provider=other))

    assert outcome.hits == ()
    assert net.searches.bad_hits == 1


async def test_a_hit_for_another_search_is_not_taken_for_this_one():
    net = Network()
    old: list[Query] = []
    await found(net, old.append)

    outcome = await found(net, lambda _query: net.hit(old[0], "whale"))

    assert outcome.hits == ()


async def test_entries_that_do_not_answer_are_dropped_and_counted_and_the_rest_kept():
    net = Network()

    outcome = await found(net, lambda query: net.hit(query, "blue whale", "shark", "../whale"))

    assert paths(outcome) == ["blue whale"]
    assert net.searches.bad_hits == 2


async def test_one_provider_counts_once_whatever_way_its_hits_come():
    net, identity = Network(), Identity.generate()

    def twice(query: Query) -> None:
        for told_by in (NEAR, FAR):
            net.searches.got_hit(hit_of(query, "whale", identity=identity), told_by)

    assert len((await found(net, twice)).hits) == 1


async def test_addresses_of_a_provider_that_may_not_be_dialled_are_left_out():
    net, identity = Network(), Identity.generate()
    reachable = Address("10.9.9.9", 4774)
    told = (Address("127.0.0.1", 4774), Address("10.9.9.9", 22), reachable)

    def ring(query: Query) -> None:
        provider = PeerInfo(identity.id, "provider", told)
        hit = sign_hit(identity, query.guid, query.ttl, provider, (Entry("whale", 1, 1, ID),), 1)
        net.searches.got_hit(hit, NEAR)

    (hit,) = (await found(net, ring)).hits

    assert hit.provider.addresses == (reachable,)


async def test_no_more_hits_are_kept_than_anybody_reads(monkeypatch: pytest.MonkeyPatch):
    assert MAX_HITS == 500
    monkeypatch.setattr(search_module, "MAX_HITS", 3)
    net = Network()

    def ring(query: Query) -> None:
        for number in range(5):
            net.hit(query, f"whale {number}")

    outcome = await found(net, ring)

    assert paths(outcome) == ["whale 0", "whale 1", "whale 2"]
    assert outcome.is_cut
    assert not outcome.is_complete  # or who was left out would be taken for gone


@pytest.mark.parametrize(
    ("hits_at", "ends_at"),
    [
        ([4.7, 5.1, 5.5, 5.9], 6.4),
        ([4.7, 5.1, 5.7], 5.6),
        ([1.0, 4.3], 5.0),
        ([], 5.0),
    ],
    ids=["one behind the other", "with a gap", "long before", "none"],
)
async def test_a_search_may_go_on_while_hits_come(
    autojump_clock: MockClock, hits_at: list[float], ends_at: float
):
    net = Network()
    sent: list[Query] = []
    net.on_ring = sent.append

    async def hits() -> None:
        for at in hits_at:
            await trio.sleep_until(at)
            net.hit(sent[0], f"whale {at}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hits)
        await net.run(rings=(1,), quiet_s=0.5, is_patient=True)
        nursery.cancel_scope.cancel()

    assert trio.current_time() == pytest.approx(ends_at)
    assert sent[0].deadline_ms == MAX_DEADLINE_MS - 1_000 * END_MARGIN_S


async def test_a_search_that_goes_on_ends_when_others_forget_it(autojump_clock: MockClock):
    net = Network()
    sent: list[Query] = []
    net.on_ring = sent.append

    async def hits() -> None:
        for number in range(1_000):
            if sent:
                net.hit(sent[0], f"whale {number}")
            await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hits)
        await net.run(rings=(1,), quiet_s=0.5, is_patient=True)
        nursery.cancel_scope.cancel()

    assert trio.current_time() == pytest.approx(MAX_DEADLINE_MS / 1000)


async def test_one_neighbour_that_makes_up_servents_does_not_crowd_out_the_others(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(search_module, "MAX_HITS", 4)
    net = Network()

    def ring(query: Query) -> None:
        for number in range(9):
            net.hit(query, f"whale {number}")
        net.hit(query, "true whale", told_by=FAR)
        net.hit(query, "blue whale", told_by=FAR)
        net.hit(query, "one whale more", told_by=FAR)

    assert paths(await found(net, ring)) == ["whale 0", "true whale", "whale 1", "blue whale"]


@pytest.mark.parametrize(
    ("kind", "text", "path", "file_id", "is_one"),
    [
        (WORDS, "blue wha", "films/Blue Whale.mkv", ID, True),
        (WORDS, "wha blue", "films/Blue Whale.mkv", ID, False),
        (WORDS, "whale", "whale", b"", False),  # a directory has no content to search for
        (PATH, "a/b", "a/b", ID, True),
        (PATH, "a/b", "a/b", b"", True),
        (PATH, "a/b", "a/B", ID, False),
        (DIRECTORY, "a", "a/b", b"", True),
        (DIRECTORY, "", "a", ID, True),
        (DIRECTORY, "a", "a/b/c", ID, False),
        (DIRECTORY, "a", "b/c", ID, False),
        (DIRECTORY, "a", "a", b"", False),
        (DIRECTORY, "a", "a/..", b"", False),
        (QueryKind.ID, ID.hex(), "whatever", ID, True),
        (QueryKind.ID, ID.hex(), "whatever", bytes(32), False),
    ],
)
def test_what_answers_which_question(
    kind: QueryKind, text: str, path: str, file_id: bytes, is_one: bool
):
    assert is_answer(kind, text, Entry(path, 1 if file_id else 0, 1, file_id)) is is_one
