"""The command, but for a part that goes down when it is told to.

    python -m tests.helpers.dyingservent mount DIR --state STATE ...

It raises what the file `die` in the state directory names: `bug`, an exception of our own
making, or `exit`, one that no part may catch. All else is what users run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from p2pfs import servent
from p2pfs.cli import commands as cli
from p2pfs.download.swarms import Swarms

STATE = Path(sys.argv[sys.argv.index("--state") + 1])

LOOK_EVERY_S = 0.02

DEATHS: dict[str, type[BaseException]] = {"bug": ZeroDivisionError, "exit": SystemExit}


class DyingSwarms(Swarms):
    """The downloads, and with them the death of their servent."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(super().run)
            task_status.started()
            while not (STATE / "die").exists():
                await trio.sleep(LOOK_EVERY_S)
            raise DEATHS[(STATE / "die").read_text()]


if __name__ == "__main__":
    servent.Swarms = DyingSwarms
    cli.main()
