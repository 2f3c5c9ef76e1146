"""What the TAB key gives: asked of the command, and pressed in real shells."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from p2pfs.cli import completion
from p2pfs.cli.commands import cli
from tests.helpers.shells import shell

HOSTILE = '!it\'s a $(touch pwned) `touch pwned`; touch pwned & 日本:x=y *?[a] "b" \\c'


def items(line: str, word: str | None = None) -> dict[str, str]:
    """Return the values that may follow a line, and their kinds."""
    rows = [row.split("\t") for row in completion.answer(cli, line, word).splitlines()]
    return {value or kind: kind for kind, value, _help in rows}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("p2pfs ", "mount"),
        ("p2pfs unp", "unpin"),
        ("/usr/bin/p2pfs sta", "status"),
        ("p2pfs service ", "install"),
        ("p2pfs serve --", "--cache-size"),
        ("p2pfs serve --no-", "--no-reshare"),
        ("p2pfs serve --previews ", "small"),
        ("p2pfs serve --previews=s", "--previews=small"),
        ("p2pfs serve --previews=", "--previews=off"),
        ("p2pfs serve --ttl 3 --log-level w", "warning"),
        ("p2pfs cache ", "clear"),
        ("p2pfs completion z", "zsh"),
    ],
)
def test_words_are_completed(line, value):
    assert items(line)[value] == "plain"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("p2pfs mount ~/p", "dir"),
        ("p2pfs mount ", "dir"),
        ("p2pfs unmount ", "dir"),
        ("p2pfs serve --state ", "dir"),
        ("p2pfs serve --state=x", "dir"),
        ("p2pfs serve --network-key-file ", "file"),
        ("p2pfs publish ho", "file"),
        ("p2pfs get x -o ", "file"),
        ("p2pfs get ~/p2p/network/fi", "file"),
        ("p2pfs status -m ", "dir"),
    ],
)
def test_files_and_directories_are_left_to_the_shell(line, kind):
    assert items(line) == {kind: kind}


def test_what_is_complete_or_unknown_offers_nothing():
    assert items("p2pfs serve --ttl ") == {}
    assert items("p2pfs serve --nonsense") == {}


@pytest.fixture
def offers(servent):
    for path in ("films/blue whale.mkv", "films/old/a", "films/blueprint", f"odd/{HOSTILE}"):
        servent.offer(path, b"content")
    (servent.config.shared_directory / "mine").mkdir()
    (servent.config.shared_directory / "mine" / "x").write_text("")
    return servent


def test_paths_in_the_network_are_completed_a_directory_at_a_time(offers):
    assert items("p2pfs get fi") == {"films/": "path", "file": "file"}
    assert items("p2pfs pin films/b") == {
        "films/blue whale.mkv": "path",
        "films/blueprint": "path",
        "file": "file",
    }
    assert "films/blue whale.mkv" in items('p2pfs get "films/blue w')
    assert "films/blue whale.mkv" in items(r"p2pfs get films/blue\ w")
    assert "films/old/" in items("p2pfs get odd -o x films/")
    assert items("p2pfs get nowhere/") == {"file": "file"}
    assert "mine/x" in items("p2pfs unpublish mine/")


def test_of_names_that_are_not_utf8_those_that_a_terminal_shows_are_completed(offers):
    for name in (b"caf\xe9", b"caf\x9b2J", b"caf\x1b[2J"):
        Path(os.fsdecode(bytes(offers.config.shared_directory / "mine") + b"/" + name)).touch()

    assert items("p2pfs unpublish mine/caf") == {"mine/caf\udce9": "path", "file": "file"}


def test_the_servent_is_the_one_that_is_named(offers, here):
    assert "films/" in items("p2pfs get -m mnt fi")
    assert "films/" in items(f"p2pfs get -m {here}/state fi")
    assert items("p2pfs get -m elsewhere fi") == {"file": "file"}


def test_bash_is_given_what_it_replaces_and_no_more(offers):
    assert items("p2pfs serve --previews=s", "s") == {"small": "plain"}
    assert items("p2pfs serve --previews=", "=") == dict.fromkeys(("small", "off", "all"), "plain")
    start = HOSTILE[: HOSTILE.index(":") + 1]
    line = "p2pfs get odd/" + start.translate({ord(c): f"\\{c}" for c in "! '$()`;&\\"})
    assert r"x\=y\ \*\?\[a\]\ \"b\"\ \\c" in items(line + "x", "x")


# In real shells.


@pytest.fixture
def command(tmp_path_factory) -> str:
    """A directory with the command."""
    place = tmp_path_factory.mktemp("bin")
    (place / "p2pfs").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m p2pfs "$@"\n')
    (place / "p2pfs").chmod(0o755)
    return f"{place}:{os.environ['PATH']}"


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(p2pfs completion bash)"'),
    "zsh": (
        ["zsh", "-f", "-i"],
        'autoload -Uz compinit; compinit -u -D; eval "$(p2pfs completion zsh)"',
    ),
    "fish": (["fish", "--no-config", "-i"], "p2pfs completion fish | source"),
}


@pytest.fixture(params=SHELLS)
def typing(request, command, here, tmp_path_factory):
    """A shell that completes p2pfs, and what the arguments are of a line that is typed."""
    words, set_up = SHELLS[request.param]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    (here / "shown").write_text(f'#!{sys.executable}\nimport sys; print("<", sys.argv[1:], ">")\n')
    (here / "shown").chmod(0o755)
    home = str(tmp_path_factory.mktemp("home"))
    with shell(words, PATH=command, HOME=home, XDG_DATA_HOME=home) as terminal:
        terminal.type(f"{set_up}; echo rea''dy\n")
        terminal.wait_for("ready\r?\n")

        def completed(*parts: tuple[str, str]) -> list[str]:
            """Type parts of a line, each with a TAB that adds a text; return the line's words."""
            terminal.type("echo rea''dy\n")
            terminal.wait_for("ready\r?\n.*[#$>%]")  # it reads keys again
            for part, added in parts:
                terminal.type(f"{part}\t")
                terminal.wait_for(added)  # fish drops what it completes when keys follow
            terminal.type("\x01./shown \x05\n")
            return eval(terminal.wait_for(r"< (\[.*?\]) >")[1])

        yield completed


