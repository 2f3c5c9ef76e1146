"""Links to files on the command line and on the desktop."""

from __future__ import annotations

import configparser
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from p2pfs.config import load_config
from p2pfs.host import handler_entry, install_handler
from p2pfs.host.service import program
from p2pfs.protocol import FileId
from tests.helpers.fakeservent import FakeServent, running

ID = "00" * 32
PACKAGED = Path(__file__).parents[2] / "contrib" / "packaging" / "p2pfs-open.desktop"


@pytest.fixture
def opener(here, monkeypatch) -> Path:
    """An xdg-open that writes down what it is to open."""
    program = here / "bin" / "xdg-open"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf %s "$1" >{here}/opened\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return here / "opened"


def test_a_link_leads_back_to_where_the_file_is(p2pfs, servent, here):
    servent.offer("films/blue whale.mkv", b"abcd")

    made = f"p2pfs:file/{ID}?of=&name=blue whale.mkv&size=4"
    assert p2pfs("link", "films/blue whale.mkv") == (0, f"{made}\n", "")
    assert p2pfs("link", "--alias", "films/blue whale.mkv")[1].startswith(f"peerfs:file/{ID}?")
    status, output, _ = p2pfs("link", ID, "--json")
    assert (status, json.loads(output)) == (0, {"link": made, "id": ID, "size": 4})
    place = f"{here}/mnt/network/films/blue whale.mkv"
    for scheme in ("p2pfs", "peerfs"):
        assert p2pfs("open", f"{scheme}:file/{ID}?name=x") == (0, f"{place}\n", "")
    status, output, _ = p2pfs("open", f"p2pfs:file/{ID}", "--json")
    assert json.loads(output) == {
        "path": "network/films/blue whale.mkv", "file": place, "id": ID, "size": 4,
    }  # fmt: skip


def test_a_link_to_what_is_shared_here_leads_into_shared(p2pfs, servent, here):
    servent.library.own[FileId(bytes(32))] = "a/b.txt"
    servent.library.states["a/b.txt"] = "published"
    (here / "mnt").mkdir()

    made = f"p2pfs:file/{ID}?own&name=b.txt&size=4\n"
    assert p2pfs("link", "mnt/shared/a/b.txt") == (0, made, "")
    assert p2pfs("link", ID) == (0, made, "")
    assert p2pfs("link", "shared/a/b.txt") == (0, made, "")
    assert p2pfs("open", f"p2pfs:file/{ID}")[1] == f"{here}/mnt/shared/a/b.txt\n"


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["open", f"p2pfs:file/{ID[2:]}"], 2, "is not whole: its file id has 62 digits"),
        (["open", "p2pfs:join/AEAAA"], 2, "that is an invitation"),
        (["open", f"p2pfs:file/{ID}?name=a.txt"], 3, "a.txt: nobody within the horizon has it"),
        (["open", f"p2pfs:file/{ID}?net=3fa2"], 2, "this link is for another network"),
        (["link", "nothing"], 3, "nothing: nobody within the horizon has it"),
        (["link", "/etc/passwd"], 2, "/etc/passwd is on this machine, not in the network"),
        (["link", "mnt/shared/new.txt"], 3, "mnt/shared/new.txt is not published now: it is"),
    ],
)
def test_what_leads_nowhere_says_why(p2pfs, servent, here, words, status, complaint):
    (here / "mnt").mkdir()
    ended, output, errors = p2pfs(*words)

    assert (ended, output) == (status, "")
    assert complaint in errors


@pytest.mark.parametrize(
    ("name", "opened"),
    [("a film.mkv", "a film.mkv"), ("setup.exe", ""), ("x.desktop", ""), ("run.SH", "")],
)
def test_the_desktop_opens_the_file_unless_it_could_run_it(
    p2pfs, servent, here, opener, name, opened
):
    servent.offer(f"d/{name}", b"abcd")

    assert p2pfs("open", "--desktop", f"p2pfs:file/{ID}")[0] == 0
    assert opener.read_text() == f"{here}/mnt/network/d/{opened}".rstrip("/")


