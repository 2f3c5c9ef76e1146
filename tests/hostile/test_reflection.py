"""Whoever names the addresses of others has hardly a packet sent there, and is soon not heard."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import UnreachableError
from p2pfs.link.knocks import (
    KNOCK_BURST,
    KNOCKS_PER_MINUTE,
    NAMED_BURST,
    TURN_S,
    Knocks,
)
from p2pfs.protocol import (
    Address,
    Entry,
    Identity,
    Introduce,
    LinkKind,
    PeerInfo,
    Peers,
    sign_hit,
)
from p2pfs.protocol.messages import GetPeers, Message, Ping, Pong, Query, QueryKind, Walk
from tests.helpers.rogues import RawPeer
from tests.helpers.world import PORT, World, host, open_world

TELLER, OTHER = Address("10.66.6.6", 4774), Address("10.67.6.6", 4774)
WATCHED_S = 120.0
MOST = KNOCK_BURST + KNOCKS_PER_MINUTE * WATCHED_S / 60


def victim(number: int) -> Address:
    """An address of the network that has nothing to do with all this."""
    return Address(f"10.99.0.{number % 250 + 1}", 3306)


class Reflector:
    """A neighbour that names addresses of others whenever it can."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def _stranger(self) -> tuple[Identity, PeerInfo]:
        identity = Identity.generate()
        places = tuple(victim(next(self._numbers)) for _ in range(4))
        return identity, PeerInfo(identity.id, "nobody", places)

    def _answers(self, message: Message) -> list[Message]:
        if isinstance(message, GetPeers):
            return [Peers(tuple(self._stranger()[1] for _ in range(16)))]
        if isinstance(message, Walk):
            return [Introduce(message.guid, self._stranger()[1])]
        if isinstance(message, Query) and message.kind is QueryKind.DIRECTORY:
            some = (self._stranger() for _ in range(20))
            entry = Entry("a", 1, 1, bytes(range(32)))
            return [
                sign_hit(identity, message.guid, message.ttl, peer, [entry], 1_000)
                for identity, peer in some
            ]
        return []

    async def run(self, world: World, from_host: str) -> None:
        """Be a neighbour of the first servent, until cancelled."""
        there = Address(host(0), PORT)
        network = world.net.host(from_host)
        peer = await RawPeer.dial(network, there, LinkKind.NEIGHBOUR)
        while True:
            message, number = await peer.receive()
            if isinstance(message, Ping):
                await peer.send(Pong(), number)
            for answer in self._answers(message):
                await peer.send(answer, number if isinstance(answer, Peers) else 0)


def listen_in(world: World) -> list[Address]:
    """Return the addresses of the victim that the first servent dials, as it does."""
    dialled: list[Address] = []
    network = world.net.host(host(0))
    dial = network.dial

    async def heard(address: Address):
        if address.host.startswith("10.99."):
            dialled.append(address)
        return await dial(address)

    network.dial = heard  # type: ignore[method-assign]
    return dialled


@pytest.mark.parametrize("tellers", [["10.66.6.6"], ["10.66.6.6", "10.67.6.6", "10.68.6.6"]])
async def test_a_network_is_hardly_dialled_whoever_names_it(
    autojump_clock: MockClock, tellers: list[str]
):
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        dialled = listen_in(world)
        for one in tellers:
            nursery.start_soon(Reflector().run, world, one)
        ends_at = trio.current_time() + WATCHED_S
        while trio.current_time() < ends_at:
            await world[0].browser.list("")
            await trio.sleep(2)
        nursery.cancel_scope.cancel()

    assert 1 <= len(dialled) <= MOST


async def knock(knocks: Knocks, address: Address, *, is_servent: bool) -> bool:
    """Dial an address; return whether that was allowed."""
    try:
        await knocks.wait_turn(address)
    except UnreachableError:
        return False
    (knocks.was_welcome if is_servent else knocks.was_in_vain)(address)
    return True


async def test_each_dial_in_vain_makes_the_next_one_rarer(autojump_clock: MockClock):
    knocks, made_at = Knocks(), []
    for number in range(3_600):
        if await knock(knocks, victim(number), is_servent=False):
            made_at.append(trio.current_time())
        await trio.sleep(1)

    waits = [late - early for early, late in itertools.pairwise(made_at)]
    assert waits[: KNOCK_BURST - 1] == [1] * (KNOCK_BURST - 1)
    assert waits[KNOCK_BURST:] == sorted(waits[KNOCK_BURST:])
    assert waits[-1] >= 60 * KNOCK_BURST / KNOCKS_PER_MINUTE


async def test_three_hundred_servents_of_one_network_are_all_dialled(autojump_clock: MockClock):
    knocks, welcome = Knocks(), []

    async def dial(number: int) -> None:
        address = Address(f"10.0.0.{number % 250 + 1}", 4774 + number)
        knocks.named([address], TELLER)
        await knocks.wait_turn(address)
        await trio.sleep(0.1)
        knocks.was_welcome(address)
        welcome.append(address)

    async with trio.open_nursery() as nursery:
        for number in range(300):
            nursery.start_soon(dial, number)

    assert len(welcome) == 300
    assert trio.current_time() < 300 * 0.1 / KNOCK_BURST + 1


async def test_servents_are_found_beside_those_that_have_gone(autojump_clock: MockClock):
    knocks = Knocks()
    for number in range(300):
        is_there = number % 3 > 0
        assert await knock(knocks, Address("10.0.0.7", 5000 + number), is_servent=is_there)


async def test_who_names_nobody_in_many_networks_is_soon_not_heard(autojump_clock: MockClock):
    knocks, made = Knocks(), 0
    for number in range(4 * NAMED_BURST):
        address = Address(f"10.{99 + number // 250}.{number % 250}.1", 5000)
        knocks.named([address], TELLER)
        made += await knock(knocks, address, is_servent=False)

    named_by_another = Address("10.98.0.1", 5000)
    knocks.named([named_by_another], OTHER)
    assert NAMED_BURST <= made <= NAMED_BURST + 1
    assert await knock(knocks, named_by_another, is_servent=True)


async def test_a_servent_that_was_there_lately_is_dialled_whatever_else_is_said(
    autojump_clock: MockClock,
):
    knocks, known = Knocks(), Address("10.99.0.200", 4774)
    assert await knock(knocks, known, is_servent=True)
    while await knock(knocks, victim(1), is_servent=False):
        pass

    assert await knock(knocks, known, is_servent=False)
    assert await knock(knocks, known, is_servent=True)


async def test_a_dial_that_is_given_up_costs_nothing(autojump_clock: MockClock):
    knocks = Knocks()
    for number in range(10 * KNOCK_BURST):
        await knocks.wait_turn(victim(number))
        knocks.was_given_up(victim(number))

    assert await knock(knocks, victim(0), is_servent=False)


async def test_who_waits_for_the_dials_of_others_waits_for_a_bounded_time(
    autojump_clock: MockClock,
):
    knocks = Knocks()
    for number in range(KNOCK_BURST):
        await knocks.wait_turn(victim(number))  # and nothing ever comes of it

    with pytest.raises(UnreachableError):
        await knocks.wait_turn(victim(KNOCK_BURST))
    assert trio.current_time() == TURN_S


async def test_after_a_change_of_our_own_network_all_are_dialled_anew(autojump_clock: MockClock):
    knocks = Knocks()
    while await knock(knocks, victim(1), is_servent=False):
        pass

    knocks.start_afresh()

    assert await knock(knocks, victim(1), is_servent=True)
