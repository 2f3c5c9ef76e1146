"""Verbs through the real socket: the blocking client in a thread, the server in trio."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from msgspec.structs import replace

from p2pfs.config import load_config, socket_name
from p2pfs.control import MAX_REQUEST_BYTES, ExitStatus, VerbError, client, exit_status_of
from p2pfs.control.client import (
    Running,
    ask,
    choose_servent,
    end_servent,
    running_servents,
    servent_of,
)
from p2pfs.control.opening import SourceFile, open_destination
from p2pfs.control.paths import place_of, received_target
from p2pfs.control.server import serve_control
from p2pfs.errors import (
    CorruptError,
    HandshakeError,
    NoSourceError,
    NotFoundError,
    P2pfsError,
    StaleError,
    StalledError,
    UnreachableError,
    UsageError,
)
from p2pfs.mounts import Mount
from p2pfs.namespace.nodes import RemoteDirectory, RemoteFile
from p2pfs.protocol.manifest import FileId
from tests.helpers.fakeservent import FakeServent
from tests.helpers.limits import no_file_left


@pytest.fixture(autouse=True)
def _runtime(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def servent(tmp_path) -> FakeServent:
    config = load_config(
        {"name": "fake"}, state_directory=str(tmp_path / "a"), mountpoint=str(tmp_path / "mnt")
    )
    return FakeServent(config)


@asynccontextmanager
async def serving(servent: FakeServent):
    """Serve verbs; yield how to ask, and end."""

    async def ask_it(verb: str, on_progress=lambda *_: None, **args: object) -> object:
        running = await trio.to_thread.run_sync(choose_servent, str(servent.config.mountpoint))
        return await trio.to_thread.run_sync(ask, running, verb, args, on_progress)

    async with trio.open_nursery() as nursery:
        end = nursery.cancel_scope.cancel
        with trio.fail_after(60):
            await nursery.start(serve_control, servent, end)
            yield ask_it
        end()


def connect(client: socket.socket, servent: FakeServent) -> None:
    """Connect to the control socket, however long the path of the test's directory is."""
    with socket_name(str(servent.config.control_path)) as name:
        client.connect(name)


async def connected(servent: FakeServent) -> trio.SocketStream:
    """Connect in the same way; return the stream."""
    with socket_name(str(servent.config.control_path)) as name:
        return await trio.open_unix_socket(name)


async def get(
    servent: FakeServent, path: str, output: Path | str, *, replace: bool = False, on_progress=None
) -> str | None:
    """Download as the command does; return the name of the file."""

    def in_thread() -> str | None:
        running = choose_servent(str(servent.config.mountpoint))
        target = received_target(path)
        name = path.rpartition("/")[2]
        with open_destination(str(output), name, replace=replace) as destination:
            client.get(running, target, destination, on_progress or (lambda *_: None))
            return destination.shown

    return await trio.to_thread.run_sync(in_thread)


async def publish(servent: FakeServent, file: Path | str, name: str | None = None):
    """Publish as the command does; return how the file stands."""

    def in_thread():
        running = choose_servent(str(servent.config.mountpoint))
        with SourceFile(str(file)) as source:
            return client.publish(running, source, name or source.name, lambda *_: None)

    return await trio.to_thread.run_sync(in_thread)


async def test_verbs_without_arguments_give_what_the_servent_says(servent):
    servent.rows = [{"path": "a"}]
    async with serving(servent) as ask_it:
        assert await ask_it("status") == servent.status()
        assert await ask_it("peers") == servent.rows
        assert await ask_it("transfers") == servent.rows
        for verb in ("leave", "pause", "resume"):
            await ask_it(verb)

    assert servent.calls == ["leave", "pause", "resume"]


async def test_the_history_is_told_and_forgotten(servent):
    servent.history.fetched("a", FileId(bytes(32)), 5, {}, is_whole=True)
    async with serving(servent) as ask_it:
        (row,) = await ask_it("history", last=10)
        assert (row["path"], row["size"]) == ("a", 5)
        assert await ask_it("clear-history") == {"forgotten": 1}
        assert await ask_it("history", last=10) == []
        for last in (None, 0, "1"):
            with pytest.raises(VerbError, match="a number of fetches is needed"):
                await ask_it("history", last=last)


async def test_that_a_command_is_done_is_an_event(servent):
    async with serving(servent) as ask_it:
        await ask_it("finished", path="films", text="downloaded: 3 files")

    (event,) = servent.journal.events()
    assert (event.path, event.text, event.is_done) == ("films", "downloaded: 3 files", True)


async def test_what_is_pinned_is_found_first_and_can_be_unpinned(servent):
    servent.offer("films/x", b"abc")
    async with serving(servent) as ask_it:
        done = await ask_it("pin", paths=["network/films/x"])
        assert done == [{"path": "films/x", "id": "00" * 32, "size": 3}]
        assert servent.pins.paths == ["films/x"]

        await ask_it("unpin", path="network/films/x")
        assert servent.pins.paths == []
        for verb in ("pin", "unpin"):
            with pytest.raises(VerbError) as caught:
                await ask_it(verb, path="network/nowhere", paths=["network/nowhere"])
            assert caught.value.status == ExitStatus.NOT_FOUND


