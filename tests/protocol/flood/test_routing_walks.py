from __future__ import annotations

from collections.abc import Sequence

import pytest

from p2pfs.protocol.flood.decisions import Drop, DropReason, Introduced, LinkId, OfferSelf, Send
from p2pfs.protocol.flood.routing import Router
from p2pfs.protocol.messages import WALK_STEPS, Introduce, Walk
from tests.helpers.floodnet import guid_of, peer_of, router_with

A, B, C = LinkId(1), LinkId(2), LinkId(3)
GUID = guid_of(1)
OFFER = Introduce(GUID, peer_of(9))


def last(links: Sequence[LinkId]) -> LinkId:
    return links[-1]


@pytest.fixture
def router() -> Router:
    return router_with(A, B, C)


def test_a_walk_of_our_own_sets_out_with_all_its_steps(router: Router) -> None:
    assert router.originate_walk(GUID, last, now=0.0) == [Send(C, Walk(GUID, WALK_STEPS - 1))]


def test_without_a_neighbour_no_walk_sets_out() -> None:
    assert Router().originate_walk(GUID, last, now=0.0) == []


def test_a_walk_goes_on_but_never_straight_back(router: Router) -> None:
    offered: list[Sequence[LinkId]] = []

    def choose(links: Sequence[LinkId]) -> LinkId:
        offered.append(links)
        return links[0]

    assert router.got_walk(A, Walk(GUID, 4), choose, now=0.0) == [Send(B, Walk(GUID, 3))]
    assert offered == [[B, C]]


def test_a_walk_without_steps_ends_here(router: Router) -> None:
    assert router.got_walk(A, Walk(GUID, 0), last, now=0.0) == [OfferSelf(A, GUID)]


def test_a_walk_with_nowhere_else_to_go_ends_here() -> None:
    router = Router()
    router.link_opened(A)
    assert router.got_walk(A, Walk(GUID, 4), last, now=0.0) == [OfferSelf(A, GUID)]


def test_our_own_walk_that_ends_at_home_brings_nobody(router: Router) -> None:
    router.originate_walk(GUID, last, now=0.0)
    home = Drop(A, DropReason.CAME_HOME)
    assert router.got_walk(A, Walk(GUID, 0), last, now=0.1) == [home]
    assert router.statistics().drops == {DropReason.CAME_HOME: 1}


def test_an_introduction_goes_back_the_way_the_walk_came(router: Router) -> None:
    router.got_walk(A, Walk(GUID, 4), last, now=0.0)
    assert router.got_introduce(C, OFFER, now=0.1) == [Send(A, OFFER)]


def test_an_introduction_to_our_own_walk_is_told(router: Router) -> None:
    router.originate_walk(GUID, last, now=0.0)
    assert router.got_introduce(C, OFFER, now=0.1) == [Introduced(peer_of(9))]


def test_a_walk_brings_one_introduction(router: Router) -> None:
    router.originate_walk(GUID, last, now=0.0)
    router.got_introduce(C, OFFER, now=0.1)
    assert router.got_introduce(C, OFFER, now=0.2) == [Drop(C, DropReason.NOT_ASKED)]


@pytest.mark.parametrize("link", [A, B])
def test_an_introduction_from_where_the_walk_did_not_go_is_dropped(
    router: Router, link: LinkId
) -> None:
    router.got_walk(A, Walk(GUID, 4), last, now=0.0)
    assert router.got_introduce(link, OFFER, now=0.1) == [Drop(link, DropReason.NOT_ASKED)]


def test_an_introduction_to_no_walk_is_dropped(router: Router) -> None:
    assert router.got_introduce(A, OFFER, now=0.0) == [Drop(A, DropReason.NOT_ASKED)]


def test_an_introduction_for_a_lost_link_is_dropped(router: Router) -> None:
    router.got_walk(A, Walk(GUID, 4), last, now=0.0)
    router.link_lost(A)
    assert router.got_introduce(C, OFFER, now=0.2) == [Drop(C, DropReason.NO_LINK)]


def test_a_walk_that_comes_again_keeps_its_first_way_back(router: Router) -> None:
    router.got_walk(A, Walk(GUID, 4), last, now=0.0)  # on to C
    router.got_walk(B, Walk(GUID, 1), last, now=0.1)  # back through B, on to C again
    assert router.got_introduce(C, OFFER, now=0.2) == [Send(A, OFFER)]


def test_a_replayed_walk_cannot_steal_the_introduction(router: Router) -> None:
    router.originate_walk(GUID, last, now=0.0)
    router.got_walk(B, Walk(GUID, 9), last, now=0.1)
    assert router.got_introduce(C, OFFER, now=0.2) == [Introduced(peer_of(9))]


def test_a_walk_of_a_lost_link_is_dropped(router: Router) -> None:
    router.link_lost(A)
    assert router.got_walk(A, Walk(GUID, 4), last, now=0.1) == [Drop(A, DropReason.NO_LINK)]
