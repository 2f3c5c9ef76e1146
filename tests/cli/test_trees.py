"""`get` on trees, as `cp -r` has it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pfs.errors import CorruptError, StalledError
from p2pfs.mounts import FSTYPE, Mount
from tests.helpers.mounted import until

TREE = {
    "films/blue whale.mkv": b"whale",
    "films/old/a": b"a" * 300_000,
    "films/old/b": b"",
    "films/old/deep/er/c": b"c" * 70_000,
    "music/d": b"d",
}


@pytest.fixture
def tree(servent):
    for path, content in TREE.items():
        servent.offer(path, content)
    return servent


def files_below(top: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()
    }


def below(directory: str) -> dict[str, bytes]:
    start = f"{directory}/"
    return {path[len(start) :]: data for path, data in TREE.items() if path.startswith(start)}


@pytest.mark.parametrize("typed", ["films", "films/", "mnt/network/films", "mnt/network/films/."])
def test_a_directory_is_downloaded_whole_into_where_one_is(p2pfs, tree, here, typed):
    status, output, errors = p2pfs("get", typed)

    assert (status, errors) == (0, "")
    assert files_below(here / "films") == below("films")
    assert output == f"{here}/films: 4 files, 361.3 KiB\n"


def test_a_directory_takes_the_name_of_a_destination_that_is_not_there(p2pfs, tree, here):
    assert p2pfs("get", "films", "-o", "copy")[0] == 0
    assert files_below(here / "copy") == below("films")

    assert p2pfs("get", "films", "-o", "copy")[0] == 0
    assert files_below(here / "copy" / "films") == below("films")


def test_a_file_too_is_downloaded_as_it_was(p2pfs, tree, here):
    assert p2pfs("get", "films/old/b") == (0, f"{here}/b\n", "")
    assert (here / "b").read_bytes() == b""


def test_several_go_into_one_directory_or_nowhere(p2pfs, tree, here):
    status, output, errors = p2pfs("get", "films", "music/d", "-o", "both")
    assert (status, output) == (2, "")
    assert "both is no directory: 2 files cannot all go there" in errors
    assert tree.calls == []

    (here / "both").mkdir()
    assert p2pfs("get", "films", "music/d", "-o", "both")[0] == 0
    assert files_below(here / "both" / "films") == below("films")
    assert (here / "both" / "d").read_bytes() == b"d"


def test_what_is_there_is_completed_and_what_is_another_file_is_left(p2pfs, tree, here):
    (here / "films" / "old").mkdir(parents=True)
    (here / "films" / "old" / "a").write_bytes(b"a" * 262_144)
    (here / "films" / "blue whale.mkv").write_text("mine")

    status, output, errors = p2pfs("get", "films")

    assert status == 2
    assert errors == f"p2pfs: {here}/films/blue whale.mkv is another file; --force replaces it\n"
    assert output == f"{here}/films: 3 files, 361.3 KiB\n"
    assert (here / "films" / "blue whale.mkv").read_text() == "mine"
    assert (here / "films" / "old" / "a").read_bytes() == TREE["films/old/a"]
    assert p2pfs("get", "films", "--force")[0] == 0
    assert files_below(here / "films") == below("films")


def test_a_directory_in_the_way_of_a_file_is_told_and_left(p2pfs, tree, here):
    (here / "films" / "old" / "a").mkdir(parents=True)

    status, _, errors = p2pfs("get", "films")

    assert status == 2
    assert errors == f"p2pfs: {here}/films/old/a is a directory, and films/old/a is a file\n"
    assert list((here / "films" / "old" / "a").iterdir()) == []


def test_a_file_that_fails_keeps_no_other_from_coming(p2pfs, tree, here):
    tree.read_errors = {"films/old/a": StalledError("nothing came for 30 s")}

    status, output, errors = p2pfs("get", "films", "-o", "x")

    assert status == 4
    assert errors == "p2pfs: films/old/a: nothing came for 30 s\n"
    assert output == f"{here}/x: 3 files, 68.4 KiB\n"
    assert files_below(here / "x") == {
        path: data for path, data in below("films").items() if path != "old/a"
    }


def test_a_tree_that_was_not_listed_whole_says_so(p2pfs, tree, here):
    tree.partial_listings["films/old"] = "1 servent did not answer"

    status, output, errors = p2pfs("get", "films")

    assert status == 1
    assert errors == "p2pfs: films/old: not all of it was listed: 1 servent did not answer\n"
    assert output == f"{here}/films: 4 files, 361.3 KiB\n"


def test_json_tells_of_each_file_what_came_of_it(p2pfs, tree, here):
    tree.read_errors = {"films/old/a": CorruptError("every source sends wrong bytes")}

    status, output, errors = p2pfs("get", "mnt/network/films", "music/d", "nothing", "--json")

    assert (status, errors) == (5, "")
    rows = {row["path"]: row for row in json.loads(output)}
    assert rows["mnt/network/films/old/a"] == {
        "path": "mnt/network/films/old/a",
        "error": "mnt/network/films/old/a: every source sends wrong bytes",
        "status": 5,
    }
    assert rows["music/d"] == {"path": "music/d", "destination": f"{here}/d", "size": 1}
    assert rows["nothing"]["status"] == 3
    assert len(rows) == 6


def test_errors_name_what_was_typed(p2pfs, tree):
    for typed in ("nothing", "mnt/network/nothing", "mnt/search/whale/nothing", "mnt/peers/ann/no"):
        errors = p2pfs("get", typed)[2]
        assert errors == f"p2pfs: {typed}: nobody within the horizon has it\n"
        errors = p2pfs("pin", typed)[2]
        assert errors == f"p2pfs: {typed}: nobody within the horizon has it\n"


def test_a_directory_is_pinned_and_unpinned_with_all_below_it(p2pfs, tree):
    status, output, errors = p2pfs("pin", "mnt/network/films", "music/d")

    assert (status, errors) == (0, "")
    advice = "; `p2pfs cache` shows how much is here"
    assert output.splitlines() == [
        f"mnt/network/films: pinned, 4 files, 361.3 KiB{advice}",
        f"music/d: pinned, 1 file, 1 B{advice}",
    ]
    assert sorted(tree.pins.paths) == sorted(TREE)
    assert p2pfs("unpin", "films")[1] == (
        "films: unpinned, 4 files: they go when the cache needs room\n"
    )
    assert tree.pins.paths == ["music/d"]
    assert p2pfs("unpin", "films") == (3, "", "p2pfs: films is not pinned\n")


def test_a_tree_that_was_not_listed_whole_is_not_pinned(p2pfs, tree):
    tree.partial_listings["films/old"] = "1 servent did not answer"

    assert p2pfs("pin", "films")[0] == 1
    assert tree.pins.paths == []


def test_a_file_id_is_got_under_the_name_that_it_has_elsewhere(p2pfs, tree, here):
    file_id = tree.nodes["films/blue whale.mkv"].file_id.hex()

    assert p2pfs("get", file_id.upper()) == (0, f"{here}/blue whale.mkv\n", "")
    assert (here / "blue whale.mkv").read_bytes() == b"whale"
    assert json.loads(p2pfs("pin", file_id, "--json")[1])[0]["path"] == "films/blue whale.mkv"
    assert p2pfs("get", "ff" * 32)[0] == 3


def test_an_error_of_a_file_names_it_as_it_was_typed(p2pfs, tree, here):
    tree.read_error = StalledError("nothing came for 30 s")

    assert p2pfs("get", "mnt/network/music/d")[2] == (
        "p2pfs: mnt/network/music/d: nothing came for 30 s\n"
    )
    (here / "x").write_text("")
    (tree.config.shared_directory / "x").mkdir()
    errors = p2pfs("publish", "x")[2]
    assert errors == "p2pfs: x is the name of a directory in shared/\n"
    tree.config.shared_directory.chmod(0o500)
    errors = p2pfs("publish", "x")[2] if os.geteuid() else ""
    assert ".p2pfs-" not in errors


def test_the_results_of_a_search_and_a_share_are_downloaded_as_directories(p2pfs, servent, here):
    servent.offer("films/x", b"content")
    servent.results.files["blue whale/x"] = servent.nodes["films/x"]
    servent.shares.files["ann/films/x"] = servent.nodes["films/x"]

    assert p2pfs("get", "mnt/search/blue whale")[0] == 0
    assert files_below(here / "blue whale") == {"x": b"content"}
    assert p2pfs("get", "mnt/peers/ann")[0] == 0
    assert files_below(here / "ann") == {"films/x": b"content"}


def test_what_is_below_another_sub_tree_is_sought_in_the_network_once(p2pfs, servent, here):
    for name in "xyz":
        servent.offer(f"films/old/{name}", b"content")
        servent.shares.files[f"ann/films/old/{name}"] = servent.nodes[f"films/old/{name}"]

    assert p2pfs("get", "peers/ann/films")[0] == 0
    assert sorted(files_below(here / "films")) == ["old/x", "old/y", "old/z"]
    assert servent.sought == ["peers/ann/films"]
    servent.sought.clear()
    assert p2pfs("pin", "peers/ann/films")[0] == 0
    assert servent.sought == ["peers/ann/films"]


def test_a_directory_does_not_go_to_the_output(p2pfs, tree, here):
    status, output, errors = p2pfs("get", "films", "-o", "-")

    assert (status, output) == (2, "")
    assert errors == "p2pfs: films is a directory, and cannot all go to the output\n"
    assert not (here / "-").exists()


def test_what_has_no_name_is_not_published(p2pfs, servent, monkeypatch):
    # Without the refusal all of the machine would be copied.
    monkeypatch.setattr("p2pfs.cli.trees.DirectoryWalk", None)

    status, _, errors = p2pfs("publish", "/")

    assert status == 2
    assert errors.startswith("p2pfs: / has no name")
    assert servent.library.touches == []


def test_nothing_at_all_is_a_directory_too(p2pfs, servent, here):
    assert p2pfs("get", "mnt/network", "-o", "all") == (0, f"{here}/all: 0 files, 0 B\n", "")
    assert os.listdir(here / "all") == []


def test_progress_is_of_all_files_together(p2pfs, tree, monkeypatch):
    monkeypatch.setattr("p2pfs.cli.voice.PLAIN_EVERY_S", 0.0)

    errors = p2pfs("get", "films")[2]

    lines = errors.splitlines()
    assert all(line.startswith("films: ") and " of 361.3 KiB" in line for line in lines)
    assert lines[-1].startswith("films: 361.3 KiB of 361.3 KiB")


def test_ctrl_c_ends_it_and_leaves_no_empty_files(tree, here):
    tree.read_takes_s = 1000.0
    with subprocess.Popen([sys.executable, "-m", "p2pfs", "get", "films"]) as command:
        until(lambda: len(tree.readers) == 4)
        command.send_signal(signal.SIGINT)

        assert command.wait(20) == 130

    assert set(files_below(here / "films")) <= {"old/b"}  # which has nothing to wait for
    until(lambda: all(reader.is_closed for reader in tree.readers))


LABELS = st.sampled_from(["a", "b", "c d", "é", "x" * 255, "$(touch pwned)", "-o"])
PATHS = st.lists(LABELS, min_size=1, max_size=4).map("/".join).filter(lambda path: len(path) < 1000)
"""With a directory above them they are no longer than a path may be."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(files=st.dictionaries(PATHS, st.binary(max_size=9), max_size=12))
def test_any_tree_arrives_as_it_is(p2pfs, servent, here, tmp_path_factory, files):
    leaves = {
        f"top/{path}": data
        for path, data in files.items()
        if not any(other.startswith(f"{path}/") for other in files)
    }
    servent.nodes.clear()
    servent.contents.clear()
    for path, data in leaves.items():
        servent.offer(path, data)
    target = tmp_path_factory.mktemp("copy")

    assert p2pfs("get", "top", "-o", str(target))[0] == (0 if leaves else 3)

    assert files_below(target) == leaves


