"""A servent is dialled at all of its addresses, and found at the first that leads to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from p2pfs.errors import HandshakeError, UnreachableError
from p2pfs.link import Link, RefusedError, dial_servent
from p2pfs.link.dialling import STAGGER_S
from p2pfs.link.sockets import CONNECT_S, Channel
from p2pfs.protocol import Address, Bye, ByeCode, LinkKind
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.servents import PORT, HalfServent, answering, silent

LATENCY_S = 0.01
GREETED_S = 8 * LATENCY_S
"""Longer than a dial and a greeting take."""


class Town:
    """We, and half servents to be dialled."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.net = MemoryNetwork(latency_s=LATENCY_S)
        self.us = HalfServent(self.net, "10.0.0.1")
        self._nursery = nursery

    async def servent(self, host: str) -> HalfServent:
        servent = HalfServent(self.net, host)
        await self._nursery.start(servent.listen, answering(silent))
        return servent

    def black_hole(self, host: str) -> Address:
        self.net.host(host)
        self.net.freeze(host)
        return Address(host, PORT)

    def closed(self, host: str) -> Address:
        self.net.host(host)
        return Address(host, PORT)

    async def dial(self, servent: HalfServent, *addresses: Address) -> Link:
        return await dial_servent(
            self.us.host, addresses, self.us, LinkKind.TRANSFER, expected_id=servent.id
        )


@asynccontextmanager
async def open_town() -> AsyncIterator[Town]:
    async with trio.open_nursery() as nursery:
        yield Town(nursery)
        nursery.cancel_scope.cancel()


async def test_an_address_that_swallows_packets_costs_a_moment(autojump_clock: MockClock):
    async with open_town() as town:
        servent = await town.servent("10.0.0.9")
        began_at = trio.current_time()

        link = await town.dial(servent, town.black_hole("10.0.0.2"), servent.address)

        assert link.peer.id == servent.id
        assert trio.current_time() - began_at <= STAGGER_S + GREETED_S
        await link.refuse(Bye(ByeCode.IDLE, ""))


async def test_an_address_that_refuses_costs_nothing(autojump_clock: MockClock):
    async with open_town() as town:
        servent = await town.servent("10.0.0.9")
        began_at = trio.current_time()

        await town.dial(servent, town.closed("10.0.0.2"), servent.address)

        assert trio.current_time() - began_at < STAGGER_S


async def test_another_servent_at_one_address_does_not_hide_the_right_one(
    autojump_clock: MockClock,
):
    async with open_town() as town:
        servent, other = await town.servent("10.0.0.9"), await town.servent("10.0.0.2")

        link = await town.dial(servent, other.address, servent.address)

        assert link.peer.id == servent.id


async def test_a_servent_that_refuses_is_not_asked_at_its_other_addresses(
    autojump_clock: MockClock,
):
    async with open_town() as town:
        servent = await town.servent("10.0.0.9")
        servent.refusal = Bye(ByeCode.FULL, "full")

        with pytest.raises(RefusedError) as refused:
            await town.dial(servent, servent.address, town.closed("10.0.0.2"))

        assert refused.value.bye.code is ByeCode.FULL


async def test_a_refusal_is_told_though_an_address_before_it_is_dead(autojump_clock: MockClock):
    async with open_town() as town:
        servent = await town.servent("10.0.0.9")
        servent.refusal = Bye(ByeCode.FULL, "full")

        with pytest.raises(RefusedError):
            await town.dial(servent, town.black_hole("10.0.0.2"), servent.address)


async def test_what_is_wrong_with_each_address_is_told(autojump_clock: MockClock):
    async with open_town() as town:
        servent = HalfServent(town.net, "10.0.0.9")
        began_at = trio.current_time()

        with pytest.raises(UnreachableError, match=r"10\.0\.0\.3.*; .*10\.0\.0\.2"):
            await town.dial(servent, town.black_hole("10.0.0.2"), town.closed("10.0.0.3"))

        assert trio.current_time() - began_at <= STAGGER_S + CONNECT_S


async def test_one_address_fails_with_its_own_error(autojump_clock: MockClock):
    async with open_town() as town:
        servent, other = HalfServent(town.net, "10.0.0.9"), await town.servent("10.0.0.2")

        with pytest.raises(HandshakeError, match="not the servent"):
            await town.dial(servent, other.address)


async def test_no_address_is_an_error_too(autojump_clock: MockClock):
    async with open_town() as town:
        with pytest.raises(UnreachableError, match="no address"):
            await town.dial(town.us)


@pytest.mark.parametrize("after_s", [0.0, LATENCY_S, STAGGER_S, STAGGER_S + 2 * LATENCY_S])
async def test_who_gives_up_leaves_no_connection(autojump_clock: MockClock, after_s: float):
    async with open_town() as town:
        servent = await town.servent("10.0.0.9")
        with trio.move_on_after(after_s) as scope:
            await town.dial(servent, town.black_hole("10.0.0.2"), servent.address)
        await trio.sleep(1)

        assert scope.cancelled_caught
        assert servent.open_links == []
        assert town.us.host.wires == set()


class Simultaneous:
    """A network where all dials under way are answered at one moment."""

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.far_ends: list[trio.testing.MemoryReceiveStream] = []

    async def dial(self, address: Address) -> Channel:
        await self.answered.wait()
        near, far = trio.testing.memory_stream_pair()
        self.far_ends.append(far)
        return Channel(near, address, Address("10.0.0.1", PORT))

    async def hung_up(self) -> int:
        """Return how many of the connections our end has closed."""
        count = 0
        for far in self.far_ends:
            with trio.move_on_after(1):
                while await far.receive_some():
                    pass
                count += 1
        return count


async def test_of_two_that_answer_at_one_moment_one_is_left(autojump_clock: MockClock):
    async with open_town() as town, trio.open_nursery() as nursery:
        network = Simultaneous()
        addresses = (Address("10.0.0.2", PORT), Address("10.0.0.3", PORT))
        nursery.start_soon(dial_servent, network, addresses, town.us, LinkKind.TRANSFER)
        await trio.sleep(2 * STAGGER_S)

        network.answered.set()
        await trio.testing.wait_all_tasks_blocked()

        assert len(network.far_ends) == 2
        assert await network.hung_up() == 1
        nursery.cancel_scope.cancel()


async def test_who_gives_up_as_somebody_answers_leaves_no_connection(autojump_clock: MockClock):
    async with open_town() as town, trio.open_nursery() as nursery:
        network = Simultaneous()
        addresses = (Address("10.0.0.2", PORT), Address("10.0.0.3", PORT))
        nursery.start_soon(dial_servent, network, addresses, town.us, LinkKind.TRANSFER)
        await trio.sleep(STAGGER_S / 2)

        network.answered.set()
        nursery.cancel_scope.cancel()

    assert len(network.far_ends) == 1
    assert await network.hung_up() == 1
