"""Two who cannot be dialled and have no neighbour in common get one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import NoSourceError
from p2pfs.link import Link
from p2pfs.protocol import Address, Guid, Guide, PeerInfo
from p2pfs.reach.favours import PUSH_BURST
from p2pfs.reach.guides import GUIDED_S
from tests.helpers.contents import Content
from tests.helpers.world import PORT, World, host, open_world

FILM = Content.of(300_000)

FIRST_BYTE_S = 3.0

FAILS_WITHIN_S = 5.0


@asynccontextmanager
async def row(*hidden: int, symmetric: bool = False) -> AsyncIterator[World]:
    """Give servents of which each knows the next, the last with a film; some behind routers.

    0 reads; each of those behind a router has dialled its neighbours.
    """
    count = max(hidden) + 1
    async with open_world(latency_s=0.02) as world:
        for number in range(count):
            world.net.host(host(number)).is_behind_router = number in hidden
            world.net.host(host(number)).is_symmetric = symmetric and not number
            await world.start()
            world[number].overlay.degree._start_walk = lambda: None
            await world[number].library.wait_idle()
        for number in range(count - 1):
            one, other = (number, number + 1) if number in hidden else (number + 1, number)
            await world[one].join(world.endpoint(other))
        await world.share(count - 1, "film.mkv", FILM.data)
        for number in range(count):
            expected = {host(number - 1), host(number + 1)} & {host(n) for n in range(count)}
            assert {link.remote.host for link in world[number].overlay.neighbours} == expected
        yield world


@pytest.mark.parametrize("hidden", [(0, 3), (0, 2, 4), (0, 4)], ids=str)
@pytest.mark.parametrize("symmetric", [False, True], ids=["they meet", "they are relayed"])
async def test_the_neighbour_of_the_source_brings_both_together(
    autojump_clock: MockClock, hidden: tuple[int, ...], symmetric: bool
):
    async with row(*hidden, symmetric=symmetric) as world:
        began_at = trio.current_time()
        assert await world.read(0, "film.mkv") == FILM.data

        assert trio.current_time() - began_at <= FIRST_BYTE_S
        guide = world[max(hidden) - 1]
        assert guide.ways.punches.counters["arranged"] == 1
        assert sum(one.ways.relays.counters["granted"] for one in world.servents) == symmetric
        assert guide.whereabouts.identity.id in world[0].overlay.links


async def test_who_has_a_neighbour_in_common_makes_no_other_one(autojump_clock: MockClock):
    async with row(0, 2) as world:
        assert await world.read(0, "film.mkv") == FILM.data

        assert len(world[0].overlay.neighbours) == 1


def told(world: World, number: int, guide: PeerInfo) -> None:
    """Have a servent name this one for all questions."""
    guides = world[number].ways.guides

    def tell(link: Link, message: Guide) -> None:
        link.post(Guide(message.token, message.peer, 1, guide))

    guides._tell = guides._pass_on = tell  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "place",
    [Address("10.0.7.7", 22), Address("127.0.0.1", PORT), Address("10.0.7.7", PORT)],
    ids=["a port of a service", "on this machine", "nobody there"],
)
async def test_who_is_named_is_dialled_as_anybody_whom_strangers_name(
    autojump_clock: MockClock, place: Address
):
    async with row(0, 3) as world:
        world.net.host("10.0.7.7")
        told(world, 1, PeerInfo("b" * 32, "victim", (place,)))
        knocked: list[Address] = []
        dial = world.net.host(host(0)).dial

        async def heard(address: Address):
            knocked.append(address)
            return await dial(address)

        world.net.host(host(0)).dial = heard  # type: ignore[method-assign]
        began_at = trio.current_time()
        with pytest.raises(NoSourceError, match="victim, its neighbour"):
            await world.read(0, "film.mkv")

        assert trio.current_time() - began_at <= FAILS_WITHIN_S
        is_allowed = place == Address("10.0.7.7", PORT)
        assert (place in knocked) == is_allowed


async def test_a_named_servent_that_swallows_packets_is_waited_for_a_moment(
    autojump_clock: MockClock,
):
    async with row(0, 3) as world:
        world.net.freeze("10.0.7.7")
        world.net.host("10.0.7.7")
        told(world, 1, PeerInfo("b" * 32, "victim", (Address("10.0.7.7", PORT),)))
        began_at = trio.current_time()
        with pytest.raises(NoSourceError, match=f"did not become ours within {GUIDED_S:g} s"):
            await world.read(0, "film.mkv")

        assert trio.current_time() - began_at <= FAILS_WITHIN_S


def question(number: int, peer: str = "a" * 32, guide: PeerInfo | None = None) -> Guide:
    return Guide(Guid(bytes([number] * 16)), peer, 5, guide)


async def test_an_answer_is_passed_back_once_and_from_where_the_question_went(
    autojump_clock: MockClock,
):
    async with row(0, 3) as world:
        guides = world[1].ways.guides
        back, there = (world[1].overlay.links[world[n].whereabouts.identity.id] for n in (0, 2))
        said: list[Guide] = []
        back.post = there.post = said.append  # type: ignore[method-assign]
        source = world[3].whereabouts.identity.id
        guides._routes.came_from(source, there.peer.id)
        stranger = PeerInfo("b" * 32, "b", (Address("10.0.7.7", PORT),))

        guides.got_guide(back, question(1, source))
        for link in (back, there, there):
            guides.got_guide(link, question(1, source, stranger))
        guides.got_guide(there, question(2, source, stranger))

        assert [(one.ttl, one.guide) for one in said] == [(4, None), (1, stranger)]
        assert guides.counters == {"passed on": 1, "dropped: no answer to anything": 3}


async def test_who_wants_one_servent_at_once_shares_the_question_though_the_first_gives_up(
    autojump_clock: MockClock,
):
    async with row(0, 3) as world:
        one, other, source = (world[number].whereabouts.identity.id for number in (1, 2, 3))
        world[0].ways.came_from(source, one)
        world[1].ways.came_from(source, other)
        wanted = PeerInfo(source, "source", ())
        ways: list[Link | None] = []

        async def want() -> None:
            ways.append(await world[0].ways.guides.common(wanted))

        async with trio.open_nursery() as nursery, trio.open_nursery() as first:
            first.start_soon(want)
            nursery.start_soon(want)
            await trio.sleep(0.001)  # no answer is here yet
            first.cancel_scope.cancel()

        assert [way.peer.id for way in ways if way] == [other]
        assert world[1].ways.guides.counters == {"passed on": 1}


async def test_a_neighbour_that_asks_too_often_is_not_heard(autojump_clock: MockClock):
    async with row(0, 2) as world:
        link = world[1].overlay.neighbours[0]
        for number in range(PUSH_BURST + 5):
            world[1].ways.guides.got_guide(link, question(number))

        assert world[1].ways.guides.counters["dropped: over budget"] == 5
