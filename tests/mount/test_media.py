"""What programs fetch of large files that they only look into, through a real mount."""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from p2pfs.protocol.manifest import KIB, MIB
from tests.helpers.mounted import Servent, until

pytestmark = pytest.mark.fuse

BLOCK = 256 * KIB

SECONDS = 20

WIDTH, HEIGHT = 160, 120

PADDING_BYTES = 64 * MIB

MOST_OF_IT = 0.05
"""A part of a film, for those who want its index and its beginning."""


# Looking at a file.


def share_zeros(servent: Servent, path: str, size: int) -> None:
    with (servent.shared / path).open("wb") as file:
        file.truncate(size)
    servent.wait_published(path)


def fetched_of(servent: Servent, path: str) -> int:
    """Return how many bytes have come of a file that somebody has open."""
    return next(
        int(str(row["done_bytes"])) for row in servent.rows("transfers") if row["path"] == path
    )


def test_a_look_at_any_place_fetches_the_block_that_holds_it_and_no_other(
    anna: Servent, ben: Servent
) -> None:
    share_zeros(anna, "film", 100 * MIB)
    path = ben.sees("film")
    with path.open("rb", buffering=0) as film:
        subprocess.run(["head", "-c", "512", path], check=True, stdout=subprocess.DEVNULL)
        for number, length in enumerate((512, 4 * KIB, 16 * KIB, 128 * KIB), 1):
            # Later than what was asked for together with the look before, if anything was.
            os.pread(film.fileno(), length, number * 10 * MIB)
        with mmap.mmap(film.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[70 * MIB + BLOCK // 2] == 0  # the kernel reads 64 KiB on both sides
        os.pread(film.fileno(), 1, 90 * MIB)

        assert fetched_of(ben, "film") == 7 * BLOCK


def test_who_reads_on_gets_more_than_was_asked_for(anna: Servent, ben: Servent) -> None:
    share_zeros(anna, "reel", 101 * MIB)
    with ben.sees("reel").open("rb", buffering=0) as reel:
        for offset in range(50 * MIB, 50 * MIB + BLOCK, 128 * KIB):
            os.pread(reel.fileno(), 128 * KIB, offset)

        until(lambda: fetched_of(ben, "reel") > 4 * BLOCK)


# Films.


def make_film(path: Path) -> None:
    """Make an MP4 whose index is at its end, behind so many bytes that are not played."""
    short = path.with_name("short.mp4")
    picture = f"testsrc=size={WIDTH}x{HEIGHT}:duration={SECONDS}"
    command = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", picture, short]
    subprocess.run(command, check=True)
    film = bytearray(short.read_bytes())
    media, index = film.index(b"mdat") - 4, film.index(b"moov") - 4
    assert int.from_bytes(film[media : media + 4]) == index - media
    film[media : media + 4] = (index - media + PADDING_BYTES).to_bytes(4)
    film[index:index] = random.Random(path.name).randbytes(PADDING_BYTES)
    path.write_bytes(film)


@pytest.fixture
def film(anna: Servent, ben: Servent, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A film of anna's where ben sees it, of which he has nothing."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("not installed: ffmpeg")
    name = f"{request.node.name}.mp4"
    make_film(tmp_path / name)
    anna.share(name, (tmp_path / name).read_bytes())
    return ben.sees(name)


def run(program: str, *arguments: str | Path) -> str:
    """Run a program if it is installed, and return what it prints."""
    if shutil.which(program) is None:
        pytest.skip(f"not installed: {program}")
    command = [program, *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout


def cached_bytes(servent: Servent) -> int:
    """Return how much is in the cache, when nobody reads any more."""
    servent.wait_cache_closed()
    return int(str(servent.status()["cache_bytes"]))


def test_ffprobe_reads_an_index_at_the_end_without_the_film(ben: Servent, film: Path) -> None:
    before = cached_bytes(ben)

    told = run("ffprobe", "-loglevel", "error", "-show_format", "-of", "json", film)

    assert float(json.loads(told)["format"]["duration"]) == SECONDS
    assert 0 < cached_bytes(ben) - before < MOST_OF_IT * film.stat().st_size


def test_mpv_starts_to_play_a_film_with_its_index_at_the_end_without_the_rest(
    ben: Servent, film: Path
) -> None:
    before = cached_bytes(ben)

    told = run(
        "mpv", "--no-config", "--vo=null", "--ao=null", "--frames=5",
        "--term-playing-msg=${=duration} ${width}x${height}", film,
    )  # fmt: skip

    assert f"{SECONDS}.000000 {WIDTH}x{HEIGHT}" in told
    assert "Exiting... (End of file)" in told
    assert 0 < cached_bytes(ben) - before < MOST_OF_IT * film.stat().st_size
