"""Two servents behind routers dial each other at one moment."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from p2pfs.link.knocks import KNOCKS_AT_FIRST
from p2pfs.protocol import Address
from p2pfs.reach.meeting import MAX_TRIES, MEETING_S
from tests.helpers.routed import BOTH, FILM, between_routers, punch
from tests.helpers.world import World, host, open_world

FIRST_BYTE_S = 3.0


@pytest.mark.parametrize("first", [min, max])
async def test_both_dial_and_the_file_is_read(autojump_clock: MockClock, first: Callable):
    """Whoever has the smaller id begins the handshake, and both ask on the link."""
    async with between_routers() as world:
        reader = first(BOTH, key=lambda number: world[number].whereabouts.identity.id)
        source = 3 - reader
        for number in BOTH:
            await world.share(number, f"of-{number}", FILM.data[number:])
        began_at = trio.current_time()
        assert await world.read(reader, f"of-{source}") == FILM.data[source:]
        assert trio.current_time() - began_at <= FIRST_BYTE_S
        assert await world.read(source, f"of-{reader}") == FILM.data[reader:]

        assert world[0].ways.punches.counters == {"arranged": 1}
        assert world[source].ways.punches.counters == {"met": 1}


async def test_two_who_want_to_meet_meet_once(autojump_clock: MockClock):
    async with between_routers() as world:
        await world.share(2, "other.mkv", FILM.data[:-1])
        read: dict[int, bytes] = {}

        async def reads(number: int, path: str) -> None:
            read[number] = await world.read(number, path)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads, 1, "other.mkv")
            await trio.sleep(0.1)
            nursery.start_soon(reads, 2, "film.mkv")

        assert read == {1: FILM.data[:-1], 2: FILM.data}


async def test_neighbours_see_the_port_at_which_one_behind_a_router_listens(
    autojump_clock: MockClock,
):
    async with between_routers() as world:
        seen = {link.remote for link in world[0].overlay.neighbours}

        assert seen == {Address(host(number), 4774) for number in BOTH}


async def test_ways_of_unequal_length_are_evened_out(autojump_clock: MockClock):
    async with between_routers() as world:
        world.net.set_latency(host(0), host(1), 0.3)
        await trio.sleep(60)  # PING has measured it

        assert await world.read(2, "film.mkv") == FILM.data
        assert world[1].ways.punches.counters == {"met": 1}


async def test_one_symmetric_router_is_too_many(autojump_clock: MockClock):
    async with between_routers() as world:
        world.net.host(host(1)).is_symmetric = True
        with pytest.raises(Exception, match="was not met within 2 s"):
            await world.read(2, "film.mkv")


async def test_both_places_are_of_one_host(autojump_clock: MockClock):
    async with between_routers() as world:
        knocked = listen_in(world, 1)
        link = world[1].overlay.neighbours[0]
        places = [Address("10.0.7.7", 4774), Address("10.0.7.8", 4774)]
        world[1].ways.punches.got_punch(link, punch(1, "a" * 32, places))
        await trio.sleep(MEETING_S + 1)

        assert {address.host for address in knocked} == {"10.0.7.7"}


def listen_in(world: World, number: int) -> list[Address]:
    """Return the addresses that a servent dials from its own port, as it does."""
    knocked: list[Address] = []
    listener = world[number].whereabouts.listener
    dial = listener.dial

    async def heard(address: Address):
        knocked.append(address)
        return await dial(address)

    listener.dial = heard  # type: ignore[method-assign]
    return knocked


async def test_who_is_no_servent_is_left_alone_after_some_tries(autojump_clock: MockClock):
    async with between_routers() as world:
        world.net.host("10.0.7.7")  # where nobody listens
        knocked = listen_in(world, 1)
        link = world[1].overlay.neighbours[0]
        place = Address("10.0.7.7", 4774)
        world[1].ways.punches.got_punch(link, punch(1, "a" * 32, [place]))
        await trio.sleep(MEETING_S + 1)

        assert knocked == [place] * MAX_TRIES


async def test_one_network_is_not_knocked_at_for_ever(autojump_clock: MockClock):
    async with between_routers() as world:
        knocked = listen_in(world, 1)
        link = world[1].overlay.neighbours[0]
        for number in range(KNOCKS_AT_FIRST + 3):
            place = Address(f"10.0.7.{number + 1}", 4774)
            world.net.host(place.host).is_behind_router = True
            peer = "abcdefghijklmnop"[number] * 32
            world[1].ways.punches.got_punch(link, punch(number, peer, [place]))
            await trio.sleep(MEETING_S + 0.1)

        assert len(knocked) == KNOCKS_AT_FIRST


async def test_each_place_of_a_meeting_in_vain_counts(autojump_clock: MockClock):
    async with between_routers() as world:
        world.net.host("10.0.7.7")  # where nobody listens
        knocked = listen_in(world, 1)
        link = world[1].overlay.neighbours[0]
        for number in range(KNOCKS_AT_FIRST):
            places = [
                Address("10.0.7.7", 5000 + 2 * number),
                Address("10.0.7.7", 5001 + 2 * number),
            ]
            name = "abcdefgh"[number] * 32
            world[1].ways.punches.got_punch(link, punch(1 + number, name, places))
        await trio.sleep(MEETING_S + 1)

        assert len(set(knocked)) == KNOCKS_AT_FIRST


async def test_who_is_met_must_be_who_was_named(autojump_clock: MockClock):
    """A neighbour that names somebody else's address, or is there itself, gets no link."""
    async with between_routers() as world:
        link = world[1].overlay.neighbours[0]
        other = world[2].whereabouts.listen_address
        world[1].ways.punches.got_punch(link, punch(1, "a" * 32, [other]))
        world[2].ways.punches.got_punch(
            world[2].overlay.neighbours[0],
            punch(1, "b" * 32, [world[1].whereabouts.listen_address]),
        )
        await trio.sleep(20)

        assert "met" not in world[1].ways.punches.counters
        assert "met" not in world[2].ways.punches.counters


async def test_who_answers_at_a_meeting_lets_in_the_one_who_was_named(autojump_clock: MockClock):
    async with between_routers() as world:
        first, second = sorted(BOTH, key=lambda number: world[number].whereabouts.identity.id)
        for number, peer in ((first, world[second].whereabouts.identity.id), (second, "2" * 32)):
            place = world[3 - number].whereabouts.listen_address
            link = world[number].overlay.neighbours[0]
            world[number].ways.punches.got_punch(link, punch(1, peer, [place]))
        await trio.sleep(20)

        assert "met" not in world[first].ways.punches.counters
        assert "met" not in world[second].ways.punches.counters


async def test_a_meeting_that_nobody_asked_for_is_arranged_for_neighbours_alone(
    autojump_clock: MockClock,
):
    async with between_routers() as world:
        link = world[0].overlay.neighbours[0]
        world[0].ways.punches.got_punch(link, punch(1, "a" * 32))
        world[0].ways.punches.got_punch(link, punch(2, link.peer.id))

        assert world[0].ways.punches.counters == {"dropped: no neighbour of both": 2}


async def test_one_neighbour_sees_the_port_and_no_other(autojump_clock: MockClock):
    """From a port that two of them were dialled from, two behind routers would meet by chance."""
    async with open_world(latency_s=0.05) as world:
        await world.start()
        await world.start()
        world.net.host(host(2)).is_behind_router = True
        await world.start(joins=[0])
        await world.linked(1, 0, 1)
        await world[2].join(world.endpoint(1))
        seen = [world[number].overlay.neighbours[0].remote.port for number in (0, 1)]

        assert seen[0] == 4774
        assert seen[1] != 4774
