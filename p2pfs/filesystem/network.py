"""`network/`: what all servents within the horizon share, read-only.

The same tree shows `search/` and `peers/`: only the view is another.

Names, sizes and times come from memory; a name that memory does not hold costs one bounded search,
if it is one that can be published. An open file keeps the content that it was opened with.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from msgspec.structs import replace

from p2pfs.cache import Located
from p2pfs.errors import TransferError
from p2pfs.filesystem.absences import Absences
from p2pfs.filesystem.answers import (
    Later,
    NowOrLater,
    Stretch,
    as_os_error,
    not_at_all,
    os_error,
)
from p2pfs.filesystem.attributes import (
    DIRECTORY_MODE,
    FILE_MODE,
    OWN_PREFIX,
    Attributes,
    Listed,
    virtual,
    virtual_inode,
)
from p2pfs.filesystem.justlisted import JustListed
from p2pfs.filesystem.siblings import Siblings
from p2pfs.filesystem.subtree import OpenFile, ReadOnlyFile
from p2pfs.filesystem.versions import KernelCaches
from p2pfs.filesystem.xattrs import FileLinks
from p2pfs.journal import printable
from p2pfs.namespace import Knowledge, Node, RemoteDirectory, RemoteFile, View, without_suffix
from p2pfs.protocol import FileId, name_of, names

LOOKED_S: Final = 0.05
"""How long the node that was looked up at a path is the one that is opened there, unless it was
released since. The kernel looks up each name that a program opens, and believes that for longer."""

NETWORK: Final = "network"


T = TypeVar("T")


class Reader(Protocol):
    """One content, opened. It keeps its file id until it is closed."""

    def locate_nowait(self, offset: int, length: int) -> Located | bytes | None:
        """Return a descriptor if all these bytes are here and verified, else None. Any thread.

        They lie in it at the same offset, and stay there until `close`.
        """
        ...

    async def locate(self, offset: int, length: int, *, ahead: bool = True) -> Located | bytes:
        """Return a descriptor likewise, fetching missing blocks; raises `TransferError`.

        Unless `ahead` is false, the blocks that will probably be read next are fetched too.
        """
        ...

    def close(self) -> None:
        """Let go of the content. Any thread; called once."""
        ...


class Contents(Protocol):
    """The bytes of others' files. Calls that are not async read memory, on any thread."""

    def open(self, file: RemoteFile) -> Reader:
        """Open a content; needs no network. Raises CacheFullError or TooManyFilesError."""
        ...

    def fetch_ahead(self, files: Sequence[RemoteFile]) -> None:
        """Fetch small contents that a program will probably open next."""
        ...

    def last_error(self, path: str) -> str | None:
        """Return why the last read of a path failed, if it did."""
        ...

    def cached_percent(self, file_id: FileId) -> int:
        """Return how much of a content is in the cache."""
        ...


class NetworkFile(ReadOnlyFile):
    """A file in `network/` that somebody has open."""

    def __init__(
        self, tree: NetworkTree, file: RemoteFile, reader: Reader, release: Callable[[], None]
    ) -> None:
        self._tree = tree
        self._file = file
        self._reader = reader
        self._release = release
        self.path = file.path

    def getattr(self) -> Attributes:
        """Return the attributes of the content that was opened."""
        return self._tree.attributes(self._file)

    def read(self, size: int, offset: int) -> NowOrLater[bytes | Stretch]:
        """Return where the next `size` bytes lie, fewer only at the end of the file."""
        length = min(size, self._file.size - offset)
        if length <= 0:
            return b""
        try:
            found = self._reader.locate_nowait(offset, length)
        except TransferError as error:
            raise as_os_error(error, self.path) from error
        if found is None:
            return Later(lambda: self._fetch(offset, length))
        return _answered(found, offset, length)

    async def _fetch(self, offset: int, length: int) -> bytes | Stretch:
        try:
            return _answered(await self._reader.locate(offset, length), offset, length)
        except TransferError as error:
            raise as_os_error(error, self.path) from error

    def release(self) -> None:
        """Let go of the content, and of the path that showed it."""
        self._release()
        self._tree.unpin(self.path)
        self._reader.close()


