from __future__ import annotations

import pytest
from msgspec.structs import replace

from p2pfs.errors import LocalProtocolError
from p2pfs.protocol import MAX_DEADLINE_MS, MAX_TTL, Done, Enough, Guid, Query
from p2pfs.protocol.flood.decisions import (
    Answer,
    Decision,
    Deliver,
    Drop,
    DropReason,
    Finished,
    LinkId,
    Send,
)
from p2pfs.protocol.flood.routing import FAR_LINKS, WIDE_TTL, Router
from p2pfs.protocol.flood.spreading import HOP_MARGIN_MS
from p2pfs.protocol.flood.waves import MAX_COUNT
from tests.helpers.floodnet import guid_of, hit_of, query_of, router_with

A, B, C = LinkId(1), LinkId(2), LinkId(3)
GUID = guid_of(1)
NOT_ASKED = DropReason.NOT_ASKED


@pytest.fixture
def router() -> Router:
    return router_with(A, B, C)


def done(ttl: int, servents: int = 0, *, hits: int = 0, is_complete: bool = True) -> Done:
    return Done(GUID, ttl, servents, hits, is_complete, skipped=0)


def queries(decisions: list[Decision]) -> dict[LinkId, Query]:
    return {
        d.link: d.message for d in decisions if isinstance(d, Send) and isinstance(d.message, Query)
    }


def crossing(ttl: int) -> Query:
    """Return a copy of one who takes ours for its DONE, if they cross."""
    return replace(query_of(ttl=ttl, hops=1), echoes=True)


def shape(decisions: list[Decision]) -> list[tuple[str, int | None]]:
    """Return the kinds of decisions and the links they are about."""
    return [(type(d).__name__, getattr(d, "link", None)) for d in decisions]


# Copies.


def test_a_new_query_goes_to_all_others_and_is_answered(router: Router) -> None:
    decisions = router.got_query(A, query_of(ttl=3, hops=1, deadline_ms=3_000), now=0.0)
    assert shape(decisions) == [("Send", B), ("Send", C), ("Answer", None)]
    copy = queries(decisions)[B]
    assert (copy.ttl, copy.hops, copy.deadline_ms) == (2, 2, 3_000 - HOP_MARGIN_MS)
    assert decisions[-1] == Answer(query_of(ttl=3, hops=1, deadline_ms=3_000))


def test_a_copy_with_ttl_1_is_answered_and_goes_no_further(router: Router) -> None:
    assert router.got_query(A, query_of(ttl=1), now=0.0) == [Answer(query_of(ttl=1))]
    assert router.answered(GUID, 1, []) == [Send(A, done(1, servents=1))]


@pytest.mark.parametrize("ttl", [1, 2, 3])
def test_a_repeat_that_reaches_no_further_is_done_at_once(router: Router, ttl: int) -> None:
    router.got_query(A, query_of(ttl=3), now=0.0)
    assert router.got_query(B, query_of(ttl=ttl), now=0.1) == [Send(B, done(ttl))]


def test_a_repeat_with_a_larger_ttl_is_passed_on_but_not_answered_again(router: Router) -> None:
    router.got_query(A, query_of(ttl=1), now=0.0)
    decisions = router.got_query(B, query_of(ttl=4), now=0.1)
    assert shape(decisions) == [("Send", A), ("Send", C)]
    router.got_done(A, done(3))
    assert router.got_done(C, done(3, 7)) == [Send(B, done(4, 7))]


@pytest.mark.parametrize(("hops", "ttl"), [(1, 5), (3, 3), (4, 2), (4, 5)])
def test_ttl_and_hops_together_never_exceed_the_limit(router: Router, hops: int, ttl: int) -> None:
    decisions = router.got_query(A, query_of(ttl=ttl, hops=hops), now=0.0)
    answer = decisions[-1]
    assert isinstance(answer, Answer)
    assert answer.query.ttl + hops == MAX_TTL
    assert all(c.ttl + c.hops == MAX_TTL for c in queries(decisions).values())


