"""One servent that is stopped, and whose links still stand, holds up no search of others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pfs.namespace import Knowledge, RemoteFile
from p2pfs.protocol.flood.budgets import Urgency
from tests.helpers.contents import Content
from tests.helpers.world import World, open_world

WHALE = Content.of(1_000_000)

LATER_S = 0.5
"""What a stopped neighbour may cost."""


@asynccontextmanager
async def chain(*, is_stopped: bool) -> AsyncIterator[World]:
    """Give 0 - 1 - 2, where 2 has a whale, and 3 that hangs on 0 alone, as a closed laptop."""
    async with open_world(latency_s=0.01) as world:
        await world.start(max_neighbours=2)
        await world.start(joins=[0], max_neighbours=2)
        await world.linked(1, 1)
        await world.start(joins=[1], max_neighbours=1)
        await world.linked(1, 2, 1)
        await world.start(joins=[0], max_neighbours=1)
        await world.linked(2, 2, 1, 1)
        await world.share(2, "films/whale.mkv", WHALE.data)
        await trio.sleep(70)
        if is_stopped:
            world.stall(3)
        yield world


async def took_s(*, is_stopped: bool) -> float:
    """Return how long it takes to find a path two links away."""
    async with chain(is_stopped=is_stopped) as world:
        began_at = trio.current_time()
        assert isinstance(await world[0].browser.find("films/whale.mkv"), RemoteFile)
        return trio.current_time() - began_at


async def test_a_path_behind_others_is_found_half_a_second_later_at_most(
    autojump_clock: MockClock,
):
    assert await took_s(is_stopped=True) <= await took_s(is_stopped=False) + LATER_S


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_words_find_what_is_behind_others(autojump_clock: MockClock, is_stopped: bool):
    async with chain(is_stopped=is_stopped) as world:
        (row,) = (await world[0].report.search("whale"))["files"]
        assert row["path"] == "films/whale.mkv"


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_source_behind_others_is_found(autojump_clock: MockClock, is_stopped: bool):
    async with chain(is_stopped=is_stopped) as world:
        found = await world[0].swarms.upstream.find_sources(
            WHALE.file_id, WHALE.size, Urgency.PERSON
        )
        assert [source.id for source in found] == [world[2].whereabouts.identity.id]


async def test_a_listing_shows_what_is_behind_others_and_says_that_somebody_is_silent(
    autojump_clock: MockClock,
):
    async with chain(is_stopped=True) as world:
        assert await world.names(0) == ["films"]
        assert world[0].browser.partial("") == "not everybody has answered in time"
        assert await world.names(0, "films") == ["films/whale.mkv"]


@pytest.mark.parametrize(
    ("is_stopped", "known"), [(False, Knowledge.ABSENT), (True, Knowledge.UNKNOWN)]
)
async def test_an_absent_name_is_remembered_only_if_all_have_answered(
    autojump_clock: MockClock, is_stopped: bool, known: Knowledge
):
    async with chain(is_stopped=is_stopped) as world:
        assert await world[0].browser.find("nowhere/x") is None
        assert world[0].browser.known("nowhere/x") is known
