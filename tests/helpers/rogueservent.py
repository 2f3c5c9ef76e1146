"""The command, but for how its servents treat those who download from them.

    python -m tests.helpers.rogueservent mount DIR --state STATE ...

Its mood is what the file `mood` in the state directory says at each block: `honest` at first,
`lying` (the bytes are wrong), `silent` (nothing comes, the link stays open), `slow`. Which
blocks it was asked for it writes to `served` beside it. All else is what users run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from p2pfs import servent
from p2pfs.cli import commands as cli
from p2pfs.protocol.manifest import FileId
from p2pfs.upload.offer import Offer

STATE = Path(sys.argv[sys.argv.index("--state") + 1])

SLOW_S = 0.1
"""For each block: 2.5 MiB/s with blocks of 256 KiB."""


class MoodyOffer(Offer):
    """What is offered, and what is made of it when it is asked for."""

    async def read_blocks(self, file_id: FileId, indexes: Sequence[int]) -> list[bytes]:
        with (STATE / "served").open("a") as served:
            served.write(f"{indexes[0]}\n")
        (block,) = await super().read_blocks(file_id, indexes[:1])
        match mood():
            case "lying":
                return [bytes(byte ^ 1 for byte in block[:1]) + block[1:]]
            case "silent":
                await trio.sleep_forever()
            case "slow":
                await trio.sleep(SLOW_S)
        return [block]

    async def read_small(self, file_ids: Sequence[FileId]) -> list[bytes | None]:
        return [None for _ in file_ids]


def mood() -> str:
    file = STATE / "mood"
    return file.read_text() if file.exists() else "honest"


if __name__ == "__main__":
    servent.Offer = MoodyOffer
    cli.main()
