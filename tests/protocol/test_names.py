"""Names from strangers: what breaks a rule is refused, and nothing is repaired."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pfs.protocol.names import (
    MAX_DEPTH,
    MAX_LABEL_BYTES,
    MAX_PATH_BYTES,
    are_in,
    check_label,
    check_path,
    is_joiner_in_place,
    is_private,
    is_probe,
    is_reserved,
    join_path,
    labels_in,
    parent_of,
)
from tests.helpers import strategies

CASES = json.loads((Path(__file__).parent.parent / "vectors" / "names.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["comment"])
def test_a_path_is_refused_for_the_rule_that_it_breaks(case):
    assert check_path(case["path"]) == case["refused"]


def test_every_reason_to_refuse_has_a_case():
    assert {case["refused"] for case in CASES} == {
        None,
        "too deep",
        "path too long",
        "empty label",
        "not a single label",
        "control, bidi or invisible character",
        "label too long",
        "not in normal form C",
        "reserved name",
    }


def test_the_bounds_themselves_are_within():
    assert check_label("ä" * (MAX_LABEL_BYTES // 2)) is None
    assert check_label("a" * MAX_LABEL_BYTES) is None
    assert check_path("/".join("d" * MAX_DEPTH)) is None
    assert check_path("/".join(("a" * 255, "b" * 255, "c" * 255, "d" * 256))) == "label too long"
    longest = "/".join(("a" * 255, "b" * 255, "c" * 255, "d" * 253, "ee"))
    assert len(longest) == MAX_PATH_BYTES
    assert check_path(longest) is None
    assert check_path(longest + "e") == "path too long"


@given(st.text())
@example("a/../b")
def test_a_path_that_is_accepted_can_do_no_harm(path):
    if check_path(path) is not None:
        return
    assert len(path.encode()) <= MAX_PATH_BYTES
    assert unicodedata.normalize("NFC", path) == path
    for label in path.split("/"):
        assert all(
            c.isprintable() or unicodedata.category(c) == "Zs" or is_joiner_in_place(label, index)
            for index, c in enumerate(label)
        )
    for label in path.split("/"):
        assert label not in ("", ".", "..")
        assert not label.startswith(".")
        assert "\0" not in label


@given(st.text(alphabet="a\u0646\u0647\u0915\u094d\u093f\u200c\u200d\ufe0f\U0001f468\u2640"))
def test_no_two_names_differ_only_in_a_joiner_that_is_not_seen(label):
    """Neither at an end, nor beside another joiner, nor where it joins nothing."""
    if check_label(label) is not None:
        return
    assert "\u200c\u200c" not in label
    assert "\u200d\u200d" not in label
    assert label[0] not in "\u200c\u200d"
    for index, character in enumerate(label):
        if character in "\u200c\u200d":
            assert not label[:index].isascii()
            assert character == "\u200d" or label[index + 1 :]


@given(strategies.paths)
def test_ordinary_names_in_any_script_are_accepted(path):
    assert check_path(path) is None


DIRECTORIES = st.sampled_from(["", "d", "d/e", "ä", ".d", "d//e", "/".join("d" * MAX_DEPTH)])
LABELS = (
    st.sampled_from(
        [
            "a",
            "b.txt",
            "a/b",
            "",
            ".",
            "..",
            ".a",
            "Desktop.INI",
            "lost+found",
            "ä",
            "a\n",
            "\u200c",
        ]
    )
    | st.builds(lambda length: "a" * length, st.integers(MAX_LABEL_BYTES, MAX_LABEL_BYTES + 1))
    | st.text(max_size=3)
)


@given(DIRECTORIES, DIRECTORIES, st.lists(LABELS, max_size=4))
def test_what_is_told_of_a_page_at_once_holds_for_each_path(directory, other, labels):
    paths = [join_path(directory, label) for label in labels]
    for place in (directory, other):
        if are_in(place, paths):
            assert all(check_path(path) is None for path in paths)
            assert all(parent_of(path) == place for path in paths)
        assert labels_in(place, paths) in ([], [path.rpartition("/")[2] for path in paths])


def test_a_page_of_plain_names_is_accepted_at_once():
    for directory in ("", "d", "films/été"):
        paths = [join_path(directory, name) for name in ("a b.txt", "x~y", "a.b.c")]
        assert are_in(directory, paths)
        assert not are_in(directory, [*paths, join_path(directory, ".git")])
        assert not are_in(directory, [*paths, join_path(directory, "e/f")])
    assert not are_in("d", ["d/a", "e/a"])
    assert not are_in("d", ["da"])
    assert not are_in("", [])


@pytest.mark.parametrize("name", [".git", ".Trash-1000", ".hidden", "."])
def test_names_with_a_leading_dot_are_private(name):
    assert is_private(name)


@pytest.mark.parametrize("name", ["Desktop.ini", "Thumbs.db", "lost+found", "$RECYCLE.BIN"])
def test_what_systems_leave_everywhere_is_refused_in_any_case(name):
    assert is_reserved(name)
    assert is_probe(name)
    assert not is_reserved(name + "x")


@pytest.mark.parametrize("name", ["cover.jpg", "Folder.JPG", "folder.jpg", "HEAD", "autorun.inf"])
def test_what_programs_merely_look_for_may_be_published(name):
    assert is_probe(name)
    assert check_path(f"music/{name}") is None
