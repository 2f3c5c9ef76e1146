"""Neighbours: how many, whose choice, who is refused, who is dialled again and when."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import DEGREE, MAX_NEIGHBOURS, MIN_NEIGHBOURS, Endpoint
from p2pfs.errors import HandshakeError
from p2pfs.link import RefusedError
from p2pfs.overlay.bans import FLOOD_BAN_S
from p2pfs.overlay.contacts import FRESH_S, JITTER, LONELY_RETRY_S, RETRY_AFTER_S
from p2pfs.overlay.degree import ENOUGH, MAX_DIALS, WAIT_FOR_DIALS_S
from p2pfs.overlay.exchange import GET_PEERS_BURST
from p2pfs.protocol.handshake import Identity
from p2pfs.protocol.messages import (
    MAX_ALTERNATIVES,
    MAX_PEERS,
    Address,
    Bye,
    ByeCode,
    GetPeers,
    Hello,
    LinkKind,
    PeerInfo,
    Peers,
)
from tests.helpers.dialling import dial_link
from tests.helpers.rogues import RawPeer
from tests.helpers.servents import HalfServent, answering, hang_up, silent
from tests.helpers.world import PORT, World, host, open_pair, open_world

NEIGHBOUR = LinkKind.NEIGHBOUR

_numbers = itertools.count(1)


def degrees(world: World) -> list[int]:
    return [len(servent.overlay.neighbours) for servent in world.servents]


@asynccontextmanager
async def open_crowd(size: int, **changes: object) -> AsyncIterator[World]:
    """Run a world of servents that all joined through the first."""
    async with open_world() as world:
        for number in range(size):
            await world.start(joins=[0] if number else [], **changes)
        yield world


async def dial(world: World, number: int = 0, identity: Identity | None = None) -> RawPeer:
    """Become a neighbour of a servent of the world, from a host of one's own."""
    dialler = world.net.host(f"10.8.0.{next(_numbers)}")
    return await RawPeer.dial(dialler, Address(host(number), PORT), NEIGHBOUR, identity=identity)


# The degree.


def test_the_numbers_are_those_of_the_design():
    assert (DEGREE, MIN_NEIGHBOURS, MAX_NEIGHBOURS) == (12, 4, 32)
    assert (MAX_PEERS, MAX_ALTERNATIVES, FRESH_S) == (16, 10, 30 * 60)
    assert RETRY_AFTER_S == (1, 5, 15, 60, 600)


async def test_everybody_finds_as_many_neighbours_as_it_looks_for(autojump_clock: MockClock):
    async with open_crowd(16) as world:
        await world.linked(*[int(DEGREE * ENOUGH)] * 16, within_s=900)

        assert max(degrees(world)) <= MAX_NEIGHBOURS


async def test_strangers_who_dial_us_do_not_keep_us_from_our_own_choice(
    autojump_clock: MockClock,
):
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        for _ in range(DEGREE):
            await dial(world)
        for number in range(DEGREE):
            choice = HalfServent(world.net, f"10.9.0.{number}")
            await nursery.start(choice.listen, answering(silent))
            world[0].overlay.join_later(choice.address)
        await trio.sleep(20)

        links = world[0].overlay.neighbours
        dialled = sum(link.direction == "out" for link in links)
        assert DEGREE // 2 <= dialled < DEGREE // 2 + MAX_DIALS
        assert len(links) == DEGREE + dialled
        nursery.cancel_scope.cancel()


