"""News reach everybody within the horizon once, and nobody can tell those of another."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from p2pfs.errors import RemoteProtocolError
from p2pfs.protocol import MAX_TTL, Identity, News, PeerInfo, sign_news
from p2pfs.protocol.flood.decisions import (
    Ban,
    Decision,
    Drop,
    DropReason,
    LinkId,
    Send,
    ShareChanged,
)
from p2pfs.protocol.flood.news import (
    AHEAD_MS,
    ARRIVAL_BURST,
    ARRIVALS_PER_S,
    MAX_TELLERS,
    NEWS_BURST,
    NEWS_OF_ONE_BURST,
    NEWS_OF_ONE_PER_S,
    NewsTable,
)
from p2pfs.protocol.flood.routing import Router
from tests.helpers.floodnet import ball, router_with

A, B, C = LinkId(1), LinkId(2), LinkId(3)
ANNA, BEN = (Identity.from_bytes(bytes([number]) * 32) for number in (1, 2))


def news_of(identity: Identity = ANNA, version: int = 1, ttl: int = 4) -> News:
    provider = PeerInfo(identity.id, "somebody", ())
    return sign_news(identity, ttl, provider, version, ["films"], is_all=False)


DAY_MS = 86_400_000
TODAY_MS = 20_000 * DAY_MS


@pytest.fixture
def router() -> Router:
    return router_with(A, B, C)


def onward(news: News, *links: LinkId) -> list[Decision]:
    return [ShareChanged(news), *(Send(link, replace(news, ttl=news.ttl - 1)) for link in links)]


def test_what_is_new_goes_to_the_others_and_what_is_not_goes_nowhere(router: Router) -> None:
    assert router.got_news(A, news_of(), 0.0) == onward(news_of(), B, C)
    for repeat in (news_of(), news_of(version=0), news_of(ttl=5)):
        assert router.got_news(B, repeat, 0.1) == []
    assert router.got_news(B, news_of(version=2), 0.2) == onward(news_of(version=2), A, C)
    assert router.got_news(B, news_of(BEN), 0.2) == onward(news_of(BEN), A, C)


def test_the_last_link_ends_it(router: Router) -> None:
    assert router.got_news(A, news_of(ttl=1), 0.0) == [ShareChanged(news_of(ttl=1))]


def test_our_own_go_to_all_and_are_not_heard_when_they_come_home(router: Router) -> None:
    assert router.originate_news(news_of(), 0.0) == [Send(link, news_of()) for link in (A, B, C)]
    assert router.got_news(A, news_of(ttl=2), 0.1) == []


@pytest.mark.parametrize(
    "forged",
    [
        replace(news_of(), version=9),
        replace(news_of(), directories=("music",)),
        replace(news_of(), is_all=True),
        replace(news_of(), provider=PeerInfo(ANNA.id, "another", ())),
        replace(news_of(), provider=PeerInfo(BEN.id, "somebody", ())),
        replace(news_of(), signature=bytes(64)),
    ],
)
def test_nobody_can_tell_those_of_another_or_silence_it(router: Router, forged: News) -> None:
    with pytest.raises(RemoteProtocolError):
        router.got_news(A, forged, 0.0)
    assert router.got_news(B, news_of(), 0.1) == onward(news_of(), A, C)


def test_one_that_tells_all_the_time_is_heard_seldom(router: Router) -> None:
    heard = sum(
        ShareChanged in map(type, router.got_news(A, news_of(version=second), second))
        for second in range(100)
    )
    assert heard <= NEWS_OF_ONE_BURST + 100 * NEWS_OF_ONE_PER_S + 1


def test_what_a_neighbour_brings_is_bounded_whoever_told_it(router: Router) -> None:
    tellers = [Identity.generate() for _ in range(NEWS_BURST + 10)]
    decisions = [router.got_news(A, news_of(teller), 0.0) for teller in tellers]
    assert sum(ShareChanged in map(type, one) for one in decisions) == NEWS_BURST
    assert decisions[-1] == [Drop(A, DropReason.OVER_BUDGET)]
    sent = [d for one in decisions for d in one if isinstance(d, Send) and d.link == B]
    assert len(sent) < NEWS_BURST, "less than B accepts of us"


@pytest.mark.parametrize(("directories", "is_all"), [((), False), (("",), True)])
def test_who_comes_and_goes_is_passed_on_seldom(
    router: Router, directories: Sequence[str], is_all: bool
) -> None:
    """One neighbour that makes up servents has used up what it may bring, and no other has."""

    def made_up() -> News:
        told = (PeerInfo((one := Identity.generate()).id, "somebody", ()), 1, directories)
        return sign_news(one, 4, *told, is_all=is_all)

    passed = [router.got_news(A, made_up(), 0.0) for _ in range(ARRIVAL_BURST + 10)]
    assert sum(Send in map(type, decisions) for decisions in passed) == ARRIVAL_BURST
    assert {*map(type, passed[-1])} == {ShareChanged, Drop}
    assert Send in map(type, router.got_news(B, made_up(), 0.0))
    assert Send in map(type, router.got_news(A, news_of(), 0.0)), "what has changed goes on"
    assert Send in map(type, router.got_news(A, made_up(), 1 / ARRIVALS_PER_S))


def test_far_more_is_a_ban(router: Router) -> None:
    decisions = [d for n in range(1_000) for d in router.got_news(A, news_of(), n / 100)]
    assert [type(one) for one in decisions].count(Ban) == 1


def test_too_many_tellers_push_out_the_oldest() -> None:
    table = NewsTable()
    for number in range(MAX_TELLERS + 5):
        table._teller(str(number))
    assert len(table._tellers) == MAX_TELLERS


def test_of_a_link_that_is_gone_nothing_is_heard(router: Router) -> None:
    router.link_lost(A)
    assert router.got_news(A, news_of(), 0.0) == [Drop(A, DropReason.NO_LINK)]
    assert router.got_news(B, news_of(), 0.0) == onward(news_of(), C)


@settings(max_examples=30)
@given(st.data(), st.integers(1, MAX_TTL))
def test_all_within_the_horizon_hear_it_and_each_link_carries_it_once_each_way(
    data: st.DataObject, ttl: int
) -> None:
    size = data.draw(st.integers(2, 16))
    edges = {(data.draw(st.integers(0, n - 1)), n) for n in range(1, size)}
    pairs = [(a, b) for b in range(size) for a in range(b)]
    edges |= set(data.draw(st.lists(st.sampled_from(pairs), max_size=size)))
    routers = {servent: Router() for servent in range(size)}
    for a, b in edges:
        routers[a].link_opened(LinkId(b))
        routers[b].link_opened(LinkId(a))
    news = news_of(ttl=ttl)
    waiting = [(0, d) for d in routers[0].originate_news(news, 0.0)]
    heard, crossed = set(), set()
    while waiting:
        sender, decision = waiting.pop(0)
        if isinstance(decision, ShareChanged):
            heard.add(sender)
            continue
        assert isinstance(decision, Send)
        assert (sender, decision.link) not in crossed
        crossed.add((sender, decision.link))
        message = decision.message
        assert isinstance(message, News)
        got = routers[decision.link].got_news(LinkId(sender), message, 0.0)
        waiting += [(int(decision.link), one) for one in got]
    assert heard == ball(edges, 0, ttl) - {0}


@pytest.mark.parametrize("ahead_ms", [AHEAD_MS + 1, DAY_MS, 40_000 * DAY_MS])
def test_what_a_servent_said_while_its_clock_ran_ahead_silences_it_no_longer(
    router: Router, ahead_ms: int
) -> None:
    early, right = news_of(version=TODAY_MS + ahead_ms), news_of(version=TODAY_MS + 1)
    later = news_of(version=TODAY_MS + 2)

    assert router.got_news(A, early, 0.0, TODAY_MS) == onward(early, B, C)
    assert router.got_news(A, right, 10.0, TODAY_MS) == onward(right, B, C)
    for again in (early, right):
        assert router.got_news(B, again, 20.0, TODAY_MS) == []
    assert router.got_news(A, later, 30.0, TODAY_MS) == onward(later, B, C)


def test_our_own_news_do_not_come_back_though_our_clock_was_set_back(router: Router) -> None:
    own = news_of(version=TODAY_MS + DAY_MS)
    router.originate_news(own, 0.0)

    assert router.got_news(A, own, 1.0, TODAY_MS + DAY_MS) == []
    assert router.got_news(A, own, 1.0, TODAY_MS) == []
