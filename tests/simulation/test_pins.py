"""Pinned files among real servents: fetched behind, kept, and there with the network gone."""

from __future__ import annotations

import json
import random

import pytest
import trio
from trio.testing import MockClock

from p2pfs.download.pins import CachedPath
from p2pfs.errors import CacheFullError, NotFoundError
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.protocol.manifest import MIB
from tests.helpers.world import World, host, open_world, read_whole

FILM = random.Random(1).randbytes(3 * MIB + 5)


async def pin(world: World, number: int, path: str) -> RemoteFile:
    node = await world[number].browser.find(path)
    assert isinstance(node, RemoteFile)
    await world[number].pins.add(node)
    return node


async def cached(world: World, number: int) -> list[CachedPath]:
    return list(await world[number].pins.cached_files(world[number].swarms.path_of))


async def until_whole(world: World, number: int, within_s: float = 60) -> CachedPath:
    """Return the one cached file when all of it is here."""
    with trio.fail_after(within_s):
        while True:
            (file,) = await cached(world, number)
            if file.percent == 100:
                return file
            await trio.sleep(0.1)


async def two(world: World, **changes: object) -> None:
    """Start a source of a film, and a neighbour of it."""
    await world.start()
    await world.share(0, "films/a.mkv", FILM)
    await world.start(joins=[0], **changes)
    await world.linked(1, 1)


async def restart_alone(world: World, number: int, **changes: object) -> int:
    """End a servent and start it anew on its state, knowing nobody; return its new number."""
    config = world[number].config
    world.stop(number)
    await trio.sleep(5)
    (config.state_directory / "peers.json").unlink(missing_ok=True)
    await world.start(state_directory=config.state_directory, **changes)
    return len(world.servents) - 1


async def test_a_pinned_file_is_fetched_and_read_with_the_network_gone(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world)
        node = await pin(world, 1, "films/a.mkv")
        file = await until_whole(world, 1)
        assert (file.path, file.pinned, file.done_bytes) == ("films/a.mkv", True, len(FILM))
        world.kill(0)

        again = await restart_alone(world, 1)

        assert await world.names(again) == ["films"]
        assert world[again].browser.known_children("films") == [
            world[again].browser.known("films/a.mkv")
        ]
        known = world[again].browser.known("films/a.mkv")
        assert isinstance(known, RemoteFile)
        assert (known.size, known.mtime_ns, known.file_id, known.sources) == (
            node.size, node.mtime_ns, node.file_id, ()
        )  # fmt: skip
        assert await read_whole(world[again], known) == FILM


@pytest.mark.parametrize("content", [b"", b"small", FILM[: 256 * 1024]])
async def test_a_small_pinned_file_is_kept_too(autojump_clock: MockClock, content: bytes):
    async with open_world() as world:
        await two(world)
        await world.share(0, "note", content)
        await pin(world, 1, "note")
        await until_whole(world, 1)

        again = await restart_alone(world, 1)
        assert await world[again].clear_cache() == 0

        known = world[again].browser.known("note")
        assert isinstance(known, RemoteFile)
        assert await read_whole(world[again], known) == content


async def test_a_pinned_file_survives_what_is_read_after_it(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world, cache_limit_bytes=5 * MIB)
        await pin(world, 1, "films/a.mkv")
        await until_whole(world, 1)

        for n in range(3):
            content = random.Random(n + 2).randbytes(MIB)
            await world.share(0, f"{n}", content)
            assert await world.read(1, f"{n}") == content

        files = await cached(world, 1)
        assert world[1].cache.used_bytes <= 5 * MIB
        assert [f.path for f in files if f.pinned and f.percent == 100] == ["films/a.mkv"]
        assert [f.path for f in files if not f.pinned] == ["2"]


async def test_what_is_unpinned_may_go(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world)
        await pin(world, 1, "films/a.mkv")
        await until_whole(world, 1)
        assert await world[1].clear_cache() == 0

        await world[1].pins.remove("films/a.mkv")

        assert await world[1].clear_cache() > len(FILM)
        assert await cached(world, 1) == []
        with pytest.raises(NotFoundError, match="not pinned"):
            await world[1].pins.remove("films/a.mkv")


async def test_unpinning_ends_the_download(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world, download_limit_bytes_s=100_000)
        await pin(world, 1, "films/a.mkv")
        await trio.sleep(2)

        await world[1].pins.remove("films/a.mkv")

        await trio.sleep(1)
        assert world[1].report.transfers() == []


async def test_a_pin_goes_on_when_its_source_comes_back(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world, download_limit_bytes_s=500_000)
        await pin(world, 1, "films/a.mkv")
        await trio.sleep(3)
        world.kill(0)
        await trio.sleep(300)
        (file,) = await cached(world, 1)
        assert 0 < file.percent < 100

        await world.start()  # another one, with the same content elsewhere
        await world.share(2, "copy.mkv", FILM)
        await world[1].join(world.endpoint(2))

        await until_whole(world, 1, within_s=90)


