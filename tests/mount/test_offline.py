"""A pinned file with the network gone, through a real mount."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tests.helpers.mounted import open_servents, until

pytestmark = pytest.mark.fuse

CONTENT = random.Random(1).randbytes(3_000_000)


def test_a_pinned_file_is_read_through_a_mount_that_knows_nobody(tmp_path: Path):
    with open_servents(tmp_path) as servents:
        source = servents.start("source")
        source.share("films/a.mkv", CONTENT)
        keeper = servents.start("keeper", joins=[source])
        film = keeper.sees("films/a.mkv")
        before = film.stat()
        assert keeper.p2pfs("pin", film).returncode == 0

        def kept() -> dict[str, object]:
            record = json.loads(keeper.p2pfs("cache", "--json").stdout)
            (file,) = record["files"]
            return file

        until(lambda: kept()["percent"] == 100)
        source.kill()
        keeper.unmount()
        keeper = servents.start("keeper")

        assert os.listdir(keeper.network) == ["films"]
        assert (film.stat().st_size, film.stat().st_mtime_ns) == (len(CONTENT), before.st_mtime_ns)
        assert film.stat().st_ino == before.st_ino
        assert film.read_bytes() == CONTENT
        assert keeper.attribute("films/a.mkv", "sources") == "0"
        assert (kept()["path"], kept()["pinned"]) == ("films/a.mkv", True)