# publish


def make(top: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)


@pytest.mark.parametrize("typed", ["films", "films/", "./films", "{here}/films", "link", "."])
def test_a_directory_is_published_whole_under_its_name(p2pfs, servent, here, monkeypatch, typed):
    make(here / "films", below("films"))
    (here / "link").symlink_to("films")
    if typed == ".":
        monkeypatch.chdir(here / "films")

    status, output, errors = p2pfs("publish", "-m", str(here / "mnt"), typed.format(here=here))

    name = "link" if typed == "link" else "films"
    assert (status, errors) == (0, "")
    assert output == f"{name}: 4 files, 361.3 KiB\n"
    assert files_below(servent.config.shared_directory / name) == below("films")


def test_several_files_and_directories_are_published_in_turn(p2pfs, servent, here):
    make(here, TREE)

    status, output, errors = p2pfs("publish", "films", "nothing", "music/d")

    assert (status, errors) == (1, "p2pfs: nothing: No such file or directory\n")
    assert output == "films: 4 files, 361.3 KiB\nd: published\n"
    assert files_below(servent.config.shared_directory) == {
        **{f"films/{path}": data for path, data in below("films").items()},
        "d": b"d",
    }


def test_what_is_left_out_is_told_with_the_reason(p2pfs, servent, here):
    make(here / "top", {"a": b"a", ".hidden/x": b"", "b/.dot": b"", "Thumbs.db": b""})
    make(here / "top" / "other state", {"identity.key": b"seed", "lock": b"", "shared/x": b""})
    (here / "top" / "link").symlink_to("a")
    (here / "top" / "loop").symlink_to(".")
    os.mkfifo(here / "top" / "fifo")
    for number in range(5):
        make(here / "top", {f"b/{number}.part": b""})

    status, output, errors = p2pfs("publish", "top")

    assert (status, output) == (0, "top: 1 file, 1 B\n")
    assert sorted(errors.splitlines()) == [
        "p2pfs: top: left out Thumbs.db: reserved name",
        "p2pfs: top: left out b/0.part, b/1.part, b/2.part and 2 more: "
        "its name is that of a temporary file",
        "p2pfs: top: left out fifo: it is no regular file",
        "p2pfs: top: left out link, loop: it is a symbolic link",
        "p2pfs: top: left out other state: it is the state directory of a servent",
    ]
    assert files_below(servent.config.shared_directory) == {"top/a": b"a"}
    rows = json.loads(p2pfs("publish", "top", "--json")[1])
    assert {"path": "top/link", "reason": "it is a symbolic link"} in rows
    assert p2pfs("publish", "-q", "top") == (0, "", "")