@pytest.mark.parametrize("stuck", [2, 8])
@pytest.mark.parametrize("size", [10_000, MIB])
async def test_pins_of_a_silent_holder_do_not_hold_up_the_others(
    autojump_clock: MockClock, stuck: int, size: int
):
    async with open_world() as world:
        await two(world)
        await world.start(joins=[0, 1])
        await world.linked(2, 2, 2)
        for number in range(stuck):
            await world.share(2, f"{number}", random.Random(number + 2).randbytes(size))
        await trio.sleep(3)
        nodes = [await world[1].browser.find(path) for path in map(str, range(stuck))]
        good = await world[1].browser.find("films/a.mkv")
        world.stall(2)

        for node in (*nodes, good):
            assert isinstance(node, RemoteFile)
            await world[1].pins.add(node)

        await world.until(lambda: world[1].cache.is_whole(good.file_id), within_s=1.5)


@pytest.mark.parametrize("lead_s", [0, 1, 7])
async def test_however_slow_the_line_pins_are_fetched_two_at_a_time(
    autojump_clock: MockClock, lead_s: float
):
    async with open_world() as world:
        await two(world)
        paths = [str(number) for number in range(6)]
        for number, path in enumerate(paths):
            await world.share(0, path, random.Random(number + 2).randbytes(2 * MIB))
        nodes = [await world[1].browser.find(path) for path in paths]
        world.net.set_upload_rate(host(0), 50_000)

        for node in nodes:
            assert isinstance(node, RemoteFile)
            await world[1].pins.add(node)
            if node is nodes[0]:  # what the others ask for comes behind its blocks
                await trio.sleep(lead_s)

        begun = set()
        for _ in range(60):
            await trio.sleep(1)
            begun |= {file.path for file in await cached(world, 1) if file.done_bytes}
        assert len(begun) == 2


async def test_a_pin_goes_on_after_a_restart(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world, download_limit_bytes_s=500_000)
        await pin(world, 1, "films/a.mkv")
        await trio.sleep(3)

        again = await restart_alone(world, 1)
        (file,) = await cached(world, again)
        assert 0 < file.percent < 100
        await world[again].join(world.endpoint(0))

        assert (await until_whole(world, again)).path == "films/a.mkv"
        known = world[again].browser.known("films/a.mkv")
        assert isinstance(known, RemoteFile)
        assert await read_whole(world[again], known) == FILM


async def test_pins_must_fit_into_the_cache_together(autojump_clock: MockClock):
    async with open_world() as world:
        await two(world, cache_limit_bytes=5 * MIB)
        await world.share(0, "b.mkv", random.Random(3).randbytes(2 * MIB))
        await pin(world, 1, "films/a.mkv")

        with pytest.raises(CacheFullError, match=r"b\.mkv"):
            await pin(world, 1, "b.mkv")

        assert [entry.path for entry in world[1].pins.entries()] == ["films/a.mkv"]


async def test_a_new_content_at_a_pinned_path_does_not_replace_the_pinned_one(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await two(world)
        node = await pin(world, 1, "films/a.mkv")
        await until_whole(world, 1)
        await world.share(0, "films/a.mkv", b"another")
        await trio.sleep(1)

        names = await world.names(1, "films")

        assert len(names) == 2
        old = "films/a.mkv"
        kept = await world[1].browser.find(old)
        assert isinstance(kept, RemoteFile)
        assert kept.file_id == node.file_id
        assert await read_whole(world[1], kept) == FILM
        await world[1].pins.remove(old)
        assert world[1].pins.entries() == []


async def test_what_is_pinned_below_a_directory_that_lost_its_name_stays_in_it(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start()
        await world.share(0, "a", b"a file")
        await world.start(joins=[0])
        await world.linked(1, 1)
        await world.names(1)
        await world.start(joins=[0])
        await world.share(2, "a/x", FILM)
        await world.linked(2, 1, 1)
        assert await world.names(1) == ["a", "a~dir"]

        node = await pin(world, 1, "a~dir/x")
        await until_whole(world, 1)

        assert [entry.path for entry in world[1].pins.entries()] == ["a/x"]
        assert await world.read(1, "a~dir/x") == FILM
        assert [node.path for node in await world[1].browser.list("a~dir")] == ["a~dir/x"]
        assert await world[1].pins.remove(node.path) == ["a/x"]


async def test_a_row_that_cannot_be_true_does_not_cost_the_other_pins(
    autojump_clock: MockClock, expect_log
):
    expect_log("pin not read path='empty'")
    expect_log("pin not read path='../up'")
    async with open_world() as world:
        config = world.config(0)
        rows = [
            {"path": path, "size": size, "mtime_ns": -1, "id": "ab" * 32}
            for path, size in (("empty", 0), ("../up", 1), ("x", 1))
        ]
        config.pins_path.write_text(json.dumps(rows))
        await world.start()

        assert [entry.path for entry in world[0].pins.entries()] == ["x"]


@pytest.mark.parametrize("text", ["", "{", "[3]"])
async def test_a_damaged_book_of_pins_is_an_empty_one(
    autojump_clock: MockClock, text: str, expect_log
):
    expect_log("pins not read")
    async with open_world() as world:
        config = world.config(0)
        config.pins_path.write_text(text)
        await world.start()

        assert world[0].pins.entries() == []
        assert await world.names(0) == []
