from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from msgspec import structs

from p2pfs.errors import NotFoundError, NotYetError, StaleError
from p2pfs.library import FileState, hashing, searching, share
from p2pfs.library.hashing import STEP_BYTES, Hashing
from p2pfs.library.index import Index, Record
from p2pfs.library.rounds import LEFT_ALONE_S, ChangeSignal
from p2pfs.library.status import StatKey
from p2pfs.protocol.manifest import MIB, MIN_BLOCK_BYTES, FileId
from p2pfs.protocol.messages import Terms
from tests.helpers.contents import Content
from tests.helpers.libraries import (
    Interrupting,
    World,
    after_the_first,
    forbid_hashing,
    id_of,
    listed,
    read_block,
    watched_world,
)
from tests.helpers.sizes import INTERESTING_SIZES

ONE_TICK_NS = 4_000_000
"""A file's times stand still for that long; the kernel's, at 250 Hz."""

SYNCHRONOUS_NORMAL = 1
"""As `PRAGMA synchronous` says it."""

# What is published.


@pytest.mark.parametrize("size", INTERESTING_SIZES)
async def test_a_closed_file_is_offered_with_its_bytes(running, size):
    content = Content.of(size)

    running.write("film", content.data)
    await running.library.wait_idle()

    entry = running.library.find_path("film")
    assert (entry.size, entry.file_id) == (size, content.file_id)
    assert entry.mtime_ns == os.stat(running.at("film")).st_mtime_ns
    assert await running.library.manifest(content.file_id) == content.manifest
    for index in range(content.manifest.block_count):
        block = await read_block(running.library, content.file_id, index)
        assert block == content.block(index)


async def test_a_file_larger_than_one_step_is_hashed_in_several(running):
    content = Content.of(2 * STEP_BYTES + 1)

    running.write("film", content.data)
    await running.library.wait_idle()

    assert running.library.find_path("film").file_id == content.file_id


async def test_a_sparse_file_is_offered_at_its_full_size(running):
    with open(running.at("sparse"), "wb") as file:
        file.truncate(64 * MIB)

    running.library.touched("sparse")
    await running.library.wait_idle()

    assert running.library.find_path("sparse").size == 64 * MIB


async def test_what_is_there_at_the_start_is_offered(world):
    world.put("a/b/c.txt", b"c")
    world.put("d.txt", b"d")

    async with world.running():
        assert world.offered() == {"a/b/c.txt": id_of(b"c"), "d.txt": id_of(b"d")}


async def test_directories_are_offered_also_when_they_are_empty(running):
    running.mkdir("empty")
    await running.library.wait_idle()

    entry = running.library.find_path("empty")
    assert (entry.size, entry.file_id, entry.is_directory) == (0, b"", True)
    assert entry.mtime_ns == os.stat(running.at("empty")).st_mtime_ns
    assert listed(running.library, "empty") == []
    assert listed(running.library, "absent") is None


@pytest.mark.parametrize("time_ns", [-(10**9), 0, 2**63 + 10**9])
async def test_a_file_of_another_age_is_offered(running, time_ns):
    running.write("f", b"f")
    os.utime(running.at("f"), ns=(time_ns, time_ns))
    running.library.touched("f")
    await running.library.wait_idle()

    assert running.offered() == {"f": id_of(b"f")}
    assert running.library.find_path("f").mtime_ns == min(time_ns, 2**63 - 1)


async def test_a_listing_is_sorted_by_name_in_code_point_order(running):
    for name in ("b", "a.z", "a", "a0", "Ä", "B"):
        running.write(name)
    await running.library.wait_idle()

    names = [entry.path for entry in listed(running.library, "")]
    assert names == ["B", "a", "a.z", "a0", "b", "Ä"]


async def test_a_file_in_a_directory_that_was_never_reported_is_found(running):
    running.put("a/b/c", b"c")
    running.put("a/other", b"o")

    running.library.touched("a/b/c")
    await running.library.wait_idle()

    assert set(running.offered()) == {"a/b/c", "a/other"}


async def test_thousands_of_small_files_are_offered(world):
    for number in range(2_000):
        world.put(f"{number % 7}/{number}", str(number).encode())

    async with world.running():
        assert len(world.offered()) == 2_000
        assert world.library.statistics().files == 2_000


# What stays private.

TEMPORARY = "its name is that of a temporary file"
UNSEEN = "control, bidi or invisible character"

PRIVATE = {
    ".hidden": "",
    ".fuse_hidden0000000100000001": "",
    ".goutputstream-ABCDEF": "",
    ".~lock.report.odt#": "",
    ".report.txt.swp": "",
    ".git/config": "",
    "a/.cache/b/c": "",
    "report.txt.swp": TEMPORARY,
    "REPORT.SWX": TEMPORARY,
    "report.txt~": TEMPORARY,
    "~$report.docx": TEMPORARY,
    "#report.txt#": TEMPORARY,
    "4913": TEMPORARY,
    "film.mkv.part": TEMPORARY,
    "film.mkv.crdownload": TEMPORARY,
    "tab\tname": UNSEEN,
    "x\u202egnp.exe": UNSEEN,
    "pay\u200dpal": UNSEEN,
    "Thumbs.db": "reserved name",
    "identity.key": "its name is that of a servent's secret key",
    "/".join("d" * 17): "too deep",
    "/".join(["n" * 250] * 5): "path too long",
    os.fsdecode(b"latin-\xe9"): "its name is not UTF-8",
}


