"""What a change of a file takes back, and what it leaves as it is."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import trio
from msgspec import structs

from p2pfs.errors import NotFoundError, NotYetError, StaleError
from p2pfs.filesystem import Ownership
from p2pfs.filesystem.shared import SharedTree
from p2pfs.library import hashing, share
from p2pfs.library.hashing import STEP_BYTES
from p2pfs.library.index import Index, Record
from p2pfs.library.status import StatKey
from tests.helpers.contents import Content
from tests.helpers.libraries import (
    Interrupting,
    World,
    filed,
    forbid_hashing,
    id_of,
    read_block,
    settled,
)

pytestmark = pytest.mark.usefixtures("_settled_clock")


@pytest.fixture
def _settled_clock(monkeypatch):
    """Let no change be too fresh to be told from the next."""
    monkeypatch.setattr("p2pfs.library.facts.SETTLED_NS", 0)


def chmod(world, path):
    os.chmod(world.at(path), 0o600)
    world.library.attributes_changed(path)


def touch(world, path):
    os.utime(world.at(path), (1, 1))
    world.library.attributes_changed(path)


def link(world, path):
    os.link(world.at(path), world.at(".second name"))
    world.library.names_changed(path, ".second name")


def set_attribute(world, path):
    os.setxattr(world.at(path), "user.tag", b"x")
    world.library.attributes_changed(path)


@pytest.mark.parametrize("change", [chmod, touch, link, set_attribute])
async def test_what_changes_no_byte_takes_nothing_back_and_hashes_nothing(
    running, monkeypatch, change
):
    running.write("f", b"bytes")
    await running.library.wait_idle()
    forbid_hashing(monkeypatch)

    change(running, "f")
    assert running.offered() == {"f": id_of(b"bytes")}
    assert running.library.find_path("f").mtime_ns == os.stat(running.at("f")).st_mtime_ns
    assert await read_block(running.library, id_of(b"bytes"), 0) == b"bytes"
    await running.library.wait_idle()
    assert running.offered() == {"f": id_of(b"bytes")}
    assert running.library.find_path("f").mtime_ns == os.stat(running.at("f")).st_mtime_ns


@pytest.mark.parametrize("change", [chmod, touch, link, set_attribute])
async def test_such_a_change_is_filed_so_that_the_next_start_hashes_nothing_either(
    world, monkeypatch, change
):
    async with world.running():
        world.write("f", b"bytes")
        await world.library.wait_idle()
        change(world, "f")
        await world.library.wait_idle()
    forbid_hashing(monkeypatch)
    forbid_comparing(monkeypatch)

    async with world.restarted():
        assert world.offered() == {"f": id_of(b"bytes")}


def forbid_comparing(monkeypatch):
    def compare(*_):
        raise AssertionError("a file was compared")

    monkeypatch.setattr("p2pfs.library.publishing.Publishing._compare", compare)


async def test_a_renamed_file_is_offered_under_its_new_name_and_not_hashed_anew(
    running, monkeypatch
):
    running.mkdir("d")
    running.write("f", b"bytes")
    await running.library.wait_idle()
    forbid_hashing(monkeypatch)

    running.rename("f", "d/g")
    assert running.offered() == {}
    with pytest.raises(NotYetError):
        await read_block(running.library, id_of(b"bytes"), 0)
    await running.library.wait_idle()

    assert running.offered() == {"d/g": id_of(b"bytes")}
    assert await read_block(running.library, id_of(b"bytes"), 0) == b"bytes"


async def test_a_file_that_is_opened_to_write_is_not_listed_and_goes_on_being_served(
    running, monkeypatch
):
    running.write("f", b"bytes")
    await running.library.wait_idle()
    forbid_hashing(monkeypatch)

    running.library.write_began("f")
    assert running.offered() == {}
    assert running.library.size_of(id_of(b"bytes")) == 5
    assert await read_block(running.library, id_of(b"bytes"), 0) == b"bytes"
    running.library.write_ended("f")
    await running.library.wait_idle()

    assert running.offered() == {"f": id_of(b"bytes")}


async def test_of_small_contents_that_are_read_together_each_is_verified(running):
    contents = [Content.of(100, seed) for seed in range(3)]
    for number, content in enumerate(contents):
        running.write(str(number), content.data)
    await running.library.wait_idle()
    ids = [content.file_id for content in contents]
    assert await running.library.read_small(ids) == [content.data for content in contents]

    with open(running.at("1"), "r+b") as file:
        file.write(b"new")

    assert await running.library.read_small([*ids, id_of(b"never seen")]) == [
        contents[0].data, None, contents[2].data, None
    ]  # fmt: skip


async def test_what_is_private_from_now_on_is_not_among_small_contents(running):
    running.write("f", b"bytes")
    await running.library.wait_idle()

    running.write(".p2pfsignore", b"f\n")
    await running.library.wait_idle()

    assert await running.library.read_small([id_of(b"bytes")]) == [None]


async def test_a_file_that_may_have_been_written_goes_on_being_served_until_it_was(running):
    """Somebody else touched it: it is hashed anew, and that may take hours."""
    old = Content.of(3 * 256 * 1024)
    running.write("f", old.data)
    await running.library.wait_idle()

    with open(running.at("f"), "r+b") as file:
        file.seek(2 * 256 * 1024)
        file.write(b"new")
    running.library.touched("f")

    assert running.offered() == {}
    assert await running.library.read_blocks(old.file_id, (0, 1)) == [old.block(0), old.block(1)]
    with pytest.raises(StaleError):
        await read_block(running.library, old.file_id, 2)
    await running.library.wait_idle()
    with pytest.raises(NotFoundError):
        await read_block(running.library, old.file_id, 0)


async def test_what_has_gone_for_good_is_soon_held_no_more(world, autojump_clock):
    async with world.running():
        world.write("f", b"bytes")
        await world.library.wait_idle()

        os.unlink(world.at("f"))
        world.library.names_changed("f", "f")
        with pytest.raises(NotYetError):
            await read_block(world.library, id_of(b"bytes"), 0)
        await trio.sleep(3)

        with pytest.raises(NotFoundError) as error:
            await read_block(world.library, id_of(b"bytes"), 0)
        assert not isinstance(error.value, NotYetError)
        assert world.library.size_of(id_of(b"bytes")) is None


async def test_what_was_removed_in_the_mount_is_not_looked_for_elsewhere(running):
    running.write("f", b"bytes")
    running.write("g", b"other bytes")
    await running.library.wait_idle()
    os.link(running.at("g"), running.at("h"))
    running.library.names_changed("g", "h")
    await running.library.wait_idle()

    for name in "fg":
        running.remove(name)

    with pytest.raises(NotFoundError) as error:
        await read_block(running.library, id_of(b"bytes"), 0)
    assert not isinstance(error.value, NotYetError)
    assert running.library.size_of(id_of(b"bytes")) is None
    assert await read_block(running.library, id_of(b"other bytes"), 0) == b"other bytes"


async def test_what_another_file_took_the_name_of_is_not_looked_for_elsewhere(running):
    """An editor that saves: at a busy source readers were told "soon" until they gave up."""
    for name, data in (("f", b"bytes"), ("g", b"other bytes"), (".1", b"longer"), (".2", b"")):
        running.write(name, data)
    await running.library.wait_idle()
    running.link("g", "h")
    await running.library.wait_idle()

    running.rename(".1", "f")
    running.rename(".2", "g")

    assert await refusal_of(running, b"bytes") is NotFoundError
    assert await read_block(running.library, id_of(b"other bytes"), 0) == b"other bytes"


async def test_the_same_content_may_come_under_the_name_that_another_file_took(running):
    """rsync and `p2pfs publish` replace a file also where nothing has changed."""
    running.write("f", b"bytes")
    running.write(".new", b"bytes")
    await running.library.wait_idle()

    running.rename(".new", "f")

    assert await refusal_of(running, b"bytes") is NotYetError
    await running.library.wait_idle()
    assert await read_block(running.library, id_of(b"bytes"), 0) == b"bytes"


@pytest.mark.parametrize("change", ["remove", "replace"])
async def test_a_second_name_that_was_not_looked_at_keeps_a_content(running, change):
    """Links end nobody's read: `ln f g; rm f` is one way to rename."""
    running.write("f", b"bytes")
    running.write(".new", b"longer")
    await running.library.wait_idle()

    running.link("f", "g")
    if change == "remove":
        running.remove("f")
    else:
        running.rename(".new", "f")

    assert await refusal_of(running, b"bytes") is NotYetError
    await running.library.wait_idle()
    assert await read_block(running.library, id_of(b"bytes"), 0) == b"bytes"