async def test_what_is_found_below_search_and_peers_is_pinned_as_what_it_is(servent):
    file = RemoteFile("films/x", 3, 0, FileId(bytes(32)), ())
    servent.results.files["blue/x"] = replace(file, path="blue/x")
    servent.results.published["blue/x"] = "films/x"
    servent.shares.files["ann/films/y"] = replace(file, path="ann/films/y")
    async with serving(servent) as ask_it:
        done = await ask_it("pin", paths=["search/blue/x", "peers/ann/films/y"])
        assert [row["path"] for row in done] == ["films/x", "films/y"]
        assert servent.pins.paths == ["films/x", "films/y"]
        await ask_it("unpin", path="search/blue/x")
        await ask_it("unpin", path="peers/ann/films/y")
        for tree in (
            "search/blue/x",
            "search/blue/films/x",
            "peers/ann/films/x",
            "network/films/x",
        ):
            await ask_it("pin", paths=["search/blue/x"])
            assert await ask_it("unpin", path=f"network/{tree}") == [{"path": "films/x"}]

    assert servent.pins.paths == []


async def test_what_is_pinned_below_a_directory_goes_with_it(servent):
    for path in ("films/a", "films/old/b", "films2/c"):
        servent.offer(path, b"abc")
    servent.results.files["blue/a"] = replace(servent.nodes["films/a"], path="blue/a")
    servent.results.published["blue/a"] = "films/a"
    async with serving(servent) as ask_it:
        await ask_it("pin", paths=[f"network/{path}" for path in servent.nodes])
        assert await ask_it("unpin", path="search/blue") == [{"path": "films/a"}]
        assert await ask_it("unpin", path="network/films") == [{"path": "films/old/b"}]
        assert servent.pins.paths == ["films2/c"]
        with pytest.raises(VerbError, match=r"^films is not pinned$"):
            await ask_it("unpin", path="network/films")


async def test_nothing_is_pinned_if_one_is_not_there(servent):
    servent.offer("films/a", b"abc")
    async with serving(servent) as ask_it:
        paths = ["network/films/a", "network/films/b"]
        with pytest.raises(VerbError, match=r"^mnt/films/b: nobody within the horizon has it$"):
            await ask_it("pin", paths=paths, typed=["mnt/films/a", "mnt/films/b"])

    assert servent.pins.paths == []


async def test_a_file_id_is_as_good_as_a_path(servent, tmp_path):
    servent.offer("films/x", b"content")
    file_id = servent.nodes["films/x"].file_id.hex()
    async with serving(servent) as ask_it:
        assert (await ask_it("look", path=f"id/{file_id}"))["name"] == "x"
        await get(servent, f"id/{file_id}", tmp_path / "copy")
        done = await ask_it("pin", paths=[f"id/{file_id}"])
        assert [row["path"] for row in done] == ["films/x"]
        with pytest.raises(VerbError, match=r"^ff.*: nobody within the horizon has it$"):
            await ask_it("look", path=f"id/{'ff' * 32}")
        with pytest.raises(VerbError, match="not a directory"):
            await ask_it("list", path=f"id/{file_id}")

    assert (tmp_path / "copy").read_bytes() == b"content"


async def test_what_is_found_below_search_and_peers_is_got(servent, tmp_path):
    servent.offer("films/x", b"content")
    servent.results.files["blue/x"] = servent.nodes["films/x"]
    servent.shares.files["ann/films/x"] = servent.nodes.pop("films/x")
    async with serving(servent):
        for number, path in enumerate(("search/blue/x", "peers/ann/films/x")):
            await get(servent, path, tmp_path / f"{number}")
            assert (tmp_path / f"{number}").read_bytes() == b"content"
        with pytest.raises(VerbError, match=r"^search/blue/y: nobody"):
            await get(servent, "search/blue/y", tmp_path / "y")


async def test_what_is_not_utf8_is_not_found(servent):
    async with serving(servent) as ask_it:
        path = "network/caf\udce9.mp3"
        for verb in ("pin", "unpin", "get"):
            with pytest.raises(VerbError) as caught:
                await ask_it(verb, path=path, paths=[path])
            assert caught.value.status == ExitStatus.NOT_FOUND


async def test_a_file_has_no_slash_at_its_end(servent):
    servent.offer("films/x", b"abc")
    async with serving(servent) as ask_it:
        with pytest.raises(VerbError, match="not a directory"):
            await ask_it("pin", paths=["network/films/x/"])


async def test_a_directory_cannot_be_pinned(servent):
    servent.nodes["films"] = RemoteDirectory("films", 0, ())
    async with serving(servent) as ask_it:
        with pytest.raises(VerbError, match="directory") as caught:
            await ask_it("pin", paths=["network/films"])

    assert caught.value.status == ExitStatus.USAGE


async def test_the_cache_can_be_looked_at_and_cleared(servent):
    async with serving(servent) as ask_it:
        assert await ask_it("cache") == {"limit_bytes": 2048, "used_bytes": 1536, "files": []}
        assert await ask_it("clear-cache") == {"freed_bytes": 1536}

    assert servent.calls == ["clear cache"]


async def test_events_come_with_time_severity_text_and_path(servent):
    servent.journal.error("no source", "films/x")
    async with serving(servent) as ask_it:
        assert await ask_it("events") == [
            {"time": 1e9, "severity": "error", "text": "no source", "path": "films/x"}
        ]


async def test_socket_and_record_are_the_owners_alone_and_go_with_the_servent(servent):
    path = servent.config.control_path
    async with serving(servent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [one.pid for one in await trio.to_thread.run_sync(running_servents)] == [os.getpid()]

    assert list(path.parent.iterdir()) == []


async def test_a_socket_may_lie_deeper_than_its_address_is_long(servent, tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 100)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))

    async with serving(servent) as ask_it:
        assert await ask_it("status") == servent.status()


