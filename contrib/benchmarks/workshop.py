"""A temporary directory, and the processes and mounts in it. None of it outlives the `with`.

Processes are started in sessions of their own, so that a Ctrl-C reaches this program alone,
which then ends them in order: by process id, and mounts by path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

START_S: Final = 30.0
"""What a server or a mount may take until it answers."""

END_S: Final = 15.0
"""What a process may take to end before it is killed."""

LOOK_S: Final = 0.01

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class WorkshopError(Exception):
    """Something that a measurement needs did not work; the text is for people."""


class Workshop:
    """Everything that a run of the benchmarks makes on this machine."""

    def __init__(self, parent: Path | None = None) -> None:
        """Prepare a directory below `parent`, or where temporary files belong."""
        self._stack = contextlib.ExitStack()
        self._parent = parent
        self._count = 0

    def __enter__(self) -> Self:
        """Create the directory."""
        self.path = self._temporary(self._parent)
        # Not below a directory of the user's choice: a socket's path has at most 107 bytes.
        self._runtime = self._temporary(None)
        return self

    def _temporary(self, parent: Path | None) -> Path:
        path = Path(tempfile.mkdtemp(prefix="p2pfs-bench-", dir=parent)).resolve()
        self._stack.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def __exit__(self, *_: object) -> None:
        """End and remove everything; a second Ctrl-C does not stop that."""
        with signals_ignored():
            self._stack.close()

    def on_exit(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function at the end, before what was there earlier is removed."""
        self._stack.callback(function, *arguments)

    def directory(self, name: str) -> Path:
        """Create a new directory of this name and a number."""
        self._count += 1
        path = self.path / f"{name}-{self._count}"
        path.mkdir(mode=0o700)
        return path

    def environment(self) -> dict[str, str]:
        """Return an environment in which p2pfs leaves its control sockets in the workshop."""
        return os.environ | {"XDG_RUNTIME_DIR": os.fspath(self._runtime)}

    def start(self, command: Sequence[str | Path]) -> Process:
        """Start a program; the workshop ends it unless its owner does so earlier."""
        process = Process(command, self.directory("log") / "output", self.environment())
        self._stack.callback(process.end)
        return process

    @contextlib.contextmanager
    def mounted(self, command: Sequence[str | Path], mountpoint: Path) -> Iterator[Process]:
        """Run a program that mounts on `mountpoint` and stays, until the block is over."""
        self._stack.callback(unmount, mountpoint)
        process = self.start(command)
        try:
            process.wait_for(lambda: os.path.ismount(mountpoint), "its mount")
            yield process
        finally:
            with signals_ignored():
                unmount(mountpoint)
                process.end()


class Process:
    """A program that we started, with what it starts itself."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str]
    ) -> None:
        """Start it; what it prints goes to `log`."""
        self._log = log
        self._name = os.path.basename(os.fspath(command[0]))
        with open(log, "wb") as output:
            self._popen = subprocess.Popen(
                [os.fspath(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def output(self) -> str:
        """Return what it has printed so far."""
        return self._log.read_text(errors="replace")

    def wait_for(self, is_so: Callable[[], object], what: str, timeout_s: float = START_S) -> None:
        """Wait until `is_so`, as long as the program runs. WorkshopError with its last line."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if self._popen.poll() is not None or time.monotonic() > deadline:
                last = (self.output().strip().splitlines() or ["it printed nothing"])[-1]
                raise WorkshopError(f"{self._name}: {what} did not come: {last}")
            time.sleep(LOOK_S)

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Kill it unless the block is over in time: who waits for its mount gets an error."""
        timer = threading.Timer(seconds, self._popen.kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def cpu_s(self) -> float:
        """Return the seconds of processor, user and system, that it and its children took."""
        return sum(_cpu_s(pid) for pid in _family(self.pid))

    def peak_bytes(self) -> int:
        """Return the most memory that it and its children had resident, added up."""
        return sum(_peak_bytes(pid) for pid in _family(self.pid))

    def end(self) -> None:
        """End it, and return when it is gone."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(END_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()


@contextlib.contextmanager
def signals_ignored() -> Iterator[None]:
    """Let nothing interrupt the tidying up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def unmount(path: Path) -> None:
    """Remove the mount at `path`, if there is one, even if it is in use or its servent is dead."""
    for options in (["-u"], ["-u", "-z"]):
        if not _is_mounted(path):
            return
        subprocess.run(["fusermount", *options, os.fspath(path)], capture_output=True, check=False)


def _is_mounted(path: Path) -> bool:
    # By the table: a stat would fail on a dead mount and hang on a stuck one.
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return any(line.split()[1] == os.fspath(path) for line in lines)


def _family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat_fields(int(entry))):
            children.setdefault(int(fields[1]), []).append(int(entry))
    family = [pid]
    for member in family:
        family.extend(children.get(member, ()))
    return family


def _stat_fields(pid: int) -> list[str]:
    """Return /proc/PID/stat from the third field, the state, on; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat_fields(pid)
    return sum(int(field) for field in fields[11:13]) / TICKS_PER_S


def _peak_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
