"""A servent that does what the verbs ask, from memory (control.needed.Servent)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import trio

from p2pfs.config import Config, Endpoint, SharedDirectory
from p2pfs.control import VerbError
from p2pfs.control.client import ask, running_servents
from p2pfs.control.server import serve_control
from p2pfs.errors import NotFoundError, UnreachableError, UsageError
from p2pfs.filelinks import FileLink
from p2pfs.history import History
from p2pfs.journal import Journal
from p2pfs.namespace import Node, RemoteDirectory, RemoteFile
from p2pfs.protocol.manifest import FileId, Manifest
from p2pfs.roots import Root, Roots
from p2pfs.settings import Settings
from p2pfs.state import Leftovers
from tests.helpers.contents import in_a_file
from tests.helpers.faketree import FakeLinks
from tests.helpers.threads import run_directly


@dataclass
class FakeState:
    state: str
    file_id: FileId | None = None


@dataclass
class FakeOwnFile:
    local_path: str
    size: int = 4


class FakeLibrary:
    """Hashes whenever it is told to."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self.touches: list[str] = []
        self.states: dict[str, str] = {}
        self.version = 0
        self._changed = trio.Event()
        self.own: dict[FileId, str] = {}
        """What is offered, by content."""

    def find_id(self, file_id: FileId) -> FakeOwnFile | None:
        return FakeOwnFile(self.own[file_id]) if file_id in self.own else None

    def touched(self, path: str, lost: os.stat_result | None = None) -> None:
        self.touches.append(path)
        self.states.setdefault(path, "published")

    def file_state(self, path: str) -> FakeState:
        own = {other: file_id for file_id, other in self.own.items()}
        return FakeState(self.states.get(path, "private"), own.get(path))

    async def wait_changed(self, version: int) -> int:
        while self.version == version:
            await self._changed.wait()
        return self.version

    async def share(self, shared: SharedDirectory) -> Root:
        await trio.lowlevel.checkpoint()
        return self._roots.add(shared)

    async def unshare(self, name: str) -> Root:
        await trio.lowlevel.checkpoint()
        return self._roots.remove(name)

    def hashed(self, path: str) -> None:
        self.states[path] = "published"
        self.version += 1
        self._changed.set()
        self._changed = trio.Event()