def test_a_shell_completes_verbs_and_options(typing, servent):
    words = typing(("p2pfs stat", "us"), ("--js", "on"))

    assert words == ["p2pfs", "status", "--json"]


def test_a_shell_completes_files_of_its_own(typing, servent, here):
    (here / "holiday film.mkv").write_text("")

    assert typing(("p2pfs publish holi", "mkv")) == ["p2pfs", "publish", "holiday film.mkv"]


def test_a_shell_completes_paths_in_the_network(typing, offers):
    whale = ["p2pfs", "get", "films/blue whale.mkv"]

    assert typing(("p2pfs get fi", "films/"), ("blue\\ ", "mkv")) == whale
    for quote in ("'", '"'):
        assert typing((f"p2pfs get {quote}films/blue ", "mkv")) == whale


@pytest.mark.parametrize("typing", ["bash", "zsh"], indirect=True)  # fish has no such names
def test_a_shell_completes_a_name_that_is_not_utf8(typing, offers):
    Path(os.fsdecode(bytes(offers.config.shared_directory) + b"/caf\xe9 1")).touch()

    assert typing(("p2pfs unpublish ca", "1")) == ["p2pfs", "unpublish", "caf\udce9 1"]


def test_a_name_from_a_stranger_is_one_word_and_runs_nothing(typing, offers, here):
    for start in ("", '"', "'"):
        assert typing((f"p2pfs get {start}odd/", "pwned")) == ["p2pfs", "get", f"odd/{HOSTILE}"]
    assert not list(Path(here).rglob("pwned"))
