"""The first look at a long directory far away shows all of it, to every program."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.delayproxy import DelayProxy, delayed
from tests.helpers.leftovers import left_below
from tests.helpers.mounted import PATIENCE_S, Servent, make_shared, open_servents, until

pytestmark = pytest.mark.fuse

DELAY_S = 0.04
"""In each direction: a line of 80 ms."""

NAMES = 3_000
"""Six pages, which one page a round trip would take half a second for."""

PROGRAMS = {
    "find": "find {source} -type f | wc -l",
    "cp": "cp -r {source} {target} && ls {target} | wc -l",
    "tar": "tar cf - -C {source} . | tar tf - | grep -c txt",
    "rsync": "rsync -a --dry-run --out-format=%n {source}/ {target}/ | grep -c txt",
}
"""Programs that print how many files they have seen in a directory."""


@dataclass(frozen=True)
class Far:
    """A reader that has just joined a servent far away, and the line between them."""

    source: Servent
    reader: Servent
    line: DelayProxy


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    directory = tmp_path_factory.mktemp("listing")
    state = directory / "far.state"
    shared = make_shared(state)
    for program in PROGRAMS:
        (shared / program).mkdir()
        for number in range(NAMES):
            (shared / program / f"{number:05}.txt").touch()
    with delayed(state, DELAY_S) as line, open_servents(directory) as servents:
        source = servents.start("far", mounted=False, program="tests.helpers.farservent")
        until(lambda: source.status()["shared_files"] == len(PROGRAMS) * NAMES)
        yield Far(source, servents.start("reader", joins=[source]), line)
    assert left_below(directory) == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_sees_all_at_the_first_look(far: Far, program: str, tmp_path: Path):
    if shutil.which(program) is None:
        pytest.skip(f"not installed: {program}")
    source = far.reader.network / program
    until(source.is_dir)
    far.line.forget()

    command = PROGRAMS[program].format(source=source, target=tmp_path / "copy")
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(NAMES), "")
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(source, "user.p2pfs.partial")
    assert far.reader.status()["partial_directories"] == 0
    assert far.line.round_trips <= NAMES / 500, "pages are asked for ahead"


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_what_ls_shows_is_there_for_cat(far: Far, name: str):
    """Though the kernel was told a moment ago that it is not there, and would believe it."""
    shared, news = far.source.state / "shared" / "news", far.reader.network / "news"
    shared.mkdir(exist_ok=True)
    (shared / "old").write_bytes(b"old")
    until(news.is_dir)
    (shared / name).write_bytes(b"new")

    def is_shown() -> bool:
        (news / name).exists()
        return name in os.listdir(news)

    until(is_shown)
    assert (news / name).read_bytes() == b"new"
