"""Real servents tell each other what they share, and nothing that is there becomes hidden."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from p2pfs.link import Link
from p2pfs.namespace import Knowledge, RemoteFile
from p2pfs.protocol.flood.filters import NARROWED_APART_S, OWN, SETTLED_S, Keys
from p2pfs.protocol.messages import Filter, Message, Query, QueryKind
from p2pfs.servent import Servent
from tests.helpers.world import World, chain, open_world

SETTLED = SETTLED_S + NARROWED_APART_S + 5


def queries_seen(servent: Servent) -> int:
    return servent.message_router.queries_seen


def have_no_filters(world: World, number: int) -> None:
    """Let a servent be one that knows nothing of filters."""
    message_router = world[number].message_router
    handlers = dict(message_router.handlers)
    del handlers[Filter]
    world[number].overlay._handlers = {
        kind: handle for kind, handle in world[number].overlay._handlers.items() if kind in handlers
    }
    message_router._router.tell_filters = lambda _now, _layers=(): iter(())
    message_router._router.filters.next_due = lambda _now: math.inf


async def settled(world: World, length: int = 4, **changes: object) -> None:
    """A chain of servents that have told each other of their shares; the last has a film."""
    await chain(world, length, **changes)
    await world.share(length - 1, "films/blue whale.mkv", b"w" * 1000)
    await trio.sleep(SETTLED)


async def test_a_file_three_links_away_is_found_by_path_words_and_directory(
    autojump_clock: MockClock,
):
    async with open_world(latency_s=0.01) as world:
        await settled(world)
        assert isinstance(await world[0].namespace.browser.find("films/blue whale.mkv"), RemoteFile)
        (row,) = (await world[0].report.search("blue wha"))["files"]
        assert row["path"] == "films/blue whale.mkv"
        assert await world.names(0) == ["films"]


async def test_status_and_peers_tell_of_the_filters_of_neighbours(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await settled(world, length=3)
        near, far = world[0].report, world[1].report

        (row,) = near.peers()
        assert row["filter_percent"] == 0.0  # the one in the middle shares nothing
        assert row["filter_age_s"] == near.status()["filter_age_s"] > SETTLED_S
        assert near.status()["filters"] == 1
        fills = {peer["name"]: peer["filter_percent"] for peer in far.peers()}
        assert far.status()["filter_percent"] == max(fills.values()) > 0
        assert far.status()["filters"] == len(fills) == 2


async def test_nobody_is_asked_who_cannot_have_it(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await settled(world, length=3, ttl=2)
        before = [queries_seen(servent) for servent in world.servents]
        assert (await world[0].report.search("green elephant"))["files"] == []
        assert [queries_seen(servent) for servent in world.servents] == before
        assert await world[0].namespace.browser.find("nowhere/green") is None
        assert world[0].namespace.browser.known("nowhere/green") is Knowledge.ABSENT


@pytest.mark.parametrize("holder", [1, 2])
async def test_what_is_published_is_found_at_once(holder: int, autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await settled(world)
        await world.share(holder, "songs/green elephant.ogg", b"e" * 1000)
        await trio.sleep(0.3 if holder == 1 else 1.5)
        found = await world[0].namespace.browser.find("songs/green elephant.ogg")
        assert isinstance(found, RemoteFile)


async def test_what_is_gone_is_not_asked_for_a_minute_later(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await settled(world, length=2, ttl=2)
        await world.unshare(1, "films/blue whale.mkv")
        await trio.sleep(2 * SETTLED)
        before = queries_seen(world[1])
        assert (await world[0].report.search("blue whale"))["files"] == []
        assert queries_seen(world[1]) == before


async def test_a_servent_that_is_paused_is_asked_again_when_it_goes_on(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        await settled(world, length=2, ttl=2)
        await world[1].pause()
        await trio.sleep(SETTLED)
        before = queries_seen(world[1])
        assert (await world[0].report.search("blue whale"))["files"] == []
        assert queries_seen(world[1]) == before
        await world[1].resume()
        await trio.sleep(0.5)
        assert len((await world[0].report.search("blue whale"))["files"]) == 1


@pytest.mark.parametrize("without", [0, 1, 2, 3])
async def test_a_servent_without_filters_finds_and_is_found(
    without: int, autojump_clock: MockClock
):
    async with open_world(latency_s=0.01) as world:
        await chain(world, 4)
        have_no_filters(world, without)
        await world.share(0, "songs/green elephant.ogg", b"e" * 1000)
        await world.share(3, "films/blue whale.mkv", b"w" * 1000)
        await trio.sleep(SETTLED)
        for seeker, words in ((0, "blue whale"), (3, "green elephant")):
            assert len((await world[seeker].report.search(words))["files"]) == 1


async def test_in_a_private_network_filters_are_keyed_with_its_id(autojump_clock: MockClock):
    async with open_world(latency_s=0.01) as world:
        key = world.config(99).state_directory / "key"
        key.write_text("a passphrase that is long enough\n")
        key.chmod(0o600)
        await settled(world, length=3, network_key_file=key)
        assert len((await world[0].report.search("blue whale"))["files"]) == 1
        (link,) = world[0].overlay.neighbours
        own = world[0].message_router._router.filters
        query = Query(bytes(16), 1, 0, QueryKind.DIRECTORY, "films", 1, 1000)
        assert not own.admits(link.id, OWN, own.keys.of_query(query))
        network_id = world[0].whereabouts.network_key.network_id
        assert any(network_id)
        assert own.keys.positions("word", "whale") == Keys(network_id).positions("word", "whale")


async def test_what_is_new_is_told_before_it_is_said_that_something_changed(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []

    def noted(link: Link, message: Message) -> None:
        said.append(type(message).__name__)
        pass_on(link, message)

    pass_on = Link.pass_on
    async with open_world(latency_s=0.01) as world:
        await settled(world, length=2)
        monkeypatch.setattr(Link, "pass_on", noted)
        await world.share(1, "songs/green elephant.ogg", b"e" * 1000)
        await trio.sleep(1)
    assert said.index("Filter") < said.index("Changed")