async def test_who_is_full_refuses_and_stays_full(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(max_neighbours=2)
        await dial(world)
        await dial(world)
        third = HalfServent(world.net, "10.8.0.201")

        with pytest.raises(RefusedError) as caught:
            await dial_link(third.host, Address(host(0), PORT), third, NEIGHBOUR)

        assert caught.value.bye.code is ByeCode.FULL
        assert degrees(world) == [2]


async def test_a_refusal_names_at_most_ten_others_and_only_fresh_ones(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(max_neighbours=1)
        now = trio.current_time()
        for number in range(30):
            peer = HalfServent(world.net, f"10.7.0.{number}").info
            world[0].contacts.shook_hands(peer, now, peer.addresses[0])
        stale = HalfServent(world.net, "10.7.1.1").info
        world[0].contacts.shook_hands(stale, now - FRESH_S - 1, stale.addresses[0])
        await dial(world)

        bye = world[0].overlay.judge(Identity.generate().id, Address("10.8.0.200", PORT))

        assert bye is not None
        assert bye.code is ByeCode.FULL
        assert len(bye.alternatives) == MAX_ALTERNATIVES
        assert stale not in bye.alternatives


async def test_a_joiner_that_is_refused_goes_to_those_who_were_named(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(max_neighbours=1)
        await world.start(joins=[0])
        await world.linked(1, 1)

        await world.start(joins=[0])

        await world.until(lambda: len(world[2].report.peers()) == 1, within_s=10)
        assert world[2].report.peers()[0]["name"] == "servent-1"


async def test_addresses_in_a_refusal_are_judged_by_where_it_came_from(
    autojump_clock: MockClock,
):
    async with open_world() as world, trio.open_nursery() as nursery:
        full = HalfServent(world.net, "10.9.0.1")
        own = PeerInfo(Identity.generate().id, "own", (Address("127.0.0.1", PORT),))
        full.refusal = Bye(ByeCode.FULL, "full", (own,))
        await nursery.start(full.listen, answering(silent))
        await world.start()
        with pytest.raises(RefusedError):
            await world[0].join(Endpoint("10.9.0.1", PORT))

        assert all(own.id != contact.id for contact in world[0].contacts.unlinked([]))
        nursery.cancel_scope.cancel()


# What neighbours tell of others.


async def test_peers_named_are_at_most_sixteen_and_only_fresh_ones(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        now = trio.current_time()
        for number in range(30):
            peer = HalfServent(world.net, f"10.7.0.{number}").info
            world[0].contacts.shook_hands(peer, now, peer.addresses[0])
        stale = HalfServent(world.net, "10.7.1.1").info
        world[0].contacts.shook_hands(stale, now - FRESH_S - 1, stale.addresses[0])
        peer = await dial(world)

        await peer.send(GetPeers())
        answer, _ = await peer.receive_a(Peers)

        assert len(answer.peers) == MAX_PEERS
        assert stale not in answer.peers


async def test_nobody_is_told_of_himself(autojump_clock: MockClock):
    async with open_pair() as world:
        peer = await RawPeer.dial(
            world.net.host("10.9.0.1"), Address(host(0), PORT), LinkKind.NEIGHBOUR, hello=False
        )
        us = peer.channel.remote
        await peer.send(Hello(LinkKind.NEIGHBOUR, "asker", PORT, us, (), "asker"))
        await peer.receive_a(Hello)

        await peer.send(GetPeers())
        answer, _ = await peer.receive_a(Peers)

        assert [one.id for one in answer.peers] == [world[1].whereabouts.identity.id]


async def test_a_neighbour_that_asks_for_peers_all_the_time_is_answered_a_few_times(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start()
        peer = await dial(world)
        for _ in range(50):
            await peer.send(GetPeers())

        answers = 0
        with trio.move_on_after(5):
            while True:
                await peer.receive_a(Peers)
                answers += 1

        assert answers == GET_PEERS_BURST


async def test_peers_that_nobody_asked_for_are_not_taken_in(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        peer = await dial(world)
        for number in range(20):
            await peer.send(Peers((HalfServent(world.net, f"10.7.0.{number}").info,)))
        await trio.sleep(1)

        known = [c.addresses[0].host for c in world[0].contacts.unlinked([])]
        assert "10.7.0.0" in known
        assert "10.7.0.1" not in known


async def test_addresses_that_a_peer_says_of_itself_are_no_way_to_others_doors(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start()
        rogue = HalfServent(world.net, "10.8.0.1")
        victims = (Address("127.0.0.1", 6379), Address("10.0.0.9", 22), Address("victim", 8080))
        rogue.said = victims
        await dial_link(rogue.host, Address(host(0), PORT), rogue, NEIGHBOUR)
        await trio.sleep(1)

        (link,) = world[0].overlay.neighbours
        assert link.peer.addresses == (Address("10.8.0.1", PORT),)


# Two links to one peer.


async def test_of_two_links_that_cross_one_is_left(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        await world.start()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(world[0].join, Endpoint(host(1), PORT))
            nursery.start_soon(world[1].join, Endpoint(host(0), PORT))
        await trio.sleep(10)

        assert degrees(world) == [1, 1]
        (one,), (other,) = (servent.overlay.neighbours for servent in world.servents)
        assert {one.direction, other.direction} == {"in", "out"}
        dialler = 0 if world[0].whereabouts.identity.id < world[1].whereabouts.identity.id else 1
        assert (one, other)[dialler].direction == "out"


@pytest.mark.parametrize("who", [0, 1])
async def test_joining_through_a_neighbour_is_done_already(autojump_clock: MockClock, who: int):
    async with open_crowd(2) as world:
        await world.linked(1, 1)
        there = 1 - who

        for _ in range(3):
            joined = await world[who].join(Endpoint(host(there), PORT))
            assert joined["id"] == world[there].whereabouts.identity.id

        assert degrees(world) == [1, 1]
        assert not [e for e in world[who].journal.events() if e.severity == "warning"]


def another(world: World, *, is_smaller: bool) -> Identity:
    """Return an identity on this side of that of servent 0."""
    own = world[0].whereabouts.identity.id
    made = (Identity.generate() for _ in itertools.count())
    return next(identity for identity in made if (identity.id < own) == is_smaller)


BOTH_ORDERS = pytest.mark.parametrize("is_smaller", [False, True])


@BOTH_ORDERS
@pytest.mark.parametrize("room", [1, MAX_NEIGHBOURS], ids=["full", "not full"])
async def test_a_peer_that_comes_again_has_forgotten_its_first_link(
    autojump_clock: MockClock, room: int, is_smaller: bool
):
    async with open_world() as world:
        await world.start(max_neighbours=room)
        identity = another(world, is_smaller=is_smaller)
        first = await dial(world, identity=identity)

        await dial(world, identity=identity)
        await trio.sleep(0.1)

        assert degrees(world) == [1]
        bye, _ = await first.receive_a(Bye)
        assert bye.code is ByeCode.DUPLICATE


@BOTH_ORDERS
async def test_a_peer_that_was_dialled_and_comes_later_has_forgotten_that_link(
    autojump_clock: MockClock, is_smaller: bool
):
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        peer = HalfServent(world.net, "10.9.0.1")
        peer.identity = another(world, is_smaller=is_smaller)
        await nursery.start(peer.listen, answering(silent))
        await world[0].join(Endpoint("10.9.0.1", PORT))
        await trio.sleep(1.0)

        await dial(world, identity=peer.identity)

        (link,) = world[0].overlay.neighbours
        assert link.direction == "in"
        nursery.cancel_scope.cancel()


# Bans, leaving.


async def test_a_banned_peer_is_neither_accepted_nor_dialled_until_the_ban_ends(
    autojump_clock: MockClock,
):
    async with open_crowd(2) as world:
        await world.linked(1, 1)
        world[0].overlay.ban(world[1].whereabouts.identity.id, "floods")
        await world.until(lambda: degrees(world) == [0, 0], within_s=2)

        with pytest.raises(RefusedError, match="banned"):
            await world[1].join(Endpoint(host(0), PORT))
        await trio.sleep(FLOOD_BAN_S - 10)
        assert degrees(world) == [0, 0]

        await world.until(lambda: degrees(world) == [1, 1], within_s=RETRY_AFTER_S[-1] * 2)


async def test_a_flooder_is_told_why_it_is_dropped(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        peer = await dial(world)
        world[0].overlay.ban(world[0].overlay.neighbours[0].peer.id, "too much")

        bye, _ = await peer.receive_a(Bye)

        assert (bye.code, bye.text) == (ByeCode.FLOOD, "too much")


async def test_who_has_left_takes_in_nobody_not_even_one_already_at_the_door(
    autojump_clock: MockClock,
):
    async with open_world(latency_s=0.1) as world:
        await world.start()
        await world.start()
        async with trio.open_nursery() as nursery:

            async def join() -> None:
                with suppress(RefusedError, HandshakeError):
                    await world[1].join(Endpoint(host(0), PORT))

            nursery.start_soon(join)
            for _ in range(20):
                await trio.sleep(0.05)
                await world[0].leave()
                await world[1].leave()
        await trio.sleep(60)

        assert degrees(world) == [0, 0]


async def test_a_join_while_there_is_no_room_is_an_error(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(max_neighbours=1)
        await world.start()
        await dial(world)

        with pytest.raises(RefusedError, match="no room"):
            await world[0].join(Endpoint(host(1), PORT))

        assert degrees(world)[0] == 1


# Dialling again.


async def dials_at(world: World, times: int, within_s: float) -> list[float]:
    """Return when servent 0 dialled the join address, counted from the first."""
    dialled: list[float] = []
    network = world[0].overlay.degree._network
    real = network.dial

    async def dial(address: Address):
        dialled.append(trio.current_time())
        return await real(address)

    network.dial = dial
    with trio.move_on_after(within_s):
        while len(dialled) < times:
            await trio.sleep(0.5)
    return [b - a for a, b in itertools.pairwise(dialled)]


def assert_are_waits(waits: list[float], expected: Sequence[float]) -> None:
    for wait, wanted in zip(waits, expected, strict=True):
        assert wanted * (1 - JITTER) <= wait <= wanted * (1 + JITTER) + 1


async def test_an_address_that_refuses_is_dialled_ever_more_seldom_by_who_has_neighbours(
    autojump_clock: MockClock,
):
    async with open_crowd(2) as world:
        world.net.host("10.9.0.1")
        await world.linked(1, 1)
        world[0].overlay.join_later(Address("10.9.0.1", PORT))

        waits = await dials_at(world, 7, 3_000)

        assert_are_waits(waits, (*RETRY_AFTER_S, RETRY_AFTER_S[-1]))


async def test_who_has_no_neighbour_goes_on_trying_every_few_seconds(autojump_clock: MockClock):
    async with open_world() as world:
        world.net.host("10.9.0.1")
        await world.start()
        world[0].overlay.join_later(Address("10.9.0.1", PORT))

        waits = await dials_at(world, 7, 3_000)

        assert_are_waits(waits, (1, 5, 15, LONELY_RETRY_S, LONELY_RETRY_S, LONELY_RETRY_S))


async def test_a_servent_that_comes_up_late_is_joined_within_half_a_minute(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        world.net.host(host(1))
        await world.start()
        world[0].overlay.join_later(Address(host(1), PORT))
        await trio.sleep(600)

        await world.start()

        await world.linked(1, 1, within_s=30)


async def test_a_join_names_an_address_and_takes_whoever_answers_there(autojump_clock: MockClock):
    async with open_crowd(2) as world:
        await world.linked(1, 1)
        former = world[0].whereabouts.identity.id
        world.stop(0)
        await trio.sleep(5)

        await world.start_anew(0)

        await world.until(
            lambda: (
                [link.peer.id for link in world[1].overlay.neighbours]
                == [world[0].whereabouts.identity.id]
            ),
            within_s=60,
        )
        assert world[0].whereabouts.identity.id != former


async def test_a_network_that_grows_has_the_degree_in_the_mean(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        for _ in range(39):
            await world.start(joins=[0])
            await trio.sleep(5)
        await trio.sleep(3 * WAIT_FOR_DIALS_S)

        assert min(degrees(world)) >= MIN_NEIGHBOURS
        assert DEGREE * 0.9 <= sum(degrees(world)) / 40 <= DEGREE * 1.25


async def test_a_peer_that_always_hangs_up_is_dialled_as_seldom(autojump_clock: MockClock):
    async with open_world() as world, trio.open_nursery() as nursery:
        rogue = HalfServent(world.net, "10.9.0.1")
        await nursery.start(rogue.listen, hang_up)
        await world.start()
        world[0].overlay.join_later(rogue.address)

        await trio.sleep(3_600)

        assert len(rogue.links) <= 3 + 3_600 / (RETRY_AFTER_S[-1] * (1 - JITTER)) + 1
        nursery.cancel_scope.cancel()


async def test_no_more_dials_are_under_way_than_a_few(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        for number in range(10):
            world.net.host(f"10.9.0.{number}")
            world.net.freeze(f"10.9.0.{number}")
            world[0].overlay.join_later(Address(f"10.9.0.{number}", PORT))
        await trio.sleep(5)

        assert world.net.host(host(0)).dials == MAX_DIALS


async def test_the_peers_of_the_last_time_are_found_without_the_one_that_was_named(
    autojump_clock: MockClock,
):
    async with open_crowd(3) as world:
        await world.linked(2, 2, 2)
        world.stop(2)
        await trio.sleep(2)
        world.kill(0)  # the one that was named

        config = world.config(2)
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            again = await nursery.start(world._run, 2, config, scope)

            await world.until(lambda: bool(again.report.peers()), within_s=60)

            assert again.report.peers()[0]["name"] == "servent-1"
            scope.cancel()


async def test_a_link_that_breaks_is_dialled_again(autojump_clock: MockClock):
    async with open_crowd(2) as world:
        await world.linked(1, 1)
        (link,) = world[1].overlay.neighbours
        world.net.cut(host(0))

        await world.until(lambda: link not in world[1].overlay.neighbours, within_s=1)
        await world.until(lambda: degrees(world) == [1, 1], within_s=5)
