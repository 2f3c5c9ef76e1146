"""What is done in the backing directory, past the mount, is published and withdrawn as well."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.mounted import Servents, open_servents, until

pytestmark = pytest.mark.fuse


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents


def test_a_neighbour_sees_what_is_changed_past_the_mount(servents: Servents) -> None:
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])
    backing = anna.state / "shared"

    with (backing / "f").open("wb", buffering=0) as file:
        file.write(b"half")
        until((anna.shared / "f").exists)
        assert os.getxattr(anna.shared / "f", "user.p2pfs.state") == b"hashing"
        assert not ben.shows("f")
        file.write(b" and half")
    assert ben.sees("f").read_bytes() == b"half and half"

    (backing / "d").mkdir()
    (backing / "f").rename(backing / "d" / "g")
    assert ben.sees("d/g").read_bytes() == b"half and half"
    (backing / "d" / "g").unlink()
    until(lambda: not ben.shows("d/g"))


HARMLESS = {
    "rename": lambda film: film.rename(film.with_name("film 2")),
    "chmod": lambda film: film.chmod(0o600),
    "touch": os.utime,
    "link": lambda film: film.with_name(".second").hardlink_to(film),
    "tag": lambda film: os.setxattr(film, "user.tag", b"x"),
    "open": lambda film: film.open("r+b").close(),
    "append nothing": lambda film: film.open("ab").close(),
}


@pytest.mark.parametrize("place", ["mount", "disk"])
def test_a_read_outlasts_all_that_leaves_the_bytes_as_they_are(
    servents: Servents, place: str
) -> None:
    """Each is done in the middle of a read of far more than is read ahead."""
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])
    for name, change in HARMLESS.items():
        data = random.Random(name).randbytes(40 * 2**20)
        film = (anna.shared if place == "mount" else anna.state / "shared") / "film"
        film.write_bytes(data)
        anna.wait_published("film")
        with ben.sees("film").open("rb", buffering=0) as reader:
            begun = reader.read(2**16)
            change(film)
            rest = bytearray()
            while piece := reader.read(2**20):
                rest += piece
        assert begun + rest == data, name
        for left in film.parent.glob("*"):
            left.unlink()
        for left in film.parent.glob(".second"):
            left.unlink()
        until(lambda: not ben.shows("film") and not ben.shows("film 2"))


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync_with_attributes_converges_in_and_out(servents: Servents, tmp_path: Path) -> None:
    anna = servents.start("anna")
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_bytes(b"bytes")
    os.setxattr(source / "f", "user.mine", b"1")

    def rsync(*arguments: str | Path) -> str:
        command = ["rsync", "-aXi", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    assert rsync(f"{source}/", anna.shared / "in") != ""
    anna.wait_published("in/f")
    assert rsync(f"{source}/", anna.shared / "in") == ""
    rsync(anna.shared / "in/", tmp_path / "out")

    assert os.listxattr(tmp_path / "out" / "in" / "f") == ["user.mine"]
