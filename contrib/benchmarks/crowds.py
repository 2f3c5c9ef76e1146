"""What is measured with more than one source, or more than one reader.

Each measure starts a network of its own. But where memory counts, its sources send no more than
they are told to.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.contestants import P2PFS, P2pfs
from benchmarks.workshop import Process, Workshop, WorkshopError

MIB: Final = 1024 * 1024
MB: Final = 1e6

READ_BYTES: Final = MIB

SOURCES: Final = 4
SOURCE_LIMIT: Final = "20MB"

READERS: Final = 10
READERS_LIMIT: Final = "10MB"
READERS_BYTES: Final = 200 * MIB

SMALLER_CACHE: Final = 16
"""How many times a file is larger than the cache that it passes through. The least is 64 MiB."""

SERVED_AT_ONCE: Final = 8

START_S: Final = 60.0
GET_S: Final = 300.0

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Stride:
    """One read: until when it took, and what for."""

    at: float
    took_s: float


def together(workshop: Workshop, contestant: P2pfs, file: Path) -> Figures:
    """Read a file from four sources with a limit."""
    with crowd(workshop, contestant, file) as (path, _sources):
        strides = read_through(path)
    return {"four sources": rate_of(strides)}


def killed(workshop: Workshop, contestant: P2pfs, file: Path) -> Figures:
    """Kill one of four sources in the middle."""
    with crowd(workshop, contestant, file) as (path, sources):
        half = os.stat(path).st_size // 2
        strides = read_through(path, half, lambda: os.kill(sources[1].pid, signal.SIGKILL))
    rest = strides[half // READ_BYTES :]
    return {"one killed": rate_of(rest), "standstill, killed": longest_of(rest)}


def stopped(workshop: Workshop, contestant: P2pfs, file: Path) -> Figures:
    """Stop one of four sources in the middle, without a word to anybody."""
    with crowd(workshop, contestant, file) as (path, sources):
        half = os.stat(path).st_size // 2
        try:
            stop = lambda: os.kill(sources[1].pid, signal.SIGSTOP)  # noqa: E731
            strides = read_through(path, half, stop)
        finally:
            os.kill(sources[1].pid, signal.SIGCONT)
    rest = strides[half // READ_BYTES :]
    return {"one stopped": rate_of(rest), "standstill, stopped": longest_of(rest)}


def readers(workshop: Workshop, contestant: P2pfs, file: Path) -> Figures:
    """Compare ten readers of one source with one reader, all with nothing cached."""
    state = sharing(workshop, file)
    address, source = contestant.serve(state, 1, "--upload-limit", READERS_LIMIT)
    try:
        alone_s = seconds_of(workshop, contestant, address, 1)
        together_s = seconds_of(workshop, contestant, address, READERS)
    finally:
        source.end()
    return {"ten readers": together_s / alone_s}


def memory(workshop: Workshop, contestant: P2pfs, file: Path) -> Figures:
    """Let one read a whole file, another whose cache is smaller, then eight a part each.

    See what these readers and the source of all hold.
    """
    size = os.stat(file).st_size
    address, source = contestant.serve(sharing(workshop, file), 1)
    options = ("--join", address, "--no-reshare", "--cache-size", str(2 * size))
    passing = (*options[:-1], str(size // SMALLER_CACHE))
    try:
        peaks = []
        for kind in (options, passing):
            with readers_of(contestant, 1, *kind) as [(path, process)]:
                read_part(path, 0, size)
                peaks.append(process.peak_bytes() / MIB)
        with (
            readers_of(contestant, SERVED_AT_ONCE, *options) as servents,
            ThreadPoolExecutor(SERVED_AT_ONCE) as pool,
        ):
            paths = [path for path, _process in servents]
            part = size // SERVED_AT_ONCE
            offsets = range(0, part * SERVED_AT_ONCE, part)
            list(pool.map(read_part, paths, offsets, [part] * SERVED_AT_ONCE))
        source_bytes = source.peak_bytes()
    finally:
        source.end()
    names = ("memory, sparse", "memory, passing", "memory, source")
    return dict(zip(names, (*peaks, source_bytes / MIB), strict=True))


@contextlib.contextmanager
def readers_of(
    contestant: P2pfs, count: int, *options: str
) -> Iterator[list[tuple[Path, Process]]]:
    """Start so many readers; yields for each the file in its mount, and its process."""
    with contextlib.ExitStack() as stack:
        servents = []
        for _ in range(count):
            mountpoint, process = stack.enter_context(contestant.servent("reader", *options))
            path = mountpoint / "network" / "file"
            process.wait_for(functools.partial(source_count, path), "source", START_S)
            servents.append((path, process))
        yield servents


def read_part(path: Path, offset: int, length: int) -> None:
    """Read a part of a file. WorkshopError if it ends too soon."""
    view = memoryview(bytearray(READ_BYTES))
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        while length > 0:
            count = file.readinto(view[:length])
            if not count:
                raise WorkshopError(f"{path}: ends too soon")
            length -= count


@contextlib.contextmanager
def crowd(
    workshop: Workshop, contestant: P2pfs, file: Path
) -> Iterator[tuple[Path, list[Process]]]:
    """Start four sources and a reader; yields the file in its mount, with all sources known."""
    sources: list[Process] = []
    addresses: list[str] = []
    try:
        for state in [sharing(workshop, file) for _ in range(SOURCES)]:
            options = [word for one in addresses for word in ("--join", one)]
            address, source = contestant.serve(state, 1, "--upload-limit", SOURCE_LIMIT, *options)
            addresses.append(address)
            sources.append(source)
        joins = [word for one in addresses for word in ("--join", one)]
        with contestant.servent("crowd", *joins) as (mountpoint, process):
            path = mountpoint / "network" / "file"
            process.wait_for(lambda: source_count(path) == SOURCES, "sources", START_S)
            yield path, sources
    finally:
        for source in sources:
            source.end()


def sharing(workshop: Workshop, file: Path) -> Path:
    """Return the state of a servent that is to share a file, which gets one more name.

    To be made before any of them runs: a new name changes the file for those who watch it.
    """
    state = workshop.directory("capped")
    (state / "shared").mkdir()
    os.link(file, state / "shared" / "file")
    return state


def source_count(path: Path) -> int:
    """Return how many sources of a file are known."""
    try:
        os.listdir(path.parent)
        return int(os.getxattr(path, "user.p2pfs.sources"))
    except OSError:
        return 0


def read_through(
    path: Path, moment: int | None = None, happens: Callable[[], None] = lambda: None
) -> list[Stride]:
    """Read a file from start to end; at an offset let something happen."""
    view = memoryview(bytearray(READ_BYTES))
    strides: list[Stride] = []
    with open(path, "rb", buffering=0) as file:
        for offset in range(0, os.fstat(file.fileno()).st_size, READ_BYTES):
            if offset == moment:
                happens()
            started = time.perf_counter()
            if not file.readinto(view):
                raise WorkshopError(f"{path}: ends too soon")
            now = time.perf_counter()
            strides.append(Stride(now, now - started))
    return strides


def rate_of(strides: list[Stride]) -> float:
    """Return MB/s."""
    total_s = strides[-1].at - strides[0].at + strides[0].took_s
    return len(strides) * READ_BYTES / MB / total_s


def longest_of(strides: list[Stride]) -> float:
    """Return the longest time that one read took."""
    return max(stride.took_s for stride in strides)


def seconds_of(workshop: Workshop, contestant: P2pfs, address: str, count: int) -> float:
    """Return how long so many new servents take to get a file, all at once."""
    states = [workshop.directory("reader") for _ in range(count)]
    servents = [contestant.serve(state, 0, "--join", address)[1] for state in states]
    try:
        for state, servent in zip(states, servents, strict=True):
            joined = lambda state=state: contestant.status(state)["neighbours"]  # noqa: E731
            servent.wait_for(joined, "neighbour")
        started = time.perf_counter()
        for get in [start_get(workshop, state) for state in states]:
            if get.wait(GET_S):
                raise WorkshopError("p2pfs get failed")
        return time.perf_counter() - started
    finally:
        for servent in servents:
            servent.end()


def start_get(workshop: Workshop, state: Path) -> subprocess.Popen[bytes]:
    """Start to copy the file out of the network."""
    command = (*P2PFS, "get", "-m", state, "file", "-o", state / "copy")
    return subprocess.Popen(
        command, env=workshop.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
