"""The command against a servent that answers from memory, behind the real socket."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from p2pfs import __version__
from p2pfs.cli import commands as cli
from p2pfs.cli.wording import shown
from p2pfs.config import load_config
from tests.helpers.fakeservent import FakeServent, running

ROW = {
    "path": "films/x\x1b[2J.mkv",
    "size": 1536,
    "id": "ab" * 32,
    "peers": [
        {"id": "p" * 32, "name": "Ann", "address": "10.0.0.1:4774"},
        {"id": "q" * 32, "name": "B\u202eob", "address": None},
    ],
}


@pytest.fixture(autouse=True)
def _runtime(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def p2pfs(monkeypatch, capsys):
    """Run the command; return its exit status, output and error output."""

    def p2pfs(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["p2pfs", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        output, errors = capsys.readouterr()
        return int(ended.value.code), output, errors

    return p2pfs


@pytest.fixture
def servent(tmp_path):
    options = {"state_directory": str(tmp_path / "state"), "mountpoint": str(tmp_path / "mnt")}
    servent = FakeServent(load_config({"name": "fake"}, **options))
    with running(servent):
        yield servent


def test_the_version_is_shown(p2pfs):
    assert p2pfs("--version") == (0, f"p2pfs, version {__version__}\n", "")


def test_without_a_servent_the_status_is_6(p2pfs):
    assert p2pfs("status") == (6, "", "p2pfs: no servent is running\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["burn"],
        ["mount"],
        ["search"],
        ["status", "--nonsense"],
        ["serve", "--ttl", "9"],
        ["serve", "--join", "::1"],
        ["serve", "--upload-limit", "1"],
    ],
)
def test_what_cannot_be_asked_is_status_2(p2pfs, arguments):
    status, output, errors = p2pfs(*arguments)

    assert (status, output) == (2, "")
    assert errors


def test_status_is_shown_with_units(p2pfs, servent):
    status, output, _ = p2pfs("status", "-m", str(servent.config.mountpoint))

    assert status == 0
    assert "uptime: 1:02:03\n" in output
    assert "shared: 1.5 KiB\n" in output


def test_json_is_what_the_servent_says(p2pfs, servent):
    servent.rows = [ROW]

    for verb in ("peers", "transfers"):
        assert json.loads(p2pfs(verb, "--json")[1]) == [ROW]
    assert json.loads(p2pfs("search", "--json", "whale")[1]) == [ROW]
    assert json.loads(p2pfs("status", "--json")[1]) == servent.status()
    assert json.loads(p2pfs("events", "--json")[1]) == []


def test_search_lists_path_size_id_and_every_peer_escaped(p2pfs, servent):
    servent.rows = [ROW]

    status, output, _ = p2pfs("search", "blue", "whale")

    assert status == 0
    assert output == f"films/x\\x1b[2J.mkv\t1.5 KiB\t{'ab' * 32}\tAnn, B\\u202eob\n"
    assert servent.calls == ["search blue whale"]


def test_a_terminal_gets_a_table_escaped_too(p2pfs, servent, monkeypatch):
    servent.rows = [ROW | {"path": "[red]x\x1b[2J"}]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    _, output, _ = p2pfs("search", "whale")

    assert "[red]x\\x1b[2J" in output
    assert "\u202e" not in output
    assert "path" in output.splitlines()[0]


def test_nothing_found_is_status_3(p2pfs, servent):
    assert p2pfs("search", "whale") == (3, "", "p2pfs: nothing found\n")


def test_peers_and_transfers_and_events_have_their_columns(p2pfs, servent):
    servent.rows = [
        {"name": "Ann", "address": "h:1", "direction": "out", "connected_s": 61, "rtt_ms": None,
         "id": "p", "path": "x", "size": 2048, "done_bytes": 1024, "rate_bytes_s": 1024,
         "sources": 2, "state": "running"}
    ]  # fmt: skip
    servent.journal.error("no source", "films/x")

    assert p2pfs("peers")[1] == "Ann\th:1\tout\t0:01:01\t-\tp\n"
    assert p2pfs("transfers")[1] == "x\t2.0 KiB\t1.0 KiB\t1.0 KiB/s\t2\trunning\n"
    assert p2pfs("events")[1].endswith("\terror\tno source\tfilms/x\n")


def test_get_writes_into_the_current_directory(p2pfs, servent, tmp_path):
    servent.offer("films/x", b"content")

    assert p2pfs("get", "films/x") == (0, f"{tmp_path}/x\n", "")
    assert (tmp_path / "x").read_bytes() == b"content"


def test_get_takes_a_path_through_the_mount(p2pfs, servent, tmp_path):
    servent.offer("films/x", b"content")

    assert p2pfs("get", "mnt/network/films/x", "-o", "y")[0] == 0
    assert (tmp_path / "y").read_bytes() == b"content"


def test_get_of_what_nobody_has_is_status_3(p2pfs, servent):
    status, output, errors = p2pfs("get", "x")

    assert (status, output) == (3, "")
    assert errors == "p2pfs: x: nobody within the horizon has it\n"


def test_publish_and_unpublish_by_relative_paths(p2pfs, servent, tmp_path):
    (tmp_path / "x").write_text("content")

    assert p2pfs("publish", "x") == (0, "x: published\n", "")
    assert (servent.config.shared_directory / "x").read_text() == "content"
    assert p2pfs("unpublish", "mnt/shared/x") == (0, "", "")
    assert not (servent.config.shared_directory / "x").exists()


def test_publish_of_what_is_missing_is_status_1(p2pfs, servent):
    assert p2pfs("publish", "x") == (
        1,
        "",
        "p2pfs: x: No such file or directory\n",
    )


def test_join_says_through_whom_or_exits_with_4(p2pfs, servent):
    assert p2pfs("join", "known:1") == (0, "joined through Known at known:1\n", "")
    assert p2pfs("join", "other:1") == (4, "", "p2pfs: other:1 refused the connection\n")
    assert p2pfs("join", "::1")[0] == 2


def test_leave_pause_and_resume_are_silent(p2pfs, servent):
    for verb in ("leave", "pause", "resume"):
        assert p2pfs(verb) == (0, "", "")

    assert servent.calls == ["leave", "pause", "resume"]


def test_doctor_says_what_is_fine_and_what_is_not(p2pfs, tmp_path):
    (tmp_path / "file").write_text("")

    assert "ok  python: 3." in p2pfs("doctor", "--state", str(tmp_path / "state"))[1]
    status, output, _ = p2pfs("doctor", "--state", str(tmp_path / "file" / "state"))
    assert status == 1
    assert "!!  state directory" in output


def test_starting_a_verb_loads_nothing_heavy():
    heavy = {"trio", "rich", "noise", "cryptography", "msgspec", "blake3", "p2pfs.servent"}
    code = f"import sys, p2pfs.cli; print({heavy} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("size", 0, "0 B"),
        ("size", 1023, "1023 B"),
        ("size", 1024, "1.0 KiB"),
        ("cache_limit_bytes", 10 * 2**30, "10.0 GiB"),
        ("size", 2**60, "1048576.0 TiB"),
        ("rtt_ms", 1.25, "1.2 ms"),
        ("uptime_s", 0.4, "0:00:00"),
        ("sharing", True, "yes"),
        ("pinned", False, "no"),
        ("percent", 37, "37 %"),
        ("sources", 3, "3"),
        ("address", None, "-"),
    ],
)
def test_values_are_shown_with_the_unit_of_their_key(key, value, text):
    assert shown(key, value) == text


def test_the_cache_is_shown_with_what_is_pinned_in_it(p2pfs, servent):
    servent.rows = [
        {"path": "a\x1b", "id": "0f" * 32, "size": 4096, "done_bytes": 1024, "percent": 25,
         "pinned": True}
    ]  # fmt: skip
    mount = str(servent.config.mountpoint)

    assert p2pfs("cache", "-m", mount)[1].splitlines() == [
        "1.5 KiB of 2.0 KiB used",
        "a\\x1b\t4.0 KiB\t1.0 KiB\t25 %\tyes\t" + "0f" * 32,
    ]
    assert json.loads(p2pfs("cache", "-m", mount, "--json")[1])["files"] == servent.rows
    assert p2pfs("cache", "clear", "-m", mount) == (0, "1.5 KiB freed\n", "")
    assert p2pfs("cache", "burn", "-m", mount)[0] == 2


def test_paths_below_the_mount_are_pinned_as_they_are_named_there(p2pfs, servent):
    servent.offer("films/x", b"abc")
    mount = str(servent.config.mountpoint)

    status, output, _ = p2pfs("pin", "-m", mount, f"{mount}/network/films/x")
    assert (status, servent.pins.paths) == (0, ["films/x"])
    assert "films/x" in output
    assert p2pfs("unpin", "-m", mount, "films/x")[0] == 0
    assert p2pfs("unpin", "-m", mount, "films/x")[0] == 3


def test_top_needs_a_terminal(p2pfs, servent):
    status, output, errors = p2pfs("top")

    assert (status, output) == (2, "")
    assert "terminal" in errors


def test_transfers_have_bars_on_a_terminal(p2pfs, servent, monkeypatch):
    servent.rows = [
        {"path": "half", "size": 2048, "done_bytes": 1024, "rate_bytes_s": 1024, "sources": 2,
         "state": "reading"},
        {"path": "empty", "size": 0, "done_bytes": 0, "rate_bytes_s": 0, "sources": 1,
         "state": "idle"},
    ]  # fmt: skip
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    half, empty = p2pfs("transfers")[1].splitlines()[1:]

    # Without colours the rest of a bar is blank.
    assert 7 <= half.count("━") <= 9
    assert empty.count("━") == 16


def test_a_get_that_takes_long_says_so_where_there_is_no_terminal(p2pfs, servent, monkeypatch):
    monkeypatch.setattr("p2pfs.cli.commands.PLAIN_EVERY_S", 0.0)
    servent.offer("films/x\x1b", bytes(3 * 2**20))

    status, _, errors = p2pfs("get", "films/x\x1b", "-o", "y")

    assert status == 0
    assert errors.splitlines()[-1].startswith("films/x\\x1b: 3.0 MiB of 3.0 MiB")
