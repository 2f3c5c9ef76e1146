"""Many servents in a ring, some in each process, each with an address and a directory of its own.

    python -m reaching.ring DIRECTORY FIRST STEP COUNT

runs the servents FIRST, FIRST + STEP, ... of COUNT, and does what lines of JSON on its standard
input say. `Ring` starts such processes on one host, and asks them.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from p2pfs.config import load_config
from p2pfs.control.linking import link as link_verb
from p2pfs.errors import P2pfsError
from p2pfs.filelinks import FileLink, parse_file_link
from p2pfs.host.directories import use_directories
from p2pfs.protocol import Address
from p2pfs.servent import Servent, open_servent
from tests.helpers.hosts import Host
from tests.helpers.mounted import PROJECT
from tests.helpers.world import read_whole

PORT = 4774
COUNT = 60
PROCESSES = 10
TTL = 2
LINKS = 2
ANSWER_S = 60.0


def host_of(number: int) -> str:
    return f"10.78.0.{number + 1}"


# In one process.


class Some:
    """The servents of one process."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._count = count
        self._servents: dict[int, Servent] = {}

    async def run(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        options = {
            "listen": f"{host_of(number)}:{PORT}", "name": f"servent-{number}",
            "max-neighbours": LINKS, "ttl": TTL, "cache-size": "64M",
            "no-dht": False,
        }  # fmt: skip
        state = self._directory / str(number)
        (state / "shared").mkdir(parents=True)
        (state / "shared" / f"film-{number}.txt").write_text(f"film {number}\n" * 20_000)
        async with open_servent(load_config(options, state_directory=str(state))) as servent:
            servent.overlay.degree._start_walk = lambda: None  # it is to stay a ring  # noqa: SLF001
            self._servents[number] = servent
            await servent.library.wait_idle()
            task_status.started()
            await use_directories(servent)
            print(f"no directory for {number}: {servent.journal.events()[-1]}", file=sys.stderr)

    async def do(self, command: dict) -> object:
        name, number = command["do"], command.get("number", -1)
        if name == "join":
            for one, servent in self._servents.items():
                servent.overlay.join_later(Address(host_of((one + 1) % self._count), PORT))
            return None
        if name == "status":
            return {one: of(servent) for one, servent in self._servents.items()}
        servent = self._servents[number]
        if name == "link":
            asked = {"path": f"shared/film-{number}.txt", "typed": ""}
            made = parse_file_link((await link_verb(servent, asked, None))["link"])
            return FileLink(made.digits, made.name, made.size).text()  # without the hint
        assert name == "open"
        return await opened(servent, parse_file_link(command["link"]))


def of(servent: Servent) -> dict:
    status = servent.report.status()
    keys = ("directory_nodes", "directory_keys")
    neighbours = [int(link.peer.name.partition("-")[2]) for link in servent.overlay.neighbours]
    return {"neighbours": neighbours} | {key: status[key] for key in keys}


async def opened(servent: Servent, link: FileLink) -> object:
    began_at = trio.current_time()
    try:
        file = await servent.open_link(link)
        if file is None:
            return "not found"
        await read_whole(servent, file)
    except P2pfsError as error:
        return str(error)
    return trio.current_time() - began_at


async def main(directory: str, first: int, step: int, count: int) -> None:
    some = Some(Path(directory), count)
    async with trio.open_nursery() as nursery:
        for number in range(first, count, step):
            await nursery.start(some.run, number)
        print("ready", flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            print(json.dumps(await some.do(json.loads(line))), flush=True)
        nursery.cancel_scope.cancel()


# Outside.


class Ring:
    """The processes of a ring, and what they say."""

    def __init__(self, processes: list[subprocess.Popen]) -> None:
        self.processes = dict(enumerate(processes))
        """Those that live."""

    def ask(self, number: int, **command: object) -> object:
        """Have the process of a servent do something, and return its answer."""
        process = self.processes[number % PROCESSES]
        process.stdin.write(json.dumps({"number": number, **command}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def status(self) -> dict[int, dict]:
        found = {}
        for number in self.processes:
            found |= {int(one): row for one, row in self.ask(number, do="status").items()}
        return found

    def kill(self, number: int) -> None:
        """End the process of a servent, with all of its servents, without a word."""
        self.processes.pop(number % PROCESSES).kill()


@contextlib.contextmanager
def open_ring(host: Host, directory: Path) -> Iterator[Ring]:
    """Start the ring on a host that has all addresses."""
    with contextlib.ExitStack() as stack:
        processes = []
        for first in range(PROCESSES):
            numbers = map(str, (first, PROCESSES, COUNT))
            command = [
                *host.inside,
                sys.executable,
                "-m",
                "reaching.ring",
                str(directory),
                *numbers,
            ]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = subprocess.Popen(command, cwd=PROJECT, text=True, **pipes)
            stack.callback(_end, process)
            processes.append(process)
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        ring = Ring(processes)
        for number in ring.processes:
            ring.ask(number, do="join")
        yield ring


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def hops(rows: dict[int, dict], start: int) -> dict[int, int]:
    """Return how many links away each servent is, of those that can be reached."""
    found, edge = {start: 0}, [start]
    while edge:
        one = edge.pop(0)
        for other in rows[one]["neighbours"] if one in rows else ():
            if other not in found:
                found[other] = found[one] + 1
                edge.append(other)
    return found


def wait_formed(ring: Ring, nodes: int, most_s: float = 120.0) -> float:
    """Wait until it is a ring and each directory asks so many others; return the seconds."""
    began_at = time.monotonic()
    while time.monotonic() - began_at < most_s:
        rows = ring.status().values()
        if all(
            len(row["neighbours"]) == LINKS and (row["directory_nodes"] or 0) >= nodes
            for row in rows
        ):
            break
        time.sleep(2)
    return time.monotonic() - began_at


if __name__ == "__main__":
    trio.run(main, sys.argv[1], *map(int, sys.argv[2:]))
