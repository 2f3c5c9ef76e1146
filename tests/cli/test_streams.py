"""Output in any encoding and to any file, and arguments in any locale: real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pfs.config import load_config
from tests.helpers.fakeservent import FakeServent, running
from tests.helpers.mounted import until

NAME = "Zażółć Zürich 日本.txt"
ROW = {"path": NAME, "size": 1536, "id": "ab" * 32, "peers": []}
IN_LATIN_1 = b"Za\\u017c\xf3\\u0142\\u0107 Z\xfcrich \\u65e5\\u672c.txt"
COMMAND = (sys.executable, "-m", "p2pfs")


@pytest.fixture
def latin1(tmp_path_factory) -> dict[str, str]:
    """The environment of a locale whose encoding is ISO 8859-1."""
    place = tmp_path_factory.mktemp("locale")
    environment = {"LOCPATH": str(place), "LC_ALL": "de_DE.ISO-8859-1"}
    make = f"localedef -i de_DE -f ISO-8859-1 '{place}/de_DE.ISO-8859-1'; locale charmap"
    done = shell(make, **environment)
    if done.stdout.splitlines()[-1:] != [b"ISO-8859-1"]:
        pytest.skip("no locale of ISO 8859-1 can be made here: install the package locales")
    return environment


@pytest.fixture
def servent(tmp_path, monkeypatch):
    """A servent that finds ROW and has sent it through a real socket."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    servent = FakeServent(load_config({"name": "fake"}, state_directory=str(tmp_path / "state")))
    servent.rows = [ROW]
    with running(servent):
        yield servent


def run(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=os.environ | environment,
        capture_output=True,
        timeout=60,
        check=False,
    )


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of bash, in which `p2pfs` is the command."""
    line = f'p2pfs() {{ "{sys.executable}" -m p2pfs "$@"; }}; {script}'
    return subprocess.run(
        ["bash", "-c", line],
        env=os.environ | environment,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"PYTHONIOENCODING": "ascii"}, rb"Za\u017c\xf3\u0142\u0107 Z\xfcrich \u65e5\u672c.txt"),
        ({"PYTHONIOENCODING": "latin-1"}, IN_LATIN_1),
        ({"LC_ALL": "C"}, NAME.encode()),
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, NAME.encode()),
    ],
)  # fmt: skip
def test_what_an_encoding_lacks_is_escaped(servent, environment, shown):
    done = run("search", "whale", **environment)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(shown + b"\t1.5 KiB\t")


def test_a_latin_1_terminal_gets_latin_1_and_its_words_are_understood(servent, latin1):
    done = run("search", "Z\xfcrich".encode("latin-1"), **latin1)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(IN_LATIN_1)
    assert servent.calls == ["search Zürich"]


def test_words_in_utf_8_are_understood_in_a_latin_1_locale_too(servent, latin1):
    run("search", "Zürich".encode(), **latin1)

    assert servent.calls == ["search Zürich"]


def test_a_file_is_published_under_its_bytes_in_a_latin_1_locale(servent, latin1, tmp_path):
    (tmp_path / NAME).write_text("content")

    done = run("publish", NAME.encode(), **latin1)

    assert (done.returncode, done.stderr) == (0, b"")
    assert (servent.config.shared_directory / NAME).read_text() == "content"


def test_a_servent_of_a_latin_1_locale_has_names_as_they_are(processes, latin1, monkeypatch):
    for name, value in latin1.items():
        monkeypatch.setenv(name, value)
    processes.start("serve", "--name", "a", state="a")
    processes.start("serve", "--name", "b", state="b")
    shared = processes.directory / "a" / "shared"

    (shared / "é 名前 gnu.txt").write_text("content")

    until(lambda: processes.status("-m", "a")["shared_files"] == 1)
    processes.p2pfs("join", "-m", "b", str(processes.status("-m", "a")["listen"]))
    found = json.loads(processes.p2pfs("search", "-m", "b", "--json", "gnu").stdout)
    assert [row["path"] for row in found] == ["é 名前 gnu.txt"]
    got = run("get", "-m", str(processes.directory / "b"), "é 名前 gnu.txt".encode(),
              "-o", os.fspath(processes.directory / "ü").encode(), **latin1)  # fmt: skip
    assert got.returncode == 0, got.stderr
    assert Path(processes.directory / "ü").read_text() == "content"


CLOSED = pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])


@CLOSED
@pytest.mark.parametrize("verb", ["status", "search whale", "peers --json", "--help", "-V"])
def test_a_result_that_is_lost_is_an_error_and_nothing_else_is(servent, closed, verb):
    done = shell(f"p2pfs {verb} {closed}")

    is_lost = ">&-" in closed.split()
    assert done.returncode == is_lost
    if is_lost and "2>&-" not in closed:
        assert done.stderr == b"p2pfs: the standard output is closed\n"


@CLOSED
def test_what_is_done_is_done_whether_it_can_be_confirmed_or_not(servent, closed):
    assert shell(f"p2pfs pause {closed}").returncode == 0
    assert servent.calls == ["pause"]
    done = shell(f"p2pfs get nothing {closed}")

    assert (done.returncode, done.stdout) == (3, b"")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["status", "search whale", "status --json", "--help"])
def test_a_reader_that_goes_away_is_no_traceback(servent, verb):
    for unbuffered in ("", "1"):
        script = f"p2pfs {verb} | true; echo ${{PIPESTATUS[0]}}"
        done = shell(script, PYTHONUNBUFFERED=unbuffered)

        assert done.stderr == b""
        assert done.stdout in (b"0\n", b"1\n")  # the reader may still be there when we write


@pytest.mark.parametrize("verb", ["status", "search whale", "status --json", "--help", "--version"])
def test_a_full_disk_is_one_line_and_status_1(servent, verb):
    for unbuffered in ("", "1"):
        done = shell(f"p2pfs {verb} >/dev/full", PYTHONUNBUFFERED=unbuffered)

        assert done.returncode == 1
        assert done.stderr == b"p2pfs: No space left on device\n"


def test_a_file_for_an_output_that_is_closed_is_not_lost_in_silence(servent):
    servent.offer("a", b"content")

    done = shell("p2pfs get a -o - >&-")

    assert (done.returncode, done.stderr) == (1, b"p2pfs: Bad file descriptor\n")


def test_errors_that_nobody_can_be_told_leave_the_status_as_it_is(servent):
    assert shell("p2pfs get nothing 2>/dev/full").returncode == 3
    assert shell("p2pfs get 2>/dev/full").returncode == 2


def test_an_environment_that_is_not_from_us_starts_nothing_in_the_background(servent):
    for odd in ("abc", "-1", "0", "99999", ""):
        done = run("serve", "--state", "/proc/nowhere", P2PFS_REPORT_FD=odd)

        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
        assert done.stderr.count(b"\n") == 1
