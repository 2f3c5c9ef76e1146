"""The stages of a path on the agenda, row by row: see the docstring of `Agenda`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from p2pfs.library.agenda import Agenda, Look, Sign
from p2pfs.library.status import StatKey

PATH = "films/x"
KEY = StatKey(1, 2, 100, 10, 20)


class Watched:
    """An agenda, one path on it, and the last look that was begun at it."""

    def __init__(self) -> None:
        self.agenda = Agenda()
        self.look: Look | None = None

    def stages(self) -> set[str]:
        """Return where the path is now, in the words of the docstring."""
        agenda, look = self.agenda, self.agenda._looks.get(PATH)
        tables = {"due": agenda._due, "large": agenda._due_large, "later": agenda._later}
        found = {stage for stage, table in tables.items() if PATH in table}
        if look is not None and look.is_void:
            found.add("void")
        elif look is not None:
            found.add("again" if look.again is not None else "known" if look.key else "looking")
        return found or {"settled"}

    def take(self) -> None:
        self.look = self.agenda.take()

    def take_large(self) -> None:
        self.look = self.agenda.take_large()

    def know(self) -> None:
        """Let the look find out which file is there."""
        assert self.look is not None
        self.look.key = KEY

    def finish(self) -> None:
        assert self.look is not None
        self.agenda.finish(self.look)

    def put_off(self) -> None:
        self.finish()
        self.agenda.put_off(self.look)

    def put_aside(self) -> None:
        self.finish()
        self.agenda.add_large(self.look)


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
    "write began": lambda w: w.agenda.write_began(PATH, KEY.identity),
    "write ended": lambda w: w.agenda.write_ended(PATH),
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
    ("again", "finish", "due"),
    ("again", "put off", "later due"),
    ("again", "put aside", "large due"),
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
    assert watched.agenda.knows(PATH) == (watched.stages() != {"settled"} or "write" in event)


@pytest.mark.parametrize("before", WAYS)
def test_whatever_it_is_at_the_end_of_a_write_it_is_looked_at_afterwards(before: str):
    watched = Watched()
    for one in (*WAYS[before], "write began", "write ended"):
        EVENTS[one](watched)

    assert "due" in watched.stages()
    was_looked_at = before in {"known", "again", "void", "void due"}
    assert watched.agenda.is_doubted(KEY.identity) == was_looked_at