async def refusal_of(running, data):
    with pytest.raises(NotFoundError) as error:
        await read_block(running.library, id_of(data), 0)
    return error.type


async def test_what_was_removed_is_stale_as_soon_as_it_was_looked_for_everywhere(running):
    """Readers were told "soon" for a second, and at a busy source until they gave up."""
    running.write("f", b"bytes")
    await running.library.wait_idle()

    os.unlink(running.at("f"))
    running.library.names_changed("f", "f")
    with pytest.raises(NotYetError):
        await read_block(running.library, id_of(b"bytes"), 0)
    await running.library.wait_idle()

    with pytest.raises(StaleError):
        await read_block(running.library, id_of(b"bytes"), 0)


async def test_what_was_removed_is_forgotten_though_another_file_changes_all_the_time(
    world, autojump_clock, monkeypatch
):
    async with world.running():
        world.write("f", b"bytes")
        world.write("log", b"first line")
        await world.library.wait_idle()
        monkeypatch.setattr("p2pfs.library.large.Hasher.hash_small", _put_off)
        world.write("log", b"second line")

        os.unlink(world.at("f"))
        world.library.names_changed("f", "f")
        await trio.sleep(5)

        assert world.library.size_of(id_of(b"bytes")) is None
        assert world.library.statistics().hashing == 1