@pytest.mark.parametrize("path", PRIVATE)
async def test_private_and_unacceptable_names_are_not_offered_and_it_is_told_why(world, path):
    world.put(path)

    async with world.running():
        world.library.touched(path)
        await world.library.wait_idle()

        assert world.offered() == {}
        assert world.library.file_state(path) == FileState("private", None, PRIVATE[path])
        assert len(world.told) == bool(PRIVATE[path])
        assert all(text == f"not published: {PRIVATE[path]}" for _, text in world.told)


@pytest.mark.parametrize("path", ["Thumbs.db", "d/Thumbs.db", "d/film.part", "p.part/x", ".d/x~"])
async def test_what_comes_later_and_is_not_published_is_told_once(world, path):
    world.put("d/there")
    async with world.running():
        for directory in ("p.part", ".d"):
            world.mkdir(directory)
        await world.library.wait_idle()
        world.told.clear()
        for _ in range(3):
            world.write(path, b"x")
            await world.library.wait_idle()

        assert [told for told, _ in world.told] == ([path] if "/x" not in path else [])


async def test_what_comes_later_and_has_gone_is_not_told(world):
    async with world.running():
        world.write("download.part", b"x")
        world.remove("download.part")
        await world.library.wait_idle()

        assert world.told == []


async def test_what_is_not_published_is_told_once_and_many_alike_in_one_line(world):
    for number in range(100):
        world.put(f"d/{number}.part")
    world.put("other.part")

    async with world.running():
        world.library.touched("")
        await world.library.wait_idle()

    told = [path for path, _ in world.told]
    assert len(told) == 22
    assert min(told, key=len) == "d"
    assert "other.part" in told


async def test_a_name_in_form_d_is_offered_in_form_c(running):
    running.write("cafe\u0301", b"coffee")
    await running.library.wait_idle()

    assert running.offered() == {"caf\u00e9": id_of(b"coffee")}
    assert running.library.file_state("cafe\u0301").state == "published"
    assert await read_block(running.library, id_of(b"coffee"), 0) == b"coffee"

    running.remove("cafe\u0301")

    assert running.offered() == {}


FORMS = {"caf\u00e9": b"c", "cafe\u0301": b"d"}


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)])
@pytest.mark.parametrize("large", ["", *FORMS])
async def test_of_two_names_that_others_cannot_tell_apart_form_c_is_offered(
    world, monkeypatch, order, large
):
    """In whatever order a directory has them, and though one takes its time to be hashed."""
    listdir = os.listdir
    monkeypatch.setattr("p2pfs.library.share.os.listdir", lambda at: order(listdir(at)))
    monkeypatch.setattr("p2pfs.library.looking.STEP_BYTES", 10)
    contents = {name: data * (100 if name == large else 1) for name, data in FORMS.items()}
    for name, data in contents.items():
        world.put(name, data)

    for running in (world.running, world.restarted):
        async with running():
            assert world.offered() == {"caf\u00e9": id_of(contents["caf\u00e9"])}
            assert world.library.file_state("cafe\u0301").state == "private"


