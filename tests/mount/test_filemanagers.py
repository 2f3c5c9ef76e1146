"""Real file managers on a mount, on a virtual screen: what they do, and what they download."""

from __future__ import annotations

import os
import random
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pfs.protocol.manifest import KIB, MIB
from tests.helpers.mounted import Servent, Servents, until
from tests.helpers.screen import Screen, open_screen, why_no_screen

pytestmark = [pytest.mark.fuse, pytest.mark.desktop]

BLOCK = 256 * KIB

MANAGERS = ("thunar", "pcmanfm", "nautilus")

THUMBNAILERS = {"thunar": ("tumblerd",)}
"""Programs that make previews for a file manager; the others do it themselves."""

BELOW_FILES = (600, 380)
"""A place in a window that shows few files, where none of them is."""

SETTLED_S = 2.0
"""A thumbnailer that has fetched nothing for so long has given up or is done, or is slow: what it
should fetch is waited for, and what it should not is looked at when that has come."""

ALBUM = {
    "beach.txt": b"sand",
    "boat.dat": random.Random("boat").randbytes(3 * MIB),
    "crossing/log.txt": b"waves",
}
SHARED = {
    "anna": {f"holiday/{path}": content for path, content in ALBUM.items()},
    "ben": {"holiday/dinner.txt": b"fish"},
}
MINE = {"letter.txt": b"dear all", "plan.dat": random.Random("plan").randbytes(300_000)}