def _put_off(hasher, look, *_):
    hasher._looks.put_off(look)


async def test_a_file_that_is_made_private_is_soon_held_no_more(world, autojump_clock):
    async with world.running():
        world.write("f", b"bytes")
        await world.library.wait_idle()

        world.rename("f", ".f")
        for _ in range(2):
            with pytest.raises(NotFoundError):
                await read_block(world.library, id_of(b"bytes"), 0)
            await trio.sleep(3)

        assert world.library.size_of(id_of(b"bytes")) is None


async def test_a_file_that_cannot_be_read_any_more_is_private(world, monkeypatch, expect_log):
    expect_log("file is not published path='f'")
    async with world.running():
        world.write("f", b"bytes")
        await world.library.wait_idle()
        real = os.open

        def deny(path, *args, **how):
            if path == "f" and not args[0] & os.O_PATH:
                raise PermissionError(13, "Permission denied")
            return real(path, *args, **how)

        monkeypatch.setattr(os, "open", deny)
        chmod(world, "f")
        await world.library.wait_idle()

        assert world.offered() == {}
        state = world.library.file_state("f")
        assert (state.state, state.reason) == ("private", "it cannot be read: Permission denied")
        with pytest.raises(StaleError):
            await read_block(world.library, id_of(b"bytes"), 0)


async def test_a_change_of_the_bytes_that_leaves_size_and_time_is_noticed(running):
    running.write("f", b"old")
    await running.library.wait_idle()
    status = os.stat(running.at("f"))

    with open(running.at("f"), "wb") as file:
        file.write(b"new")
    os.utime(running.at("f"), ns=(status.st_atime_ns, status.st_mtime_ns))
    running.library.touched("f")
    await running.library.wait_idle()

    assert running.offered() == {"f": id_of(b"new")}


async def test_a_change_that_nobody_told_of_is_noticed_by_who_reads(running):
    """As with a mapped file: the kernel tells nobody of a store."""
    running.write("f", b"old bytes, and more of them")
    await running.library.wait_idle()
    os.utime(running.at("f"), (1, 1))

    block = await read_block(running.library, id_of(b"old bytes, and more of them"), 0)
    assert block == b"old bytes, and more of them"
    assert running.offered() == {}
    await running.library.wait_idle()

    assert running.library.find_path("f").mtime_ns == 10**9


# Under another name while it is hashed.


@pytest.fixture
def hashed(monkeypatch):
    """Count the bytes that are hashed, a step in each hop."""
    monkeypatch.setattr("p2pfs.library.large.HOP_S", 0.0)
    counts = []
    real = hashing._read_into
    monkeypatch.setattr(
        hashing,
        "_read_into",
        lambda fd, buffer, at: counts.append(len(buffer)) or real(fd, buffer, at),
    )
    return counts


