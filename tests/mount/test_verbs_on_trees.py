"""`publish`, `get` and `pin` on trees do what `cp -r` does through the mount."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.mounted import until

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FILES = {
    "readme": b"text",
    "empty": b"",
    "old/a b": os.urandom(300_000),
    "old/deep/er/日本": os.urandom(2_000_000),
    **{f"small/{number:03}": bytes([number]) * number for number in range(200)},
}


def differences(one: Path, other: Path) -> str:
    return subprocess.run(
        ["diff", "-r", one, other], capture_output=True, text=True, check=False
    ).stdout


@pytest.fixture
def pair(processes):
    """Two mounts, `a` and `b`, of one network; a directory `films` beside them."""
    for path, data in FILES.items():
        (processes.directory / "films" / path).parent.mkdir(parents=True, exist_ok=True)
        (processes.directory / "films" / path).write_bytes(data)
    for name in ("a", "b"):
        started = processes.start("mount", name, "--name", name, state=f"{name}.state")
        assert started.returncode == 0, started.stderr
    joined = processes.p2pfs("join", "-m", "b", str(processes.status("-m", "a")["listen"]))
    assert joined.returncode == 0, joined.stderr
    return processes


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what is on stderr beside progress, which is there when it takes long."""
    return [line for line in done.stderr.splitlines() if line.startswith("p2pfs:")]


def test_what_is_published_is_got_and_pinned_whole(pair):
    p2pfs, here = pair.p2pfs, pair.directory

    published = p2pfs("publish", "-m", "a/shared", "films")

    assert (published.returncode, complaints(published)) == (0, [])
    assert published.stdout.startswith("films: 204 files, ")
    assert differences(here / "films", here / "a" / "shared" / "films") == ""

    until((here / "b" / "network" / "films" / "small" / "199").exists)
    subprocess.run(["cp", "-r", "b/network/films", "by cp"], cwd=here, check=True)
    got = p2pfs("get", "b/network/films", "-o", "by get")
    assert (got.returncode, complaints(got)) == (0, [])
    assert got.stdout.startswith(f"{here}/by get: 204 files, ")
    assert differences(here / "by cp", here / "by get") == ""

    assert p2pfs("get", "b/peers/a/films", "-o", "of peer").returncode == 0
    assert differences(here / "films", here / "of peer") == ""
    assert p2pfs("get", "b/search/readme", "-o", "found").returncode == 0
    assert os.listdir(here / "found") == ["readme"]

    pinned = p2pfs("pin", "b/network/films")
    assert pinned.returncode == 0, pinned.stderr
    until(lambda: '"percent": 0' not in p2pfs("cache", "-m", "b", "--json").stdout)
    assert p2pfs("unmount", "a").returncode == 0
    assert differences(here / "films", here / "b" / "network" / "films") == ""


def test_one_file_by_its_id_and_by_a_link_to_the_mount(pair):
    p2pfs, here = pair.p2pfs, pair.directory
    (here / "link").symlink_to("b")
    assert p2pfs("publish", "-m", "a", "films/readme").returncode == 0
    until((here / "b" / "network" / "readme").exists)
    file_id = os.getxattr(here / "b" / "network" / "readme", "user.p2pfs.id").decode()

    assert p2pfs("get", "-m", "link", file_id, "-o", "copy").returncode == 0
    assert (here / "copy").read_bytes() == b"text"
    assert p2pfs("get", "link/network/readme", "-m", "b/network", "-o", "other").returncode == 0
    assert (here / "other").read_bytes() == b"text"
    refused = p2pfs("unmount", "b/network")
    assert refused.returncode == 6
    assert refused.stderr == "p2pfs: no servent runs at b/network\n"
    assert p2pfs("unmount", "link").returncode == 0
