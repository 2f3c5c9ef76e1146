"""The patterns of `.p2pfsignore`: what they match, and how long that takes."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pfs.library.patterns import Patterns
from p2pfs.protocol import MAX_LABEL_BYTES

LABELS = st.text("ab-]^!#. ", min_size=1, max_size=3).filter(lambda label: label.strip("."))
PATHS = st.lists(LABELS, min_size=1, max_size=3).map("/".join)
PARTS = st.sampled_from([*"*?/\\[]-! #ab", "**/", "/**", "[!", "[^", "a-b", "[:alpha:]", "a/", "b"])
LINES = st.lists(PARTS, min_size=1, max_size=7).map("".join)

STARS_IN_A_LABEL = re.compile(r"[^/!]\*\*|\*\*[^/]")
"""What git takes for one star or for several labels, by what stands before it."""


def verdict(text: str, path: str) -> bool:
    """Return whether a file at this path is ignored, by itself or with a directory above it."""
    patterns, labels = Patterns(text), path.split("/")
    for depth in range(1, len(labels)):
        if patterns.verdict("/".join(labels[:depth]), is_directory=True):
            return True
    return bool(patterns.verdict(path, is_directory=False))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", directory], check=True)
    return directory


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(line=LINES, paths=st.sets(PATHS, min_size=20))
def test_a_line_matches_what_git_has_it_match(repository, line, paths):
    if STARS_IN_A_LABEL.search(line):
        return
    (repository / ".gitignore").write_text(f"{line}\n")
    told = subprocess.run(
        ["git", "-C", repository, "check-ignore", "-z", "--no-index", "--stdin"],
        input="\0".join(paths), capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = {path for path in told.stdout.split("\0") if path}
    assert {path for path in paths if verdict(f"{line}\n", path)} == expected


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("[[:alpha:]].o", "a.o"),
        ("[z-a].o\n*.o", "a.o"),
        ("\ufeff*.o", "a.o"),
        ("*.o\r\n", "a.o"),
        ("cafe\u0301", "caf\u00e9"),
        ("caf\u00e9", "cafe\u0301"),
        ("caf?", "caf\u00e9"),
        ("a**b", "axyb"),
    ],
)
def test_what_is_written_is_kept_private(text, path):
    assert verdict(text, path)


@pytest.mark.parametrize("text", ["a\\", "[a", "[[:none:]]", "//", "!", "#a", "\\", "a//b", ""])
def test_a_line_that_can_match_nothing_hides_nothing(text):
    assert not any(verdict(text, path) for path in ("a", "b", "a/b", "[a", "#a"))


@pytest.mark.parametrize("pattern", ["*a" * 100 + "b", "*[!b]" * 60 + "b", "**/a/" * 12 + "b"])
def test_no_pattern_takes_long(pattern):
    name = "/".join(["a" * MAX_LABEL_BYTES] + ["a"] * 15)
    began = time.process_time()
    assert not verdict(pattern, name)
    assert time.process_time() - began < 0.5


def test_many_names_take_no_longer_than_few():
    names = "\n".join(f"name{number}" for number in range(5000))
    patterns = Patterns(names)
    began = time.process_time()
    for number in range(5000):
        assert patterns.verdict(f"d/name{number}", is_directory=False)
        assert not patterns.verdict(f"d/other{number}", is_directory=False)
    assert time.process_time() - began < 2
