"""The two things below the tree, as fakes: what the network holds, and what the library hears."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio
from blake3 import blake3

from p2pfs.errors import TransferError
from p2pfs.namespace.nodes import Knowledge, Node, RemoteDirectory, RemoteFile
from p2pfs.namespace.query import QueryError, parse_query
from p2pfs.protocol.fields import PeerInfo
from p2pfs.protocol.manifest import FileId
from tests.helpers.contents import in_a_file

MTIME_NS = 1_600_000_000_123_456_789


FILE_ID = FileId(b"\x07" * 32)


@dataclass
class FakeState:
    state: str = "published"
    file_id: FileId | None = FILE_ID
    reason: str = ""


class FakeShare:
    """Writes down what the tree tells the library."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.writers: dict[str, int] = {}
        self.state = FakeState()

    def write_began(self, path: str, *, is_new: bool = False) -> None:
        self.heard.append(("began", path))
        self.writers[path] = self.writers.get(path, 0) + 1

    def write_ended(self, path: str) -> None:
        self.heard.append(("ended", path))
        self.writers[path] -= 1
        if not self.writers[path]:
            del self.writers[path]

    def created(self, path: str, status: os.stat_result) -> None:
        self.heard.append(("created", path))

    def touched(self, path: str, lost: os.stat_result | None = None) -> None:
        self.heard.append(("touched", path))

    def attributes_changed(self, path: str) -> None:
        self.heard.append(("attributes", path))

    def names_changed(self, old: str, new: str, lost: os.stat_result | None = None) -> None:
        self.heard.append(("names", f"{old} {new}"))

    def file_state(self, path: str) -> FakeState:
        return self.state

    def forget(self) -> list[tuple[str, str]]:
        """Return what was heard, and begin anew."""
        heard, self.heard = self.heard, []
        return heard


class FakeReader:
    def __init__(self, network: FakeNetwork, file: RemoteFile, data: bytes) -> None:
        self._network = network
        self._path = file.path
        self._file = in_a_file(data)
        self.is_closed = False

    def locate_nowait(self, offset: int, length: int) -> int | None:
        assert not self.is_closed
        return self._file if self._path in self._network.cached else None

    async def locate(self, offset: int, length: int, *, ahead: bool = True) -> int:
        self._network.reads.append((self._path, offset, length, ahead))
        failure = self._network.failures.get(self._path)
        if failure is not None:
            raise failure
        if self._path in self._network.stuck:
            with self._network.waiting(self):
                await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        return self._file

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True
        os.close(self._file)
        self._network.open_readers -= 1


class FakeCaller:
    """Whoever a test says."""

    def __init__(self) -> None:
        self.name = "cat"
        self.words = ""
        self.is_making_directory = False
        self.looks = 0

    def program(self) -> str:
        self.looks += 1
        return self.name

    def command(self) -> str:
        return self.words

    def user(self) -> int:
        return 1000

    def makes_directory(self) -> bool:
        return self.is_making_directory


class FakeLinks:
    """Says what is linked to, and whose it is."""

    def __init__(self) -> None:
        self.passed_on: list[FileId] = []

    def pass_on(self, file_id: FileId) -> None:
        self.passed_on.append(file_id)

    def to_own(self, file_id: FileId, name: str, size: int) -> str:
        return f"p2pfs:file/{file_id.hex()}?own&name={name}&size={size}"

    def to_others(self, file_id: FileId, name: str, size: int, sources: Sequence[PeerInfo]) -> str:
        whose = ",".join(source.name for source in sources)
        return f"p2pfs:file/{file_id.hex()}?of={whose}&name={name}&size={size}"


