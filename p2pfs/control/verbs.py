"""What each verb does, given a running servent.

Results are plain JSON; the keys of `status`, `peers`, `transfers` and `search` are those of
DESIGN 2.3 and come from the servent as they are. Paths in the tree come parsed: see `paths`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import trio

from p2pfs.config import (
    Config,
    Endpoint,
    SharedDirectory,
    parse_duration,
    parse_join,
    shared_directory,
)
from p2pfs.control import finding
from p2pfs.control.files import CHUNK_BYTES, Copying, Incoming, Removal
from p2pfs.control.finding import find_file, find_node, in_turn, list_directory, network_paths
from p2pfs.control.paths import Id, Subtree, TreePath, received_target
from p2pfs.errors import NotFoundError, UsageError
from p2pfs.invitations import Invitation
from p2pfs.journal import Journal
from p2pfs.library import why_private
from p2pfs.namespace import Node, QueryError, RemoteDirectory, RemoteFile, parse_query
from p2pfs.protocol import FileId, Manifest, block_bytes_for
from p2pfs.roots import Root, Roots
from p2pfs.state import Leftovers
from p2pfs.threads import lane

Record = Mapping[str, object]
"""A JSON object."""

Args = Mapping[str, object]
"""What a request said, and under `HANDED` a tuple of the descriptors that came with it."""

Report = Callable[[object], Awaitable[None]]
"""Sends one progress line."""

VERB_THREADS: Final = 8
"""Verbs that copy at once, perhaps out of our own mount or into it; the others wait."""

HANDED: Final = "descriptors"

PROGRESS_EVERY_S: Final = 0.2
"""Fast enough for the eye."""

ROWS: Final = 500
"""Rows of a listing in one line: it takes a millisecond to write them."""

PUBLISH_WAIT_S: Final = 60.0
"""How long `publish` waits for the hashing of one file before it reports it as under way."""


class FileState(Protocol):
    """How a file in `shared/` stands."""

    @property
    def state(self) -> str:
        """`hashing`, `published`, `paused` or `private`."""


class Share(finding.Share, Protocol):
    """What the verbs need of the library."""

    def touched(self, path: str) -> None:
        """Look again at what is at this path."""

    def file_state(self, path: str) -> FileState:
        """Tell how a file stands."""

    @property
    def version(self) -> int:
        """Changes with every change."""

    async def wait_changed(self, version: int) -> int:
        """Wait until the version is another one."""

    async def share(self, shared: SharedDirectory) -> Root:
        """Share a directory where it lies."""

    async def unshare(self, name: str) -> Root:
        """Share one no more."""


class Reader(Protocol):
    """An open remote file."""

    @property
    def manifest(self) -> Manifest | None:
        """What its blocks must be; known once anything was read."""

    async def read(self, offset: int, length: int) -> bytes:
        """Return exactly the bytes asked for, or raise a TransferError."""

    def close(self) -> None:
        """Let go of the file."""


class Pins(Protocol):
    """What the verbs need of the pinned files."""

    async def add(self, *files: RemoteFile) -> None:
        """Pin files, all or none."""

    async def remove(self, *paths: str) -> Sequence[str]:
        """Unpin what is at or below these paths; return where that was, or NotFoundError."""

    async def remove_content(self, file_id: FileId) -> Sequence[str]:
        """Unpin a content wherever it is pinned, likewise."""


class Facts(Protocol):
    """What a servent tells, as JSON objects."""

    def status(self) -> Record:
        """Describe the servent."""

    def peers(self) -> Sequence[Record]:
        """Describe the neighbours."""

    def transfers(self) -> Sequence[Record]:
        """Describe the downloads and the uploads."""

    async def shared_directories(self) -> Sequence[Record]:
        """Describe what is shared where it lies."""

    async def cached(self) -> Record:
        """Describe the cache and what is in it."""

    async def search(self, words: str) -> Record:
        """Search the network for files; see `p2pfs.namespace.query` for what may be asked."""


class Contents(Protocol):
    """What is in the files of others."""

    def open(self, file: RemoteFile) -> Reader:
        """Pin a file for reading."""


class Servent(finding.Servent, Protocol):
    """What the verbs need of the servent."""

    @property
    def config(self) -> Config:
        """Its settings."""

    @property
    def library(self) -> Share:
        """Its share."""

    @property
    def roots(self) -> Roots:
        """Which directories lie behind `shared/`."""

    @property
    def leftovers(self) -> Leftovers:
        """Where what is to be removed after a crash is noted."""

    @property
    def pins(self) -> Pins:
        """What the user keeps."""

    @property
    def journal(self) -> Journal:
        """What happened."""

    @property
    def report(self) -> Facts:
        """What it tells of itself, and what it found."""

    @property
    def swarms(self) -> Contents:
        """What is in the files of others."""

    async def clear_cache(self) -> int:
        """Remove what is neither open nor pinned; return the bytes that gave."""

    async def join(self, through: Endpoint | Invitation) -> Record:
        """Join through a servent and describe it; LinkError and UsageError say why not."""

    def invite(self, for_s: float) -> Record:
        """Make an invitation and describe it; UsageError says why not."""

    async def leave(self) -> None:
        """Say BYE to all neighbours, and look for no new ones until the next join."""

    async def pause(self) -> None:
        """Offer nothing until resumed."""

    async def resume(self) -> None:
        """Offer the share again."""


run_in_thread: Final = lane(VERB_THREADS)

Verb = Callable[[Servent, Args, Report], Awaitable[object]]


async def _status(servent: Servent, _args: Args, _report: Report) -> object:
    return servent.report.status()


async def _peers(servent: Servent, _args: Args, _report: Report) -> object:
    return servent.report.peers()


async def _transfers(servent: Servent, _args: Args, _report: Report) -> object:
    return servent.report.transfers()


async def _events(servent: Servent, _args: Args, _report: Report) -> object:
    return [
        {"time": event.time, "severity": event.severity, "text": event.text, "path": event.path}
        for event in servent.journal.events()
    ]


async def _cache(servent: Servent, _args: Args, _report: Report) -> object:
    return await servent.report.cached()


async def _clear_cache(servent: Servent, _args: Args, _report: Report) -> object:
    return {"freed_bytes": await servent.clear_cache()}


async def _pin(servent: Servent, args: Args, _report: Report) -> object:
    """Pin all files, or none if one of them is not there."""
    paths = _texts(args, "paths")
    typed = _texts(args, "typed") if "typed" in args else paths
    files = [
        await find_file(servent, *_target({"path": path, "typed": text}))
        for path, text in zip(paths, typed, strict=False)
    ]
    await servent.pins.add(*files)
    return [{"path": one.path, "id": one.file_id.hex(), "size": one.size} for one in files]


async def _unpin(servent: Servent, args: Args, _report: Report) -> object:
    """Unpin a file, or all below a directory."""
    target, typed = _target(args)
    try:
        if isinstance(target, Id):
            removed = await servent.pins.remove_content(FileId(bytes.fromhex(target.digits)))
        else:
            removed = await servent.pins.remove(*await network_paths(servent, target))
    except NotFoundError as error:
        raise NotFoundError(f"{typed} is not pinned") from error
    return [{"path": path} for path in removed]


async def _look(servent: Servent, args: Args, _report: Report) -> object:
    """Tell what is at a path."""
    return _row(await find_node(servent, *_target(args)))


async def _list(servent: Servent, args: Args, report: Report) -> object:
    """Send what is in a directory, some rows at a time."""
    nodes, partial = await list_directory(servent, *_target(args))
    for start in range(0, len(nodes), ROWS):
        await report({"rows": [_row(node) for node in nodes[start : start + ROWS]]})
    return {"partial": partial}


def _row(node: Node) -> Record:
    name = node.path.rpartition("/")[2]
    if isinstance(node, RemoteDirectory):
        return {"name": name, "is_directory": True}
    file_id = node.file_id.hex()
    return {"name": name, "is_directory": False, "size": node.size, "id": file_id}


def _target(args: Args) -> tuple[TreePath | Id, str]:
    """Return what is wanted, and how the user named it."""
    target = received_target(_text(args, "path"))
    if isinstance(target, Id):
        return target, str(args.get("typed", target.digits))
    if target.subtree is Subtree.SHARED:
        raise UsageError(f"{target} is not a path in the network")
    is_network = target.subtree is Subtree.NETWORK
    typed = args.get("typed", target.path if is_network else str(target))
    return target, str(typed)


async def _search(servent: Servent, args: Args, _report: Report) -> object:
    words = _text(args, "words")
    try:
        parse_query(words)
    except QueryError as error:
        raise UsageError(str(error)) from error
    return await in_turn(lambda: servent.report.search(words))


async def _join(servent: Servent, args: Args, _report: Report) -> object:
    try:
        through = parse_join(_text(args, "address"))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return await servent.join(through)


async def _invite(servent: Servent, args: Args, _report: Report) -> object:
    try:
        for_s = parse_duration(_text(args, "for"))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return servent.invite(for_s)


async def _leave(servent: Servent, _args: Args, _report: Report) -> object:
    await servent.leave()
    return {}


async def _pause(servent: Servent, _args: Args, _report: Report) -> object:
    await servent.pause()
    return {}


async def _resume(servent: Servent, _args: Args, _report: Report) -> object:
    await servent.resume()
    return {}


async def _get(servent: Servent, args: Args, report: Report) -> object:
    """Write a file into the descriptors that the client has opened; see `opening`."""
    file = await find_file(servent, *_target(args))
    with contextlib.closing(servent.swarms.open(file)) as reader:
        if args.get("stream"):
            (sink,) = _handed(args, 1)
            await _stream(reader, file.size, sink, report)
            is_there_already = False
        else:
            incoming = await run_in_thread(Incoming, _handed(args, 2))
            is_there_already = await _receive(reader, file, incoming, args, report)
    return {"path": file.path, "size": file.size, "is_there_already": is_there_already}


async def _receive(
    reader: Reader, file: RemoteFile, incoming: Incoming, args: Args, report: Report
) -> bool:
    """Complete the partial file, and return whether there was nothing to do."""
    if incoming.has_earlier:
        if await _is_beginning(reader, file.size, incoming):
            if incoming.earlier_bytes == file.size:
                return True
        elif not args.get("replace"):
            destination = args.get("destination")
            raise UsageError(f"{destination} is another file; --force replaces it")
    await _download(reader, file.size, incoming, report)
    await run_in_thread(incoming.finish, file.size)
    return False


async def _is_beginning(reader: Reader, size: int, incoming: Incoming) -> bool:
    """Return whether what is at the destination is the beginning of the file, or all of it."""
    if not incoming.earlier_bytes:
        return True
    if incoming.earlier_bytes > size:
        return False
    manifest = await _manifest_of(reader, size)
    if manifest is None or not await run_in_thread(incoming.earlier_is_right, manifest):
        return False
    offset, tail = await run_in_thread(incoming.earlier_tail, size)
    return not tail or await reader.read(offset, len(tail)) == tail


async def _stream(reader: Reader, size: int, sink: int, report: Report) -> None:
    """Write a file into a pipe, from the beginning to the end."""
    progress = Progress(size, report)
    async with trio.lowlevel.FdStream(os.dup(sink)) as pipe:
        for offset in range(0, size, CHUNK_BYTES):
            data = await reader.read(offset, min(CHUNK_BYTES, size - offset))
            try:
                await pipe.send_all(data)
            except trio.BrokenResourceError as error:
                raise UsageError("nobody reads what was got") from error
            await progress.reached(offset + len(data))


async def _download(reader: Reader, size: int, incoming: Incoming, report: Report) -> None:
    """Fetch a file, but for what is there already and is right."""
    progress = Progress(size, report)
    stretch_bytes = max(CHUNK_BYTES, block_bytes_for(size))
    manifest = await _manifest_of(reader, size) if incoming.has_leftovers else None
    for offset in range(0, size, stretch_bytes):
        wanted = [(offset, min(stretch_bytes, size - offset))]
        if manifest is not None:
            wanted = await run_in_thread(incoming.missing, manifest, *wanted[0])
        for start, length in wanted:
            data = await reader.read(start, length)
            await run_in_thread(incoming.write, start, data)
        await progress.reached(min(offset + stretch_bytes, size))


async def _manifest_of(reader: Reader, size: int) -> Manifest | None:
    if size and reader.manifest is None:
        await reader.read(0, 1)  # the first block comes with it
    return reader.manifest


async def _publish(servent: Servent, args: Args, report: Report) -> object:
    """Copy a file into the share as `cp` does: what has the same name there is replaced."""
    target, mode = received_target(_text(args, "path")), args.get("mode")
    if not isinstance(target, TreePath) or target.subtree is not Subtree.SHARED:
        raise UsageError(f"{target} is not below shared/")
    if not isinstance(mode, int):
        raise UsageError("mode: a number is needed")
    why = why_private(target.path)
    if why is not None:
        raise UsageError(f"{target.path} is not published: {why or 'its name begins with a dot'}")
    (source,) = _handed(args, 1)
    await _copy_in(source, servent.roots, target.path, mode, servent.leftovers, report)
    servent.library.touched(target.path)
    return {"path": target.path, "state": await _settled(servent.library, target.path)}


async def _copy_in(
    source: int, roots: Roots, path: str, mode: int, leftovers: Leftovers, report: Report
) -> None:
    copying = await run_in_thread(Copying, source, roots, path, mode, leftovers)
    try:
        progress = Progress(copying.size, report)
        is_more = True
        while is_more:
            if copying.is_pipe:
                await trio.lowlevel.wait_readable(source)
            is_more = await run_in_thread(copying.step)
            await progress.reached(copying.done_bytes)
        await run_in_thread(copying.finish)
    finally:
        await _surely(copying.discard)


async def _surely(discard: Callable[[], None]) -> None:
    with trio.CancelScope(shield=True):
        await run_in_thread(discard)


async def _settled(library: Share, path: str) -> str:
    """Wait until the library has looked at a new file, and return its state."""
    with trio.move_on_after(PUBLISH_WAIT_S):
        version = library.version
        while library.file_state(path).state == "hashing":
            version = await library.wait_changed(version)
    return library.file_state(path).state


async def _unpublish(servent: Servent, args: Args, _report: Report) -> object:
    """Remove files and directories as `rm -r` does; nothing is removed if one is not there."""
    targets = [received_target(text) for text in _texts(args, "paths")]
    removals = [await run_in_thread(Removal, servent.roots, target) for target in targets]
    for removal in removals:
        try:
            while await run_in_thread(removal.step):
                pass
        finally:
            servent.library.touched(removal.path)
    return [{"path": removal.path, "files": removal.files} for removal in removals]


async def _share(servent: Servent, args: Args, _report: Report) -> object:
    """Share a directory where it lies."""
    name = args.get("name")
    try:
        shared = shared_directory(
            Path(_text(args, "directory")),
            None if name is None else _text(args, "name"),
            is_read_only=args.get("read_only") is True,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    why = why_private(shared.name)
    if why:
        raise UsageError(f"{shared.name} would not be published: {why}")
    return _shared(await servent.library.share(shared))


async def _unshare(servent: Servent, args: Args, _report: Report) -> object:
    """Share a directory no more."""
    return _shared(await servent.library.unshare(_text(args, "name")))


def _shared(root: Root) -> Record:
    return {"name": root.name, "directory": root.shared.directory}


async def _shares(servent: Servent, _args: Args, _report: Report) -> object:
    """Tell what is shared where it lies."""
    return await servent.report.shared_directories()


VERBS: Final[Mapping[str, Verb]] = {
    "status": _status,
    "peers": _peers,
    "transfers": _transfers,
    "events": _events,
    "search": _search,
    "cache": _cache,
    "clear-cache": _clear_cache,
    "look": _look,
    "list": _list,
    "pin": _pin,
    "unpin": _unpin,
    "get": _get,
    "publish": _publish,
    "unpublish": _unpublish,
    "share": _share,
    "unshare": _unshare,
    "shares": _shares,
    "join": _join,
    "invite": _invite,
    "leave": _leave,
    "pause": _pause,
    "resume": _resume,
}


def _handed(args: Args, most: int) -> Sequence[int]:
    """Return the descriptors that the client has handed over: one at least."""
    descriptors = args.get(HANDED)
    if not isinstance(descriptors, tuple) or not 0 < len(descriptors) <= most:
        raise UsageError("this verb is handed open files; the command does that")
    return descriptors


def _text(args: Args, name: str) -> str:
    """Return an argument that this machine could take for a file name, in any bytes."""
    value = args.get(name)
    if not isinstance(value, str) or not value or not _is_encodable(value):
        raise UsageError(f"{name}: a text is needed")
    return value


def _is_encodable(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _texts(args: Args, name: str) -> list[str]:
    values = args.get(name)
    if not isinstance(values, list) or not values:
        raise UsageError(f"{name}: at least one is needed")
    return [_text({name: value}, name) for value in values]


class Progress:
    """Reports now and then, and always the end."""

    def __init__(self, size: int, report: Report) -> None:
        self._size = size
        self._report = report
        self._next_s = trio.current_time()

    async def reached(self, done: int) -> None:
        """Note how many bytes are done."""
        now = trio.current_time()
        if now >= self._next_s or done >= self._size:
            self._next_s = now + PROGRESS_EVERY_S
            await self._report({"done_bytes": done, "size": self._size})
