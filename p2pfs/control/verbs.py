"""The table of verbs, and the handlers of the short ones.

Results are plain JSON, with the keys that commands.md lists under "JSON"; those of `status`,
`peers`, `transfers` and `search` come from the servent as they are. Paths in the tree come
parsed: see `paths`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Final

from p2pfs.config import parse_duration, parse_join, shared_directory
from p2pfs.control.asked import HANDED, Args, text_of, texts_of
from p2pfs.control.files import Removal
from p2pfs.control.finding import (
    find_file,
    in_turn,
    list_directory,
    locate,
    meanings,
    network_paths,
    target_of,
)
from p2pfs.control.linking import link, open_link
from p2pfs.control.moving import SendProgress, get, publish, run_in_thread
from p2pfs.control.needed import Record, Servent
from p2pfs.control.paths import Id, TreePath, received_target
from p2pfs.errors import NotFoundError, UsageError
from p2pfs.library import why_private
from p2pfs.namespace import Node, QueryError, RemoteDirectory, parse_query
from p2pfs.protocol import FileId, name_of
from p2pfs.roots import Root

__all__ = ["HANDED", "ROWS", "VERBS", "Args", "Servent"]

ROWS: Final = 500
"""Rows of a listing in one line of JSON, which takes a millisecond to write."""

Verb = Callable[[Servent, Args, SendProgress], Awaitable[object]]


async def _status(servent: Servent, _args: Args, _report: SendProgress) -> object:
    return servent.report.status()


async def _peers(servent: Servent, _args: Args, _report: SendProgress) -> object:
    return servent.report.peers()


async def _transfers(servent: Servent, _args: Args, _report: SendProgress) -> object:
    return servent.report.transfers()


async def _events(servent: Servent, _args: Args, _report: SendProgress) -> object:
    return [
        {"time": event.time, "severity": event.severity, "text": event.text, "path": event.path}
        for event in servent.journal.events()
    ]


async def _cache(servent: Servent, _args: Args, _report: SendProgress) -> object:
    return await servent.report.cached()


async def _clear_cache(servent: Servent, _args: Args, _report: SendProgress) -> object:
    return {"freed_bytes": await servent.clear_cache()}


async def _pin(servent: Servent, args: Args, _report: SendProgress) -> object:
    """Pin all files, or none if one of them is not there."""
    paths = texts_of(args, "paths")
    typed = texts_of(args, "typed") if "typed" in args else paths
    files = [
        await find_file(servent, *target_of({"path": path, "typed": text}))
        for path, text in zip(paths, typed, strict=False)
    ]
    await servent.pins.add(*files)
    return [{"path": one.path, "id": one.file_id.hex(), "size": one.size} for one in files]


async def _unpin(servent: Servent, args: Args, _report: SendProgress) -> object:
    """Unpin a file, or all below a directory."""
    target, typed = target_of(args)
    try:
        if isinstance(target, Id):
            removed = await servent.pins.remove_content(FileId(bytes.fromhex(target.digits)))
        else:
            removed = await _unpin_path(servent, target)
    except NotFoundError as error:
        raise NotFoundError(f"{typed} is not pinned") from error
    return [{"path": path} for path in removed]


async def _unpin_path(servent: Servent, target: TreePath) -> Sequence[str]:
    """Unpin what a path means, as `_pin` would find it: the first meaning that is pinned."""
    for place in meanings(target):
        if isinstance(place, TreePath):
            with contextlib.suppress(NotFoundError):
                return await servent.pins.remove(*await network_paths(servent, place))
    raise NotFoundError("no meaning of it is pinned")


async def _look(servent: Servent, args: Args, _report: SendProgress) -> object:
    """Describe the file or directory at a path; `place` is the path that it is found at."""
    place, node = await locate(servent, *target_of(args))
    return {**_row(node), "place": str(place)}


async def _list(servent: Servent, args: Args, report: SendProgress) -> object:
    """Send the entries of a directory, some rows at a time."""
    nodes, partial = await list_directory(servent, *target_of(args))
    for start in range(0, len(nodes), ROWS):
        await report({"rows": [_row(node) for node in nodes[start : start + ROWS]]})
    return {"partial": partial}


def _row(node: Node) -> Record:
    name = name_of(node.path)
    if isinstance(node, RemoteDirectory):
        return {"name": name, "is_directory": True}
    file_id = node.file_id.hex()
    return {"name": name, "is_directory": False, "size": node.size, "id": file_id}


async def _search(servent: Servent, args: Args, _report: SendProgress) -> object:
    words = text_of(args, "words")
    try:
        parse_query(words)
    except QueryError as error:
        raise UsageError(str(error)) from error
    return await in_turn(lambda: servent.report.search(words))


async def _join(servent: Servent, args: Args, _report: SendProgress) -> object:
    try:
        through = parse_join(text_of(args, "address"))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return await servent.join(through)


async def _invite(servent: Servent, args: Args, _report: SendProgress) -> object:
    try:
        for_s = parse_duration(text_of(args, "for"))
    except ValueError as error:
        raise UsageError(str(error)) from error
    return servent.invite(for_s)


async def _leave(servent: Servent, _args: Args, _report: SendProgress) -> object:
    await servent.leave()
    return {}


async def _pause(servent: Servent, _args: Args, _report: SendProgress) -> object:
    await servent.pause()
    return {}


async def _resume(servent: Servent, _args: Args, _report: SendProgress) -> object:
    await servent.resume()
    return {}


async def _unpublish(servent: Servent, args: Args, _report: SendProgress) -> object:
    """Remove files and directories as `rm -r` does; nothing is removed if one is not there."""
    targets = [received_target(text) for text in texts_of(args, "paths")]
    removals = [await run_in_thread(Removal, servent.roots, target) for target in targets]
    for removal in removals:
        try:
            while await run_in_thread(removal.step):
                pass
        finally:
            servent.library.touched(removal.path, removal.lost)
    return [{"path": removal.path, "files": removal.files} for removal in removals]


async def _share(servent: Servent, args: Args, _report: SendProgress) -> object:
    """Share a directory where it lies."""
    name = args.get("name")
    to = texts_of(args, "to") if args.get("to") else ()
    _refuse_names(servent, to, await servent.settings.groups())
    try:
        shared = await run_in_thread(  # the disk may be slow, and our own mount asks us
            functools.partial(
                shared_directory,
                Path(text_of(args, "directory")),
                None if name is None else text_of(args, "name"),
                is_read_only=args.get("read_only") is True,
                to=to,
            )
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    why = why_private(shared.name)
    if why:
        raise UsageError(f"{shared.name} would not be published: {why}")
    return _shared(servent, await servent.library.share(shared))


def _refuse_names(servent: Servent, to: Sequence[str], groups: Container[str]) -> None:
    """Raise UsageError, with the id, if a neighbour is meant by its name."""
    for one in to:
        ids = [str(peer["id"]) for peer in servent.report.peers() if peer["name"] == one]
        if ids and one not in groups:
            raise UsageError(
                f"{one} is the name of a neighbour, which anybody can take: give its id, "
                + " or ".join(ids)
            )


async def _unshare(servent: Servent, args: Args, _report: SendProgress) -> object:
    """End the sharing of a directory."""
    return _shared(servent, await servent.library.unshare(text_of(args, "name")))


def _shared(servent: Servent, root: Root) -> Record:
    return {
        "name": root.name,
        "directory": root.shared.directory,
        "to": list(root.shared.to),
        "audience": servent.roots.audiences.count_of(root.name),
    }


async def _shares(servent: Servent, _args: Args, _report: SendProgress) -> object:
    """List the directories that are shared where they lie."""
    return await servent.report.shared_directories()


async def _history(servent: Servent, args: Args, _report: SendProgress) -> object:
    """List the latest fetches."""
    last = args.get("last")
    if not isinstance(last, int) or last < 1:
        raise UsageError("last: a number of fetches is needed")
    return await servent.history.rows(last)


async def _clear_history(servent: Servent, _args: Args, _report: SendProgress) -> object:
    """Forget all fetches."""
    return {"forgotten": await servent.history.clear()}


async def _finished(servent: Servent, args: Args, _report: SendProgress) -> object:
    """Note that a long command is done, so that the desktop shows it."""
    servent.journal.done(text_of(args, "text"), text_of(args, "path"))
    return {}


async def _config(servent: Servent, _args: Args, _report: SendProgress) -> object:
    """List each option with its value and its source."""
    return await servent.settings.rows()


async def _set(servent: Servent, args: Args, _report: SendProgress) -> object:
    """Set an option, or take that back if the value is null."""
    text = None if args.get("value") is None else text_of(args, "value")
    return await servent.settings.set(text_of(args, "name"), text)


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
    "get": get,
    "publish": publish,
    "unpublish": _unpublish,
    "share": _share,
    "unshare": _unshare,
    "shares": _shares,
    "link": link,
    "open": open_link,
    "history": _history,
    "clear-history": _clear_history,
    "finished": _finished,
    "join": _join,
    "invite": _invite,
    "leave": _leave,
    "config": _config,
    "set": _set,
    "pause": _pause,
    "resume": _resume,
}
