"""Whoever names the addresses of others has hardly a packet sent there, and is soon not heard."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import UnreachableError
from p2pfs.link import Channel
from p2pfs.link.knocks import (
    KNOCK_BURST,
    KNOCKS_AT_FIRST,
    KNOCKS_EARNED,
    KNOCKS_PER_MINUTE,
    NAMED_BURST,
    NAMED_PER_MINUTE,
    PROVEN_S,
    TURN_S,
    Knocks,
)
from p2pfs.overlay.contacts import ContactBook
from p2pfs.protocol import (
    Address,
    Entry,
    Identity,
    Introduce,
    LinkKind,
    PeerInfo,
    Peers,
    ServentId,
    sign_hit,
)
from p2pfs.protocol.messages import (
    GetPeers,
    Guide,
    Hello,
    Message,
    Ping,
    Pong,
    Punch,
    Query,
    QueryKind,
    Relay,
    Walk,
)
from p2pfs.reach.meeting import MAX_TRIES
from tests.helpers.rogues import RawPeer
from tests.helpers.routed import FAVOURS, Favour
from tests.helpers.world import PORT, World, host, open_world

TELLER, OTHER = Address("10.66.6.6", 4774), Address("10.67.6.6", 4774)
WATCHED_S = 120.0
MOST = KNOCKS_AT_FIRST + KNOCKS_PER_MINUTE * WATCHED_S / 60


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


def listen_in(world: World, *, to_listener: bool = False) -> list[Address]:
    """Return the addresses of the victim that the first servent dials, as it does."""
    dialled: list[Address] = []
    network = world[0].whereabouts.listener if to_listener else world.net.host(host(0))
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


SOMEBODY, NOBODY = Identity.generate().id, Identity.generate().id


async def knock(
    knocks: Knocks, address: Address, *, is_servent: bool, peer: ServentId = SOMEBODY
) -> bool:
    """Dial a servent at an address; return whether that was allowed."""
    try:
        await knocks.wait_turn(address, peer)
    except UnreachableError:
        return False
    if is_servent:
        knocks.was_welcome(address, peer)
    else:
        knocks.was_in_vain(address, peer)
    return True


async def enter(
    world: World, number: int, said: Sequence[Address] = (), listen_port: int = 0
) -> RawPeer:
    """Become a neighbour of the first servent, and say where one is."""
    network = world.net.host(f"10.66.6.{number}")
    there = Address(host(0), PORT)
    peer = await RawPeer.dial(network, there, LinkKind.NEIGHBOUR, hello=False)
    remote = peer.channel.remote
    await peer.send(Hello(LinkKind.NEIGHBOUR, "liar", listen_port, remote, tuple(said), "liar"))
    await peer.receive()
    return peer


@pytest.mark.parametrize("listen_port", [0, PORT])
async def test_where_a_stranger_says_that_it_is_nobody_else_is_told(
    autojump_clock: MockClock, listen_port: int
):
    async with open_world() as world:
        await world.start()
        await enter(world, 1, [victim(number) for number in range(3)], listen_port)
        asker = await enter(world, 2)
        await asker.send(GetPeers())
        told, _ = await asker.receive_a(Peers)

        assert isinstance(told, Peers)
        places = {one for peer in told.peers for one in peer.addresses}
        assert places == ({Address("10.66.6.1", PORT)} if listen_port else set())


async def test_where_strangers_said_that_they_are_is_hardly_dialled(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        dialled = listen_in(world)
        for number in range(1, 41):
            liar = await enter(world, number, [victim(4 * number + one) for one in range(4)])
            await liar.aclose()
        await trio.sleep(WATCHED_S)

    assert 1 <= len(dialled) <= MOST


def test_what_others_say_of_a_peer_is_no_place_where_it_answered():
    book, known = ContactBook(), Identity.generate().id
    home = Address("10.7.7.7", PORT)
    book.shook_hands(PeerInfo(known, "honest", (home,)), 1.0, home, is_dialled=True)
    book.lost(known, 0.0, 1.0)
    book.unlinked([])[0].failed(0.0, "away", has_neighbours=False)

    for number in range(8):
        book.heard_of(PeerInfo(known, "honest", (victim(number), victim(100 + number))))

    assert home in book.unlinked([])[0].addresses
    assert book.has_answered(known, home)
    assert not any(book.has_answered(known, victim(number)) for number in range(8))


async def test_a_neighbour_that_arranges_meetings_has_hardly_a_packet_sent(
    autojump_clock: MockClock,
):
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        arranger = await enter(world, 1)
        knocked = listen_in(world, to_listener=True)
        for number in range(250):
            world.net.host(victim(number).host)  # where nobody listens

        async def arrange() -> None:
            for number in itertools.count():
                message, _ = await arranger.receive()
                if isinstance(message, Guide):
                    own = PeerInfo(link.peer.id, "", ())
                    await arranger.send(Guide(message.token, message.peer, 1, own))
                if isinstance(message, Punch):
                    places = victim(number), Address(victim(number).host, 5000)
                    await arranger.send(Punch(message.token, message.peer, places, 0))

        (link,) = world[0].overlay.neighbours
        nursery.start_soon(arrange)
        ends_at = trio.current_time() + WATCHED_S
        while trio.current_time() < ends_at:
            wanted = PeerInfo(Identity.generate().id, "nobody", ())
            world[0].ways.came_from(ServentId(wanted.id), ServentId(link.peer.id))
            with pytest.raises(UnreachableError):
                await world[0].ways.connect(wanted, ())
            await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert 1 <= len(knocked) <= 3 * MAX_TRIES


async def test_who_relays_is_entered_where_it_is_seen(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        dialled = listen_in(world)
        liar = await enter(world, 1, [victim(1)])
        for number in range(10):
            ticket = bytes([number] * 16)
            await liar.send(Relay(ticket, Identity.generate().id, ticket))
            await trio.sleep(5)

    assert not dialled


@pytest.mark.parametrize("favour", FAVOURS.values(), ids=FAVOURS.keys())
async def test_a_neighbour_pays_for_those_who_it_says_have_asked(
    autojump_clock: MockClock, favour: Favour
):
    async with favour.world() as world:
        network = world.net.host(host(1))
        dialled, dial, dial_from = [], network.dial, network.dial_from

        async def heard(address: Address) -> Channel:
            dialled.append(address)
            return await dial(address)

        async def heard_from(port: int, address: Address) -> Channel:
            dialled.append(address)
            return await dial_from(port, address)

        network.dial, network.dial_from = heard, heard_from  # type: ignore[method-assign]
        for number in range(4 * NAMED_BURST):
            favour.ask(world[1], number, [Address(f"10.99.{number}.1", 5000)])
            await trio.sleep(2)

        named = {one for one in dialled if one.host.startswith("10.99.")}
        assert 1 <= len(named) <= NAMED_BURST + NAMED_PER_MINUTE * 8 * NAMED_BURST / 60 + 1


async def test_each_dial_in_vain_makes_the_next_one_rarer(autojump_clock: MockClock):
    knocks, made_at = Knocks(), []
    for number in range(3_600):
        if await knock(knocks, victim(number), is_servent=False):
            made_at.append(trio.current_time())
        await trio.sleep(1)

    waits = [late - early for early, late in itertools.pairwise(made_at)]
    assert waits[: KNOCKS_AT_FIRST - 1] == [1] * (KNOCKS_AT_FIRST - 1)
    assert waits[KNOCKS_AT_FIRST:] == sorted(waits[KNOCKS_AT_FIRST:])
    assert waits[-1] >= 60 * KNOCK_BURST / KNOCKS_PER_MINUTE


async def test_three_hundred_servents_of_one_network_are_all_dialled(autojump_clock: MockClock):
    knocks, welcome = Knocks(), []

    async def dial(number: int) -> None:
        address = Address(f"10.0.0.{number % 250 + 1}", 4774 + number)
        knocks.named([address], TELLER)
        await knocks.wait_turn(address)
        await trio.sleep(0.1)
        knocks.was_welcome(address, SOMEBODY)
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


async def test_where_a_servent_is_others_are_not_dialled_any_oftener(autojump_clock: MockClock):
    home = Address("10.99.0.200", 4774)
    knocks = Knocks(lambda peer, address: (peer, address) == (SOMEBODY, home))
    assert await knock(knocks, home, is_servent=True)
    made = 0
    while await knock(knocks, home, is_servent=False, peer=Identity.generate().id):
        made += 1

    assert made == KNOCK_BURST
    assert await knock(knocks, home, is_servent=False)
    await trio.sleep(2 * PROVEN_S)
    while await knock(knocks, home, is_servent=False, peer=Identity.generate().id):
        pass
    assert await knock(knocks, home, is_servent=True)


@pytest.mark.parametrize("times", [1, 2])
async def test_where_a_neighbour_is_more_may_be_dialled_at_once(
    autojump_clock: MockClock, times: int
):
    knocks, made = Knocks(), 0
    for _ in range(times):
        knocks.lives_at(victim(200))
        while await knock(knocks, victim(1), is_servent=False):
            made += 1

    assert made == KNOCK_BURST


async def test_who_has_a_servent_beside_its_victim_has_to_greet_for_each_dial(
    autojump_clock: MockClock,
):
    knocks, beside, greeted, made = Knocks(), Address("10.99.0.66", 4774), 0, 0
    for _ in range(100):
        greeted += await knock(knocks, beside, is_servent=True, peer=Identity.generate().id)
        for _ in range(KNOCK_BURST - 1):
            made += await knock(knocks, victim(1), is_servent=False)

    assert made <= KNOCK_BURST + KNOCKS_EARNED * greeted


async def test_who_is_not_heard_any_more_keeps_no_address_from_those_who_are(
    autojump_clock: MockClock,
):
    knocks, honest = Knocks(), Address("10.98.0.1", 5000)
    knocks.named([honest], TELLER)
    for number in range(2 * NAMED_BURST):
        address = Address(f"10.99.{number}.1", 5000)
        knocks.named([address], TELLER)
        await knock(knocks, address, is_servent=False)
    assert not await knock(knocks, honest, is_servent=True)

    knocks.named([honest], OTHER)

    assert await knock(knocks, honest, is_servent=True)


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
    for number in range(KNOCKS_AT_FIRST):
        await knocks.wait_turn(victim(number))  # and nothing ever comes of it

    with pytest.raises(UnreachableError):
        await knocks.wait_turn(victim(KNOCKS_AT_FIRST))
    assert trio.current_time() == TURN_S


async def test_after_a_change_of_our_own_network_all_are_dialled_anew(autojump_clock: MockClock):
    knocks = Knocks()
    while await knock(knocks, victim(1), is_servent=False):
        pass

    knocks.start_afresh()

    assert await knock(knocks, victim(1), is_servent=True)
