"""kill -9 at any moment of a download: what is in the cache is right, and little of it is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from p2pfs.protocol.manifest import MIB
from tests.helpers.dyingcache import Restart
from tests.helpers.sizes import BLOCK

MOMENTS = 100

MOST_LOST_BLOCKS = 16 * MIB // BLOCK
MOST_LOST_S = 5.0


@pytest.mark.slow
def test_a_hundred_kills_leave_no_wrong_byte_and_lose_little(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.dyingcache", tmp_path / "cache", str(MOMENTS)],
        stdout=subprocess.PIPE, text=True, check=True, timeout=500,
    )  # fmt: skip
    restarts = [Restart(**json.loads(line)) for line in done.stdout.splitlines()]

    assert len(restarts) == MOMENTS
    assert sum(restart.wrong for restart in restarts) == 0
    assert not [r for r in restarts if r.lost > MOST_LOST_BLOCKS and r.lost_s > MOST_LOST_S]
    # It is not that nothing was ever at stake: blocks were lost, and far more were kept.
    assert 0 < sum(restart.lost for restart in restarts) < sum(r.had for r in restarts) / 2
