"""The ways in which a published path stands, row by row: see the docstring of `books`."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from p2pfs.library.agenda import Look
from p2pfs.library.answers import Answers
from p2pfs.library.books import Books
from p2pfs.library.doubts import Sign
from p2pfs.library.facts import Facts
from p2pfs.library.looks import Looks
from p2pfs.library.status import StatKey, Status
from p2pfs.library.tidying import Tidying
from p2pfs.protocol import FileId

ROOT = StatKey(1, 1, 0, 5, 5)
FILE = StatKey(1, 2, 100, 10, 20)
FILE_ID = FileId(bytes(32))


class Path:
    """The path `f` in a share, and what can happen to it."""

    def __init__(self) -> None:
        self.books = Books(lambda: None)
        self.facts, self.looks = Facts(self.books), Looks(self.books)
        self.answers, self.tidying = Answers(self.books), Tidying(self.books)
        self.key = FILE
        self.facts.touched("", Status(ROOT, stat.S_IFDIR, 0), Sign.FOUND)
        self.look_into_root()
        self.facts.touched("f", Status(FILE, stat.S_IFREG, 0), Sign.FOUND)

    def look_into_root(self) -> None:
        look = self.looks.take()
        assert look is not None
        assert self.looks.saw_directory(look, ROOT)
        self.looks.finish(look)

    def way(self) -> str:
        """Return how the path stands, in the words of the docstring."""
        if self.books.offers.file("f") is not None:
            return "offered"
        if self.books.offers.refusal("f") is not None:
            return "refused"
        if self.books.holdings.at(FILE.identity) is not None:
            return "withdrawn"
        return "unknown" if self.books.is_expected("f") else "gone"

    def take(self) -> Look:
        look = self.looks.take()
        assert look is not None
        assert look.path == "f"
        return look

    def offer(self) -> None:
        look = self.take()
        if self.looks.saw_file(look, self.key):
            self.looks.offer(look, self.key, FILE_ID)

    def refuse(self) -> None:
        self.looks.refuse(self.take(), "it is of no use", self.key)
        self.let_go()

    def vanish(self) -> None:
        self.facts.touched("f", None, Sign.NAMES)
        self.looks.refuse(self.take(), None)
        self.let_go()

    def miss(self) -> None:
        self.facts.touched("", Status(ROOT, stat.S_IFDIR, 0), Sign.NAMES)
        looks = {look.path: look for look in iter(self.looks.take, None)}
        if "f" in looks:
            self.books.end(looks["f"])
        look = looks[""]
        assert self.looks.saw_directory(look, ROOT)
        self.looks.miss(look, ["f"])
        self.looks.finish(look)
        self.let_go()

    def let_go(self) -> None:
        while self.tidying.let_go():
            pass

    def touched(self, sign: Sign, **changes: int) -> None:
        self.key = replace(self.key, **changes)
        self.facts.touched("f", Status(self.key, stat.S_IFREG, 0), sign)

    def write_began(self) -> None:
        self.facts.write_began("f", Status(self.key, stat.S_IFREG, 0))


EVENTS: dict[str, Callable[[Path], object]] = {
    "offer": Path.offer,
    "refuse with a reason": Path.refuse,
    "refuse without a reason": Path.vanish,
    "miss": Path.miss,
    "touched": lambda path: path.touched(Sign.FOUND),
    "touched with a change": lambda path: path.touched(Sign.FOUND, mtime_ns=11),
    "touched, other attributes alone": lambda path: path.touched(Sign.ATTRIBUTES, mtime_ns=11),
    "write_began": Path.write_began,
    "write_ended": lambda path: path.facts.write_ended("f"),
    "spoiled": lambda path: path.facts.spoiled(FILE.identity),
    "misplaced": lambda path: path.facts.misplaced("f", FILE.identity),
    "lost": lambda path: path.facts.lost("f"),
    "start_over": lambda path: path.facts.start_over(),
}

WAYS = {
    "unknown": (),
    "offered": ("offer",),
    "withdrawn": ("offer", "touched with a change"),
    "refused": ("refuse with a reason",),
    "gone": ("refuse without a reason",),
}

ROWS = [
    ("unknown", "offer", "offered"),
    ("unknown", "refuse with a reason", "refused"),
    ("unknown", "refuse without a reason", "gone"),
    ("offered", "touched", "offered"),
    ("offered", "touched, other attributes alone", "offered"),
    ("offered", "touched with a change", "withdrawn"),
    ("offered", "write_began", "withdrawn"),
    ("offered", "misplaced", "withdrawn"),
    ("offered", "lost", "withdrawn"),
    ("offered", "start_over", "withdrawn"),
    ("offered", "spoiled", "unknown"),
    ("offered", "miss", "gone"),
    ("offered", "refuse without a reason", "gone"),
    ("withdrawn", "offer", "offered"),
    ("withdrawn", "refuse with a reason", "refused"),
    ("withdrawn", "refuse without a reason", "gone"),
    ("withdrawn", "spoiled", "unknown"),
    ("refused", "touched", "unknown"),
    ("refused", "refuse without a reason", "gone"),
    ("gone", "touched", "unknown"),
]


@pytest.mark.parametrize(("before", "event", "after"), ROWS)
def test_each_row_of_the_ways_of_a_path(before: str, event: str, after: str):
    path = Path()
    for one in WAYS[before]:
        EVENTS[one](path)
    assert path.way() == before

    EVENTS[event](path)

    assert path.way() == after
    if after in ("withdrawn", "unknown") and event not in ("write_began", "start_over"):
        assert path.books.agenda.knows("f")


@pytest.mark.parametrize("before", WAYS)
def test_what_was_written_is_looked_at_when_the_writer_has_gone(before: str):
    path = Path()
    for one in WAYS[before]:
        EVENTS[one](path)

    path.write_began()
    path.facts.write_ended("f")

    assert path.take().sign is Sign.WRITTEN
    assert path.answers.entry("f") is None


def test_after_a_start_from_nothing_the_whole_share_is_looked_at():
    path = Path()
    path.offer()
    path.facts.start_over()

    look = path.looks.take()
    assert look is not None
    assert (look.path, look.sign) == ("", Sign.FOUND)


def test_the_version_differs_after_each_pause_and_each_end_of_one():
    path = Path()
    versions = [path.answers.version]
    for is_paused in (True, False, True, False):
        path.facts.set_paused(is_paused)
        versions.append(path.answers.version)
        path.facts.set_paused(is_paused)
        assert path.answers.version == versions[-1]

    assert len(set(versions)) == len(versions)


def test_the_doubts_about_a_file_last_as_long_as_somebody_writes_it():
    path = Path()
    path.offer()
    path.write_began()
    path.offer()
    assert len(path.books.agenda) == 0
    assert path.books.doubts.files() == [FILE.identity]

    assert path.tidying.stale_doubts() == []


def test_a_file_in_doubt_that_is_offered_is_looked_at_and_not_forgotten():
    path = Path()
    path.offer()
    path.facts.touched(".hidden", Status(FILE, stat.S_IFREG, 0), Sign.WRITTEN)
    look = path.looks.take()
    assert look is not None
    path.looks.finish(look)
    assert path.way() == "offered"

    assert path.tidying.stale_doubts() == []
    assert path.take().sign is Sign.NAMES


def test_a_file_in_doubt_that_is_offered_nowhere_is_to_be_forgotten():
    path = Path()
    path.books.doubts.doubt((1, 99))
    path.offer()

    assert path.tidying.stale_doubts() == [(1, 99)]
    path.tidying.believe([(1, 99)])
    assert path.tidying.stale_doubts() == []


def test_a_content_is_served_until_its_paths_have_been_looked_at():
    path = Path()
    path.offer()
    path.touched(Sign.FOUND, mtime_ns=11)

    path.let_go()
    assert path.answers.places(FILE_ID) == [(FILE.identity, "f")]

    path.vanish()
    path.let_go()
    assert path.answers.places(FILE_ID) == []


def test_a_content_is_served_while_its_file_is_written_by_another_name():
    path = Path()
    path.offer()
    path.facts.write_began("g", Status(FILE, stat.S_IFREG, 0))
    path.offer()
    assert not path.books.is_expected("f")

    path.let_go()
    assert path.answers.places(FILE_ID) == [(FILE.identity, "f")]


def test_files_that_have_gone_are_let_go_some_at_a_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("p2pfs.library.tidying.NAMES_A_STEP", 1)
    path = Path()
    path.books.leavings.files |= {(1, 50), (1, 51)}

    assert [path.tidying.let_go(), path.tidying.let_go()] == [True, False]


def test_a_name_in_form_d_is_outdone_by_the_same_name_in_form_c_and_not_the_reverse():
    composed, decomposed = "\u00e9", "e\u0301"
    path = Path()
    path.offer()
    path.facts.touched(composed, Status(FILE, stat.S_IFREG, 0), Sign.FOUND)
    look = path.looks.take()
    assert look is not None
    assert not path.looks.is_outdone(decomposed)
    assert path.looks.saw_file(look, FILE)
    path.looks.offer(look, FILE, FILE_ID)

    assert path.looks.is_outdone(decomposed)
    assert not path.looks.is_outdone(composed)