class FakeNetwork:
    """Files by path, and for each of them how it behaves."""

    def __init__(self) -> None:
        self.results = FakeResults()
        self.browser = self.shares = self.swarms = self.report = self
        self.file_links = FakeLinks()
        self.contents: dict[str, bytes] = {}
        self._by_id: dict[FileId, bytes] = {}
        self.cached: set[str] = set()
        """Paths whose bytes need no network."""
        self.stuck: set[str] = set()
        """Paths whose reads never end."""
        self.hidden: set[str] = set()
        """Paths that only a search finds."""
        self.unlisted: set[str] = set()
        """Directories that only a listing shows."""
        self.failures: dict[str, TransferError] = {}
        self.partials: dict[str, str] = {}
        """Why listings are not whole, by directory."""
        self.sources: tuple[PeerInfo, ...] = (PeerInfo("a" * 32, "anna", ()),)
        self.searched: list[str] = []
        self.listed: list[str] = []
        self.fetched_ahead: list[str] = []
        self.open_readers = 0
        self.held: Counter[str] = Counter()
        self.opened: list[str] = []
        self.reads: list[tuple[str, int, int, bool]] = []
        self.waiting_calls: Counter[object] = Counter()
        self.renderings = 0

    def add(self, path: str, data: bytes, *, cached: bool = False) -> RemoteFile:
        self.contents[path] = data
        (self.cached.add if cached else self.cached.discard)(path)
        node = self.node(path)
        assert isinstance(node, RemoteFile)
        self._by_id[node.file_id] = data
        return node

    def node(self, path: str) -> Node | None:
        if path in self.contents:
            data = self.contents[path]
            file_id = FileId(blake3(data).digest())
            return RemoteFile(path, len(data), MTIME_NS, file_id, self.sources)
        below = path + "/" if path else ""
        if not path or any(name.startswith(below) for name in self.contents):
            return RemoteDirectory(path, MTIME_NS, self.sources)
        return None

    @property
    def readers_waiting(self) -> int:
        return len(self.waiting_calls)

    def waiting(self, reader: object) -> _Waiting:
        return _Waiting(self, reader)

    def render(self, name: str) -> bytes:
        self.renderings += 1
        return f"{name} {self.renderings}\n".encode()

    # The View.

    def known(self, path: str) -> Node | Knowledge:
        if path in self.hidden:
            return Knowledge.UNKNOWN
        return self.node(path) or Knowledge.UNKNOWN

    async def find(self, path: str) -> Node | None:
        self.searched.append(path)
        await trio.lowlevel.checkpoint()
        if path in self.stuck:
            with self.waiting(object()):
                await trio.sleep_forever()
        if path in self.failures:
            raise self.failures[path]
        return self.node(path)

    def settled(self, nodes: Sequence[Node]) -> Sequence[Node]:
        return [node for node in nodes if node.path not in getattr(self, "hidden", ())]

    def known_children(self, path: str) -> Sequence[Node] | Knowledge:
        return Knowledge.UNKNOWN if path in self.unlisted else self._children(path)

    async def list(self, path: str) -> Sequence[Node]:
        self.listed.append(path)
        await trio.lowlevel.checkpoint()
        if path in self.stuck:
            with self.waiting(object()):
                await trio.sleep_forever()
        return self._children(path)

    def partial(self, path: str) -> str | None:
        return self.partials.get(path)

    def hold(self, file: RemoteFile) -> Callable[[], None]:
        self.held[file.path] += 1

        def release() -> None:
            self.held[file.path] -= 1

        return release

    def open(self, file: RemoteFile) -> FakeReader:
        self.open_readers += 1
        self.opened.append(file.path)
        return FakeReader(self, file, self._by_id[file.file_id])

    def fetch_ahead(self, files: Sequence[RemoteFile]) -> None:
        self.fetched_ahead += [file.path for file in files]

    def last_error(self, path: str) -> str | None:
        failure = self.failures.get(path)
        return None if failure is None else str(failure)

    def cached_percent(self, file_id: FileId) -> int:
        return 100 if any(self._id(path) == file_id for path in self.cached) else 0

    def _id(self, path: str) -> FileId | None:
        node = self.node(path)
        return node.file_id if isinstance(node, RemoteFile) else None

    def _children(self, path: str) -> list[Node]:
        below = path + "/" if path else ""
        names = sorted(
            {name[len(below) :].split("/")[0] for name in self.contents if name.startswith(below)}
        )
        nodes = [self.node(below + name) for name in names]
        return [node for node in nodes if node is not None]


class FakeResults:
    """Searches that find what a test says: files by the text that finds them."""

    def __init__(self) -> None:
        self.found: dict[str, list[RemoteFile]] = {}
        self.asked: list[str] = []
        self.is_full = False
        self._kept: set[str] = set()

    def kept(self) -> Sequence[str]:
        return sorted(self._kept)

    def keep(self, text: str) -> None:
        parse_query(text)
        if self.is_full:
            raise OSError(errno.ENOSPC, "full")
        self._kept.add(text)

    def drop(self, text: str) -> None:
        self._kept.remove(text)

    def known(self, path: str) -> Node | Knowledge:
        text, _, name = path.partition("/")
        try:
            parse_query(text)
        except QueryError:
            return Knowledge.ABSENT
        if not name:
            return RemoteDirectory(text, MTIME_NS, ())
        if text not in self.asked:
            return Knowledge.UNKNOWN
        return next((f for f in self.found[text] if f.path == path), Knowledge.ABSENT)

    def partial(self, path: str) -> str | None:
        return None

    def hold(self, file: RemoteFile) -> Callable[[], None]:
        return lambda: None

    async def find(self, path: str) -> Node | None:
        await self.list(path.partition("/")[0])
        node = self.known(path)
        return None if isinstance(node, Knowledge) else node

    def settled(self, nodes: Sequence[Node]) -> Sequence[Node]:
        return [node for node in nodes if node.path not in getattr(self, "hidden", ())]

    def known_children(self, path: str) -> Sequence[Node] | Knowledge:
        return self.found.get(path, ()) if path in self.asked else Knowledge.UNKNOWN

    async def list(self, path: str) -> Sequence[Node]:
        await trio.lowlevel.checkpoint()
        self.asked.append(path)
        return self.found.setdefault(path, [])


class _Waiting:
    """Counts readers that wait, from whatever thread looks. The kernel asks twice for some."""

    _lock = threading.Lock()

    def __init__(self, network: FakeNetwork, reader: object) -> None:
        self._network = network
        self._reader = reader

    def __enter__(self) -> None:
        with self._lock:
            self._network.waiting_calls[self._reader] += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._network.waiting_calls[self._reader] -= 1
            self._network.waiting_calls = +self._network.waiting_calls
