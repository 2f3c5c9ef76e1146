"""What a servent must not lose when the power fails, at each moment at which it writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import Config, load_config
from p2pfs.download import load_pins
from p2pfs.keys import load_identity
from p2pfs.namespace import RemoteFile
from p2pfs.overlay import ContactBook
from p2pfs.servent import Servent, open_servent
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.powercut import check_cuts, power_may_fail
from tests.helpers.threads import run_directly
from tests.helpers.world import host, open_pair, open_world


def names_of(path: Path) -> tuple[str, str]:
    """Return a file's name, and that of its next content on the way."""
    return path.name, f"{path.name}.new"


async def loaded(state: Path, look: Callable[[Servent], object]) -> object:
    """Start a servent on what a power cut has left, and look at it."""
    config = load_config({}, state_directory=str(state))
    config.shared_directory.mkdir()
    servent = open_servent(
        config, network=MemoryNetwork().host(host(9)), run_in_thread=run_directly
    )
    async with servent as servent:
        return look(servent)


def config_at(state: Path) -> Config:
    return load_config({}, state_directory=str(state))


def test_an_identity_that_was_given_out_is_never_another(tmp_path: Path):
    """Others know a servent by it: it is on the disk before anybody hears of it."""
    state = tmp_path / "state"
    state.mkdir()
    with power_may_fail(state) as cuts:
        identity = load_identity(config_at(state))

    def identity_on(disk: Path) -> str | None:
        config = config_at(disk)
        return load_identity(config).id if config.identity_path.exists() else None

    check_cuts(cuts, tmp_path / "disks", identity_on, None, identity.id)


async def test_pins_survive(autojump_clock: MockClock, tmp_path: Path):
    async with open_pair() as world:
        for name in "ab":
            await world.share(0, name, name.encode())
        a, b = [await world[1].browser.find(name) for name in "ab"]
        assert isinstance(a, RemoteFile)
        assert isinstance(b, RemoteFile)
        await world[1].pins.add(a)
        path = world[1].config.pins_path
        with power_may_fail(path.parent, names_of(path)) as added:
            await world[1].pins.add(b)
        with power_may_fail(path.parent, names_of(path)) as removed:
            await world[1].pins.remove("a")

    def pins_on(disk: Path) -> list[str]:
        return [entry.path for entry in load_pins(str(disk / path.name))]

    check_cuts(added, tmp_path / "added", pins_on, ["a"], ["a", "b"])
    check_cuts(removed, tmp_path / "removed", pins_on, ["a", "b"], ["b"])


async def test_contacts_survive(autojump_clock: MockClock, tmp_path: Path):
    async with open_pair() as world:
        path = world[1].config.peers_path
        with power_may_fail(path.parent, names_of(path)) as cuts:
            world.stop(1)
            await world.until(path.exists, within_s=10)
        known = {world[0].whereabouts.identity.id}

    def contacts_on(disk: Path) -> set[object]:
        return {contact.id for contact in ContactBook.load(str(disk / path.name)).unlinked([])}

    check_cuts(cuts, tmp_path / "disks", contacts_on, set(), known)


async def test_kept_searches_survive(autojump_clock: MockClock, tmp_path: Path):
    async with open_world() as world:
        servent = await world.start()
        path = servent.config.searches_path
        servent.results.keep("blue whale")
        with power_may_fail(path.parent, names_of(path)) as cuts:
            servent.results.keep("Haie ö")

    for number, cut in enumerate(cuts):
        for disk in cut.disks(tmp_path / str(number)):
            kept = await loaded(disk, lambda servent: servent.results.kept())
            assert kept == ["Haie ö", "blue whale"] or (kept == ["blue whale"] and not cut.is_done)


async def test_a_pause_and_its_end_survive(autojump_clock: MockClock, tmp_path: Path):
    async with open_world() as world:
        servent = await world.start()
        path = servent.config.paused_path
        with power_may_fail(path.parent, names_of(path)) as paused:
            await servent.pause()
        with power_may_fail(path.parent, names_of(path)) as resumed:
            await servent.resume()

    for name, cuts, is_paused in (("paused", paused, True), ("resumed", resumed, False)):
        for number, cut in enumerate(cuts):
            for disk in cut.disks(tmp_path / name / str(number)):
                found = await loaded(disk, lambda servent: servent.library.is_paused)
                assert found == is_paused or not cut.is_done


async def test_what_is_paused_offers_nothing_from_the_next_start_on(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "x", b"x")
        await world[0].pause()
        world.stop(0)
        await trio.sleep(2)

        async with open_servent(
            world[0].config,
            network=world.net.host(host(0)),
            wall_clock=trio.current_time,
            run_in_thread=run_directly,
        ) as again:
            await again.library.wait_idle()
            await world.until(lambda: bool(again.report.peers()), within_s=60)
            assert await world.names(1) == []
            assert not again.report.status()["sharing"]

            await again.resume()
            await trio.sleep(1)
            assert await world.names(1) == ["x"]


async def test_sharing_that_cannot_be_paused_for_good_is_paused_now(autojump_clock: MockClock):
    async with open_world() as world:
        servent = await world.start()
        servent.config.paused_path.with_suffix(".new").mkdir()

        with pytest.raises(IsADirectoryError):
            await servent.pause()

        assert servent.library.is_paused
