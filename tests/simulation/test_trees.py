"""The tree over real servents, on virtual time: what looking around costs, and what stays true
while things change."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from p2pfs.library.index import Index, Record
from p2pfs.library.share import Share
from p2pfs.namespace.nodes import RemoteDirectory, RemoteFile
from p2pfs.protocol.flood import Urgency
from p2pfs.protocol.manifest import GIB, KIB, MIB, Manifest, block_count_for, block_span, digest
from p2pfs.protocol.messages import Query
from p2pfs.roots import Roots
from p2pfs.servent import Servent
from tests.helpers.contents import Content
from tests.helpers.programs import Programs, programs_on
from tests.helpers.world import World, host, open_world

BLOCK = 256 * 1024


def content(seed: object, size: int = 1000) -> bytes:
    return random.Random(str(seed)).randbytes(size)


class Watched:
    """A servent that looks at others' files, and account of what that costs."""

    def __init__(self, world: World, servent: Servent, programs: Programs) -> None:
        self.world = world
        self.servent = servent
        self.programs = programs
        self._guids: set[bytes] = set()
        searches = servent.message_router.searches
        flood = searches._flood

        def counted(query: Query, urgency: Urgency) -> bool:
            self._guids.add(query.guid)
            return flood(query, urgency)

        searches._flood = counted

    def spent(self) -> int:
        """Return how many queries were begun since the last call."""
        count = len(self._guids)
        self._guids.clear()
        return count

    def has_fetched(self) -> bool:
        return self.servent.cache.used_bytes > 0 or self.servent.report.transfers() != []


@asynccontextmanager
async def watching(*shares: dict[str, bytes], **changes: object) -> AsyncIterator[Watched]:
    """Run servents with these shares, and one more that looks."""
    async with open_world() as world:
        for number, share in enumerate(shares):
            await world.start(joins=[0] if number else [])
            for path, data in share.items():
                await world.share(number, path, data)
        looker = await world.start(joins=range(len(shares)), **changes)
        await world.until(lambda: len(looker.report.peers()) == len(shares), within_s=30)
        with programs_on(looker) as programs:
            yield Watched(world, looker, programs)


def a_tree(owner: str) -> dict[str, bytes]:
    """Return 60 files in 24 directories, some of them as anybody's and some of the owner's own."""
    same = {f"films/{n}/{kind}.bin": content(kind) for n in range(10) for kind in ("a", "b", "c")}
    own = {f"{owner}/{n}/deep/{kind}": content(owner) for n in range(4) for kind in range(7)}
    return same | own | {"README": content(owner), "photo.jpg": content("photo")}


# What looking around costs.


@pytest.mark.parametrize("subtree", ["network", "peers"])
async def test_find_costs_few_queries_and_no_content(subtree, autojump_clock: MockClock):
    async with watching(a_tree("anna"), a_tree("ben")) as watched:
        found = await watched.programs.find_files(f"/{subtree}")

        assert len(found) == (30 + 2 * 28 + 3 if subtree == "network" else 2 * 60)
        assert watched.spent() <= 2
        assert await watched.programs.find_files(f"/{subtree}") == found
        assert watched.spent() <= 2
        assert not watched.has_fetched()


async def test_du_costs_few_queries_and_no_content(autojump_clock: MockClock):
    async with watching(a_tree("anna"), a_tree("ben")) as watched:
        assert await watched.programs.du("/network") == (30 + 2 * 28 + 3) * 1024

        assert watched.spent() <= 2
        assert not watched.has_fetched()


async def test_the_tabulator_key_costs_few_queries_and_no_content(autojump_clock: MockClock):
    async with watching(a_tree("anna")) as watched:
        for typed in ("f", "films/", "films/1", "films/1/", "films/1/a", "nothing", "nothing/x"):
            for subtree in ("network", "peers", "peers/anna", "search"):
                with trio.fail_after(10):
                    try:
                        await watched.programs.complete(f"/{subtree}/{typed}")
                    except FileNotFoundError:
                        assert typed.startswith(("nothing", "f"))

        assert watched.spent() <= 8
        assert not watched.has_fetched()