@pytest.mark.parametrize("change", ["rename", "chmod"])
async def test_a_file_that_is_renamed_while_it_is_hashed_is_not_begun_again(
    tmp_path, autojump_clock, hashed, change
):
    between = Interrupting()
    world = World(tmp_path, between)
    content = Content.of(4 * STEP_BYTES)
    async with world.running():
        between.actions[between.calls + 4] = lambda: (
            world.rename("f", "g") if change == "rename" else chmod(world, "f")
        )
        world.write("f", content.data)
        await world.library.wait_idle()

        assert not between.actions
        assert world.offered() == {"g" if change == "rename" else "f": content.file_id}
        assert sum(hashed) == len(content.data)


# While the servent was down.


async def test_what_was_renamed_or_linked_meanwhile_is_offered_and_not_hashed(world, monkeypatch):
    async with world.running():
        world.write("renamed", b"1")
        world.write("linked", b"2")
        await world.library.wait_idle()
    os.rename(world.at("renamed"), world.at("new name"))
    os.link(world.at("linked"), world.at("second name"))
    forbid_hashing(monkeypatch)

    async with world.restarted():
        ids = {"new name": id_of(b"1"), "linked": id_of(b"2"), "second name": id_of(b"2")}
        assert world.offered() == ids


@pytest.mark.parametrize("offset", [0, -1])
async def test_a_change_that_left_size_and_time_is_found_by_a_look_at_both_ends(world, offset):
    old = Content.of(5 * 256 * 1024 + 7)
    new = bytearray(old.data)
    new[offset] ^= 1
    async with world.running():
        world.write("f", old.data)
        await world.library.wait_idle()
    settled()
    status = os.stat(world.at("f"))
    with open(world.at("f"), "r+b") as file:
        file.write(new)
    os.utime(world.at("f"), ns=(status.st_atime_ns, status.st_mtime_ns))

    async with world.restarted():
        assert world.offered() == {"f": id_of(bytes(new))}


async def test_a_change_of_the_ctime_alone_costs_a_look_at_both_ends_once(world, monkeypatch):
    async with world.running():
        world.write("f", b"bytes")
        await world.library.wait_idle()
    settled()
    os.chmod(world.at("f"), 0o600)
    forbid_hashing(monkeypatch)

    async with world.restarted():
        assert world.offered() == {"f": id_of(b"bytes")}
    forbid_comparing(monkeypatch)
    async with world.restarted():
        assert world.offered() == {"f": id_of(b"bytes")}


# Several file systems below one share.


@pytest.fixture
def twins(world, monkeypatch):
    """Make `one/` and `two/` two file systems of one layout: only their devices differ."""
    real = share.status_of
    devices = {}

    def mounted(result):
        status = real(result)
        device = devices.get(status.key.ino)
        if device is None or not status.is_file:
            return status
        key = status.key
        return replace(status, key=StatKey(device, 7, key.size, 10**9, 10**9))

    monkeypatch.setattr(share, "status_of", mounted)
    for device, (directory, data) in enumerate({"one": b"volume 1", "two": b"volume 2"}.items(), 1):
        world.put(f"{directory}/f", data)
        devices[os.stat(world.at(f"{directory}/f")).st_ino] = device
    world.devices = devices
    return world


async def test_two_files_with_the_same_inode_and_times_are_two(twins):
    async with twins.running():
        assert twins.offered() == {"one/f": id_of(b"volume 1"), "two/f": id_of(b"volume 2")}
        for data in (b"volume 1", b"volume 2"):
            assert await read_block(twins.library, id_of(data), 0) == data
        twins.library.write_began("one/f")
        assert set(twins.offered()) == {"two/f"}
        twins.library.write_ended("one/f")
        await twins.library.wait_idle()
        assert set(twins.offered()) == {"one/f", "two/f"}


async def test_they_are_two_also_when_the_second_is_mounted_later(twins):
    os.rename(twins.at("two"), os.path.join(twins.outside, "two"))
    async with twins.running():
        assert twins.offered() == {"one/f": id_of(b"volume 1")}
    os.rename(os.path.join(twins.outside, "two"), twins.at("two"))

    async with twins.restarted():
        assert twins.offered() == {"one/f": id_of(b"volume 1"), "two/f": id_of(b"volume 2")}


