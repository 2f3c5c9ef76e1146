"""What `mount` and `serve` say when they are up: where, how others join, and what is amiss."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import Endpoint
from p2pfs.host.background import Welcome
from p2pfs.host.welcome import MAX_SHOWN, state_of, welcome_of
from p2pfs.protocol import Address
from tests.helpers.world import PORT, World, host, open_pair, open_world

NOBODY = "nobody is here yet: send somebody such a line, or join with `p2pfs join HOST:PORT`"


class Everywhere:
    """The door of a servent that listens on every interface of a machine."""

    def __init__(self, *hosts: str) -> None:
        self.address = Address("::", PORT)
        self._hosts = hosts

    def addresses(self) -> list[Address]:
        return [Address(one, PORT) for one in self._hosts]


async def welcome(world: World, *hosts: str, **changes: object) -> Welcome:
    servent = await world.start(**changes)
    if hosts:
        servent.whereabouts._listener = Everywhere(*hosts)
    return welcome_of(servent)


def join(address: str) -> str:
    return f"  p2pfs mount ~/p2p --join {address}"


async def test_the_place_the_port_and_each_way_in_are_told(autojump_clock: MockClock):
    async with open_world() as world:
        hosts = ("192.168.1.5", "fd00::5", "8.8.8.8", "2a00::5")
        told = await welcome(world, *hosts, mountpoint=Path("/home/ann/p2p"))

        assert told.lines == [
            f"mounted on /home/ann/p2p, listening on port {PORT} of every interface, 0 peers",
            "to join from your network:",
            join(f"192.168.1.5:{PORT}"),
            join(f"'[fd00::5]:{PORT}'"),
            f"to join from elsewhere, if router and firewall let port {PORT} in:",
            join(f"8.8.8.8:{PORT}"),
            join(f"'[2a00::5]:{PORT}'"),
            NOBODY,
        ]
        assert told.warnings == []
        assert told.record["mountpoint"] == "/home/ann/p2p"
        assert told.record["addresses"] == [str(Address(one, PORT)) for one in hosts]
        assert told.record["join_commands"] == [
            line.strip() for line in told.lines if line.startswith("  ")
        ]


async def test_a_servent_of_this_machine_alone_says_so(autojump_clock: MockClock):
    async with open_world() as world:
        told = await welcome(world, "127.0.0.1")

        assert told.lines[1:] == [
            "to join from this machine:", join(f"127.0.0.1:{PORT}"), NOBODY,
        ]  # fmt: skip


async def test_without_a_network_nobody_is_promised_anything(autojump_clock: MockClock):
    async with open_world() as world:
        servent = await world.start()
        servent.whereabouts._listener = Everywhere()

        assert "this machine has no network: nobody can join it now" in welcome_of(servent).lines


async def test_of_very_many_addresses_some_are_shown_and_the_rest_is_told_of(
    autojump_clock: MockClock,
):
    hosts = [f"10.0.0.{number}" for number in range(20)]
    async with open_world() as world:
        told = await welcome(world, *hosts)

        assert sum(line.startswith("  p2pfs mount") for line in told.lines) == MAX_SHOWN
        assert f"  and {20 - MAX_SHOWN} more: `p2pfs status` has them all" in told.lines
        assert len(told.record["join_commands"]) == 20


async def test_with_peers_nobody_is_said_to_be_missing(autojump_clock: MockClock):
    async with open_pair() as world:
        for number in range(2):
            told = welcome_of(world[number])
            assert told.lines == [
                f"serving, listening on {host(number)}:{PORT}, 1 peer",
                "to join from your network:",
                join(f"{host(number)}:{PORT}"),
            ]
            assert told.warnings == []
            assert told.record["neighbours"] == 1


async def test_whom_the_user_named_and_who_does_not_answer_is_a_warning(autojump_clock: MockClock):
    async with open_world() as world:
        servent = await world.start()
        with pytest.raises(Exception, match="resolve"):
            await servent.join(Endpoint("gone", PORT))

        told = welcome_of(servent)

        assert NOBODY not in told.lines
        (warning,) = told.warnings
        assert "gone" in warning
        assert warning.endswith("it is tried again and again")


async def test_an_invitation_that_has_ended_is_a_warning(autojump_clock: MockClock):
    async with open_world() as world:
        made = (await world.start()).inviting.make(60)
        await trio.sleep(61)

        told = welcome_of(await world.start(invited=[made]))

        assert told.warnings == [f"warning: not joined: this invitation ended on {made.end}"]


async def test_peers_of_an_earlier_life_are_waited_for_and_told_of(autojump_clock: MockClock):
    async with open_pair() as world:
        world.stop(0)
        await trio.sleep(5)
        assert world[1].knows_peers

        told = welcome_of(world[1])

        assert NOBODY not in told.lines
        assert told.warnings == [
            "warning: no peer that it knows answers yet; they are tried again and again"
        ]


async def test_what_is_amiss_with_key_and_sharing_is_a_warning(
    autojump_clock: MockClock, tmp_path: Path
):
    key = tmp_path / "key"
    key.write_text("swing")
    key.chmod(0o640)
    async with open_world() as world:
        servent = await world.start(network_key_file=key)
        await servent.pause()

        told = welcome_of(servent)

        assert [warning.split(":")[1].strip() for warning in told.warnings] == [
            "sharing is paused", "others can read the network key",
            f"the network key {key} can be guessed, it is worth some 12 bits of 80 or more",
        ]  # fmt: skip
        assert told.record["sharing"] is False


async def test_no_name_of_a_directory_does_anything_to_a_terminal(autojump_clock: MockClock):
    async with open_world() as world:
        told = await welcome(world, "10.0.0.1", mountpoint=Path("/mnt/\x1b[2J"))

        assert all(line.isprintable() for line in told.lines)
        assert r"\x1b" in state_of(world[0]).encode("unicode_escape").decode()