def test_a_clamped_copy_is_done_under_the_ttl_that_its_sender_gave(router: Router) -> None:
    router.got_query(A, query_of(ttl=5, hops=4), now=0.0)
    hit = hit_of(9, ttl=1)
    assert router.answered(GUID, 1, [hit]) == [
        Send(A, hit_of(9, ttl=5)),
        Send(A, done(5, 1, hits=1)),
    ]


def test_a_copy_that_crossed_too_many_links_is_refused(router: Router) -> None:
    refused = [Send(A, done(1, is_complete=False)), Drop(A, DropReason.TOO_FAR)]
    assert router.got_query(A, query_of(ttl=1, hops=MAX_TTL), now=0.0) == refused


@pytest.mark.parametrize("ttl", [1, 2, 3])
def test_copies_that_cross_on_a_link_are_each_others_done(router: Router, ttl: int) -> None:
    router.got_query(A, query_of(ttl=3), now=0.0)
    router.answered(GUID, 3, [])
    assert router.got_query(B, crossing(ttl), now=0.1) == []
    assert router.got_query(C, crossing(ttl), now=0.1) == [Send(A, done(3, 1))]


def test_a_copy_whose_sender_does_not_know_that_gets_done(router: Router) -> None:
    router.got_query(A, query_of(ttl=3), now=0.0)
    assert router.got_query(B, query_of(ttl=2), now=0.1) == [Send(B, done(2))]
    assert router.got_done(B, done(2, 1)) == []


def test_a_copy_that_goes_two_links_further_is_no_done(router: Router) -> None:
    router.got_query(A, query_of(ttl=2), now=0.0)
    assert shape(router.got_query(B, crossing(4), now=0.1)) == [("Send", C)]
    router.got_done(C, done(1))
    router.answered(GUID, 2, [])
    assert router.got_query_hit(B, hit_of(8, ttl=1), now=0.3) == [Send(A, hit_of(8, ttl=2))]


@pytest.mark.parametrize("is_answered", [False, True])
def test_who_brought_a_copy_gets_none_that_reaches_hardly_further(
    router: Router, is_answered: bool
) -> None:
    router.got_query(A, query_of(ttl=1), now=0.0)
    if is_answered:
        router.answered(GUID, 1, [])
    assert queries(router.got_query(B, query_of(ttl=3), now=0.1)).keys() == {C}
    assert queries(router.got_query(C, query_of(ttl=4), now=0.2)).keys() == {A}


def test_another_question_that_crosses_is_no_done(router: Router) -> None:
    router.got_query(A, query_of(ttl=2, text="whale"), now=0.0)
    crossing_it = replace(crossing(1), text="shark")
    refused = [Send(B, done(1, is_complete=False)), Drop(B, DropReason.COLLISION)]
    assert router.got_query(B, crossing_it, now=0.1) == refused


def test_another_question_under_a_known_guid_is_refused(router: Router) -> None:
    router.got_query(A, query_of(ttl=2, text="whale"), now=0.0)
    refused = [Send(B, done(5, is_complete=False)), Drop(B, DropReason.COLLISION)]
    assert router.got_query(B, query_of(ttl=5, text="shark"), now=0.1) == refused


def test_a_colliding_guid_takes_no_hits_from_the_first_asker(router: Router) -> None:
    router.got_query(A, query_of(ttl=3), now=0.0)
    router.got_query(B, query_of(ttl=4), now=0.1)  # B replays what A asked
    assert router.answered(GUID, 3, [hit_of(9, ttl=3)]) == [Send(A, hit_of(9, ttl=3))]
    assert router.got_query_hit(C, hit_of(8, ttl=2), now=0.3) == [Send(A, hit_of(8, ttl=3))]


def test_our_own_query_that_comes_back_is_done_whatever_ttl_it_claims(router: Router) -> None:
    router.originate(query_of(ttl=1), now=0.0)
    assert router.got_query(A, query_of(ttl=5, hops=0), now=0.1) == [Send(A, done(5))]


