"""What people see in a real terminal while files come: `transfers`, `get` and `top`."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.helpers.mounted import PATIENCE_S, PROJECT, Servent, open_servents, until

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]

CONTENT = random.Random(1).randbytes(6_000_000)
LIMIT = "1MB"
"""Of the one source, so that the download takes six seconds."""


FIRST_AHEAD_BYTES = 5 * 256 * 1024
"""What is fetched with the manifest: the first block and what a reader of it would want next."""


class Terminal:
    """One terminal of 100 by 24 characters in which a command runs."""

    def __init__(self, directory: Path, command: Sequence[str]) -> None:
        self._tmux = ("tmux", "-S", str(directory / "tmux"), "-f", "/dev/null")
        words = f"{shlex.join(command)}; echo status $?; read -r _"
        self._run("new-session", "-d", "-x", "100", "-y", "24", words)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments],
            env=os.environ | {"PYTHONPATH": str(PROJECT), "LC_ALL": "C.UTF-8", "TERM": "xterm"},
            capture_output=True, text=True, check=True, timeout=PATIENCE_S,
        )  # fmt: skip
        return done.stdout

    def text(self) -> str:
        """Return what is on the screen now."""
        return self._run("capture-pane", "-p")

    def wait_for(self, *words: str) -> str:
        """Return the screen when all of these are on it."""
        until(lambda: all(word in self.text() for word in words))
        return self.text()

    def press(self, key: str) -> None:
        """Press a key, as tmux calls it."""
        self._run("send-keys", key)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.press("C-c")

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False)


class Scene:
    """A reader and a slow source of one film."""

    def __init__(self, directory: Path, reader: Servent, source: Servent) -> None:
        self.reader = reader
        self.source = source
        self._directory = directory
        self._terminals: list[Terminal] = []

    def terminal(self, verb: str, *arguments: str | Path, whose: Servent | None = None) -> Terminal:
        """Run a verb of the reader's, or of another's, in a new terminal."""
        servent = whose or self.reader
        directory = self._directory / f"terminal-{len(self._terminals)}"
        directory.mkdir()
        command = [sys.executable, "-m", "p2pfs", verb, "-m", servent.state, *arguments]
        self._terminals.append(Terminal(directory, [str(word) for word in command]))
        return self._terminals[-1]

    def close(self) -> None:
        for terminal in self._terminals:
            terminal.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with open_servents(tmp_path) as servents:
        source = servents.start("source", "--upload-limit", LIMIT)
        source.share("film.mkv", CONTENT)
        reader = servents.start("reader", joins=[source])
        reader.sees("film.mkv")
        scene = Scene(tmp_path, reader, source)
        yield scene
        scene.close()


def test_top_shows_what_goes_on_and_ends_on_ctrl_c(scene: Scene):
    film = scene.reader.network / "film.mkv"
    reading = threading.Thread(target=film.read_bytes)
    reading.start()
    top = scene.terminal("top")

    shown = top.wait_for("film.mkv", "reading", "source", "KiB/s", "━")
    assert "5.7 MiB" in shown
    assert "downloads: 1" in shown
    assert "no uploads" in shown
    reading.join()
    top.wait_for("no downloads", "source")
    top.interrupt()

    after = top.wait_for("status 0")
    assert "film.mkv" not in after  # the screen is as it was before
    assert "Traceback" not in after


def test_top_of_the_source_shows_who_gets_what_and_ends_on_q(scene: Scene):
    reading = threading.Thread(target=(scene.reader.network / "film.mkv").read_bytes)
    reading.start()
    top = scene.terminal("top", whose=scene.source)
    transfers = scene.terminal("transfers", whose=scene.source)

    shown = top.wait_for("uploads: 1", "film.mkv", "sending", "reader", "KiB/s", "q ends")
    assert "no downloads" in shown
    assert f"--join {scene.source.address}" in shown
    assert "upload" in transfers.wait_for("film.mkv", "reader", "status 0")
    top.press("x")
    top.wait_for("uploads: 1")
    top.press("q")

    after = top.wait_for("status 0")
    assert "film.mkv" not in after
    assert "Z" not in after
    top.press("Z")
    top.wait_for("Z")  # what is typed is shown again
    reading.join()


def test_top_says_that_sharing_is_paused_and_survives_its_servent(scene: Scene):
    top = scene.terminal("top")
    top.wait_for("no downloads", "source")
    scene.reader.ask("pause")
    top.wait_for("paused")
    scene.reader.ask("resume")
    until(lambda: "paused" not in top.text())

    scene.reader.unmount()

    after = top.wait_for("status 6")
    assert "Traceback" not in after
    assert "no uploads" not in after


def test_get_shows_rate_and_remaining_time_and_goes_on_where_it_was(scene: Scene, tmp_path: Path):
    destination = tmp_path / "out.mkv"
    get = scene.terminal("get", "film.mkv", "-o", destination)
    shown = get.wait_for("film.mkv", "━", "of 5.7 MiB", "/s", " left")
    assert "%" in shown
    left = tmp_path / "out.mkv.part"
    until(lambda: left.stat().st_size >= len(CONTENT) // 2)
    get.interrupt()
    get.wait_for("status 130")
    assert not destination.exists()
    until(lambda: scene.reader.rows("transfers") == [])
    assert scene.reader.ask("clear-cache")  # so that only the partial file can help
    before = scene.reader.status()["downloaded_bytes"]
    kept = left.stat().st_size

    again = scene.terminal("get", "film.mkv", "-o", destination)
    again.wait_for("status 0")

    assert destination.read_bytes() == CONTENT
    assert not left.exists()
    fetched = scene.reader.status()["downloaded_bytes"] - before
    assert fetched <= len(CONTENT) - kept + FIRST_AHEAD_BYTES
