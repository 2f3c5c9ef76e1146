"""Real file managers on a virtual screen, and how much they download of what they show."""

from __future__ import annotations

import glob
import random
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from jeepney import message_bus
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import unwrap_msg

from p2pfs.protocol.manifest import KIB, MIB
from tests.helpers.mounted import Servent, open_servents, until
from tests.helpers.screen import desktop_program, virtual_screen
from tests.helpers.sessionbus import needs_bus, session_bus

BLOCK = 256 * KIB

SETTLED_S = 2.0
"""A thumbnailer that has fetched nothing for so long has given up or is done."""

TUMBLER = next(iter(glob.glob("/usr/lib/*/tumbler-1/tumblerd")), None)


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


FILES = {
    "picture.png": picture(1, 1000),
    "another.png": picture(2, 900),
    "small.png": picture(3, 200),
    "film.mp4": noise(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", 8 * MIB),
    "song.mp3": noise(b"ID3\3\0\0\0\0\0\0", 5 * MIB),
    "book.pdf": noise(b"%PDF-1.4\n", 3 * MIB),
}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Servent]:
    """A servent on a desktop, that sees a folder of everything that has a preview."""
    with session_bus(tmp_path), virtual_screen(), open_servents(tmp_path) as servents:
        owner = servents.start("owner")
        for name, content in FILES.items():
            owner.share(f"folder/{name}", content)
        reader = servents.start("reader", joins=[owner])
        for name in FILES:
            reader.sees(f"folder/{name}")
        yield reader


def is_on_bus(name: str) -> bool:
    with open_dbus_connection("SESSION") as connection:
        reply = connection.send_and_get_reply(message_bus.NameHasOwner(name))
        return bool(unwrap_msg(reply)[0])


def downloaded(reader: Servent) -> int:
    """Return how many bytes are in the cache, once that has not changed for a while."""
    counts = [-1, 0]
    while counts[-1] != counts[-2]:
        time.sleep(SETTLED_S)
        counts.append(int(str(reader.status()["cache_bytes"])))
    return counts[-1]


@needs_bus
@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no Xvfb")
@pytest.mark.parametrize(
    "programs",
    [
        pytest.param(
            (TUMBLER, "thunar"),
            marks=pytest.mark.skipif(
                TUMBLER is None or shutil.which("thunar") is None, reason="no Thunar with tumbler"
            ),
            id="Thunar",
        ),
        pytest.param(
            ("pcmanfm",),
            marks=pytest.mark.skipif(shutil.which("pcmanfm") is None, reason="no PCManFM"),
            id="PCManFM",
        ),
    ],
)
def test_a_file_manager_downloads_no_more_than_the_first_blocks_of_a_folder(
    programs: tuple[str, ...], reader: Servent, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with ExitStack() as running:
        for service in programs[:-1]:
            running.enter_context(desktop_program(home, service))
            until(lambda: is_on_bus("org.freedesktop.thumbnails.Thumbnailer1"))
        running.enter_context(desktop_program(home, programs[-1], reader.network / "folder"))
        until(lambda: reader.attribute("folder/small.png", "cached") == "100")
        until(lambda: reader.attribute("folder/picture.png", "cached") != "0")
        until(lambda: list(home.rglob("thumbnails/**/*.png")))
        assert downloaded(reader) <= len(FILES) * BLOCK

    assert (reader.network / "folder" / "film.mp4").read_bytes() == FILES["film.mp4"]