def test_a_message_of_a_lost_link_is_dropped(router: Router) -> None:
    router.link_lost(A)
    assert router.got_query(A, query_of(), now=0.1) == [Drop(A, DropReason.NO_LINK)]


# Hits and DONE.


def test_hits_and_done_go_back_under_the_name_the_asker_knows(router: Router) -> None:
    router.got_query(A, query_of(ttl=3), now=0.0)
    assert router.got_query_hit(B, hit_of(8, ttl=2), now=0.1) == [Send(A, hit_of(8, ttl=3))]
    assert router.got_done(B, done(2, servents=4, hits=1)) == []
    assert router.got_done(C, done(2, servents=2)) == []
    decisions = router.answered(GUID, 3, [hit_of(9, ttl=3)])
    assert decisions == [
        Send(A, hit_of(9, ttl=3)),
        Send(A, done(3, servents=7, hits=2)),
    ]


def test_an_incomplete_sub_tree_makes_the_whole_incomplete(router: Router) -> None:
    router.got_query(A, query_of(ttl=2), now=0.0)
    router.answered(GUID, 2, [])
    router.got_done(B, done(1, 1, is_complete=False))
    [end] = router.got_done(C, done(1, 1))
    assert end == Send(A, done(2, 3, is_complete=False))


def test_hits_and_dones_of_links_that_were_not_asked_are_dropped(router: Router) -> None:
    router.originate(query_of(ttl=2), now=0.0, links=[A])
    assert router.got_query_hit(B, hit_of(8, ttl=2), now=0.1) == [Drop(B, NOT_ASKED)]
    assert router.got_done(B, done(2)) == [Drop(B, NOT_ASKED)]
    assert router.got_query_hit(A, hit_of(8, ttl=1), now=0.1) == [Drop(A, NOT_ASKED)]
    assert router.got_done(A, Done(guid_of(2), 2, 0, 0, True, skipped=0)) == [Drop(A, NOT_ASKED)]
    assert router.statistics().drops == {NOT_ASKED: 4}
    assert router.statistics().waves == 1


def test_an_asker_cannot_answer_its_own_query(router: Router) -> None:
    router.got_query(A, query_of(ttl=3), now=0.0)
    assert router.got_query_hit(A, hit_of(8, ttl=2), now=0.1) == [Drop(A, NOT_ASKED)]
    assert router.got_done(A, done(2)) == [Drop(A, NOT_ASKED)]


def test_nothing_counts_after_the_done_of_a_link(router: Router) -> None:
    router.originate(query_of(ttl=2), now=0.0)
    router.got_done(A, done(2, servents=1))
    assert router.got_query_hit(A, hit_of(8, ttl=2), now=0.2) == [Drop(A, NOT_ASKED)]
    assert router.got_done(A, done(2, servents=1)) == [Drop(A, NOT_ASKED)]


def test_claimed_counts_stop_at_what_a_done_can_carry(router: Router) -> None:
    router.got_query(A, query_of(ttl=2), now=0.0)
    router.answered(GUID, 2, [])
    router.got_done(B, done(1, MAX_COUNT))
    assert router.got_done(C, done(1, MAX_COUNT)) == [Send(A, done(2, MAX_COUNT))]


def test_the_hits_of_a_done_are_those_that_came_and_not_those_claimed(router: Router) -> None:
    router.originate(query_of(ttl=2), now=0.0, links=[A])
    assert router.got_query_hit(A, hit_of(8, ttl=2), now=0.1) == [Deliver(hit_of(8, ttl=2))]
    finished = Finished(GUID, 2, 1, 1, is_complete=True)
    assert router.got_done(A, done(2, servents=1, hits=99)) == [finished]


# Searches of our own.


def test_a_ring_ends_when_all_neighbours_are_done(router: Router) -> None:
    sent = queries(router.originate(query_of(ttl=2, hops=3, deadline_ms=2_000), now=0.0))
    copy = query_of(ttl=2, hops=0, deadline_ms=2_000 - HOP_MARGIN_MS)
    assert sent == dict.fromkeys((A, B, C), replace(copy, echoes=True))
    assert router.got_done(A, done(2, 1)) == []
    assert router.got_done(B, done(2, 2)) == []
    finished = Finished(GUID, 2, 6, 0, is_complete=True)
    assert router.got_done(C, done(2, 3)) == [finished]