class NetworkTree:
    """Others' files, as the sub-tree `network/`, or `peers/` or `search/`."""

    def __init__(
        self,
        view: View,
        contents: Contents,
        label: str = NETWORK,
        *,
        now_ns: Callable[[], int] = time.time_ns,
        clock: Callable[[], float] = time.monotonic,
        links: FileLinks | None = None,
    ) -> None:
        self._view = view
        self._contents = contents
        self._label = label
        self._clock = clock
        self._links = links
        self._root = RemoteDirectory("", now_ns(), ())
        self._kernel = KernelCaches(clock)
        self._absences = Absences()
        self._siblings = Siblings(view.known_children, self._inode)
        self._just_listed = JustListed(view.settled, clock)
        self._looked: tuple[Node, float] = self._root, -math.inf
        """What was looked up last, and when."""

    def getattr(self, path: str) -> NowOrLater[Attributes]:
        """Return what `stat` shows, from memory or after one search; ENOENT."""
        return self._with_node(path, self._shown)

    def beside_name(self, path: str) -> Attributes | None:
        """Return what `stat` shows, to be believed for as long as the name; None if not known."""
        node = self._just_listed.find(path) or self._view.known(path)
        if isinstance(node, Knowledge):
            return None
        return self.attributes(
            self._kernel.beside_name(node) if isinstance(node, RemoteFile) else node
        )

    def readdir(self, path: str) -> NowOrLater[list[Listed]]:
        """Return the names in a directory, from memory unless it was never listed."""
        children = self._view.known_children(path)

        def doubted_s(nodes: Sequence[Node]) -> float:
            return self._absences.left_s(path, (name_of(node.path) for node in nodes))

        if isinstance(children, Knowledge):
            return Later(lambda: self._list(path), self._all_listed, doubted_s)
        self._siblings.listed(path, children)
        if doubted_s(children) > 0:
            return Later(_already(children), self._all_listed, doubted_s)
        return self._all_listed(children)

    def open(self, path: str, flags: int) -> NowOrLater[OpenFile]:  # noqa: ARG002 - reading is all there is
        """Open the file at a path, and show no other version there until it is released."""
        node, looked_at = self._looked
        if node.path == path and self._clock() < looked_at + LOOKED_S:
            return self._opened(node)
        return self._with_node(path, self._opened, self._kernel.misled_s)

    def readlink(self, path: str) -> str:
        """Refuse: links are never published."""
        raise os_error(errno.EINVAL, path)

    def getxattr(self, path: str, name: str) -> NowOrLater[bytes]:
        """Return one of the attributes of p2pfs; others do not exist: ENODATA."""
        if not name.startswith(OWN_PREFIX):
            raise os_error(errno.ENODATA, path)

        def value_of(node: Node) -> bytes:
            value = self._own_attribute(node, name.removeprefix(OWN_PREFIX))
            if value is None:
                raise os_error(errno.ENODATA, path)
            return value.encode()

        return self._with_node(path, value_of)

    def listxattr(self, path: str) -> NowOrLater[list[str]]:
        """Return no names: `rsync -X`, `tar --xattrs` and `mv` would carry ours along."""
        return self._with_node(path, lambda _: [])

    def attributes(self, node: Node) -> Attributes:
        """Return the attributes of a node."""
        if isinstance(node, RemoteDirectory):
            time_ns = node.mtime_ns or self._root.mtime_ns  # no servent has announced one
            return virtual(DIRECTORY_MODE, self._inode(node), time_ns=time_ns)
        return virtual(FILE_MODE, self._inode(node), size=node.size, time_ns=node.mtime_ns)

    def unpin(self, path: str) -> None:
        """Let a path show any version again. For `NetworkFile.release`."""
        self._kernel.released(path)
        if self._looked[0].path == path:
            self._looked = self._root, -math.inf

    def _with_node(
        self,
        path: str,
        use: Callable[[Node], T],
        held_s: Callable[[Node], float] = not_at_all,
    ) -> NowOrLater[T]:
        """Answer with `use` of the node at `path`: at once if it is known and not held back."""
        if not path:
            return use(self._root)
        node = self._known(path)
        if not isinstance(node, Knowledge):
            return Later(_already(node), use, held_s) if held_s(node) > 0 else use(node)
        if node is Knowledge.ABSENT or names.check_path(path) is not None:
            raise self._absent(path)
        return Later(lambda: self._search(path), use, held_s)

    def _known(self, path: str) -> Node | Knowledge:
        return self._kernel.pinned(path) or self._view.known(path)

    async def _search(self, path: str) -> Node:
        try:
            node = await self._view.find(path)
        except TransferError as error:
            raise as_os_error(error, path) from error
        if node is None:
            raise self._absent(path)
        return node

    def _absent(self, path: str) -> OSError:
        """Return ENOENT for a path, having noted that the kernel will believe that for a while."""
        self._absences.told(path)
        return os_error(errno.ENOENT, path)

    async def _list(self, path: str) -> Sequence[Node]:
        try:
            nodes = await self._view.list(path)
        except TransferError as error:
            raise as_os_error(error, path) from error
        self._siblings.listed(path, nodes)
        return nodes

    def _shown(self, node: Node) -> Attributes:
        if isinstance(node, RemoteFile):
            self._kernel.shown(node)
            self._looked = node, self._clock()
        return self.attributes(node)

    def _opened(self, node: Node) -> OpenFile:
        if isinstance(node, RemoteDirectory):
            raise os_error(errno.EISDIR, node.path)
        file, keep_cache, direct_io = self._kernel.opened(node)
        release = self._view.hold(file)
        try:
            opened = NetworkFile(self, file, self._contents.open(self._told(file)), release)
        except BaseException as error:
            release()
            self._kernel.released(node.path)
            if isinstance(error, TransferError):
                raise as_os_error(error, node.path) from error
            raise
        opened.keep_cache, opened.direct_io = keep_cache, direct_io
        if ahead := self._siblings.opened(file):
            self._contents.fetch_ahead([self._told(sibling) for sibling in ahead])
        return opened

    def _own_attribute(self, node: Node, name: str) -> str | None:
        """Return one of the attributes of p2pfs as text; None if there is no such."""
        if isinstance(node, RemoteDirectory):
            return self._view.partial(node.path) if name == "partial" else None
        match name:
            case "id":
                return node.file_id.hex()
            case "sources":
                return str(len(node.sources))
            case "peers":
                return ", ".join(printable(source.name) for source in node.sources)
            case "cached":
                return str(self._contents.cached_percent(node.file_id))
            case "error":
                return self._contents.last_error(self._told_as(node.path))
            case "link":
                return self._link_to(node)
            case _:
                return None

    def _link_to(self, file: RemoteFile) -> str | None:
        if self._links is None:
            return None
        name = without_suffix(file.path, file.file_id).rpartition("/")[2]
        return self._links.to_others(file.file_id, name, file.size, file.sources)

    def _told(self, file: RemoteFile) -> RemoteFile:
        return file if self._label == NETWORK else replace(file, path=self._told_as(file.path))

    def _told_as(self, path: str) -> str:
        """Return a path as people read it: with the sub-tree in front unless it is `network/`."""
        return path if self._label == NETWORK else f"{self._label}/{path}"

    def _inode(self, node: Node) -> int:
        if isinstance(node, RemoteDirectory):
            return virtual_inode(f"{self._label}/{node.path}")
        # Without the suffix of a version, which comes and goes.
        published = without_suffix(node.path, node.file_id)
        return virtual_inode(f"{self._label}/{published}", node.file_id)

    def _all_listed(self, nodes: Sequence[Node]) -> list[Listed]:
        self._just_listed.put(nodes)
        inode = self._inode
        return [
            Listed(
                name_of(node.path),
                FILE_MODE if isinstance(node, RemoteFile) else DIRECTORY_MODE,
                inode(node),
            )
            for node in nodes
        ]


def _already(value: T) -> Callable[[], Awaitable[T]]:
    """Return what fetches a value that is there."""

    async def fetch() -> T:
        return value

    return fetch


def _answered(found: Located | bytes, offset: int, length: int) -> bytes | Stretch:
    """Return the answer to a read; a short one would be silent truncation, so it is a bug."""
    if isinstance(found, int):
        return Stretch(found, offset, length)
    if len(found) != length:
        raise AssertionError(f"a reader gave {len(found)} bytes for {length}")
    return found
