"""What a person is told: values as people type them, and refusals that say what helps."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from rich.console import Console

from p2pfs.cli.layout import table, wrapping_sheet
from p2pfs.cli.verbs import told_value
from p2pfs.config import load_config
from p2pfs.wording import CONFIG_COLUMNS, HISTORY_COLUMNS, SHARE_COLUMNS
from tests.helpers.fakeservent import FakeServent, running

BOB = {
    "id": "b" * 32, "name": "bob@desk", "address": "10.0.0.2:4774", "direction": "in",
    "connected_s": 1, "rtt_ms": None,
}  # fmt: skip
SHARE = {
    "name": "music", "directory": "/home/ann/Music/of all the years", "files": 12, "size": 2048,
    "read_only": True, "to": ["family"], "in_config": False, "away": "nothing is mounted there",
}  # fmt: skip


def told(row: dict[str, object], columns: tuple[str, ...], width: int) -> str:
    sheet = wrapping_sheet(Console(width=width, color_system=None))
    return " ".join(line.plain for line in table([row], columns, sheet).lines)


def test_a_share_in_a_narrow_terminal_says_what_its_values_mean():
    text = told(SHARE, SHARE_COLUMNS, 80)

    for words in ("12 files", "read only yes", "to family", "away nothing is mounted there"):
        assert words in text
    assert "away -" in told({**SHARE, "away": ""}, SHARE_COLUMNS, 60)


def test_a_fetch_in_a_narrow_terminal_says_whose_it_was():
    row = {"time": 0, "path": "x" * 40, "size": 1, "user": "ann", "program": None, "peers": []}

    text = told(row, HISTORY_COLUMNS, 40)

    for words in ("user ann", "program -", "peers -"):
        assert words in text


def test_digits_that_count_nothing_are_given_no_word():
    row = {"name": "stall-timeout", "value": "30", "source": "default", "can_be_set": True}

    assert "value" not in told(row, CONFIG_COLUMNS, 30)
    row = {"path": "x" * 40, "size": 1, "id": "5188133212345678"}
    assert told(row, ("path", "size", "id"), 20).endswith("51881332")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (30.0, "30"),
        (0.5, "0.5"),
        ("2MB", "2MB"),
        ([{"directory": "/a", "as": "b"}], ["b"]),
        ({"family": ["a" * 32], "friends": []}, ["family", "friends"]),
        (None, None),
    ],
)
def test_a_setting_is_told_as_a_person_would_type_it(value, text):
    assert told_value(value) == text


def test_what_is_set_is_told_with_its_unit(p2pfs, servent):
    for typed, text in (("2MB", "2MB"), ("2000000", "2MB"), ("8Mbit", "1MB"), ("0", "off")):
        assert p2pfs("set", "upload-limit", typed)[1] == f"upload-limit: {text} (set)\n"
    assert "upload-limit\toff\tset\tyes\n" in p2pfs("config")[1]


@pytest.fixture
def grouped(here):
    """A servent whose config.toml has groups."""
    (here / "state").mkdir()
    ids = json.dumps(["a" * 32, "b" * 32])
    (here / "state" / "config.toml").write_text(f"[groups]\nfamily = {ids}\nnobody = []\n")
    servent = FakeServent(load_config({"name": "fake"}, state_directory=str(here / "state")))
    with running(servent):
        yield servent


def test_groups_are_told_by_their_names(p2pfs, grouped):
    assert "groups\tfamily, nobody\tconfig.toml\tno\n" in p2pfs("config")[1]


def test_the_groups_that_are_told_are_those_of_now(p2pfs, grouped):
    """They are followed while the servent runs."""
    file = grouped.config.config_path
    file.write_text(f"[groups]\nfriends = {json.dumps(['c' * 32])}\n")
    assert "groups\tfriends\tconfig.toml\tno\n" in p2pfs("config")[1]

    file.write_text("[groups]\nfriends = [")
    assert "groups\tfriends\tconfig.toml\tno\n" in p2pfs("config")[1]

    file.write_text("")
    assert re.search(r"^groups\t.*\tdefault\tno$", p2pfs("config")[1], re.MULTILINE)


def test_who_may_see_a_share_is_counted_by_peers(p2pfs, grouped, here):
    for name, to, whom in (
        ("one", ["b" * 32], ", with 1 peer and nobody else"),
        ("two", ["family", "b" * 32], ", with 2 peers and nobody else"),
        ("three", ["nobody"], ", with nobody yet"),
        ("four", [], ""),
    ):
        (here / name).mkdir()
        words = [word for one in to for word in ("--to", one)]

        status, output, _ = p2pfs("share", str(here / name), *words)

        assert (status, output) == (0, f"{here / name}: shared as {name}{whom}\n")


def test_a_neighbours_name_in_place_of_its_id_is_told_what_the_id_is(p2pfs, servent, here):
    servent.rows = [BOB, {**BOB, "id": "c" * 32, "name": "ben"}]

    for name, peer in (("bob@desk", "b" * 32), ("ben", "c" * 32)):
        status, _, errors = p2pfs("share", str(here), "--as", "x", "--to", name)

        assert status == 2
        assert errors.startswith(f"p2pfs: {name} is the name of a neighbour, which anybody")
        assert peer in errors
    status, _, errors = p2pfs("share", str(here), "--as", "x", "--to", "someone")
    assert (status, "`p2pfs peers --json` shows ids" in errors) == (2, True)


def test_a_group_of_now_may_be_called_like_a_neighbour(p2pfs, grouped, here):
    grouped.rows = [{**BOB, "name": "friends"}]
    refused = p2pfs("share", str(here), "--as", "x", "--to", "friends")
    grouped.config.config_path.write_text(f"[groups]\nfriends = {json.dumps(['c' * 32])}\n")

    taken = p2pfs("share", str(here), "--as", "x", "--to", "friends")

    assert "is the name of a neighbour" in refused[2]
    assert "is the name of a neighbour" not in taken[2]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "@friends: No such file or directory"),
        (b"", "there is no address and no invitation in @friends"),
        (b"\0\xff\x7fELF\n\n\x01", "@friends, line 1: '\\x00"),
        (b"one.example:4774\n::1\n", "@friends, line 2: '::1' is not HOST:PORT"),
    ],
)
@pytest.mark.parametrize("verb", [["join"], ["serve", "--join"]])
def test_a_file_that_names_nobody_is_a_usage_error(p2pfs, servent, here, verb, content, complaint):
    if content is not None:
        (here / "friends").write_bytes(content)

    status, output, errors = p2pfs(*verb, "@friends")

    assert (status, output) == (2, "")
    assert errors.startswith(f"p2pfs: {complaint}")


def test_an_at_sign_alone_names_no_file(p2pfs, servent):
    status, _, errors = p2pfs("join", "@")

    assert status == 2
    assert "'ADDRESS': @ stands before the name of a file" in errors


def test_doctor_says_that_a_state_directory_that_was_named_is_not_there(p2pfs, here):
    status, output, _ = p2pfs("doctor", "--state", "nope", "--json")

    found = {one["name"]: one for one in json.loads(output)}["state directory"]
    assert (status, found["ok"]) == (1, False)
    assert found["text"].startswith(f"{here}/nope is not there")
    (here / "file").touch()
    assert "is no directory" in p2pfs("doctor", "--state", "file")[1]


def test_doctor_asks_a_servent_that_an_update_has_left_running(p2pfs, servent):
    output = p2pfs("doctor")[1]

    assert "ok  reach: fake: no router was asked to pass the port on; relays nothing" in output


def test_doctor_tells_a_desktop_without_xdg_utils(p2pfs, here, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    monkeypatch.setenv("XDG_DATA_HOME", str(here))

    status, output, errors = p2pfs("doctor", "--desktop")

    assert (status, "links to files open with p2pfs" in output) == (0, True)
    assert "xdg-open and xdg-mime are not here" in errors
    assert "xdg-utils" in errors
    assert json.loads(p2pfs("doctor", "--desktop", "--json")[1])["missing"] == [
        "xdg-open", "xdg-mime",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", ["install", "remove"])
def test_a_name_that_no_unit_can_have_is_a_usage_error_that_names_the_option(p2pfs, verb):
    status, _, errors = p2pfs("service", verb, "--unit", "a/b")

    assert status == 2
    assert errors.startswith("p2pfs: Invalid value for '--unit': 'a/b' cannot be the name of")


def test_to_end_a_servent_that_ends_by_itself_loads_nothing_heavy(processes):
    processes.start("serve")
    command = [sys.executable, "-X", "importtime", "-m", "p2pfs", "unmount", "state"]

    done = subprocess.run(
        command, cwd=processes.directory, capture_output=True, text=True, check=True
    )

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "p2pfs.control.client" in loaded
    assert not {"trio", "p2pfs.mount", "p2pfs.host.lifetime"} & loaded


def test_what_config_toml_shares_and_cannot_be_is_told_at_the_start_and_as_an_event(processes):
    state = processes.directory / "state"
    state.mkdir(mode=0o700)
    (state / "config.toml").write_text('[[share]]\ndirectory = "Music"\n')

    started = processes.start("serve")

    told = f"{state}/Music is not shared: it is in the state directory {state}"
    assert started.returncode == 0
    assert f"p2pfs: warning: {told}\n" in started.stderr
    events = json.loads(processes.p2pfs("events", "--json").stdout)
    assert (
        "shared/Music",
        f"{state}/Music is not shared now: it is in the state directory {state}",
    ) in [(one["path"], one["text"]) for one in events]