async def test_a_servent_whose_record_was_removed_is_found(servent):
    async with serving(servent) as ask_it:
        servent.config.control_path.with_suffix(".json").unlink()

        assert await ask_it("status") == servent.status()


async def test_what_shows_the_way_is_made_anew(servent, monkeypatch):
    monkeypatch.setattr("p2pfs.control.server.DOOR_LOOK_S", 0.01)
    path = servent.config.control_path
    async with serving(servent) as ask_it:
        shutil.rmtree(path.parent)
        while not path.with_suffix(".json").exists():
            await trio.sleep(0.01)

        assert await ask_it("status") == servent.status()
        path.unlink()
        while not path.exists():
            await trio.sleep(0.01)
        assert await ask_it("status") == servent.status()

    assert list(path.parent.iterdir()) == []


async def test_a_second_servent_on_one_state_directory_is_refused(servent):
    async with serving(servent):
        with pytest.raises(UsageError, match="running already"):
            await serve_control(servent, lambda: None)

        assert servent.config.control_path.exists()


async def test_search_needs_a_word(servent):
    async with serving(servent) as ask_it:
        await ask_it("search", words="blue whale")
        with pytest.raises(VerbError) as caught:
            await ask_it("search", words="- !")

    assert caught.value.status == ExitStatus.USAGE
    assert servent.calls == ["search blue whale"]


async def test_a_client_that_hangs_up_cancels_its_verb(servent):
    servent.search_takes_s = 1000
    async with serving(servent):
        with socket.socket(socket.AF_UNIX) as client:
            connect(client, servent)
            client.sendall(b'{"verb": "search", "args": {"words": "blue"}}\n')
            while not servent.calls:
                await trio.lowlevel.checkpoint()
        while "search cancelled" not in servent.calls:
            await trio.lowlevel.checkpoint()


async def test_a_long_verb_shows_that_the_servent_lives(servent, monkeypatch):
    monkeypatch.setattr("p2pfs.control.server.ALIVE_EVERY_S", 0)
    servent.search_takes_s = 1000
    async with serving(servent):
        stream = await connected(servent)
        async with stream:
            await stream.send_all(b'{"verb": "search", "args": {"words": "blue"}}\n')

            assert (await stream.receive_some(20)) == b'{"progress": null}\n'[:20]


async def test_a_silent_servent_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("p2pfs.control.client.SILENCE_S", 0.01)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "stuck"))
        listener.listen()
        stuck = Running(os.getpid(), None, "", str(tmp_path / "stuck"))

        with pytest.raises(VerbError, match="does not answer") as caught:
            await trio.to_thread.run_sync(ask, stuck, "status")

    assert caught.value.status == ExitStatus.UNREACHABLE


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b"[]\n",
        b"nonsense\n",
        b"\xff\n",
        b'{"verb": "burn", "args": {}}\n',
        b'{"verb": [], "args": {}}\n',
        b'{"verb": "status", "args": []}\n',
        b'{"verb": "search", "args": {"words": 1}}\n',
        b'{"verb": "get", "args": {"path": "a"}}\n',
        b'{"verb": "unpublish", "args": {"paths": []}}\n',
        b'{"verb": "join", "args": {"address": "::"}}\n',
        b'{"verb": "pin", "args": {"paths": ["network/\\ud800"]}}\n',
        b'{"verb": "unpublish", "args": {"paths": ["shared/\\ud800"]}}\n',
        b'{"verb": "unpublish", "args": {"paths": ["shared/\\u0000"]}}\n',
        b"[" * 100_000 + b"\n",
    ],
)
async def test_what_is_no_request_is_a_usage_error(servent, line):
    async with serving(servent):
        stream = await connected(servent)
        async with stream:
            await stream.send_all(line)

            assert json.loads(await stream.receive_some())["status"] == ExitStatus.USAGE


STATUS = b'{"verb": "status", "args": {}}\n'


async def answer_to(servent: FakeServent, request: bytes, *, then_closes: bool = False) -> bytes:
    """Return all that is answered to these bytes, sent at once."""
    stream = await connected(servent)
    async with stream:
        await stream.send_all(request)
        if then_closes:
            await stream.send_eof()
        return b"".join([data async for data in stream])


@pytest.mark.parametrize("more", [b"\n", b"x", STATUS, b"\0" * 100_000])
async def test_what_follows_a_request_is_no_matter(servent, more):
    async with serving(servent):
        (answer,) = (await answer_to(servent, STATUS + more)).splitlines()

    assert json.loads(answer) == {"ok": servent.status()}


async def test_a_client_may_close_its_half(servent):
    servent.search_takes_s = 0.1
    async with serving(servent):
        request = b'{"verb": "search", "args": {"words": "blue"}}\n'
        answer = await answer_to(servent, request, then_closes=True)

    assert json.loads(answer) == {"ok": {"files": [], "partial": None}}


@pytest.mark.parametrize("request_", [b'{"verb": "status"', STATUS[:-2], b"\0"])
async def test_a_request_that_is_cut_off_is_told_so(servent, request_):
    async with serving(servent):
        answer = await answer_to(servent, request_, then_closes=True)

    assert json.loads(answer) == {"error": "not a request", "status": ExitStatus.USAGE}


async def test_what_comes_behind_a_request_does_not_cancel_it(servent):
    servent.search_takes_s = 0.1
    async with serving(servent):
        stream = await connected(servent)
        async with stream:
            await stream.send_all(b'{"verb": "search", "args": {"words": "blue"}}\n')
            while not servent.calls:
                await trio.lowlevel.checkpoint()
            await stream.send_all(b"\n")
            answer = {"ok": {"files": [], "partial": None}}
            assert json.loads(await stream.receive_some()) == answer


