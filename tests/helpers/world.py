"""A world of real servents on a network in memory and on virtual time.

Everything but the sockets, the threads and the clock is what users run. Use it with the
`autojump_clock` fixture of pytest-trio: seconds of silence then cost nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import tempfile
import unittest.mock
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import trio

from p2pfs.config import Config, Endpoint
from p2pfs.invitations import Invitation
from p2pfs.namespace.nodes import Node, RemoteFile
from p2pfs.reach import NetworkChanges
from p2pfs.servent import Servent, open_servent
from tests.helpers.memnet import MemoryNetwork
from tests.helpers.threads import run_directly

PORT = 4774
CACHE_BYTES = 256 * 1024 * 1024


def host(number: int) -> str:
    """Return the address of a servent of the world."""
    return f"10.0.{number // 250}.{number % 250 + 1}"


class World:
    """Servents 0, 1, 2, … that run until they are closed."""

    def __init__(self, directory: Path, nursery: trio.Nursery, *, latency_s: float) -> None:
        self.net = MemoryNetwork(latency_s=latency_s)
        self.servents: list[Servent] = []
        self.ahead_s: dict[int, float] = {}
        """How far the clock of a servent runs ahead of others'."""
        self._directory = directory
        self._nursery = nursery
        self._scopes: list[trio.CancelScope] = []
        self._gone: dict[int, trio.Event] = {}

    def __getitem__(self, number: int) -> Servent:
        return self.servents[number]

    def config(self, number: int, **changes: object) -> Config:
        """Return the settings of a servent: its own state directory, nothing else special."""
        config = Config(
            state_directory=self._directory / str(number),
            name=f"servent-{number}",
            cache_limit_bytes=CACHE_BYTES,
            listen_ports=(PORT,),
        )
        config.state_directory.mkdir(exist_ok=True)
        return replace(config, **changes)

    async def start(
        self, *, joins: Iterable[int] = (), invited: Iterable[Invitation] = (), **changes: object
    ) -> Servent:
        """Start one more servent, which joins through others; return when it listens."""
        number = len(self.servents)
        known = tuple(Endpoint(host(other), PORT) for other in joins)
        config = self.config(number, joins=(*known, *invited), **changes)
        scope = trio.CancelScope()
        servent = await self._nursery.start(self._run, number, config, scope)
        self.servents.append(servent)
        self._scopes.append(scope)
        return servent

    async def come_back(self, number: int) -> None:
        """Start a servent again that was stopped: the same share, key and contacts."""
        await self._gone[number].wait()
        scope = trio.CancelScope()
        config = self[number].config
        self.servents[number] = await self._nursery.start(self._run, number, config, scope)
        self._scopes[number] = scope

    async def _run(
        self,
        number: int,
        config: Config,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[Servent],
    ) -> None:
        self._gone[number] = gone = trio.Event()
        with scope:
            async with open_servent(
                config,
                network=self.net.host(host(number)),
                wall_clock=lambda: trio.current_time() + self.ahead_s.get(number, 0.0),
                run_in_thread=run_directly,
            ) as servent:
                task_status.started(servent)
                await trio.sleep_forever()
        gone.set()

    async def start_anew(self, number: int) -> None:
        """Set a servent that was stopped up again: same host and port, another identity."""
        (self._directory / str(number)).rename(self._directory / f"{number}-before")
        scope = trio.CancelScope()
        config = self.config(number)
        self.servents[number] = await self._nursery.start(self._run, number, config, scope)
        self._scopes[number] = scope

    def endpoint(self, number: int) -> Endpoint:
        """Return where a servent listens."""
        address = self[number].whereabouts.listen_address
        return Endpoint(address.host, address.port)

    def stop(self, number: int) -> None:
        """Let a servent leave as a user would: it says BYE."""
        self._scopes[number].cancel()

    def kill(self, number: int) -> None:
        """Let a servent vanish: its links are reset and nothing of it is heard again."""
        self.net.cut(host(number))
        self.net.freeze(host(number))

    def stall(self, number: int) -> None:
        """Let a servent stop without a word: links stay open, nothing moves."""
        self.net.freeze(host(number))

    async def share(self, number: int, path: str, content: bytes) -> None:
        """Publish a file and wait until it is offered."""
        file = self[number].config.shared_directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self[number].library.touched(path)
        await self[number].library.wait_idle()

    async def unshare(self, number: int, path: str) -> None:
        """Remove a file from the share."""
        file = self[number].config.shared_directory / path
        lost = file.lstat()
        file.unlink()
        self[number].library.touched(path, lost)
        await self[number].library.wait_idle()

    async def read(self, number: int, path: str) -> bytes:
        """Find a file, and read it whole as a reader of `network/` does."""
        node = await self[number].browser.find(path)
        assert isinstance(node, RemoteFile), f"{path}: {node}"
        return await read_whole(self[number], node)

    async def names(self, number: int, path: str = "") -> list[str]:
        """List a directory of `network/`, asked for now."""
        nodes: Iterable[Node] = await self[number].browser.list(path)
        return [node.path for node in nodes]

    async def until(self, claim: Callable[[], bool], *, within_s: float) -> None:
        """Let virtual time pass until a claim holds; fail if it does not within a time."""
        with trio.fail_after(within_s):
            while not claim():
                await trio.sleep(0.05)

    async def linked(self, *degrees: int, within_s: float = 30.0) -> None:
        """Wait until servent 0, 1, … has at least so many neighbours."""
        await self.until(
            lambda: all(
                len(self[number].overlay.neighbours) >= degree
                for number, degree in enumerate(degrees)
            ),
            within_s=within_s,
        )


async def read_whole(servent: Servent, file: RemoteFile) -> bytes:
    """Read a file from its first byte to its last, 128 KiB at a time as the kernel does."""
    reader = servent.swarms.open(file)
    try:
        data = bytearray()
        for offset in range(0, file.size, 128 * 1024):
            length = min(128 * 1024, file.size - offset)
            found = reader.locate_nowait(offset, length)
            if found is None:
                found = await reader.locate(offset, length)
            data += found if isinstance(found, bytes) else os.pread(found, length, offset)
        return bytes(data)
    finally:
        reader.close()


@contextlib.asynccontextmanager
async def open_world(*, latency_s: float = 0.001, seed: int = 0) -> AsyncIterator[World]:
    """Run a world for the length of the block; at its end every servent is gone."""
    random.seed(seed)
    with (
        tempfile.TemporaryDirectory(prefix="p2pfs-world-") as directory,
        # By the machine's own clock the servents sleep where virtual time takes longer than it.
        unittest.mock.patch.object(NetworkChanges.__init__, "__defaults__", (trio.current_time,)),
    ):
        async with trio.open_nursery() as nursery:
            yield World(Path(directory), nursery, latency_s=latency_s)
            nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def open_pair() -> AsyncIterator[World]:
    """Run a world of two servents that are neighbours: the second has joined the first."""
    async with open_world() as world:
        await world.start()
        await world.start(joins=[0])
        await world.linked(1, 1)
        yield world


async def chain(world: World, length: int, **changes: object) -> None:
    """Start servents that know the one before each, and have room for no others."""
    for number in range(length):
        room = 1 if number in (0, length - 1) else 2
        joins = [number - 1] if number else []
        await world.start(joins=joins, max_neighbours=room, **changes)
        if number:
            expected = [min(1, number)] + [1] * number
            await world.linked(*itertools.islice(expected, number + 1))
