"""The seven use cases among real servents, in memory and on virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import Endpoint
from p2pfs.download.reader import FAILURE_STANDS_S
from p2pfs.errors import HandshakeError, StalledError, UnreachableError
from p2pfs.link import RefusedError
from p2pfs.namespace.nodes import Knowledge, RemoteFile
from p2pfs.overlay.bans import FLOOD_BAN_S
from p2pfs.protocol.messages import Address, ByeCode, LinkKind
from tests.helpers.dialling import dial_link
from tests.helpers.servents import HalfServent
from tests.helpers.world import PORT, chain, host, open_pair, open_world, read_whole

CONTENT = bytes(range(256)) * 5_000


async def test_join_makes_neighbours_of_both(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0])

        await world.linked(1, 1)

        assert world[0].report.peers()[0]["id"] == world[1].whereabouts.identity.id
        assert world[1].report.peers()[0]["direction"] == "out"


async def test_a_servent_does_not_become_its_own_neighbour(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()

        with pytest.raises(HandshakeError, match="this servent itself"):
            await world[0].join(Endpoint(host(0), PORT))

        assert world[0].report.peers() == []


async def test_an_address_that_nobody_listens_on_is_tried_again(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        world.net.host(host(1))
        with pytest.raises(UnreachableError):
            await world[0].join(Endpoint(host(1), PORT))

        await world.start()

        await world.linked(1, 1)


async def test_walks_find_neighbours_beyond_the_one_that_was_named(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        for _ in range(7):
            await world.start(joins=[0])

        await world.linked(*[5] * 8, within_s=120)


async def test_a_listing_shows_what_others_share_and_not_our_own(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "films/blue whale.mkv", CONTENT)
        await world.share(1, "own.txt", b"mine")

        assert await world.names(1) == ["films"]
        assert await world.names(1, "films") == ["films/blue whale.mkv"]
        assert await world.names(0) == ["own.txt"]


async def test_a_path_that_was_never_listed_is_searched_for(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "a/b/c.txt", CONTENT)

        assert world[1].browser.known("a/b/c.txt") is Knowledge.UNKNOWN
        assert await world.read(1, "a/b/c.txt") == CONTENT


async def test_an_absent_name_costs_one_search_and_is_remembered(autojump_clock: MockClock):
    async with open_pair() as world:
        assert await world[1].browser.find("nothing") is None

        assert world[1].browser.known("nothing") is Knowledge.ABSENT
        await trio.sleep(11)
        assert world[1].browser.known("nothing") is Knowledge.UNKNOWN


async def test_without_neighbours_unknown_names_are_absent_at_once(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()

        assert world[0].browser.known("anything") is Knowledge.ABSENT
        assert world[0].browser.known_children("") == []


async def test_publishing_and_unpublishing_show_at_a_neighbour_within_a_second(
    autojump_clock: MockClock,
):
    async with open_pair() as world:
        assert await world.names(1) == []

        await world.share(0, "new.txt", b"new")
        await trio.sleep(0.5)
        assert await world.names(1) == ["new.txt"]
        assert isinstance(await world[1].browser.find("new.txt"), RemoteFile)

        await world.unshare(0, "new.txt")
        await trio.sleep(0.5)
        assert world[1].browser.known("new.txt") is Knowledge.UNKNOWN
        assert await world[1].browser.find("new.txt") is None
        assert await world.names(1) == []


async def test_search_lists_every_peer_that_has_it(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0])
        await world.start(joins=[0])
        await world.share(0, "music/Blue Train.flac", CONTENT)
        await world.share(1, "music/Blue Train.flac", CONTENT)
        await world.linked(2, 2, 2)

        (row,) = (await world[2].report.search("train BLUE"))["files"]

        assert row["path"] == "music/Blue Train.flac"
        assert row["size"] == len(CONTENT)
        assert {peer["name"] for peer in row["peers"]} == {"servent-0", "servent-1"}
        assert await world[2].report.search("blue whale") == {"files": [], "partial": None}


async def test_terms_are_heeded_before_anything_is_cut_and_all_matches_come(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start()
        await world.share(0, "zz holiday.mkv", bytes(2_000_000))
        for number in range(60):
            path = world[0].config.shared_directory / f"holiday small {number:02}.txt"
            path.write_bytes(b"%d" % number)
        world[0].library.touched("")
        await world[0].library.wait_idle()
        await world.start(joins=[0])
        await world.linked(1, 1)

        async def found(text: str) -> list[object]:
            record = await world[1].report.search(text)
            assert record["partial"] is None
            files = record["files"]
            assert isinstance(files, list)
            return [row["path"] for row in files]

        assert len(await found("holiday")) == 61
        for text in ("holiday size:>1M", "holiday -small", "size:>1M", "zz holiday", "ext:mkv"):
            assert await found(text) == ["zz holiday.mkv"]
            folder = await world[1].results.list(text)
            assert [node.path for node in folder] == [f"{text}/zz holiday.mkv"]
        assert len(await world[1].results.list("holiday")) == 61


async def test_a_chain_finds_with_ttl_3_and_copies_directly(autojump_clock: MockClock):
    async with open_world() as world:
        await chain(world, 4)
        await world.share(0, "far.txt", CONTENT)

        assert await world.read(3, "far.txt") == CONTENT
        assert {link["name"] for link in world[3].report.peers()} == {"servent-2"}


async def test_a_chain_is_longer_than_ttl_2(autojump_clock: MockClock):
    async with open_world() as world:
        await chain(world, 4, ttl=2)
        await world.share(0, "far.txt", CONTENT)

        assert await world[3].browser.find("far.txt") is None
        assert await world.names(3) == []


async def test_who_leaves_is_forgotten_within_a_second(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "x", CONTENT)
        assert await world.names(1) == ["x"]

        world.stop(0)

        await world.until(lambda: not world[1].report.peers(), within_s=1)
        assert world[1].browser.known_children("") == []


async def test_who_vanishes_silently_is_dropped_within_the_dead_peer_time(
    autojump_clock: MockClock,
):
    async with open_pair() as world:
        world.stall(0)

        await trio.sleep(60)
        assert world[1].report.peers()
        await world.until(lambda: not world[1].report.peers(), within_s=60)


async def test_what_was_known_is_still_listed_when_the_network_is_dead(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "d/x", CONTENT)
        await world.names(1)
        await world.names(1, "d")

        world.kill(0)
        await world.until(lambda: not world[1].report.peers(), within_s=100)

        assert [node.path for node in world[1].browser.known_children("d")] == ["d/x"]
        assert isinstance(world[1].browser.known("d/x"), RemoteFile)


async def test_leave_and_join_again(autojump_clock: MockClock):
    async with open_pair() as world:
        await world[1].leave()
        assert world[1].report.peers() == []
        await trio.sleep(60)
        assert world[1].report.peers() == []

        await world[1].join(Endpoint(host(0), PORT))
        await world.linked(1, 1)


async def test_who_has_left_is_alone(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "x", CONTENT)
        assert await world.names(1) == ["x"]
        stranger = HalfServent(world.net, "10.8.0.1")

        await world[1].leave()

        assert await world.names(1) == []
        with pytest.raises(RefusedError) as caught:
            await dial_link(stranger.host, Address(host(1), PORT), stranger, LinkKind.TRANSFER)
        assert caught.value.bye.code is ByeCode.LEAVING


async def test_a_restarted_servent_is_a_neighbour_again_at_once(autojump_clock: MockClock):
    async with open_pair() as world:
        world.stop(0)
        await world.until(lambda: not world[1].report.peers(), within_s=1)
        config = world.config(0)
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            again = await nursery.start(world._run, 0, config, scope)
            await world.until(lambda: bool(world[1].report.peers()), within_s=30)
            assert again.whereabouts.identity.id == world[0].whereabouts.identity.id
            scope.cancel()


async def test_paused_sharing_shows_nothing_until_resumed(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "x", CONTENT)
        assert await world.names(1) == ["x"]

        await world[0].pause()
        await trio.sleep(0.5)
        assert await world.names(1) == []

        await world[0].resume()
        await trio.sleep(0.5)
        assert await world.names(1) == ["x"]


async def test_two_readers_of_one_file_get_the_same_bytes(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "x", CONTENT)
        node = await world[1].browser.find("x")
        assert isinstance(node, RemoteFile)
        got: list[bytes] = []

        async def read() -> None:
            got.append(await read_whole(world[1], node))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)

        assert got == [CONTENT, CONTENT]


async def test_the_second_source_finishes_what_the_first_began(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0])
        await world.start(joins=[0])
        for number in (0, 1):
            await world.share(number, "x", CONTENT * 4)
        await world.linked(2, 2, 2)
        node = await world[2].browser.find("x")
        assert isinstance(node, RemoteFile)
        reader = world[2].swarms.open(node)
        assert await reader.read(0, 1000) == CONTENT[:1000]

        world.kill(0)

        assert await reader.read(2_000_000, 500_000) == (CONTENT * 4)[2_000_000:2_500_000]
        reader.close()


async def test_a_failed_read_stands_for_those_that_the_kernel_makes_of_it(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0], stall_timeout_s=10.0)
        await world.share(0, "x", CONTENT)
        await world.linked(1, 1)
        node = await world[1].browser.find("x")
        assert isinstance(node, RemoteFile)
        reader = world[1].swarms.open(node)
        world.stall(0)
        began = trio.current_time()

        for offset in (0, 128 * 1024, 0):
            with pytest.raises(StalledError):
                await reader.read(offset, 4096)

        assert trio.current_time() - began == pytest.approx(10, abs=1)
        assert [event.path for event in world[1].journal.events() if event.path] == ["x"]
        await trio.sleep(FAILURE_STANDS_S)
        with pytest.raises(StalledError):
            await reader.read(0, 4096)
        assert trio.current_time() - began == pytest.approx(20, abs=2)
        reader.close()


async def test_floods_over_budget_end_in_a_ban(autojump_clock: MockClock):
    async with open_pair() as world:
        world[0].overlay.ban(world[1].whereabouts.identity.id, "floods")

        await world.until(lambda: not world[0].report.peers(), within_s=2)
        await trio.sleep(FLOOD_BAN_S / 2)
        assert world[0].report.peers() == []


@pytest.mark.parametrize("size", [10_000, len(CONTENT)], ids=["one block", "a manifest first"])
async def test_the_first_byte_of_a_source_without_a_link_takes_two_round_trips(
    size: int, autojump_clock: MockClock
):
    async with open_world() as world:
        await chain(world, 3)
        await world.share(0, "film.mkv", CONTENT[:size])
        film = await world[2].browser.find("film.mkv")
        assert isinstance(film, RemoteFile)
        world.net.buffer_bytes = 1024 * 1024  # as much as a line far away holds
        way_s = 0.1
        world.net.set_latency(host(0), host(2), way_s)
        reader = world[2].swarms.open(film)
        began_at = trio.current_time()
        try:
            assert reader.locate_nowait(0, 1) is None
            await reader.locate(0, 1)
        finally:
            reader.close()

        round_trips = (trio.current_time() - began_at) / (2 * way_s)
        assert round_trips == pytest.approx(2, abs=0.2)
