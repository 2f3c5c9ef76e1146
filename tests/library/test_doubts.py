"""What a sign of a change does to an offer, and to the trust in a file: the tables, row by row."""

from __future__ import annotations

import stat
import time

import pytest
from msgspec.structs import replace

from p2pfs.library.books import Books
from p2pfs.library.doubts import TRUST, VERDICTS, Cause, Difference, Doubts, Sign, Trust, difference
from p2pfs.library.facts import SETTLED_NS, Facts
from p2pfs.library.looks import Looks
from p2pfs.library.status import StatKey, Status
from p2pfs.protocol import FileId

FILE = StatKey(1, 2, 100, 10, 20)
FILE_ID = FileId(bytes(32))

CHANGES = {
    Difference.NOTHING: FILE,
    Difference.CTIME: replace(FILE, ctime_ns=21),
    Difference.MTIME: replace(FILE, mtime_ns=11, ctime_ns=21),
    Difference.SIZE: replace(FILE, size=101, mtime_ns=11, ctime_ns=21),
    Difference.FILE: replace(FILE, ino=3),
}


@pytest.mark.parametrize("expected", CHANGES)
def test_the_largest_difference_counts(expected: Difference):
    assert difference(FILE, CHANGES[expected]) is expected


def test_nothing_at_all_differs_as_another_file_does():
    assert difference(FILE, None) is Difference.FILE
    assert difference(FILE, replace(FILE, device=2)) is Difference.FILE


ROWS = [
    (Sign.ATTRIBUTES, Difference.NOTHING, "offered", Trust.FULL),
    (Sign.ATTRIBUTES, Difference.CTIME, "offered", Trust.FULL),
    (Sign.ATTRIBUTES, Difference.MTIME, "retimed", Trust.FULL),
    (Sign.ATTRIBUTES, Difference.SIZE, "withdrawn", Trust.FULL),
    (Sign.ATTRIBUTES, Difference.FILE, "withdrawn", Trust.FULL),
    (Sign.NAMES, Difference.NOTHING, "offered", Trust.FULL),
    (Sign.NAMES, Difference.CTIME, "offered", Trust.FULL),
    (Sign.NAMES, Difference.MTIME, "withdrawn", Trust.FULL),
    (Sign.NAMES, Difference.SIZE, "withdrawn", Trust.FULL),
    (Sign.NAMES, Difference.FILE, "withdrawn", Trust.FULL),
    (Sign.FOUND, Difference.NOTHING, "offered", Trust.FULL),
    (Sign.FOUND, Difference.CTIME, "offered", Trust.FULL),
    (Sign.FOUND, Difference.MTIME, "withdrawn", Trust.FULL),
    (Sign.FOUND, Difference.SIZE, "withdrawn", Trust.FULL),
    (Sign.FOUND, Difference.FILE, "withdrawn", Trust.FULL),
    (Sign.WRITTEN, Difference.NOTHING, "offered", Trust.WARY),
    (Sign.WRITTEN, Difference.CTIME, "withdrawn", Trust.NONE),
    (Sign.WRITTEN, Difference.MTIME, "withdrawn", Trust.WARY),
    (Sign.WRITTEN, Difference.SIZE, "withdrawn", Trust.WARY),
    (Sign.WRITTEN, Difference.FILE, "withdrawn", Trust.FULL),
]
"""After a sign, with what has changed: how the offer stands, and how far its file is trusted."""


class Offered:
    """A file `f` that is offered, as it was when it was hashed."""

    def __init__(self, key: StatKey = FILE) -> None:
        self.books = Books(lambda: None)
        self.facts, self.looks = Facts(self.books), Looks(self.books)
        root = StatKey(1, 1, 0, 5, 5)
        self.facts.touched("", Status(root, stat.S_IFDIR, 0), Sign.FOUND)
        self.look_into_root(root)
        self.facts.touched("f", Status(key, stat.S_IFREG, 0), Sign.FOUND)
        look = self.looks.take()
        assert look is not None
        assert self.looks.saw_file(look, key)
        self.looks.offer(look, key, FILE_ID)
        self.key = key

    def look_into_root(self, key: StatKey) -> None:
        look = self.looks.take()
        assert look is not None
        assert self.looks.saw_directory(look, key)
        self.looks.finish(look)

    def touched(self, key: StatKey, sign: Sign) -> None:
        self.facts.touched("f", Status(key, stat.S_IFREG, 0), sign)

    def way(self) -> str:
        file = self.books.offers.file("f")
        if file is None:
            return "withdrawn"
        return "offered" if file.key == self.key else "retimed"

    def trust(self) -> Trust:
        return self.books.doubts.trust(self.key.identity)


