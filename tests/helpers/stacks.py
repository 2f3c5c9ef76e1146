"""Where trio's tasks are when a test takes too long."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator
from types import FrameType

import trio


def show_trio_tasks_at_the_timeout() -> None:
    """Write the stack of each trio task to stderr before the timer's signal fails the test."""
    fail = signal.getsignal(signal.SIGALRM)
    if not callable(fail):
        return

    def show_and_fail(number: int, frame: FrameType | None) -> None:
        sys.stderr.writelines(stacks_of_trio_tasks())
        fail(number, frame)

    signal.signal(signal.SIGALRM, show_and_fail)


def stacks_of_trio_tasks() -> list[str]:
    """Return what each task of the run in this thread waits for; nothing if there is no run."""
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        return []
    return [] if root is None else list(_stacks_below(root))


def _stacks_below(task: trio.lowlevel.Task) -> Iterator[str]:
    yield f"trio task {task.name}:\n"
    yield from traceback.StackSummary.extract(task.iter_await_frames()).format()
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _stacks_below(child)
