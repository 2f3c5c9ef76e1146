"""Twenty thousand names in one directory hold up nobody who writes or asks."""

from __future__ import annotations

import random
import stat
import sys
import threading

import pytest

from p2pfs.library.answers import Answers
from p2pfs.library.books import NAMES_A_STEP, Books
from p2pfs.library.doubts import Sign
from p2pfs.library.facts import Facts
from p2pfs.library.looks import Looks
from p2pfs.library.status import StatKey, Status
from p2pfs.library.tidying import Tidying
from p2pfs.protocol import FileId

pytestmark = pytest.mark.slow

NAMES = 20_000

CALLS_AT_ONCE = 100_000
"""Calls and returns while the lock is held at a stretch: those for a piece of a directory, not
for all of it. Calls and no seconds, which are longer on a busy machine."""

FILE_ID = FileId(bytes(32))


class CountedLock:
    """Knows how many calls were made while it was held, at most at a stretch."""

    def __init__(self):
        self._lock = threading.Lock()
        self._calls = 0
        self.most_calls = 0

    def __enter__(self):
        self._lock.acquire()
        self._calls = 0
        sys.setprofile(self._count)

    def _count(self, *_):
        self._calls += 1

    def __exit__(self, *_):
        sys.setprofile(None)
        self.most_calls = max(self.most_calls, self._calls)
        self._lock.release()


class Many:
    """The books, and a worker that looks at files which are not there."""

    def __init__(self):
        books = Books(lambda: None)
        self.facts, self.looks = Facts(books), Looks(books)
        self.tidying, self.answers = Tidying(books), Answers(books)
        self.lock = books.lock = CountedLock()
        self.names = [f"file number {number:07d}" for number in range(NAMES)]
        random.Random(1).shuffle(self.names)
        self.numbers = {name: number for number, name in enumerate([*self.names, "new"])}
        self.directory("", 1)

    def directory(self, path, ino):
        key = StatKey(1, ino, 0, 5, 5)
        self.facts.touched(path, Status(key, stat.S_IFDIR, 0), Sign.NAMES)
        look = self.looks.take()
        assert self.looks.saw_directory(look, key)
        self.looks.finish(look)

    def look_into(self, path, ino):
        key = StatKey(1, ino, 0, 5, 5)
        self.facts.touched(path, Status(key, stat.S_IFDIR, 0), Sign.FOUND)
        look = self.looks.take()
        assert self.looks.saw_directory(look, key)
        for start in range(0, NAMES, NAMES_A_STEP):
            some = self.names[start : start + NAMES_A_STEP]
            assert self.looks.saw_names(look, {f"{path}/{name}": name for name in some})
        self.looks.finish(look)

    def look_at_all(self):
        count = 0
        while (look := self.looks.take()) is not None:
            key = StatKey(1, 100 + self.numbers[look.path.rpartition("/")[2]], 1, 5, 5)
            if self.looks.saw_file(look, key):
                self.looks.offer(look, key, FILE_ID)
                count += 1
        return count

    def tidy(self):
        while self.tidying.dismantle():
            pass
        while self.tidying.let_go():
            pass
        while self.tidying.take_withdrawn(NAMES_A_STEP):
            pass


@pytest.fixture(scope="module")
def many():
    many = Many()
    many.look_into("many", 2)
    assert many.look_at_all() == NAMES
    assert many.lock.most_calls < CALLS_AT_ONCE
    return many


@pytest.fixture(autouse=True)
def _held_for_pieces(many):
    many.lock.most_calls = 0
    yield
    assert many.lock.most_calls < CALLS_AT_ONCE


def test_a_look_at_a_directory_that_is_offered(many):
    many.look_into("many", 2)

    assert many.look_at_all() == 0
    assert len(many.answers.page("many", "file number 0010000", 500).entries) == 500


def test_a_page_after_a_change(many):
    key = StatKey(1, 100 + NAMES, 1, 5, 5)
    many.facts.touched("many/new", Status(key, stat.S_IFREG, 0), Sign.NAMES)
    assert many.look_at_all() == 1

    assert many.answers.page("many", "file number 0019999", 500).entries[0].path == "many/new"
    many.facts.touched("many/new", None, Sign.NAMES)
    assert many.answers.page("many", "", 1).total == NAMES


def test_names_that_are_there_no_more(many):
    many.directory("few", 4)
    many.look_into("few", 4)
    assert many.look_at_all() == NAMES
    look_at = Status(StatKey(1, 4, 0, 5, 5), stat.S_IFDIR, 0)
    many.facts.touched("few", look_at, Sign.NAMES)
    look = many.looks.take()
    assert many.looks.saw_directory(look, look_at.key)
    names = many.looks.names("few")
    for start in range(0, NAMES, NAMES_A_STEP):
        many.looks.miss(look, names[start : start + NAMES_A_STEP])
    many.looks.finish(look)
    many.tidy()

    assert many.answers.page("few", "", 1).total == 0
    assert many.answers.totals()[0] == NAMES


def test_a_directory_that_is_renamed(many):
    many.facts.touched("many", None, Sign.NAMES)
    many.looks.refuse(many.looks.take(), None)
    assert many.answers.page("many", "", 1) is None
    many.look_into("renamed", 2)
    assert many.look_at_all() == NAMES
    many.tidy()

    assert many.answers.page("renamed", "", 1).total == NAMES
    assert many.answers.file_with(FILE_ID).path.startswith("renamed/")
    assert many.answers.totals()[0] == NAMES


def test_a_start_from_nothing(many):
    many.facts.start_over()
    assert many.answers.page("", "", 1).total == 0
    many.tidy()

    assert many.answers.totals() == (0, 0)
