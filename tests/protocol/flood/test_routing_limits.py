"""Each limit on what neighbours may send, gone over."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pfs.protocol.flood import seen
from p2pfs.protocol.flood.askers import SPREAD_BURST, SPREAD_PER_S
from p2pfs.protocol.flood.budgets import (
    FLOOD_FACTOR,
    FLOOD_WINDOW_S,
    SENDING_SHARE,
    Budget,
    Charge,
    TokenBucket,
    Urgency,
)
from p2pfs.protocol.flood.decisions import (
    Answer,
    Ban,
    Decision,
    Deliver,
    Drop,
    DropReason,
    Finished,
    LinkId,
    Refused,
    Send,
)
from p2pfs.protocol.flood.routing import Router
from p2pfs.protocol.flood.seen import MAX_SEEN, MAX_SEEN_OF_NETWORK, SEEN_S, Seen, SeenTable
from p2pfs.protocol.flood.spreading import (
    HOP_MARGIN_MS,
    QUERIES_PER_S,
    QUERY_BURST,
    SEARCH_BURST,
    SEARCHES_PER_S,
    WALK_BURST,
    WALKS_PER_S,
)
from p2pfs.protocol.flood.walks import MAX_WALKS, WALK_S, Walks
from p2pfs.protocol.flood.waves import MAX_WAVE_HITS
from p2pfs.protocol.messages import Done, Introduce, Query, Walk
from tests.helpers.floodnet import guid_of, hit_of, query_of, router_with

A, B, C = LinkId(1), LinkId(2), LinkId(3)
OVER_A = Drop(A, DropReason.OVER_BUDGET)


@pytest.fixture
def router() -> Router:
    return router_with(A, B)


def refusal(guid: int, ttl: int) -> list[Decision]:
    done = Done(guid_of(guid), ttl, 0, 0, is_complete=False, skipped=0, refusals=1)
    return [Send(A, done), OVER_A]


def accepted(router: Router, guids: range, now: float, hops: int = 0) -> int:
    """Send a new query under each GUID on A; return how many are answered."""
    answers = 0
    for guid in guids:
        decisions = router.got_query(A, query_of(guid, ttl=1, hops=hops), now)
        answers += any(isinstance(d, Answer) for d in decisions)
    return answers


def first_choice(links: object) -> LinkId:
    return next(iter(links))  # type: ignore[call-overload]


# Token buckets.


def test_tokens_are_taken_ahead_and_waited_for():
    bucket = TokenBucket(rate_per_s=2.0, burst=1)
    assert [bucket.take_ahead(10.0) for _ in range(3)] == [0.0, 0.5, 1.0]
    assert not bucket.take(10.9)
    assert bucket.wait_s(11.0) == pytest.approx(0.5)
    assert bucket.take(11.5)


def test_a_bucket_lets_a_burst_pass_and_then_its_rate() -> None:
    bucket = TokenBucket(rate_per_s=2.0, burst=3)
    assert [bucket.take(5.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(5.5) for _ in range(2)] == [True, False]
    assert [bucket.take(99.0) for _ in range(4)] == [True, True, True, False]


def test_a_budget_calls_it_a_flood_once_in_a_window() -> None:
    budget = Budget(rate_per_s=1.0, burst=1)
    limit = int(FLOOD_FACTOR * FLOOD_WINDOW_S)
    for _window in range(2):
        charges = [budget.charge(_window * FLOOD_WINDOW_S) for _ in range(limit + 9)]
        assert charges[0] is Charge.WITHIN
        assert charges.index(Charge.FLOOD) == limit
        assert charges.count(Charge.FLOOD) == 1


def test_five_times_the_budget_is_refused_but_is_no_flood() -> None:
    budget = Budget(rate_per_s=1.0, burst=1)
    step = 1 / FLOOD_FACTOR
    charges = {budget.charge(n * step) for n in range(int(3 * FLOOD_WINDOW_S / step))}
    assert charges == {Charge.WITHIN, Charge.OVER}


# Queries.


def test_copies_over_the_budget_are_refused(router: Router) -> None:
    assert accepted(router, range(QUERY_BURST), now=0.0, hops=1) == QUERY_BURST
    assert router.got_query(A, query_of(999, ttl=3, hops=1), now=0.0) == refusal(999, 3)
    second = range(1_000, 1_100)
    assert accepted(router, second, now=1.0, hops=1) == QUERIES_PER_S


def test_repeats_cost_as_much_as_new_queries(router: Router) -> None:
    for _copy in range(QUERY_BURST):
        router.got_query(A, query_of(1, ttl=3), now=0.0)
    assert router.got_query(A, query_of(2, ttl=3), now=0.0) == refusal(2, 3)


def test_searches_over_the_budget_are_refused(router: Router) -> None:
    assert accepted(router, range(SEARCH_BURST + 9), now=0.0) == SEARCH_BURST
    assert router.got_query(A, query_of(999, ttl=3), now=0.0) == refusal(999, 3)
    assert accepted(router, range(1_000, 1_009), now=1 / SEARCHES_PER_S) == 1


def test_the_rings_of_a_search_are_charged_as_one(router: Router) -> None:
    for guid in range(SEARCH_BURST):
        for ttl in (1, 2, 3):
            router.got_query(A, query_of(guid, ttl=ttl), now=0.0)
    assert DropReason.OVER_BUDGET not in router.statistics().drops


def test_a_refused_query_may_still_come_from_another_neighbour(router: Router) -> None:
    accepted(router, range(SEARCH_BURST + 1), now=0.0)
    decisions = router.got_query(B, query_of(SEARCH_BURST, ttl=1, hops=1), now=0.0)
    assert any(isinstance(d, Answer) for d in decisions)


def test_the_budget_of_one_neighbour_is_not_another_s(router: Router) -> None:
    accepted(router, range(QUERY_BURST + 9), now=0.0, hops=1)
    assert router.got_query(B, query_of(5_000, ttl=1), now=0.0) == [Answer(query_of(5_000, ttl=1))]


@pytest.mark.parametrize(("hops", "rate"), [(0, SEARCHES_PER_S), (1, QUERIES_PER_S)])
def test_far_over_the_budget_is_a_ban(router: Router, hops: int, rate: float) -> None:
    limit = int(FLOOD_FACTOR * rate * FLOOD_WINDOW_S)
    step = FLOOD_WINDOW_S / (limit + 9)
    bans = [
        (guid, d.link)
        for guid in range(limit + 5)
        for d in router.got_query(A, query_of(guid, ttl=1, hops=hops), guid * step)
        if isinstance(d, Ban)
    ]
    assert bans == [(limit, A)]


def test_many_flooders_cannot_make_a_relay_flood_its_neighbours() -> None:
    """Ten neighbours, each within its own budget, are ten budgets to the one beyond."""
    flooders = [LinkId(n) for n in range(10)]
    relay, beyond = router_with(*flooders, A + 100), router_with(A)
    seconds, guid, dropped = 70, 0, 0
    for tick in range(seconds):
        for flooder in flooders:
            for _copy in range(int(QUERIES_PER_S)):
                guid += 1
                for d in relay.got_query(flooder, query_of(guid, ttl=2, hops=1), float(tick)):
                    if isinstance(d, Send) and d.link == A + 100 and isinstance(d.message, Query):
                        said = beyond.got_query(A, d.message, float(tick))
                        dropped += any(isinstance(s, Drop | Ban) for s in said)
    assert guid > FLOOD_FACTOR * QUERIES_PER_S * FLOOD_WINDOW_S
    assert relay.statistics().queries_seen > QUERIES_PER_S * seconds / 2
    assert dropped == 0


def test_a_wave_that_could_not_be_sent_on_is_incomplete() -> None:
    router, now = router_with(A, B, C), SPREAD_BURST / SPREAD_PER_S
    for guid in range(QUERY_BURST - 1):
        router.got_query(B, query_of(guid, ttl=2, hops=1), now)
    assert router.got_query(B, query_of(999, ttl=2, hops=1), now)[-1:] == [
        Answer(query_of(999, ttl=2, hops=1))
    ]
    assert router.answered(guid_of(999), 2, []) == [
        Send(B, Done(guid_of(999), 2, 1, 0, is_complete=False, skipped=0, refusals=2))
    ]


def test_we_begin_no_more_searches_than_neighbours_accept(router: Router) -> None:
    other = router_with(A)
    refused = 0
    for guid in range(SEARCH_BURST + 9):
        decisions = router.originate(query_of(guid, ttl=1), now=0.0)
        refused += any(isinstance(d, Refused) for d in decisions)
        for d in decisions:
            if isinstance(d, Send) and isinstance(d.message, Query):
                other.got_query(A, d.message, now=0.0)
    assert refused >= 9
    assert other.statistics().drops == {}


def test_a_search_of_ours_that_is_refused_leaves_nothing_and_says_when_to_try_again(
    router: Router,
) -> None:
    rate = SEARCHES_PER_S * SENDING_SHARE
    begun = [router.originate(query_of(guid, ttl=1), now=0.0) for guid in range(SEARCH_BURST)]
    assert begun[-1] == [Refused(guid_of(SEARCH_BURST - 1), 1 / rate)]

    assert router.originate(query_of(99, ttl=1), now=1.0) == [Refused(guid_of(99), 1 / rate - 1)]
    assert router.statistics().waves == int(SEARCH_BURST * SENDING_SHARE)
    copy = query_of(99, ttl=1, deadline_ms=5_000 - HOP_MARGIN_MS)
    assert router.originate(query_of(99, ttl=1), now=1 / rate) == [
        Send(link, replace(copy, echoes=True)) for link in (A, B)
    ]


def test_what_is_less_urgent_leaves_searches_to_what_is_more(router: Router) -> None:
    counts = {}
    guids = itertools.count()
    for urgency in (Urgency.SOURCES, Urgency.REFRESH, Urgency.PERSON):
        counts[urgency] = 0
        while not isinstance(
            router.originate(query_of(next(guids), ttl=1), now=0.0, urgency=urgency)[0], Refused
        ):
            counts[urgency] += 1
    assert counts == {Urgency.SOURCES: 9, Urgency.REFRESH: 9, Urgency.PERSON: 9}


@pytest.mark.parametrize(
    ("urgency", "share"), [(Urgency.PERSON, 1), (Urgency.REFRESH, 2 / 3), (Urgency.SOURCES, 1 / 3)]
)
def test_what_is_less_urgent_is_searched_for_less_often(
    router: Router, urgency: Urgency, share: float
) -> None:
    begun = 0
    for second in range(1_000):
        said = router.originate(query_of(second, ttl=1), float(second), urgency=urgency)
        begun += not isinstance(said[0], Refused)
    most = share * (1_000 * SEARCHES_PER_S + SEARCH_BURST) * SENDING_SHARE
    assert most - 2 <= begun <= most + 1


# Neighbours that do not take a search of ours.


def test_a_neighbour_that_does_not_take_a_new_query_is_told_from_a_silent_one() -> None:
    router = router_with(A, B)
    router.originate(query_of(1, ttl=2), now=0.0)
    router.got_done(A, Done(guid_of(1), 2, 0, 0, is_complete=False, skipped=0))
    assert router.expire(now=99.0) == [Finished(guid_of(1), 2, 0, 0, False, refusals=1)]


def test_who_had_a_query_from_another_has_not_refused_it() -> None:
    router = router_with(A, B)
    router.originate(query_of(1, ttl=2), now=0.0)
    router.got_done(A, Done(guid_of(1), 2, 0, 0, is_complete=True, skipped=0))
    finished = Finished(guid_of(1), 2, 3, 0, is_complete=False)
    assert router.got_done(B, Done(guid_of(1), 2, 3, 0, is_complete=False, skipped=0)) == [finished]


def test_a_later_ring_that_reaches_nobody_new_was_not_refused() -> None:
    router = router_with(A)
    router.originate(query_of(1, ttl=1), now=0.0)
    router.got_done(A, Done(guid_of(1), 1, 1, 0, is_complete=True, skipped=0))
    router.originate(query_of(1, ttl=2), now=0.2)
    finished = Finished(guid_of(1), 2, 0, 0, is_complete=False)
    assert router.got_done(A, Done(guid_of(1), 2, 0, 0, is_complete=False, skipped=0)) == [finished]


def test_what_was_refused_further_away_is_told_to_who_asked() -> None:
    router = router_with(A, B, C)
    router.got_query(A, query_of(1, ttl=3, hops=1), now=0.0)
    router.answered(guid_of(1), 3, [])
    router.got_done(B, Done(guid_of(1), 2, 4, 0, is_complete=False, skipped=0, refusals=2))
    refused = Done(guid_of(1), 2, 0, 0, is_complete=False, skipped=0, refusals=1)
    assert router.got_done(C, refused) == [
        Send(A, Done(guid_of(1), 3, 5, 0, is_complete=False, skipped=0, refusals=3))
    ]


def test_the_rings_of_our_search_are_one_search(router: Router) -> None:
    for guid in range(20):
        for ttl in (1, 2, 3):
            sent = router.originate(query_of(guid, ttl=ttl), now=float(guid))
            assert len(sent) == 2


# Hits.


def test_one_link_cannot_crowd_out_the_hits_of_others(router: Router) -> None:
    router.originate(query_of(ttl=2), now=0.0)
    hit = hit_of(8, ttl=2)
    for _hit in range(MAX_WAVE_HITS):
        assert router.got_query_hit(A, hit, now=0.1) == [Deliver(hit)]
    too_many = Drop(A, DropReason.TOO_MANY_HITS)
    assert router.got_query_hit(A, hit, now=0.1) == [too_many]
    assert router.got_query_hit(B, hit, now=0.1) == [Deliver(hit)]
    router.got_done(A, Done(guid_of(1), 2, 1, 501, is_complete=True, skipped=0))
    assert router.got_done(B, Done(guid_of(1), 2, 1, 1, is_complete=True, skipped=0)) == [
        Finished(guid_of(1), 2, 2, MAX_WAVE_HITS + 1, is_complete=False)
    ]


def test_a_relay_passes_on_no_more_hits_than_its_asker_takes() -> None:
    router = router_with(A, B, C)
    router.got_query(A, query_of(ttl=2), now=0.0)
    passed = 0
    for number in range(MAX_WAVE_HITS + 9):
        link = (B, C)[number % 2]
        passed += router.got_query_hit(link, hit_of(number, ttl=1), 0.1) == [
            Send(A, hit_of(number, ttl=2))
        ]
    assert passed == MAX_WAVE_HITS


def test_a_hit_for_which_there_is_no_room_is_dropped_and_the_wave_is_incomplete() -> None:
    has_room = {A: True}
    router = Router(has_room.__getitem__)
    for link in (A, B):
        router.link_opened(link)
    router.got_query(A, query_of(ttl=2), now=0.0)
    router.answered(guid_of(1), 2, [])
    assert router.got_query_hit(B, hit_of(8, ttl=1), 0.1) == [Send(A, hit_of(8, ttl=2))]
    has_room[A] = False
    assert router.got_query_hit(B, hit_of(9, ttl=1), 0.1) == [Drop(A, DropReason.NO_ROOM)]
    assert router.got_done(B, Done(guid_of(1), 1, 2, 2, is_complete=True, skipped=0)) == [
        Send(A, Done(guid_of(1), 2, 3, 1, is_complete=False, skipped=0))
    ]


# What is remembered.


def fill(table: SeenTable, count: int, network: Callable[[int], str]) -> None:
    for number in range(count):
        table.add(guid_of(number), Seen(A, 0, 1, 0.0, network(number)))


def test_a_network_that_brings_too_many_queries_pushes_out_its_own() -> None:
    table = SeenTable()
    table.add(guid_of(10**9), Seen(B, 0, 1, at=0.0, network="another"))
    fill(table, MAX_SEEN_OF_NETWORK + 1, lambda _number: "one")
    assert len(table) == MAX_SEEN_OF_NETWORK + 1
    assert table.find(guid_of(0), now=0.0) is None
    assert table.find(guid_of(1), now=0.0) is not None
    assert table.find(guid_of(10**9), now=0.0) is not None


def test_queries_that_grew_old_make_room_for_new_ones_of_the_same_network() -> None:
    table = SeenTable()
    most = range(MAX_SEEN_OF_NETWORK)
    for began_at in (0.0, SEEN_S):
        for number in most:
            guid = guid_of(int(began_at) * MAX_SEEN + number)
            assert table.find(guid, began_at) is None
            table.add(guid, Seen(A, 0, 1, began_at))
        assert len(table) == MAX_SEEN_OF_NETWORK


def test_too_many_queries_in_all_push_out_the_oldest() -> None:
    table = SeenTable()
    fill(table, MAX_SEEN + 1, lambda number: str(number % 20))
    assert len(table) == MAX_SEEN
    assert table.find(guid_of(0), now=0.0) is None
    assert table.find(guid_of(1), now=0.0) is not None


def test_a_network_with_more_than_its_share_makes_room_for_others() -> None:
    table = SeenTable()
    table.add(guid_of(10**9), Seen(B, 0, 1, at=0.0, network="another"))
    fill(table, 2 * MAX_SEEN, lambda number: str(number % 10))
    assert len(table) == MAX_SEEN
    assert table.find(guid_of(10**9), now=0.0) is not None


def test_a_query_is_forgotten_after_a_while(router: Router) -> None:
    router.got_query(A, query_of(1, ttl=1), now=0.0)
    repeat = query_of(1, ttl=1, hops=1)
    assert shape_of(router.got_query(B, repeat, now=SEEN_S - 1)) == ["Send"]
    assert shape_of(router.got_query(B, repeat, now=SEEN_S)) == ["Answer"]


def test_what_a_lost_link_brought_is_still_known(router: Router) -> None:
    router.got_query(A, query_of(1, ttl=1), now=0.0)
    router.link_lost(A)
    assert shape_of(router.got_query(B, query_of(1, ttl=1), now=2.0)) == ["Send"]
    assert shape_of(router.got_query(B, query_of(2, ttl=1), now=SEEN_S)) == ["Answer"]


def test_a_query_pushed_out_while_it_runs_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "MAX_SEEN", 1)
    router = router_with(A, B)
    router.got_query(A, query_of(1, ttl=1), now=0.0)
    router.got_query(A, query_of(2, ttl=1), now=0.0)
    router.got_query(B, query_of(1, ttl=1), now=0.0)
    ends = [d for d in router.expire(60.0) if isinstance(d, Send)]
    assert sorted(d.link for d in ends) == [A, A, B]
    assert router.statistics().waves == 0


def shape_of(decisions: list[Decision]) -> list[str]:
    return [type(d).__name__ for d in decisions]


# Walks.


def test_walks_over_the_budget_are_dropped(router: Router) -> None:
    router = router_with(A)
    for number in range(WALK_BURST):
        said = router.got_walk(A, Walk(guid_of(number), 3), first_choice, now=0.0)
        assert shape_of(said) == ["OfferSelf"]
    over = Walk(guid_of(9_999), 3)
    assert router.got_walk(A, over, first_choice, now=0.0) == [OVER_A]
    assert router.got_walk(A, over, first_choice, now=1 / WALKS_PER_S) != [OVER_A]


def test_walks_far_over_the_budget_are_a_ban(router: Router) -> None:
    limit = int(FLOOD_FACTOR * WALKS_PER_S * FLOOD_WINDOW_S)
    said = [
        router.got_walk(A, Walk(guid_of(n), 0), first_choice, now=n * 0.01)
        for n in range(limit + 1)
    ]
    assert shape_of(said[-1]) == ["Drop", "Ban"]
    assert all("Ban" not in shape_of(s) for s in said[:-1])


def test_many_walkers_cannot_make_a_relay_flood_its_neighbours() -> None:
    walkers = [LinkId(n) for n in range(2, 12)]
    relay, beyond = router_with(A, *walkers), router_with(A)
    guid = 0
    for tick in range(60):
        for walker in walkers:
            for _walk in range(int(WALKS_PER_S)):
                guid += 1
                walk = Walk(guid_of(guid), 3)
                for d in relay.got_walk(walker, walk, first_choice, float(tick)):
                    assert isinstance(d, Send)
                    assert isinstance(d.message, Walk)
                    beyond.got_walk(A, d.message, first_choice, float(tick))
    assert guid > FLOOD_FACTOR * WALKS_PER_S * FLOOD_WINDOW_S
    assert beyond.statistics().drops == {}


def test_too_many_walks_push_out_the_oldest() -> None:
    walks = Walks()
    for number in range(MAX_WALKS + 1):
        walks.got_walk(A, Walk(guid_of(number), 3), [A, B], first_choice, now=0.0)
    assert len(walks) == MAX_WALKS
    peer = hit_of(9).provider
    for number, known in ((0, False), (1, True), (MAX_WALKS, True)):
        said = walks.got_introduce(B, Introduce(guid_of(number), peer), [A, B], now=0.0)
        assert isinstance(said[0], Send) is known


def test_a_walk_is_forgotten_after_its_time() -> None:
    walks = Walks()
    walks.got_walk(A, Walk(guid_of(1), 3), [A, B], first_choice, now=0.0)
    walks.got_walk(A, Walk(guid_of(2), 3), [A, B], first_choice, now=WALK_S)
    assert len(walks) == 1
