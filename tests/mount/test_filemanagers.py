"""Real file managers on a mount, on a virtual screen: what they do, and what they download."""

from __future__ import annotations

import os
import random
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pfs.protocol.manifest import KIB, MIB
from tests.helpers.mounted import Servent, Servents, until
from tests.helpers.screen import Screen, open_screen, why_no_screen

pytestmark = [pytest.mark.fuse, pytest.mark.desktop]

BLOCK = 256 * KIB

SETTLED_S = 2.0
"""A thumbnailer that has fetched nothing for so long has given up or is done."""

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
    "book.pdf": noise(b"%PDF-1.4\n", 3 * MIB),
}


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
            self.screen.press("ctrl+a", "ctrl+c")
            self.show(target)
            self.screen.press("ctrl+v")


@pytest.fixture
def screen(servents: Servents, tmp_path: Path) -> Iterator[Screen]:
    if reason := why_no_screen():
        pytest.skip(reason)
    with open_screen(tmp_path / "screen") as screen:
        yield screen


@pytest.fixture(params=["thunar", "pcmanfm"])
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


def downloaded(servent: Servent) -> int:
    """Return how many bytes are in the cache, once that has not changed for a while."""
    counts = [-1, 0]
    while counts[-1] != counts[-2]:
        time.sleep(SETTLED_S)
        counts.append(int(str(servent.status()["cache_bytes"])))
    return counts[-1]


@pytest.fixture(scope="module")
def owner(servents: Servents) -> Servent:
    """Who has a folder of everything that has a preview."""
    owner = servents.start("owner")
    for name, content in MEDIA.items():
        owner.share(f"media/{name}", content)
    return owner


@pytest.fixture
def reader(servents: Servents, owner: Servent, manager: FileManager) -> Servent:
    """A servent that has nothing of it yet."""
    reader = servents.start(f"reader with {manager.program}", joins=[owner])
    for name in MEDIA:
        reader.sees(f"media/{name}")
    return reader


def test_a_file_manager_downloads_no_more_than_the_first_blocks_of_a_folder(
    manager: FileManager, reader: Servent
) -> None:
    thumbnailer = None
    if manager.program == "thunar":
        if reason := why_no_screen("tumblerd"):
            pytest.skip(reason)
        thumbnailer = manager.screen.start("tumblerd")
        manager.screen.wait_service("org.freedesktop.thumbnails.Thumbnailer1")

    manager.show(reader.network / "media")

    until(lambda: reader.attribute("media/small.png", "cached") == "100")
    until(lambda: list(manager.screen.home.rglob("thumbnails/**/*.png")))
    assert downloaded(reader) <= len(MEDIA) * BLOCK
    assert thumbnailer is None or thumbnailer.poll() is None, "the thumbnailer has died"
    film = reader.network / "media" / "film.mp4"
    assert film.read_bytes() == MEDIA["film.mp4"]
