"""What is offered at a start before anything has been looked at, and what of it proves wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from p2pfs.config import SharedDirectory
from p2pfs.errors import NotFoundError
from p2pfs.library.rounds import LEFT_ALONE_S
from p2pfs.library.share import Share
from tests.helpers.libraries import World, filed, forbid_hashing, id_of, read_block

pytestmark = pytest.mark.usefixtures("autojump_clock")

CONTENTS = {"a": b"a", "d/b": b"b", "d/e/c": b"c", "d/e/\u00e9": b"accent", "d/e\u0301/f": b"f"}


@pytest.fixture
async def indexed(world: World) -> World:
    """A world that has been indexed in an earlier life."""
    for path, content in CONTENTS.items():
        world.put(path, content)
    async with world.running():
        pass
    return world


@pytest.fixture
def first_offers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:
    """What was offered in each life when the first directory was about to be listed."""
    seen: list[dict[str, bytes]] = []
    lives: list[object] = []
    look_into = Share.names

    def names(self: Share, path: str) -> list[str]:
        if World.current.library not in lives:
            lives.append(World.current.library)
            seen.append(World.current.offered())
        return look_into(self, path)

    monkeypatch.setattr(Share, "names", names)
    return seen


async def test_all_is_offered_before_any_directory_is_listed(indexed, first_offers, monkeypatch):
    forbid_hashing(monkeypatch)

    async with indexed.restarted():
        expected = {path: id_of(content) for path, content in CONTENTS.items()}
        assert first_offers[-1] == {
            path: one for path, one in expected.items() if "\u0301" not in path
        }
        assert {**indexed.offered()} == {
            path.replace("e\u0301", "\u00e9"): one for path, one in expected.items()
        }


async def test_no_unchanged_file_is_looked_at_by_itself(indexed, monkeypatch):
    looked = []
    look = Share.look
    monkeypatch.setattr(
        Share, "look", lambda self, path: (looked.append(path), look(self, path))[1]
    )

    async with indexed.restarted():
        assert {path for path in looked if path.isascii()} == {"", "d", "d/e"}


async def test_what_has_changed_is_never_served_for_what_it_was(indexed, first_offers):
    old = os.stat(indexed.at("d/b"))
    indexed.put("d/b", b"B")
    os.utime(indexed.at("d/b"), ns=(old.st_mtime_ns, old.st_mtime_ns))

    async with indexed.restarted():
        assert first_offers[-1]["d/b"] == id_of(b"b")
        with pytest.raises(NotFoundError):
            await read_block(indexed.library, id_of(b"b"), 0)
        assert indexed.offered()["d/b"] == id_of(b"B")


async def test_what_has_gone_is_offered_no_more_and_forgotten(indexed):
    os.unlink(indexed.at("a"))
    shutil.rmtree(indexed.at("d/e"))

    async with indexed.restarted():
        assert {path for path in indexed.offered() if path.isascii()} == {"d/b"}
        await indexed.settle(LEFT_ALONE_S)
        assert {path for path in filed(indexed) if path.isascii()} == {"d/b"}


def becomes_a_state_directory(directory: Path) -> None:
    (directory / "identity.key").touch()
    (directory / "lock").touch()


def becomes_a_link(directory: Path) -> None:
    directory.rename(directory.with_name("other"))
    directory.symlink_to("other")


def becomes_ignored(directory: Path) -> None:
    (directory / ".p2pfsignore").write_text("*\n")


def becomes_ignored_from_above(directory: Path) -> None:
    (directory.parent / ".p2pfsignore").write_text("d/\n")


def becomes_a_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.touch()


@pytest.mark.parametrize(
    "become",
    [
        becomes_a_state_directory,
        becomes_a_link,
        becomes_ignored,
        becomes_ignored_from_above,
        becomes_a_file,
    ],
)
async def test_what_has_become_private_is_never_offered(indexed, first_offers, become):
    become(Path(indexed.at("d")))

    async with indexed.restarted():
        assert set(first_offers[-1]) == {"a"}
        assert not any(path.startswith("d/") for path in indexed.offered())


async def test_one_file_that_is_ignored_now_is_never_offered(indexed, first_offers):
    indexed.put("d/.p2pfsignore", b"b\n")

    async with indexed.restarted():
        assert "d/b" not in first_offers[-1]
        assert "d/e/c" in first_offers[-1]
        assert "d/b" not in indexed.offered()


async def test_in_roots_mount_each_file_is_looked_at_first(tmp_path, first_offers):
    world = World(tmp_path, is_shared_by_root=True)
    world.put("a", b"a")
    os.chmod(world.at("a"), 0o644)
    async with world.running():
        pass

    async with world.restarted():
        assert first_offers[-1] == {}
        assert world.offered() == {"a": id_of(b"a")}


async def test_a_device_that_has_another_number_now_is_noted(indexed, first_offers, monkeypatch):
    """Many file systems have one after each start of the machine."""
    with sqlite3.connect(indexed.index) as connection:
        connection.execute("UPDATE files SET device = device + 1")
    connection.close()
    forbid_hashing(monkeypatch)

    async with indexed.restarted():
        assert first_offers[-1]["d/b"] == id_of(b"b")
        assert indexed.offered()["d/b"] == id_of(b"b")
        monkeypatch.undo()
        assert await read_block(indexed.library, id_of(b"b"), 0) == b"b"
    with contextlib.closing(sqlite3.connect(indexed.index)) as index:
        (device,) = index.execute("SELECT device FROM files WHERE path = 'd/b'").fetchone()
    assert device == os.stat(indexed.at("d/b")).st_dev


async def test_who_writes_at_the_start_is_not_contradicted(indexed, first_offers):
    world = indexed
    library = world.library = world._open()
    library.write_began("a")

    async with world.running():
        assert "a" not in first_offers[-1]
        world.put("a", b"new")
        library.write_ended("a")
        await library.wait_idle()
        assert world.offered()["a"] == id_of(b"new")


@pytest.mark.parametrize("count", [1, 255, 256, 257, 600])
async def test_however_many_there_are_all_are_offered(world, count):
    for number in range(count):
        world.put(f"{number % 3}/{number}", b"%d" % number)
    async with world.running():
        first = world.offered()

    async with world.restarted():
        assert world.offered() == first
        assert len(first) == count


async def test_what_is_offered_at_once_is_told_of(indexed):
    """Neighbours would ask us for nothing of it: our filter has what we were told of."""
    library = indexed.library = indexed._open()

    async with indexed.running():
        told = {one.path for one in library.take_changes().added if not one.is_directory}
        assert told == set(indexed.offered())


async def test_of_what_is_for_some_alone_nobody_is_told(indexed):
    indexed.roots.audiences.limit(SharedDirectory("d", indexed.at("d"), to=("somebody",)))
    library = indexed.library = indexed._open()

    async with indexed.running():
        assert {one.path for one in library.take_changes().added} == {"a"}
        assert "d/b" in indexed.offered()
