"""A name that may not be searched for now is not absent: EAGAIN, and it is found afterwards."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.protocol.flood import SEARCH_BURST
from tests.helpers.mounted import Servent, errno_name, open_servents, until

pytestmark = pytest.mark.fuse


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Servent, Servent]]:
    """Anna, who shares, and Ben, who has not looked at anything yet."""
    with open_servents(tmp_path) as servents:
        anna = servents.start("anna")
        anna.share("film.txt", b"once upon a time")
        yield anna, servents.start("ben", joins=[anna])


def spend_searches(servent: Servent) -> None:
    """Search for one word after the other until our own budget allows no more."""
    for number in range(2 * SEARCH_BURST):
        if errno_name(os.listdir, servent.mountpoint / "search" / f"word{number}") == "EAGAIN":
            return
    raise AssertionError("every search was made")


def test_a_path_that_was_not_asked_for_is_eagain_and_neither_absent_nor_remembered(
    pair: tuple[Servent, Servent],
):
    _, ben = pair
    spend_searches(ben)

    film, absent = ben.network / "film.txt", ben.network / "absent.txt"
    assert [errno_name(os.stat, one) for one in (film, absent)] == ["EAGAIN", "EAGAIN"]

    until(lambda: errno_name(os.stat, film) != "EAGAIN")
    assert film.read_bytes() == b"once upon a time"
    until(lambda: errno_name(os.stat, absent) == "ENOENT")