def handed_over(path: Path, request: bytes, descriptors: list[int]) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        with socket_name(str(path)) as name:
            client.connect(name)
        socket.send_fds(client, [request], descriptors)
        return b"".join(iter(lambda: client.recv(65_536), b""))


async def test_descriptors_that_nobody_wants_are_closed(servent):
    async with serving(servent):
        before = os.listdir("/proc/self/fd")
        path = servent.config.control_path
        with open("/dev/null", "rb") as null:
            handed = [null.fileno()]
            answer = await trio.to_thread.run_sync(handed_over, path, STATUS, handed)
            many = await trio.to_thread.run_sync(handed_over, path, STATUS, handed * 100)

        assert json.loads(answer) == {"ok": servent.status()}
        assert b"ok" not in many
        await trio.testing.wait_all_tasks_blocked()
        assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_that_no_descriptor_is_free_is_told(servent):
    async with serving(servent):
        with socket.socket(socket.AF_UNIX) as client, open("/dev/null", "rb") as null:
            connect(client, servent)
            await trio.testing.wait_all_tasks_blocked()
            with no_file_left():
                socket.send_fds(client, [STATUS], [null.fileno()])
                client.setblocking(False)
                stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
                answer = json.loads(await stream.receive_some())

    assert answer == {"error": "Too many open files", "status": ExitStatus.FAILED}


async def test_a_request_without_end_is_hung_up_on(servent):
    async with serving(servent):
        stream = await connected(servent)
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x" * 2 * MAX_REQUEST_BYTES)


async def test_a_bug_in_a_verb_is_told_and_logged(servent, expect_log):
    expect_log("verb failed")
    servent.status = lambda: 1 / 0
    async with serving(servent) as ask_it:
        with pytest.raises(VerbError, match="a bug of ours"):
            await ask_it("status")
        assert await ask_it("peers") == []


# get


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1, 3 * 2**20])
async def test_get_writes_the_whole_file(servent, tmp_path, size):
    content = os.urandom(size)
    servent.offer("films/x.mkv", content)
    progress = []
    async with serving(servent):
        shown = await get(
            servent,
            "network/films/x.mkv",
            tmp_path,
            on_progress=lambda done, size: progress.append((done, size)),
        )

    assert shown == str(tmp_path / "x.mkv")
    assert (tmp_path / "x.mkv").read_bytes() == content
    assert not (tmp_path / "x.mkv.part").exists()
    assert progress[-1:] == [(size, size)] * (size > 0)
    assert servent.readers[0].is_closed


async def test_get_minds_no_leftover(servent, tmp_path):
    servent.offer("x", b"new")
    (tmp_path / "y.part").write_bytes(b"left by a servent that was killed")
    async with serving(servent):
        await get(servent, "network/x", tmp_path / "y")

    assert (tmp_path / "y").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoSourceError("no holder can be reached"), ExitStatus.UNREACHABLE),
        (StalledError("nothing arrived"), ExitStatus.UNREACHABLE),
        (CorruptError("wrong bytes"), ExitStatus.CORRUPT),
        (StaleError("it changed"), ExitStatus.FAILED),
    ],
)
async def test_a_get_that_fails_says_why_and_leaves_nothing(servent, tmp_path, error, status):
    servent.offer("x", b"new")
    servent.read_error = error
    async with serving(servent):
        with pytest.raises(VerbError, match=str(error)) as caught:
            await get(servent, "network/x", tmp_path / "x")

    assert caught.value.status == status
    assert not list(tmp_path.glob("x*"))
    assert servent.readers[0].is_closed


async def test_get_of_what_nobody_has_is_not_found(servent, tmp_path):
    async with serving(servent):
        with pytest.raises(VerbError, match="nobody") as caught:
            await get(servent, "network/x", tmp_path / "x")

    assert caught.value.status == ExitStatus.NOT_FOUND


async def test_get_of_a_directory_is_a_usage_error(servent, tmp_path):
    servent.nodes["films"] = RemoteDirectory("films", 0, ())
    async with serving(servent):
        with pytest.raises(VerbError, match="is a directory"):
            await get(servent, "network/films", tmp_path / "x")


BLOCK = 256 * 1024
FILM = os.urandom(5 * 2**20 + 17)


def damaged(content: bytes, *blocks: int) -> bytes:
    """Return a content with one wrong bit in each of these blocks."""
    wrong = bytearray(content)
    for block in blocks:
        wrong[block * BLOCK] ^= 1
    return bytes(wrong)


LEFTOVERS = [
    (FILM[: 3 * BLOCK + 100], range(3, 21)),
    (FILM, []),
    (FILM + b"more", []),
    (damaged(FILM, 2, 7), [2, 7]),
    (b"\0" * len(FILM), range(21)),
    (b"\0" * 9 * BLOCK + FILM[9 * BLOCK :], range(9)),
]


