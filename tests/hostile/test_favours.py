"""Whoever asks for favours all the time, or lies about the way, leaves others theirs."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import UnreachableError
from p2pfs.link import Channel, Link
from p2pfs.protocol import Address, Guid, Guide, Identity, Relay, ServentId
from p2pfs.reach.circuits import MAX_ENTERED, MAX_ENTERED_OF_ONE
from p2pfs.reach.favours import PUSH_BURST, PUSHES_PER_S, Routes
from p2pfs.reach.meeting import MEETING_MOST_S, Meeting
from p2pfs.reach.relays import MAX_CIRCUITS, MAX_CIRCUITS_OF_NETWORK
from tests.helpers.intruders import intrude
from tests.helpers.rogues import RawPeer
from tests.helpers.routed import behind_router, punch, push
from tests.helpers.world import PORT, World, open_world

ATTACKED_S = 120
HONEST = 12


def link_to(world: World, peer: Identity | ServentId) -> Link:
    """Return the link of the first servent to a neighbour."""
    wanted = peer.id if isinstance(peer, Identity) else peer
    return world[0].overlay.links[ServentId(wanted)]


async def stay(peer: RawPeer) -> None:
    """Answer PING until the world ends."""
    with contextlib.suppress(AssertionError):
        await peer.answer_pings()


FAVOURS = {
    "push": (
        lambda ways, link, number, peer: ways.pushes.got_push(link, push(number, peer)),
        lambda ways: ways.pushes.counters["passed on"],
    ),
    "punch": (
        lambda ways, link, number, peer: ways.punches.got_punch(link, punch(number, peer)),
        lambda ways: ways.punches.counters["arranged"],
    ),
    "relay": (
        lambda ways, link, number, peer: ways.circuits.got_relay(
            link, Relay(Guid(bytes([number] * 16)), peer)
        ),
        lambda ways: ways.relays.counters["granted"],
    ),
    "guide": (
        lambda ways, link, number, peer: ways.guides.got_guide(
            link, Guide(Guid(bytes([number] * 16)), peer, 3)
        ),
        lambda ways: ways.guides.counters["passed on"],
    ),
}


@pytest.mark.parametrize("favour", FAVOURS)
async def test_one_who_asks_all_the_time_leaves_others_the_way(
    autojump_clock: MockClock, nursery: trio.Nursery, favour: str
):
    ask, count = FAVOURS[favour]
    async with behind_router(readers=2) as world:
        world[0].ways.relays._is_on = True
        liar, ways = Identity.generate(), world[0].ways
        nursery.start_soon(stay, await intrude(world, "10.66.6.1", liar))
        target = world[1].whereabouts.identity.id
        if favour == "guide":  # who is a neighbour itself answers and passes nothing on
            through, target = ServentId(target), ServentId(Identity.generate().id)
            ways.came_from(target, through)
        done = 0
        for second in range(ATTACKED_S):
            ask(ways, link_to(world, liar), second % 250, target)
            if second % (ATTACKED_S // HONEST) == 0:
                before = count(ways)
                reader = link_to(world, ServentId(world[2].whereabouts.identity.id))
                ask(ways, reader, 250, target)
                done += count(ways) - before
            await trio.sleep(1)

        assert done == HONEST
        assert PUSH_BURST // 2 < count(ways) - done <= PUSH_BURST + ATTACKED_S * PUSHES_PER_S / 2


async def test_those_of_one_network_leave_circuits_to_others(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(max_neighbours=32)
        liars = [Identity.generate() for _ in range(10)]
        for number, liar in enumerate(liars):
            await intrude(world, f"10.66.{number % 2}.{number}", liar)
        relays = world[0].ways.relays
        for one, other in zip(liars[::2], liars[1::2], strict=True):
            for number in range(2):
                token = Guid(bytes([number] * 16))
                relays.got_request(link_to(world, one), Relay(token, other.id))

        assert relays.counters["granted"] == MAX_CIRCUITS_OF_NETWORK < MAX_CIRCUITS
        friends = [Identity.generate() for _ in range(2)]
        for number, friend in enumerate(friends):
            await intrude(world, f"10.{67 + number}.0.1", friend)
        relays.got_request(link_to(world, friends[0]), Relay(Guid(bytes(16)), friends[1].id))
        assert relays.counters["granted"] == MAX_CIRCUITS_OF_NETWORK + 1


async def test_relays_to_which_nobody_comes_leave_room_for_another(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(max_neighbours=32)
        circuits = world[0].ways.circuits
        for _ in range(2):
            liar = Identity.generate()
            await intrude(world, "10.66.6.1", liar)
            world.net.host("10.66.6.1").is_behind_router = True  # its dials lead out, and none in
            for ticket in range(MAX_ENTERED // 2):
                wanted = Relay(Guid(bytes(16)), Identity.generate().id, bytes([ticket] * 16))
                circuits.got_relay(link_to(world, liar), wanted)

        assert circuits.counters["dropped: too many circuits"] == MAX_ENTERED - MAX_ENTERED_OF_ONE
        friend = Identity.generate()
        await intrude(world, "10.67.0.1", friend)
        wanted = Relay(Guid(bytes(16)), Identity.generate().id, bytes(16))
        circuits.got_relay(link_to(world, friend), wanted)
        assert circuits.counters["dropped: too many circuits"] == MAX_ENTERED - MAX_ENTERED_OF_ONE


async def test_a_meeting_ends_however_many_come(autojump_clock: MockClock):
    place = Address("10.66.6.1", PORT)

    async def never(*_anything: object) -> None:
        await trio.sleep_forever()

    meeting = Meeting(SimpleNamespace(dial=never), [place], never, most=1)

    async def come() -> None:
        channel = Channel(trio.testing.memory_stream_pair()[0], place, place)
        await trio.sleep(1)
        for _ in range(10 * round(MEETING_MOST_S)):
            meeting.came(channel)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come)
        with pytest.raises(UnreachableError):
            await meeting.run()
        assert trio.current_time() == MEETING_MOST_S
        nursery.cancel_scope.cancel()


def test_who_brings_the_hits_of_others_and_leads_to_nobody_is_not_asked_again():
    links = {name: SimpleNamespace(peer=SimpleNamespace(id=name)) for name in ("liar", "friend")}
    routes = Routes(lambda: links)
    routes.came_from("peer", "friend")
    routes.came_from("peer", "liar")
    assert routes.way_to("peer") is links["liar"]

    routes.led_nowhere("peer")
    routes.came_from("peer", "liar")

    assert routes.way_to("peer") is links["friend"]
    del links["friend"]
    assert routes.way_to("peer") is links["liar"]
