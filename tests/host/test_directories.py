"""Which directories a servent uses, and what it says where it cannot."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import UsageError
from p2pfs.host import directories
from p2pfs.protocol import Address
from tests.helpers.directories import Shelf
from tests.helpers.world import PORT, host, open_world


async def said_by(monkeypatch: pytest.MonkeyPatch, **changes: object) -> list[str]:
    """Return what a servent says, whose directories are looked for twice."""
    async with open_world() as world:
        servent = await world.start(**changes)
        for _ in range(2):
            with trio.move_on_after(5):
                await directories.use_directories(servent)
        return [event.text for event in servent.journal.events()]


async def test_without_the_extra_it_says_what_is_missing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(directories, "is_installed", lambda: False)

    said = await said_by(monkeypatch)

    assert [one for one in said if "pip install 'p2pfs[dht]'" in one] == said[:1] * 2


async def test_who_wants_none_hears_nothing(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(directories, "is_installed", lambda: False)

    assert await said_by(monkeypatch, dht=False) == []


@pytest.mark.parametrize("mainline", [False, True])
async def test_the_public_one_is_used_only_if_it_is_wanted(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, mainline: bool
):
    opened: list[tuple[Address, bool]] = []

    @asynccontextmanager
    async def fake(where: Address, _port, path: str, _run_in_thread, among):
        assert path.endswith("mainline.dht" if among is None else "servents.dht")
        opened.append((where, among is None))
        directory = Shelf().directory_at(where)
        directory.nodes = 3
        yield directory

    monkeypatch.setattr(directories, "is_installed", lambda: True)
    monkeypatch.setattr(directories, "open_mainline", fake)
    async with open_world() as world:
        servent = await world.start(mainline=mainline)
        with trio.move_on_after(5):
            await directories.use_directories(servent)

    assert sorted(opened, key=lambda one: one[1]) == [
        (Address(host(0), PORT), False),
        *([(Address(host(0), 0), True)] if mainline else []),
    ]


async def test_a_port_that_cannot_be_used_is_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    @asynccontextmanager
    async def fake(*_arguments):
        raise UsageError("UDP port 4774 cannot be used: EADDRINUSE")
        yield

    monkeypatch.setattr(directories, "is_installed", lambda: True)
    monkeypatch.setattr(directories, "open_mainline", fake)

    said = await said_by(monkeypatch)

    assert "UDP port 4774 cannot be used" in said[0]
