"""Directories that are shared where they lie, and what `.p2pfsignore` keeps private."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from p2pfs.config import shared_directory
from p2pfs.library.rounds import LEFT_ALONE_S, LOOK_AT_ROOTS_S
from tests.helpers.libraries import World, filed, forbid_hashing, id_of, listed, read_block

pytestmark = pytest.mark.usefixtures("autojump_clock")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def music(tmp_path: Path) -> Path:
    (tmp_path / "Music" / "jazz").mkdir(parents=True)
    (tmp_path / "Music" / "jazz" / "song").write_bytes(b"song")
    return tmp_path / "Music"


async def share(world: World, directory: Path) -> None:
    await world.library.share(shared_directory(directory))


async def test_what_is_shared_where_it_lies_is_offered_and_served(world, music):
    world.put("own", b"own")
    async with world.running():
        await share(world, music)
        await world.library.wait_idle()

        assert world.offered() == {"own": id_of(b"own"), "Music/jazz/song": id_of(b"song")}
        assert await read_block(world.library, id_of(b"song"), 0) == b"song"
        assert [entry.path for entry in listed(world.library, "")] == ["Music", "own"]
        found, _ = await world.library.match_words("jazz song", 10)
        assert [entry.path for entry in found] == ["Music/jazz/song"]
        assert await world.library.totals("Music") == (1, 4)
    assert os.listdir(world.root) == ["own"]


async def test_what_changes_in_it_is_noticed_as_in_the_share(world, music):
    async with world.running():
        await share(world, music)
        await world.library.wait_idle()
        (music / "new").write_bytes(b"new")
        world.library.touched("Music/new")
        (music / "jazz" / "song").rename(music / "song")
        world.library.names_changed("Music/jazz/song", "Music/song")
        await world.library.wait_idle()

        assert world.offered() == {"Music/new": id_of(b"new"), "Music/song": id_of(b"song")}


async def test_what_is_shared_no_more_is_forgotten(world, music):
    async with world.running():
        await share(world, music)
        await world.library.wait_idle()

        await world.library.unshare("Music")
        assert world.offered() == {}
        await world.settle(LEFT_ALONE_S)

        assert filed(world) == set()
        assert (music / "jazz" / "song").read_bytes() == b"song"


async def test_what_goes_away_is_kept_and_back_without_being_read(
    world, music, tmp_path, monkeypatch
):
    async with world.running():
        await share(world, music)
        await world.library.wait_idle()
        music.rename(tmp_path / "away")
        await world.settle(LOOK_AT_ROOTS_S)
        assert world.offered() == {}
        assert listed(world.library, "") == []
        await world.settle(LEFT_ALONE_S)
        assert filed(world) == {"Music/jazz/song"}

        forbid_hashing(monkeypatch)
        (tmp_path / "away").rename(music)
        await world.settle(LOOK_AT_ROOTS_S)

        assert world.offered() == {"Music/jazz/song": id_of(b"song")}


async def test_it_is_noticed_within_two_seconds_that_it_is_away_and_back(world, music, tmp_path):
    async with world.running():
        await share(world, music)
        await world.library.wait_idle()
        music.rename(tmp_path / "away")
        await world.settle(2)
        assert world.offered() == {}

        (tmp_path / "away").rename(music)
        await world.settle(2)

        assert world.offered() == {"Music/jazz/song": id_of(b"song")}


async def test_what_is_away_at_the_start_is_kept(world, music, tmp_path, monkeypatch):
    async with world.running():
        await share(world, music)
        await world.library.wait_idle()
    music.rename(tmp_path / "away")
    async with world.restarted():
        await world.settle(LEFT_ALONE_S)
        assert world.offered() == {}
    assert filed(world) == {"Music/jazz/song"}

    forbid_hashing(monkeypatch)
    (tmp_path / "away").rename(music)
    async with world.restarted():
        assert world.offered() == {"Music/jazz/song": id_of(b"song")}


async def test_what_was_removed_while_it_was_away_is_forgotten(world, music, tmp_path):
    async with world.running():
        await share(world, music)
        await world.library.wait_idle()
        music.rename(tmp_path / "away")
        world.library._worker.look_at_roots()
        await world.settle(LEFT_ALONE_S)
        (tmp_path / "away" / "jazz" / "song").unlink()
        (tmp_path / "away").rename(music)
        world.library._worker.look_at_roots()
        await world.settle(LEFT_ALONE_S)

        assert world.offered() == {}
        with trio.fail_after(60):  # the index is written some seconds later
            while filed(world):
                await world.settle(LEFT_ALONE_S)


async def test_one_directory_may_lie_in_another_that_is_shared(world, music):
    async with world.running():
        await share(world, music)
        await share(world, music / "jazz")
        await world.library.wait_idle()

        assert set(world.offered()) == {"Music/jazz/song", "jazz/song"}
        await world.library.unshare("Music")
        await world.library.wait_idle()
        assert set(world.offered()) == {"jazz/song"}
        assert await read_block(world.library, id_of(b"song"), 0) == b"song"


async def test_links_in_it_are_not_followed(world, music, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (music / "link").symlink_to(tmp_path / "secret")
    (music / "up").symlink_to(tmp_path)
    async with world.running():
        await share(world, music)
        await world.library.wait_idle()

        assert set(world.offered()) == {"Music/jazz/song"}


async def test_the_state_directory_of_a_servent_in_it_is_not_offered(world, music):
    (music / "state").mkdir()
    for name in ("identity.key", "lock", "log"):
        (music / "state" / name).write_bytes(b"secret")
    async with world.running():
        await share(world, music)
        await world.library.wait_idle()

        assert set(world.offered()) == {"Music/jazz/song"}


# .p2pfsignore

PATTERNS = {
    "*.tmp": {"keep", "d/keep", "d/build/x"},
    "build/": {"a.tmp", "keep", "d/a.tmp", "d/keep"},
    "/keep": {"a.tmp", "d/a.tmp", "d/keep", "d/build/x"},
    "*\n!keep\n!d/": {"keep", "d/keep"},
    "# nothing\n": {"a.tmp", "keep", "d/a.tmp", "d/keep", "d/build/x"},
    "d": {"a.tmp", "keep"},
    "[z-a]x\n\ufeffkeep\n*.tmp": {"keep", "d/keep", "d/build/x"},
    "\ufeff*.tmp": {"keep", "d/keep", "d/build/x"},
    "[[:alpha:]].tmp": {"keep", "d/keep", "d/build/x"},
}


@pytest.mark.parametrize("text", PATTERNS)
async def test_what_a_file_of_patterns_ignores_is_not_offered(world, text):
    for path in ("a.tmp", "keep", "d/a.tmp", "d/keep", "d/build/x"):
        world.put(path, path.encode())
    world.put(".p2pfsignore", text.encode())

    async with world.running():
        assert set(world.offered()) == PATTERNS[text]


async def test_of_two_files_of_patterns_the_deeper_has_the_last_word(world):
    for path in ("a.log", "d/a.log", "d/b.log"):
        world.put(path, path.encode())
    world.put(".p2pfsignore", b"*.log\n")
    world.put("d/.p2pfsignore", b"!a.log\n")

    async with world.running():
        assert set(world.offered()) == {"d/a.log"}
        assert world.library.file_state("a.log").reason == "a .p2pfsignore says so"


async def test_other_patterns_hold_at_once(world):
    world.put("d/secret", b"secret")
    world.put("d/open", b"open")
    async with world.running():
        assert set(world.offered()) == {"d/secret", "d/open"}

        world.write("d/.p2pfsignore", b"secret\n")
        await world.settle(LEFT_ALONE_S)
        assert set(world.offered()) == {"d/open"}
        assert world.library.find_id(id_of(b"secret")) is None
        with trio.fail_after(60):  # it is forgotten when there is nothing else to do
            while world.library.size_of(id_of(b"secret")) is not None:
                await world.settle(LEFT_ALONE_S)

        world.remove("d/.p2pfsignore")
        await world.library.wait_idle()
        assert set(world.offered()) == {"d/secret", "d/open"}


async def test_a_directory_that_is_ignored_no_more_is_not_called_private(world):
    world.put("d/f", b"f")
    world.put(".p2pfsignore", b"d/\n")
    async with world.running():
        assert world.library.file_state("d/f").reason == "a .p2pfsignore says so"

        world.remove(".p2pfsignore")
        await world.library.wait_idle()
        assert set(world.offered()) == {"d/f"}
        assert [world.library.file_state(path).state for path in ("d", "d/f")] == ["published"] * 2


@pytest.mark.parametrize("spoil", ["a directory", "a link", "too long", "no text"])
async def test_where_patterns_cannot_be_read_nothing_is_offered(world, spoil):
    world.put("d/f", b"f")
    world.put("g", b"g")
    place = Path(world.at("d/.p2pfsignore"))
    match spoil:
        case "a directory":
            place.mkdir()
        case "a link":
            place.symlink_to("/dev/null")
        case "too long":
            place.write_bytes(b"#" * 100_000)
        case _:
            place.write_bytes(b"\xff\n")

    async with world.running():
        assert set(world.offered()) == {"g"}
    assert any(path == "d" and "cannot be read" in text for path, text in world.told)
