"""What a servent's process asks of its machine."""

from __future__ import annotations

import subprocess
import sys

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
