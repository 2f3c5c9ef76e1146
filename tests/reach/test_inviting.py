"""Invitations: who has one joins those whom it names, in the network that it is for."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import UnreachableError, UsageError
from p2pfs.invitations import Invitation, parse_invitation
from tests.helpers.world import World, open_pair, open_world

DAY_S = 24 * 3600


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("correct horse battery staple\n")
    return path


def invitation_of(world: World, number: int, for_s: float = DAY_S) -> Invitation:
    return parse_invitation(str(world[number].invite(for_s)["invitation"]))


async def test_who_is_invited_joins(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        made = world[0].invite(DAY_S)
        assert made["is_private"] is False
        await world.start(invited=[parse_invitation(str(made["invitation"]))])

        await world.linked(1, 1)


async def test_a_clock_that_is_a_century_ahead_makes_no_invitation(autojump_clock: MockClock):
    async with open_world() as world:
        inviting = (await world.start()).inviting
        inviting._wall_clock = lambda: 2.0**33

        with pytest.raises(UsageError, match="the clock of this machine is wrong"):
            inviting.make(DAY_S)


async def test_a_running_servent_joins_by_an_invitation(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        await world.start()
        peer = await world[1].join(invitation_of(world, 0))

        assert peer["name"] == "servent-0"


async def test_an_invitation_brings_the_key_and_keeps_it(autojump_clock: MockClock, key: Path):
    async with open_world() as world:
        await world.start(network_key_file=key)
        await world.start(invited=[invitation_of(world, 0)])
        await world.linked(1, 1)

        kept = world[1].config.kept_key_path
        assert kept.read_text() == key.read_text()
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        assert world[1].config.network_key_file == kept
        rows = {str(row["name"]): row["source"] for row in await world[1].settings.rows()}
        assert rows["network-key-file"] == "invitation"
        assert [join.key for join in world[1].config.joins] == [None]


async def test_nobody_else_is_taken_for_who_invites(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        made = invitation_of(world, 0)
        world.stop(0)
        await trio.sleep(5)
        await world.start_anew(0)
        await world.start()
        with pytest.raises(UnreachableError, match="not the servent that it was said to be"):
            await world[1].join(made)


async def test_neighbours_stand_in_for_who_invites(autojump_clock: MockClock):
    async with open_pair() as world:
        made = invitation_of(world, 1)
        world.kill(1)
        await world.start()

        assert (await world[2].join(made))["name"] == "servent-0"


async def test_an_invitation_that_has_ended_is_not_followed(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        made = invitation_of(world, 0, for_s=60)
        await trio.sleep(61)
        await world.start(invited=[made])
        await trio.sleep(30)

        assert not world[1].overlay.neighbours
        assert any("invitation ended" in event.text for event in world[1].journal.events())
        with pytest.raises(UsageError, match="ended on"):
            await world[1].join(made)


async def test_it_does_not_lead_into_another_network(autojump_clock: MockClock, key: Path):
    async with open_world() as world:
        await world.start(network_key_file=key)
        await world.start()
        with pytest.raises(UsageError, match="another network"):
            await world[1].join(invitation_of(world, 0))
        with pytest.raises(UsageError, match="another network"):
            await world[0].join(invitation_of(world, 1))


@pytest.mark.parametrize("has_key", [True, False])
async def test_a_start_with_an_invitation_to_another_network_is_refused(
    autojump_clock: MockClock, key: Path, tmp_path: Path, has_key: bool
):
    other = tmp_path / "other"
    other.write_text("tulip anvil gravel moss\n")
    async with open_world() as world:
        await world.start(network_key_file=key if has_key else None)
        made = invitation_of(world, 0)
        with pytest.RaisesGroup(
            pytest.RaisesExc(UsageError, match="another network"), flatten_subgroups=True
        ):
            async with open_world() as elsewhere:
                await elsewhere.start(invited=[made], network_key_file=other)


async def test_an_old_invitation_does_not_start_in_the_open_network(
    autojump_clock: MockClock, key: Path
):
    async with open_world() as world:
        await world.start(network_key_file=key)
        made = replace(invitation_of(world, 0), ends_at=1)
        await trio.sleep(2)
        with pytest.RaisesGroup(
            pytest.RaisesExc(UsageError, match="ended on"), flatten_subgroups=True
        ):
            async with open_world() as elsewhere:
                await elsewhere.start(invited=[made])
