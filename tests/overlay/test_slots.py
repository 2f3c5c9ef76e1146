"""Slots for those who dial us are shared by address, since identities are free."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio
import trio.lowlevel
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from p2pfs.config import DEGREE, MAX_NEIGHBOURS
from p2pfs.protocol import Address, LinkKind, crowds, groups_of
from tests.helpers.rogues import RawPeer
from tests.helpers.world import PORT, World, host, open_world


@dataclass(frozen=True)
class FakeLink:
    host: str
    opened_at: float = 0.0
    remote: Address = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "remote", Address(self.host, 5000))


def links(*hosts: str) -> list[FakeLink]:
    return [FakeLink(name, float(number)) for number, name in enumerate(hosts)]


def who_gives_way(held: list[FakeLink], newcomer: str) -> FakeLink | None:
    return crowds.who_gives_way(
        held, newcomer, host_of=lambda link: link.host, weight=lambda link: link.opened_at
    )


def test_the_latest_of_the_largest_network_gives_way():
    held = links("10.0.1.1", "10.0.2.1", "10.0.2.2", "10.0.2.3")

    assert who_gives_way(held, "10.0.3.1") is held[3]


def test_in_a_network_the_latest_of_the_address_with_most_gives_way():
    held = links("10.0.2.1", "10.0.2.9", "10.0.2.1", "10.0.2.8", "10.0.2.7")

    assert who_gives_way(held, "10.0.3.1") is held[2]
    assert who_gives_way(held, "10.0.2.6") is held[2]


def test_nobody_gives_way_within_a_lab_where_each_has_one():
    assert who_gives_way(links(*(f"10.0.2.{n}" for n in range(1, 30))), "10.0.2.200") is None


def test_nobody_gives_way_to_the_larger_group():
    assert who_gives_way(links("10.0.1.1", "10.0.2.1", "10.0.2.2"), "10.0.2.3") is None


def test_addresses_of_one_ipv6_network_are_one_crowd():
    held = links(*(f"2001:db8:1:{n:x}::1" for n in range(1, 9)), "2001:db8:2::1")

    assert who_gives_way(held, "2001:db8:3::1") is held[7]


HOSTS = st.sampled_from([f"10.0.{net}.{n}" for net in range(4) for n in range(1, 4)])


@given(st.lists(HOSTS, max_size=12), HOSTS)
def test_a_swap_never_makes_the_newcomers_group_the_largest(hosts: list[str], newcomer: str):
    held = links(*hosts)

    victim = who_gives_way(held, newcomer)

    if victim is not None:
        after = [link.host for link in held if link is not victim] + [newcomer]
        for part in (0, 1):
            mine, theirs = groups_of(newcomer)[part], groups_of(victim.host)[part]
            groups = [groups_of(name)[part] for name in after]
            if mine != theirs:
                assert groups.count(mine) <= groups.count(theirs) or part == 1
        assert len(after) == len(held)


async def crowd(world: World, name: str, count: int) -> list[RawPeer]:
    """Become a neighbour of servent 0 so many times from one host, as others each time."""
    dialler = world.net.host(name)
    at = Address(host(0), PORT)
    return [await RawPeer.dial(dialler, at, LinkKind.NEIGHBOUR) for _ in range(count)]


def hosts_linked(world: World) -> list[str]:
    return [link.remote.host for link in world[0].overlay.neighbours]


async def test_one_host_with_any_number_of_identities_surrounds_nobody(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start(max_neighbours=MAX_NEIGHBOURS)
        inbound = MAX_NEIGHBOURS - DEGREE // 2
        await crowd(world, "10.9.9.9", inbound)

        for number in range(8):
            await world.start(joins=[0])
            await world.until(
                lambda number=number: bool(world[number + 1].overlay.neighbours), within_s=30
            )

        assert len(hosts_linked(world)) >= inbound
        assert {host(number) for number in range(1, 9)} <= set(hosts_linked(world))


async def test_who_dials_us_leaves_slots_for_those_whom_we_dial(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        for number in range(MAX_NEIGHBOURS):
            if len(hosts_linked(world)) < MAX_NEIGHBOURS - DEGREE // 2:
                await crowd(world, f"10.9.{number}.9", 1)

        assert not world[0].overlay.has_room()
        await world.start()
        await world[0].join(world.endpoint(1))

        assert host(1) in hosts_linked(world)
        await trio.lowlevel.checkpoint()
