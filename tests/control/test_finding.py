"""What a path means to a servent, asked through the real socket."""

from __future__ import annotations

import os

import pytest
import trio

from p2pfs.config import load_config
from p2pfs.control import ExitStatus, VerbError
from p2pfs.control.client import Hangup, Running, ask, list_directory
from p2pfs.control.paths import received_target
from p2pfs.control.server import serve_control
from p2pfs.control.verbs import ROWS
from p2pfs.errors import NotAskedError
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import FileId
from tests.helpers.fakeservent import FakeServent

EMPTY = FileId(bytes(32))


@pytest.fixture
def servent(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return FakeServent(load_config({"name": "fake"}, state_directory=str(tmp_path / "state")))


@pytest.fixture
async def running(servent, nursery):
    await nursery.start(serve_control, servent, lambda: None)
    return Running(os.getpid(), None, "", str(servent.config.control_path))


async def asked(running, verb, **args):
    return await trio.to_thread.run_sync(ask, running, verb, args)


async def test_look_tells_files_from_directories(servent, running):
    servent.offer("films/x", b"abc")

    assert await asked(running, "look", path="network/films") == {
        "name": "films",
        "is_directory": True,
        "place": "network/films",
    }
    assert await asked(running, "look", path="network/films/x") == {
        "name": "x",
        "is_directory": False,
        "size": 3,
        "id": "00" * 32,
        "place": "network/films/x",
    }
    assert (await asked(running, "look", path="network/"))["is_directory"]
    for path, status in (
        ("network/nothing", ExitStatus.NOT_FOUND),
        ("network/films/x/", ExitStatus.USAGE),
        ("shared/x", ExitStatus.USAGE),
        ("elsewhere/x", ExitStatus.USAGE),
    ):
        with pytest.raises(VerbError) as caught:
            await asked(running, "look", path=path)
        assert caught.value.status == status


async def test_a_listing_comes_in_pieces_and_is_whole(servent, running):
    names = [f"{number:05}" for number in range(2 * ROWS + 1)]
    for name in names:
        servent.nodes[f"films/{name}"] = RemoteFile(f"films/{name}", 0, 0, EMPTY, ())

    servent.partial_listings["films"] = "2 servents did not answer"

    with pytest.raises(VerbError, match="nobody within the horizon"):
        await asked(running, "list", path="network/nothing")
    with pytest.raises(VerbError, match="is a file, not a directory"):
        await asked(running, "list", path="network/films/00000")
    rows, partial = await trio.to_thread.run_sync(
        list_directory, running, received_target("network/films")
    )

    assert [row["name"] for row in rows] == names
    assert partial == "2 servents did not answer"


async def test_a_question_that_nobody_may_be_asked_waits_its_turn(servent, running):
    servent.offer("films/x", b"abc")
    find, refusals = servent.find, [NotAskedError("too many searches", 0.01)] * 2

    async def seldom(path):
        if refusals:
            raise refusals.pop()
        return await find(path)

    servent.find = seldom

    assert (await asked(running, "look", path="network/films/x"))["size"] == 3
    refusals.append(NotAskedError("too many searches", 60.0))
    with pytest.raises(VerbError, match="too many searches") as caught:
        await asked(running, "look", path="network/films/x")
    assert caught.value.status == ExitStatus.UNREACHABLE


@pytest.mark.parametrize("verb", ["look", "get", "pin"])
async def test_a_file_of_our_own_is_told_where_it_is(servent, running, verb):
    servent.library.own[EMPTY] = "films/x"
    target = received_target(f"id/{EMPTY.hex()}")

    with pytest.raises(VerbError, match=r"not in the network: shared/films/x$") as caught:
        await asked(running, verb, path=str(target), paths=[str(target)])

    assert caught.value.status == ExitStatus.USAGE


async def test_what_is_asked_with_a_hangup_ends_with_it(servent, running):
    servent.search_takes_s = 1000.0
    hangup = Hangup()

    async def search():
        with pytest.raises(VerbError):
            await trio.to_thread.run_sync(
                lambda: ask(running, "search", {"words": "whale"}, hangup=hangup)
            )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(search)
        while not servent.calls:
            await trio.sleep(0.01)
        hangup.end()
    while "search cancelled" not in servent.calls:
        await trio.sleep(0.01)
    with pytest.raises(VerbError):  # nor does anything begin after it
        await trio.to_thread.run_sync(lambda: ask(running, "status", hangup=hangup))


async def test_a_result_is_found_by_its_path_in_the_network_too(servent, running):
    for path, published in (("whale/x", "films/sea/x"), ("whale/y", "films/y")):
        servent.results.files[path] = RemoteFile(path, 3, 0, EMPTY, ())
        servent.results.published[path] = published

    for path in ("search/whale/x", "search/whale/films/sea/x", "network/search/whale/x"):
        assert (await asked(running, "look", path=path))["name"] == "x", path
    for path in ("search/whale/films/x", "search/whale/sea/x", "network/search/whale/z"):
        with pytest.raises(VerbError, match="nobody within the horizon"):
            await asked(running, "look", path=path)
    (row,) = await asked(running, "pin", paths=["search/whale/films/sea/x"])
    assert row["path"] == "films/sea/x"


async def test_a_path_may_begin_with_the_name_of_its_sub_tree(servent, running):
    servent.offer("films/x", b"abc")
    servent.shares.files["ann/films/x"] = RemoteFile("ann/films/x", 4, 0, EMPTY, ())

    assert (await asked(running, "look", path="network/network/films/x"))["size"] == 3
    assert (await asked(running, "look", path="network/peers/ann/films/x"))["size"] == 4
    rows = await trio.to_thread.run_sync(
        list_directory, running, received_target("network/peers/ann/films")
    )
    assert [row["name"] for row in rows[0]] == ["x"]
    (row,) = await asked(running, "pin", paths=["network/peers/ann/films/x"])
    assert row["path"] == "films/x"
    servent.offer("peers/ann/films/x", b"in a directory that is called so")
    assert (await asked(running, "look", path="network/peers/ann/films/x"))["size"] == 32
