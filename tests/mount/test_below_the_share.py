"""What is mounted below a share: other disks are right or absent, p2pfs itself never comes in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.mounted import Servent, Servents, open_servents, until

pytestmark = pytest.mark.fuse

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount disks")


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents


class Mounts:
    """Mounts things, and unmounts what is left of them."""

    def __init__(self) -> None:
        self._places: list[Path] = []

    def mount(self, *arguments: str | Path, on: Path) -> None:
        on.mkdir(exist_ok=True)
        done = subprocess.run(
            ["mount", *arguments, on], check=False, capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"cannot mount here: {done.stderr.strip()}")
        self._places.append(on)

    def unmount(self, place: Path) -> None:
        self._places.remove(place)
        subprocess.run(["umount", place], check=True)

    def clean_up(self) -> None:
        for place in reversed(self._places):
            subprocess.run(["umount", "-l", place], check=False)


@pytest.fixture
def mounts(servents: Servents) -> Iterator[Mounts]:
    mounts = Mounts()
    yield mounts
    mounts.clean_up()


def images(directory: Path) -> tuple[Path, Path]:
    """Make two images of one layout: the same inodes, sizes and times, other bytes."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    (directory / "content").mkdir()
    (directory / "content" / "f").write_bytes(b"content of volume one")
    one, two = directory / "one.img", directory / "two.img"
    command = ["mkfs.ext4", "-q", "-d", directory / "content", one, "4M"]
    subprocess.run(command, check=True, capture_output=True)
    two.write_bytes(one.read_bytes().replace(b"content of volume one", b"CONTENT OF VOLUME TWO"))
    return one, two


@needs_root
def test_two_disks_of_one_layout_are_two_and_come_and_go(
    servents: Servents, mounts: Mounts, tmp_path: Path
) -> None:
    one, two = images(tmp_path)
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])
    backing = anna.state / "shared"

    mounts.mount("-o", "loop,ro", one, on=backing / "k1")
    assert ben.sees("k1/f").read_bytes() == b"content of volume one"
    mounts.mount("-o", "loop,ro", two, on=backing / "k2")
    assert ben.sees("k2/f").read_bytes() == b"CONTENT OF VOLUME TWO"

    status = [os.stat(anna.shared / name / "f") for name in ("k1", "k2")]
    assert not os.path.samestat(*status)
    assert [os.stat(backing / name / "f").st_ino for name in ("k1", "k2")] == [12, 12]

    mounts.unmount(backing / "k1")
    until(lambda: not ben.shows("k1/f"))


@needs_root
def test_a_directory_that_is_bound_elsewhere_is_published_at_both_places(
    servents: Servents, mounts: Mounts
) -> None:
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])
    backing = anna.state / "shared"
    (backing / "d").mkdir()
    (backing / "d" / "f").write_bytes(b"old")
    mounts.mount("--bind", backing / "d", on=backing / "e")
    assert ben.sees("e/f").read_bytes() == b"old"

    (backing / "d" / "g").write_bytes(b"new")

    assert ben.sees("d/g").read_bytes() == b"new"
    assert ben.sees("e/g").read_bytes() == b"new"


def told(servent: Servent) -> list[str]:
    return [
        str(row["path"]) for row in servent.rows("events") if "mount of p2pfs" in str(row["text"])
    ]


def test_a_mount_of_another_servent_below_a_share_is_not_published(servents: Servents) -> None:
    anna = servents.start("anna")
    anna.share("song", b"mine")
    state = servents.directory / "ben.state"
    state.mkdir(mode=0o700)
    (state / "shared" / "p2p").mkdir(parents=True)
    (servents.directory / "cleo").symlink_to(state / "shared" / "p2p")
    servents.start("cleo", joins=[anna])

    ben = servents.start("ben", joins=[anna])
    ben.share("own", b"own")

    until(lambda: told(ben) == ["shared/p2p"])
    assert ben.status()["shared_files"] == 1
    assert os.getxattr(ben.shared, "user.p2pfs.state") == b"published"


@needs_root
def test_nor_is_one_that_is_bound_there_later(servents: Servents, mounts: Mounts) -> None:
    anna = servents.start("anna")
    anna.share("song", b"mine")
    ben = servents.start("ben", joins=[anna])
    ben.share("own", b"own")
    ben.sees("song")

    mounts.mount("--bind", ben.network, on=ben.state / "shared" / "all")

    until(lambda: told(ben) == ["shared/all"])
    assert ben.status()["shared_files"] == 1


@pytest.mark.parametrize("place", ["shared/mine", "cache/mine"])
def test_no_servent_starts_in_the_state_directory_of_another(
    servents: Servents, place: str
) -> None:
    anna = servents.start("anna")

    refused = servents.start("ben", "--state", anna.state / place, wait=False)

    assert refused.wait() == 2
    assert "state directory of another servent" in refused.output()


def test_no_servent_starts_in_a_mount(servents: Servents) -> None:
    anna = servents.start("anna")

    refused = servents.start("ben", "--state", anna.shared / "mine", wait=False)

    assert refused.wait() == 2
    assert "is in a mount of p2pfs" in refused.output()
    assert os.listdir(anna.shared) == []
