"""Shares for some peers alone: what everybody else can learn of them, and what those see.

Servent 0 shares `club` with servent 1 alone, and `open` with all. Servent 2 is anybody: it knows
every name, word and id that is in `club`, and asks in every way that there is.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from p2pfs.config import SharedDirectory
from p2pfs.errors import NotFoundError, RejectedError, UsageError
from p2pfs.link.live import Link
from p2pfs.link.requests import Asked
from p2pfs.namespace.ages import REFRESH_AFTER_S
from p2pfs.namespace.nodes import Knowledge, RemoteFile
from p2pfs.overlay.announcing import OwnFilter
from p2pfs.protocol import (
    GetBlocks,
    GetContents,
    GetManifest,
    List,
    Listing,
    Match,
    QueryKind,
    pack_contents,
)
from p2pfs.protocol.flood import Keys
from p2pfs.protocol.manifest import FileId, Manifest
from p2pfs.roots import Roots
from p2pfs.upload import PublicShare
from tests.helpers.world import World, open_world, read_whole

SECRET = random.Random(1).randbytes(900_000)
BOTH = b"a content that is in the club and in the open"
PATHS = ("club/plans/secret plan.txt", "club/both.txt")


def id_of(content: bytes) -> FileId:
    return Manifest.of(len(content), lambda start, count: content[start : start + count]).file_id


@contextlib.asynccontextmanager
async def club(tmp_path: Path, *members: int, servents: int = 3) -> AsyncIterator[World]:
    """Run servents that all know the first, which shares `club` with some of them."""
    place = tmp_path / "somewhere"
    (place / "plans").mkdir(parents=True)
    (place / "plans" / "secret plan.txt").write_bytes(SECRET)
    (place / "both.txt").write_bytes(BOTH)
    async with open_world() as world:
        for number in range(servents):
            await world.start(joins=[0] if number else [])
        await world.share(0, "open/both.txt", BOTH)
        await world.share(0, "open/film.mkv", b"film")
        await world.linked(*[1] * servents)
        to = tuple(world[number].whereabouts.identity.id for number in members)
        await world[0].library.share(SharedDirectory("club", str(place), to=to))
        await world[0].library.wait_idle()
        await trio.sleep(2)
        yield world


async def link_to_holder(world: World, number: int) -> Link:
    """Return a transfer link of a servent to the holder."""
    neighbour = world[number].overlay.links[world[0].whereabouts.identity.id]
    asked = Asked(GetManifest(id_of(BOTH)), 10**6)
    return await world[number].peering.links._link_to(neighbour.peer, asked)


async def refusal(ask) -> tuple[int, str]:
    with pytest.raises(RejectedError) as caught:
        await ask
    return caught.value.code, str(caught.value)


async def hits(world: World, number: int, kind: QueryKind, text: str) -> list[str]:
    outcome = await world[number].message_router.searches.run(kind, text, rings=(4,), timeout_s=5)
    return [entry.path for hit in outcome.hits for entry in hit.entries]


QUESTIONS = [
    (QueryKind.WORDS, "secret"),
    (QueryKind.WORDS, "plans"),
    (QueryKind.WORDS, "club"),
    (QueryKind.PATH, "club"),
    (QueryKind.PATH, "club/plans/secret plan.txt"),
    (QueryKind.DIRECTORY, "club"),
    (QueryKind.DIRECTORY, "club/plans"),
    (QueryKind.ID, id_of(SECRET).hex()),
]


@pytest.mark.parametrize("number", [1, 2], ids=["named", "anybody"])
async def test_no_flooded_question_brings_anything_of_it(
    autojump_clock: MockClock, tmp_path, number
):
    """Neither to anybody nor, through others who could read it, to those who are named."""
    async with club(tmp_path, 1) as world:
        assert world[0].library.find_path(PATHS[0]) is not None
        for kind, text in QUESTIONS:
            assert await hits(world, number, kind, text) == [], (kind, text)
            await trio.sleep(3)  # searches have a budget
        assert await hits(world, number, QueryKind.DIRECTORY, "") == ["open"]
        assert await hits(world, number, QueryKind.WORDS, "both") == ["open/both.txt"]
        assert await hits(world, number, QueryKind.ID, id_of(BOTH).hex()) == ["open/both.txt"]
        assert await world.names(number) == ["open"]


async def test_a_peer_that_guesses_gets_what_it_would_get_of_nothing(
    autojump_clock: MockClock, tmp_path
):
    async with club(tmp_path, 1) as world:
        link = await link_to_holder(world, 2)
        secret, nothing = id_of(SECRET), FileId(bytes(31) + b"\1")

        assert await refusal(
            link.ask.fetch(GetManifest(secret), size_limit=10**6)
        ) == await refusal(link.ask.fetch(GetManifest(nothing), size_limit=10**6))
        assert await refusal(
            link.ask.fetch(GetBlocks(secret, (0,)), size_limit=10**6)
        ) == await refusal(link.ask.fetch(GetBlocks(nothing, (0,)), size_limit=10**6))
        guessed = await link.ask.fetch(GetContents((secret, nothing)), size_limit=10**6)
        assert bytes(guessed) == pack_contents([None, None])
        for path in ("club", "club/plans", PATHS[0]):
            assert await refusal(listed(link, path)) == await refusal(listed(link, "nothing"))
        pages = await listed(link, "")
        assert [entry.path for page in pages for entry in page.entries] == ["open"]
        assert [page.limited for page in pages] == [()]
        for after in PATHS:
            told = [
                await refusal(matched(link, Match("both", None, after=path, limit=10)))
                for path in (after, "nothing")
            ]
            assert told[0] == (told[1][0], told[1][1].replace("nothing", after))
        found = await matched(link, Match("both", None, after="", limit=10))
        assert ([entry.path for entry in found.entries], found.has_more) == (
            ["open/both.txt"], False,
        )  # fmt: skip
        assert (await matched(link, Match("plan secret", None, after="", limit=10))).entries == ()
        data = await link.ask.fetch(GetBlocks(id_of(BOTH), (0,)), size_limit=10**6)
        assert bytes(data) == BOTH


async def listed(link: Link, path: str) -> list[Listing]:
    pages: list[Listing] = []
    await link.ask.list_pages(List(path, "", 8), silence_s=5, take=pages.append)
    return pages


async def matched(link: Link, wanted: Match) -> Listing:
    answer = await link.ask.request(wanted, timeout_s=5)
    assert isinstance(answer, Listing)
    return answer


async def test_those_who_are_named_find_it_at_its_holder_and_read_it(
    autojump_clock: MockClock, tmp_path
):
    async with club(tmp_path, 1) as world:
        shares = world[1].shares
        names = [node.path for node in await shares.list("servent-0")]
        assert names == ["servent-0/club", "servent-0/open"]
        names = [node.path for node in await shares.list("servent-0/club/plans")]
        assert names == ["servent-0/club/plans/secret plan.txt"]
        node = await shares.find("servent-0/club/plans/secret plan.txt")
        assert isinstance(node, RemoteFile)
        assert await read_whole(world[1], node) == SECRET
        known = shares.known("servent-0/club/plans/secret plan.txt")
        assert isinstance(known, RemoteFile)
        assert await world.names(1) == ["open"], "it is in no tree that asks others"
        assert world[1].browser.known("club") in (Knowledge.ABSENT, Knowledge.UNKNOWN)
        other = [node.path for node in await world[2].shares.list("servent-0")]
        assert other == ["servent-0/open"]
        assert await world[2].shares.list("servent-0/club") == []


async def test_who_is_named_passes_nothing_on(autojump_clock: MockClock, tmp_path):
    """Not by its searches for further sources, nor from its cache, now or after a restart."""
    async with club(tmp_path, 1) as world:
        secret = id_of(SECRET)
        asked: list[str] = []
        for servent in (world[0], world[2]):
            answer = servent.offer.answer

            async def watched(query, spent, answer=answer):
                asked.append(query.text)
                return await answer(query, spent)

            servent.offer.answer = watched
        node = await world[1].shares.find("servent-0/club/plans/secret plan.txt")
        assert await world[1].find_content(id_of(b"not there")) is None
        assert id_of(b"not there").hex() in asked
        assert await world[1].find_content(secret) is None
        assert await read_whole(world[1], node) == SECRET
        await trio.sleep(120)
        assert await world[1].find_content(secret) is not None  # it is in the cache
        assert secret.hex() not in asked
        assert not any("club" in text or "secret" in text for text in asked)

        assert await hits(world, 2, QueryKind.ID, secret.hex()) == []
        with pytest.raises(NotFoundError):
            await world[1].offer.manifest(secret)
        assert world[1].config.confided_path.read_text() == f"{secret.hex()}\n"
        config = world[1].config
        world.stop(1)
        await trio.sleep(5)
        again = await world.start(joins=[0], state_directory=config.state_directory)
        assert again.cache.is_whole(secret)
        with pytest.raises(NotFoundError):
            await again.offer.manifest(secret)


async def test_neither_filters_nor_news_tell_of_it(autojump_clock: MockClock, tmp_path):
    async with club(tmp_path, 1) as world:
        told: list[tuple[str, ...]] = []
        tell_news = world[0].message_router.tell_news
        world[0].message_router.tell_news = lambda ttl, version, directories, is_all: (
            told.append((*directories, *(["all"] if is_all else []))),
            tell_news(ttl, version, directories, is_all),
        )
        place = tmp_path / "somewhere" / "plans" / "another.txt"
        place.write_bytes(b"another secret")
        world[0].library.touched("club/plans/another.txt")
        await world[0].library.wait_idle()
        await trio.sleep(90)
        place.unlink()
        world[0].library.touched("club/plans/another.txt")
        await trio.sleep(90)

        assert told == []
        await world.share(0, "open/new.txt", b"new")
        await trio.sleep(30)
        assert told == [("open",)]


async def test_the_filter_is_that_of_a_servent_without_it(autojump_clock: MockClock, tmp_path):
    async with club(tmp_path, 1) as world:
        keys = Keys(world[0].whereabouts.network_key.network_id)
        with_club = OwnFilter(PublicShare(world[0].library, world[0].offer), keys)
        await with_club.renew()
        await world[0].library.unshare("club")
        await world[0].library.wait_idle()
        without = OwnFilter(world[0].library, keys)
        await without.renew()

        assert with_club.bits == without.bits != 0


async def test_it_stays_hidden_while_it_is_withdrawn(autojump_clock: MockClock, tmp_path):
    async with club(tmp_path, 1) as world:
        world[0].roots.remove("club")  # the library has not looked yet
        assert world[0].library.find_path(PATHS[0]) is not None
        assert world[0].offer.seen_by("z" * 32).list_page("club", "", 10) is None
        for kind, text in QUESTIONS[:3]:
            assert await hits(world, 2, kind, text) == []


async def test_its_name_is_for_everybody_once_nothing_of_it_is_known(
    autojump_clock: MockClock, tmp_path
):
    async with club(tmp_path, 1) as world:
        await world[0].library.unshare("club")
        await world[0].library.wait_idle()
        await trio.sleep(1)
        await world.share(0, "club/song", b"a song for all")
        await trio.sleep(2)

        page = world[0].offer.seen_by("z" * 32).list_page("club", "", 10)
        assert page is not None
        assert [entry.path for entry in page.entries] == ["club/song"]
        assert await hits(world, 2, QueryKind.WORDS, "song") == ["club/song"]
        assert await hits(world, 2, QueryKind.WORDS, "secret") == []
        with pytest.raises(NotFoundError):
            await world[0].library.read_blocks(id_of(SECRET), (0,))


async def test_a_limit_of_a_name_that_is_shared_anew_stays(autojump_clock: MockClock, tmp_path):
    async with club(tmp_path, 1) as world:
        root = await world[0].library.unshare("club")
        await world[0].library.share(root.shared)
        await world[0].library.wait_idle()
        await trio.sleep(2)

        assert world[0].offer.seen_by("z" * 32).list_page("club", "", 10) is None
        assert await hits(world, 2, QueryKind.WORDS, "secret") == []


def test_a_group_stands_for_its_members_and_an_unknown_one_is_refused(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "club").mkdir()
    ann, ben = "a" * 32, "b" * 32
    roots = Roots(tmp_path / "own", file=tmp_path / "shares.json", groups={"family": [ann]})
    with pytest.raises(UsageError, match="friends is neither a servent id nor a group"):
        roots.add(SharedDirectory("club", str(tmp_path / "club"), to=("friends",)))
    roots.add(SharedDirectory("club", str(tmp_path / "club"), to=("family", ben)))

    for groups, who in (({"family": [ann]}, {ann, ben}), ({}, {ben})):
        kept = Roots(tmp_path / "own", file=tmp_path / "shares.json", groups=groups)
        for peer in (ann, ben, "c" * 32, None):
            assert kept.audiences.may_see("club/x", peer) is (peer in who), (groups, peer)
        assert kept.audiences.may_see("other/x", None)


@pytest.mark.parametrize(("outer", "inner"), [((), ("a" * 32,)), (("b" * 32,), ("a" * 32,))])
def test_it_cannot_lie_in_what_others_see_nor_the_other_way_round(tmp_path, outer, inner):
    (tmp_path / "own").mkdir()
    (tmp_path / "docs" / "club").mkdir(parents=True)
    shares = [
        SharedDirectory("docs", str(tmp_path / "docs"), to=outer),
        SharedDirectory("club", str(tmp_path / "docs" / "club"), to=inner),
    ]
    for first, second in (shares, reversed(shares)):
        roots = Roots(tmp_path / "own")
        roots.add(first)
        with pytest.raises(UsageError, match=r"for some alone, is in .*docs, which others see"):
            roots.add(second)


async def test_who_was_named_does_not_see_it_for_long_once_it_is_shared_no_more(
    autojump_clock: MockClock, tmp_path
):
    async with club(tmp_path, 1) as world:
        shares = world[1].shares
        holder = "servent-0"

        async def seen() -> list[str]:
            known = shares.known_children(holder)
            nodes = await shares.list(holder) if isinstance(known, Knowledge) else known
            return [node.path.removeprefix(f"{holder}/") for node in nodes]

        assert await seen() == ["club", "open"]
        await shares.list(f"{holder}/club")
        await world[0].library.unshare("club")
        await world[0].library.wait_idle()
        await trio.sleep(REFRESH_AFTER_S + 1)
        await seen()  # asks again behind
        await trio.sleep(1)
        assert await seen() == ["open"]
