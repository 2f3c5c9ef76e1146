"""What real servents write down of what they fetch, in memory and on virtual time."""

from __future__ import annotations

import random

from trio.testing import MockClock

from tests.helpers.world import World, open_pair, open_world

LARGE = random.Random(1).randbytes(3_000_000)


async def fetched(world: World, number: int) -> dict[str, dict[str, object]]:
    return {row["path"]: row for row in await world[number].history.rows(100)}


async def test_all_that_came_is_written_down_and_nothing_else(autojump_clock: MockClock):
    async with open_world() as world:
        for number in range(3):
            await world.start(joins=[0] if number else [])
        for number in range(2):
            await world.share(number, "large", LARGE)
        await world.share(0, "small", b"small")
        await world.linked(2, 2, 2)
        assert set(await world.names(2)) == {"large", "small"}
        assert await fetched(world, 2) == {}
        for path in ("large", "small", "large", "small"):
            await world.read(2, path)
        await world.until(lambda: not world[2].report.transfers(), within_s=30)
        rows = await world[2].history.rows(100)

        assert sorted(row["path"] for row in rows) == ["large", "small"]
        told = {row["path"]: row for row in rows}
        assert (told["small"]["bytes"], told["small"]["whole"]) == (5, True)
        assert [peer["name"] for peer in told["small"]["peers"]] == ["servent-0"]
        assert (told["large"]["bytes"], told["large"]["whole"]) == (len(LARGE), True)
        assert {peer["name"] for peer in told["large"]["peers"]} == {"servent-0", "servent-1"}
        assert sum(peer["bytes"] for peer in told["large"]["peers"]) == len(LARGE)
        for number in range(2):
            assert await fetched(world, number) == {}


async def test_a_pin_is_told_when_it_is_whole_and_by_whom_it_was_fetched(
    autojump_clock: MockClock,
):
    async with open_pair() as world:
        await world.share(0, "large", LARGE)
        file = await world[1].browser.find("large")
        await world[1].pins.add(file)
        await world.until(
            lambda: any(event.is_done for event in world[1].journal.events()), within_s=60
        )
        await world.until(lambda: not world[1].report.transfers(), within_s=30)

        (event,) = [event for event in world[1].journal.events() if event.is_done]
        assert (event.path, event.text) == ("large", "pinned: all of it is here")
        assert (await fetched(world, 1))["large"]["program"] == "p2pfs pin"


async def test_what_was_fetched_last_is_kept_when_the_servent_ends(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "large", LARGE)
        await world.read(1, "large")
        path = world[1].config.history_path
        world.stop(1)
        await world.until(path.exists, within_s=30)

        assert path.read_text().count('"path": "large"') == 1
