"""A failed download is shown on the desktop, unless nobody wants that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jeepney import message_bus, new_method_return
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from tests.helpers.mounted import PATIENCE_S, errno_name, open_servents
from tests.helpers.sessionbus import needs_bus, session_bus


def next_summary(connection: DBusConnection) -> str:
    """Wait for a notification, show it, and return its headline."""
    while True:
        message = connection.receive(timeout=PATIENCE_S)
        if message.body and message.body[0] == "p2pfs":
            connection.send(new_method_return(message, "u", (1,)))
            return message.body[3]


@needs_bus
@pytest.mark.fuse
def test_a_failed_download_is_shown_unless_nobody_wants_that(tmp_path: Path) -> None:
    with (
        session_bus(tmp_path),
        open_dbus_connection("SESSION") as connection,
        open_servents(tmp_path) as servents,
    ):
        connection.send_and_get_reply(message_bus.RequestName("org.freedesktop.Notifications"))
        anna = servents.start("anna")
        for path in ("quiet.mkv", "film.mkv"):
            anna.share(path, path.encode())
        arguments = ("--stall-timeout", "1")
        quiet = servents.start("quiet", "--no-notify", *arguments, joins=[anna])
        ben = servents.start("ben", *arguments, joins=[anna])
        paths = (quiet.sees("quiet.mkv"), ben.sees("film.mkv"))
        files = [os.open(path, os.O_RDONLY) for path in paths]
        anna.ask("pause")

        for file in files:
            assert errno_name(os.read, file, 1) == "EBUSY"
            os.close(file)

        assert next_summary(connection) == "Download failed: film.mkv"
