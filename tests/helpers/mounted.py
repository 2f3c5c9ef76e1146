"""Whole servents, with real mounts on real sockets, each a process of its own.

`Servents` starts them below one directory, waits until they are ready, and ends what is left
of them: by process id and by path. A servent's words are the command's and the control
socket's; its files are those below its mountpoint.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest

from p2pfs.control import client
from p2pfs.mount import detach
from p2pfs.protocol.manifest import MIN_BLOCK_BYTES

PROJECT = Path(__file__).parents[2]

PATIENCE_S = 60.0
"""How long anything may take on a machine that has other things to do."""

LOOK_EVERY_S = 0.02

Record = dict[str, object]


def until(claim: Callable[[], object], *, within_s: float = PATIENCE_S) -> None:
    """Wait until a claim holds. The last look comes after the time, so a slow look is fair."""
    ends_at = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < ends_at, "it did not come true in time"
        time.sleep(LOOK_EVERY_S)


def errno_name(call: Callable[..., object], *arguments: object) -> str:
    """Return the name of the errno that a call fails with, or what it returned."""
    try:
        return f"returned {call(*arguments)!r}"[:100]
    except OSError as error:
        return errno.errorcode[error.errno or 0]


READ_ONLY = "EROFS" if os.geteuid() == 0 else "EACCES"
"""How a change of what others share is refused. To all but root the kernel itself says no, as the
modes do, without asking us."""


def make_shared(state: Path) -> Path:
    """Make a state directory that a servent will take, and return its share, to be filled."""
    state.mkdir(mode=0o700, parents=True)
    shared = state / "shared"
    shared.mkdir()
    return shared


def is_mounted(path: Path) -> bool:
    """Return whether something is mounted there, without touching it."""
    escaped = str(path).replace(" ", r"\040")
    return f" {escaped} " in Path("/proc/mounts").read_text()


class Servent:
    """One process, which may be ended and started again on the same directories."""

    def __init__(
        self,
        directory: Path,
        name: str,
        program: str,
        arguments: Sequence[str],
        inside: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.state = directory / f"{name}.state"
        self.mountpoint = directory / name
        self.shared = self.mountpoint / "shared"
        self.network = self.mountpoint / "network"
        self._output = directory / f"{name}.output"
        with self._output.open("a") as output:
            self.process = subprocess.Popen(
                [*inside, sys.executable, "-m", program, *arguments],
                cwd=PROJECT, stdout=subprocess.PIPE, stderr=output, text=True,
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Return when it has said that it is mounted and listens."""
        stdout = self.process.stdout
        assert stdout is not None
        assert select.select([stdout], [], [], PATIENCE_S)[0], self.output()
        assert stdout.readline(), self.output()

    def output(self) -> str:
        """Return what it has logged and complained of."""
        return self._output.read_text()

    # Asking.

    def ask(self, verb: str, **args: object) -> object:
        """Ask through the control socket, as the command does."""
        return client.ask(client.choose_servent(str(self.state)), verb, args)

    def p2pfs(self, verb: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command on this servent."""
        return subprocess.run(
            [sys.executable, "-m", "p2pfs", verb, "-m", self.state, *arguments],
            cwd=self.mountpoint.parent, env=os.environ | {"PYTHONPATH": str(PROJECT)},
            capture_output=True, text=True, errors="surrogateescape",
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def unmount(self) -> None:
        """Leave as a user does, and return when mount and process are gone."""
        command = [sys.executable, "-m", "p2pfs", "unmount", self.mountpoint]
        subprocess.run(command, cwd=PROJECT, check=True, timeout=PATIENCE_S)
        assert self.wait() == 0

    def status(self) -> Record:
        return cast("Record", self.ask("status"))

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self.status()["listen"])

    def rows(self, verb: str, **args: object) -> list[Record]:
        """Ask a verb that lists."""
        return cast("list[Record]", self.ask(verb, **args))

    def neighbours(self) -> list[str]:
        """Return the names of its neighbours."""
        return sorted(str(row["name"]) for row in self.rows("peers"))

    def errors(self, path: str) -> list[str]:
        """Return the errors in `p2pfs events` about a path below `network/`."""
        return [
            str(row["text"])
            for row in self.rows("events")
            if row["path"] == path and row["severity"] == "error"
        ]

    def attribute(self, path: str, name: str) -> str:
        """Return `user.p2pfs.NAME` of a file below `network/`."""
        return os.getxattr(self.network / path, f"user.p2pfs.{name}").decode()

    # Files.

    def share(self, path: str, content: bytes) -> Path:
        """Write a file into `shared/` and wait until it is published."""
        file = self.shared / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self.wait_published(path)
        return file

    def wait_published(self, path: str) -> None:
        """Return when a file in `shared/` is offered."""
        file = self.shared / path
        until(lambda: os.getxattr(file, "user.p2pfs.state") == b"published")

    def shows(self, path: str) -> bool:
        """Return whether `ls` shows a path below `network/`, without a search for it."""
        place = self.network / path
        return place.parent.is_dir() and place.name in os.listdir(place.parent)

    def sees(self, path: str, *, sources: int = 1) -> Path:
        """Return a path below `network/` when `ls` shows it, with so many sources."""
        until(lambda: self.shows(path))
        if sources > 1:
            until(lambda: self.shows(path) and int(self.attribute(path, "sources")) >= sources)
        return self.network / path

    def wait_cache_closed(self) -> None:
        """Return when nobody reads any more and what was cached is noted on the disk.

        What is small is noted as it comes, and may stay open.
        """
        opened = Path(f"/proc/{self.process.pid}/fd")
        until(lambda: not any(map(self._is_large_and_cached, opened.iterdir())))

    def _is_large_and_cached(self, descriptor: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            file = descriptor.readlink()
            is_cached = file.is_relative_to(self.state / "cache")
            return is_cached and int(file.suffix[1:]) > MIN_BLOCK_BYTES
        return False

    # Ending.

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until the process is gone. The mount stays, dead."""
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """Return its exit status when it has ended by itself."""
        assert self.process.stdout is not None
        status = self.process.wait(PATIENCE_S)
        self.process.stdout.close()
        return status

    def terminate(self) -> None:
        """Tell it to end, even if it was stopped."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()

    def remove(self) -> None:
        """End the process and the mount, whatever state they are in."""
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE_S)
        self.kill()
        if is_mounted(self.mountpoint):
            detach(str(self.mountpoint))


class Rogue(Servent):
    """A servent whose treatment of those who download from it is the test's to choose."""

    def be(self, mood: str) -> None:
        """Choose one of the moods of `tests.helpers.rogueservent`."""
        temporary = self.state / "mood.new"
        temporary.write_text(mood)
        temporary.replace(self.state / "mood")

    def served(self) -> list[int]:
        """Return the indexes of the blocks that it was asked for since it was started."""
        served = self.state / "served"
        return [int(line) for line in served.read_text().split()] if served.exists() else []

    def forget_served(self) -> None:
        (self.state / "served").unlink(missing_ok=True)


class Servents:
    """Starts servents below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[Servent] = []

    def start(
        self,
        name: str,
        *options: str | Path,
        joins: Sequence[Servent] = (),
        mounted: bool = True,
        wait: bool = True,
        program: str = "p2pfs",
        inside: Sequence[str] = (),
    ) -> Servent:
        """Start a servent, and return when it is ready and has joined.

        With `inside` it runs where such a command leads, on another host say.
        """
        return self._start(
            Servent, program, name, options, joins, mounted=mounted, wait=wait, inside=inside
        )

    def start_rogue(self, name: str, *options: str, joins: Sequence[Servent] = ()) -> Rogue:
        """Start one that may turn rogue; until told it is honest."""
        program = "tests.helpers.rogueservent"
        rogue = self._start(Rogue, program, name, options, joins, mounted=True, wait=True)
        assert isinstance(rogue, Rogue)
        return rogue

    def _start(
        self,
        kind: type[Servent],
        program: str,
        name: str,
        options: Sequence[str | Path],
        joins: Sequence[Servent],
        *,
        mounted: bool,
        wait: bool,
        inside: Sequence[str] = (),
    ) -> Servent:
        verb = ["mount", str(self.directory / name)] if mounted else ["serve"]
        arguments = [
            *verb, "--foreground", "--state", str(self.directory / f"{name}.state"),
            "--name", name, "--listen", "127.0.0.1:0", *map(str, options),
        ]  # fmt: skip
        for other in joins:
            arguments += ["--join", other.address]
        servent = kind(self.directory, name, program, arguments, inside)
        self._started.append(servent)
        if wait:
            servent.wait_ready()
            until(lambda: len(servent.neighbours()) >= len(joins))
        return servent

    def remove(self) -> None:
        """End what was started, all at once: each writes its index to the disk."""
        for servent in self._started:
            servent.terminate()
        for servent in self._started:
            servent.remove()


@contextlib.contextmanager
def open_servents(directory: Path) -> Iterator[Servents]:
    """Start servents that no other servent of this user sees; at the end all are gone."""
    runtime = directory / "runtime"
    runtime.mkdir(mode=0o700)
    servents = Servents(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        try:
            yield servents
        finally:
            servents.remove()
