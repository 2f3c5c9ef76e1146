"""Two disks with many small files each, shared where they lie, by a servent with a mount.

Their files are indexed, while somebody lists a directory and reads a small file in the mount; then
the servent is started again.

PYTHONPATH=.:contrib .venv/bin/python -m benchmarks.disks [FILES [OTHER-DISK]]
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.contestants import HOST, P2PFS
from benchmarks.indexing import make
from benchmarks.workshop import Process, Workshop
from p2pfs.control.client import Running, ask, servent_of

FILES: Final = 300_000
DISK: Final = "/var/tmp"
OTHER_DISK: Final = "/dev/shm"
"""Another file system."""

LOOK_EVERY_S: Final = 0.2
START_S: Final = 60.0
SMALL: Final = b"a small file\n"


class Looker:
    """Lists a directory of 100 files and reads a small file in a mount, time and again."""

    def __init__(self, shared: Path) -> None:
        self._acts: dict[str, Callable[[], object]] = {
            "ls": lambda: os.listdir(shared / "one" / "directory 0"),
            "read": (shared / "small").read_bytes,
        }
        self._took_s: dict[str, list[float]] = {name: [] for name in self._acts}
        self._is_over = threading.Event()

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Look for the length of the block."""
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_EVERY_S):
            for name, act in self._acts.items():
                began_at = time.monotonic()
                act()
                self._took_s[name].append(time.monotonic() - began_at)

    def __str__(self) -> str:
        """Tell how long each took."""
        return ", ".join(
            f"{name}: median {statistics.median(took_s) * 1e3:.1f} ms,"
            f" slowest of {len(took_s)} {max(took_s) * 1e3:.0f} ms"
            for name, took_s in self._took_s.items()
        )


@contextlib.contextmanager
def mounted(workshop: Workshop, state: Path, mountpoint: Path) -> Iterator[tuple[Process, Running]]:
    """Run a servent with a mount, and without neighbours."""
    command = (*P2PFS, "mount", mountpoint, "--foreground", "--state", state)
    options = ("--listen", f"{HOST}:0", "--no-lan", "--no-dht", "--no-port-mapping")
    with workshop.mounted((*command, *options), mountpoint) as process:
        process.wait_for(lambda: "listening on " in process.output(), "readiness", START_S)
        yield process, servent_of(os.fspath(mountpoint))


def wait_for(running: Running, count: int) -> None:
    """Wait until so many files are offered."""
    while ask(running, "status")["shared_files"] < count:
        time.sleep(LOOK_EVERY_S)


def number_in(file: str, key: str) -> int:
    """Return the number behind a key in a file of /proc."""
    lines = Path(file).read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def index(workshop: Workshop, state: Path, disks: Sequence[Path], count: int) -> None:
    """Share the disks, and tell what it costs until all is offered."""
    mountpoint = workshop.directory("mount")
    with mounted(workshop, state, mountpoint) as (process, running):
        (mountpoint / "shared" / "small").write_bytes(SMALL)
        looker, began_at, before_s = (
            Looker(mountpoint / "shared"),
            time.monotonic(),
            process.cpu_s(),
        )
        before = number_in(f"/proc/{process.pid}/io", "wchar")
        for name, disk in zip(("one", "other"), disks, strict=True):
            subprocess.run(
                [*P2PFS, "share", disk, "--as", name, "-m", mountpoint],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        with looker.looking():
            wait_for(running, count + 1)
        took_s, cpu_s = time.monotonic() - began_at, process.cpu_s() - before_s
        written = number_in(f"/proc/{process.pid}/io", "wchar") - before
        resident = number_in(f"/proc/{process.pid}/status", "VmRSS") / 1024
    size = (state / "index.sqlite").stat().st_size
    print(
        f"indexed after {took_s:.0f} s, {cpu_s:.1f} of processor,"
        f" {cpu_s / count * 1e6:.0f} us a file;"
        f" {written / size:.1f} times the index of {size / 2**20:.0f} MiB written;"
        f" {resident:.0f} MiB resident\n{looker}"
    )


def start_again(workshop: Workshop, state: Path, count: int) -> None:
    """Tell what it costs until all is offered once more."""
    began_at = time.monotonic()
    with mounted(workshop, state, workshop.directory("mount")) as (process, running):
        wait_for(running, count + 1)
        resident = number_in(f"/proc/{process.pid}/status", "VmRSS") / 1024
        print(
            f"started again: all offered after {time.monotonic() - began_at:.1f} s,"
            f" {process.cpu_s():.1f} of processor; {resident:.0f} MiB resident"
        )


def main(arguments: Sequence[str]) -> None:
    """Measure, and print what was seen."""
    count = int(arguments[0]) if arguments else FILES
    other = arguments[1] if len(arguments) > 1 else OTHER_DISK
    with Workshop(Path(DISK)) as workshop:
        os.environ.update(workshop.environment())
        disks = [workshop.directory("disk"), Path(tempfile.mkdtemp(dir=other))]
        workshop.on_exit(shutil.rmtree, disks[1], True)
        for disk in disks:
            make(disk, count // 2)
        state = workshop.directory("state")
        index(workshop, state, disks, count)
        start_again(workshop, state, count)


if __name__ == "__main__":
    main(sys.argv[1:])
