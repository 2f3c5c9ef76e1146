"""What it costs to index many small files, and to offer them again after a restart.

python -m benchmarks.indexing [FILES]       processor time a file, and what is written of the index
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import trio

from p2pfs.library import Library, Watch
from p2pfs.roots import Roots

FILES: Final = 10_000
A_DIRECTORY: Final = 100
LOOK_S: Final = 0.005


def make(share: Path, count: int) -> None:
    """Make so many small files."""
    for number in range(count):
        directory = share / f"directory {number // A_DIRECTORY}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file {number}").write_bytes(b"content %d" % number)


def written() -> int:
    """Return how many bytes this process has written."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


async def live(name: str, base: Path, count: int) -> None:
    """Run a library until all is offered, and then until nothing is left to do."""
    began, before = time.process_time(), written()
    library = Library(
        Roots(base / "share"), os.fspath(base / "index"), trio.to_thread.run_sync, Watch()
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(library.run)
        while library.statistics().files < count:  # noqa: ASYNC110 - it is a benchmark
            await trio.sleep(LOOK_S)
        offered = time.process_time() - began
        await library.wait_idle()
        done = time.process_time() - began
        nursery.cancel_scope.cancel()
    size = (base / "index").stat().st_size
    print(
        f"{name}: offered after {offered / count * 1e6:.0f} us of processor a file, "
        f"done after {done / count * 1e6:.0f}; "
        f"written {(written() - before) / count:.0f} bytes a file, the index has {size / count:.0f}"
    )


def main() -> None:
    """Index, and start again."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        base = Path(place)
        make(base / "share", count)
        for name in ("indexed", "started again"):
            trio.run(live, name, base, count)


if __name__ == "__main__":
    main()
