"""The guard against downloads that nobody asked for: who is guarded against, and what they get."""

from __future__ import annotations

import errno
import os
import random

import pytest

from p2pfs.config import Previews
from p2pfs.filesystem import Later
from p2pfs.filesystem.network import NetworkTree
from p2pfs.filesystem.previews import WHOLE_BYTES, GuardedContents, makes_previews
from p2pfs.protocol.manifest import KIB
from tests.helpers.faketree import FakeCaller, FakeNetwork
from tests.helpers.files import bytes_of, now
from tests.suites.filesystem_suite import errno_of

FILM = random.Random("film").randbytes(2 * WHOLE_BYTES)
BLOCK = 256 * KIB


@pytest.fixture
def network() -> FakeNetwork:
    network = FakeNetwork()
    network.add("film.mkv", FILM)
    network.add("small.jpg", FILM[:WHOLE_BYTES])
    network.add("cached.mkv", FILM[1:], cached=True)
    return network


@pytest.fixture
def caller() -> FakeCaller:
    caller = FakeCaller()
    caller.name = "ffmpegthumbnail"
    return caller


async def read(file, size: int, offset: int) -> bytes:
    answer = file.read(size, offset)
    return bytes_of(answer.finish(await answer.fetch()) if isinstance(answer, Later) else answer)


def opened(network, caller, path: str, previews: Previews = Previews.SMALL):
    tree = NetworkTree(network, GuardedContents(network, caller, previews))
    return now(tree.open(path, os.O_RDONLY))


async def test_a_previewer_gets_the_first_block_and_then_a_refusal(network, caller) -> None:
    file = opened(network, caller, "film.mkv")

    assert await read(file, 128 * KIB, 0) == FILM[: 128 * KIB]
    assert await read(file, 128 * KIB, 128 * KIB) == FILM[128 * KIB : BLOCK]
    for offset, size in ((BLOCK, 1), (BLOCK - 1, 2), (len(FILM) - 10, 10)):
        assert errno_of(file.read, size, offset) == errno.EACCES
    assert await read(file, 10, len(FILM)) == b""
    file.release()
    assert network.open_readers == 0


class FakeReadings:
    """Writes down for whom what is opened."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str, int, str | None]] = []

    def opened(self, file_id, program: str, uid: int, directory: str | None = None) -> None:
        self.noted.append((file_id.hex(), program, uid, directory))


def test_what_is_not_here_yet_is_noted_with_its_reader(network, caller) -> None:
    caller.name, readings = "mpv", FakeReadings()
    contents = GuardedContents(network, caller, Previews.SMALL, readings)
    tree = NetworkTree(network, contents)
    for path in ("film.mkv", "cached.mkv"):
        now(tree.open(path, os.O_RDONLY)).release()

    film = now(tree.getxattr("film.mkv", "user.p2pfs.id")).decode()
    assert readings.noted == [(film, "mpv", 1000, "")]


async def test_nothing_is_fetched_ahead_of_a_previewer(network, caller) -> None:
    file = opened(network, caller, "film.mkv")
    await read(file, KIB, 0)
    file.release()
    caller.name = "cat"
    file = opened(network, caller, "film.mkv")
    await read(file, KIB, 0)
    file.release()

    assert [ahead for *_, ahead in network.reads] == [False, True]


@pytest.mark.parametrize("name", ["tumblerd", "pool-tumblerd"])
async def test_who_maps_files_is_refused_before_he_does(network, caller, name) -> None:
    """A page that is refused would kill him, and all previews with him."""
    caller.name = name

    assert errno_of(opened, network, caller, "film.mkv") == errno.EACCES
    for path in ("small.jpg", "cached.mkv"):
        opened(network, caller, path).release()
    assert network.open_readers == 0


@pytest.mark.parametrize("path", ["small.jpg", "cached.mkv"])
async def test_small_and_cached_files_are_whole(network, caller, path) -> None:
    file = opened(network, caller, path)

    assert len(await read(file, 10, WHOLE_BYTES - 10)) == 10
    file.release()


async def test_with_previews_off_nothing_that_is_not_cached_is_read(network, caller) -> None:
    for path in ("film.mkv", "small.jpg"):
        assert errno_of(opened, network, caller, path, Previews.OFF) == errno.EACCES
    file = opened(network, caller, "cached.mkv", Previews.OFF)
    assert await read(file, 1, 0) == FILM[1:2]
    file.release()


async def test_with_all_previews_everything_is_read_and_nobody_looked_at(network, caller) -> None:
    file = opened(network, caller, "film.mkv", Previews.ALL)

    assert await read(file, 1, len(FILM) - 1) == FILM[-1:]
    assert caller.looks == 0
    file.release()


async def test_other_readers_are_looked_at_only_for_what_is_large(network, caller) -> None:
    caller.name = "mpv"
    file = opened(network, caller, "film.mkv")
    assert await read(file, 1, len(FILM) - 1) == FILM[-1:]
    file.release()
    assert caller.looks == 1

    opened(network, caller, "small.jpg").release()
    assert caller.looks == 1


def test_small_files_are_fetched_ahead_unless_previews_are_off(network, caller) -> None:
    files = [network.node("small.jpg")]

    for previews in Previews:
        GuardedContents(network, caller, previews).fetch_ahead(files)
    assert network.fetched_ahead == ["small.jpg"] * 2

    caller.name = "cp"
    GuardedContents(network, caller, Previews.OFF).fetch_ahead(files)
    assert network.fetched_ahead == ["small.jpg"] * 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gdk-pixbuf-thum", "/usr/bin/gdk-pixbuf-thumbnailer -s 256 x"),
        ("ffmpegthumbnail", ""),
        ("totem-video-thu", ""),
        ("evince-thumbnai", ""),
        ("gnome-thumbnail", ""),
        ("pool-tumblerd", "/usr/lib/tumbler-1/tumblerd"),
        ("tumblerd", ""),
        ("tracker-extract", ""),
        ("localsearch-ext", ""),
        ("baloo_file_extr", ""),
        ("kioslave5", "/usr/lib/kf5/kioslave5 /usr/lib/plugins/kf5/kio/thumbnail.so thumbnail"),
        ("kioworker", "/usr/lib/kf6/kioworker /usr/lib/plugins/kf6/kio/thumbnail.so thumbnail"),
        ("loader", "pcmanfm /mnt"),
    ],
)
def test_programs_that_read_by_themselves_are_known(name, words) -> None:
    caller = FakeCaller()
    caller.name, caller.words = name, words

    assert makes_previews(caller)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", ""),
        ("cat", "cat thumbnail.so"),
        ("mpv", "mpv thumb.mkv"),
        ("Thunar", "Thunar /mnt"),
        ("pool-org.gnome.", "/usr/bin/nautilus"),  # which copies files with it
        ("kioslave5", "/usr/lib/kf5/kioslave5 /usr/lib/plugins/kf5/kio/file.so file"),
        ("loader", "game --loader pcmanfm"),
        ("python3", ""),
    ],
)
def test_programs_that_people_start_are_not_guarded_against(name, words) -> None:
    caller = FakeCaller()
    caller.name, caller.words = name, words

    assert not makes_previews(caller)
