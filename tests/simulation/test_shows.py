"""What a servent tells people of itself: who fetches what, and how others join it."""

from __future__ import annotations

import dataclasses
import random
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import load_config
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import Address
from tests.helpers.world import PORT, World, host, open_world

CONTENT = random.Random(1).randbytes(4_000_000)
RATE = 500_000


@dataclasses.dataclass
class Interfaces:
    """Where a servent in a world can be dialled, as a machine with real interfaces would say."""

    hosts: tuple[str, ...]

    def addresses(self) -> list[Address]:
        return [Address(host, PORT) for host in self.hosts]


def give_interfaces(world: World, number: int, *hosts: str) -> None:
    world[number].whereabouts._listener.addresses = Interfaces(hosts).addresses


async def test_both_sides_of_a_transfer_tell_of_it_with_peer_and_rate(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(upload_limit_bytes_s=RATE)
        await world.start(joins=[0])
        await world.linked(1, 1)
        await world.share(0, "films/x", CONTENT)
        film = await world[1].browser.find("films/x")
        assert isinstance(film, RemoteFile)
        reader = world[1].swarms.open(film)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.read, 0, len(CONTENT))
            await trio.sleep(4)
            (upload,), (download,) = world[0].report.transfers(), world[1].report.transfers()
            uploads = world[0].report.status()["uploads"], world[0].report.status()["transfers"]
            neighbours = world[0].report.peers()[0], world[1].report.peers()[0]
        reader.close()
        await trio.sleep(10)

        same = {"path": "films/x", "id": film.file_id.hex(), "size": len(CONTENT), "sources": 1}
        assert same.items() <= upload.items()
        assert same.items() <= download.items()
        assert (upload["direction"], upload["state"]) == ("upload", "sending")
        assert (download["direction"], download["state"]) == ("download", "reading")
        for row, number in ((upload, 1), (download, 0)):
            assert row["rate_bytes_s"] == pytest.approx(RATE, rel=0.3)
            assert 1 * RATE < row["done_bytes"] < len(CONTENT)
            (peer,) = row["peers"]
            assert (peer["name"], peer["id"]) == (
                f"servent-{number}",
                world[number].whereabouts.identity.id,
            )
            assert peer["rate_bytes_s"] == pytest.approx(RATE, rel=0.3)
        assert uploads == (1, 0)
        assert neighbours[0]["upload_bytes_s"] == upload["rate_bytes_s"]
        assert neighbours[0]["download_bytes_s"] == 0
        assert neighbours[1]["download_bytes_s"] == download["peers"][0]["rate_bytes_s"]
        assert world[0].report.transfers() == world[1].report.transfers() == []
        assert world[0].report.peers()[0]["upload_bytes_s"] == 0


async def test_what_is_sent_on_from_the_cache_is_told_by_the_path_it_was_read_at(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        for joins in ([], [0], [0, 1]):
            await world.start(joins=joins, upload_limit_bytes_s=RATE)
        await world.linked(2, 2, 2)
        await world.share(0, "x", CONTENT)
        assert await world.read(1, "x") == CONTENT
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.read, 2, "x")
            await trio.sleep(3)
            assert [row["path"] for row in world[1].report.transfers()] == ["x"]
            assert world[1].report.transfers()[0]["direction"] == "upload"


async def test_the_whole_command_that_joins_is_told_for_each_address(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        give_interfaces(world, 0, "192.168.1.5", "2a00::5")
        status = world[0].report.status()

        assert status["addresses"] == [f"192.168.1.5:{PORT}", f"[2a00::5]:{PORT}"]
        assert status["join_commands"] == [
            f"p2pfs mount ~/p2p --join 192.168.1.5:{PORT}",
            f"p2pfs mount ~/p2p --join '[2a00::5]:{PORT}'",
        ]


async def test_a_private_network_is_joined_with_its_key(autojump_clock: MockClock, tmp_path):
    key = tmp_path / "our key"
    key.write_text("cleft cam synod lacy yr wok cab")
    async with open_world() as world:
        await world.start(network_key_file=key)

        (command,) = world[0].report.status()["join_commands"]
        assert shlex.split(command)[3:] == [
            "--join", f"{host(0)}:{PORT}", "--network-key-file", "our key",
        ]  # fmt: skip


async def test_a_public_address_is_told_when_more_than_one_neighbour_sees_it(
    autojump_clock: MockClock,
):
    """A router hides it from this machine; a neighbour alone could send our friends anywhere."""
    async with open_world() as world:
        await world.start()
        give_interfaces(world, 0, "192.168.1.5")
        for number in range(5):
            world[0].whereabouts.observed("192.168.9.9", by=f"10.9.{number}.1")
        world[0].whereabouts.observed("8.8.8.8", by="10.9.0.1")
        world[0].whereabouts.observed("8.8.8.8", by="10.9.0.2")  # of the same network
        assert world[0].report.status()["addresses"] == [f"192.168.1.5:{PORT}"]

        world[0].whereabouts.observed("8.8.8.8", by="10.9.1.1")
        assert world[0].report.status()["addresses"] == [f"192.168.1.5:{PORT}", f"8.8.8.8:{PORT}"]


async def test_who_listens_at_one_address_tells_that_one(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        for number in range(9):
            world[0].whereabouts.observed("8.8.8.8", by=f"10.9.{number}.1")

        assert world[0].report.status()["addresses"] == [f"{host(0)}:{PORT}"]


# Below `.p2pfs/`.


async def test_the_texts_are_those_of_the_verbs(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(name="ann@desk", cache_limit_bytes=2**30, joins=[])
        await world.start(joins=[0])
        await world.linked(1, 1)
        world[0].journal.warning("peer\x1b hung up", "films/x")
        text = {
            name: world[0].report.render(name).decode() for name in ("status", "peers", "events")
        }

        lines = text["status"].splitlines()
        assert "sharing: yes" in lines
        assert "mountpoint: -" in lines
        assert "cache limit: 1.0 GiB" in lines
        assert f"addresses: {host(0)}:{PORT}" in lines
        at = lines.index("join commands:")
        assert lines[at + 1] == f"  p2pfs mount ~/p2p --join {host(0)}:{PORT}"
        assert "name: servent-1\n" in text["peers"]
        assert "download: 0 B/s\n" in text["peers"]
        (event,) = [line for line in text["events"].splitlines() if "hung up" in line]
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\twarning\tpeer\\x1b hung up\tfilms/x", event
        )


async def test_the_configuration_can_be_pasted_into_config_toml(
    autojump_clock: MockClock, tmp_path: Path
):
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0], upload_limit_bytes_s=2**20, name="naïve ☃")
        config, text = world[1].config, world[1].report.render("config")

    assert tomllib.loads(text.decode())["upload-limit"] == "1M"
    assert text.startswith(b"# state directory: ")
    (tmp_path / "config.toml").write_bytes(text)
    loaded = load_config({}, state_directory=str(tmp_path))
    assert dataclasses.replace(loaded, state_directory=config.state_directory) == config


async def test_a_path_that_is_no_text_breaks_no_rendering(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start(mountpoint=Path("/mnt/caf\udce9\n"))

        assert b"# mountpoint: /mnt/caf\\udce9\\n\n" in world[0].report.render("config")
        assert b"mountpoint: /mnt/caf\\udce9\\n\n" in world[0].report.render("status")
