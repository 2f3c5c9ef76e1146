"""Files beyond the horizon: told to directories, and opened by their links."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pfs.filelinks import FileLink, parse_file_link
from p2pfs.protocol import Address, FileId, NetworkKey, Subject, directory_key
from p2pfs.reach.beyond import ALONE_S, MAX_MET, MAX_TOLD_CONTENTS, REVIEW_S
from p2pfs.servent import Servent
from tests.helpers.contents import Content
from tests.helpers.directories import FakeDirectory, Shelf
from tests.helpers.servents import HalfServent, answering, silent
from tests.helpers.world import PORT, World, chain, host, open_pair, open_world, read_whole

FILM = Content.of(300_000)
OPEN = NetworkKey.open()


class Street:
    """A chain of servents with a horizon of two, each with a directory."""

    def __init__(self, world: World, stack: ExitStack) -> None:
        self.world = world
        self.shelf = Shelf()
        self.directories: list[FakeDirectory] = []
        for number in range(len(world.servents)):
            self.use(number, stack)

    def use(self, number: int, stack: ExitStack) -> None:
        directory = self.shelf.directory_at(Address(host(number), PORT))
        stack.enter_context(self.world[number].beyond.using(directory, is_public=False))
        self.directories.append(directory)

    def link(self, number: int, path: str = "film.mkv") -> FileLink:
        """Make a link to a file of a servent that has moved from where the link says."""
        servent = self.world[number]
        file_id = servent.library.file_state(path).file_id
        assert file_id is not None
        servent.file_links.pass_on(file_id)
        made = parse_file_link(servent.file_links.to_own(file_id, path, 1))
        places = tuple(type(place)("10.200.0.9", PORT) for place in made.holders[0].places)
        holder = type(made.holders[0])(made.holders[0].id, places)
        return FileLink(made.digits, made.name, made.size, made.network, (holder,))


@asynccontextmanager
async def open_street(length: int = 8) -> AsyncIterator[Street]:
    async with open_world() as world:
        await chain(world, length, ttl=2)
        await world.share(0, "film.mkv", FILM.data)
        with ExitStack() as stack:
            yield Street(world, stack)


def file_key(content: Content) -> bytes:
    return directory_key(OPEN, Subject.FILE, content.file_id)


def servent_key(world: World, number: int) -> bytes:
    return directory_key(OPEN, Subject.SERVENT, world[number].whereabouts.identity.id.encode())


async def test_a_file_beyond_the_horizon_opens_by_its_link(autojump_clock: MockClock):
    async with open_street() as street:
        link = street.link(0)
        await trio.sleep(2 * REVIEW_S)

        file = await street.world[7].open_link(link)

        assert file is not None
        assert file.path == "film.mkv"
        assert await read_whole(street.world[7], file) == FILM.data


async def test_it_opens_by_the_id_of_its_holder_if_nobody_tells_of_the_file(
    autojump_clock: MockClock,
):
    async with open_street() as street:
        link = street.link(0)
        await trio.sleep(2 * REVIEW_S)
        del street.shelf.told[file_key(FILM)]

        file = await street.world[7].open_link(link)

        assert file is not None


async def test_without_a_directory_only_the_hint_in_the_link_is_left(autojump_clock: MockClock):
    async with open_world() as world:
        await chain(world, 6, ttl=2)
        await world.share(0, "film.mkv", FILM.data)
        with ExitStack() as stack:
            link = Street(world, stack).link(0)

        assert await world[5].open_link(link) is None


async def test_what_the_flood_finds_is_looked_for_in_no_directory(autojump_clock: MockClock):
    async with open_street(3) as street:
        link = street.link(0)
        await trio.sleep(2 * REVIEW_S)

        assert await street.world[2].open_link(link) is not None

        assert street.shelf.asked == []


async def test_a_servent_that_nobody_has_dialled_tells_nothing_of_itself(
    autojump_clock: MockClock,
):
    async with open_street(3) as street:
        await trio.sleep(2 * REVIEW_S)

        first, _, last = street.directories
        assert first.announced == {
            directory_key(OPEN, Subject.NETWORK),
            servent_key(street.world, 0),
        }
        assert last.announced == set()


async def test_who_was_dialled_once_goes_on_telling_until_the_network_of_the_machine_changes(
    autojump_clock: MockClock,
):
    async with open_street(3) as street:
        await trio.sleep(2 * REVIEW_S)
        middle = street.directories[1]
        street.world.kill(2)  # who has dialled it
        await street.world.until(lambda: len(street.world[1].overlay.neighbours) == 1, within_s=300)
        await trio.sleep(2 * REVIEW_S)
        assert middle.announced

        street.world[1].changes._tell()
        await trio.sleep(2 * REVIEW_S)

        assert middle.announced == set()


async def test_what_is_told_is_withdrawn_when_the_user_leaves(autojump_clock: MockClock):
    async with open_street(3) as street:
        street.link(0)
        await trio.sleep(2 * REVIEW_S)
        assert len(street.directories[0].announced) == 3

        await street.world[0].leave()
        await trio.sleep(2 * REVIEW_S)

        assert street.directories[0].announced == set()
        assert await street.world[0].beyond.meet(FILM.file_id, ()) == ()


async def test_nothing_is_told_of_files_while_sharing_is_paused(autojump_clock: MockClock):
    async with open_street(3) as street:
        street.link(0)
        await street.world[0].pause()
        await trio.sleep(2 * REVIEW_S)

        assert file_key(FILM) not in street.directories[0].announced
        assert servent_key(street.world, 0) in street.directories[0].announced


async def test_so_many_files_are_told_of_and_no_more_the_latest_links_first(
    autojump_clock: MockClock,
):
    async with open_street(2) as street:
        count = MAX_TOLD_CONTENTS + 10
        contents = [Content.of(100 + number) for number in range(count)]
        for number, content in enumerate(contents):
            await street.world.share(0, f"{number}.txt", content.data)
            street.link(0, f"{number}.txt")
        await trio.sleep(2 * REVIEW_S)

        told = street.directories[0].announced
        assert {file_key(content) in told for content in contents[:10]} == {False}
        assert {file_key(content) in told for content in contents[10:]} == {True}


async def test_a_content_that_was_shown_to_us_alone_is_neither_told_of_nor_looked_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    async with open_street() as street:
        link = street.link(0)
        await trio.sleep(2 * REVIEW_S)
        beyond = street.world[7].beyond
        monkeypatch.setattr(beyond, "_is_secret", lambda _file_id: True)

        assert await beyond.meet(FileId(bytes.fromhex(link.digits)), ()) == ()

        assert street.shelf.asked == []


def noted_dials(servent: Servent) -> list[Address]:
    """Return the list of addresses that a servent will dial beyond its horizon from now on."""
    dialled: list[Address] = []
    network = servent.beyond._network
    dial = network.dial

    async def noting(where: Address):
        dialled.append(where)
        return await dial(where)

    network.dial = noting
    return dialled


BAD = {
    "a port below 1024": Address("93.184.216.7", 80),
    "this machine": Address("127.0.0.7", PORT),
    "a private network that is not ours": Address("192.168.7.7", PORT),
    "everybody": Address("224.0.0.7", PORT),
    "nobody": Address("0.0.0.0", PORT),
}


@pytest.mark.parametrize("address", BAD.values(), ids=BAD)
async def test_what_a_directory_tells_is_dialled_as_what_a_stranger_tells(
    autojump_clock: MockClock, nursery: trio.Nursery, address: Address
):
    async with open_street(2) as street:
        trap = HalfServent(street.world.net, address.host)
        knocks = noted_dials(street.world[1])
        await nursery.start(trap.listen, answering(silent))
        street.shelf.told[file_key(FILM)] = [address]

        assert await street.world[1].beyond.meet(FILM.file_id, ()) == ()

        assert knocks == []


async def test_a_directory_that_lies_has_some_dialled_and_not_many(autojump_clock: MockClock):
    async with open_street(2) as street:
        dialled = noted_dials(street.world[1])
        lies = [Address(f"93.184.{number}.1", PORT) for number in range(200)]
        for number in range(25):
            street.shelf.told[file_key(FILM)] = lies[8 * number : 8 * number + 8]
            await street.world[1].beyond.meet(FILM.file_id, ())

        assert MAX_MET <= len(dialled) <= 60


async def test_who_is_alone_enters_by_the_name_of_the_network(autojump_clock: MockClock):
    async with open_pair() as world:
        with ExitStack() as stack:
            street = Street(world, stack)
            await trio.sleep(2 * REVIEW_S)
            await world.start()
            street.use(2, stack)

            await world.linked(1, 1, 1, within_s=3 * ALONE_S)


@asynccontextmanager
async def two_islands() -> AsyncIterator[Street]:
    """Give 0, which 1 has joined from behind a router with a film; 2 and 3 know neither."""
    async with open_world() as world:
        await world.start()
        world.net.host(host(1)).is_behind_router = True
        await world.start(joins=[0], max_neighbours=1)
        await world.linked(1, 1)
        await world.start()
        await world.start(joins=[2])
        await world.linked(1, 1, 1, 1)
        await world.share(1, "film.mkv", FILM.data)
        with ExitStack() as stack:
            street = Street(world, stack)
            yield street


async def test_a_file_behind_a_router_is_found_through_its_neighbour(autojump_clock: MockClock):
    async with two_islands() as street:
        link = street.link(1)
        await trio.sleep(3 * REVIEW_S)
        assert street.directories[1].announced == set()
        assert street.shelf.told[servent_key(street.world, 1)] == [Address(host(0), PORT)]

        file = await street.world[3].open_link(link)

        assert file is not None
        assert await read_whole(street.world[3], file) == FILM.data


async def test_what_is_told_for_a_neighbour_ends_with_it(autojump_clock: MockClock):
    async with two_islands() as street:
        street.link(1)
        await trio.sleep(3 * REVIEW_S)
        assert file_key(FILM) in street.directories[0].announced

        street.world.stop(1)
        await trio.sleep(3 * REVIEW_S)

        assert file_key(FILM) not in street.directories[0].announced


async def test_what_a_neighbour_behind_a_router_tells_no_more_is_withdrawn(
    autojump_clock: MockClock,
):
    async with two_islands() as street:
        street.link(1)
        await trio.sleep(3 * REVIEW_S)

        await street.world[1].pause()
        await trio.sleep(3 * REVIEW_S)

        assert file_key(FILM) not in street.directories[0].announced
        assert servent_key(street.world, 1) in street.directories[0].announced


async def test_neighbours_are_nodes_at_the_port_where_they_listen(autojump_clock: MockClock):
    async with open_street(3) as street:
        assert set(street.directories[1].nodes) == {Address(host(n), PORT) for n in (0, 2)}