async def test_a_file_manager_costs_few_queries_and_no_content(autojump_clock: MockClock):
    async with watching(a_tree("anna"), a_tree("ben")) as watched:
        for folder in ("network", "network/films", "network/films/1", "peers", "search"):
            await watched.programs.browse(f"/{folder}")
            await trio.sleep(1)

        assert watched.spent() <= 4
        assert not watched.has_fetched()


async def test_a_file_manager_left_open_stays_within_a_few_queries_a_minute(
    autojump_clock: MockClock,
):
    async with watching(a_tree("anna")) as watched:
        await watched.programs.browse("/network")
        watched.spent()
        for _ in range(600):
            await watched.programs.ls("/network")
            await watched.programs.ls("/peers")
            await trio.sleep(1)

        assert watched.spent() <= 10 * 21
        assert not watched.has_fetched()


async def test_the_first_listing_after_joining_waits_two_seconds_at_most(
    autojump_clock: MockClock,
):
    async with watching(a_tree("anna"), a_tree("ben")) as watched:
        watched.world.stall(1)  # who says nothing
        began_at = trio.current_time()

        assert "README" in await watched.programs.ls("/network")

        assert trio.current_time() - began_at <= 2


async def test_with_the_network_dead_everything_known_is_answered_from_memory(
    autojump_clock: MockClock,
):
    async with watching(a_tree("anna"), a_tree("ben")) as watched:
        programs = watched.programs
        before = [await programs.find_files(f"/{top}") for top in ("network", "peers")]
        results = await programs.ls("/search/photo")
        for number in (0, 1):
            watched.world.kill(number)
        await watched.world.until(lambda: not watched.servent.report.peers(), within_s=100)
        await trio.sleep(600)
        programs.waited = 0
        began_at = trio.current_time()

        assert [await programs.find_files(f"/{top}") for top in ("network", "peers")] == before
        assert await programs.ls("/search/photo") == results == ["photo.jpg"]
        assert await programs.stat("/search/photo/photo.jpg")
        assert not await programs.exists("/network/unknown")
        assert not await programs.exists("/peers/unknown")
        assert (programs.waited, trio.current_time()) == (0, began_at)


async def test_who_has_left_sees_nothing_of_others(autojump_clock: MockClock):
    async with watching({"photo.jpg": content("photo")}) as watched:
        programs = watched.programs
        places = ("/network", "/peers", "/search/photo")
        assert [len(await programs.ls(place)) for place in places] == [1, 1, 1]

        await watched.servent.leave()

        assert [await programs.ls(place) for place in places] == [[], [], []]
        assert not await programs.exists("/peers/servent-0")


# The union.


def both(watched: Watched) -> tuple[str, str]:
    """The names of the one file and the one directory in the root."""
    nodes = watched.servent.namespace.catalogue.shown.children("")
    (file,) = (node.path for node in nodes if isinstance(node, RemoteFile))
    (directory,) = (node.path for node in nodes if isinstance(node, RemoteDirectory))
    return file, directory


async def test_a_file_and_a_directory_of_one_name_are_both_there(autojump_clock: MockClock):
    async with watching({"x.y": b"a file"}, {"x.y/below": b"below"}) as watched:
        names = await watched.programs.ls("/network")

        file, directory = both(watched)
        assert sorted([file, directory]) == names
        assert names[0] == "x.y"
        assert await watched.programs.cat(f"/network/{file}") == b"a file"
        assert await watched.programs.ls(f"/network/{directory}") == ["below"]
        assert await watched.programs.cat(f"/network/{directory}/below") == b"below"


