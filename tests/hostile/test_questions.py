"""What others have us pass on and answer: each address has a share, and costs no more than that."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import trio
from trio.testing import MockClock

from p2pfs.protocol import fields
from p2pfs.protocol import messages as m
from p2pfs.protocol.flood import Answer, Ban, Decision, LinkId, Rest, Router, Send, seen
from p2pfs.protocol.flood.askers import (
    ANSWERING_BURST_S,
    BEGUN_AT_FIRST,
    BEGUN_BURST,
    BEGUN_PER_S,
    LONGEST_REST_S,
    QUESTION_PART,
    REFUSED_BURST,
    REFUSED_PER_S,
    SHARED_PART,
    SPREAD_AT_FIRST,
    SPREAD_BURST,
    SPREAD_PER_S,
    UNASKED_BURST,
)
from p2pfs.protocol.flood.spreading import OTHERS_COPIES, QUERIES_PER_S, SEARCH_BURST
from p2pfs.protocol.identity import Identity
from p2pfs.protocol.signatures import sign_hit
from tests.helpers.rogues import RawPeer
from tests.helpers.world import open_world

NUMBERS = itertools.count()


def query(hops: int, ttl: int = 3) -> m.Query:
    guid = fields.Guid(next(NUMBERS).to_bytes(16, "big"))
    return m.Query(guid, ttl, hops, m.QueryKind.WORDS, "film", 50, 5000)


def cost(decision: Decision) -> float:
    """Return what a decision costs, in copies of a question."""
    is_copy = isinstance(decision, Send) and isinstance(decision.message, m.Query)
    return is_copy + QUESTION_PART * isinstance(decision, Answer)


class Crossing:
    """A router between a holder, a friend and a dozen strangers at one address or at many."""

    holder, friend, *strangers = map(LinkId, range(14))

    def __init__(self, strangers_at: str | None = None) -> None:
        self.router, self.now = Router(), 0.0
        for link in (self.holder, self.friend):
            self.router.link_opened(link, self.now, f"10.0.0.{link}")
        for link in self.strangers:
            self.router.link_opened(link, self.now, strangers_at or f"10.66.{link}.6")

    def flood(self, hops: int = 1, rounds: int = 200) -> list[Decision]:
        """Let each stranger send as many questions as it may; return what comes of it."""
        decisions: list[Decision] = []
        for _ in range(rounds):
            self.now += 1 / QUERIES_PER_S
            for link in self.strangers:
                decisions += self.router.got_query(link, query(hops), self.now)
        return decisions

    def takes(self, link: LinkId, asked: m.Query) -> bool:
        """Return whether a question is taken in: it is answered, or passed on."""
        return any(map(cost, self.router.got_query(link, asked, self.now)))

    def is_answered(self, link: LinkId, asked: m.Query, took_s: float = 0.0) -> bool:
        decisions = self.router.got_query(link, asked, self.now)
        is_answered = any(isinstance(one, Answer) for one in decisions)
        if is_answered:
            self.router.spent(link, asked, took_s)
        return is_answered

    def reaches_holder(self, decisions: list[Decision]) -> bool:
        return self.holder in [one.link for one in decisions if isinstance(one, Send)]


def test_what_others_ask_leaves_room_for_our_own_searches():
    crossing = Crossing()
    crossing.flood()

    assert crossing.reaches_holder(crossing.router.originate(query(0), crossing.now))


def test_what_one_address_asks_leaves_room_for_what_others_ask():
    crossing = Crossing("10.66.6.6")
    crossing.now += BEGUN_BURST / BEGUN_PER_S
    crossing.flood(hops=0, rounds=SEARCH_BURST)
    asked = [
        crossing.router.got_query(crossing.friend, query(1), crossing.now)
        for _ in range(OTHERS_COPIES)
    ]

    assert all(crossing.reaches_holder(one) for one in asked)


def test_what_a_neighbour_passes_on_does_not_take_what_it_asks_itself():
    crossing = Crossing()
    while crossing.is_answered(crossing.friend, query(1), took_s=0.1):
        pass

    assert crossing.is_answered(crossing.friend, query(0), took_s=0.1)
    assert not crossing.is_answered(crossing.friend, query(1))


def test_the_questions_of_one_address_take_the_time_of_one():
    crossing, took_s = Crossing("10.66.6.6"), 0.1
    answers = 0
    for link in crossing.strangers * 20:
        answers += crossing.is_answered(link, query(1), took_s)

    assert answers == ANSWERING_BURST_S / took_s


def test_the_searches_that_one_address_begins_are_bounded_over_all_its_links():
    crossing, begun = Crossing("10.66.6.6"), 0
    for _ in range(10):
        begun += sum(isinstance(one, Answer) for one in crossing.flood(0, SEARCH_BURST))
        for link in crossing.strangers:  # they go, and come again
            crossing.router.link_lost(link)
            crossing.router.link_opened(link, crossing.now, "10.66.6.6")

    assert BEGUN_AT_FIRST <= begun <= BEGUN_AT_FIRST + BEGUN_PER_S * crossing.now


def test_twelve_who_have_one_address_look_around_at_once_and_go_on():
    crossing = Crossing("10.66.6.6")
    assert all(crossing.takes(link, query(0)) for link in crossing.strangers * 5)
    for _ in range(100):
        crossing.now += len(crossing.strangers) / BEGUN_PER_S
        assert all(crossing.takes(link, query(0)) for link in crossing.strangers)


def test_what_one_network_asks_is_remembered_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(seen, "MAX_SEEN_OF_NETWORK", 20)
    crossing, asked = Crossing("10.66.6.6"), query(1)
    assert crossing.takes(crossing.friend, asked)
    crossing.flood()

    assert len(crossing.router._seen) == 20 + 1
    assert not crossing.takes(crossing.holder, asked)


def test_what_many_networks_ask_pushes_out_no_question_of_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(seen, "MAX_SEEN", 100)
    crossing, asked = Crossing(), query(1)
    assert crossing.takes(crossing.friend, asked)
    crossing.flood()

    assert len(crossing.router._seen) == 100
    assert not crossing.takes(crossing.holder, asked)


def test_who_sends_hits_that_nobody_asked_for_is_banned_and_who_comes_again_at_once():
    crossing, identity = Crossing("10.66.6.6"), Identity.generate()
    info = m.PeerInfo(identity.id, "liar", ())
    hit = sign_hit(identity, query(0).guid, 3, info, [], 0)

    def bans(link: LinkId) -> list[Ban]:
        decisions = crossing.router.got_query_hit(link, hit, crossing.now)
        return [one for one in decisions if isinstance(one, Ban)]

    first, second = crossing.strangers[:2]
    sent = next(count for count in range(1, 2 * UNASKED_BURST) if bans(first))
    crossing.router.link_lost(first)
    crossing.router.link_opened(first, crossing.now, "10.66.6.6")

    assert sent == UNASKED_BURST + 1
    assert bans(first)
    assert bans(second)
    assert not bans(crossing.friend)


LINKS = 2 + len(Crossing.strangers)
AT_ONCE = int(SPREAD_AT_FIRST / (LINKS - 1 + QUESTION_PART)) + 1
"""Questions of an address that is new."""


@pytest.mark.parametrize("at", ["10.66.6.6", None])
def test_what_an_address_has_us_pass_on_is_bounded_over_all_its_links(at: str | None):
    crossing = Crossing(at)
    spent = sum(map(cost, crossing.flood()))

    addresses = 1 if at else len(crossing.strangers)
    assert spent >= SPREAD_AT_FIRST
    assert spent <= addresses * (SPREAD_AT_FIRST + SPREAD_PER_S * crossing.now + LINKS)


def test_what_is_refused_to_who_asks_too_much_is_taken_of_another():
    crossing = Crossing("10.66.6.6")
    crossing.flood()
    asked = query(1)

    assert not crossing.takes(crossing.strangers[0], asked)
    assert crossing.takes(crossing.friend, asked)


def test_a_question_that_comes_over_several_addresses_costs_the_first_of_them_little():
    crossing = Crossing()
    first, second = crossing.strangers[:2]

    def taken(*others: LinkId) -> int:
        for number in itertools.count():
            asked = query(1)
            if not crossing.takes(first, asked):
                return number
            for other in others:
                crossing.router.got_query(other, asked, crossing.now)
        raise AssertionError

    assert taken(first) <= AT_ONCE
    crossing.now += SPREAD_AT_FIRST / SPREAD_PER_S
    assert taken(second) >= (AT_ONCE - 1) / SHARED_PART - 1


def test_who_takes_a_new_address_each_time_gains_little():
    crossing = Crossing()
    crossing.now += 2 * SPREAD_BURST / SPREAD_PER_S
    for number in range(20):
        stranger = LinkId(1_000 + number)
        crossing.router.link_opened(stranger, crossing.now, f"10.66.99.{number}")
        spent = sum(
            cost(one)
            for _ in range(2 * AT_ONCE)
            for one in crossing.router.got_query(stranger, query(1), crossing.now)
        )
        crossing.router.link_lost(stranger)
        assert spent <= SPREAD_AT_FIRST + LINKS


def test_the_links_of_an_address_that_asks_too_much_are_read_more_slowly():
    crossing = Crossing("10.66.6.6")
    rests = [one for one in crossing.flood() if isinstance(one, Rest)]

    assert {one.link for one in rests} == {*crossing.strangers}
    assert max(one.seconds for one in rests) == LONGEST_REST_S
    assert not any(
        isinstance(one, Rest)
        for _ in range(REFUSED_BURST)
        for one in crossing.router.got_query(crossing.friend, query(1), crossing.now)
    )


async def test_who_asks_too_much_waits_itself_and_nobody_else(autojump_clock: MockClock):
    flood_s = 40.0

    async def flood(rogue: RawPeer) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await rogue.send(query(1))
                await trio.sleep(1 / 19)

    async with open_world() as world, trio.open_nursery() as nursery:
        for joins in [], [0]:
            await world.start(joins=joins)
        await world.linked(1, 1)
        for number in range(2):
            await world.share(number, f"film {number}", b"x")
        address = world[0].whereabouts.listen_address
        host = world.net.host("10.66.6.6")
        for _ in range(12):
            rogue = await RawPeer.dial(host, address, m.LinkKind.NEIGHBOUR)
            nursery.start_soon(flood, rogue)
        await trio.sleep(flood_s)
        read = world[0].message_router.queries_seen
        assert len((await world[0].report.search("film"))["files"]) == 1
        assert len((await world[1].report.search("film"))["files"]) == 1
        nursery.cancel_scope.cancel()

    refused = REFUSED_BURST + REFUSED_PER_S * flood_s
    assert read <= SPREAD_AT_FIRST + SPREAD_PER_S * flood_s + refused + 12 * flood_s