class FakePins:
    """Remembers paths."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def add(self, *files: RemoteFile) -> None:
        await trio.lowlevel.checkpoint()
        self.paths += [file.path for file in files]

    async def remove(self, *paths: str) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        starts = tuple(f"{path}/" for path in paths)
        removed = [one for one in self.paths if one in paths or one.startswith(starts)]
        if not removed:
            raise NotFoundError("no such file is pinned")
        self.paths = [path for path in self.paths if path not in removed]
        return removed

    async def remove_content(self, file_id: FileId) -> Sequence[str]:
        return await self.remove(file_id.hex())


def found_in(nodes: Mapping[str, Node], path: str) -> Node | None:
    """Return what is at a path; there are the directories above each node."""
    if path not in nodes and any(other.startswith(f"{path}/") for other in nodes):
        return RemoteDirectory(path, 0, ())
    return nodes.get(path)


def listed_in(nodes: Mapping[str, Node], path: str) -> Sequence[Node]:
    """Return what is in a directory."""
    start = path and f"{path}/"
    labels = {other[len(start) :].partition("/")[0] for other in nodes if other.startswith(start)}
    found = (found_in(nodes, f"{start}{label}") for label in sorted(labels))
    return [node for node in found if node is not None]


class FakeTree:
    """What is below `search/` or `peers/`: paths of files, and their paths in `network/`."""

    def __init__(self) -> None:
        self.files: dict[str, RemoteFile] = {}
        self.published: dict[str, str] = {}

    async def find(self, path: str) -> Node | None:
        await trio.lowlevel.checkpoint()
        return found_in(self.files, path)

    async def list(self, path: str) -> Sequence[Node]:
        await trio.lowlevel.checkpoint()
        return listed_in(self.files, path)

    def partial(self, path: str) -> str | None:
        return None

    def published_path(self, path: str) -> str:
        return self.published.get(path, path.partition("/")[2])


class FakeReader:
    """Gives the bytes of a content, some from memory, some later."""

    def __init__(
        self, content: bytes, error: Exception | None, error_from: int, takes_s: float = 0.0
    ) -> None:
        self._takes_s = takes_s
        self._content = content
        self._file = in_a_file(content)
        self._error = error
        self._error_from = error_from
        self.is_closed = False
        self.manifest: Manifest | None = None
        self.reads: list[tuple[int, int]] = []
        """What was read, at which offset and how much."""

    def locate_nowait(self, offset: int, length: int) -> int | None:
        return self._file if offset else None

    async def locate(self, offset: int, length: int) -> int:
        await trio.sleep(self._takes_s)
        if self._error is not None and offset >= self._error_from:
            raise self._error
        return self._file

    async def read(self, offset: int, length: int) -> bytes:
        await self.locate(offset, length)
        self.reads.append((offset, length))
        self.manifest = Manifest.of(
            len(self._content), lambda start, count: self._content[start : start + count]
        )
        return self._content[offset : offset + length]

    def close(self) -> None:
        self.is_closed = True
        os.close(self._file)


class FakeServent:
    """Its attributes are what it answers with; tests set them."""

    def __init__(self, config: Config) -> None:
        self.settings = Settings(config, lambda: 1e9, run_directly)
        self.browser = self.report = self.swarms = self
        self.roots = Roots(config.shared_directory, file=config.shares_path, groups=config.groups)
        self.library = FakeLibrary(self.roots)
        self.leftovers = Leftovers(config.leftovers_directory)
        self.pins = FakePins()
        self.history = History(config.history_path, lambda: 1e9, run_directly)
        self.file_links = FakeLinks()
        self.network = ""
        """What the links say that it opens."""
        self.journal = Journal(now=lambda: 1e9)
        self.nodes: dict[str, Node] = {}
        self.sought: list[str] = []
        """The paths in `network/` that were looked for."""
        self.results = FakeTree()
        self.shares = FakeTree()
        self.contents: dict[bytes, bytes] = {}
        self.partial_search: str | None = None
        self.rows: list[dict[str, object]] = []
        self.read_error: Exception | None = None
        self.read_error_from = 0
        self.read_errors: dict[str, Exception] = {}
        """Of the files at these paths; there is one error for all else."""
        self.read_takes_s = 0.0
        self.partial_listings: dict[str, str] = {}
        self.search_takes_s = 0.0
        self.calls: list[str] = []
        self.readers: list[FakeReader] = []
        config.shared_directory.mkdir(parents=True, exist_ok=True)

    @property
    def config(self) -> Config:
        return self.settings.config

    def offer(self, path: str, content: bytes) -> None:
        """Let others have a file."""
        file_id = FileId(bytes([len(self.contents)] * 32))
        self.contents[file_id] = content
        self.nodes[path] = RemoteFile(path, len(content), 0, file_id, ())

    def status(self) -> dict[str, object]:
        mountpoint = self.config.mountpoint
        return {
            "name": self.config.name,
            "pid": os.getpid(),
            "mountpoint": mountpoint and str(mountpoint),
            "uptime_s": 3723.4,
            "shared_bytes": 1536,
        }

    def peers(self) -> Sequence[dict[str, object]]:
        return self.rows

    def transfers(self) -> Sequence[dict[str, object]]:
        return self.rows

    async def cached(self) -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        return {"limit_bytes": 2048, "used_bytes": 1536, "files": self.rows}

    async def clear_cache(self) -> int:
        await trio.lowlevel.checkpoint()
        self.calls.append("clear cache")
        return 1536

    async def search(self, words: str) -> dict[str, object]:
        self.calls.append(f"search {words}")
        try:
            await trio.sleep(self.search_takes_s)
        except trio.Cancelled:
            self.calls.append("search cancelled")
            raise
        return {"files": self.rows, "partial": self.partial_search}

    async def find(self, path: str) -> Node | None:
        self.sought.append(path)
        await trio.lowlevel.checkpoint()
        return found_in(self.nodes, path)

    async def list(self, path: str) -> Sequence[Node]:
        await trio.lowlevel.checkpoint()
        return listed_in(self.nodes, path)

    async def find_content(self, file_id: FileId) -> RemoteFile | None:
        await trio.lowlevel.checkpoint()
        files = (node for node in self.nodes.values() if isinstance(node, RemoteFile))
        return next((file for file in files if file.file_id == file_id), None)

    async def open_link(self, link: FileLink) -> RemoteFile | None:
        if link.network != self.network:
            raise UsageError("this link is for another network")
        return await self.find_content(FileId(bytes.fromhex(link.digits)))

    def partial(self, path: str) -> str | None:
        return self.partial_listings.get(path)

    def open(self, file: RemoteFile) -> FakeReader:
        content = self.contents[file.file_id]
        error = self.read_errors.get(file.path, self.read_error)
        self.readers.append(FakeReader(content, error, self.read_error_from, self.read_takes_s))
        return self.readers[-1]

    async def shared_directories(self) -> Sequence[dict[str, object]]:
        await trio.lowlevel.checkpoint()
        return self.rows

    async def join(self, endpoint: Endpoint) -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        if endpoint.host != "known":
            raise UnreachableError(f"{endpoint} refused the connection")
        return {"id": "a" * 32, "name": "Known", "address": str(endpoint)}

    async def leave(self) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append("leave")

    async def pause(self) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append("pause")

    async def resume(self) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append("resume")


@contextmanager
def running(servent: FakeServent) -> Iterator[None]:
    """Let it be asked through a control socket, from a thread of its own."""
    ready = threading.Event()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, servent, nursery.cancel_scope.cancel)
            ready.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    assert ready.wait(60)
    try:
        yield
    finally:
        for one in running_servents():
            with suppress(VerbError):  # another that ran beside it has ended it
                ask(one, "shutdown")
        thread.join(10)
