"""Readers are sources too: what is cached is offered by id, in part or whole, never by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from p2pfs.errors import NotFoundError, RejectedError, TransferError
from p2pfs.namespace.nodes import RemoteFile
from p2pfs.protocol.manifest import FileId, Manifest
from p2pfs.protocol.messages import QueryHit, QueryKind
from p2pfs.upload import Offer
from tests.helpers.contents import Content
from tests.helpers.world import World, open_world

BLOCK = 256 * 1024
FILM = Content.of(8 * BLOCK)
READER = 1


@asynccontextmanager
async def world_with_a_reader(*, length: int, reshare: bool = True) -> AsyncIterator[World]:
    """Give a world where 1 has read `length` bytes of what 0 had, who is gone; 2 knows 1."""
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0], reshare=reshare)
        await world.start(joins=[1])
        await world.share(0, "films/whale.mkv", FILM.data)
        await world.linked(1, 2, 1)
        node = await world[READER].browser.find("films/whale.mkv")
        assert isinstance(node, RemoteFile)
        reader = world[READER].swarms.open(node)
        assert await reader.read(0, length) == FILM.data[:length]
        await trio.sleep(5)  # what was read ahead has come
        reader.close()
        world.stop(0)
        await world.until(lambda: len(world[READER].report.peers()) == 1, within_s=2)
        yield world


async def ask(world: World, kind: QueryKind, text: str) -> tuple[QueryHit, ...]:
    outcome = await world[2].message_router.searches.run(kind, text, rings=(4,), timeout_s=5)
    return outcome.hits


async def test_what_was_read_is_offered_to_those_who_know_its_id(autojump_clock: MockClock):
    async with world_with_a_reader(length=FILM.size) as world:
        (hit,) = await ask(world, QueryKind.ID, FILM.file_id.hex())

        assert hit.provider.id == world[READER].whereabouts.identity.id
        assert hit.entries[0].size == FILM.size


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (QueryKind.WORDS, "whale"),
        (QueryKind.PATH, "films/whale.mkv"),
        (QueryKind.PATH, FILM.file_id.hex()),
        (QueryKind.DIRECTORY, ""),
        (QueryKind.DIRECTORY, "films"),
        (QueryKind.ID, "films/whale.mkv"),
        (QueryKind.ID, FILM.file_id.hex()[:-2]),
        (QueryKind.ID, ""),
    ],
)
async def test_what_was_read_is_never_told_by_name(
    autojump_clock: MockClock, kind: QueryKind, text: str
):
    async with world_with_a_reader(length=FILM.size) as world:
        assert await ask(world, kind, text) == ()


async def test_without_reshare_nothing_that_was_read_is_offered(autojump_clock: MockClock):
    async with world_with_a_reader(length=FILM.size, reshare=False) as world:
        assert await ask(world, QueryKind.ID, FILM.file_id.hex()) == ()
        links = world[2].peering.links
        with pytest.raises(RejectedError, match="not shared"):
            await links.fetch_manifest(world[READER].whereabouts.info(), FILM.file_id)


class Secrets:
    """One path that nobody in particular may see."""

    has_limits = True

    def may_see(self, path: str, peer: str | None) -> bool:
        return path != "secret" or peer == "friend"

    def hidden_from(self, peer: str | None) -> list[str]:
        return [] if peer == "friend" else ["secret"]

    def limited_for(self, peer: str | None) -> list[str]:
        return ["secret"] if peer == "friend" else []


async def test_what_a_peer_may_not_see_goes_the_way_of_what_is_not_there(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
):
    secret = Content.of(100, seed=1)
    async with open_world() as world:
        await world.start()
        await world.share(0, "secret", secret.data)
        library, cache = world[0].library, world[0].cache
        offer = Offer(library, cache, reshare=True, audience=Secrets())
        looked_up = []
        manifest = library.manifest

        async def look_up(file_id: FileId) -> Manifest:
            looked_up.append(file_id)
            return await manifest(file_id)

        monkeypatch.setattr(library, "manifest", look_up)
        texts = set()
        for file_id in (secret.file_id, FILM.file_id):
            for ask_for in (offer.manifest, lambda one: offer.read_blocks(one, (0,))):
                with pytest.raises(NotFoundError) as refused:
                    await ask_for(file_id)
                texts.add(str(refused.value))

        assert len(looked_up) == 2
        assert secret.file_id not in looked_up
        assert len(texts) == 1


async def test_small_contents_are_read_together_for_who_may_see_them(autojump_clock: MockClock):
    secret, note = Content.of(100, seed=1), Content.of(100, seed=2)
    async with open_world() as world:
        await world.start()
        await world.share(0, "secret", secret.data)
        await world.share(0, "note", note.data)
        library, cache = world[0].library, world[0].cache
        offer = Offer(library, cache, reshare=True, audience=Secrets())
        asked = [secret.file_id, note.file_id, FILM.file_id]

        assert await offer.read_small(asked) == [None, note.data, None]
        assert await offer.seen_by("friend").read_small(asked) == [secret.data, note.data, None]


async def test_paused_sharing_offers_nothing_that_was_read(autojump_clock: MockClock):
    async with world_with_a_reader(length=FILM.size) as world:
        await world[READER].pause()

        assert await ask(world, QueryKind.ID, FILM.file_id.hex()) == ()


def film(world: World) -> RemoteFile:
    """What 2 saw of the film while it was there."""
    source = world[0].whereabouts.info()
    return RemoteFile("films/whale.mkv", FILM.size, 0, FILM.file_id, (source,))


async def test_a_content_whose_holder_is_gone_is_read_from_a_reader(autojump_clock: MockClock):
    async with world_with_a_reader(length=FILM.size) as world:
        reader = world[2].swarms.open(film(world))

        assert await reader.read(0, FILM.size) == FILM.data
        reader.close()


async def test_a_part_is_offered_and_what_is_missing_is_not_made_up(autojump_clock: MockClock):
    async with world_with_a_reader(length=100) as world:
        cached = world[READER].swarms.cached_percent(FILM.file_id)
        assert 0 < cached < 100
        reader = world[2].swarms.open(film(world))

        assert await reader.read(0, 100) == FILM.data[:100]
        with pytest.raises(TransferError):
            await reader.read(FILM.size - 100, 100)
        reader.close()