@pytest.mark.parametrize(("sign", "change", "way", "trust"), ROWS)
def test_each_row_of_what_a_sign_does_to_an_offer(
    sign: Sign, change: Difference, way: str, trust: Trust
):
    offered = Offered()
    offered.touched(CHANGES[change], sign)

    assert (offered.way(), offered.trust()) == (way, trust)
    assert offered.books.agenda.knows("f")


def test_every_sign_and_difference_has_its_row():
    assert {(sign, change) for sign, change, *_ in ROWS} == {
        (sign, change) for sign in VERDICTS for change in VERDICTS[sign]
    }
    assert set(VERDICTS) == set(Sign)


def test_a_new_time_is_offered_at_once():
    offered = Offered()
    offered.touched(CHANGES[Difference.MTIME], Sign.ATTRIBUTES)

    file = offered.books.offers.file("f")
    assert file is not None
    assert (file.mtime_ns, file.file_id, file.is_filed) == (11, FILE_ID, False)


@pytest.mark.parametrize(("age_ns", "way"), [(0, "withdrawn"), (2 * SETTLED_NS, "offered")])
def test_a_write_within_one_tick_of_the_last_is_not_shown_by_the_times(
    monkeypatch: pytest.MonkeyPatch, age_ns: int, way: str
):
    monkeypatch.setattr(time, "time_ns", lambda: FILE.ctime_ns + age_ns)
    offered = Offered()
    offered.touched(FILE, Sign.WRITTEN)

    assert offered.way() == way


def test_a_file_in_doubt_is_withdrawn_by_whatever_sign():
    offered = Offered()
    offered.books.doubts.doubt(FILE.identity)
    offered.touched(FILE, Sign.ATTRIBUTES)

    assert offered.way() == "withdrawn"


HAPPENS = {Cause.SUSPECT: Doubts.suspect, Cause.DOUBT: Doubts.doubt, Cause.BELIEVE: Doubts.believe}

WAYS = {Trust.FULL: (), Trust.WARY: (Cause.SUSPECT,), Trust.NONE: (Cause.DOUBT,)}

TRUST_ROWS = [
    (Trust.FULL, Cause.SUSPECT, Trust.WARY),
    (Trust.FULL, Cause.DOUBT, Trust.NONE),
    (Trust.FULL, Cause.BELIEVE, Trust.FULL),
    (Trust.WARY, Cause.SUSPECT, Trust.WARY),
    (Trust.WARY, Cause.DOUBT, Trust.NONE),
    (Trust.WARY, Cause.BELIEVE, Trust.FULL),
    (Trust.NONE, Cause.SUSPECT, Trust.NONE),
    (Trust.NONE, Cause.DOUBT, Trust.NONE),
    (Trust.NONE, Cause.BELIEVE, Trust.FULL),
]


@pytest.mark.parametrize(("before", "cause", "after"), TRUST_ROWS)
def test_each_row_of_the_trust_in_a_file(before: Trust, cause: Cause, after: Trust):
    doubts = Doubts()
    for one in WAYS[before]:
        HAPPENS[one](doubts, FILE.identity)
    assert doubts.trust(FILE.identity) is before
    number = doubts.suspicion(FILE.identity)

    HAPPENS[cause](doubts, FILE.identity)

    assert doubts.trust(FILE.identity) is after
    assert doubts.files() == ([] if after is Trust.FULL else [FILE.identity])
    assert (doubts.suspicion(FILE.identity) == 0) == (after is Trust.FULL)
    assert doubts.suspicion(FILE.identity) != number or cause is Cause.BELIEVE
    assert doubts.trust((1, 3)) is Trust.FULL


def test_the_rows_are_all_that_the_table_of_trust_has():
    assert {(b, c) for b, c, _ in TRUST_ROWS} == {(b, c) for b in TRUST for c in TRUST[b]}
