"""A bug of ours, wherever it is, costs the one question that meets it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock

from p2pfs.cache import CachedFile
from p2pfs.errors import BugError
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.servent import Servent
from tests.helpers.world import World, host, open_world, read_whole

CONTENT = bytes(range(256)) * 5_000
PLACES = {
    "answering a query": lambda servent: (servent.offer, "answer"),
    "taking a message": lambda servent: (servent.overlay, "_said"),
    "greeting": lambda servent: (servent.whereabouts, "hello"),
    "adopting a neighbour": lambda servent: (servent.message_router, "opened"),
    "losing a neighbour": lambda servent: (servent.message_router, "lost"),
    "serving blocks": lambda servent: (servent.uploads, "_send_blocks"),
    "serving a listing": lambda servent: (servent.offer, "list_page"),
    "dialling": lambda servent: (servent.overlay.degree, "_candidates"),
    "walking": lambda servent: (servent.message_router, "start_walk"),
    "routing": lambda servent: (servent.message_router, "_carry_out"),
    "announcing": lambda servent: (servent.library, "wait_changed"),
    "looking at the share": lambda servent: (servent.library._worker, "hop"),
    "saving contacts": lambda servent: (type(servent.contacts), "to_bytes"),
}


def stumble(*_arguments: object, **_named: object) -> None:
    raise ZeroDivisionError


@asynccontextmanager
async def three() -> AsyncIterator[World]:
    """Run three servents that know each other, the last of which shares a file."""
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0])
        await world.start(joins=[0])
        await world.share(2, "film", CONTENT)
        await world.share(0, "other", CONTENT[:1000])
        await world.linked(2, 2, 2)
        yield world


async def ask_everything(world: World) -> None:
    """Ask of and by everybody whatever can be asked, and do not mind what comes of it."""
    for number in range(3):
        for ask in (
            lambda number=number: world.read(number, "film"),
            lambda number=number: world.read(number, "other"),
            lambda number=number: world.names(number),
            lambda number=number: world[number].report.search("other"),
            lambda number=number: world[number].shares.list("servent-0"),
            lambda number=number: world[number].results.list("film"),
            lambda number=number: world.share(number, f"new {number}", b"new"),
        ):
            with trio.move_on_after(60):
                with suppress(Exception):  # it may be the bug itself
                    await ask()


@pytest.mark.parametrize("find", PLACES.values(), ids=PLACES)
async def test_a_bug_ends_what_meets_it_and_nothing_else(
    find: Callable[[Servent], tuple[object, str]],
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    expect_log: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
):
    expect_log("")
    async with three() as world:
        with monkeypatch.context() as broken:
            broken.setattr(*find(world[0]), stumble)
            await ask_everything(world)
            world.net.cut(host(0))
            await trio.sleep(70)
            await ask_everything(world)
        assert "ZeroDivisionError" in caplog.text

        await world.linked(2, 2, 2, within_s=1_500)
        await world.share(0, "afterwards", CONTENT)
        await trio.sleep(60)  # what was noted as absent, or as unreachable, is forgotten
        assert await world.read(0, "film") == CONTENT
        assert await world.read(1, "afterwards") == CONTENT
        assert "afterwards" in await world.names(2)


async def test_a_bug_in_a_download_is_told_and_the_next_read_works(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
):
    expect_log("a bug of ours|failed")
    async with three() as world:
        node = await world[0].browser.find("film")
        assert isinstance(node, RemoteFile)
        reader = world[0].swarms.open(node)
        with monkeypatch.context() as broken:
            broken.setattr(CachedFile, "put", stumble)
            with pytest.raises(BugError):
                await reader.read(0, 10)
            await trio.sleep(5)

        assert await reader.read(0, 10) == CONTENT[:10]
        assert await read_whole(world[0], node) == CONTENT
        reader.close()
        await world.until(lambda: not world[0].report.transfers(), within_s=5)


async def test_a_pinned_file_that_the_disk_refuses_is_tried_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, expect_log: Callable[[str], None]
):
    expect_log("pinned file not fetched .*Too many")
    refused = []

    def refuse(*_arguments: object) -> None:
        refused.append(1)
        raise OSError(24, "Too many open files")

    async with three() as world:
        node = await world[0].browser.find("film")
        assert isinstance(node, RemoteFile)
        with monkeypatch.context() as broken:
            broken.setattr(world[0].cache, "open_file", refuse)
            await world[0].pins.add(node)
            await world.until(lambda: refused, within_s=5)
        await world.until(lambda: world[0].swarms.cached_percent(node.file_id) == 100, within_s=60)
