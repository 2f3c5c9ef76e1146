"""The stages of a path on the agenda, row by row: see the docstrings of `Agenda` and `Stage`."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest

from p2pfs.library.agenda import EFFECTS, Agenda, Look, PathEvent, Stage
from p2pfs.library.books import Books
from p2pfs.library.doubts import Doubts, Sign, Trust
from p2pfs.library.facts import Facts
from p2pfs.library.status import StatKey, Status

PATH = "films/x"
KEY = StatKey(1, 2, 100, 10, 20)


class Watched:
    """An agenda, one path on it, and the last look that was begun at it."""

    def __init__(self) -> None:
        books = Books(lambda: None)
        self.facts, self.is_expected = Facts(books), books.is_expected
        self.agenda, self.doubts = books.agenda, books.doubts
        self.look: Look | None = None

    def stages(self) -> set[str]:
        """Return where the path is now, in the words of the docstring."""
        agenda, look = self.agenda, self.agenda._looks.get(PATH)
        tables = {"due": agenda._due, "large": agenda._due_large, "later": agenda._later}
        found = {stage for stage, table in tables.items() if PATH in table}
        if look is not None:
            found.add(look.stage.name.lower())
        return found or {"settled"}

    def take(self) -> None:
        self.look = self.agenda.take()

    def take_large(self) -> None:
        self.look = self.agenda.take_large()

    def know(self) -> None:
        """Let the look find out which file is there."""
        assert self.look is not None
        self.agenda.identify(self.look, KEY)

    def finish(self) -> None:
        assert self.look is not None
        self.agenda.finish(self.look)

    def put_off(self) -> None:
        assert self.look is not None
        self.agenda.put_off(self.look)

    def put_aside(self) -> None:
        assert self.look is not None
        self.agenda.put_aside(self.look)


EVENTS: dict[str, Callable[[Watched], object]] = {
    "add": lambda w: w.agenda.add(PATH),
    "touch": lambda w: w.agenda.touch(PATH, Sign.FOUND),
    "touch above": lambda w: w.agenda.touch("films", Sign.NAMES),
    "new attributes": lambda w: w.agenda.touch(PATH, Sign.ATTRIBUTES),
    "take": Watched.take,
    "take large": Watched.take_large,
    "know": Watched.know,
    "finish": Watched.finish,
    "put off": Watched.put_off,
    "put aside": Watched.put_aside,
    "recall": lambda w: w.agenda.recall(),
    "write began": lambda w: w.facts.write_began(PATH, Status(KEY, stat.S_IFREG, 0)),
    "write ended": lambda w: w.facts.write_ended(PATH),
}

WAYS = {
    "settled": (),
    "due": ("add",),
    "looking": ("add", "take"),
    "looking due": ("add", "take", "add"),
    "known": ("add", "take", "know"),
    "again": ("add", "take", "know", "add"),
    "void due": ("add", "take", "know", "touch"),
    "void": ("add", "take", "know", "touch above"),
    "later": ("add", "take", "put off"),
    "large": ("add", "take", "know", "put aside"),
}

ROWS = [
    ("settled", "add", "due"),
    ("settled", "touch", "due"),
    ("settled", "recall", "settled"),
    ("settled", "write began", "settled"),
    ("due", "add", "due"),
    ("due", "touch", "due"),
    ("due", "take", "looking"),
    ("due", "write began", "due"),
    ("looking", "add", "looking due"),
    ("looking", "touch", "void due"),
    ("looking", "touch above", "void"),
    ("looking", "new attributes", "looking due"),
    ("looking", "know", "known"),
    ("looking", "finish", "settled"),
    ("looking", "put off", "later"),
    ("looking", "write began", "void due"),
    ("looking due", "finish", "due"),
    ("looking due", "put off", "later due"),
    ("known", "add", "again"),
    ("known", "new attributes", "again"),
    ("known", "touch", "void due"),
    ("known", "touch above", "void"),
    ("known", "finish", "settled"),
    ("known", "put off", "later"),
    ("known", "put aside", "large"),
    ("known", "write began", "void due"),
    ("again", "add", "again"),
    ("again", "touch", "void due"),
    ("again", "touch above", "void due"),
    ("again", "write began", "void due"),
    ("again", "know", "again"),
    ("again", "finish", "due"),
    ("again", "put off", "later due"),
    ("again", "put aside", "large due"),
    ("void", "add", "void due"),
    ("void", "touch above", "void"),
    ("void", "write began", "void due"),
    ("void", "know", "void"),
    ("void", "finish", "settled"),
    ("void due", "add", "void due"),
    ("void due", "finish", "due"),
    ("void due", "put off", "later due"),
    ("later", "add", "later due"),
    ("later", "touch", "later due"),
    ("later", "recall", "due"),
    ("large", "add", "large due"),
    ("large", "take large", "looking"),
    ("large", "recall", "large"),
]


@pytest.mark.parametrize(("before", "event", "after"), ROWS)
def test_each_row_of_the_table(before: str, event: str, after: str):
    watched = Watched()
    for one in WAYS[before]:
        EVENTS[one](watched)
    assert watched.stages() == set(before.split())

    EVENTS[event](watched)

    assert watched.stages() == set(after.split())
    assert watched.is_expected(PATH) == (watched.stages() != {"settled"} or "write" in event)


@pytest.mark.parametrize("before", WAYS)
def test_whatever_it_is_at_the_end_of_a_write_it_is_looked_at_afterwards(before: str):
    watched = Watched()
    for one in (*WAYS[before], "write began", "write ended"):
        EVENTS[one](watched)

    assert "due" in watched.stages()
    was_looked_at = before in {"known", "again", "void", "void due"}
    assert (watched.doubts.trust(KEY.identity) is Trust.NONE) == was_looked_at


def test_an_event_that_can_come_has_a_row_in_every_stage_of_a_look():
    for stage in set(Stage) - {Stage.NONE}:
        assert set(EFFECTS[stage]) == set(PathEvent)


def test_of_two_signs_the_larger_one_begins_the_next_look():
    agenda = Watched().agenda
    agenda.add(PATH, Sign.NAMES)
    agenda.add(PATH, Sign.WRITTEN)
    agenda.add(PATH, Sign.FOUND)
    look = agenda.take()
    assert look is not None
    assert look.sign is Sign.WRITTEN

    agenda.identify(look, KEY)
    agenda.add(PATH, Sign.FOUND)
    agenda.add(PATH, Sign.NAMES)
    assert agenda.finish(look)

    again = agenda.take()
    assert again is not None
    assert again.sign is Sign.FOUND


def test_the_end_of_a_look_tells_once_whether_it_was_void():
    watched = Watched()
    for one in ("add", "take", "know", "touch"):
        EVENTS[one](watched)
    assert watched.look is not None

    assert not watched.agenda.finish(watched.look)


def test_a_look_that_was_put_off_begins_again_with_its_sign():
    agenda = Watched().agenda
    agenda.add(PATH, Sign.WRITTEN)
    look = agenda.take()
    assert look is not None
    agenda.put_off(look)
    agenda.recall()

    again = agenda.take()
    assert again is not None
    assert again.sign is Sign.WRITTEN


@pytest.fixture
def agenda() -> Agenda:
    return Agenda(Doubts())


def test_what_happens_goes_before_what_was_found(agenda: Agenda) -> None:
    for number in range(100):
        agenda.add(f"found {number}")
    agenda.touch("new", Sign.WRITTEN)
    agenda.add("found 50", Sign.ATTRIBUTES)
    agenda.add("new")

    looks = list(iter(agenda.take, None))

    assert [look.path for look in looks[:2]] == ["new", "found 50"]
    assert [look.sign for look in looks[:2]] == [Sign.WRITTEN, Sign.FOUND]
    assert len(looks) == 101


def test_a_directory_is_gone_through_before_the_next_is_opened(agenda: Agenda) -> None:
    """Else all names there are wait at once."""
    agenda.touch("", Sign.FOUND)
    most, count = 0, 0
    for look in iter(agenda.take, None):
        depth = look.path.count("/") + bool(look.path)
        for number in range(40 if depth < 3 else 0):
            agenda.add(f"{look.path}/{number}".lstrip("/"))
        agenda.finish(look)
        most, count = max(most, len(agenda)), count + 1

    assert count == 1 + 40 + 40**2 + 40**3
    assert most <= 3 * 40
