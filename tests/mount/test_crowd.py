"""Real sources and readers are killed: whoever reads gets the right bytes all the same."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.mounted import Servent, Servents, make_shared, open_servents, until

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

SOURCES = 9
KILLED = 3
LIMIT = "2MB"
CONTENT = random.Random(4).randbytes(48 << 20)
LATEST_S = 2.0
"""All sources together take 2.8 s for it."""

KILLED_AT = (10 << 20, 20 << 20, 30 << 20)
"""How far its readers are when a servent is killed that has fetched some of what follows."""

MOST_LOST_BLOCKS = 64
"""16 MiB: what a kill may cost."""


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents


def start_source(servents: Servents, number: int, joins: list[Servent]) -> Servent:
    """Start a servent without a mount that has the content, and sends it slowly."""
    shared = make_shared(servents.directory / f"source-{number}.state")
    (shared / "film").write_bytes(CONTENT)
    options = ("--upload-limit", LIMIT)
    return servents.start(f"source-{number}", *options, joins=joins, mounted=False)


def kill_some(sources: list[Servent], chance: random.Random) -> None:
    started_at = time.monotonic()
    moments = sorted(chance.uniform(0, LATEST_S) for _ in range(KILLED))
    for victim, moment in zip(chance.sample(sources, KILLED), moments, strict=True):
        time.sleep(max(0.0, started_at + moment - time.monotonic()))
        victim.kill()


def test_a_third_of_the_sources_is_killed_in_the_middle_of_a_download(servents: Servents) -> None:
    first = start_source(servents, 0, [])
    sources = [first, *(start_source(servents, n, [first]) for n in range(1, SOURCES))]
    until(lambda: all(one.status()["shared_files"] == 1 for one in sources))
    reader = servents.start("reader", joins=sources[:4])
    film = reader.sees("film", sources=SOURCES)
    seed = random.randrange(1000)

    killing = threading.Thread(target=kill_some, args=(sources, random.Random(seed)))
    killing.start()
    try:
        assert film.read_bytes() == CONTENT, f"seed {seed}"
    finally:
        killing.join()
    assert reader.errors("film") == []


def read_until_it_dies(film: Path, reader: Servent, killed_at: int) -> None:
    """Read as far as one can, though the servent is killed there; what is read must be right."""
    with contextlib.suppress(OSError), film.open("rb") as file:
        for offset in range(0, len(CONTENT), 1 << 20):
            if offset == killed_at:
                reader.kill()
            assert file.read(1 << 20) == CONTENT[offset : offset + (1 << 20)]
        pytest.fail("it lives")


def test_a_download_that_is_killed_thrice_fetches_hardly_anything_twice(
    servents: Servents,
) -> None:
    source = servents.start_rogue("source", "--upload-limit", "20MB")
    source.share("film", CONTENT)
    for killed_at in KILLED_AT:
        reader = servents.start("reader", joins=[source])
        read_until_it_dies(reader.sees("film"), reader, killed_at)

    reader = servents.start("reader", joins=[source])
    assert reader.sees("film").read_bytes() == CONTENT
    fetched = Counter(source.served())
    assert sum(fetched.values()) - len(fetched) <= 3 * MOST_LOST_BLOCKS
