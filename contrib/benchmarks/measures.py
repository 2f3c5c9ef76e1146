"""What is measured. Each measure is a function of one contestant and gives named figures.

The files served are in the page cache of the machine: this is about the systems, not the disk.
"Cold" means that the reader has cached nothing: a new mount, a new state directory.
"""

from __future__ import annotations

import filecmp
import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from blake3 import blake3

from benchmarks import crowds
from benchmarks.contestants import MEASURE_S, SSHFS_SMALL, Contestant, P2pfs, Sshfs
from benchmarks.line import Distance, FarP2pfs
from benchmarks.workshop import Workshop, WorkshopError
from benchmarks.writing import make_archive, writing

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
MB: Final = 1e6

READ_BYTES: Final = MIB
"""What is asked of the kernel at once, as `cp` and `dd bs=1M` do."""

FIRST_FILES: Final = 20
FIRST_BYTES: Final = 4 * MIB

FAR_MS: Final = 200.0
FAR_MB_PER_S: Final = 25.0
"""A line so long that the time of a machine is little beside it."""

LARGE_BYTES: Final = 4 * GIB
"""A sparse file with the largest manifest there is (16,384 blocks)."""

SMALL_FILES: Final = 1000
SMALL_BYTES: Final = 10 * KIB

RANDOM_BYTES: Final = 256 * MIB
RANDOM_READS: Final = 4096

PROBE_BYTES: Final = GIB
BLOCK_BYTES: Final = 256 * KIB
PAGE_BYTES: Final = 4 * KIB
"""Where hashing is watched: each read is of a block that the asking peer has not."""

HASHING_S: Final = 0.3
"""As long as 1 GiB is being hashed."""

STATE: Final = "user.p2pfs.state"

LOOK_S: Final = 0.005

CLAIMED_FILES: Final = 3
"""Page cache that a cold read needs, in files: our cache, the mount, and one to spare."""

PATIENCE_S: Final = 60.0
"""What publishing may take before it counts as failed."""

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Stage:
    """What the measures work with."""

    workshop: Workshop
    files: Path
    """What is served, as it lies on the disk."""
    size: int
    """Of the file that is read in sequence."""


Measure = Callable[[Stage, Any], Figures]


def sequential(stage: Stage, contestant: Contestant) -> Figures:
    """Read one file three times: cold, from the page cache, and without the page cache."""
    with contestant.mounted() as mounted:
        path = mounted.root / "sequential"
        os.stat(path)
        claim_memory(stage, stage.size)
        cpu_before, giga = mounted.process.cpu_s(), stage.size / GIB
        cold = read_rate(path)
        cpu = (mounted.process.cpu_s() - cpu_before) / giga
        memory = mounted.process.peak_bytes() / MIB
        os.sync()
        second = read_rate(path)
        drop_pages(path)
        dropped = read_rate(path)
        check_same(path, stage.files / "sequential")
    return {"cold": cold, "cpu": cpu, "memory": memory, "second": second, "dropped": dropped}


