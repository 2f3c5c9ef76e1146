"""What changes anywhere within the horizon is in open listings within two seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from p2pfs.namespace.ages import REFRESH_AFTER_S
from p2pfs.namespace.belief import REFRESH_EACH_S
from p2pfs.namespace.nodes import Knowledge
from p2pfs.protocol import ServentId
from p2pfs.protocol.messages import Query
from tests.helpers.world import World, chain, open_world

WITHIN_S = 2.0


async def listing(world: World) -> None:
    """Four servents in a chain: the first looks, the last has a directory."""
    await chain(world, 4)
    await world.share(3, "films/old.mkv", b"o" * 1000)
    await trio.sleep(10)
    assert await world.names(0) == ["films"]
    assert await world.names(0, "films") == ["films/old.mkv"]
    world[0].namespace.browser._survey.horizon = 1_000  # a large network is flooded seldom
    await trio.sleep(5)


def shown(world: World, path: str) -> list[str]:
    """Return what a look shows that asks nobody."""
    return [node.path for node in world[0].namespace.browser._catalogue.shown.children(path)]


def id_of(world: World, number: int) -> ServentId:
    return world[number].whereabouts.identity.id


def floods(world: World) -> int:
    return world[1].message_router.queries_seen


async def come(world: World) -> None:
    await world.share(3, "films/new.mkv", b"n" * 1000)


async def go(world: World) -> None:
    await world.unshare(3, "films/old.mkv")


async def begin(world: World) -> None:
    await world.share(3, "songs/first.ogg", b"f" * 1000)


@pytest.mark.parametrize(
    ("change", "path", "then"),
    [
        (come, "films", ["films/new.mkv", "films/old.mkv"]),
        (go, "films", []),
        (begin, "", ["films", "songs"]),
    ],
)
async def test_a_change_three_links_away_is_listed_without_a_flood(
    change: Callable[[World], Awaitable[None]],
    path: str,
    then: list[str],
    autojump_clock: MockClock,
):
    async with open_world(latency_s=0.01) as world:
        await listing(world)
        world[0].namespace.browser.known_children(path)
        before = floods(world)
        await change(world)
        await world.until(lambda: shown(world, path) == then, within_s=WITHIN_S)
        assert floods(world) == before


async def test_a_look_after_the_news_asks_whoever_told_them(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await listing(world)
        await trio.sleep(40)  # nobody looks any more
        before = floods(world)
        await come(world)
        await trio.sleep(1)
        assert shown(world, "films") == ["films/old.mkv"]
        assert await world.names(0, "films") == ["films/new.mkv", "films/old.mkv"]
        assert floods(world) == before


async def test_a_listing_is_flooded_for_as_seldom_as_its_horizon_is_large(
    autojump_clock: MockClock,
):
    async with open_world(latency_s=0.01) as world:
        await listing(world)
        asked: list[Query] = []
        flood = world[0].message_router.searches._flood
        world[0].message_router.searches._flood = lambda query, urgency: (
            asked.append(query) or flood(query, urgency)
        )
        for horizon, every_s in ((4, REFRESH_AFTER_S), (100, 100 * REFRESH_EACH_S)):
            world[0].namespace.browser._survey.horizon = horizon
            await trio.sleep(60)
            world[0].namespace.browser.known_children("")
            await trio.sleep(1)
            asked.clear()
            for _look in range(100):
                world[0].namespace.browser.known_children("")
                world[0].namespace.browser._survey.horizon = horizon
                await trio.sleep(1)
            assert 100 / every_s / 2 <= len(asked) <= 100 / every_s + 2


async def test_who_comes_is_listed_without_a_flood(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await listing(world)
        world[0].namespace.browser.known_children("")
        world.stop(3)
        await trio.sleep(10)
        world[0].namespace.browser.known_children("")
        before = floods(world)
        await world.come_back(3)
        await world.until(lambda: shown(world, "") == ["films"], within_s=1.0 + WITHIN_S)
        assert floods(world) == before


async def test_who_leaves_is_shown_no_more_without_a_flood(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await listing(world)
        before = floods(world)
        world.stop(3)
        await world.until(lambda: not shown(world, ""), within_s=1.0 + WITHIN_S)
        assert floods(world) == before


async def test_who_shares_nothing_comes_and_goes_unheard(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await chain(world, 3)
        told: list[object] = []
        world[0].message_router.on_news = lambda *news: told.append(news[1:3])
        await trio.sleep(5)
        world.stop(2)
        await trio.sleep(1)
        await world.come_back(2)
        await trio.sleep(5)
        assert {*told} <= {((), True)}  # anything may have changed while it was away


async def test_who_set_its_clock_right_is_heard_again(autojump_clock: MockClock):
    """It had been a day ahead: others waited a day for what it said next."""
    async with open_world(latency_s=0.01) as world:
        world.ahead_s[3] = 86_400
        await listing(world)
        world.stop(3)
        await world.until(lambda: not world[2].overlay.links.get(id_of(world, 3)), within_s=10)
        world.ahead_s[3] = 0
        await world.come_back(3)
        await trio.sleep(20)
        assert await world.names(0, "films") == ["films/old.mkv"]
        browser = world[0].namespace.browser
        browser._survey.horizon = 1_000
        browser.known_children("films")
        before = floods(world)

        await come(world)

        both = ["films/new.mkv", "films/old.mkv"]
        await world.until(lambda: shown(world, "films") == both, within_s=WITHIN_S)
        assert floods(world) == before


async def test_a_burst_of_changes_is_told_of_a_few_times(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await listing(world)
        told = []
        world[0].message_router.on_news = lambda *news: told.append(news)
        for number in range(100):
            await world.share(3, f"films/{number}.mkv", b"%d" % number)
            await trio.sleep(0.5)
        assert 5 <= len(told) <= 16
        await trio.sleep(15)
        assert told[-1][1] == ("films",)


async def test_a_neighbour_that_changes_all_the_time_and_answers_late_holds_up_a_few_looks(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0])
        await world.start(joins=[0, 1])
        await world.linked(2, 2, 2)
        await world.share(0, "a", b"a")
        await world.share(2, "b", b"b")
        await trio.sleep(3)
        await world.names(1)
        answer = world[2].uploads._answer

        async def answer_late(*request: object) -> object:
            await trio.sleep(1.4)
            return await answer(*request)

        async def change() -> None:
            while True:
                world[2].message_router.tell_changed()
                await trio.sleep(0.01)

        world[2].uploads._answer = answer_late
        waited_s = 0.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(change)
            await trio.sleep(1)
            for _ in range(100):
                began_at = trio.current_time()
                if isinstance(world[1].browser.known_children(""), Knowledge):
                    assert await world.names(1) == ["a", "b"]
                waited_s += trio.current_time() - began_at
                await trio.sleep(0.2)
            nursery.cancel_scope.cancel()

        assert waited_s < 6


async def test_who_answers_at_once_is_believed_though_it_is_being_asked_again(
    autojump_clock: MockClock,
):
    """A listing that was renewed in that moment had it muted: the next change took 3 s."""
    async with open_world(latency_s=0.1) as world:
        await chain(world, 2)
        await world.share(1, "films/old.mkv", b"o" * 1000)
        await trio.sleep(10)
        assert await world.names(0) == ["films"]  # so those who have it are asked themselves
        assert await world.names(0, "films") == ["films/old.mkv"]
        browser = world[0].namespace.browser
        for number in range(3):
            name = f"films/new{number}.mkv"
            await world.share(1, name, b"n" * (number + 1))
            await world.until(lambda: bool(browser._belief.news("films")), within_s=1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(browser._lister.what_is_new, "films")
                await trio.sleep(0.05)
                nursery.start_soon(browser._lister.all, "films")

            assert name in shown(world, "films")
            assert not browser._belief.board._muted
