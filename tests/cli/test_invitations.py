"""Invitations on the command line: no other user of the machine can read the key in one."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import pytest

from p2pfs.cli import concealing
from p2pfs.cli.concealing import expanded
from p2pfs.errors import UsageError
from tests.helpers.mounted import until

SECRET = "correct horse battery staple and more"


class Onlooker:
    """Reads the command lines of all processes, again and again, as `ps` would."""

    def __init__(self, needle: str) -> None:
        self._needle = needle.encode()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: dict[str, int] = {}
        self.looks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.is_set():
            self.looks += 1
            for place in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = place.read_bytes()
                except OSError:
                    continue
                if self._needle in text:
                    self.seen[place.parent.name] = self.seen.get(place.parent.name, 0) + 1


@pytest.fixture
def invited(processes) -> str:
    """Return an invitation to a private network in which one servent runs."""
    (processes.directory / "key").write_text(SECRET)
    processes.start("serve", "--network-key-file", "key", state="host")
    return processes.p2pfs("invite", "-m", "host").stdout.strip()


def is_in(processes, state: str) -> bool:
    return bool(processes.status("-m", state)["neighbours"])


@pytest.mark.parametrize("way", ["argument", "=", "stdin", "file"])
def test_a_servent_joins_by_an_invitation_that_no_process_shows(processes, invited, way):
    given = ""
    words = {
        "argument": ["--join", invited],
        "=": [f"--join={invited}"],
        "stdin": ["--join", "-"],
        "file": ["--join", "@invitation"],
    }[way]
    if way == "stdin":
        given = invited
    (processes.directory / "invitation").write_text(f"{invited}\n")
    command = ["serve", *words, "--listen", "127.0.0.1:0", "--state", "guest"]
    done = processes.p2pfs(*command, stdin=given)
    assert done.returncode == 0, done.stderr

    until(lambda: is_in(processes, "guest"))
    pid = processes.status("-m", "guest")["pid"]
    shown = Path(f"/proc/{pid}/cmdline").read_text()
    assert "join/" not in shown
    assert "--join" in shown
    assert "join/" not in Path(f"/proc/{pid}/environ").read_text()


def test_a_servent_in_the_foreground_shows_none_either(processes, invited):
    words = ("serve", "--join", invited, "--listen", "127.0.0.1:0", "--foreground")

    with processes.p2pfs_in_front(*words, "--state", "guest") as process:
        until(lambda: processes.p2pfs("status", "-m", "guest").returncode == 0)
        until(lambda: is_in(processes, "guest"))
        shown = Path(f"/proc/{process.pid}/cmdline").read_text()
        process.terminate()

    assert "--join" in shown
    assert "join/" not in shown


def test_an_invitation_that_a_mail_has_broken_is_whole(processes, invited):
    processes.start("serve", "--network-key-file", "key", state="guest")

    done = processes.p2pfs("join", "-m", "guest", f"{invited[:60]}\n  {invited[60:]}")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("strange", "why"),
    [("0", "'0' at place 41 is in none"), ("", "a character is wrong, missing or too much")],
    ids=["another character", "one is missing"],
)
def test_a_damaged_invitation_is_told_as_it_was_typed(processes, invited, strange, why):
    start = len("p2pfs:join/") + 40
    typed = invited[:start] + strange + invited[start + 1 :]
    if not strange:
        typed = typed[: len(typed) - (len(typed) - len("p2pfs:join/")) % 8]
    done = processes.p2pfs("serve", "--state", "s", "--join", typed)

    assert done.returncode == 2
    assert done.stderr == f"p2pfs: this invitation is damaged: {why}\n"


def test_of_a_damaged_invitation_nothing_stays_in_the_list_of_processes(monkeypatch):
    become: list[str] = []
    monkeypatch.setattr(sys, "orig_argv", ["python", "join", "p2pfs:join/ABC0DEF\n GHI", "-v"])
    monkeypatch.setattr(concealing, "_become_input", become.append)
    monkeypatch.setattr(concealing.os, "execv", lambda _program, words: become.extend(words[1:]))

    concealing.conceal(["p2pfs", *sys.orig_argv[1:]])

    assert become == ["p2pfs:join/ABC0DEFGHI\n", "join", "-", "-v"]


def test_what_joins_by_a_line_of_its_input_shows_nothing_ever(processes, invited):
    processes.start("serve", "--network-key-file", "key", state="guest")

    with Onlooker(invited[-20:]) as onlooker:
        done = processes.p2pfs("join", "-m", "guest", "-", stdin=invited)
    assert (done.returncode, onlooker.seen) == (0, {})
    assert onlooker.looks > 1


def test_a_unit_is_given_no_key(processes, invited):
    done = processes.p2pfs("service", "install", "--join", invited, "--state", "guest")

    assert done.returncode == 2
    assert "holds the key of its network, and all can read a unit" in done.stderr


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_that_nothing_was_there_is_told(processes, text):
    done = processes.p2pfs("serve", "--join", "-", "--state", "s", stdin=text)

    assert done.returncode == 2
    assert done.stderr == "p2pfs: there is no address and no invitation in the standard input\n"


def test_a_file_may_name_several(tmp_path):
    (tmp_path / "friends").write_text("one.example:4774\n\n  two.example \none.example:4774\n")

    assert expanded([f"@{tmp_path}/friends", "three:1"]) == [
        "one.example:4774", "two.example", "three:1",
    ]  # fmt: skip
    (tmp_path / "none").touch()
    with pytest.raises(UsageError, match="no address and no invitation in"):
        expanded([f"@{tmp_path}/none"])
    with pytest.raises(UsageError, match="missing: No such file"):
        expanded([f"@{tmp_path}/missing"])


def test_a_search_for_an_invitation_is_a_search():
    done = subprocess.run(
        [sys.executable, "-m", "p2pfs", "search", "mount", "p2pfs:join/AEAAA"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "no servent is running" in done.stderr or "nothing found" in done.stderr