def first_byte(_stage: Stage, contestant: Contestant) -> Figures:
    """Wait for the first byte of files that are known but not open, one after the other."""
    with contestant.mounted() as mounted:
        paths = [mounted.root / "first" / str(number) for number in range(FIRST_FILES)]
        large = mounted.root / "first" / "large"
        os.listdir(large.parent)
        first, *others = [first_byte_ms(path, 0) for path in paths]
        return {
            "first byte, new link": first,
            "first byte": sorted(others)[len(others) // 2],
            "first byte, middle": first_byte_ms(large, LARGE_BYTES // 2),
        }


def far_first_byte(stage: Stage, _contestant: object) -> Figures:
    """Wait for the first byte of a file that is known, of a source far away without a link."""
    distance = Distance("far", FAR_MS, FAR_MB_PER_S)
    files = stage.workshop.directory("far")
    (files / "first").mkdir()
    make_file(files / "first" / "0", FIRST_BYTES)
    contestant = FarP2pfs(stage.workshop, files, distance)
    with contestant.mounted() as mounted:
        path = mounted.root / "first" / "0"
        os.listdir(path.parent)
        return {"far first byte": first_byte_ms(path, 0) / FAR_MS}


def written(stage: Stage, contestant: Contestant) -> Figures:
    """Write an archive's files and a file in small writes; see `writing`."""
    return writing(stage.workshop, stage.files, contestant)


def small(stage: Stage, contestant: Contestant) -> Figures:
    """Copy a directory of small files with `cp -r`."""
    target = stage.workshop.directory("copy")
    options = (SSHFS_SMALL,) if isinstance(contestant, Sshfs) else ()
    with contestant.mounted(*options) as mounted:
        started = time.perf_counter()
        subprocess.run(["cp", "-r", mounted.root / "small", target], check=True)
        seconds = time.perf_counter() - started
    names = os.listdir(stage.files / "small")
    same, *_ = filecmp.cmpfiles(stage.files / "small", target / "small", names, shallow=False)
    if len(same) != SMALL_FILES:
        raise WorkshopError(f"{contestant.name}: {SMALL_FILES - len(same)} files are wrong")
    # The copy stays: see `drop_large`.
    return {"small files": SMALL_FILES / seconds}


def random_reads(stage: Stage, contestant: Contestant) -> Figures:
    """Read 4 KiB at random places of a file of which nothing is cached."""
    choose = random.Random(1)
    offsets = [choose.randrange(RANDOM_BYTES // 4096) * 4096 for _ in range(RANDOM_READS)]
    with contestant.mounted() as mounted, open(stage.files / "random", "rb") as original:
        claim_memory(stage, RANDOM_BYTES)
        with open(mounted.root / "random", "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            started = time.perf_counter()
            parts = [os.pread(file.fileno(), 4096, offset) for offset in offsets]
            seconds = time.perf_counter() - started
        if parts != [os.pread(original.fileno(), 4096, offset) for offset in offsets]:
            raise WorkshopError(f"{contestant.name}: wrong bytes")
    return {"random reads": RANDOM_READS / seconds}


def publishing(stage: Stage, contestant: Contestant) -> Figures:
    """Copy a file into `shared/` and wait until it is published."""
    assert isinstance(contestant, P2pfs)
    with contestant.servent("publisher") as (mountpoint, _process):
        path = mountpoint / "shared" / "file"
        shutil.copyfile(stage.files / "sequential", path)
        seconds = seconds_until(lambda: os.getxattr(path, STATE) == b"published")
    return {"publishing": stage.size / MB / seconds}


def hashing(stage: Stage, contestant: Contestant) -> Figures:
    """Read a little again and again while a file is hashed, and for as long while none is.

    Reads go to a file in `shared/` of who hashes, and to it from a peer, block by block.
    """
    assert isinstance(contestant, P2pfs)
    with contestant.servent("publisher") as (mountpoint, process):
        shared = mountpoint / "shared"
        make_file(shared / "probe", PROBE_BYTES)
        is_published = lambda name: os.getxattr(shared / name, STATE) == b"published"  # noqa: E731
        process.wait_for(lambda: is_published("probe"), "probe", PATIENCE_S)
        address = str(contestant.status(mountpoint)["listen"])
        with contestant.servent("asker", "--join", address) as (asking, asker):
            theirs = asking / "network" / "probe"
            asker.wait_for(lambda: crowds.source_count(theirs), "source")
            with open(shared / "probe", "rb") as own, open(theirs, "rb") as other:
                places = itertools.cycle(range(0, PROBE_BYTES, 4 * BLOCK_BYTES))
                shutil.copyfile(stage.files / "sequential", shared / "file")
                busy = worst_reads((own, other), places, lambda: is_published("file"))
                ends_at = time.perf_counter() + HASHING_S
                idle = worst_reads((own, other), places, lambda: time.perf_counter() >= ends_at)
    return {
        f"{name}{state}": 1000 * seconds
        for state, worst in ((", hashing", busy), (", idle", idle))
        for name, seconds in zip(("slowest read", "slowest answer"), worst, strict=True)
    }


def worst_reads(
    files: Sequence[BinaryIO], places: Iterator[int], is_over: Callable[[], bool]
) -> list[float]:
    """Read a page of each file at one place after the other; return the longest times."""
    worst = [0.0] * len(files)
    while not is_over():
        place = next(places)
        for number, file in enumerate(files):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            started = time.perf_counter()
            os.pread(file.fileno(), PAGE_BYTES, place)
            worst[number] = max(worst[number], time.perf_counter() - started)
    return worst


def visible(stage: Stage, contestant: Contestant) -> Figures:
    """Copy a small file into `shared/` and wait until a neighbour's `ls network/` shows it."""
    assert isinstance(contestant, P2pfs)
    original = next((stage.files / "small").iterdir())
    with (
        contestant.mounted() as reader,
        contestant.servent("publisher", "--join", contestant.address) as (mountpoint, _process),
    ):
        os.listdir(reader.root)
        shutil.copyfile(original, mountpoint / "shared" / "new")
        seconds = seconds_until(lambda: "new" in os.listdir(reader.root))
    return {"visible": seconds}


def hash_alone(stage: Stage, _contestant: object) -> Figures:
    """Hash the same file with BLAKE3, block by block on one core, with nothing around it."""
    view = memoryview(bytearray(256 * KIB))
    started = time.perf_counter()
    with open(stage.files / "sequential", "rb", buffering=0) as file:
        while count := file.readinto(view):
            blake3(view[:count]).digest()
    return {"publishing": stage.size / MB / (time.perf_counter() - started)}


def link_alone(stage: Stage, _contestant: object) -> Figures:
    """Move as many bytes over one encrypted link between two processes."""
    program = Path(__file__).with_name("raw_link.py")
    server = stage.workshop.start((sys.executable, program, "serve"))
    try:
        server.wait_for(lambda: server.output().endswith("\n"), "port")
        command = (sys.executable, program, "fetch", server.output().strip(), str(stage.size))
        environment = stage.workshop.environment()
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    finally:
        server.end()
    return {"cold": stage.size / MB / float(done.stdout)}


def torrent(stage: Stage, _contestant: object) -> Figures:
    """Fetch the same file from one libtorrent session to another, to the disk."""
    program, directory = Path(__file__).with_name("torrent.py"), stage.workshop.directory("torrent")
    # libtorrent 2.1 warns of calls for which 2.0 has no others yet.
    python = (sys.executable, "-W", "ignore::DeprecationWarning", program)
    seeder = stage.workshop.start((*python, "seed", stage.files / "sequential"))
    try:
        seeder.wait_for(lambda: seeder.output().endswith("\n"), "torrent", PATIENCE_S)
        port, torrent_file = seeder.output().split()
        claim_memory(stage, stage.size)
        command = (*python, "fetch", port, torrent_file, directory)
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=MEASURE_S)
        check_same(directory / "sequential", stage.files / "sequential")
    finally:
        seeder.end()
        shutil.rmtree(directory)
    return {"cold": stage.size / MB / float(done.stdout)}


# The files


def make_sequential(files: Path, size: int) -> None:
    """Make the file that is read in sequence."""
    make_file(files / "sequential", size)


def make_first(files: Path, _size: int) -> None:
    """Make files to open, and a sparse one with the largest manifest."""
    (files / "first").mkdir()
    for number in range(FIRST_FILES):
        make_file(files / "first" / str(number), FIRST_BYTES)
    with open(files / "first" / "large", "wb") as file:
        file.seek(LARGE_BYTES // 2)
        file.write(os.urandom(MIB))
        file.truncate(LARGE_BYTES)


def make_small(files: Path, _size: int) -> None:
    """Make many small files."""
    (files / "small").mkdir()
    for number in range(SMALL_FILES):
        make_file(files / "small" / f"{number:04}", SMALL_BYTES)


def make_random(files: Path, _size: int) -> None:
    """Make the file that is read at random places."""
    make_file(files / "random", RANDOM_BYTES)


def make_readers(files: Path, _size: int) -> None:
    """Make the file that ten get at once."""
    make_file(files / "readers", crowds.READERS_BYTES)


def make_sparse(files: Path, size: int) -> None:
    """Make a file of nothing but a hole: it may be larger than the disk."""
    with open(files / "sparse", "wb") as file:
        file.truncate(size)


def make_file(path: Path, size: int) -> None:
    """Make a file that cannot be compressed."""
    with open(path, "wb") as file:
        file.writelines(os.urandom(min(MIB, size - offset)) for offset in range(0, size, MIB))


# Reading


def claim_memory(stage: Stage, size: int) -> None:
    """Take as much page cache as any contestant needs to read so much, and free it for the next.

    A virtual machine gives free memory back to its host, and is slow to get it again: a new
    file of 1 GiB cost 1.2 s of processor time, and 0.16 s where another had just been removed.
    That is to be no part of what is measured, and in no contestant more than in another.
    """
    path = stage.workshop.directory("memory") / "claimed"
    with open(path, "wb") as file:
        file.writelines(bytes(MIB) for _ in range(CLAIMED_FILES * size // MIB))
    path.unlink()


def read_rate(path: Path) -> float:
    """Read a file from start to end; return MB/s."""
    view = memoryview(bytearray(READ_BYTES))
    total, started = 0, time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(view):
            total += count
    return total / MB / (time.perf_counter() - started)


def first_byte_ms(path: Path, offset: int) -> float:
    """Open a file and read one byte; return milliseconds."""
    started = time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        data = os.pread(file.fileno(), 1, offset)
    if len(data) != 1:
        raise WorkshopError(f"{path}: no byte at {offset}")
    return (time.perf_counter() - started) * 1000


def drop_pages(path: Path) -> None:
    """Drop what the kernel has cached of a file in a mount. Needs no root."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check_same(path: Path, original: Path) -> None:
    """Compare two files by their digests. WorkshopError if they differ."""
    if blake3().update_mmap(path).digest() != blake3().update_mmap(original).digest():
        raise WorkshopError(f"{path}: wrong bytes")


def seconds_until(is_so: Callable[[], bool]) -> float:
    """Return how long it takes until `is_so`."""
    started = time.perf_counter()
    while not is_so():
        if time.perf_counter() - started > PATIENCE_S:
            raise WorkshopError(f"nothing happened for {PATIENCE_S:.0f} s")
        time.sleep(LOOK_S)
    return time.perf_counter() - started


def in_a_crowd(measure: Callable[[Workshop, P2pfs, Path], Figures], name: str) -> Measure:
    """Return a measure of `crowds` as one that is run like the others."""
    return lambda stage, contestant: measure(stage.workshop, contestant, stage.files / name)


@dataclass(frozen=True)
class Scenario:
    """What is measured together, on which files, and how for each contestant."""

    prepare: tuple[Callable[[Path, int], None], ...]
    by_contestant: Mapping[str, Measure]


MOUNTS: Final = ("p2pfs", "sshfs", "rclone", "pass-through")

ALONE: Final = "alone"
"""No contestant: a part of p2pfs with nothing around it."""

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "sequential": Scenario(
        (make_sequential,),
        dict.fromkeys(MOUNTS, sequential) | {"libtorrent": torrent, ALONE: link_alone},
    ),
    "first-byte": Scenario((make_first,), dict.fromkeys(MOUNTS, first_byte)),
    "far": Scenario((), {"p2pfs": far_first_byte}),
    "writing": Scenario((make_archive,), dict.fromkeys(("p2pfs", "sshfs"), written)),
    "small": Scenario((make_small,), dict.fromkeys(MOUNTS, small)),
    # rclone sends a new request for each read, some 70 in a second: a minute for each round.
    "random": Scenario(
        (make_random,), dict.fromkeys((m for m in MOUNTS if m != "rclone"), random_reads)
    ),
    "publish": Scenario((make_sequential,), {"p2pfs": publishing, ALONE: hash_alone}),
    "hashing": Scenario((make_sequential,), {"p2pfs": hashing}),
    "visible": Scenario((make_small,), {"p2pfs": visible}),
    "together": Scenario((make_sequential,), {"p2pfs": in_a_crowd(crowds.together, "sequential")}),
    "killed": Scenario((make_sequential,), {"p2pfs": in_a_crowd(crowds.killed, "sequential")}),
    "stopped": Scenario((make_sequential,), {"p2pfs": in_a_crowd(crowds.stopped, "sequential")}),
    "readers": Scenario((make_readers,), {"p2pfs": in_a_crowd(crowds.readers, "readers")}),
    "memory": Scenario((make_sparse,), {"p2pfs": in_a_crowd(crowds.memory, "sparse")}),
}