@pytest.mark.parametrize("name", ["y", "y.part"])
@pytest.mark.parametrize(("leftover", "fetched"), LEFTOVERS)
async def test_get_fetches_what_is_wrong_or_missing_in_a_partial_file(
    servent, tmp_path, name, leftover, fetched
):
    servent.offer("x", FILM)
    (tmp_path / name).write_bytes(leftover)
    async with serving(servent):
        await get(servent, "network/x", tmp_path / "y", replace=True)

    assert (tmp_path / "y").read_bytes() == FILM
    assert not (tmp_path / "y.part").exists()
    (reader,) = servent.readers
    whole = {offset // BLOCK for offset, length in reader.reads if length not in (1, 100)}
    assert whole == set(fetched)


@pytest.mark.parametrize("size", [0, 1, BLOCK, 3 * BLOCK + 100, len(FILM) - 1, len(FILM)])
async def test_a_destination_that_holds_the_beginning_is_completed(servent, tmp_path, size):
    servent.offer("x", FILM)
    (tmp_path / "y").write_bytes(FILM[:size])
    async with serving(servent):
        await get(servent, "network/x", tmp_path / "y")

    assert (tmp_path / "y").read_bytes() == FILM
    assert not (tmp_path / "y.part").exists()


async def test_a_destination_that_holds_all_of_it_is_left_alone(servent, tmp_path):
    servent.offer("x", FILM)
    servent.offer("empty", b"")
    (tmp_path / "y").write_bytes(FILM)
    (tmp_path / "empty").write_bytes(b"")
    before = os.stat(tmp_path / "y")
    async with serving(servent):
        await get(servent, "network/x", tmp_path / "y")
        await get(servent, "network/empty", tmp_path / "empty")

    after = os.stat(tmp_path / "y")
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert sorted(os.listdir(tmp_path)) == ["a", "empty", "p2pfs", "y"]


OTHERS = {
    "small": b"precious",
    "longer": FILM + b"more",
    "damaged": damaged(FILM, 2),
    "damaged beginning": damaged(FILM, 0)[:BLOCK],
    "wrong end": FILM[: 3 * BLOCK] + b"no",
    "zeros": b"\0" * len(FILM),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
async def test_another_file_is_replaced_only_by_force(servent, tmp_path, other):
    servent.offer("x", FILM)
    (tmp_path / "y").write_bytes(other)
    async with serving(servent):
        with pytest.raises(VerbError, match=r"/y is another file.*--force") as caught:
            await get(servent, "network/x", tmp_path / "y")
        assert caught.value.status == ExitStatus.USAGE
        assert (tmp_path / "y").read_bytes() == other
        assert not (tmp_path / "y.part").exists()

        await get(servent, "network/x", tmp_path / "y", replace=True)

    assert (tmp_path / "y").read_bytes() == FILM


async def test_two_files_of_one_name_do_not_replace_each_other(servent, tmp_path):
    for number in "12":
        servent.offer(f"{number}/x", number.encode())
    (tmp_path / "d").mkdir()
    async with serving(servent):
        await get(servent, "network/1/x", tmp_path / "d")
        with pytest.raises(VerbError, match="another file"):
            await get(servent, "network/2/x", tmp_path / "d")

    assert (tmp_path / "d" / "x").read_bytes() == b"1"


async def test_a_get_that_is_interrupted_keeps_what_came_for_the_next(servent, tmp_path):
    servent.offer("x", FILM)
    servent.read_error_from = 2 * 2**20
    servent.read_error = NoSourceError("no holder can be reached")
    async with serving(servent):
        with pytest.raises(VerbError, match=r"kept in .*/y\.part") as caught:
            await get(servent, "network/x", tmp_path / "y")
        assert caught.value.status == ExitStatus.UNREACHABLE
        assert not (tmp_path / "y").exists()
        servent.read_error = None

        await get(servent, "network/x", tmp_path / "y")

    assert (tmp_path / "y").read_bytes() == FILM
    again = [offset for offset, length in servent.readers[1].reads if length > 1]
    assert min(again) == 2 * 2**20


async def test_two_gets_of_one_destination_do_not_mix(servent, tmp_path, monkeypatch):
    monkeypatch.setattr("p2pfs.control.opening.LOCK_WAIT_S", 0.1)
    servent.offer("x", FILM)
    with open_destination(str(tmp_path / "y"), "x"):
        async with serving(servent):
            with pytest.raises(UsageError, match="another get is writing"):
                await get(servent, "network/x", tmp_path / "y")


async def test_get_does_not_follow_a_planted_link(servent, tmp_path):
    servent.offer("x", b"new")
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "x.part").symlink_to(tmp_path / "victim")
    async with serving(servent):
        with pytest.raises(OSError, match=r"x\.part"):
            await get(servent, "network/x", tmp_path / "x")

    assert (tmp_path / "victim").read_text() == "precious"


async def test_get_writes_into_a_pipe(servent):
    servent.offer("x", FILM)
    read_end, write_end = os.pipe()
    received = bytearray()

    def drain() -> None:
        while data := os.read(read_end, 2**20):
            received.extend(data)

    async with serving(servent), trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, drain)
        assert await get(servent, "network/x", f"/dev/fd/{write_end}") is None
        os.close(write_end)
    os.close(read_end)

    assert received == FILM


async def test_a_pipe_that_nobody_reads_ends_the_download(servent):
    servent.offer("x", FILM)
    read_end, write_end = os.pipe()
    os.close(read_end)
    async with serving(servent):
        with pytest.raises(BrokenPipeError):
            await get(servent, "network/x", f"/dev/fd/{write_end}")
        assert servent.readers[0].is_closed
    os.close(write_end)


async def test_a_download_into_no_open_file_is_refused(servent, tmp_path):
    servent.offer("x", b"new")
    async with serving(servent) as ask_it:
        for args in ({}, {"stream": True}, {"destination": str(tmp_path / "x")}):
            with pytest.raises(VerbError, match="open files") as caught:
                await ask_it("get", path="network/x", **args)
            assert caught.value.status == ExitStatus.USAGE

    assert not (tmp_path / "x").exists()


# publish, unpublish


