"""The verbs about links to files: make one, and find the file of one."""

from __future__ import annotations

import contextlib

from p2pfs.control.asked import Args, text_of
from p2pfs.control.finding import find_file, in_turn, target_of
from p2pfs.control.needed import Record, Servent
from p2pfs.control.paths import Id, SubtreeName, TreePath, received_target
from p2pfs.errors import NotFoundError, UsageError
from p2pfs.filelinks import FileLink, parse_file_link
from p2pfs.namespace import without_suffix
from p2pfs.protocol import FileId, name_of


async def link(servent: Servent, args: Args, _report: object) -> object:
    """Return the link to a file, be it of others or shared here."""
    target, typed = received_target(text_of(args, "path")), str(args.get("typed"))
    file_id = FileId(bytes.fromhex(target.digits)) if isinstance(target, Id) else None
    own = servent.library.find_id(file_id) if file_id is not None else None
    if own is not None:
        target = TreePath(SubtreeName.SHARED, own.local_path)
    if isinstance(target, TreePath) and target.subtree is SubtreeName.SHARED:
        return _link_to_own(servent, target.path, typed)
    try:
        file = await find_file(servent, *target_of(args))
    except NotFoundError:
        if isinstance(target, TreePath) and target.subtree is SubtreeName.NETWORK:
            # Our own files are not below network/, and `open` prints them as shared/PATH.
            for path in (target.path, target.path.removeprefix(f"{SubtreeName.SHARED}/")):
                with contextlib.suppress(NotFoundError):
                    return _link_to_own(servent, path, typed)
        raise
    name = without_suffix(file.path, file.file_id).rpartition("/")[2]
    text = servent.file_links.to_others(file.file_id, name, file.size, file.sources)
    return _row(text, file.file_id, file.size)


def _link_to_own(servent: Servent, path: str, typed: str) -> Record:
    state = servent.library.file_state(path)
    file_id = state.file_id
    own = None if file_id is None else servent.library.find_id(file_id)
    if file_id is None or own is None:
        raise NotFoundError(f"{typed} is not published now: it is {state.state}")
    servent.file_links.pass_on(file_id)
    text = servent.file_links.to_own(file_id, name_of(path), own.size)
    return _row(text, file_id, own.size)


def _row(text: str, file_id: FileId, size: int) -> Record:
    return {"link": text, "id": file_id.hex(), "size": size}


async def open_link(servent: Servent, args: Args, _report: object) -> object:
    """Return the place of a link's file in the tree of this servent."""
    try:
        meant = parse_file_link(text_of(args, "link"))
    except ValueError as error:
        raise UsageError(str(error)) from error
    own = servent.library.find_id(FileId(bytes.fromhex(meant.digits)))
    if own is not None:
        return _place(servent, f"{SubtreeName.SHARED}/{own.local_path}", meant.digits, own.size)
    file = await in_turn(lambda: servent.open_link(meant))
    if file is None:
        raise NotFoundError(_nobody_has(servent, meant))
    return _place(servent, f"{SubtreeName.NETWORK}/{file.path}", meant.digits, file.size)


def _nobody_has(servent: Servent, meant: FileLink) -> str:
    name = meant.name or meant.digits
    hint = ", nor whom the link names" if meant.holders else ""
    is_asked = servent.report.status().get("directory_nodes") is not None
    beyond = ", and beyond it nobody is known to" if is_asked else ""
    return f"{name}: nobody within the horizon has it{beyond}{hint}"


def _place(servent: Servent, path: str, digits: str, size: int) -> Record:
    mountpoint = servent.config.mountpoint
    place = None if mountpoint is None else f"{mountpoint}/{path}"
    return {"path": path, "file": place, "id": digits, "size": size}