async def test_what_is_below_a_directory_that_lost_its_name_is_found_at_first_sight(
    autojump_clock: MockClock,
):
    async with watching({"x.y": b"a file"}, {"x.y/sub/below": b"below"}) as watched:
        await watched.programs.ls("/network")
        file = await watched.servent.browser.find(both(watched)[0])
        assert isinstance(file, RemoteFile)
        await watched.servent.pins.add(replace(file, path="x.y"))

        assert both(watched) == ("x.y", "x.y~dir")
        assert await watched.programs.cat("/network/x.y~dir/sub/below") == b"below"
        assert not await watched.programs.exists("/network/x.y/sub/below")


async def test_order_names_and_numbers_stay_from_one_listing_to_the_next(
    autojump_clock: MockClock,
):
    ours = {f"{kind}.bin": content(kind) for kind in "abc"}
    theirs = {f"{kind}.bin": content(kind + kind) for kind in "abc"}
    async with watching(ours, theirs) as watched:
        listings = []
        for _ in range(5):
            listings.append(await watched.programs.readdir("/network"))
            await trio.sleep(4)

        assert len(listings[0]) == 6
        assert all(listing == listings[0] for listing in listings)


# Those who go.


async def test_a_peer_that_vanishes_without_a_word_is_gone_from_peers_within_the_dead_time(
    autojump_clock: MockClock,
):
    async with open_world() as world:
        await world.start(max_neighbours=2)
        await world.start(joins=[0], max_neighbours=1)
        looker = await world.start(joins=[0], max_neighbours=1)
        await world.linked(2, 1, 1)
        for number in (0, 1):
            await world.share(number, "x", content(number))
        with programs_on(looker) as programs:
            assert await programs.ls("/peers") == ["servent-0", "servent-1"]

            world.stall(1)
            await trio.sleep(95)

            assert not await programs.exists("/peers/servent-1")
            assert await programs.ls("/peers") == ["servent-0"]
            assert await programs.ls("/peers/servent-0") == ["x"]


# An open file is one version to its end, or an error.

FILM = content("film", 4 * BLOCK)
REMAKE = content("remake", 4 * BLOCK)

PLACES = ("/network/film", "/search/film/film", "/peers/servent-0/film")


async def read_on(programs: Programs, file, offset: int) -> bytes | int | None:
    """Read to the end of a file; return an errno if that fails."""
    try:
        return await programs.pread(file, len(FILM) - offset, offset)
    except OSError as error:
        return error.errno


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("others", [0, 1])
async def test_a_file_that_disappears_is_read_to_its_end_or_is_stale(
    path, others, autojump_clock: MockClock
):
    async with watching({"film": FILM}, *[{"other name": FILM}] * others) as watched:
        programs = watched.programs
        file = await programs.open(path)
        assert await programs.pread(file, 1000, 0) == FILM[:1000]

        await watched.world.unshare(0, "film")
        await trio.sleep(30)

        assert file.getattr().size == len(FILM)
        expected = FILM[3 * BLOCK :] if others else errno.ESTALE
        assert await read_on(programs, file, 3 * BLOCK) == expected
        file.release()


@pytest.mark.parametrize("path", PLACES)
@pytest.mark.parametrize("others", [0, 1])
async def test_a_file_that_gets_a_new_version_is_the_old_one_while_it_is_open(
    path, others, autojump_clock: MockClock
):
    async with watching({"film": FILM}, *[{"other name": FILM}] * others) as watched:
        programs = watched.programs
        file = await programs.open(path)
        first = await programs.pread(file, 1000, 0)

        await watched.world.share(0, "film", REMAKE)
        await trio.sleep(30)
        second = await programs.open(path)
        got = [await read_on(programs, one, 2 * BLOCK) for one in (file, second)]

        # Both, since a path that is open shows one version.
        assert first == FILM[:1000]
        assert got == [FILM[2 * BLOCK :] if others else errno.ESTALE] * 2
        file.release()
        second.release()
        await programs.ls(path.rpartition("/")[0])
        await trio.sleep(15)
        await programs.ls(path.rpartition("/")[0])
        await trio.sleep(5)
        assert await programs.cat(path) == REMAKE