def test_a_search_may_be_sent_to_some_links_only(router: Router) -> None:
    lost = LinkId(99)
    assert queries(router.originate(query_of(), now=0.0, links=[B, lost])).keys() == {B}


def test_a_far_search_goes_over_the_oldest_links_alone(router: Router) -> None:
    assert queries(router.originate(query_of(ttl=WIDE_TTL), now=0.0)).keys() == {A, B, C}
    far = queries(router.originate(query_of(ttl=WIDE_TTL + 1), now=0.1))
    assert [*far] == [A, B, C][:FAR_LINKS]


@pytest.mark.parametrize("last_ttl", [0, WIDE_TTL - 1])
def test_a_far_search_goes_over_the_other_links_as_far_as_all_go(
    router: Router, last_ttl: int
) -> None:
    if last_ttl:
        router.originate(query_of(ttl=last_ttl), now=0.0)
    sent = queries(router.originate(query_of(ttl=WIDE_TTL + 1), now=0.1))
    assert [sent[link].ttl for link in (A, B, C)] == [
        WIDE_TTL + (number < FAR_LINKS) for number in range(3)
    ]
    assert router.statistics().waves == 2 + bool(last_ttl)


def test_what_others_send_far_is_passed_on_to_all(router: Router) -> None:
    passed = queries(router.got_query(A, query_of(ttl=WIDE_TTL + 1), now=0.0))
    assert passed.keys() == {B, C}


def test_a_search_without_links_is_over_at_once() -> None:
    finished = Finished(GUID, 4, 0, 0, is_complete=True)
    assert router_with().originate(query_of(ttl=4), now=0.0) == [finished]


@pytest.mark.parametrize("ttl", [1, 2])
def test_a_ring_that_does_not_grow_is_our_bug(router: Router, ttl: int) -> None:
    router.originate(query_of(ttl=2), now=0.0)
    with pytest.raises(LocalProtocolError):
        router.originate(query_of(ttl=ttl), now=1.0)


def test_a_guid_of_somebody_else_cannot_be_ours(router: Router) -> None:
    router.got_query(A, query_of(ttl=2), now=0.0)
    with pytest.raises(LocalProtocolError):
        router.originate(query_of(ttl=3), now=1.0)


# Lost links and deadlines.


def test_a_lost_link_is_no_longer_waited_for(router: Router) -> None:
    router.originate(query_of(ttl=2), now=0.0, links=[A, B])
    router.got_done(A, done(2, 3))
    finished = Finished(GUID, 2, 3, 0, is_complete=False)
    assert router.link_lost(B) == [finished]
    assert router.link_lost(B) == []


def test_all_that_waited_for_a_lost_link_end(router: Router) -> None:
    other = Guid(b"another question")
    router.originate(query_of(ttl=2), now=0.0, links=[B])
    router.originate(replace(query_of(ttl=2), guid=other), now=0.0, links=[B])
    ended = router.link_lost(B)
    assert [d.guid for d in ended if isinstance(d, Finished)] == [GUID, other]


def test_when_the_asker_is_lost_nothing_more_is_sent(router: Router) -> None:
    router.got_query(A, query_of(ttl=2), now=0.0)
    assert router.link_lost(A) == []
    assert router.statistics().waves == 0
    assert router.answered(GUID, 2, [hit_of(9, ttl=2)]) == []
    assert router.got_done(B, done(1)) == [Drop(B, NOT_ASKED)]
    assert router.expire(100.0) == []


def test_a_wave_past_its_deadline_is_done_incomplete(router: Router) -> None:
    router.got_query(A, query_of(ttl=2, deadline_ms=1_000), now=10.0)
    router.got_done(B, done(1, 2))
    assert router.next_deadline() == 11.0
    assert router.expire(10.9) == []
    assert router.expire(11.0) == [Send(A, done(2, 3, is_complete=False))]
    assert router.next_deadline() is None
    assert router.got_done(C, done(1)) == [Drop(C, NOT_ASKED)]
    assert router.answered(GUID, 2, [hit_of(9, ttl=2)]) == []


