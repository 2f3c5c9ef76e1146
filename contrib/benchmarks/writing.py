"""What it costs to write into a mount: an archive of small files, and a file in small writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.contestants import SSHFS_WRITING, Contestant, P2pfs, Sshfs
from benchmarks.workshop import Workshop

ARCHIVED_FILES: Final = 2000
ARCHIVED_BYTES: Final = 4096
WRITTEN_BYTES: Final = 128 * 1024 * 1024
WRITE_BYTES: Final = 4096
MB: Final = 1e6


def make_archive(files: Path, _size: int) -> None:
    """Make an archive of many small files."""
    content = files / "archived"
    content.write_bytes(os.urandom(ARCHIVED_BYTES))
    with tarfile.open(files / "archive", "w") as archive:
        for number in range(ARCHIVED_FILES):
            archive.add(content, f"archived/{number:04}")


@contextlib.contextmanager
def writable(contestant: Contestant, workshop: Workshop) -> Iterator[Path]:
    """Mount what can be written to; yields an empty directory of it."""
    if isinstance(contestant, P2pfs):
        with contestant.servent("writer") as (mountpoint, _process):
            yield mountpoint / "shared"
        return
    assert isinstance(contestant, Sshfs)
    with contestant.mounted(SSHFS_WRITING) as mounted:
        directory = mounted.root / workshop.directory("written").name
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory)


def writing(workshop: Workshop, files: Path, contestant: Contestant) -> dict[str, float]:
    """Unpack an archive with `tar x`, and write a file 4 KiB at a time."""
    with writable(contestant, workshop) as directory:
        started = time.perf_counter()
        subprocess.run(["tar", "xf", files / "archive", "-C", directory], check=True)
        unpacked_s = time.perf_counter() - started
        data = os.urandom(WRITE_BYTES)
        started = time.perf_counter()
        with open(directory / "small-writes", "wb", buffering=0) as file:
            file.writelines(data for _ in range(WRITTEN_BYTES // WRITE_BYTES))
        written_s = time.perf_counter() - started
    return {"unpacking": unpacked_s, "small writes": WRITTEN_BYTES / MB / written_s}
