"""Whoever comes with many names or many connections shuts no door and fills no book."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import DEGREE, MAX_NEIGHBOURS
from p2pfs.errors import LinkError
from p2pfs.link import Link, Listener, accept_links
from p2pfs.link import reception as reception_module
from p2pfs.link.reception import BRIEF_GREETINGS, GREETINGS_PER_S, TakeLink
from p2pfs.overlay.contacts import MAX_CONTACTS, STABLE_S, ContactBook
from p2pfs.overlay.degree import CHOSEN, OF_ONE_NETWORK
from p2pfs.overlay.whereabouts import Whereabouts
from p2pfs.protocol import (
    MAX_ADDRESSES,
    MAX_PEERS,
    Address,
    Bye,
    ByeCode,
    Identity,
    LinkKind,
    NetworkKey,
    PeerInfo,
)
from tests.helpers.dialling import dial_link
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.rogues import RawPeer
from tests.helpers.servents import PORT, HalfServent, answering, silent
from tests.helpers.world import PORT as WORLD_PORT
from tests.helpers.world import World, host, open_world

FAR_S = 0.2


class Door:
    """A servent that accepts links, far from everybody."""

    def __init__(self, nursery: trio.Nursery, latency_s: float) -> None:
        self.net = MemoryNetwork(latency_s=latency_s)
        self.servent = HalfServent(self.net, "10.0.0.1")
        self.nursery = nursery
        self.entered = 0

    async def take(self, link: Link) -> None:
        await link.run(silent)

    async def idle(self, host: str) -> None:
        """Connect, say nothing, and stay."""
        await self.net.host(host).dial(self.servent.address)

    async def enter(self, host: str, stay_s: float = math.inf) -> None:
        dialler = HalfServent(self.net, host)
        at = self.servent.address
        try:
            link = await dial_link(dialler.host, at, dialler, LinkKind.NEIGHBOUR, self.servent.id)
        except LinkError:
            return
        self.entered += 1
        with trio.move_on_after(stay_s):
            await link.run(silent)

    async def come_and_go(self, stay_s: float = 0.0) -> None:
        """Enter time and again."""
        while True:
            await self.enter("10.6.6.6", stay_s)
            await trio.sleep(0.01)

    async def flood(self, per_s: float) -> None:
        """Let idle connections come from 300 addresses of as many networks, one after the other."""
        hosts = itertools.cycle(f"10.{66 + n // 250}.{n % 250}.1" for n in range(300))
        for name in hosts:
            self.nursery.start_soon(self.idle, name)
            await trio.sleep(1 / per_s)


@asynccontextmanager
async def open_door(latency_s: float = FAR_S, take: TakeLink | None = None) -> AsyncIterator[Door]:
    async with trio.open_nursery() as nursery:
        door = Door(nursery, latency_s)
        listener = await door.servent.host.listen(None, PORT)
        judge = door.servent._judge
        nursery.start_soon(accept_links, listener, door.servent, judge, take or door.take)
        yield door
        nursery.cancel_scope.cancel()


async def test_all_who_are_far_get_in_among_idle_connections(autojump_clock: MockClock):
    async with open_door() as door:
        door.nursery.start_soon(door.flood, 110)
        await trio.sleep(1.5)

        for number in range(12):
            door.nursery.start_soon(door.enter, f"10.200.{number}.1")
            await trio.sleep(0.1)
        await trio.sleep(2.5)

        assert door.entered == 12


async def test_one_network_greets_no_more_often_than_its_rate(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    async with open_door() as door:
        monkeypatch.setattr(reception_module, "GREETING_BURST", 20)
        for _ in range(60):
            door.nursery.start_soon(door.enter, "10.6.6.6")
            await trio.sleep(0.01)
        await trio.sleep(3)
        assert door.entered <= 20 + GREETINGS_PER_S

        before = door.entered
        door.nursery.start_soon(door.enter, "10.0.2.1")
        await trio.sleep(3)
        assert door.entered == before + 1


NEAR_S = 0.001
FEW, WATCHED_S = 50, 5.0
"""Greetings of one network at once, and how long it comes and goes."""

AT_ONCE = 6


async def entered_in_turns(monkeypatch: pytest.MonkeyPatch, take: TakeLink | None = None) -> int:
    """Return how often some at one address entered who leave at once, or are sent away."""
    monkeypatch.setattr(reception_module, "GREETING_BURST", FEW)
    async with open_door(NEAR_S, take) as door:
        for _ in range(AT_ONCE):
            door.nursery.start_soon(door.come_and_go, 0.0 if take is None else math.inf)
        await trio.sleep(WATCHED_S)
        return door.entered


async def send_away(link: Link, code: ByeCode) -> None:
    await link.refuse(Bye(code, ""))


@pytest.mark.parametrize("code", [None, ByeCode.FLOOD, ByeCode.DUPLICATE])
async def test_who_comes_and_goes_enters_more_rarely(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, code: ByeCode | None
):
    take = None if code is None else functools.partial(send_away, code=code)
    entered = await entered_in_turns(monkeypatch, take)

    most = FEW + GREETINGS_PER_S * WATCHED_S
    assert most / (1 + BRIEF_GREETINGS) - AT_ONCE <= entered
    assert entered <= most / (1 + BRIEF_GREETINGS) + AT_ONCE


@pytest.mark.parametrize("code", [ByeCode.FULL, ByeCode.LEAVING])
async def test_who_has_to_go_enters_as_often_as_before(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, code: ByeCode
):
    entered = await entered_in_turns(monkeypatch, functools.partial(send_away, code=code))

    assert entered >= FEW + GREETINGS_PER_S * WATCHED_S - AT_ONCE


async def test_three_hundred_of_one_network_get_in_though_some_leave_at_once(
    autojump_clock: MockClock,
):
    async with open_door(NEAR_S) as door:
        for number in range(300):
            stay_s = math.inf if number % 20 else 0.1
            door.nursery.start_soon(door.enter, f"10.6.6.{number % 250}", stay_s)
            await trio.sleep(0.01)
        await trio.sleep(1)

        assert door.entered == 300


def stranger(number: int, host: str = "10.6.6.6") -> PeerInfo:
    identity = Identity.generate()
    return PeerInfo(identity.id, f"stranger {number}", (Address(host, 5000),))


@pytest.mark.parametrize("is_linked", [True, False])
def test_strangers_do_not_push_out_who_is_linked_or_proven(is_linked: bool):
    book, honest = ContactBook(), stranger(0, "10.0.0.7")
    book.shook_hands(honest, 1.0, honest.addresses[0])
    if not is_linked:
        book.lost(honest.id, STABLE_S, STABLE_S)

    for number in range(1, MAX_CONTACTS + 100):
        one = stranger(number, f"10.{66 + number // 250}.{number % 250}.1")
        book.shook_hands(one, 1000.0 + number, one.addresses[0])
        book.lost(one.id, 1000.0, 1.0)

    assert honest.id in book._by_id
    assert len(book._by_id) == MAX_CONTACTS


def test_strangers_at_one_address_push_out_each_other(tmp_path: Path):
    book, honest = ContactBook(), stranger(0, "10.0.0.7")
    book.shook_hands(honest, 1.0, honest.addresses[0])
    book.lost(honest.id, 1.0, 1.0)

    for number in range(1, MAX_CONTACTS + 100):
        one = stranger(number)
        book.shook_hands(one, 1000.0 + number, one.addresses[0])
        book.lost(one.id, 1000.0, STABLE_S if number == 1 else 1.0)

    assert honest.id in book._by_id
    book.save(str(tmp_path / "peers"))
    again = ContactBook.load(str(tmp_path / "peers"))
    assert sum(contact.is_proven for contact in again._by_id.values()) == 1


def test_strangers_that_name_other_networks_push_out_each_other(tmp_path: Path):
    book, honest = ContactBook(), [stranger(number, "10.0.0.7") for number in range(9)]
    for one in honest:
        book.shook_hands(one, 1.0, one.addresses[0])
        book.lost(one.id, 1.0, 1.0)
    book.save(str(tmp_path / "peers"))
    book = ContactBook.load(str(tmp_path / "peers"))

    for number in range(1, MAX_CONTACTS + 100):
        one = stranger(number, f"10.{66 + number // 250}.{number % 250}.1")
        book.shook_hands(one, 1000.0 + number, Address("10.6.6.6", 5000))
        book.lost(one.id, 1000.0, 1.0)

    assert {one.id for one in honest} < book._by_id.keys()


def test_who_is_only_named_pushes_out_nobody_with_whom_we_shook_hands():
    book, honest = ContactBook(), [stranger(number, "10.0.0.7") for number in range(9)]
    for one in honest:
        book.shook_hands(one, 1.0, one.addresses[0])
        book.lost(one.id, 1.0, 1.0)

    for number in range(1, MAX_CONTACTS + 100):
        book.heard_of(stranger(number, f"10.{66 + number // 250}.{number % 250}.1"))

    assert {one.id for one in honest} < book._by_id.keys()


def test_what_others_say_of_a_peer_takes_no_place_from_where_it_answered():
    book, honest = ContactBook(), stranger(0, "10.0.0.7")
    book.shook_hands(honest, 1.0, honest.addresses[0], is_dialled=True)
    book.lost(honest.id, 1.0, 1.0)
    book.unlinked([])[0].failed(2.0, "no answer", has_neighbours=True)

    lies = tuple(Address(f"10.66.{number}.1", 5000) for number in range(MAX_ADDRESSES))
    book.heard_of(PeerInfo(honest.id, "honest", lies))

    assert honest.addresses[0] in book.unlinked([])[0].addresses


@pytest.mark.parametrize("is_known_late", [False, True])
async def test_one_network_does_not_surround_a_newcomer_that_knows_others(
    autojump_clock: MockClock, is_known_late: bool
):
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        crowd = [HalfServent(world.net, f"10.66.6.{number}") for number in range(1, 41)]
        honest = [HalfServent(world.net, f"10.7.{number}.1") for number in range(5)]
        for one in [*crowd, *honest]:
            await nursery.start(one.listen, answering(silent))

        def named(some: list[HalfServent]) -> None:
            for one in some:
                world[0].overlay.heard_of(one.info, Address("10.9.9.9", 1), is_introduced=True)

        named(crowd)
        if is_known_late:
            await trio.sleep(20)
        named(honest)
        await trio.sleep(30)

        dialled = [link for link in world[0].overlay.neighbours if link.direction == "out"]
        others = [link for link in dialled if link.remote.host.startswith("10.7.")]
        assert len(others) >= int(DEGREE * CHOSEN * OF_ONE_NETWORK)
        assert len(dialled) <= DEGREE * CHOSEN * (1 + is_known_late * OF_ONE_NETWORK)
        nursery.cancel_scope.cancel()


async def test_where_all_are_of_one_network_they_are_neighbours_all_the_same(
    autojump_clock: MockClock,
):
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        for number in range(1, 21):
            one = HalfServent(world.net, f"10.66.6.{number}")
            await nursery.start(one.listen, answering(silent))
            world[0].overlay.heard_of(one.info, Address("10.9.9.9", 1), is_introduced=True)
        await trio.sleep(30)

        assert len(world[0].overlay.neighbours) == DEGREE * CHOSEN
        nursery.cancel_scope.cancel()


def named_first(book: ContactBook) -> list[str]:
    """Return the ids of those that are named to a newcomer."""
    return [peer.id for peer in itertools.islice(book.fresh(2000.0), MAX_PEERS)]


@pytest.mark.parametrize("is_linked", [True, False])
def test_who_stays_is_named_among_strangers_that_come_and_go(is_linked: bool):
    book, honest = ContactBook(), stranger(0, "10.0.0.7")
    book.shook_hands(honest, 1000.0, honest.addresses[0])
    if not is_linked:
        book.lost(honest.id, STABLE_S, STABLE_S)

    for number in range(1, 200):
        one = stranger(number, f"10.{66 + number}.6.6")
        book.shook_hands(one, 1500.0, one.addresses[0])
        book.lost(one.id, 1.0, 1.0)

    assert honest.id in named_first(book)
    assert len(named_first(book)) == MAX_PEERS


@pytest.mark.parametrize("are_linked", [True, False])
def test_no_network_is_named_twice_before_others_are_named(are_linked: bool):
    book, honest = ContactBook(), [stranger(n, f"10.0.{n}.7") for n in range(4)]
    crowd = [stranger(number) for number in range(100)]
    for one in [*honest, *crowd]:
        book.shook_hands(one, 1000.0, one.addresses[0])
        if not are_linked:
            book.lost(one.id, 1.0, 1.0)

    assert {one.id for one in honest} < set(named_first(book))


async def test_what_one_network_sees_of_us_counts_once(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(listen_host=None)
        where = world[0].whereabouts
        for number in range(30):
            where.observed("10.6.6.6", by=f"10.66.6.{number}")
        for number in range(8):
            where.observed("10.0.0.1", by=f"10.7.{number}.1")

        assert Address("10.6.6.6", WORLD_PORT) not in where.info().addresses
        for number in range(30):
            where.observed_no_more("10.6.6.6", by=f"10.66.6.{number}")
        assert set(where._seen()) == {"10.0.0.1"}


class Everywhere:
    """A listener on every interface of a machine that has one."""

    address = Address("0.0.0.0", 5000)

    def __init__(self, host: str) -> None:
        self._host = host

    def addresses(self) -> list[Address]:
        return [Address(self._host, 5000)]


def test_many_that_lie_about_where_we_are_do_not_hide_where_we_are():
    own = "9.9.9.9"
    where = Whereabouts(Identity.generate(), NetworkKey.open(), "victim")
    where.listens(cast("Listener", Everywhere(own)))
    where.observed(own, by="10.7.7.7")
    for number in range(24):
        where.observed(f"8.8.8.{number % MAX_ADDRESSES}", by=f"10.{66 + number}.6.6")

    assert Address(own, 5000) in where.info().addresses
    where.observed_no_more(own, by="10.7.7.7")
    assert Address(own, 5000) not in where.info().addresses


def test_an_interface_that_reaches_less_far_takes_no_place_from_where_most_see_us():
    own = "192.168.1.5"
    where = Whereabouts(Identity.generate(), NetworkKey.open(), "behind a router")
    where.listens(cast("Listener", Everywhere(own)))
    where.observed(own, by="192.168.1.6")
    for number in range(8):
        where.observed("8.8.8.8", by=f"10.{66 + number}.6.6")

    assert where.info().addresses == (Address("8.8.8.8", 5000),)


SURROUNDING = MAX_NEIGHBOURS - DEGREE // 2 - 1
"""All places for those that dial but one."""


async def stay(world: World, name: str) -> None:
    """Be a neighbour of servent 0 that answers PING and nothing else."""
    at = Address(host(0), WORLD_PORT)
    peer = await RawPeer.dial(world.net.host(name), at, LinkKind.NEIGHBOUR)
    await peer.answer_pings()


@asynccontextmanager
async def surrounded() -> AsyncIterator[World]:
    """Servent 0 has one honest neighbour, and others of one host; who comes later joins by 1."""
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        await world.start(joins=[0])
        await world.linked(1, 1)
        for _ in range(SURROUNDING):
            nursery.start_soon(stay, world, "10.9.9.9")
        await world.linked(SURROUNDING + 1)
        await trio.sleep(60)  # its first walks are over
        for _ in range(8):
            await world.start(joins=[1])
        yield world
        nursery.cancel_scope.cancel()


def honest_links(world: World, direction: str = "") -> int:
    """Return how many honest neighbours servent 0 has, of those that were dialled so."""
    links = world[0].overlay.neighbours
    honest = [link for link in links if link.remote.host.startswith("10.0.")]
    return sum(direction in link.direction for link in honest)


async def test_a_host_that_surrounds_a_servent_does_not_swallow_its_walks(
    autojump_clock: MockClock,
):
    async with surrounded() as world:
        await world.until(lambda: honest_links(world, "out") >= 4, within_s=900)


async def test_who_has_no_neighbour_of_its_own_choice_dials_those_it_has_heard_of(
    autojump_clock: MockClock,
):
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        await world.start()
        for _ in range(SURROUNDING):
            nursery.start_soon(stay, world, "10.9.9.9")
        await world.linked(SURROUNDING)
        world[0].contacts.heard_of(world[1].whereabouts.info())

        await world.until(lambda: honest_links(world, "out") > 0, within_s=900)
        nursery.cancel_scope.cancel()


async def flap(world: World, name: str) -> None:
    """Come and go all the time, as a neighbour of servent 0."""
    at = Address(host(0), WORLD_PORT)
    while True:
        with contextlib.suppress(trio.BrokenResourceError, AssertionError):
            peer = await RawPeer.dial(world.net.host(name), at, LinkKind.NEIGHBOUR)
            await trio.sleep(0.1)
            await peer.aclose()
        await trio.sleep(0.1)


async def test_who_comes_and_goes_keeps_a_servent_from_nobody_else(autojump_clock: MockClock):
    async with open_world() as world, trio.open_nursery() as nursery:
        await world.start()
        await world.start()
        nursery.start_soon(stay, world, "10.9.9.9")
        await world.linked(1)
        for network in range(3):
            nursery.start_soon(flap, world, f"10.66.{network}.6")
        await trio.sleep(2)
        world[0].contacts.heard_of(world[1].whereabouts.info())

        await world.until(lambda: honest_links(world, "out") > 0, within_s=120)
        nursery.cancel_scope.cancel()
