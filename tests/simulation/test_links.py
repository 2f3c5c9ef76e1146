"""Links to files among real servents, in memory and on virtual time."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace
from trio.testing import MockClock

from p2pfs.control.verbs import VERBS
from p2pfs.errors import NotFoundError, UsageError
from p2pfs.filelinks import parse_file_link
from tests.helpers.world import World, chain, open_pair, open_world, read_whole

CONTENT = random.Random(1).randbytes(300_000)


async def ask(world: World, number: int, verb: str, **args: object) -> dict[str, object]:
    async def unheard(_progress: object) -> None:
        """Nobody looks at the progress."""

    return await VERBS[verb](world[number], args, unheard)


async def opened(world: World, number: int, link: object) -> str:
    """Open a link, read what it leads to, and return where it is."""
    found = await ask(world, number, "open", link=link)
    subtree, _, path = str(found["path"]).partition("/")
    assert subtree == "network"
    node = world[number].browser.known(path)
    assert await read_whole(world[number], node) == CONTENT
    return path


async def test_a_link_leads_to_the_file_of_a_neighbour(autojump_clock: MockClock):
    async with open_world() as world:
        await chain(world, 3)
        await world.share(0, "films/blue whale.mkv", CONTENT)
        made = await ask(world, 0, "link", path="shared/films/blue whale.mkv", typed="it")

        assert made["link"].startswith(f"p2pfs:file/{made['id']}?name=blue%20whale.mkv&size=300000")
        assert made == await ask(world, 0, "link", path="network/films/blue whale.mkv", typed="it")
        with pytest.raises(NotFoundError, match=r"^it: nobody within the horizon has it"):
            await ask(world, 0, "link", path="network/films/none", typed="it")
        assert await opened(world, 2, made["link"]) == "films/blue whale.mkv"
        own = await ask(world, 0, "open", link=made["link"])
        assert own["path"] == "shared/films/blue whale.mkv"
        mtime = (world[0].config.shared_directory / "films/blue whale.mkv").stat().st_mtime_ns
        assert world[2].browser.known("films/blue whale.mkv").mtime_ns == mtime
        ids = [servent.whereabouts.identity.id for servent in world.servents]
        for path in ("network/films/blue whale.mkv", f"id/{made['id']}"):
            again = await ask(world, 1, "link", path=path, typed="it")
            named = {one.id for one in parse_file_link(again["link"]).holders}
            assert named
            assert named <= {ids[0], ids[2]}  # the latter has it in its cache


async def test_a_link_leads_to_its_version_and_to_no_other(autojump_clock: MockClock):
    async with open_world() as world:
        for number in range(3):
            await world.start(joins=[0] if number else [])
        await world.share(0, "a.txt", b"another version, and the first that is known")
        await world.linked(2, 1, 1)
        assert await world.names(2) == ["a.txt"]
        await world.share(1, "a.txt", CONTENT)
        made = await ask(world, 1, "link", path="shared/a.txt", typed="a.txt")

        assert await opened(world, 2, made["link"]) == f"a~{made['id'][:8]}.txt"


async def test_beyond_the_horizon_the_hint_leads_to_it(autojump_clock: MockClock):
    async with open_world() as world:
        await chain(world, 4, ttl=1)
        await world.share(0, "deep/a.mkv", CONTENT)
        made = await ask(world, 0, "link", path="shared/deep/a.mkv", typed="it")
        bare = made["link"].partition("&via=")[0]
        before = [link.peer.id for link in world[3].overlay.neighbours]

        with pytest.raises(NotFoundError, match=r"^a\.mkv: nobody within the horizon has it$"):
            await ask(world, 3, "open", link=bare)
        assert await opened(world, 3, made["link"]) == "a.mkv"
        assert [link.peer.id for link in world[3].overlay.neighbours] == before
        lost = made["link"].replace(made["id"], "00" + made["id"][2:])
        with pytest.raises(NotFoundError, match="nor whom the link names"):
            await ask(world, 3, "open", link=lost)


async def test_what_is_whole_in_the_cache_opens_with_nobody_there(autojump_clock: MockClock):
    async with open_pair() as world:
        await world.share(0, "a.mkv", CONTENT)
        made = await ask(world, 0, "link", path="shared/a.mkv", typed="it")
        await opened(world, 1, made["link"])
        world.stop(0)
        await world.until(lambda: not world[1].overlay.neighbours, within_s=30)

        assert await opened(world, 1, made["link"]) == "a.mkv"


@pytest.mark.parametrize("read_at", ["search/blue/a.mkv", "peers/servent-0/deep/a.mkv"])
async def test_what_was_read_in_another_view_opens_in_the_network(
    autojump_clock: MockClock, read_at: str
):
    async with open_pair() as world:
        await world.share(0, "deep/a.mkv", CONTENT)
        made = await ask(world, 0, "link", path="shared/deep/a.mkv", typed="it")
        node = await world[1].browser.find("deep/a.mkv")
        await read_whole(world[1], replace(node, path=read_at))

        assert await opened(world, 1, made["link"]) == "a.mkv"


async def test_what_is_whole_in_the_cache_keeps_the_time_that_others_tell(
    autojump_clock: MockClock,
):
    async with open_pair() as world:
        await world.share(0, "a.mkv", CONTENT)
        made = await ask(world, 0, "link", path="shared/a.mkv", typed="it")
        path = await opened(world, 1, made["link"])
        before = world[1].browser.known(path)

        assert await opened(world, 1, made["link"]) == path
        assert world[1].browser.known(path).mtime_ns == before.mtime_ns > 0


async def test_a_link_of_another_network_is_refused_and_joins_nothing(
    autojump_clock: MockClock, tmp_path
):
    async with open_world() as world:
        for number in range(3):
            key = tmp_path / f"{number}.key"
            key.write_text(f"a long passphrase of network {number}")
            await world.start(network_key_file=key if number else None)
        links = []
        for number in range(3):
            await world.share(number, "a", CONTENT)
            links.append((await ask(world, number, "link", path="shared/a", typed="a"))["link"])
        for at, link, text in (
            (0, links[1], "for another private network, and this servent is in the open one"),
            (1, links[0], "for the open network, and this servent is in a private one"),
            (1, links[2], "for another private network, and this servent is in a private one"),
        ):
            world[at].library.pause()  # else it is found at home
            with pytest.raises(UsageError, match=text):
                await ask(world, at, "open", link=link)
        assert not any(servent.overlay.neighbours for servent in world.servents)


async def test_there_is_no_link_to_what_is_not_published(autojump_clock: MockClock):
    async with open_world() as world:
        await world.start()
        await world.share(0, "a", CONTENT)
        await world.share(0, ".hidden", CONTENT)

        with pytest.raises(NotFoundError, match=r"\.hidden is not published now: it is private"):
            await ask(world, 0, "link", path="shared/.hidden", typed=".hidden")
