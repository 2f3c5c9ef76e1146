"""What a servent dials because a neighbour asks: PUSH and PUNCH keep to the same rules."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from p2pfs.protocol import Address
from p2pfs.reach.favours import PUSH_BURST
from tests.helpers.routed import FAVOURS, Favour
from tests.helpers.world import host


@pytest.fixture(params=FAVOURS)
def favour(request: pytest.FixtureRequest) -> Favour:
    return FAVOURS[request.param]


async def test_a_neighbour_that_asks_too_often_is_not_heard(
    autojump_clock: MockClock, favour: Favour
):
    async with favour.world() as world:
        for number in range(PUSH_BURST + 5):
            favour.ask(world[1], number, [])

        assert favour.counters(world[1])["dropped: over budget"] == 5


@pytest.mark.parametrize(
    "address",
    [Address("127.0.0.1", 4774), Address(host(3), 22), Address("printer.example", 4774)],
)
async def test_nobody_is_sent_where_no_servent_is(
    autojump_clock: MockClock, favour: Favour, address: Address
):
    async with favour.world() as world:
        favour.ask(world[1], 1, [address])

        assert favour.counters(world[1]) == {favour.nowhere: 1}


async def test_few_are_dialled_at_once(autojump_clock: MockClock, favour: Favour):
    async with favour.world() as world:
        for number in range(favour.most + 1):
            place = Address(f"10.{number}.7.7", 4774)
            world.net.host(place.host).is_behind_router = True
            favour.ask(world[1], number, [place])

        assert favour.counters(world[1]) == {favour.too_many: 1}
