"""A tree over fakes, really mounted by a process of its own.

A process of its own, because whoever touches a mount that he serves himself may wait for
himself, and because some tests kill it. `MountedTree` starts, asks and removes it; the part
below `main` is what runs there. It takes commands on its standard input, one a line.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import trio

from p2pfs.filesystem import FileSystem, Later
from p2pfs.mount import KernelCaller, check_mountpoint, detach, serve_mount
from p2pfs.mount.mountpoint import load_fuse
from p2pfs.roots import Roots
from tests.helpers.faketree import FakeNetwork, FakeShare

PROJECT = Path(__file__).parents[2]

STUCK = 100
"""Files `network/stuck/NUMBER` whose reads never end."""

STUCK_BYTES = 300_000

LISTED = 500
"""Files `network/many/NUMBER`."""

STOP_TIMEOUT_S = 60.0
UNTIL_TIMEOUT_S = 60.0


class MountedTree:
    """The process, seen from the test."""

    def __init__(self, directory: Path) -> None:
        self.mountpoint = directory / "mnt"
        self.backing = directory / "backing"
        self.shared = self.mountpoint / "shared"
        self.network = self.mountpoint / "network"
        self.backing.mkdir(exist_ok=True)
        self._log = directory / "log"
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.helpers.mountedtree", str(directory)],
                cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        answer = self._answer()
        if answer != "mounted":
            self.remove()
            raise AssertionError(f"not mounted: {answer}\n{self.log()}")

    def ask(self, *words: object) -> object:
        """Give a command and return the answer, when it comes."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def log(self) -> str:
        """Return what the process has logged."""
        return self._log.read_text()

    def is_mounted(self) -> bool:
        """Return whether the kernel still has the mount."""
        return f" {self.mountpoint} " in Path("/proc/mounts").read_text()

    def remove(self) -> None:
        """End the process and the mount, whatever state they are in."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        if self.is_mounted():
            detach(str(self.mountpoint))
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def _answer(self) -> object:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None


@contextmanager
def mounted_tree(directory: Path) -> Iterator[MountedTree]:
    """Mount a tree below `directory`, and leave nothing behind."""
    mounted = MountedTree(directory)
    try:
        yield mounted
    finally:
        mounted.remove()


# What a call can be made to raise.


async def _a_real_cancelled() -> BaseException:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            caught: BaseException = cancelled
            raise
    return caught


EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "an errno": lambda: OSError(errno.ENOLINK, "with an errno"),
    "no errno": lambda: OSError("without an errno"),
    "a timeout without errno": lambda: TimeoutError("slow"),
    "a negative errno": lambda: OSError(-5, "negative"),
    "an errno that the kernel keeps to itself": lambda: OSError(512, "ERESTARTSYS"),
    "ValueError": lambda: ValueError("bug"),
    "AssertionError": lambda: AssertionError("bug"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "StopIteration": StopIteration,
    "an exception group": lambda: BaseExceptionGroup("", [KeyboardInterrupt()]),
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "GeneratorExit": GeneratorExit,
    "trio.Cancelled": lambda: CANCELLED,
}

CANCELLED = trio.run(_a_real_cancelled)


def make_exception(kind: str) -> BaseException:
    """Return a new exception of a kind."""
    return EXCEPTIONS[kind]()


def expected_errno(kind: str) -> int:
    """Return the errno that an exception must become."""
    return errno.ENOLINK if kind == "an errno" else errno.EIO


class Faults:
    """Which call fails, and how; none unless told."""

    def __init__(self) -> None:
        self.operation = ""
        self.kind = ""
        self.is_late = False

    def wrap(self, target: object, prefix: str = "") -> _Faulty:
        return _Faulty(target, self, prefix)


class _Faulty:
    """A tree or an open file, one of whose calls raises."""

    def __init__(self, target: object, faults: Faults, prefix: str) -> None:
        self._target = target
        self._faults = faults
        self._prefix = prefix

    def __getattr__(self, name: str) -> object:
        value = getattr(self._target, name)
        if not callable(value):
            return value

        faults = self._faults

        def call(*arguments: object, **options: object) -> object:
            if faults.operation == self._prefix + name:
                if faults.is_late:
                    return Later(fail)
                raise make_exception(faults.kind)
            result = value(*arguments, **options)
            if name not in ("open", "create"):
                return result
            if isinstance(result, Later):
                return replace(
                    result, finish=lambda told: faults.wrap(result.finish(told), "file.")
                )
            return faults.wrap(result, "file.")

        async def fail() -> object:
            await trio.lowlevel.checkpoint()
            raise make_exception(faults.kind)

        return call


# The process.


def network() -> FakeNetwork:
    """Return what `network/` holds in the process."""
    network = FakeNetwork()
    network.add("cached.txt", b"cached", cached=True)
    network.add("films/x.bin", os.urandom(1_000_000))
    network.add("bare/f", b"x")
    for number in range(LISTED):
        network.add(f"many/{number}", b"x")
    for number in range(STUCK):
        network.add(f"stuck/{number}", bytes(STUCK_BYTES))
        network.stuck.add(f"stuck/{number}")
    network.stuck |= {"lost", "lost too"}
    network.unlisted.add("bare")
    network.stuck.add("bare")
    return network


class CrashError(Exception):
    """What ends trio in a test."""


async def serve(directory: str) -> None:
    """Mount, say so, and obey until told or interrupted to end."""
    fakes, share, faults = network(), FakeShare(), Faults()
    tree = FileSystem(Roots(f"{directory}/backing"), share, fakes, KernelCaller())
    mountpoint = await trio.to_thread.run_sync(check_mountpoint, f"{directory}/mnt")
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def mount(task_status: trio.TaskStatus[None]) -> None:
                await serve_mount(
                    faults.wrap(tree), mountpoint, name="test, name", task_status=task_status
                )
                nursery.cancel_scope.cancel()

            async def end_on_signal() -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(end_on_signal)
            await nursery.start(mount)
            say("mounted")
            await obey(nursery, fakes, share, faults)


async def obey(nursery: trio.Nursery, fakes: FakeNetwork, share: FakeShare, faults: Faults) -> None:
    """Carry out the commands that come in."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        match json.loads(line):
            case ["waiting", count]:
                await until(lambda: fakes.readers_waiting == count)
            case ["released"]:
                await until(lambda: not share.writers and not fakes.open_readers)
            case ["fault", operation, kind, is_late]:
                faults.operation, faults.kind, faults.is_late = operation, kind, is_late
                say("fault")
            case ["statistics"]:
                say({"open": fakes.open_readers, "searched": fakes.searched,
                     "writers": share.writers, "heard": share.forget()})  # fmt: skip
            case ["nodes"]:
                say(known_nodes())
            case ["replace", path, text]:
                fakes.add(path, text.encode(), cached=True)
                say("replaced")
            case ["crash a task"]:
                nursery.start_soon(crash)
            case ["crash trio"]:
                trio.lowlevel.current_trio_token().run_sync_soon(crash_now)


async def until(condition: Callable[[], bool]) -> None:
    """Answer true when a condition holds, false if it takes too long."""
    with trio.move_on_after(UNTIL_TIMEOUT_S):
        while not condition():
            await trio.sleep(0.002)
    say(condition())


async def crash() -> None:
    raise CrashError("a task of the servent failed")


def crash_now() -> None:
    raise CrashError("trio itself failed")


def known_nodes() -> int:
    """Return how many files libfuse knows because the kernel does: `id_table.use` of `struct fuse`.

    Before it are the session, a table of the same form, and the address of this one's nodes.
    """
    (mount,) = vars(load_fuse())["_libfuse"]._answering._mounts
    before = struct.calcsize("@PPNNNP")
    return ctypes.c_size_t.from_address(mount + before).value


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    trio.run(serve, sys.argv[1])


if __name__ == "__main__":
    main()
