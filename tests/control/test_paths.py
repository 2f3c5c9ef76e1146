"""What a path on the command line means, against what the kernel makes of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfs.control.files import find_shared
from p2pfs.control.paths import (
    MAX_SYMLINKS,
    Id,
    SubtreeName,
    TreePath,
    read_target,
    received_target,
    removal_target,
)
from p2pfs.errors import P2pfsError, UsageError
from p2pfs.roots import Roots

NAMES = ("shared", "network", "search", "peers", "id", "x")

LINKS = ("x", "shared", "..", "../x", "../network/x", "{mount}/shared/x", "{mount}/network", "/")


@dataclass(frozen=True)
class Place:
    """A tree that stands for a mounted one."""

    mountpoint: str
    shared_directory: str


@contextlib.contextmanager
def standing(shared: dict, others: dict) -> Iterator[Place]:
    """Make a tree: what is in `shared/`, and what is in each of the others.

    Below the mountpoint lie the files themselves; the directory behind `shared/` is a link.
    """
    with tempfile.TemporaryDirectory() as base:
        mount = Path(base).resolve() / "mnt"
        grow(mount / "shared", shared, mount)
        for subtree in ("network", "search", "peers"):
            grow(mount / subtree, others, mount)
        grow(mount.parent / "x", {"x": None}, mount)
        (mount.parent / "state").mkdir()
        (mount.parent / "state" / "shared").symlink_to(mount / "shared")
        yield Place(str(mount), str(mount.parent / "state" / "shared"))


def grow(at: Path, what: dict | str | None, mount: Path) -> None:
    if what is None:
        at.write_text(str(at.relative_to(mount.parent)))
    elif isinstance(what, str):
        at.symlink_to(what.format(mount=mount))
    else:
        at.mkdir(parents=True)
        for name, below in what.items():
            grow(at / name, below, mount)


def seen(place: Place) -> list[str]:
    """Return every path below the tree, and beside it."""
    base = os.path.dirname(place.mountpoint)
    walk = os.walk(base)
    return sorted(os.path.relpath(os.path.join(d, n), base) for d, ds, fs in walk for n in ds + fs)


def trees(leaves: st.SearchStrategy[object]) -> st.SearchStrategy[dict]:
    level = st.dictionaries(st.sampled_from(NAMES), leaves, max_size=3)
    for _ in range(2):
        level = st.dictionaries(st.sampled_from(NAMES), leaves | level, min_size=1, max_size=3)
    return level


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, str]:
    """Draw where the user is, below the directory of the mountpoint, and what he writes there."""
    label = st.sampled_from((*NAMES, "..", ".", ""))
    here = draw(st.sampled_from((".", "mnt", "mnt/shared", "mnt/network", "mnt/shared/shared")))
    start = draw(st.sampled_from(("", "", "mnt/", "shared/", "{mount}/", "{mount}/shared/")))
    path = "/".join(draw(st.lists(label, max_size=4))) + draw(
        st.sampled_from(("x", "x/", "shared"))
    )
    return here, start + path


def walked(place: Place, here: str, text: str) -> tuple[str, str]:
    """Go there, if there is such a place, and return it and the text."""
    base = os.path.dirname(place.mountpoint)
    directory = os.path.join(base, here)
    return (directory if os.path.isdir(directory) else base), text.format(mount=place.mountpoint)


def unpublish(place: Place, text: str) -> None:
    target = received_target(str(removal_target(text, place)))
    share = Path(place.shared_directory)
    os.unlink(find_shared(Roots(share), target)[0])


FILES = st.none()
FILES_AND_LINKS = st.none() | st.sampled_from(LINKS)


@settings(deadline=None)
@given(trees(FILES_AND_LINKS), texts())
def test_unpublish_removes_what_rm_removes_and_nothing_else(shared, where):
    with standing(shared, {"x": None}) as ours, standing(shared, {"x": None}) as theirs:
        before = seen(ours)
        with contextlib.chdir(walked(theirs, *where)[0]):
            fails = False
            try:
                os.unlink(walked(theirs, *where)[1])
            except OSError:
                fails = True
        here, text = walked(ours, *where)
        with contextlib.chdir(here):
            try:
                unpublish(ours, text)
            except (P2pfsError, OSError):
                assert seen(ours) == before
                gone = set(before) - set(seen(theirs))
                assert not any(path.startswith("mnt/shared/") for path in gone)
                return
        if fails:  # then it starts at shared/
            assert not os.path.isabs(text)
            with contextlib.chdir(theirs.shared_directory):
                os.unlink(text)
        assert seen(ours) == seen(theirs)


@settings(deadline=None)
@given(trees(FILES_AND_LINKS), trees(FILES), texts())
def test_what_is_read_is_what_cat_shows(shared, others, where):
    with standing(shared, others) as place:
        here, text = walked(place, *where)
        with contextlib.chdir(here):
            try:
                target = read_target(text, place)
            except (P2pfsError, OSError):
                assert not is_from_others(place, text)
                return
            assert received_target(str(target)) == target
            assert isinstance(target, TreePath)
            assert target.subtree is not SubtreeName.SHARED
            file = os.path.join(place.mountpoint, target.subtree, target.path)
            if is_from_others(place, text):
                assert file == os.path.realpath(text)
            elif contents(text) is not None:  # a file beside the mount, as it happens
                assert not os.path.isabs(text)
            elif contents(file) is not None and not target.must_be_directory:
                assert contents(os.path.join(place.mountpoint, "network", text)) == contents(file)


def is_from_others(place: Place, text: str) -> bool:
    """Return whether cat would read it from another sub-tree than `shared/`."""
    roots = [os.path.join(place.mountpoint, top) + "/" for top in ("network", "search", "peers")]
    return contents(text) is not None and os.path.realpath(text).startswith(tuple(roots))


def contents(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return Path(path).read_text()
    return None


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    (tmp_path / "mnt" / "shared").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "shared").symlink_to(tmp_path / "mnt" / "shared")
    monkeypatch.chdir(tmp_path)
    return Place(str(tmp_path / "mnt"), str(tmp_path / "state" / "shared"))


def test_a_path_that_leads_nowhere_near_starts_at_network(place):
    assert read_target("films/x", place) == TreePath(SubtreeName.NETWORK, "films/x")
    assert read_target("network/x", place) == TreePath(SubtreeName.NETWORK, "network/x")
    assert read_target("films/", place) == TreePath(
        SubtreeName.NETWORK, "films", must_be_directory=True
    )


@pytest.mark.parametrize("subtree", ["network", "search", "peers"])
def test_what_others_fill_is_named_through_the_mount(place, subtree, monkeypatch):
    expected = TreePath(SubtreeName(subtree), "blue/x")
    os.makedirs(f"mnt/{subtree}/blue")

    assert read_target(f"{place.mountpoint}/{subtree}/blue/x", place) == expected
    assert read_target(f"mnt/{subtree}/blue/x", place) == expected
    monkeypatch.chdir(f"mnt/{subtree}/blue")
    assert read_target("x", place) == expected
    assert read_target("../../network/y", place) == TreePath(SubtreeName.NETWORK, "y")


def test_a_link_to_a_sub_tree_leads_there(place, tmp_path):
    (tmp_path / "films").symlink_to(tmp_path / "mnt" / "network" / "films")

    assert read_target("films/x", place) == TreePath(SubtreeName.NETWORK, "films/x")
    assert read_target("films", place) == TreePath(SubtreeName.NETWORK, "films")


def test_below_the_network_nothing_is_looked_at(place, monkeypatch):
    looked_at = []
    monkeypatch.setattr("p2pfs.control.paths._link_at", looked_at.append)

    read_target("mnt/shared/../network/../network/films/x", place)

    assert f"{place.mountpoint}/shared" in looked_at
    assert not any(path.startswith(f"{place.mountpoint}/network") for path in looked_at)


def test_what_lies_on_this_machine_is_not_read_from_the_network(place, monkeypatch):
    Path("mnt/shared/x").write_text("")
    for text in ("mnt/shared/x", "/etc/passwd", "mnt/shared/", place.mountpoint):
        with pytest.raises(UsageError, match="this machine"):
            read_target(text, place)
    monkeypatch.chdir("mnt/shared")
    with pytest.raises(UsageError, match="this machine"):
        read_target("x", place)
    assert read_target("y", place) == TreePath(SubtreeName.NETWORK, "y")


@pytest.mark.parametrize("text", ["../x", "a/../..", "/x"])
def test_no_path_leads_out_of_the_sub_tree(place, text):
    for target in (read_target, removal_target):
        with pytest.raises(P2pfsError):
            target(text, place)


def test_an_id_is_a_content_wherever_the_user_is(place, monkeypatch):
    monkeypatch.chdir("mnt/shared")

    assert read_target("AB" * 32, place) == Id("ab" * 32)
    assert read_target("./" + "ab" * 32, place) == TreePath(SubtreeName.NETWORK, "ab" * 32)
    assert received_target(str(Id("ab" * 32))) == Id("ab" * 32)
    assert removal_target("ab" * 32, place) == TreePath(SubtreeName.SHARED, "ab" * 32)


def test_links_in_a_circle_end(place, tmp_path):
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links"):
        read_target("round/x", place)
    for number in range(MAX_SYMLINKS):
        (tmp_path / f"l{number}").symlink_to(
            f"l{number + 1}" if number + 1 < MAX_SYMLINKS else "mnt"
        )
    assert read_target("l0/network/x", place) == TreePath(SubtreeName.NETWORK, "x")


@pytest.mark.parametrize(
    "text",
    ["", "x", "/x", "home/x", "network/a//b", "network/../x", "shared/.", "id/", "id/x", "id"],
)
def test_what_no_client_sends_is_refused(text):
    with pytest.raises(UsageError):
        received_target(text)


def test_without_a_mount_paths_start_at_the_sub_trees(tmp_path, monkeypatch):
    (tmp_path / "shared" / "films").mkdir(parents=True)
    served = Place(None, str(tmp_path / "shared"))
    monkeypatch.chdir("/")

    assert read_target("films/x", served) == TreePath(SubtreeName.NETWORK, "films/x")
    assert removal_target("films/x", served) == TreePath(SubtreeName.SHARED, "films/x")
    whole = str(tmp_path / "shared" / "films" / "x")
    assert removal_target(whole, served) == TreePath(SubtreeName.SHARED, "films/x")
