"""A source at the end of a line with a delay: the first byte comes after few round trips."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.delayproxy import DelayProxy, delayed
from tests.helpers.leftovers import left_below
from tests.helpers.mounted import Servent, make_shared, open_servents

pytestmark = pytest.mark.fuse

DELAY_S = 0.1
"""In each direction. Longer than any of the programs should think about anything."""

MOST_ROUND_TRIPS = 2

FILES = 5

LARGE_BYTES = 20 * 2**30
"""Sparse. Its manifest is one of the longest, and its blocks have 2 MiB."""


@dataclass(frozen=True)
class Distant:
    """A reader, with an open transfer link to a source far away, and the line between them."""

    reader: Servent
    line: DelayProxy

    def round_trips_to(self, name: str, offset: int, expected: bytes) -> int:
        """Return how many it takes to open a file and to read a byte there."""
        path = self.reader.sees(name)
        self.line.forget()
        with path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), 1, offset)
            count = self.line.round_trips
        assert data == expected
        return count


@pytest.fixture(scope="module")
def distant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distant]:
    directory = tmp_path_factory.mktemp("distance")
    state = directory / "far.state"
    offer(make_shared(state))
    with delayed(state, DELAY_S) as line, open_servents(directory) as servents:
        far = servents.start("far", mounted=False, program="tests.helpers.farservent")
        reader = servents.start("reader", joins=[far])
        assert reader.sees("opens the link").read_bytes() == b"anything"
        yield Distant(reader, line)
    assert left_below(directory) == []


def offer(shared: Path) -> None:
    (shared / "opens the link").write_bytes(b"anything")
    for number in range(FILES):
        content = random.Random(number).randbytes(4 * 2**20)
        (shared / str(number)).write_bytes(b"first" + content)
        with (shared / f"large {number}").open("wb") as file:
            file.seek(LARGE_BYTES // 2)
            file.write(b"middle %d" % number)
            file.truncate(LARGE_BYTES)


def test_the_first_byte_of_a_known_file(distant: Distant) -> None:
    counts = [distant.round_trips_to(str(number), 0, b"f") for number in range(FILES)]
    assert max(counts) <= MOST_ROUND_TRIPS
    assert min(counts) == 1, "manifest and first block are asked for together"


def test_the_first_byte_in_the_middle_of_a_large_file(distant: Distant) -> None:
    middle = LARGE_BYTES // 2
    counts = [distant.round_trips_to(f"large {number}", middle, b"m") for number in range(FILES)]
    assert max(counts) <= MOST_ROUND_TRIPS
    assert min(counts) == 1, "manifest and first block are asked for together"