async def test_a_device_number_that_another_gets_makes_no_file_of_it_that_one(twins):
    """What was filed of the first is taken for what it was called before; a look tells."""
    os.rename(twins.at("two"), os.path.join(twins.outside, "two"))
    async with twins.running():
        assert twins.offered() == {"one/f": id_of(b"volume 1")}
    os.rename(twins.at("one"), os.path.join(twins.outside, "one"))
    os.rename(os.path.join(twins.outside, "two"), twins.at("two"))
    twins.devices.update(dict.fromkeys(twins.devices, 1))

    async with twins.restarted():
        assert twins.offered() == {"two/f": id_of(b"volume 2")}


async def test_what_was_on_one_file_system_is_no_former_name_of_what_is_on_another(twins):
    """Both ends are the same, so that a look at them tells nothing."""
    data = bytearray(Content.of(5 * 256 * 1024 + 7).data)
    for directory in ("one", "two"):
        with open(twins.at(f"{directory}/f"), "r+b") as file:
            file.write(data)
        data[len(data) // 2] ^= 1
    os.rename(twins.at("two"), os.path.join(twins.outside, "two"))
    async with twins.running():
        (before,) = twins.offered().values()
    os.rename(twins.at("one"), os.path.join(twins.outside, "one"))
    os.rename(os.path.join(twins.outside, "two"), twins.at("two"))

    async with twins.restarted():
        (after,) = twins.offered().values()
        assert after != before


async def test_other_device_numbers_after_a_start_hash_nothing(twins, monkeypatch):
    async with twins.running():
        offered = twins.offered()
    twins.devices.update({ino: device + 10 for ino, device in twins.devices.items()})
    forbid_hashing(monkeypatch)
    forbid_comparing(monkeypatch)

    async with twins.restarted():
        assert twins.offered() == offered


# What nothing is left of.


async def test_nothing_is_kept_of_what_has_gone(world, autojump_clock):
    """Doubts, refusals, holdings: as long as a servent runs, thousands of files come and go."""
    async with world.running():
        for number in range(50):
            os.symlink("nowhere", world.at("link"))
            world.library.touched("link")
            world.write(f"f{number}", b"%d" % number)
            await world.library.wait_idle()
            world.library.write_began(f"f{number}")
            os.unlink(world.at(f"f{number}"))
            world.library.touched(f"f{number}")
            world.library.write_ended(f"f{number}")
            os.unlink(world.at("link"))
            world.library.touched("link")
        await world.library.wait_idle()
        await trio.sleep(10)

        books = world.library._facts._books
        assert not books.doubts.files()
        assert not books.writers._written
        assert not books.writers._waiting
        assert not books.holdings._by_file
        assert not books.holdings._by_content
        assert not books.offers._root.refused
        assert not books.leavings.paths
        assert not books.leavings.files


async def test_a_file_that_came_back_after_all_was_forgotten_is_hashed(world, autojump_clock):
    """It was in doubt when it went: what the index has must not be believed."""
    async with world.running():
        world.write("f", b"old")
        await world.library.wait_idle()
        status = os.stat(world.at("f"))
        world.library.write_began("f")
        with open(world.at("f"), "r+b") as file:
            file.write(b"new")
        os.utime(world.at("f"), ns=(status.st_atime_ns, status.st_mtime_ns))
        world.rename("f", ".f")
        world.library.write_ended("f")
        await world.library.wait_idle()
        await trio.sleep(10)

        world.rename(".f", "f")
        await world.library.wait_idle()
        assert world.offered() == {"f": id_of(b"new")}


async def test_who_takes_the_place_of_what_was_private_is_not(running):
    """The link below it was refused; then its directory was another one."""
    running.mkdir("d")
    os.symlink("nowhere", running.at("d/x"))
    running.library.touched("d/x")
    await running.library.wait_idle()
    assert running.library.file_state("d/x").reason == "it is a symbolic link"

    running.rename("d", "old")
    running.mkdir("e")
    running.write("e/x", b"content")
    await running.library.wait_idle()
    running.rename("e", "d")
    await running.library.wait_idle()

    assert running.library.file_state("d/x").state == "published"
    assert running.library.file_state("old/x").reason == "it is a symbolic link"


async def test_the_removal_of_the_longest_name_is_nothing_to_warn_of(running):
    """Its twin in form D would be longer than any name can be."""
    name = "\u00e9" * 127
    running.write(name, b"x")
    await running.library.wait_idle()

    running.remove(name)
    await running.library.wait_idle()

    assert running.offered() == {}


# What a servent keeps for itself.


async def test_the_state_directory_of_a_servent_is_never_published(world):
    for name in ("identity.key", "lock", "peers.json", "shared/film"):
        world.put(f"backup/state/{name}")
    world.put("backup/else")

    async with world.running():
        assert set(world.offered()) == {"backup/else"}
        state = world.library.file_state("backup/state/shared/film")
        assert (state.state, state.reason) == ("private", "it is the state directory of a servent")
        assert [path for path, _ in world.told] == ["backup/state"]


@pytest.mark.parametrize("names", [("lock", "identity.key"), ("identity.key", "lock")])
async def test_nor_if_it_becomes_one_while_it_is_published(running, names):
    running.mkdir("state")
    running.write("state/peers.json")
    await running.library.wait_idle()
    assert set(running.offered()) == {"state/peers.json"}

    for name in names:
        running.write(f"state/{name}")
        await running.library.wait_idle()
        assert "state/identity.key" not in running.offered()
    assert running.offered() == {}

    running.remove("state/lock")
    await running.library.wait_idle()
    assert set(running.offered()) == {"state/peers.json"}


# In the middle of it.


async def test_a_write_that_restores_the_time_before_it_ends_is_noticed(running):
    """Also in the middle, where no look at both ends would find it."""
    old = Content.of(3 * 256 * 1024)
    new = bytearray(old.data)
    new[len(new) // 2] ^= 1
    running.write("f", old.data)
    await running.library.wait_idle()
    status = os.stat(running.at("f"))

    running.library.write_began("f")
    with open(running.at("f"), "r+b") as file:
        file.write(new)
    os.utime(running.at("f"), ns=(status.st_atime_ns, status.st_mtime_ns))
    running.library.attributes_changed("f")
    running.library.write_ended("f")
    await running.library.wait_idle()

    assert running.offered() == {"f": id_of(bytes(new))}


async def test_what_was_written_under_one_name_is_taken_back_under_the_other_at_once(running):
    running.write("one", b"old")
    os.link(running.at("one"), running.at("two"))
    running.library.names_changed("one", "two")
    await running.library.wait_idle()
    assert set(running.offered()) == {"one", "two"}

    running.put("two", b"newer")
    running.library.touched("two")

    assert running.offered() == {}


async def test_a_time_that_is_set_in_the_last_moment_of_a_look_is_shown(world, monkeypatch):
    real, moments = Index.put, iter((True,))

    def put(*args):
        real(*args)
        if next(moments, False):
            touch(world, "f")

    monkeypatch.setattr(Index, "put", put)
    async with world.running():
        world.write("f", b"bytes")
        await world.library.wait_idle()

        assert world.library.find_path("f").mtime_ns == 10**9


async def test_a_file_that_is_written_for_hours_is_served_all_the_time(world, autojump_clock):
    async with world.running():
        world.write("f", b"bytes")
        await world.library.wait_idle()
        world.library.write_began("f")
        await trio.sleep(10_000)
        world.library._index._manifests.clear()

        assert await read_block(world.library, id_of(b"bytes"), 0) == b"bytes"


async def test_two_directories_that_change_places_are_not_taken_for_each_other(running):
    for name in ("a", "b"):
        running.mkdir(name)
        running.write(f"{name}/f", name.encode())
    await running.library.wait_idle()

    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        os.rename(running.at(old), running.at(new))
    running.library.names_changed("a", "b")
    assert running.offered() == {}
    await running.library.wait_idle()

    assert running.offered() == {"a/f": id_of(b"b"), "b/f": id_of(b"a")}


async def test_what_is_changed_and_renamed_while_it_is_hashed_is_begun_again(
    tmp_path, autojump_clock, hashed
):
    between = Interrupting()
    world = World(tmp_path, between)
    old, new = Content.of(4 * STEP_BYTES), Content.of(4 * STEP_BYTES, seed=1)

    def change():
        status = os.stat(world.at("f"))
        world.put("f", new.data)
        os.utime(world.at("f"), ns=(status.st_atime_ns, status.st_mtime_ns))
        world.library.touched("f")
        world.rename("f", "g")

    async with world.running():
        between.actions[between.calls + 4] = change
        world.write("f", old.data)
        await world.library.wait_idle()

        assert world.offered() == {"g": new.file_id}


def test_what_the_index_has_of_another_name_of_a_file_goes_with_its_content(tmp_path):
    """Else a name that is not looked at again before the next start would keep the old one."""
    index = Index(str(tmp_path / "index"))
    index.open()
    key = StatKey(1, 2, 3, 4, 5)
    old, new = Content(b"old").manifest, Content(b"new").manifest
    index.put([Record("one", key, old), Record("two", key, old)])
    index.put([Record("third", structs.replace(key, ctime_ns=4), old)])  # the time was restored
    index.put([Record("other", structs.replace(key, device=9), old)])

    index.put([Record("one", key, new)])

    assert {(f.path, f.key.device, f.file_id) for f in index.find(key)} == {
        ("one", 1, new.file_id),
        ("other", 9, old.file_id),
    }
    index.close()


# In a mount of root's that others use.

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root reads what others may not")


@needs_root
async def test_what_others_keep_from_each_other_is_not_published_by_root(tmp_path):
    world = World(tmp_path, is_shared_by_root=True)
    for path, mode in {"open": 0o644, "closed": 0o640, "home/diary": 0o644, "none": 0o000}.items():
        world.put(path)
        os.chmod(world.at(path), mode)
    os.chmod(world.at("home"), 0o711)
    async with world.running():
        assert set(world.offered()) == {"open"}
        state = world.library.file_state("home/diary")
        assert (state.state, state.reason) == (
            "private",
            "other users of this machine may not read it",
        )

        os.chmod(world.at("home"), 0o755)
        world.library.attributes_changed("home")
        os.chmod(world.at("open"), 0o600)
        world.library.attributes_changed("open")
        await world.library.wait_idle()

        assert set(world.offered()) == {"home/diary"}
        assert world.library.file_state("open").state == "private"


@needs_root
async def test_what_its_owner_made_through_the_mount_is_meant_to_be_shared(tmp_path):
    world = World(tmp_path, is_shared_by_root=True)
    tree = SharedTree(world.roots, world.library)
    root, nobody = Ownership(0, 0), Ownership(65_534, 65_534)
    async with world.running():
        tree.create("root's", os.O_WRONLY, 0o600, root).release()
        tree.create("nobody's", os.O_WRONLY, 0o640, nobody).release()
        tree.mkdir("home", 0o700, nobody)
        tree.create("home/diary", os.O_WRONLY, 0o600, nobody).release()
        tree.mkdir("mine", 0o700, root)
        tree.create("mine/film", os.O_WRONLY, 0o644, root).release()
        world.put("past the mount")
        os.chmod(world.at("past the mount"), 0o600)
        world.library.touched("past the mount")
        await world.library.wait_idle()
        assert set(world.offered()) == {"root's", "nobody's", "mine/film"}

        for mode in (0o644, 0o600):
            tree.chmod("root's", mode)
        os.chown(world.at("nobody's"), 1234, 1234)
        world.library.attributes_changed("nobody's")
        await world.library.wait_idle()
        assert set(world.offered()) == {"mine/film"}
    tree.close()


async def test_a_file_that_may_have_been_written_by_a_hidden_name_stays_in_the_index(
    world, autojump_clock, monkeypatch
):
    world.put("song", b"song")
    world.put("other", b"other")
    os.link(world.at("song"), world.at(".hidden"))
    async with world.running():
        await world.settle(5)
        forbid_hashing(monkeypatch)
        world.library.touched(".hidden")
        world.remove("other")  # what is gone is forgotten, and doubts are gone through then
        await world.settle(5)

        assert not world.library._facts._books.doubts.files()
        assert world.offered() == {"song": id_of(b"song")}
        assert filed(world) == {"song"}