async def test_publish_copies_into_the_share(servent, tmp_path):
    content = os.urandom(2**20 + 1)
    (tmp_path / "näme.bin").write_bytes(content)
    (tmp_path / "näme.bin").chmod(0o700)
    async with serving(servent):
        done = await publish(servent, tmp_path / "näme.bin")

    copy = servent.config.shared_directory / "näme.bin"
    assert done == {"path": "näme.bin", "state": "published"}
    assert copy.read_bytes() == content
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    assert servent.library.touches == ["näme.bin"]
    assert os.listdir(servent.config.shared_directory) == ["näme.bin"]


async def test_publish_waits_for_the_hashing(servent, tmp_path):
    (tmp_path / "x").write_text("new")
    (servent.config.shared_directory / "x").write_text("old")
    servent.library.states["x"] = "hashing"
    results = []
    async with serving(servent), trio.open_nursery() as nursery:

        async def publish_it() -> None:
            results.append(await publish(servent, tmp_path / "x"))

        nursery.start_soon(publish_it)
        while not servent.library.touches:
            await trio.lowlevel.checkpoint()
        assert not results
        servent.library.hashed("x")

    assert results == [{"path": "x", "state": "published"}]
    assert (servent.config.shared_directory / "x").read_text() == "new"


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        "desktop.ini",
        "x.part",
        "\x1b[2J",
        "\udcff",
        "missing",
        "fifo",
        "directory",
        "taken",
    ],
)
async def test_what_cannot_be_published_leaves_the_share_alone(servent, tmp_path, name):
    for private in (".hidden", "desktop.ini", "x.part", "\x1b[2J", "\udcff"):
        (tmp_path / private).write_text("x")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "taken").write_text("x")
    (servent.config.shared_directory / "taken").mkdir()
    async with serving(servent):
        with pytest.raises((P2pfsError, OSError), match=re.escape(name)):
            await publish(servent, tmp_path / name)

    assert os.listdir(servent.config.shared_directory) == ["taken"]
    assert servent.library.touches == []


async def test_publish_says_that_a_name_is_not_utf8(servent, tmp_path):
    (tmp_path / "\udcff").write_text("x")
    async with serving(servent):
        with pytest.raises(VerbError, match="not UTF-8"):
            await publish(servent, tmp_path / "\udcff")


async def test_publish_reads_the_descriptor_and_no_name(servent, tmp_path):
    (tmp_path / "x").write_text("mine")
    descriptor = os.open(tmp_path / "x", os.O_RDONLY)
    os.unlink(tmp_path / "x")
    os.read(descriptor, 2)  # the place in the file is no matter
    async with serving(servent) as ask_it:
        done = await publish(servent, f"/dev/fd/{descriptor}")
        with pytest.raises(VerbError, match="open files"):
            await ask_it("publish", path="shared/y", mode=0o644)
    os.close(descriptor)

    assert done == {"path": str(descriptor), "state": "published"}
    assert os.listdir(servent.config.shared_directory) == [str(descriptor)]
    assert (servent.config.shared_directory / str(descriptor)).read_text() == "mine"


async def test_publish_takes_what_comes_through_a_pipe(servent):
    content = os.urandom(3 * 2**20)
    read_end, write_end = os.pipe()

    def fill() -> None:
        with open(write_end, "wb") as pipe:
            pipe.write(content)

    async with serving(servent), trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, fill)
        await publish(servent, f"/dev/fd/{read_end}", "piped")
    os.close(read_end)

    assert (servent.config.shared_directory / "piped").read_bytes() == content


async def test_publish_into_directories_makes_them(servent, tmp_path):
    (tmp_path / "x").write_text("content")
    async with serving(servent):
        assert (await publish(servent, tmp_path / "x", "films/old/x"))["path"] == "films/old/x"

    assert (servent.config.shared_directory / "films/old/x").read_text() == "content"
    assert servent.library.touches == ["films/old/x"]
    assert os.listdir(servent.config.shared_directory) == ["films"]


async def test_publish_does_not_leave_the_share(servent, tmp_path):
    (tmp_path / "x").write_text("content")
    (tmp_path / "outside").mkdir()
    (servent.config.shared_directory / "out").symlink_to(tmp_path / "outside")
    async with serving(servent):
        for path in ("out/x", "../x"):
            with pytest.raises(VerbError):
                await publish(servent, tmp_path / "x", path)

    assert os.listdir(tmp_path / "outside") == []
    assert os.listdir(servent.config.shared_directory) == ["out"]


async def test_the_copy_has_the_permissions_that_cp_would_give(servent, tmp_path):
    (tmp_path / "x").write_text("content")
    (tmp_path / "x").chmod(0o777)
    mask = os.umask(0o027)
    try:
        async with serving(servent):
            await publish(servent, tmp_path / "x")
    finally:
        os.umask(mask)

    assert stat.S_IMODE((servent.config.shared_directory / "x").stat().st_mode) == 0o750


async def test_unpublish_removes_from_the_share(servent):
    shared = servent.config.shared_directory
    (shared / "films").mkdir()
    for name in ("films/x", "y", "z"):
        (shared / name).write_text("")
    async with serving(servent) as ask_it:
        await ask_it("unpublish", paths=["shared/films/x", "shared/y"])

    assert sorted(os.listdir(shared)) == ["films", "z"]
    assert servent.library.touches == ["films/x", "y"]


