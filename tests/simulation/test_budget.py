"""The budget of searches has one owner: who was not asked is not said to have nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from p2pfs.control.finding import BUDGET_WAIT_S
from p2pfs.control.verbs import VERBS
from p2pfs.errors import NotAskedError
from p2pfs.namespace.nodes import Knowledge, RemoteFile
from p2pfs.overlay.flooding import Spent
from p2pfs.protocol import Entry, Query, QueryKind
from p2pfs.protocol.flood.askers import ANSWERING_BURST_S, ANSWERING_SHARE
from p2pfs.protocol.flood.budgets import Budget
from p2pfs.protocol.flood.decisions import DropReason
from p2pfs.servent import Servent
from tests.helpers.contents import Content
from tests.helpers.world import World, open_pair, open_world

FILM = Content.of(2_000_000)


async def two(world: World) -> None:
    await world.start()
    await world.start(joins=[0])
    await world.linked(1, 1)
    await world.share(0, "unicorn.txt", b"x")
    await trio.sleep(2)


async def spend(servent: Servent) -> float:
    """Search until that is not possible any more; return when it is again."""
    while True:
        try:
            await servent.report.search("nothing")
        except NotAskedError as error:
            return error.wait_s


async def ask(servent: Servent, verb: str, **args: object) -> object:
    """Do what the control socket does with a verb."""

    async def report(_progress: object) -> None:
        await trio.lowlevel.checkpoint()

    return await VERBS[verb](servent, args, report)


async def test_a_verb_waits_for_its_turn_and_every_search_in_a_row_is_answered(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await two(world)
        for _ in range(60):
            assert len((await ask(world[1], "search", words="unicorn"))["files"]) == 1
        assert DropReason.OVER_BUDGET not in world[0].message_router.drops
        assert world[0].report.status()["messages_dropped"] == 0


async def test_a_verb_whose_turn_does_not_come_soon_says_when(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world)
        refused, answered = [], []

        async def search() -> None:
            began_at = trio.current_time()
            try:
                answered.append(await ask(world[1], "search", words="unicorn"))
            except NotAskedError as error:
                refused.append(str(error))
            assert trio.current_time() - began_at <= BUDGET_WAIT_S + 1

        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(search)

        assert refused
        assert all(text.startswith("too many searches: try again in ") for text in refused)
        assert all(len(found["files"]) == 1 for found in answered)


async def test_with_the_budget_spent_a_path_is_neither_absent_nor_its_directory_listed(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await two(world)
        wait_s = await spend(world[1])

        with pytest.raises(NotAskedError):
            await world[1].browser.find("unicorn.txt")
        with pytest.raises(NotAskedError):
            await world[1].browser.list("")
        told = [event.text for event in world[1].journal.events() if "too many" in event.text]
        assert len(told) == 1
        with pytest.raises(NotAskedError):
            await world[1].results.list("unicorn")
        assert math.isinf(world[1].browser.age(""))
        assert world[1].browser.known("unicorn.txt") is Knowledge.UNKNOWN
        assert world[1].browser.known_children("") is Knowledge.UNKNOWN

        await trio.sleep(wait_s)
        assert await world[1].browser.find("unicorn.txt") is not None


async def test_what_a_neighbour_refuses_was_not_asked(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world)
        (neighbour,) = world[0].message_router._router._neighbours._budgets.values()
        neighbour.searches = Budget(1 / 60, 1)
        assert len((await world[1].report.search("unicorn"))["files"]) == 1

        with pytest.raises(NotAskedError, match="try again in 2 s"):
            await world[1].report.search("unicorn")
        with pytest.raises(NotAskedError):
            await world[1].browser.find("another.txt")


async def test_a_read_whose_source_is_gone_goes_on_when_others_may_be_asked(
    autojump_clock: MockClock,
):
    """0 and 2 have the content; 1 knows of 0 alone, which unpublishes it."""
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0])
        await world.start(joins=[0, 1])
        await world.linked(2, 2, 2)
        await world.share(0, "film", FILM.data)
        await trio.sleep(2)
        file = await world[1].browser.find("film")
        await world.share(2, "other name", FILM.data)
        await world.unshare(0, "film")
        world[1].namespace.catalogue.forget(world[2].whereabouts.identity.id)
        await spend(world[1])

        reader = world[1].swarms.open(file)
        assert await reader.read(0, 1_000) == FILM.data[:1_000]
        reader.close()


async def test_that_nobody_else_has_a_content_is_not_said_when_nobody_was_asked(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    async with open_pair() as world:
        await world.share(0, "film", FILM.data)
        await trio.sleep(2)
        file = await world[1].browser.find("film")
        await world.unshare(0, "film")
        monkeypatch.setattr("p2pfs.protocol.flood.budgets.SearchBudget.take", lambda *_: 60.0)

        reader = world[1].swarms.open(file)
        with pytest.raises(NotAskedError, match="others may not be asked for now"):
            await reader.read(0, 1_000)
        reader.close()


async def test_what_the_words_of_one_neighbour_cost_is_bounded(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world)
        asked, real = [], world[0].offer.answer

        async def answer(query: Query, spent: Spent) -> tuple[Sequence[Entry], int]:
            asked.append(query.text)
            if query.kind is QueryKind.WORDS:
                spent(2 * ANSWERING_BURST_S)
            return await real(query, lambda _seconds: None)

        world[0].offer.answer = answer
        assert len((await world[1].report.search("unicorn"))["files"]) == 1
        with pytest.raises(NotAskedError):
            await world[1].report.search("unicorn")
        assert isinstance(await world[1].browser.find("unicorn.txt"), RemoteFile)

        await trio.sleep(2 * ANSWERING_BURST_S / ANSWERING_SHARE)
        assert len((await world[1].report.search("unicorn"))["files"]) == 1
        assert asked.count("unicorn") == 2
