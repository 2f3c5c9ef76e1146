"""Servents in one room find each other, and only those of one network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock
from zeroconf import ServiceInfo

from p2pfs.config import DEGREE
from p2pfs.overlay.degree import CHOSEN, NEAR_DIALLED
from p2pfs.protocol import Address, NetworkKey
from p2pfs.reach.lan import (
    MAX_NEARBY,
    ROOM_RETRY_S,
    SERVICE,
    TAG_KEY,
    Lan,
    _Announced,
    _Ear,
    is_of_network,
    properties_of,
)
from tests.helpers.machines import Machine, Plan, machines
from tests.helpers.mounted import until
from tests.helpers.watched import watched_machine
from tests.helpers.world import PORT, host, open_world

OPEN, PRIVATE, OTHER = NetworkKey.open(), NetworkKey(b"p" * 32), NetworkKey(b"o" * 32)
NONCE = b"12345678"
HERE = Address("192.168.1.2", 4774)


# Whose announcement it is.


@pytest.mark.parametrize("key", [OPEN, PRIVATE])
def test_an_announcement_is_known_by_its_own_network_alone(key):
    told = dict(properties_of(key, NONCE))

    assert [other for other in (OPEN, PRIVATE, OTHER) if is_of_network(other, told)] == [key]


def test_the_tag_is_that_of_the_document():
    told = properties_of(PRIVATE, NONCE)

    assert told[TAG_KEY] == b"3132333435363738" + b"4ce73379fa88a64e"
    assert properties_of(PRIVATE, b"87654321")[TAG_KEY][16:] != told[TAG_KEY][16:]


@given(st.dictionaries(st.sampled_from([b"v", b"t", b"x"]), st.none() | st.binary(max_size=40)))
def test_what_anybody_announces_is_judged_without_a_fault(told):
    assert is_of_network(PRIVATE, told) is False
    assert isinstance(is_of_network(OPEN, told), bool)


# What is heard.


def heard_of(*hosts: str, port: int = 4774, properties=None) -> list[_Announced]:
    told: list[_Announced] = []
    ear = _Ear(f"own.{SERVICE}", OPEN, (Address("9.9.9.7", 4774), HERE), told.append)
    info = ServiceInfo(
        SERVICE, f"a.{SERVICE}", port=port, parsed_addresses=list(hosts),
        properties=properties_of(OPEN, NONCE) if properties is None else properties,
    )  # fmt: skip
    ear.take(info)
    return told


def test_the_addresses_of_a_site_and_of_our_own_network_are_heard():
    (one,) = heard_of("192.168.1.9", "9.9.9.9", "fd00::9", "9.9.8.9", "127.0.0.1")

    assert [address.host for address in one.addresses] == ["192.168.1.9", "9.9.9.9", "fd00::9"]


def test_who_would_send_us_elsewhere_is_not_heard():
    assert heard_of("8.8.8.8") == heard_of("127.0.0.1") == heard_of("192.168.1.9", port=22) == []


def test_who_is_of_another_network_is_not_heard():
    assert heard_of("192.168.1.9", properties=properties_of(PRIVATE, NONCE)) == []
    assert heard_of("192.168.1.9", properties={b"v": b"2"}) == []


class Room:
    """A meeting that notes what it is told."""

    def __init__(self) -> None:
        self.here: dict[str, tuple[Address, ...]] = {}

    def came_near(self, name, addresses):
        self.here[name] = addresses

    def went_away(self, name):
        del self.here[name]


def test_only_so_many_are_remembered_and_who_goes_makes_room():
    lan, room = Lan(OPEN, lambda: (), watched_machine()[1]), Room()
    for number in range(MAX_NEARBY + 5):
        lan.take(_Announced(str(number), (HERE,)), room)

    assert len(room.here) == MAX_NEARBY
    lan.take(_Announced("0", ()), room)
    lan.take(_Announced("never", ()), room)
    lan.take(_Announced("late", (HERE,)), room)
    assert len(room.here) == MAX_NEARBY
    assert "late" in room.here


async def test_without_a_network_nothing_is_opened(autojump_clock: MockClock, monkeypatch):
    monkeypatch.setattr("p2pfs.reach.lan.Zeroconf", None)

    with trio.move_on_after(60) as scope:
        _, changes = watched_machine()
        await Lan(OPEN, lambda: [Address("127.0.0.1", 4774)], changes).run(Room())

    assert scope.cancelled_caught


async def test_the_room_is_opened_as_soon_as_there_is_a_network_and_again_later_if_it_fails(
    autojump_clock: MockClock, monkeypatch
):
    tries: list[float] = []

    def closed(*_arguments, **_options):
        tries.append(trio.from_thread.run_sync(trio.current_time))
        raise OSError("no multicast here")

    monkeypatch.setattr("p2pfs.reach.lan.Zeroconf", closed)
    cable, changes = watched_machine()
    hosts, asked = [Address("127.0.0.1", 4774)], []

    def addresses() -> list[Address]:
        now = list(hosts)
        asked.append(now)
        return now

    async with trio.open_nursery() as nursery:
        await nursery.start(changes.run)
        nursery.start_soon(Lan(OPEN, addresses, changes).run, Room())
        while not asked:  # by a thread, for which virtual time does not wait
            await trio.sleep(1)
        await trio.sleep(100)
        assert tries == []

        hosts[:] = [HERE]
        cable.tell_of_change()
        while len(tries) < 2:
            await trio.sleep(1)
        assert tries[1] - tries[0] >= ROOM_RETRY_S
        nursery.cancel_scope.cancel()


# Who is dialled.


async def test_those_in_the_room_count_apart_from_the_degree(autojump_clock: MockClock):
    async with open_world() as world:
        for _number in range(NEAR_DIALLED + 3):
            await world.start()
        first = world.servents[0].overlay
        for number in range(1, NEAR_DIALLED + 3):
            first.came_near(str(number), (Address(host(number), PORT),))

        await world.linked(NEAR_DIALLED, *[1] * NEAR_DIALLED, 0, 0)
        await trio.sleep(600)

        assert NEAR_DIALLED < DEGREE * CHOSEN
        assert len(first.neighbours) >= NEAR_DIALLED


async def test_who_went_away_is_dialled_no_more(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        await world.start()
        first = world.servents[0].overlay
        first.came_near("gone", (Address("10.9.9.9", PORT),))
        await trio.sleep(20)
        first.went_away("gone")
        first.came_near("here", (Address(host(1), PORT),))

        await world.linked(1, 1)


# In a real room.


def names_of_peers(machine: Machine) -> set[str]:
    shown = machine.type("p2pfs peers --json")
    return {peer["name"] for peer in json.loads(shown)} if shown.startswith("[") else set()


@pytest.mark.slow
def test_servents_of_one_network_in_one_room_find_each_other(tmp_path: Path):
    plans = {
        name: Plan(name, "ann", f"10.50.0.{number}")
        for number, name in enumerate(("anna", "bert", "carl", "dora"), 1)
    }
    with machines(tmp_path, plans) as room:
        for name, machine in room.items():
            key = "--network-key-file key" if name in ("carl", "dora") else ""
            machine.file("key").write_text("seven green tulips on an anvil 1948 moor\n")
            machine.type(f"p2pfs serve --name {name} {key}")

        until(lambda: names_of_peers(room["anna"]) == {"bert"})
        until(lambda: names_of_peers(room["dora"]) == {"carl"})
        assert names_of_peers(room["bert"]) == {"anna"}
        assert names_of_peers(room["carl"]) == {"dora"}
        for machine in room.values():
            machine.type("p2pfs unmount --mount ~/.local/share/p2pfs")
