"""A virtual screen of a test's own, with a session bus and a home, for programs with windows.

There is no window manager: a window appears above the others, and what is typed goes to the
one below the pointer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from jeepney import message_bus
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import unwrap_msg

from tests.helpers.mounted import PATIENCE_S, until
from tests.helpers.sessionbus import session_bus

SIZE = (760, 420)

STILL_S = 0.4
"""A program that has changed nothing on the screen for this time is done."""


def why_no_screen(*programs: str) -> str | None:
    """Return what is not installed of these and of what a screen needs."""
    missing = [name for name in ("Xvfb", "xdotool", "dbus-daemon", *programs) if not which(name)]
    return f"not installed: {', '.join(missing)}" if missing else None


def which(program: str) -> str | None:
    """Return where a program is. Services of the desktop are not on the path."""
    services = (str(path) for path in Path("/usr/lib").glob("*/tumbler-1"))
    return shutil.which(program, path=os.pathsep.join((os.environ["PATH"], *services)))


class Screen:
    """The screen, and who sits before it."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        """Where programs keep what is theirs."""
        self.picture = directory / "Xvfb_screen0"
        """What is to be seen, as `xwd` writes it."""
        self._log = directory / "log"
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a program, which ends with the screen."""
        path = which(program)
        assert path is not None
        with self._log.open("a") as log:
            process = subprocess.Popen([path, *arguments], stdout=log, stderr=log)
        self._started.append(process)
        return process

    def wait_window(self, title: str) -> None:
        """Return when a window with such words in its title is there, and has been drawn."""
        until(lambda: title in self._titles())
        self.wait_still()

    def wait_service(self, name: str) -> None:
        """Return when a program has taken such a name on the bus."""
        with open_dbus_connection("SESSION") as connection:
            has_owner = message_bus.NameHasOwner(name)
            until(lambda: unwrap_msg(connection.send_and_get_reply(has_owner))[0])

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, and wait for what comes of it."""
        self._xdotool("key", "--delay", "50", *keys)
        self.wait_still()

    def click(self, x: int, y: int) -> None:
        """Click at a place; what is pressed next comes after it."""
        self._xdotool("mousemove", str(x), str(y), "click", "1")

    def wait_still(self) -> None:
        """Return when nothing moves on the screen any more."""
        ends_at = time.monotonic() + PATIENCE_S
        seen, since = b"", time.monotonic()
        while time.monotonic() - since < STILL_S:
            assert time.monotonic() < ends_at, "the screen does not come to rest"
            if (now := self.picture.read_bytes()) != seen:
                seen, since = now, time.monotonic()
            time.sleep(STILL_S / 8)

    def end(self) -> None:
        """End what was started."""
        for process in self._started:
            process.terminate()
        for process in self._started:
            process.wait(PATIENCE_S)

    def _titles(self) -> str:
        return self._xdotool("search", "--onlyvisible", "--name", ".", "getwindowname", "%@")

    def _xdotool(self, *words: str) -> str:
        command = ["xdotool", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        return done.stdout


@contextmanager
def open_screen(directory: Path) -> Iterator[Screen]:
    """Give programs started by the test a screen, a bus and an empty home, all in a directory."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        (directory / "home").mkdir(parents=True)
        patch.setenv("HOME", str(directory / "home"))
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            patch.delenv(name, raising=False)
        patch.setenv("NO_AT_BRIDGE", "1")
        patch.setenv("GTK_A11Y", "none")
        patch.setenv("DISPLAY", stack.enter_context(_server(directory)))
        stack.enter_context(session_bus(directory))
        screen = Screen(directory)
        stack.callback(screen.end)
        yield screen


@contextmanager
def _server(directory: Path) -> Iterator[str]:
    """Run an X server for a screen, and return its name."""
    width, height = SIZE
    told, tell = os.pipe()
    command = [
        "Xvfb", "-displayfd", str(tell), "-screen", "0", f"{width}x{height}x24",
        "-fbdir", str(directory), "-nolisten", "tcp", "-noreset",
    ]  # fmt: skip
    with (directory / "log").open("a") as log, open(told) as number:
        process = subprocess.Popen(command, pass_fds=[tell], stdout=log, stderr=log)
        os.close(tell)
        try:
            yield f":{number.readline().strip()}"
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
