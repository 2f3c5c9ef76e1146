"""Notifications of failed downloads, on a real session bus with a desktop that writes them down."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from jeepney import MessageType, message_bus, new_error, new_method_return
from jeepney.io.trio import open_dbus_connection

from p2pfs.host import desktop
from p2pfs.host.desktop import MAX_LINES, done_notice_of, notice_of, notify
from p2pfs.journal import Journal, JournalEvent, Severity
from tests.helpers.sessionbus import needs_bus, session_bus


def failure(path: str, text: str = "no holder can be reached") -> JournalEvent:
    return JournalEvent(0.0, Severity.ERROR, text, path)


def test_one_failure_is_told_by_its_name():
    assert notice_of([failure("films/x.mkv")]) == (
        "Download failed: x.mkv",
        "no holder can be reached",
    )


def test_many_failures_are_told_in_one_notification():
    summary, body = notice_of([failure(f"d/{n}") for n in range(MAX_LINES + 2)])

    assert summary == "5 downloads failed"
    assert body.splitlines()[0] == "0: no holder can be reached"
    assert body.splitlines()[MAX_LINES:] == ["and 2 more"]


def test_what_peers_wrote_is_no_markup():
    _, body = notice_of([failure("x", "'<b>' & co"), failure("<a href=x>", "y")])

    assert body == "x: '&lt;b&gt;' &amp; co\n&lt;a href=x&gt;: y"


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[None]:
    with session_bus(tmp_path):
        yield


class Desktop:
    """What shows notifications; or refuses to, or never answers."""

    def __init__(self) -> None:
        self.shown: list[tuple[object, ...]] = []
        self.asked = trio.Event()
        self.refuses = False
        self.is_silent = False

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with await open_dbus_connection("SESSION") as connection:
            await connection.send(message_bus.RequestName("org.freedesktop.Notifications"))
            task_status.started()
            while True:
                message = await connection.receive()
                if message.header.message_type is MessageType.method_call and not self.is_silent:
                    await connection.send(self._answer(message))
                    self.asked.set()

    def _answer(self, message):
        if self.refuses:
            return new_error(message, "org.example.No")
        self.shown.append(message.body)
        return new_method_return(message, "u", (len(self.shown) + 40,))


@asynccontextmanager
async def on_desktop(monkeypatch) -> AsyncIterator[tuple[Journal, Desktop]]:
    monkeypatch.setattr(desktop, "GATHER_FAILURES_S", 0.05)
    monkeypatch.setattr(desktop, "NOTICE_EVERY_S", 0.05)
    monkeypatch.setattr(desktop, "BUS_TIMEOUT_S", 0.5)
    journal, screen = Journal(), Desktop()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(screen.run)
            nursery.start_soon(notify, journal)
            await trio.testing.wait_all_tasks_blocked()
            yield journal, screen
            nursery.cancel_scope.cancel()
    assert journal._listeners == ()


@needs_bus
async def test_failed_downloads_are_shown_together_and_the_next_in_their_place(bus, monkeypatch):
    async with on_desktop(monkeypatch) as (journal, screen):
        journal.info("not this", "x")
        journal.warning("nor this", "x")
        journal.warning("nor that")
        journal.error("nobody has it", "films/a.mkv")
        await trio.to_thread.run_sync(journal.error, "nobody has it", "films/b.mkv")
        await screen.asked.wait()
        screen.asked = trio.Event()
        journal.error("too slow", "c.mkv")
        await screen.asked.wait()

    (first, second) = screen.shown
    assert first[:5] == ("p2pfs", 0, "", "2 downloads failed",
                         "a.mkv: nobody has it\nb.mkv: nobody has it")  # fmt: skip
    assert second[:5] == ("p2pfs", 41, "", "Download failed: c.mkv", "too slow")


@needs_bus
async def test_what_is_done_is_shown_by_itself_if_it_is_wanted(bus, monkeypatch):
    async with on_desktop(monkeypatch) as (journal, screen):
        journal.error("nobody has it", "films/a.mkv")
        journal.done("pinned: all of it is here", "films/<b>.mkv")
        while len(screen.shown) < 2:
            await trio.sleep(0.01)

    failure, done = screen.shown
    assert failure[:5] == ("p2pfs", 0, "", "Download failed: a.mkv", "nobody has it")
    assert done[:5] == ("p2pfs", 0, "", "Here: <b>.mkv", "pinned: all of it is here")


@needs_bus
async def test_what_is_about_no_file_is_shown_by_itself(bus, monkeypatch):
    async with on_desktop(monkeypatch) as (journal, screen):
        journal.error("nobody has it", "films/a.mkv")
        for _ in range(2):
            journal.error("the directory behind <shared/> was removed")
        while len(screen.shown) < 2:
            await trio.sleep(0.01)

    failure, trouble = screen.shown
    assert failure[3:5] == ("Download failed: a.mkv", "nobody has it")
    assert trouble[:5] == ("p2pfs", 0, "", "Trouble with p2pfs",
                           "the directory behind &lt;shared/&gt; was removed")  # fmt: skip


def test_what_is_done_is_told_in_few_lines():
    journal = Journal()
    for number in range(MAX_LINES + 2):
        journal.done("downloaded", f"d/<{number}>")

    assert done_notice_of(journal.events()) == (
        "5 downloads are here", "&lt;0&gt;\n&lt;1&gt;\n&lt;2&gt;\nand 2 more",
    )  # fmt: skip


@needs_bus
async def test_what_is_not_wanted_is_not_shown(bus, monkeypatch):
    wanted = False
    journal, screen = Journal(), Desktop()
    monkeypatch.setattr(desktop, "GATHER_FAILURES_S", 0.01)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(screen.run)
            nursery.start_soon(notify, journal, lambda: wanted)
            await trio.testing.wait_all_tasks_blocked()
            journal.error("one", "x")
            await trio.testing.wait_all_tasks_blocked()
            wanted = True
            journal.error("two", "y")
            await screen.asked.wait()
            nursery.cancel_scope.cancel()

    assert [body for *_, body, _actions, _hints, _time in screen.shown] == ["two"]


@needs_bus
async def test_a_desktop_that_refuses_or_is_silent_or_gone_is_no_failure(bus, monkeypatch):
    async with on_desktop(monkeypatch) as (journal, screen):
        screen.refuses = True
        journal.error("one", "x")
        await screen.asked.wait()
        screen.asked, screen.refuses, screen.is_silent = trio.Event(), False, True
        journal.error("two", "x")
        await trio.sleep(0.3)
        with monkeypatch.context() as nowhere:
            nowhere.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
            await trio.sleep(0.5)
            journal.error("three", "x")
            await trio.sleep(0.3)
        screen.is_silent = False
        journal.error("four", "x")
        await screen.asked.wait()

    assert screen.shown[-1][4] == "four"


async def test_without_a_desktop_nothing_runs(monkeypatch):
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    await notify(Journal())