async def test_unpublish_removes_a_directory_with_all_that_is_in_it_and_what_no_link_leads_to(
    servent, monkeypatch
):
    monkeypatch.setattr("p2pfs.control.files.REMOVED_AT_ONCE", 2)
    shared, state = servent.config.shared_directory, servent.config.state_directory
    (state / "mine").mkdir()
    (state / "mine/config.toml").write_text("")
    (shared / "films/old/empty").mkdir(parents=True)
    (shared / "films/out").symlink_to(state / "mine")
    (shared / "films/old/dangling").symlink_to("nowhere")
    (shared / "link").symlink_to("films")
    for number in range(5):
        (shared / "films" / f"{number}").write_text("")
    async with serving(servent) as ask_it:
        done = await ask_it("unpublish", paths=["shared/link", "shared/films/"])

    assert done == [{"path": "link", "files": 1}, {"path": "films", "files": 6}]
    assert os.listdir(shared) == []
    assert os.listdir(state / "mine") == ["config.toml"]
    assert servent.library.touches == ["link", "films"]


async def test_unpublish_leaves_alone_what_is_mounted_in_the_share(servent, monkeypatch):
    music = servent.config.shared_directory / "old/music"
    music.mkdir(parents=True)
    (music / "song").write_text("")
    mounts = [Mount("/", "ext4", 1), Mount(str(music), "ext4", 1)]
    monkeypatch.setattr("p2pfs.control.files.read_mounts", lambda: mounts)
    async with serving(servent) as ask_it:
        with pytest.raises(VerbError, match="is mounted there") as caught:
            await ask_it("unpublish", paths=["shared/old"])

    assert caught.value.status == ExitStatus.USAGE
    assert (music / "song").exists()


async def test_unpublish_leaves_alone_the_directories_that_are_shared_where_they_lie(
    servent, tmp_path
):
    music = tmp_path / "music"
    (music / "old").mkdir(parents=True)
    (music / "old/song").write_text("")
    async with serving(servent) as ask_it:
        await ask_it("share", directory=str(music))
        for path in ("shared/music", "shared/music/", "shared/music/old"):
            with pytest.raises(VerbError) as caught:
                await ask_it("unpublish", paths=[path])
            assert caught.value.status == ExitStatus.USAGE
        assert (music / "old/song").exists()
        await ask_it("unpublish", paths=["shared/music/old/song"])

    assert os.listdir(music / "old") == []


async def test_what_cannot_be_removed_is_named_as_in_the_mount(servent, monkeypatch):
    (servent.config.shared_directory / "old").mkdir()
    (servent.config.shared_directory / "old/x").write_text("")

    def unlink(name, *, dir_fd):
        raise PermissionError(errno.EACCES, "Permission denied", name)

    async with serving(servent) as ask_it:
        monkeypatch.setattr("p2pfs.control.files.os.unlink", unlink)
        with pytest.raises(VerbError, match=r"^Permission denied: shared/old/x$"):
            await ask_it("unpublish", paths=["shared/old"])
        monkeypatch.undo()

    assert servent.library.touches == ["old"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("shared/../config.toml", ExitStatus.USAGE),
        ("/etc/passwd", ExitStatus.USAGE),
        ("shared/..", ExitStatus.USAGE),
        ("shared/", ExitStatus.USAGE),
        ("shared/x/", ExitStatus.USAGE),
        ("shared/out/", ExitStatus.USAGE),
        ("network/x", ExitStatus.USAGE),
        ("x", ExitStatus.USAGE),
        ("shared/missing", ExitStatus.NOT_FOUND),
        ("shared/out/config.toml", ExitStatus.NOT_FOUND),
    ],
)
async def test_unpublish_removes_nothing_else(servent, path, status):
    state = servent.config.state_directory
    shared = servent.config.shared_directory
    (state / "config.toml").write_text("")
    (shared / "films").mkdir()
    (shared / "out").symlink_to(state)
    (shared / "x").write_text("")
    async with serving(servent) as ask_it:
        with pytest.raises(VerbError) as caught:
            await ask_it("unpublish", paths=["shared/x", path])

    assert caught.value.status == status
    assert (state / "config.toml").exists()
    assert (shared / "x").exists()


# join, finding, ending


async def test_join_tells_through_whom_or_why_not(servent):
    async with serving(servent) as ask_it:
        assert (await ask_it("join", address="known:1"))["name"] == "Known"
        with pytest.raises(VerbError, match="refused") as caught:
            await ask_it("join", address="other:1")

    assert caught.value.status == ExitStatus.UNREACHABLE


def test_exit_statuses_tell_the_kinds_of_failure_apart():
    kinds = [UsageError, NotFoundError, UnreachableError, HandshakeError, CorruptError, StaleError]

    assert [exit_status_of(kind("")) for kind in kinds] == [2, 3, 4, 4, 5, 1]


def servent_state_at(directory: str) -> str:
    return servent_of(directory).state_directory


