"""The verbs that move bytes: out of the network into open files, and into the share."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from p2pfs.control.asked import Args, handed, text_of
from p2pfs.control.files import CHUNK_BYTES, Copying, DownloadTarget
from p2pfs.control.finding import find_file, target_of
from p2pfs.control.needed import Reader, Servent, Share
from p2pfs.control.paths import SubtreeName, TreePath, received_target
from p2pfs.errors import UsageError
from p2pfs.library import why_private
from p2pfs.namespace import RemoteFile
from p2pfs.protocol import Manifest, block_bytes_for
from p2pfs.roots import Roots
from p2pfs.state import Leftovers
from p2pfs.threads import lane

SendProgress = Callable[[object], Awaitable[None]]
"""Sends one progress line."""

VERB_THREADS: Final = 8
"""Verbs that may block in threads at once, perhaps in our own mount; others wait."""

PROGRESS_EVERY_S: Final = 0.2
"""The time between two reports of progress: the eye sees no more."""

PUBLISH_WAIT_S: Final = 60.0
"""The longest time that `publish` waits for hashing; then it reports `hashing`."""

run_in_thread: Final = lane(VERB_THREADS)


async def get(servent: Servent, args: Args, report: SendProgress) -> object:
    """Write a file into the descriptors that the client has opened; see `opening`."""
    file = await find_file(servent, *target_of(args))
    servent.history.opened(file.file_id, "p2pfs get", os.getuid())
    with contextlib.closing(servent.swarms.open(file)) as reader:
        if args.get("stream"):
            (sink,) = handed(args, 1)
            await _stream(reader, file.size, sink, report)
            is_there_already = False
        else:
            incoming = await run_in_thread(DownloadTarget, handed(args, 2))
            is_there_already = await _receive(reader, file, incoming, args, report)
    return {"path": file.path, "size": file.size, "is_there_already": is_there_already}


async def _receive(
    reader: Reader, file: RemoteFile, incoming: DownloadTarget, args: Args, report: SendProgress
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


async def _is_beginning(reader: Reader, size: int, incoming: DownloadTarget) -> bool:
    """Return whether the destination holds the beginning of the file, or all of it."""
    if not incoming.earlier_bytes:
        return True
    if incoming.earlier_bytes > size:
        return False
    manifest = await _manifest_of(reader, size)
    if manifest is None or not await run_in_thread(incoming.earlier_is_right, manifest):
        return False
    offset, tail = await run_in_thread(incoming.earlier_tail, size)
    return not tail or await reader.read(offset, len(tail)) == tail


async def _stream(reader: Reader, size: int, sink: int, report: SendProgress) -> None:
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


async def _download(
    reader: Reader, size: int, incoming: DownloadTarget, report: SendProgress
) -> None:
    """Fetch the blocks of a file that are missing or wrong in the partial file."""
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


async def publish(servent: Servent, args: Args, report: SendProgress) -> object:
    """Copy a file into the share as `cp` does: a file of the same name is replaced."""
    target, mode = received_target(text_of(args, "path")), args.get("mode")
    if not isinstance(target, TreePath) or target.subtree is not SubtreeName.SHARED:
        raise UsageError(f"{target} is not below shared/")
    if not isinstance(mode, int):
        raise UsageError("mode: a number is needed")
    why = why_private(target.path)
    if why is not None:
        raise UsageError(f"{target.path} is not published: {why or 'its name begins with a dot'}")
    (source,) = handed(args, 1)
    replaced = await _copy_in(source, servent.roots, target.path, mode, servent.leftovers, report)
    servent.library.touched(target.path, replaced)
    return {"path": target.path, "state": await _settled(servent.library, target.path)}


async def _copy_in(
    source: int, roots: Roots, path: str, mode: int, leftovers: Leftovers, report: SendProgress
) -> os.stat_result | None:
    """Copy a file in; return the state in which the file was that had its name."""
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
        return copying.replaced
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


class Progress:
    """Reports now and then, and always the end."""

    def __init__(self, size: int, report: SendProgress) -> None:
        self._size = size
        self._report = report
        self._next_s = trio.current_time()

    async def reached(self, done: int) -> None:
        """Note how many bytes are done."""
        now = trio.current_time()
        if now >= self._next_s or done >= self._size:
            self._next_s = now + PROGRESS_EVERY_S
            await self._report({"done_bytes": done, "size": self._size})
