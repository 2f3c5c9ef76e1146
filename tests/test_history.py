"""The book of what was fetched: kept, bounded, and the owner's alone."""

from __future__ import annotations

import os
import stat

import pytest
import trio
from trio.testing import MockClock

from p2pfs import history
from p2pfs.history import History
from p2pfs.protocol import FileId, PeerInfo, ServentId
from tests.helpers.threads import run_directly

ANN = PeerInfo(ServentId("a" * 32), "ann", ())
BEN = PeerInfo(ServentId("b" * 32), "ben", ())


def content(number: int) -> FileId:
    return FileId(number.to_bytes(32, "big"))


@pytest.fixture
def book(tmp_path) -> History:
    return open_book(tmp_path)


def open_book(tmp_path) -> History:
    return History(tmp_path / "history.jsonl", lambda: 1e9, run_directly)


async def test_a_fetch_is_told_with_who_got_it_and_who_gave_it(book):
    book.opened(content(7), "mpv", os.getuid(), "films")
    book.fetched("films/a.mkv", content(7), 100, {ANN: 20, BEN: 60}, is_whole=False)
    book.fetched("b", content(9), 5, {ANN: 5}, is_whole=True)

    first, second = await book.rows(10)
    assert first == {
        "time": 1e9, "path": "films/a.mkv", "id": content(7).hex(), "size": 100, "bytes": 80,
        "whole": False, "program": "mpv", "user": first["user"],
        "peers": [
            {"id": "b" * 32, "name": "ben", "bytes": 60},
            {"id": "a" * 32, "name": "ann", "bytes": 20},
        ],
    }  # fmt: skip
    assert first["user"]
    assert (second["path"], second["user"], second["program"]) == ("b", None, "")
    assert await book.rows(1) == [second]


async def test_it_outlives_the_servent_and_is_its_owners_alone(book, tmp_path):
    book.fetched("a", content(1), 5, {ANN: 5}, is_whole=True)
    book.close()
    anew = open_book(tmp_path)
    anew.fetched("b", content(2), 5, {ANN: 5}, is_whole=True)

    assert [row["path"] for row in await anew.rows(10)] == ["a", "b"]
    assert stat.S_IMODE((tmp_path / "history.jsonl").stat().st_mode) == 0o600


async def test_what_comes_after_a_line_that_was_cut_is_not_lost_with_it(book, tmp_path):
    book.fetched("a", content(1), 5, {ANN: 5}, is_whole=True)
    book.fetched("b", content(2), 5, {ANN: 5}, is_whole=True)
    book.close()
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    book.fetched("c", content(3), 5, {ANN: 5}, is_whole=True)

    assert [row["path"] for row in await book.rows(10)] == ["a", "c"]


def lines_in(tmp_path) -> int:
    return (tmp_path / "history.jsonl").read_bytes().count(b"\n")


async def test_a_fetch_that_ends_alone_is_written_before_time_passes(
    autojump_clock: MockClock, book, tmp_path
):
    async with trio.open_nursery() as nursery:
        await nursery.start(book.run)
        for number in range(3):
            book.fetched(f"{number}", content(number), 5, {ANN: 5}, is_whole=True)
            began_at = trio.current_time()
            await trio.testing.wait_all_tasks_blocked()
            assert (trio.current_time(), lines_in(tmp_path)) == (began_at, number + 1)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()


async def test_of_fetches_that_end_together_most_are_written_together(
    autojump_clock: MockClock, tmp_path
):
    writings = []

    async def counted(close):
        writings.append(trio.current_time())
        return await run_directly(close)

    book = History(tmp_path / "history.jsonl", lambda: 1e9, counted)
    async with trio.open_nursery() as nursery:
        await nursery.start(book.run)
        for number in range(1000):
            book.fetched(f"{number}", content(number), 5, {ANN: 5}, is_whole=True)
            await trio.sleep(0.001)
        await trio.sleep(history.WRITES_APART_S)
        assert lines_in(tmp_path) == 1000
        nursery.cancel_scope.cancel()

    assert len(writings) <= 1 / history.WRITES_APART_S + 2


async def test_it_is_bounded_and_the_older_half_goes(book, tmp_path, monkeypatch):
    monkeypatch.setattr(history, "MAX_HISTORY_BYTES", 20_000)
    for number in range(500):
        book.fetched(f"{number}", content(number), 5, {ANN: 5}, is_whole=True)
        book.close()
        assert (tmp_path / "history.jsonl").stat().st_size <= 20_500

    paths = [int(row["path"]) for row in await book.rows(10**6)]
    assert paths == list(range(paths[0], 500))
    assert 30 < len(paths) < 120
    assert stat.S_IMODE((tmp_path / "history.jsonl").stat().st_mode) == 0o600


async def test_a_line_that_was_cut_is_left_out(book, tmp_path):
    book.fetched("a", content(1), 5, {ANN: 5}, is_whole=True)
    book.close()
    with open(tmp_path / "history.jsonl", "ab") as file:
        file.write(b'{"time": 1, "pa\n[]\nnull\n')
    book.fetched("b", content(2), 5, {ANN: 5}, is_whole=True)

    assert [row["path"] for row in await book.rows(10)] == ["a", "b"]


async def test_it_can_be_forgotten(book, tmp_path):
    assert await book.clear() == 0
    for number in range(2):
        book.fetched(f"{number}", content(number), 5, {ANN: 5}, is_whole=True)

    assert await book.clear() == 2
    assert await book.rows(10) == []
    assert not (tmp_path / "history.jsonl").exists()


async def test_a_disk_that_takes_nothing_is_told_in_the_log(book, tmp_path, expect_log):
    (tmp_path / "history.jsonl").mkdir()
    expect_log("history not written lines=1")
    book.fetched("a", content(1), 5, {ANN: 5}, is_whole=True)
    book.close()


async def test_of_many_peers_those_are_told_that_gave_most(book):
    many = {PeerInfo(ServentId(c * 32), c, ()): n for n, c in enumerate("abcdefghijklmnop", 1)}
    book.fetched("a", content(1), 500, many, is_whole=True)

    (row,) = await book.rows(1)
    assert [peer["name"] for peer in row["peers"]] == list("ponmlkji")
    assert row["bytes"] == sum(many.values())


async def test_what_is_fetched_ahead_is_for_who_has_opened_the_file_beside_it(book):
    book.opened(content(1), "mpv", os.getuid(), "films")
    book.opened(content(2), "cp", os.getuid())
    for number, path in enumerate(("films/a", "films/b", "films/c", "other/d"), 1):
        book.fetched(path, content(number), 5, {ANN: 5}, is_whole=True)

    programs = [row["program"] for row in await book.rows(10)]
    assert programs == ["mpv", "cp", "mpv", ""]