@pytest.mark.parametrize("path", PLACES)
async def test_a_file_whose_peer_goes_is_read_from_another_or_fails(
    path, autojump_clock: MockClock
):
    async with watching({"film": FILM}, {"other name": FILM}) as watched:
        programs = watched.programs
        file = await programs.open(path)
        assert await programs.pread(file, 1000, 0) == FILM[:1000]

        watched.world.kill(0)
        assert await read_on(programs, file, BLOCK) == FILM[BLOCK:]
        file.release()


async def test_a_file_whose_only_peer_goes_fails_and_says_why(autojump_clock: MockClock):
    async with watching({"film": FILM}, {"x": b"x"}) as watched:
        programs = watched.programs
        file = await programs.open("/network/film")
        watched.world.stop(0)
        await watched.world.until(lambda: len(watched.servent.report.peers()) == 1, within_s=100)

        assert await read_on(programs, file, 0) == errno.EHOSTUNREACH
        file.release()
        assert not await programs.exists("/network/film")


async def test_an_open_file_stays_while_the_cache_makes_room(autojump_clock: MockClock):
    shares = {"film": FILM} | {f"other{n}": content(n, 4 * BLOCK) for n in range(4)}
    async with watching(shares, cache_limit_bytes=10 * BLOCK) as watched:
        programs = watched.programs
        file = await programs.open("/network/film")
        assert await programs.pread(file, len(FILM), 0) == FILM
        for number in range(4):
            assert await programs.cat(f"/network/other{number}") == shares[f"other{number}"]
        watched.world.kill(0)
        programs.waited = 0

        assert await programs.pread(file, len(FILM), 0) == FILM
        assert watched.servent.cache.used_bytes <= 10 * BLOCK
        assert watched.servent.swarms.cached_percent(Content(shares["other0"]).file_id) == 0
        file.release()


# Players.


async def share_sparse(world: World, number: int, path: str, size: int) -> None:
    """Publish a file of zeros that is too large to be hashed in a test."""
    config = world.config(number)
    file = config.shared_directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as hole:
        hole.truncate(size)
    blocks = Counter(block_span(size, i)[1] for i in range(block_count_for(size)))
    manifest = Manifest(size, b"".join(digest(bytes(n)) * count for n, count in blocks.items()))
    index = Index(os.fspath(config.index_path))
    index.open()
    index.put([Record(path, Share(Roots(file.parent)).look(path).key, manifest)])
    index.close()


async def test_a_player_starts_and_seeks_within_a_second_each_in_a_file_of_10_gib(
    autojump_clock: MockClock,
):
    size = 10 * GIB
    async with open_world(latency_s=0.05) as world:
        await share_sparse(world, 0, "film.mp4", size)
        await world.start()
        world.net.set_upload_rate(host(0), 20e6)
        world.net.buffer_bytes = 4 * MIB  # as TCP has on such a link
        looker = await world.start(joins=[0])
        await world.linked(1, 1)
        await world[0].library.wait_idle()
        with programs_on(looker) as programs:
            assert await programs.ls("/network") == ["film.mp4"]
            file = await programs.open("/network/film.mp4")
            waits = []

            async def read(offset: int, length: int) -> None:
                began_at = trio.current_time()
                assert await programs.pread(file, length, offset) == bytes(length)
                waits.append(trio.current_time() - began_at)

            for offset in (0, size - MIB, size // 2, size // 3, size - MIB, size // 2 + MIB):
                await read(offset, 64 * KIB)
                await trio.sleep(0.1)
            for _ in range(20):  # and play from where it is, at 20 Mbit/s
                await read(size // 4 + len(waits) * 250_000, 250_000)
                await trio.sleep(0.1)
            file.release()

        assert max(waits) < 1.0, waits
        assert looker.cache.used_bytes < size * 0.05