def test_a_wave_that_ended_leaves_no_deadline(router: Router) -> None:
    router.got_query(A, query_of(1, ttl=1, deadline_ms=1_000), now=0.0)
    router.got_query(A, query_of(2, ttl=1, deadline_ms=2_000), now=0.0)
    router.answered(GUID, 1, [])
    assert router.next_deadline() == 2.0


def test_no_deadline_is_longer_than_the_limit(router: Router) -> None:
    copies = queries(router.got_query(A, query_of(deadline_ms=MAX_DEADLINE_MS * 9), now=0.0))
    assert copies[B].deadline_ms == MAX_DEADLINE_MS - HOP_MARGIN_MS
    assert router.next_deadline() == MAX_DEADLINE_MS / 1000


@pytest.mark.parametrize("deadline_ms", [0, HOP_MARGIN_MS])
def test_a_copy_without_time_for_another_hop_is_only_answered(
    router: Router, deadline_ms: int
) -> None:
    decisions = router.got_query(A, query_of(ttl=3, deadline_ms=deadline_ms), now=0.0)
    assert shape(decisions) == [("Answer", None)]
    assert router.answered(GUID, 3, []) == [Send(A, done(3, 1, is_complete=False))]


def test_statistics_count_what_passed(router: Router) -> None:
    router.got_query(A, query_of(1, ttl=2), now=0.0)
    router.got_query(B, query_of(1, ttl=2), now=0.0)
    router.got_query(B, query_of(2, ttl=2), now=0.0)
    router.got_query_hit(C, hit_of(8, 1, ttl=1), now=0.1)
    statistics = router.statistics()
    assert (statistics.queries_seen, statistics.hits_passed, statistics.waves) == (2, 1, 2)


# Enough.


def test_who_owes_an_answer_is_told_that_it_is_wanted_no_more() -> None:
    router = Router()
    for link in (A, B):
        router.link_opened(link)
    router.originate(query_of(ttl=2), 0.0)
    router.got_done(A, Done(guid_of(1), 2, 1, 0, True, skipped=0))
    assert router.enough(guid_of(1)) == [Send(B, Enough(guid_of(1)))]
    assert router.enough(guid_of(1)) == []
    late = Done(guid_of(1), 2, 1, 0, True, skipped=0)
    assert router.got_done(B, late) == [Drop(B, NOT_ASKED)]
    assert router.expire(99.0) == []


def test_it_goes_on_for_others_who_ask_the_same() -> None:
    router = Router()
    for link in (A, B, C):
        router.link_opened(link)
    router.got_query(A, query_of(ttl=3), 0.0)
    router.got_query(B, query_of(ttl=4), 0.0)
    router.answered(guid_of(1), 3, [])
    assert router.got_enough(A, Enough(guid_of(1))) == [Send(B, Enough(guid_of(1)))]
    done = Done(guid_of(1), 3, 1, 0, True, skipped=0)
    assert router.got_done(C, done) == [Send(B, Done(guid_of(1), 4, 1, 0, True, skipped=0))]


def test_copies_that_go_no_further_are_let_come_to_their_end() -> None:
    router = Router()
    for link in (A, B):
        router.link_opened(link)
    router.got_query(A, query_of(ttl=2), 0.0)
    assert router.got_enough(A, Enough(guid_of(1))) == []
    assert router.statistics().waves == 0


def test_nobody_can_end_what_it_did_not_ask() -> None:
    router = Router()
    for link in (A, B, C):
        router.link_opened(link)
    router.originate(query_of(guid=1, ttl=2), 0.0)
    router.got_query(A, query_of(guid=2, ttl=2), 0.0)
    for guid in (1, 2, 3):
        assert router.got_enough(B, Enough(guid_of(guid))) == []
    assert router.statistics().waves == 2
