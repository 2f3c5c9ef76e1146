"""What programs for films fetch of a film, through a real mount."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from p2pfs.protocol.manifest import MIB
from tests.helpers.mounted import open_servents

SECONDS = 20

PADDING_BYTES = 64 * MIB


def make_film(path: Path) -> None:
    """Make an MP4 whose index is at its end, behind so many bytes that are not played."""
    short = path.with_name("short.mp4")
    picture = f"testsrc=size=160x120:duration={SECONDS}"
    command = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", picture, short]
    subprocess.run(command, check=True)
    film = bytearray(short.read_bytes())
    media, index = film.index(b"mdat") - 4, film.index(b"moov") - 4
    assert int.from_bytes(film[media : media + 4]) == index - media
    film[media : media + 4] = (index - media + PADDING_BYTES).to_bytes(4)
    film[index:index] = random.Random("film").randbytes(PADDING_BYTES)
    path.write_bytes(film)


@pytest.mark.fuse
@pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="FFmpeg is not installed"
)
def test_ffprobe_reads_an_index_at_the_end_without_the_film(tmp_path: Path) -> None:
    make_film(tmp_path / "film.mp4")
    with open_servents(tmp_path) as servents:
        anna = servents.start("anna")
        anna.share("film.mp4", (tmp_path / "film.mp4").read_bytes())
        ben = servents.start("ben", joins=[anna])
        path = ben.sees("film.mp4")

        command = ["ffprobe", "-loglevel", "error", "-show_format", "-of", "json", path]
        told = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout

        assert float(json.loads(told)["format"]["duration"]) == SECONDS
        ben.wait_cache_closed()
        fetched = int(str(ben.status()["cache_bytes"]))
        assert 0 < fetched < path.stat().st_size * 0.05