def picture(seed: int, side: int) -> bytes:
    """Return a PNG of noise."""
    noise = random.Random(seed)
    rows = b"".join(b"\0" + noise.randbytes(3 * side) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def noise(start: bytes, size: int) -> bytes:
    return start + random.Random(start).randbytes(size)


def photograph(size: int) -> bytes:
    """Return a JPEG that goes on and on before its picture begins."""
    comment = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
    return b"\xff\xd8" + comment * (size // len(comment)) + b"\xff\xd9"


MEDIA = {
    "picture.png": picture(1, 1000),
    "another.png": picture(2, 900),
    "small.png": picture(3, 200),
    "photograph.jpg": photograph(3 * MIB),
    "film.mp4": noise(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", 8 * MIB),
    "song.mp3": noise(b"ID3\3\0\0\0\0\0\0", 5 * MIB),
    "recording": noise(b"recording", 6 * MIB),  # to be told by its content alone
    "book.pdf": noise(b"%PDF-1.4\n", 3 * MIB),
}
PICTURES = {"picture.png", "another.png", "small.png", "photograph.jpg"}

WHOLE = 100
"""Percent."""


def write_below(directory: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return directory


def files_below(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


@dataclass
class FileManager:
    """A file manager, and who uses it by the keyboard."""

    program: str
    screen: Screen

    def show(self, folder: Path) -> None:
        self.screen.start(self.program, folder)
        self.screen.wait_window(folder.name)

    def copy_all(self, source: Path, target: Path) -> None:
        """Copy and paste all of a folder; again if the window was not ready for it."""
        while not set(os.listdir(source)) & set(os.listdir(target)):
            self.show(source)
            self._press("ctrl+a", "ctrl+c")
            self.show(target)
            self._press("ctrl+v")

    def _press(self, *keys: str) -> None:
        self.screen.click(*BELOW_FILES)  # before it Nautilus takes no keys
        self.screen.press(*keys)


@pytest.fixture
def screen(servents: Servents, tmp_path: Path) -> Iterator[Screen]:
    if reason := why_no_screen():
        pytest.skip(reason)
    with open_screen(tmp_path / "screen") as screen:
        yield screen


@pytest.fixture(params=MANAGERS)
def manager(request: pytest.FixtureRequest, screen: Screen) -> FileManager:
    if reason := why_no_screen(request.param):
        pytest.skip(reason)
    return FileManager(request.param, screen)


def test_a_file_manager_browses_and_copies_in_and_out(
    manager: FileManager, anna: Servent, cleo: Servent, tmp_path: Path
) -> None:
    (out := tmp_path / "out").mkdir()
    name = f"from {manager.program}"
    mine = write_below(tmp_path / "mine", {f"{name}/{path}": MINE[path] for path in MINE})
    cleo.sees("holiday/dinner.txt")

    manager.show(cleo.network)
    manager.copy_all(cleo.network / "holiday", out)
    manager.copy_all(mine, cleo.shared)

    published = anna.network / name
    until(lambda: files_below(out) == ALBUM | {"dinner.txt": b"fish"})
    until(lambda: files_below(cleo.shared / name) == MINE)
    until(lambda: files_below(published) == MINE)


# Previews.


PREVIEWS = ("off", "small", "all")


def media_for(previews: str) -> str:
    """Return the folder for a kind of `--previews`: windows are told apart by their titles."""
    return f"media for {previews}"


@pytest.fixture(scope="module")
def owner(servents: Servents) -> Servent:
    """Who has folders of everything that has a preview."""
    owner = servents.start("owner", mounted=False)
    for previews in PREVIEWS:
        write_below(owner.state / "shared" / media_for(previews), MEDIA)
    return owner


@pytest.fixture(scope="module", params=MANAGERS)
def readers(
    request: pytest.FixtureRequest,
    servents: Servents,
    owner: Servent,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Servent]]:
    """Servents by their `--previews`, each after a file manager has shown its folder of media."""
    program = request.param
    if reason := why_no_screen(program, *THUMBNAILERS.get(program, ())):
        pytest.skip(reason)
    readers = {
        previews: servents.start(f"{program} {previews}", "--previews", previews, joins=[owner])
        for previews in PREVIEWS
    }
    with open_screen(tmp_path_factory.mktemp("screen") / "screen") as screen:
        manager = FileManager(program, screen)
        thumbnailers = [screen.start(name) for name in THUMBNAILERS.get(program, ())]
        if thumbnailers:
            screen.wait_service("org.freedesktop.thumbnails.Thumbnailer1")
        for previews, reader in readers.items():
            for name in MEDIA:
                reader.sees(f"{media_for(previews)}/{name}")
            manager.show(reader.network / media_for(previews))
        until(lambda: list(screen.home.rglob("thumbnails/**/*.png")))
        wait_settled(readers.values())
        assert all(process.poll() is None for process in thumbnailers), "a thumbnailer has died"
        yield readers


def downloaded(servent: Servent) -> int:
    """Return how many bytes are in the cache."""
    return int(str(servent.status()["cache_bytes"]))


def wait_settled(servents: Iterable[Servent]) -> None:
    """Return when nothing has been downloaded for a while."""
    before: list[int] = []
    while before != (now := [downloaded(servent) for servent in servents]):
        before = now
        time.sleep(SETTLED_S)


def cached(servent: Servent, previews: str) -> dict[str, int]:
    """Return how much of each of the media is here, in percent."""
    return {
        name: int(servent.attribute(f"{media_for(previews)}/{name}", "cached")) for name in MEDIA
    }


def begun(percents: dict[str, int]) -> list[str]:
    return [name for name, percent in percents.items() if percent]


def test_without_previews_only_what_has_no_known_name_is_looked_at(
    readers: dict[str, Servent],
) -> None:
    off = readers["off"]

    until(lambda: "preview refused" in off.output())
    until(lambda: begun(cached(off, "off")) == ["recording"])
    assert downloaded(off) < 2 * BLOCK


def test_with_small_previews_no_more_than_the_first_blocks_are_downloaded(
    readers: dict[str, Servent],
) -> None:
    small = readers["small"]

    until(lambda: cached(small, "small")["small.png"] == WHOLE)
    until(lambda: "preview refused" in small.output())
    assert downloaded(small) <= len(MEDIA) * BLOCK


def test_with_all_previews_pictures_are_downloaded_whole(readers: dict[str, Servent]) -> None:
    def percents() -> dict[str, int]:
        return cached(readers["all"], "all")

    until(lambda: {name for name, percent in percents().items() if percent == WHOLE} >= PICTURES)
    assert percents()["recording"] < WHOLE
    assert "preview refused" not in readers["all"].output()


@pytest.mark.parametrize("previews", PREVIEWS)
def test_whoever_is_no_previewer_reads_all(readers: dict[str, Servent], previews: str) -> None:
    film = readers[previews].network / media_for(previews) / "film.mp4"

    assert film.read_bytes() == MEDIA["film.mp4"]