def test_without_a_mount_the_desktop_opens_nothing(p2pfs, here, opener):
    servent = FakeServent(load_config({}, state_directory=str(here / "state")))
    servent.offer("a", b"abcd")
    with running(servent):
        assert p2pfs("open", f"p2pfs:file/{ID}") == (0, "network/a\n", "")
        status, _, errors = p2pfs("open", "--desktop", f"p2pfs:file/{ID}")

    assert (status, opener.exists()) == (1, False)
    assert "this servent has no mount: `p2pfs get` fetches it" in errors


def test_of_several_servents_the_one_of_that_network_is_asked(p2pfs, here):
    one, two = (
        FakeServent(
            load_config({}, state_directory=str(here / name), mountpoint=str(here / f"m{name}"))
        )
        for name in ("one", "two")
    )
    two.network = "3fa2"
    for servent in (one, two):
        servent.offer("a", b"abcd")
    with running(one), running(two):
        assert p2pfs("open", f"p2pfs:file/{ID}?net=3fa2")[1] == f"{here}/mtwo/network/a\n"
        assert p2pfs("open", f"p2pfs:file/{ID}")[1] == f"{here}/mone/network/a\n"
        status, _, errors = p2pfs("open", f"p2pfs:file/{ID}?net=1234")
        assert (status, "another network" in errors) == (2, True)
        assert p2pfs("open", "-m", "mone", f"p2pfs:file/{ID}?net=3fa2")[0] == 2


def test_doctor_lets_the_desktop_open_links(p2pfs, here, monkeypatch):
    """With stand-ins for the programs of the desktop, which write down how they are called."""
    for name in ("xdg-mime", "update-desktop-database"):
        stand_in = here / name
        stand_in.write_text(f'#!/bin/sh\necho {name} "$@" >>{here}/calls\n')
        stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{here}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_DATA_HOME", str(here / "data home"))

    status, output, _ = p2pfs("doctor", "--desktop", "--json")
    place = here / "data home" / "applications" / "p2pfs-open.desktop"
    assert (status, json.loads(output)["file"]) == (0, str(place))
    entry = read_entry(place.read_text())
    assert entry["MimeType"] == "x-scheme-handler/p2pfs;x-scheme-handler/peerfs;"
    assert entry["Exec"].endswith(" open --desktop %u")
    assert (here / "calls").read_text().splitlines() == [
        f"update-desktop-database {place.parent}",
        "xdg-mime default p2pfs-open.desktop x-scheme-handler/p2pfs",
        "xdg-mime default p2pfs-open.desktop x-scheme-handler/peerfs",
    ]


def test_without_the_programs_of_a_desktop_the_entry_is_there(here, monkeypatch):
    monkeypatch.setenv("PATH", str(here / "nowhere"))
    monkeypatch.setenv("XDG_DATA_HOME", str(here))

    assert install_handler().read_text().startswith("[Desktop Entry]\n")


def read_entry(text: str) -> configparser.SectionProxy:
    entry = configparser.RawConfigParser(delimiters="=")
    entry.optionxform = str
    entry.read_string(text)
    return entry["Desktop Entry"]


def test_the_package_has_the_same_entry():
    assert PACKAGED.read_text() == handler_entry("p2pfs")


def test_gio_takes_the_entry_for_what_opens_links(here, monkeypatch):
    """GLib's own reading of the entry; where there is no `gio`, it is skipped."""
    monkeypatch.setenv("XDG_DATA_HOME", str(here))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    install_handler()
    assert program()
    try:
        done = subprocess.run(
            ["gio", "mime", "x-scheme-handler/peerfs", "p2pfs-open.desktop"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("there is no gio")

    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["gio", "mime", "x-scheme-handler/peerfs"], capture_output=True, text=True, check=False
    )
    assert "p2pfs-open.desktop" in shown.stdout
