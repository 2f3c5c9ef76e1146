"""What an honest person does meanwhile, how long each thing takes, and what it costs whom."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from attacking.attacks import FILM_BYTES
from tests.helpers.mounted import PROJECT, Servents, open_servents, until

MIB: Final = 1024 * 1024
RATE: Final = "5M"
"""The limit of the source, so that one film lasts for a whole measurement."""

DOCUMENTS: Final = 120
DOCUMENT_BYTES: Final = 50_000
OPEN_EVERY_S: Final = 0.25
PAUSE_S: Final = 0.05
NEWCOMER_S: Final = 20.0
"""After that a newcomer is taken to be shut out."""

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class Noticed:
    """What an honest person noticed in one phase."""

    ls_s: list[float] = field(default_factory=list)
    open_s: list[float] = field(default_factory=list)
    errors: int = 0
    film_bytes_s: float = 0.0
    peak_bytes: int = 0
    processor: float = 0.0
    """Of both honest servents, in cores."""
    attacker: float = 0.0


class Place:
    """A source and a reader that know each other, and a film that is being watched."""

    def __init__(self, servents: Servents) -> None:
        self._servents = servents
        self.source = servents.start("source", "--upload-limit", RATE)
        folder = self.source.shared / "docs"
        folder.mkdir()
        for number in range(DOCUMENTS):
            (folder / f"{number:03d}.bin").write_bytes(os.urandom(DOCUMENT_BYTES))
        self.source.share("film.bin", os.urandom(MIB) * (FILM_BYTES // MIB))
        self.reader = servents.start("reader", joins=[self.source])
        until(lambda: self.reader.shows("film.bin"))
        until(lambda: len(os.listdir(self._docs)) == DOCUMENTS)
        self._unread = iter(sorted(os.listdir(self._docs)))
        self._film_bytes = 0
        self.film_error = ""
        threading.Thread(target=self._watch_film, daemon=True).start()

    @property
    def _docs(self) -> Path:
        return self.reader.network / "docs"

    def _watch_film(self) -> None:
        try:
            with (self.reader.network / "film.bin").open("rb", buffering=0) as film:
                while data := film.read(128 * 1024):
                    self._film_bytes += len(data)
        except OSError as error:
            self.film_error = str(error)

    def notice(self, seconds: float, attacker: int | None = None) -> Noticed:
        """Look, and read what was not read yet, for some seconds."""
        noticed = Noticed()
        began_at = opened_at = time.monotonic()
        film_bytes = self._film_bytes
        honest = [self.source.process.pid, self.reader.process.pid]
        before = sum(map(_processor_s, honest))
        attacker_before = _processor_s(attacker) if attacker else 0.0
        while time.monotonic() < began_at + seconds:
            self._timed(noticed, noticed.ls_s, lambda: os.listdir(self.reader.network))
            name = None
            if time.monotonic() - opened_at > OPEN_EVERY_S:
                opened_at, name = time.monotonic(), next(self._unread, None)
            if name is not None:
                self._timed(noticed, noticed.open_s, (self._docs / name).read_bytes)
            noticed.peak_bytes = max(noticed.peak_bytes, *map(_memory_bytes, honest))
            time.sleep(PAUSE_S)
        took_s = time.monotonic() - began_at
        noticed.film_bytes_s = (self._film_bytes - film_bytes) / took_s
        noticed.processor = (sum(map(_processor_s, honest)) - before) / took_s
        if attacker:
            noticed.attacker = (_processor_s(attacker) - attacker_before) / took_s
        return noticed

    def _timed(self, noticed: Noticed, into: list[float], call: Callable[[], object]) -> None:
        began_at = time.monotonic()
        try:
            call()
        except OSError:
            noticed.errors += 1
        into.append(time.monotonic() - began_at)

    @contextlib.contextmanager
    def attacked(self, name: str) -> Iterator[int]:
        """Attack both for the length of the block; gives the attacker's process."""
        ports = [one.address.rpartition(":")[2] for one in (self.source, self.reader)]
        film = self.reader.attribute("film.bin", "id")
        command = [sys.executable, "-m", "attacking.attacks", name, *ports, film]
        process = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait()

    def newcomer_s(self) -> float:
        """Return how long somebody new needs for a neighbour by way of the reader, or infinity."""
        began_at = time.monotonic()
        options = ["--join", self.reader.address]
        newcomer = self._servents.start("newcomer", *options, mounted=False)
        try:
            until(newcomer.neighbours, within_s=NEWCOMER_S)
        except AssertionError:
            return math.inf
        return time.monotonic() - began_at

    def shows_all(self) -> bool:
        """Return whether all that is honest is shown, and found by a search."""
        reader = self.reader
        names = set(os.listdir(reader.network))
        found = os.listdir(reader.mountpoint / "search" / "film")
        return {"docs", "film.bin"} <= names and "film.bin" in found


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@contextlib.contextmanager
def open_place() -> Iterator[Place]:
    """Give two honest servents, and end them."""
    with (
        tempfile.TemporaryDirectory(prefix="p2pfs-hostile-") as directory,
        open_servents(Path(directory)) as servents,
    ):
        yield Place(servents)