def test_what_cannot_be_read_is_told_and_the_rest_is_published(p2pfs, servent, here, monkeypatch):
    make(here / "top", {"a": b"a", "shut/b": b"b"})
    scandir = os.scandir

    def refused(path):
        if str(path).endswith("/shut"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)

    status, output, errors = p2pfs("publish", "top")

    assert (status, output) == (1, "top: 1 file, 1 B\n")
    assert errors == f"p2pfs: {here}/top/shut: Permission denied\n"


def test_a_mount_in_a_directory_is_not_published_again(p2pfs, servent, here, monkeypatch):
    make(here / "home", {"a": b"a", "p2p/network/x": b"x"})
    mounts = [Mount(f"{here}/home/p2p", FSTYPE, 1), Mount(f"{here}/home", "ext4", 1)]
    monkeypatch.setattr("p2pfs.cli.walk.read_mounts", lambda: mounts)

    errors = p2pfs("publish", "home")[2]

    assert errors == "p2pfs: home: left out p2p: a network is mounted there\n"
    assert files_below(servent.config.shared_directory) == {"home/a": b"a"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(files=st.dictionaries(PATHS, st.binary(max_size=9), max_size=12))
def test_any_tree_is_published_as_it_is(p2pfs, servent, tmp_path_factory, files):
    leaves = {
        path: data
        for path, data in files.items()
        if not any(other.startswith(f"{path}/") for other in files)
    }
    top = tmp_path_factory.mktemp("top")
    make(top, leaves)

    assert p2pfs("publish", str(top))[0] == 0

    assert files_below(servent.config.shared_directory / top.name) == leaves
