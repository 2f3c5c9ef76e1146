"""What directories and routers say of addresses has nobody else asked, and costs no way to us."""

from __future__ import annotations

import ipaddress
import struct

import pytest
import trio
from trio.testing import MockClock

from p2pfs.link import LOOPBACK, open_courier
from p2pfs.link.rations import SPOKEN, UNANSWERED_BURST, UNANSWERED_PER_MINUTE, Rations
from p2pfs.protocol import MIN_PORT, Address, DirectoryKey, NetworkKey, Subject, directory_key
from p2pfs.reach.beyond import REVIEW_S
from tests.helpers.contents import Content
from tests.helpers.directories import Shelf
from tests.helpers.intruders import intrude
from tests.helpers.world import PORT, host, open_world

FILM = Content.of(1_000)


@pytest.mark.parametrize("port", [53, MIN_PORT - 1, MIN_PORT])
async def test_a_liar_in_a_directory_has_no_datagram_sent_to_a_service(
    monkeypatch: pytest.MonkeyPatch, port: int
):
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr("p2pfs.link.courier._send", lambda _socket, _what, to: sent.append(to))
    courier = open_courier(Address(LOOPBACK, 0), bytes, lambda datagram: datagram)
    courier.engine_port = 5_000
    victim = ipaddress.IPv4Address("9.9.9.9").packed
    courier._carry_out(struct.pack(">HBB4sH", 0, 0, 1, victim, port) + b"ping", (LOOPBACK, 5_000))
    courier._inside.close()
    courier._outside.close()

    assert sent == ([("9.9.9.9", port)] if port >= MIN_PORT else [])


@pytest.mark.parametrize("port", [0, 53, MIN_PORT - 1, MIN_PORT])
async def test_a_neighbour_is_no_node_at_a_port_of_a_service(autojump_clock: MockClock, port: int):
    async with open_world() as world:
        await world.start()
        directory = Shelf().directory_at(Address(host(0), PORT))
        with world[0].beyond.using(directory, is_public=False):
            await intrude(world, "10.66.6.1", listen_port=port)

            assert directory.nodes == ([Address("10.66.6.1", port)] if port >= MIN_PORT else [])


@pytest.mark.parametrize("port", [22, MIN_PORT - 1, MIN_PORT])
async def test_a_liar_in_a_directory_has_no_service_of_our_own_network_dialled(
    autojump_clock: MockClock, port: int
):
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0])
        await world.linked(1, 1)
        victim, dialled = Address(host(7), port), []
        shelf, network = Shelf(), world[1].beyond._network
        shelf.told[directory_key(NetworkKey.open(), Subject.FILE, FILM.file_id)] = [victim]
        dial = network.dial

        async def noting(where: Address):
            dialled.append(where)
            return await dial(where)

        network.dial = noting
        with world[1].beyond.using(shelf.directory_at(Address(host(1), PORT)), is_public=False):
            assert await world[1].beyond.meet(FILM.file_id, ()) == ()

        assert dialled == ([victim] if port >= MIN_PORT else [])


async def test_a_router_that_lies_takes_nobody_the_neighbours_that_tell_its_keys(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start()
        world.net.host(host(1)).is_behind_router = True
        await world.start(joins=[0], max_neighbours=1)
        await world.linked(1, 1)
        shelf = Shelf()
        own = world[1].whereabouts
        own.mapped(Address("93.184.216.34", PORT), "mapped, it says")
        with (
            world[0].beyond.using(shelf.directory_at(Address(host(0), PORT)), is_public=False),
            world[1].beyond.using(shelf.directory_at(Address(host(1), PORT)), is_public=False),
        ):
            await trio.sleep(3 * REVIEW_S)

        key: DirectoryKey = directory_key(
            NetworkKey.open(), Subject.SERVENT, own.identity.id.encode()
        )
        assert Address(host(0), PORT) in shelf.told[key]


WATCHED_S = 600
MOST = UNANSWERED_BURST + UNANSWERED_PER_MINUTE * WATCHED_S / 60


def victim(number: int) -> Address:
    return Address(f"10.99.0.{number % 250 + 1}", 1_024 + number)


def test_an_answer_of_a_liar_has_few_datagrams_sent_to_a_victim():
    rations = Rations()

    sent = sum(
        rations.may_send(victim(50 * second + one), second)
        for second in range(WATCHED_S)
        for one in range(50)
    )

    assert UNANSWERED_BURST <= sent <= MOST


def test_a_forged_sender_has_few_datagrams_sent_there():
    rations, forged, sent = Rations(), 100, 0
    for number in range(forged):
        rations.came_from(victim(number))
        sent += sum(rations.may_send(victim(number), 0.0) for _ in range(50))

    assert sent <= SPOKEN * forged + UNANSWERED_BURST


def test_all_who_answer_are_asked_however_many_of_one_network():
    rations = Rations()
    for number in range(300):
        assert rations.may_send(victim(number), 0.0)
        rations.came_from(victim(number))

    for _ in range(10):  # and each goes on to be asked, and to answer
        for number in range(300):
            assert rations.may_send(victim(number), 0.0)
            rations.came_from(victim(number))