@pytest.mark.parametrize("names", [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
async def test_of_two_such_names_the_other_is_told_of(world, names):
    async with world.running():
        for name in names:
            world.write(name)
            await world.library.wait_idle()

    reason = world.library.file_state("cafe\u0301").reason
    assert world.told == [("cafe\u0301", f"not published: {reason}")]


@pytest.mark.parametrize("gone", ["caf\u00e9", "cafe\u0301"])
async def test_of_two_such_names_the_other_is_offered_when_one_goes(running, gone):
    (left,) = {"caf\u00e9", "cafe\u0301"} - {gone}
    running.write(left, b"left")
    running.write(gone, b"gone")
    await running.library.wait_idle()

    running.remove(gone)
    await running.library.wait_idle()

    assert running.offered() == {"caf\u00e9": id_of(b"left")}
    assert running.library.file_state(left).state == "published"


async def test_links_are_never_followed(world):
    with open(os.path.join(world.outside, "secret"), "wb") as file:
        file.write(b"secret")
    os.symlink(os.path.join(world.outside, "secret"), world.at("file"))
    os.symlink(world.outside, world.at("directory"))

    async with world.running():
        world.library.touched("directory/secret")
        await world.library.wait_idle()

        assert world.offered() == {}
        assert world.library.file_state("file").state == "private"
        assert listed(world.library, "directory") is None


async def test_a_fifo_blocks_nothing(world):
    os.mkfifo(world.at("fifo"))
    world.put("plain", b"plain")

    async with world.running():
        assert set(world.offered()) == {"plain"}


async def test_a_path_that_climbs_out_is_not_looked_at(running):
    with open(os.path.join(running.outside, "secret"), "wb") as file:
        file.write(b"secret")

    running.library.touched("../outside/secret")
    await running.library.wait_idle()

    assert running.offered() == {}


@pytest.mark.parametrize("swap", ["file", "directory"])
async def test_a_link_swapped_in_after_publishing_serves_nothing(running, swap):
    """The attack: publish, then point the name at a secret of the same size."""
    running.mkdir("d")
    running.write("d/f", b"public")
    await running.library.wait_idle()
    with open(os.path.join(running.outside, "f"), "wb") as file:
        file.write(b"secret")

    victim, target = ("d/f", "f") if swap == "file" else ("d", "")
    os.rename(running.at(victim), os.path.join(running.outside, "moved"))
    os.symlink(os.path.join(running.outside, target), running.at(victim))

    with pytest.raises(NotYetError):
        await read_block(running.library, id_of(b"public"), 0)
    assert await running.settled() == {}


async def test_a_fifo_swapped_in_after_publishing_blocks_nothing(running):
    running.write("f", b"public")
    await running.library.wait_idle()

    os.unlink(running.at("f"))
    os.mkfifo(running.at("f"))

    with pytest.raises(NotYetError):
        await read_block(running.library, id_of(b"public"), 0)


# What is being written.


async def test_a_file_is_not_offered_while_it_is_written(running):
    running.write("f", b"old")
    await running.library.wait_idle()

    running.library.write_began("f")
    assert running.library.find_path("f") is None
    await running.library.wait_idle()
    assert running.library.find_path("f") is None
    assert running.library.file_state("f").state == "hashing"

    running.library.write_ended("f")
    assert await running.settled() == {"f": id_of(b"old")}


def half_written(running, path):
    running.library.write_began(path)
    running.put(path, b"half")
    running.library.touched(path)


async def test_only_the_last_of_several_writers_publishes(running):
    half_written(running, "f")
    running.library.write_began("f")

    running.library.write_ended("f")
    assert await running.settled() == {}

    running.library.write_ended("f")
    assert await running.settled() == {"f": id_of(b"half")}


async def test_a_file_renamed_while_it_is_written_waits_for_its_writer(running):
    half_written(running, "old")

    running.rename("old", "new")
    assert await running.settled() == {}

    with open(running.at("new"), "ab") as file:
        file.write(b" and half")
    running.library.write_ended("old")
    assert await running.settled() == {"new": id_of(b"half and half")}


async def test_a_writer_that_moves_with_its_file_is_waited_for(running):
    """The tree counts the writer at the new path first, and then out of the old one."""
    half_written(running, "old")

    running.library.write_began("new")
    os.rename(running.at("old"), running.at("new"))
    running.library.write_ended("old")
    running.library.touched("old")
    running.library.touched("new")
    assert await running.settled() == {}

    running.library.write_ended("new")
    assert await running.settled() == {"new": id_of(b"half")}


async def test_a_file_made_private_in_mid_write_can_come_back(running):
    running.library.write_began(".tmp")
    running.put(".tmp", b"x")
    running.library.touched(".tmp")
    running.rename(".tmp", "f")
    assert await running.settled() == {}

    running.library.write_ended(".tmp")
    assert await running.settled() == {"f": id_of(b"x")}


async def test_writing_one_hard_link_withdraws_the_other(running):
    running.write("a", b"old")
    os.link(running.at("a"), running.at("b"))
    running.library.touched("a")
    running.library.touched("b")
    assert await running.settled() == {"a": id_of(b"old"), "b": id_of(b"old")}

    running.library.write_began("a")
    assert running.offered() == {}
    with open(running.at("a"), "wb") as file:
        file.write(b"new")
    running.library.write_ended("a")
    await running.library.wait_idle()

    assert running.offered() == {"a": id_of(b"new"), "b": id_of(b"new")}


async def test_a_rewrite_within_one_tick_of_the_clock_is_noticed(running, monkeypatch):
    """Same size and same times: only the writer's count tells."""
    real, now = share.status_of, time.time_ns() + 10**10

    def stopped_clock(result):
        status = real(result)
        key = structs.replace(status.key, mtime_ns=now, ctime_ns=now)
        return replace(status, key=key)

    monkeypatch.setattr(share, "status_of", stopped_clock)
    running.write("f", b"old")
    await running.library.wait_idle()
    running.write("f", b"new")
    await running.library.wait_idle()

    assert running.offered() == {"f": id_of(b"new")}


async def test_a_rewrite_within_one_tick_that_is_only_heard_of_is_noticed(running, monkeypatch):
    """It came past the mount: nobody counts the writer, and the times are the same."""
    real, now = share.status_of, time.time_ns()

    def stopped_clock(result):
        status = real(result)
        return replace(status, key=structs.replace(status.key, mtime_ns=now, ctime_ns=now))

    monkeypatch.setattr(share, "status_of", stopped_clock)
    monkeypatch.setattr(time, "time_ns", lambda: now + ONE_TICK_NS)
    running.write("f", b"old")
    await running.library.wait_idle()
    running.put("f", b"new")
    running.library.touched("f")
    await running.library.wait_idle()

    assert running.offered() == {"f": id_of(b"new")}


async def test_nothing_is_offered_before_the_index_has_it(running, monkeypatch):
    """Who is told of a content asks for its manifest at once."""
    real, offered = Index.put, []

    def put(*args):
        offered.append(running.offered())
        real(*args)
        offered.append(running.offered())

    monkeypatch.setattr(Index, "put", put)
    running.write("f", b"bytes")
    await running.library.wait_idle()

    assert offered == [{}, {}]
    assert running.offered() == {"f": id_of(b"bytes")}


@pytest.mark.parametrize("fact", ["write_began", "touched"])
async def test_what_happens_in_the_last_moment_of_hashing_voids_it(tmp_path, monkeypatch, fact):
    """The bytes are read, the times compared, and the offer is about to be made."""
    world, seen = watched_world(tmp_path)

    def change() -> None:
        world.put("f", b"new")
        getattr(world.library, fact)("f")

    after_the_first(monkeypatch, Index, "put", change)
    async with world.running():
        world.write("f", b"old")
        await world.library.wait_idle()

        assert {"f": id_of(b"old")} not in seen
        assert world.offered() == ({} if fact == "write_began" else {"f": id_of(b"new")})


# What is gone.


async def test_a_removed_file_is_gone_when_the_call_returns(running):
    running.write("f", b"f")
    await running.library.wait_idle()

    running.remove("f")

    assert running.library.find_path("f") is None
    assert running.library.find_id(id_of(b"f")) is None
    assert listed(running.library, "") == []
    with pytest.raises(NotFoundError):
        await read_block(running.library, id_of(b"f"), 0)


@pytest.mark.parametrize("data", [b"new", b"longer"])
async def test_a_changed_file_is_not_offered_as_it_was_when_the_call_returns(running, data):
    running.write("f", b"old")
    await running.library.wait_idle()
    os.utime(running.at("f"), ns=(1, 1))
    running.library.attributes_changed("f")
    running.put("f", data)

    running.library.touched("f")

    assert running.offered() == {}
    assert await running.settled() == {"f": id_of(data)}


async def test_a_renamed_directory_moves_with_all_below_and_is_not_hashed_anew(
    running, monkeypatch
):
    running.put("a/b/c", b"c")
    running.library.touched("a")
    await running.library.wait_idle()
    forbid_hashing(monkeypatch)

    running.rename("a", "z")
    assert running.library.find_path("a") is None
    assert running.library.find_path("a/b/c") is None
    await running.library.wait_idle()

    assert running.offered() == {"z/b/c": id_of(b"c")}


async def test_a_name_that_a_directory_has_no_more_is_offered_no_more(running):
    """Nobody told of the name: the directory is read anew, as after a loss of notices."""
    for path in ("d/stays", "d/goes", "d/below/goes too"):
        running.put(path, path.encode())
    running.library.touched("d")
    await running.library.wait_idle()
    assert len(running.offered()) == 3

    os.unlink(running.at("d/goes"))
    os.unlink(running.at("d/below/goes too"))
    os.rmdir(running.at("d/below"))
    running.library.touched("d")
    await running.library.wait_idle()

    assert running.offered() == {"d/stays": id_of(b"d/stays")}
    assert [entry.path for entry in listed(running.library, "d")] == ["d/stays"]


async def test_a_file_replaced_by_a_directory_and_back(running):
    running.write("x", b"x")
    await running.library.wait_idle()
    running.remove("x")
    running.mkdir("x")
    running.write("x/y", b"y")
    assert await running.settled() == {"x/y": id_of(b"y")}

    running.remove("x/y")
    os.rmdir(running.at("x"))
    running.write("x", b"z")
    assert await running.settled() == {"x": id_of(b"z")}


async def test_a_share_that_vanishes_is_withdrawn_and_may_come_back(running):
    running.write("f", b"f")
    await running.library.wait_idle()
    os.rename(running.root, running.root + "-away")

    running.library.touched("")
    assert await running.settled() == {}

    os.rename(running.root + "-away", running.root)
    running.library.touched("")
    assert await running.settled() == {"f": id_of(b"f")}


async def test_a_change_behind_our_back_is_stale_and_then_offered_anew(running):
    running.write("f", b"old")
    await running.library.wait_idle()
    running.put("f", b"new and longer")

    with pytest.raises(StaleError):
        await read_block(running.library, id_of(b"old"), 0)
    await running.library.wait_idle()

    assert running.offered() == {"f": id_of(b"new and longer")}


async def test_bytes_that_do_not_match_never_leave(running, monkeypatch):
    """A disk that lies, say: the times are right, and the digest has the last word."""
    running.write("f", b"right")
    await running.library.wait_idle()

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", lambda *_: b"wrong")
        with pytest.raises(StaleError):
            await read_block(running.library, id_of(b"right"), 0)
    assert running.offered() == {}

    await running.library.wait_idle()
    assert await read_block(running.library, id_of(b"right"), 0) == b"right"


async def test_a_content_under_two_paths_is_served_while_one_is_left(running):
    running.write("a", b"same")
    running.write("b", b"same")
    await running.library.wait_idle()
    first = running.library.find_id(id_of(b"same")).path
    running.put(first, b"other")

    assert await read_block(running.library, id_of(b"same"), 0) == b"same"
    assert running.library.find_id(id_of(b"same")).path != first


# Changes while hashing.


@pytest.fixture
def _step_by_step(monkeypatch):
    """Let a slow machine hash: one step fills a hop."""
    monkeypatch.setattr("p2pfs.library.large.HOP_S", 0.0)


@pytest.mark.usefixtures("_step_by_step")
@pytest.mark.parametrize("is_told", [True, False])
async def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(
    tmp_path, autojump_clock, is_told
):
    between = Interrupting()
    world = World(tmp_path, between)
    old, new = Content.of(3 * STEP_BYTES), Content.of(3 * STEP_BYTES, seed=1)
    async with world.running():
        between.actions[between.calls + 3] = lambda: (
            world.put("f", new.data),
            is_told and world.library.touched("f"),
        )
        world.write("f", old.data)
        await world.library.wait_idle()

        assert not between.actions
        assert world.offered() == {"f": new.file_id}


async def test_a_file_that_changes_as_its_last_bytes_are_read_is_hashed_again(
    tmp_path, monkeypatch, autojump_clock
):
    """Nobody tells of it: only its times do, after the bytes were read."""
    world, seen = watched_world(tmp_path)

    def change() -> None:
        world.put("f", b"new")
        os.utime(world.at("f"), (1, 1))

    after_the_first(monkeypatch, hashing, "_read_into", change)
    async with world.running():
        world.write("f", b"old")
        await world.library.wait_idle()

        assert {"f": id_of(b"old")} not in seen
        assert world.offered() == {"f": id_of(b"new")}


@pytest.mark.usefixtures("_step_by_step")
async def test_a_file_that_vanishes_while_it_is_hashed_is_not_offered(tmp_path, autojump_clock):
    between = Interrupting()
    world = World(tmp_path, between)
    async with world.running():
        between.actions[between.calls + 3] = lambda: world.remove("f")
        world.write("f", Content.of(3 * STEP_BYTES).data)
        await world.library.wait_idle()

        assert not between.actions
        assert world.offered() == {}


@pytest.mark.usefixtures("_step_by_step")
async def test_small_files_pass_a_large_one(tmp_path, autojump_clock):
    between = Interrupting()
    world = World(tmp_path, between)
    async with world.running():
        between.actions[between.calls + 3] = lambda: world.write("small", b"small")
        between.actions[between.calls + 4] = lambda: seen.update(world.offered())
        seen = {}
        world.write("large", Content.of(4 * STEP_BYTES).data)
        await world.library.wait_idle()

        assert set(seen) == {"small"}
        assert set(world.offered()) == {"small", "large"}


async def test_an_unreadable_file_is_skipped_until_it_is_touched(running, monkeypatch, expect_log):
    expect_log("file is not published path='bad'")
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *_: (_ for _ in ()).throw(OSError(5, "EIO")))
    running.write("bad", b"bad")
    assert await running.settled() == {}
    assert running.library.file_state("bad").state == "private"

    monkeypatch.setattr(os, "preadv", real)
    running.library.touched("bad")
    assert await running.settled() == {"bad": id_of(b"bad")}


@pytest.mark.parametrize("size", [3, 2 * STEP_BYTES])
async def test_a_bug_in_hashing_costs_its_file_alone_and_is_told_once(
    size, running, monkeypatch, expect_log, caplog, autojump_clock
):
    expect_log("a bug of ours: file is not published path='bad'")
    real = Hashing.step

    def step(hashing):
        if hashing.path == "bad":
            raise ZeroDivisionError
        return real(hashing)

    monkeypatch.setattr(Hashing, "step", step)
    for name in ("a", "bad", "z"):
        running.write(name, bytes(size))
    await running.library.wait_idle()
    await trio.sleep(60)
    assert set(running.offered()) == {"a", "z"}
    assert "a bug of ours" in running.library.file_state("bad").reason
    assert caplog.text.count("Traceback") == 1

    monkeypatch.setattr(Hashing, "step", real)
    running.library.touched("bad")
    await running.library.wait_idle()
    assert set(running.offered()) == {"a", "bad", "z"}


async def test_a_bug_in_filing_delays_what_was_hashed_and_loses_nothing(
    running, monkeypatch, expect_log, autojump_clock
):
    expect_log("a bug of ours ended one task")
    real, failures = Index.put, iter(range(2))

    def put(*args):
        if next(failures, None) is not None:
            raise ZeroDivisionError
        return real(*args)

    monkeypatch.setattr(Index, "put", put)
    running.write("a", b"a")
    running.write("b", b"b")
    await running.library.wait_idle()
    assert set(running.offered()) == {"a", "b"}


async def test_running_out_of_descriptors_only_delays(running, monkeypatch, autojump_clock):
    real, failures = os.preadv, iter(range(3))

    def preadv(*args):
        if next(failures, None) is not None:
            raise OSError(24, "EMFILE")
        return real(*args)

    monkeypatch.setattr(os, "preadv", preadv)
    running.write("f", b"f")
    await running.library.wait_idle()

    assert running.offered() == {"f": id_of(b"f")}


# Over a restart.


async def test_unchanged_files_are_offered_after_a_restart_without_being_read(world, monkeypatch):
    async with world.running():
        world.mkdir("d")
        world.write("d/f", b"f")
        await world.library.wait_idle()
    forbid_hashing(monkeypatch)

    async with world.restarted():
        assert world.offered() == {"d/f": id_of(b"f")}
        assert await read_block(world.library, id_of(b"f"), 0) == b"f"


async def test_changes_during_the_absence_are_noticed(world):
    async with world.running():
        for name in ("kept", "changed", "removed", "moved"):
            world.write(name, name.encode())
        await world.library.wait_idle()
    world.put("changed", b"otherwise")
    os.unlink(world.at("removed"))
    os.rename(world.at("moved"), world.at("renamed"))

    async with world.restarted():
        assert world.offered() == {
            "kept": id_of(b"kept"),
            "changed": id_of(b"otherwise"),
            "renamed": id_of(b"moved"),
        }
        assert (await world.library.match_words("removed", 10))[1] == 0


async def test_a_change_in_the_middle_during_the_absence_is_noticed(world):
    content = Content.of(3 * MIN_BLOCK_BYTES)
    world.put("film", content.data)
    os.utime(world.at("film"), ns=(1, 1))
    async with world.running():
        assert world.offered() == {"film": content.file_id}

    with open(world.at("film"), "r+b") as film:
        film.seek(MIN_BLOCK_BYTES + 5)
        film.write(b"another scene")

    async with world.restarted():
        assert world.offered() == {"film": id_of(Path(world.at("film")).read_bytes())}


async def test_the_index_forgets_what_is_gone(world, autojump_clock):
    async with world.running():
        world.write("a", b"a")
        world.write("b", b"b")
        await world.library.wait_idle()
        world.remove("a")
        await trio.sleep(60)

    with sqlite3.connect(world.index) as connection:
        assert connection.execute("SELECT path FROM files").fetchall() == [("b",)]
        assert connection.execute("SELECT count(*) FROM words").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize("damage", ["garbage", "foreign", "old", "torn", "empty", "flipped"])
async def test_a_damaged_or_foreign_index_is_made_anew(world, damage, expect_log, autojump_clock):
    async with world.running():
        for number in range(50):
            world.write(f"file {number}", b"x%d" % number)
        await world.library.wait_idle()
        expected = world.offered()
    size = os.path.getsize(world.index)
    expect_log("malformed|not a database")
    if damage == "garbage":
        with open(world.index, "wb") as file:
            file.write(Content.of(8_192).data)
    elif damage in ("foreign", "old"):
        os.unlink(world.index)
        connection = sqlite3.connect(world.index)
        with connection:
            connection.execute("CREATE TABLE files (path)")
            if damage == "old":
                connection.execute("PRAGMA application_id = 1883402342")
        connection.close()
    elif damage == "flipped":
        with open(world.index, "r+b") as file:
            file.seek(4_096)
            file.write(Content.of(size - 4_096).data)
    else:
        os.truncate(world.index, 0 if damage == "empty" else size // 2)

    async with world.restarted():
        assert world.offered() == expected
        for file_id in expected.values():
            await world.library.manifest(FileId(file_id))
        await world.library.match_words("file", 10)
        await world.library.wait_idle()
        assert (await world.library.match_words("file", 10))[1] == 50


def test_a_batch_that_fails_between_two_files_files_none(tmp_path):
    """A file that is filed without its words would be found by nobody until it changes."""
    index = Index(str(tmp_path / "index"))
    index.open()
    key, manifest = StatKey(1, 2, 3, 4, 5), Content(b"x").manifest
    index.put([Record("before", key, manifest)])
    index.commit()

    with pytest.raises(UnicodeEncodeError):
        index.put(
            [
                Record("before", key, manifest),
                Record("f", key, manifest),
                Record("\udcff", key, manifest),
            ]
        )
    index.close()

    assert index.paths() == ["before"]
    assert index.files(index.match("before")) == [("before", manifest.file_id)]
    assert index.match("ff") == []
    index.close()


def test_what_was_filed_and_not_committed_goes_with_a_change_that_fails(tmp_path):
    index = Index(str(tmp_path / "index"))
    index.open()
    key, manifest = StatKey(1, 2, 3, 4, 5), Content(b"x").manifest
    index.put([Record("early", key, manifest)])
    assert index.match("early") != []

    with pytest.raises(UnicodeEncodeError):
        index.put([Record("\udcff", key, manifest)])

    assert index.match("early") == []
    assert (index.take_lost(), index.take_lost()) == (["early"], [])
    index.close()


async def test_what_the_index_has_lost_is_filed_again(
    tmp_path, monkeypatch, autojump_clock, expect_log
):
    expect_log("index failed")
    commit, failures = Index.commit, [sqlite3.OperationalError("disk full")]

    def failing(self):
        if self.unsaved and failures:
            with self._changing():
                raise failures.pop()
        commit(self)

    monkeypatch.setattr(Index, "commit", failing)
    world = World(tmp_path)
    world.put("whale", b"a")
    async with world.running():
        await world.settle(LEFT_ALONE_S)

        assert not failures
        assert world.offered() == {"whale": id_of(b"a")}
        assert await read_block(world.library, id_of(b"a"), 0) == b"a"
        assert (await world.library.match_words("whale", 10))[1] == 1


async def test_many_files_are_filed_in_few_transactions(world, monkeypatch):
    commit, saved = Index.commit, []

    def counted(self):
        saved.append(self.unsaved)
        commit(self)

    monkeypatch.setattr(Index, "commit", counted)
    for number in range(1_000):
        world.put(f"{number}", b"%d" % number)
    async with world.running():
        assert len(world.offered()) == 1_000
    assert sum(saved) == 1_000
    assert sum(map(bool, saved)) <= 3


def test_no_file_is_compared_with_all_others_of_its_size(tmp_path):
    """SQLite may choose the index of sizes: twenty thousand equally long files took 0.8 ms each."""
    index = Index(str(tmp_path / "index"))
    index.open()
    asked = []
    index._connection.set_trace_callback(asked.append)
    key = StatKey(1, 2, 3, 4, 5)
    index.find(key)
    index.put([Record("f", key, Content(b"x").manifest)])
    index.rekey([("f", key)])
    index.remove(["f"])
    index.forget([key.identity])
    index.commit()
    index._connection.set_trace_callback(None)

    asked = [one for one in asked if one.startswith(("SELECT number", "SELECT path", "UPDATE"))]
    plans = [
        step[-1] for one in asked for step in index._connection.execute(f"EXPLAIN QUERY PLAN {one}")
    ]
    index.close()
    assert len(plans) == len(asked) >= 5
    assert [plan for plan in plans if "SCAN" in plan or "size" in plan] == []


def test_the_index_outlives_a_power_cut_whole(tmp_path, monkeypatch):
    """SQLite tears a database whose log it does not sync: PRAGMA synchronous."""
    connections = []
    real = sqlite3.connect

    def connect(*args, **options):
        connections.append(real(*args, **options))
        return connections[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    index = Index(str(tmp_path / "index"))
    index.open()

    assert connections[-1].execute("PRAGMA journal_mode").fetchone() == ("wal",)
    (synchronous,) = connections[-1].execute("PRAGMA synchronous").fetchone()
    assert synchronous >= SYNCHRONOUS_NORMAL
    index.close()


def test_the_index_holds_more_pages_only_until_what_it_collects_is_written(tmp_path, monkeypatch):
    """With few, ten thousand files of a large share were written twice: PRAGMA cache_size."""
    connections = []
    real = sqlite3.connect

    def connect(*args, **options):
        connections.append(real(*args, **options))
        return connections[-1]

    def held():
        return connections[-1].execute("PRAGMA cache_size").fetchone()[0]

    monkeypatch.setattr(sqlite3, "connect", connect)
    index = Index(str(tmp_path / "index"))
    index.open()
    at_rest = held()

    key = StatKey(device=1, ino=2, size=4, mtime_ns=5, ctime_ns=6)
    index.put([Record("film", key, Content(b"film").manifest)])
    assert held() < at_rest < 0, "negative: in KiB"
    index.commit()
    assert held() == at_rest
    index.close()


async def test_an_index_that_cannot_be_written_delays_and_then_recovers(
    world, expect_log, autojump_clock
):
    expect_log("index failed error='unable to open database file")
    world.put("f", b"f")
    os.mkdir(world.index)  # no database can be made here

    async with trio.open_nursery() as nursery:
        await nursery.start(world.library.run)
        await trio.sleep(10)
        assert world.offered() == {}
        [(path, text)] = world.told
        assert path == ""
        assert text.startswith("nothing new is published: the index fails: unable to open")

        os.rmdir(world.index)
        await world.library.wait_idle()
        assert world.offered() == {"f": id_of(b"f")}
        nursery.cancel_scope.cancel()


# Words.


async def test_all_words_must_match_and_the_last_may_be_a_beginning(running):
    running.mkdir("blue-whales")
    for path in ("Blue Whale.ogg", "blue-whales/song.ogg", "blue sky.txt", "Größe_Maß.txt"):
        running.write(path)
    await running.library.wait_idle()

    async def found(text, limit=10):
        entries, total = await running.library.match_words(text, limit)
        assert len(entries) == min(total, limit)
        return sorted(entry.path for entry in entries)

    assert await found("whale BLUE") == ["Blue Whale.ogg"]
    assert await found("blue whal") == ["Blue Whale.ogg", "blue-whales/song.ogg"]
    assert await found("whales song") == ["blue-whales/song.ogg"]
    assert await found("blu whale") == []
    assert await found("ＢＬＵＥ") == ["Blue Whale.ogg", "blue sky.txt", "blue-whales/song.ogg"]
    assert await found("GRÖSSE") == ["Größe_Maß.txt"]
    assert len(await found("blue", limit=1)) == 1
    assert await found("") == []
    assert await found('" OR * NEAR( -') == []


@pytest.mark.parametrize(
    ("text", "terms", "found"),
    [
        ("song", Terms(at_least=3), ["a long song.ogg", "d/long song, no 2.OGG"]),
        ("song", Terms(at_most=2), ["a song.txt"]),
        ("song", Terms(no_phrases=("long",)), ["a song.txt"]),
        ("song", Terms(phrases=("long song no",)), ["d/long song, no 2.OGG"]),
        ("song", Terms(no_phrases=("a long",)), ["a song.txt", "d/long song, no 2.OGG"]),
        ("song", Terms(endings=("ogg",)), ["a long song.ogg", "d/long song, no 2.OGG"]),
        ("song", Terms(no_endings=("txt",)), ["a long song.ogg", "d/long song, no 2.OGG"]),
        ("", Terms(at_least=3), ["a long song.ogg", "d/long song, no 2.OGG"]),
        ("", Terms(endings=("c",)), ["main.c"]),
        ("", Terms(endings=("_%",)), ["odd._%"]),
        ("", Terms(no_phrases=("song",)), ["main.c", "odd._%"]),
        ("", Terms(at_least=9), []),
        ("", None, []),
    ],
)
async def test_terms_are_looked_at_before_anything_is_cut(running, text, terms, found):
    running.mkdir("d")
    for path in ("a long song.ogg", "a song.txt", "d/long song, no 2.OGG", "main.c", "odd._%"):
        running.write(path, path.encode()[: 4 if "long" in path else 2])
    await running.library.wait_idle()

    first, total = await running.library.match_words(text, 1, terms)
    assert (len(first), total) == (min(1, len(found)), len(found))
    after = first[0].path if first else ""
    entries, total = await running.library.match_words(text, 10, terms, after)
    assert sorted(entry.path for entry in (*first, *entries)) == found
    assert total == len(entries)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("京タ", "東京タワー.jpg"),
        ("ﾀﾜｰ 東", "東京タワー.jpg"),
        ("cafe", "Café crème.txt"),
        ("crêm", "Café creme.txt"),
        ("r.e.m. gre", "R.E.M. - Green.ogg"),
        ("rem", "R.E.M. - Green.ogg"),
        ("c#", "C# in Depth.pdf"),
        ("don't", "Don't Stop.ogg"),
    ],
)
async def test_what_is_indexed_meets_what_is_asked_for(running, text, path):
    running.write(path)
    running.mkdir("C in Depth")
    running.write("C in Depth/東西京.txt")
    await running.library.wait_idle()

    entries, total = await running.library.match_words(text, 10)

    assert ([entry.path for entry in entries], total) == ([path], 1)


async def test_pages_go_on_in_the_order_in_which_files_came(running, monkeypatch):
    monkeypatch.setattr(searching, "FILES_AT_ONCE", 2)
    for number in (3, 1, 4, 2, 0):
        running.write(f"song {number}")
        await running.library.wait_idle()

    first, total = await running.library.match_words("song", 2)
    running.write("song 3", b"others")
    await running.library.wait_idle()
    second, left = await running.library.match_words("song", 9, after=first[-1].path)

    assert ([entry.path for entry in first], total) == (["song 3", "song 1"], 5)
    assert ([entry.path[5:] for entry in second], left) == (["4", "2", "0", "3"], 4)
    with pytest.raises(NotFoundError):
        await running.library.match_words("song", 9, after="song 5")


async def test_a_common_word_costs_what_is_sent_and_not_what_there_is(running, monkeypatch):
    monkeypatch.setattr(searching, "FILES_AT_ONCE", 4)
    for number in range(20):
        running.write(f"song {number}", b"%d" % number)
    await running.library.wait_idle()
    looked_at = []
    real = Index.files
    monkeypatch.setattr(
        Index, "files", lambda index, numbers: looked_at.extend(numbers) or real(index, numbers)
    )

    entries, total = await running.library.match_words("song", 3)

    assert (len(entries), total, len(looked_at)) == (3, 20, 4)


async def test_words_find_only_what_is_offered_now(running):
    running.write("one song", b"1")
    running.write("two song", b"2")
    await running.library.wait_idle()
    running.library.write_began("one song")

    entries, total = await running.library.match_words("song", 10)

    assert ([entry.path for entry in entries], total) == (["two song"], 1)


# Pausing, waiting, counting.


async def test_nothing_is_offered_while_paused(running):
    running.write("f", b"f")
    await running.library.wait_idle()
    version = running.library.version

    running.library.pause()

    assert running.library.version != version
    assert running.library.is_paused
    assert running.library.find_path("f") is None
    assert listed(running.library, "") is None
    assert running.library.find_id(id_of(b"f")) is None
    assert await running.library.match_words("f", 10) == ((), 0)
    assert running.library.file_state("f") == FileState("paused", id_of(b"f"))

    running.library.resume()
    assert running.offered() == {"f": id_of(b"f")}
    assert running.library.file_state("f") == FileState("published", id_of(b"f"))


async def test_a_waiter_is_told_of_every_change(running):
    version = running.library.version

    for change in (lambda: running.write("f", b"f"), lambda: running.remove("f")):
        change()
        with trio.fail_after(60):
            version = await running.library.wait_changed(version)

    assert running.library.version >= version


async def test_a_look_that_finds_nothing_new_changes_no_version(running):
    running.mkdir("d")
    await running.library.wait_idle()
    version = running.library.version

    running.library.touched("d")
    running.library.touched("absent")
    await running.library.wait_idle()

    assert running.library.version == version


async def test_statistics_count_files_and_bytes(running):
    running.write("a", b"12345")
    running.write("b", b"67")
    await running.library.wait_idle()
    running.remove("b")
    await running.library.wait_idle()

    statistics = running.library.statistics()
    assert (statistics.files, statistics.bytes, statistics.hashing) == (1, 5, 0)


async def test_unknown_contents_and_blocks_are_not_found(running):
    running.write("f", bytes(MIN_BLOCK_BYTES))
    await running.library.wait_idle()
    file_id = running.library.find_path("f").file_id

    with pytest.raises(NotFoundError):
        await running.library.manifest(FileId(bytes(32)))
    for index in (-1, 1):
        with pytest.raises(NotFoundError):
            await read_block(running.library, file_id, index)


async def test_facts_may_come_from_other_threads_and_after_the_end(tmp_path):
    world = World(tmp_path, trio.to_thread.run_sync)
    async with world.running():

        def write_many(prefix):
            for number in range(50):
                world.write(f"{prefix}{number}", b"%d" % number)
                if number % 2:
                    world.remove(f"{prefix}{number}")

        async with trio.open_nursery() as nursery:
            for prefix in "abcd":
                nursery.start_soon(trio.to_thread.run_sync, write_many, prefix)
        await world.library.wait_idle()

        expected = {f"{p}{n}": id_of(b"%d" % n) for p in "abcd" for n in range(0, 50, 2)}
        assert world.offered() == expected
    world.remove("a0")
    assert world.library.find_path("a0") is None


async def test_a_directory_is_walked_to_once_for_all_of_its_files(world, monkeypatch):
    opened, real = [], os.open
    monkeypatch.setattr(
        os, "open", lambda path, *how, **at: opened.append(path) or real(path, *how, **at)
    )
    for number in range(20):
        world.put(f"a/b/{number}", b"%d" % number)
    async with world.running():
        assert len(world.offered("a/b")) == 20

    assert sum(path == "b" for path in opened) <= 4
    assert not [one for one in map(_target, _descriptors()) if one.startswith(world.root)]


def _descriptors():
    return [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]


def _target(descriptor):
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:  # that of the listing itself
        return ""


async def test_those_who_wait_are_not_woken_for_each_file(tmp_path, monkeypatch):
    """The rounds wake them after each hop: from there it costs nothing."""
    wakes, real = [], ChangeSignal.wake
    monkeypatch.setattr(ChangeSignal, "wake", lambda alarm: wakes.append(alarm) or real(alarm))
    world = World(tmp_path)
    for number in range(50):
        world.put(f"{number}", b"%d" % number)
    async with world.running():
        assert len(world.offered()) == 50
        assert len(wakes) < 10
        version = world.library.version
        with trio.fail_after(5):
            world.put("new", b"new")
            world.library.touched("new")
            while "new" not in world.offered():
                version = await world.library.wait_changed(version)
