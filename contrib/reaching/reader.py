"""Join, read one file and leave, again and again, each time as somebody new.

    python -m reaching.reader JOIN PATH TIMES

prints the seconds of each read, or why it failed. Each servent listens at a port of its own, so no
connection of an earlier one is in the way.
"""

from __future__ import annotations

import sys
import tempfile

import trio

from p2pfs.config import load_config
from p2pfs.errors import P2pfsError
from p2pfs.namespace import RemoteFile
from p2pfs.servent import Servent, open_servent
from tests.helpers.world import read_whole

SEEN_S = 30.0
LOOK_EVERY_S = 0.1


async def main(join: str, path: str, times: int) -> None:
    for number in range(times):
        with tempfile.TemporaryDirectory() as directory:
            options = {"join": [join], "listen": "0", "name": f"reader-{number}"}
            config = load_config(options, state_directory=directory)
            async with open_servent(config) as servent:
                print(await read(servent, path), flush=True)


async def read(servent: Servent, path: str) -> str:
    file = None
    with trio.move_on_after(SEEN_S):
        while not isinstance(file, RemoteFile):
            await trio.sleep(LOOK_EVERY_S)
            if servent.overlay.neighbours:
                file = await servent.browser.find(path)
    if not isinstance(file, RemoteFile):
        return "not found"
    began_at = trio.current_time()
    try:
        await read_whole(servent, file)
    except P2pfsError as error:
        return str(error)
    return f"{trio.current_time() - began_at:.3f}"


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
