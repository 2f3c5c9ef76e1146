"""What is known of a file without reading it, and how surely."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from p2pfs.library.doubts import Sign, Trust
from p2pfs.library.index import Filed
from p2pfs.library.memory import Memory
from p2pfs.library.status import StatKey
from p2pfs.protocol import FileId

FILE = StatKey(1, 2, 100, 10, 20)
CHANGED = replace(FILE, ctime_ns=21)
FILE_ID = FileId(bytes(32))
FOUND: Any = SimpleNamespace(sign=Sign.FOUND)


def memory_of(
    *filed: Filed,
    held: StatKey | None = None,
    trust: Trust = Trust.FULL,
    at: StatKey | None = None,
    gives_new_inodes: bool = False,
) -> Memory:
    """Give a memory whose index has these, and where this state of a file is held."""
    looks: Any = SimpleNamespace(
        trust=lambda _key: trust,
        held=lambda _key: None if held is None else SimpleNamespace(file_id=FILE_ID, key=held),
        is_offered=lambda _path, _file_id: True,
    )
    index: Any = SimpleNamespace(
        find=lambda key: [one for one in filed if one.key.ino == key.ino],
        at=lambda path: next((one for one in filed if one.path == path), None),
    )
    status: Any = None if at is None else SimpleNamespace(key=at)
    return Memory(index, looks, lambda _path: status, lambda _device: gives_new_inodes)


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("former", [FILE, CHANGED])
def test_a_file_is_known_surely_if_its_ctime_is_the_same(is_held: bool, former: StatKey):
    """Else somebody may have written it and set its mtime back: it is checked at both ends."""
    memory = memory_of(Filed("a", former, FILE_ID), held=former if is_held else None)

    known = memory.recall(FOUND, "a", FILE)

    assert known is not None
    assert (known.file_id, known.is_sure) == (FILE_ID, former == FILE)


@pytest.mark.parametrize(
    ("trust", "former", "is_known"),
    [
        (Trust.FULL, CHANGED, True),
        (Trust.WARY, FILE, True),
        (Trust.WARY, CHANGED, False),
        (Trust.NONE, FILE, False),
    ],
)
def test_of_a_file_in_doubt_less_is_believed(trust: Trust, former: StatKey, is_known: bool):
    memory = memory_of(Filed("a", former, FILE_ID), trust=trust)

    assert (memory.recall(FOUND, "a", FILE) is not None) == is_known


def test_another_name_of_a_file_is_known_and_never_surely():
    memory = memory_of(Filed("former", FILE, FILE_ID))

    known = memory.recall(FOUND, "a", FILE)

    assert known is not None
    assert (known.is_sure, known.is_filed) == (False, False)


def test_a_twin_on_another_disk_is_not_the_same_file():
    other_disk = replace(FILE, device=9)

    assert memory_of(Filed("former", other_disk, FILE_ID)).recall(FOUND, "a", FILE) is None
    assert memory_of(Filed("a", other_disk, FILE_ID)).recall(FOUND, "a", FILE) is not None


def test_a_name_that_another_file_has_now_tells_nothing():
    memory = memory_of(Filed("former", FILE, FILE_ID), at=replace(FILE, ino=3))

    assert memory.recall(FOUND, "a", FILE) is None


@pytest.mark.parametrize("gives_new_inodes", [False, True])
@pytest.mark.parametrize("change", [{}, {"mtime_ns": 11}, {"size": 101}])
def test_where_inodes_do_not_last_a_file_is_known_by_its_name(
    gives_new_inodes: bool, change: dict[str, int]
):
    """As on a stick with FAT: it is checked at both ends."""
    memory = memory_of(Filed("a", replace(FILE, ino=3), FILE_ID), gives_new_inodes=gives_new_inodes)

    known = memory.recall(FOUND, "a", replace(FILE, **change))

    assert (known is not None) == (gives_new_inodes and not change)
    assert known is None or (known.file_id, known.is_sure, known.is_filed) == (FILE_ID, False, True)
    assert memory.recall(FOUND, "b", FILE) is None
