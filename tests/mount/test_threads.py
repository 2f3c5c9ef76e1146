"""What Python keeps of threads that it did not start: for as long as they live, and no longer."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from p2pfs.filesystem.attributes import DIRECTORY_MODE, Attributes, virtual
from p2pfs.mount import serve_mount
from p2pfs.mount.threads import is_our_own, keep_state

LOOKS = 40


class Mark:
    """Something that a thread has."""


def in_foreign_thread(call: Callable[[], None]) -> None:
    """Let a thread of C's call, and wait until it has ended."""
    libc = ctypes.CDLL(None)
    start = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: call())
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, start, None) == 0
    assert libc.pthread_join(thread, None) == 0


def test_what_is_kept_of_a_thread_goes_with_it() -> None:
    own = threading.local()
    marks: list[weakref.ref[Mark]] = []

    def call() -> None:
        keep_state()
        keep_state()
        own.mark = Mark()
        marks.append(weakref.ref(own.mark))

    for _ in range(3):
        in_foreign_thread(call)

    gc.collect()
    assert [mark() for mark in marks] == [None] * 3


def test_a_thread_of_our_own_keeps_its_state_itself() -> None:
    """It would be given back twice, which ends the process."""

    def call() -> None:
        is_our_own()
        keep_state()

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


class Tree:
    """A directory that counts how often each thread has looked at it."""

    def __init__(self) -> None:
        self.own = threading.local()
        self.most = 0
        self.marks: list[weakref.ref[Mark]] = []

    def getattr(self, path: str) -> Attributes:
        if not hasattr(self.own, "looks"):
            self.own.looks, self.own.mark = 0, Mark()
            self.marks.append(weakref.ref(self.own.mark))
        self.own.looks += 1
        self.most = max(self.most, self.own.looks)
        return virtual(DIRECTORY_MODE, 1, time_ns=0)

    def check_access(self, path: str, mode: int) -> bool:
        return False


@pytest.mark.fuse
async def test_libfuses_threads_are_known_until_they_end(tmp_path: Path) -> None:
    tree = Tree()
    # The shell enters the mount, not the child before its exec: until then that keeps our
    # interpreter's lock, which the answer needs.
    script = f'cd "$0"; for i in $(seq {LOOKS}); do stat -c %i . >/dev/null; done'
    looking = ["sh", "-c", script, str(tmp_path)]
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: serve_mount(
            tree, str(tmp_path), name="test", task_status=task_status))  # fmt: skip
        await trio.run_process(looking, stderr=subprocess.DEVNULL)
        nursery.cancel_scope.cancel()

    gc.collect()
    assert tree.most > 1
    assert {mark() for mark in tree.marks} == {None}
