"""Notify the user's desktop of failures and finished downloads: the only file that knows D-Bus.

A reader that fails gets an errno, and programs seldom show more of it than "input/output error".
Where there is a session bus, a notification says which file it was, and why. Another one says when
a long `get` or a pin is whole. A third tells of trouble that concerns no file and that no program
would show: nothing is shared any more, because the directory behind `shared/` was removed.
"""

from __future__ import annotations

import contextlib
import functools
import html
import logging
import os
from collections.abc import Callable, Sequence
from typing import Final

import trio
from jeepney import DBusAddress, DBusErrorResponse, HeaderFields, Message, new_method_call
from jeepney.auth import AuthenticationError
from jeepney.io.trio import open_dbus_connection
from jeepney.wrappers import unwrap_msg

from p2pfs.journal import Journal, JournalEvent, Severity

log = logging.getLogger(__name__)

GATHER_FAILURES_S: Final = 0.5
"""How long the first failure waits for others: `cp -r` fails file by file."""

NOTICE_EVERY_S: Final = 10.0
"""The time between two notifications; failures in between go into the next one."""

BUS_TIMEOUT_S: Final = 5.0
"""The time that the desktop gets to answer; after it the notification is dropped."""

MAX_LINES: Final = 3
"""Failures that one notification names; the rest are counted."""

MAX_UNTOLD: Final = 1_000
"""Failures that wait for the next notification; further ones are dropped."""

_BUS: Final = "DBUS_SESSION_BUS_ADDRESS"

_NOTIFICATIONS: Final = DBusAddress(
    "/org/freedesktop/Notifications",
    bus_name="org.freedesktop.Notifications",
    interface="org.freedesktop.Notifications",
)


async def notify(journal: Journal, is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Show errors and finished downloads on the desktop while that is wanted.

    It goes on until cancelled, and returns if there is no desktop.

    An error of the desktop is logged, and never raised.
    """
    if not os.environ.get(_BUS):
        return
    token = trio.lowlevel.current_trio_token()
    put, told = trio.open_memory_channel[JournalEvent](MAX_UNTOLD)

    def wait_to_be_told(event: JournalEvent) -> None:
        with contextlib.suppress(trio.WouldBlock):
            put.send_nowait(event)

    def heard(event: JournalEvent) -> None:
        if _is_told(event) and is_wanted():
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(wait_to_be_told, event)

    with journal.heard_by(heard), put, told:
        shown_failures = shown_troubles = shown_done = 0
        while True:
            waiting = [await told.receive()]
            await trio.sleep(GATHER_FAILURES_S)
            with contextlib.suppress(trio.WouldBlock):
                while True:
                    waiting.append(told.receive_nowait())
            if failed := [event for event in waiting if not event.is_done and event.path]:
                shown_failures = await _show(*notice_of(failed), replaces=shown_failures)
            if troubles := [event for event in waiting if not event.path]:
                shown_troubles = await _show(*trouble_notice_of(troubles), replaces=shown_troubles)
            if done := [event for event in waiting if event.is_done]:
                shown_done = await _show(*done_notice_of(done), replaces=shown_done)
            await trio.sleep(NOTICE_EVERY_S)


def _is_told(event: JournalEvent) -> bool:
    return event.severity is Severity.ERROR or (event.is_done and bool(event.path))


def notice_of(failures: Sequence[JournalEvent]) -> tuple[str, str]:
    """Return the summary and the body, which may be taken for markup, of a notification."""
    names = [failure.path.rpartition("/")[2] for failure in failures]
    if len(failures) == 1:
        return f"Download failed: {names[0]}", html.escape(failures[0].text, quote=False)
    lines = [f"{name}: {one.text}" for name, one in zip(names, failures, strict=True)]
    lines[MAX_LINES:] = [f"and {len(lines) - MAX_LINES} more"] if len(lines) > MAX_LINES else []
    return f"{len(failures)} downloads failed", html.escape("\n".join(lines), quote=False)


def trouble_notice_of(troubles: Sequence[JournalEvent]) -> tuple[str, str]:
    """Return the summary and the body of a notification of errors that are about no file."""
    texts = list(dict.fromkeys(one.text for one in troubles))
    return "Trouble with p2pfs", html.escape("\n".join(texts[-MAX_LINES:]), quote=False)


def show_once(summary: str, text: str) -> None:
    """Show one notification, from a program without trio; do nothing where there is no desktop."""
    if os.environ.get(_BUS):
        trio.run(functools.partial(_show, summary, html.escape(text, quote=False), replaces=0))


async def _show(summary: str, body: str, *, replaces: int) -> int:
    """Show a notification, in place of an earlier one; return its number, or 0."""
    arguments: tuple[object, ...] = (
        "p2pfs",
        replaces,
        "",
        summary,
        body,
        [],
        {"urgency": ("y", 1)},
        -1,
    )
    call = new_method_call(_NOTIFICATIONS, "Notify", "susssasa{sv}i", arguments)
    try:
        with trio.fail_after(BUS_TIMEOUT_S):
            return int(unwrap_msg(await _reply_to(call))[0])
    except (OSError, RuntimeError, trio.TooSlowError, trio.BrokenResourceError,
            trio.EndOfChannel, AuthenticationError, DBusErrorResponse) as error:  # fmt: skip
        log.info("no notification shown reason=%r", error)
        return 0


def done_notice_of(done: Sequence[JournalEvent]) -> tuple[str, str]:
    """Return the summary and the body of a notification of finished downloads."""
    names = [event.path.rstrip("/").rpartition("/")[2] for event in done]
    if len(done) == 1:
        return f"Here: {names[0]}", html.escape(done[0].text, quote=False)
    lines = names[:MAX_LINES]
    lines += [f"and {len(names) - MAX_LINES} more"] if len(names) > MAX_LINES else []
    return f"{len(done)} downloads are here", html.escape("\n".join(lines), quote=False)


async def _reply_to(call: Message) -> Message:
    async with await open_dbus_connection("SESSION") as connection:
        serial = next(connection.outgoing_serial)
        await connection.send(call, serial=serial)
        while True:
            message = await connection.receive()
            if message.header.fields.get(HeaderFields.reply_serial) == serial:
                return message