def test_no_mountpoint_is_looked_at_to_find_its_servent(tmp_path, monkeypatch):
    """Who serves it may be stuck: even readlink(2) would then wait for an answer."""
    looked_at = []
    readlink = os.readlink

    def noted(path):
        looked_at.append(path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", noted)
    (tmp_path / "link").symlink_to("mnt")
    mountpoint = str(tmp_path / "mnt")

    assert place_of(str(tmp_path / "link" / "network" / ".." / "x"), [mountpoint]) == (
        f"{mountpoint}/x"
    )
    assert str(tmp_path / "link") in looked_at
    assert not [path for path in looked_at if path.startswith(mountpoint)]


async def test_a_servent_is_found_by_mount_by_state_by_place_or_alone(
    servent, tmp_path, monkeypatch
):
    other = FakeServent(load_config({"name": "other"}, state_directory=str(tmp_path / "b")))
    (tmp_path / "mnt" / "shared").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "to mnt").symlink_to("link/mnt")
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "mount link").symlink_to("link/mnt")

    def choose(directory: str | None = None) -> str:
        return choose_servent(directory).state_directory

    first, second = str(servent.config.state_directory), str(other.config.state_directory)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VerbError, match="no servent is running") as caught:
        choose()
    assert caught.value.status == ExitStatus.NO_SERVENT

    async with serving(servent):
        assert await trio.to_thread.run_sync(choose) == first
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, other, lambda: None)

            assert await trio.to_thread.run_sync(choose, "mnt/") == first
            assert await trio.to_thread.run_sync(choose, "link/mnt") == first
            assert await trio.to_thread.run_sync(choose, "to mnt") == first
            with pytest.raises(VerbError, match="no servent runs at"):
                await trio.to_thread.run_sync(choose, "round")
            assert await trio.to_thread.run_sync(choose, "mount link") == first
            assert await trio.to_thread.run_sync(choose, "mount link/network/films") == first
            assert await trio.to_thread.run_sync(choose, "mnt/nothing/..") == first
            assert await trio.to_thread.run_sync(choose, second) == second
            with pytest.raises(VerbError, match="several servents") as caught:
                await trio.to_thread.run_sync(choose)
            assert caught.value.status == ExitStatus.USAGE
            with pytest.raises(VerbError, match="no servent runs at") as caught:
                await trio.to_thread.run_sync(choose, "elsewhere")
            assert caught.value.status == ExitStatus.NO_SERVENT

            for directory in ("elsewhere/../mnt", "mnt/..", f"{second}/shared"):
                with pytest.raises(VerbError, match="no servent runs at"):
                    await trio.to_thread.run_sync(choose, directory)
            assert await trio.to_thread.run_sync(servent_state_at, "mount link") == first
            assert await trio.to_thread.run_sync(servent_state_at, second) == second
            with pytest.raises(VerbError, match="no servent runs at"):
                await trio.to_thread.run_sync(servent_state_at, "mnt/shared")

            def choose_for(path: str) -> str:
                return choose_servent(None, path).state_directory

            for path in ("mnt/network/x", "mount link/shared", str(tmp_path / "mnt")):
                assert await trio.to_thread.run_sync(choose_for, path) == first
            with pytest.raises(VerbError, match="several servents"):
                await trio.to_thread.run_sync(choose_for, "films/x")

            monkeypatch.chdir(tmp_path / "mnt" / "shared")
            assert await trio.to_thread.run_sync(choose) == first
            nursery.cancel_scope.cancel()


def test_broken_records_are_no_servents(tmp_path, servent):
    directory = servent.config.control_path.parent
    (directory / "torn.json").write_text('{"pid": 1')
    (directory / "dead.json").write_text('{"pid": 1, "mountpoint": null, "state": "/x"}')
    (directory / "odd.json").write_text("[]")

    assert running_servents() == []


async def test_shutdown_is_answered_before_the_end(servent):
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, servent, ended.set)
        running = Running(os.getpid(), None, "", str(servent.config.control_path))

        assert await trio.to_thread.run_sync(ask, running, "shutdown") is None

        with trio.fail_after(60):
            await ended.wait()
        nursery.cancel_scope.cancel()


def test_ending_a_servent_that_is_gone_is_no_error(tmp_path):
    with subprocess.Popen(["true"]) as process:
        # Not reaped yet: its number must not be somebody else's by now.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

        assert end_servent(Running(process.pid, None, "", str(tmp_path / "gone"))) is None


def test_a_process_that_only_has_the_number_of_a_servent_is_left_alone(tmp_path):
    with subprocess.Popen(["sleep", "1000"]) as process:
        end_servent(Running(process.pid, None, "", str(tmp_path / "gone")))

        assert process.poll() is None
        process.kill()


DEAF = """
import signal, socket, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("TERM", flush=True))
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
time.sleep(1000)
"""


def test_a_servent_that_does_not_answer_is_sent_a_signal(tmp_path, monkeypatch):
    monkeypatch.setattr("p2pfs.control.client.SERVENT_END_S", 0)
    monkeypatch.setattr("p2pfs.control.client.SILENCE_S", 0.1)
    path = str(tmp_path / "deaf")
    command = [sys.executable, "-c", DEAF, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(VerbError, match="does not end"):
            end_servent(Running(process.pid, None, "", path))

        assert process.stdout.readline() == b"TERM\n"
        process.kill()


@pytest.mark.parametrize(
    ("filename", "text"),
    [
        ("{shared}/films/x", "Permission denied: shared/films/x"),
        ("{shared}/.p2pfs-0123456789abcdef", "Permission denied"),
        (20, "Permission denied"),
        (None, "Permission denied"),
        ("/etc/x", "Permission denied: /etc/x"),
    ],
)
async def test_an_error_of_the_machine_names_nothing_that_is_nobodys(servent, filename, text):
    shared = servent.config.shared_directory
    name = filename.format(shared=shared) if isinstance(filename, str) else filename

    async def refused():
        await trio.lowlevel.checkpoint()
        raise PermissionError(13, "Permission denied", name)

    servent.leave = refused
    async with serving(servent) as ask_it:
        with pytest.raises(VerbError) as caught:
            await ask_it("leave")

    assert str(caught.value) == text


async def test_a_servent_that_cannot_write_its_record_leaves_no_socket(servent, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)

    with pytest.raises(OSError, match="No space left"):
        await serve_control(servent, lambda: None)

    assert list(servent.config.control_path.parent.iterdir()) == []
