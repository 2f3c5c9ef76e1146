"""What a servent's process asks of its machine."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
from trio.testing import MockClock

from p2pfs.host.process import after_much_work

TURNS_OF_BLOCKS = """
import resource
from p2pfs.host.process import settle

settle()
for turn in range(60):
    if turn == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytes(2**20) for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_memory_of_blocks_is_used_again_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TURNS_OF_BLOCKS], capture_output=True, text=True, check=True
    )

    # The C library alone takes a thousand pages anew in each turn.
    assert int(done.stdout) < 1_000


@pytest.mark.parametrize(
    ("spent", "times"),
    [
        ([0, 0, 0, 0, 0], 0),
        ([0, 0.2, 0.4, 0.6, 0.8], 0),
        ([0, 3, 6, 9, 12], 0),
        ([0, 3, 3.2, 3.4, 3.6], 1),
        ([0, 3, 4, 5, 5.1], 1),
        ([0, 3, 3, 6, 6], 2),
    ],
)
async def test_free_memory_is_given_back_once_after_much_work(
    autojump_clock: MockClock, spent: list[float], times: int
) -> None:
    trims: list[int] = []
    left = [*spent, spent[-1]]
    with trio.CancelScope() as scope:

        def spent_s() -> float:
            if len(left) == 1:
                scope.cancel()
            return left.pop(0)

        await after_much_work(lambda: trims.append(1), spent_s)

    assert len(trims) == times


HOLES = """
import resource
from p2pfs.host.process import _trim

trim = _trim()
if trim is None:
    print("none")
    raise SystemExit

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

blocks = [bytes(9000) for _ in range(4000)]
last = bytes(9000)
del blocks
before = resident()
trim()
print(before - resident())
"""


def test_memory_between_what_is_in_use_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)

    if done.stdout.strip() == "none":
        pytest.skip("this C library has no malloc_trim")
    assert int(done.stdout) > 20 * 2**20
