"""`search/` and `peers/` through real mounts, with the programs that people use."""

from __future__ import annotations

import os
import random
import shutil
import subprocess

import pytest

from p2pfs.protocol.manifest import KIB, MIB
from tests.helpers.mounted import READ_ONLY, Servent, Servents, errno_name, until

pytestmark = pytest.mark.fuse

WHALE = random.Random("whale").randbytes(300_000)

SHARED = {
    "anna": {"nature/Blue Whale.mkv": WHALE, "books/The Whale.pdf": b"call me"},
    "ben": {"Blue Whale.mkv": b"another one"},
}


def run(*command: object) -> str:
    """Run a program that must succeed, and return what it prints."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


# peers/


def test_each_peer_has_a_folder_with_its_share_alone(
    anna: Servent, ben: Servent, cleo: Servent
) -> None:
    peers = cleo.mountpoint / "peers"

    assert {"anna", "ben"} <= set(run("ls", peers).splitlines())
    assert "cleo" not in os.listdir(peers)
    assert run("ls", peers / "anna").splitlines() == ["books", "nature"]
    assert run("ls", peers / "ben").splitlines() == ["Blue Whale.mkv"]
    assert (peers / "anna" / "nature" / "Blue Whale.mkv").read_bytes() == WHALE
    assert (peers / "ben" / "Blue Whale.mkv").read_bytes() == b"another one"
    assert errno_name(os.stat, peers / "ben" / "nature") == "ENOENT"
    assert errno_name(os.stat, peers / "nobody") == "ENOENT"
    found = run("find", peers / "anna", "-type", "f").splitlines()
    assert len(found) == 2


def test_what_a_peer_publishes_is_in_its_folder_and_gone_with_it(
    servents: Servents, anna: Servent, cleo: Servent
) -> None:
    visitor = servents.start("visitor", joins=[anna, cleo])
    folder = cleo.mountpoint / "peers" / "visitor"
    visitor.share("new/file", b"new")
    until((folder / "new" / "file").exists)
    assert (folder / "new" / "file").read_bytes() == b"new"

    visitor.kill()

    until(lambda: not folder.exists())
    assert "visitor" not in os.listdir(folder.parent)


# search/


def test_a_search_is_listed_and_its_results_are_read(cleo: Servent) -> None:
    search = cleo.mountpoint / "search"

    names = run("ls", search / "blue whale").splitlines()

    assert len(names) == 2
    plain, suffixed = sorted(names, key=len)
    assert plain == "Blue Whale.mkv"
    assert suffixed.startswith("Blue Whale~")
    contents = {(search / "blue whale" / name).read_bytes() for name in names}
    assert contents == {WHALE, b"another one"}
    assert run("ls", search / "whale ext:pdf") == "The Whale.pdf\n"
    assert run("cat", search / '"the whale" size:<1k' / "The Whale.pdf") == "call me"
    assert run("ls", search) == ""


def test_mkdir_keeps_a_search_and_rmdir_drops_it_also_over_a_restart(
    servents: Servents, anna: Servent, cleo: Servent
) -> None:
    keeper = servents.start("keeper", joins=[anna])
    search = keeper.mountpoint / "search"
    assert "The Whale.pdf" in run("ls", search / "whale")

    run("mkdir", search / "whale")
    os.mkdir(search / "ext:pdf")
    assert errno_name(os.mkdir, search / "whale") == "EEXIST"
    assert errno_name(os.mkdir, search / "&") == "EINVAL"
    assert sorted(os.listdir(search)) == ["ext:pdf", "whale"]
    os.rmdir(search / "ext:pdf")
    keeper.unmount()
    keeper = servents.start("keeper", joins=[anna])

    assert os.listdir(search) == ["whale"]
    until(lambda: "The Whale.pdf" in os.listdir(search / "whale"))
    assert errno_name(os.rmdir, search / "ext:pdf") == "ENOENT"
    keeper.unmount()


def test_names_that_desktops_probe_are_no_searches(cleo: Servent) -> None:
    for name in (".Trash-1000", ".hidden", "autorun.inf", "HEAD", "a"):
        assert errno_name(os.stat, cleo.mountpoint / "search" / name) == "ENOENT"


def test_a_search_holds_nothing_but_its_results(cleo: Servent) -> None:
    folder = cleo.mountpoint / "search" / "blue whale"
    os.listdir(folder)

    assert errno_name((folder / "new").write_bytes, b"") == READ_ONLY
    assert errno_name(os.unlink, folder / "Blue Whale.mkv") == READ_ONLY
    assert errno_name(os.stat, folder / "nothing") == "ENOENT"


# Reading.


def test_two_programs_read_one_file_at_different_places_at_once(
    anna: Servent, cleo: Servent
) -> None:
    film = random.Random("two places").randbytes(24 * MIB)
    anna.share("two places.mkv", film)
    path = cleo.sees("two places.mkv")
    places = (20 * MIB, 2 * MIB)

    readers = [
        subprocess.Popen(
            ["dd", f"if={path}", "bs=64K", f"skip={place // (64 * KIB)}", "count=48"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for place in places
    ]

    for reader, place in zip(readers, places, strict=True):
        data, _ = reader.communicate(timeout=60)
        assert (reader.returncode, data) == (0, film[place : place + 3 * MIB])


# Previews.


def test_a_thumbnailer_fetches_one_block_of_a_film_and_a_reader_all(
    servents: Servents, anna: Servent, cleo: Servent
) -> None:
    film = random.Random("film").randbytes(8 * MIB)
    anna.share("film.mkv", film)
    path = cleo.sees("film.mkv")
    thumbnailer = servents.directory / "ffmpegthumbnailer"
    shutil.copy(shutil.which("cat"), thumbnailer)

    refused = subprocess.run([thumbnailer, path], capture_output=True, check=False)

    assert refused.returncode != 0
    assert b"Permission denied" in refused.stderr
    assert refused.stdout == film[: 256 * KIB]
    assert cleo.attribute("film.mkv", "cached") == "3"  # 1 of 32 blocks
    assert path.read_bytes() == film
    allowed = subprocess.run([thumbnailer, path], capture_output=True, check=False)
    assert (allowed.returncode, allowed.stdout) == (0, film)


# Nothing of this can be changed.

MUTATIONS = {
    "create": lambda path, _: os.open(path.parent / "new", os.O_WRONLY | os.O_CREAT),
    "open to write": lambda path, _: os.open(path, os.O_WRONLY),
    "open to truncate": lambda path, _: os.open(path, os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda path, _: os.truncate(path, 0),
    "mknod": lambda path, _: os.mknod(path.parent / "new"),
    "mkdir": lambda path, _: os.mkdir(path.parent / "new"),
    "unlink": lambda path, _: os.unlink(path),
    "rmdir": lambda path, _: os.rmdir(path.parent),
    "rename": lambda path, _: os.rename(path, path.parent / "new"),
    "rename into": lambda path, mine: os.rename(mine, path.parent / "new"),
    "link into": lambda path, mine: os.link(mine, path.parent / "new"),
    "symlink": lambda path, _: os.symlink("target", path.parent / "new"),
    "chmod": lambda path, _: os.chmod(path, 0o777),
    "chown": lambda path, _: os.chown(path, 1, 1),
    "utime": lambda path, _: os.utime(path),
    "setxattr": lambda path, _: os.setxattr(path, "user.x", b""),
    "removexattr": lambda path, _: os.removexattr(path, "user.p2pfs.id"),
}


@pytest.mark.parametrize(
    "path",
    [
        "network/nature/Blue Whale.mkv",
        "search/blue whale nature/Blue Whale.mkv",
        "peers/anna/nature/Blue Whale.mkv",
        ".p2pfs/status",
    ],
)
def test_nothing_can_be_changed(anna: Servent, cleo: Servent, path: str) -> None:
    cleo.sees("nature/Blue Whale.mkv")
    mine = cleo.shared / "mine"
    mine.write_bytes(b"mine")
    target = cleo.mountpoint / path
    before = target.stat()

    refusals = {name: errno_name(change, target, mine) for name, change in MUTATIONS.items()}

    allowed = {"rmdir": "ENOENT"} if path.startswith("search/") else {}  # it is not kept
    if os.geteuid() == 0:
        assert refusals == dict.fromkeys(MUTATIONS, "EROFS") | allowed
    else:
        assert {*refusals.values()} <= {"EROFS", "EACCES", "EPERM", *allowed.values()}
    assert (target.stat().st_ino, target.stat().st_size) == (before.st_ino, before.st_size)
    assert mine.read_bytes() == b"mine"
