"""Parse the paths of the command line; no other module does.

A path is first walked as the kernel would walk it for `cat` or `rm`. Where that ends below the
mountpoint, or below the directory behind `shared/`, the verb means the file or directory there. A
file id means that content, wherever it lies. Every other relative path starts at the sub-tree that
the verb is about: `network/` to read, `shared/` to remove.

The parsed form travels to the servent as one text, whose first label always tells the
sub-tree. So a directory may itself be named `shared` or `network`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Protocol

from p2pfs.errors import NotFoundError, UsageError

MAX_SYMLINKS: Final = 40
"""Symbolic links in one path, as path_resolution(7) has it for Linux."""

_FILE_ID: Final = re.compile(r"[0-9a-f]{64}")
_ID_LABEL: Final = "id"
"""The first label of a file id that travels; no sub-tree has this name."""


class SubtreeName(enum.StrEnum):
    """The sub-trees that hold files of people."""

    SHARED = "shared"
    NETWORK = "network"
    SEARCH = "search"
    PEERS = "peers"


_SUBTREES: Final = {subtree.value: subtree for subtree in SubtreeName}


@dataclass(frozen=True, slots=True)
class TreePath:
    """A place in the tree; `path` starts at the sub-tree, which is the empty path itself."""

    subtree: SubtreeName
    path: str
    must_be_directory: bool = False
    """Whether it was written with a slash at its end, and so cannot mean a file."""

    def __str__(self) -> str:
        """Return the form that travels."""
        return f"{self.subtree}/{self.path}" + ("/" if self.must_be_directory else "")


@dataclass(frozen=True, slots=True)
class Id:
    """A content, by its file id in 64 hexadecimal digits."""

    digits: str

    def __str__(self) -> str:
        """Return the form that travels."""
        return f"{_ID_LABEL}/{self.digits}"


class TreePlaces(Protocol):
    """The places of a servent's tree on this machine."""

    @property
    def mountpoint(self) -> str | None:
        """The mountpoint, without symbolic links; None if it has no mount."""

    @property
    def shared_directory(self) -> str:
        """The directory behind `shared/`."""


def read_target(text: str, tree: TreePlaces) -> TreePath | Id:
    """Return the target of a path or a file id, for a verb that reads.

    Raises:
        UsageError: it leads to a place on this machine, or out of the sub-tree.
        NotFoundError: the path cannot be walked.
    """
    if _FILE_ID.fullmatch(text.lower()):
        return Id(text.lower())
    place = _walk_tree(text, here(), tree, follow_last=True)
    found = _below(place, tree, text)
    if found is not None and found.subtree is not SubtreeName.SHARED:
        return found
    if os.path.isabs(text) or (found is not None and os.path.lexists(place)):
        raise UsageError(f"{text} is on this machine, not in the network")
    return _relative(text, SubtreeName.NETWORK)


def link_target(text: str, tree: TreePlaces) -> TreePath | Id:
    """Return the target of a path or a file id, for `p2pfs link`; it may be in `shared/`.

    Raises:
        UsageError: it leads to a place on this machine that is not shared.
        NotFoundError: the path cannot be walked.
    """
    found = _below(_walk_tree(text, here(), tree, follow_last=True), tree, text)
    return read_target(text, tree) if found is None else found


def removal_target(text: str, tree: TreePlaces) -> TreePath:
    """Return the target of a path in `shared/`, for removal; a link at its end means itself.

    Raises:
        UsageError: it leads elsewhere.
        NotFoundError: the path cannot be walked.
    """
    found = _below(_walk_tree(text, here(), tree, follow_last=False), tree, text)
    if found is None and not os.path.isabs(text):
        share = os.path.realpath(tree.shared_directory)
        found = _below(_walk_tree(text, share, tree, follow_last=False), tree, text)
    if found is None or found.subtree is not SubtreeName.SHARED:
        raise UsageError(f"{text} is not below shared/")
    return found


def received_target(text: str) -> TreePath | Id:
    """Return the target of a text that was received.

    Raises:
        UsageError: no client of ours sends it.
    """
    head, _, rest = text.partition("/")
    if head == _ID_LABEL and _FILE_ID.fullmatch(rest):
        return Id(rest)
    path = rest.removesuffix("/")
    is_clean = not path or not {"", ".", ".."} & set(path.split("/"))
    if head not in _SUBTREES or not is_clean:
        raise UsageError(f"{text} is no path in the tree")
    return TreePath(_SUBTREES[head], path, rest != path)


def _relative(text: str, subtree: SubtreeName) -> TreePath:
    """Return a relative path that starts at a sub-tree without links."""
    path = os.path.normpath(text)
    if path.split("/")[0] in ("..", "."):
        raise UsageError(f"{text} is not below {subtree}/")
    return _tree_path(subtree, path, text)


def _below(place: str, tree: TreePlaces, text: str) -> TreePath | None:
    """Return where a walk has led, if it is in a sub-tree."""
    shared = os.path.realpath(tree.shared_directory)
    if holds(shared, place):
        return _tree_path(SubtreeName.SHARED, place[len(shared) :].lstrip("/"), text)
    if tree.mountpoint is None or not holds(tree.mountpoint, place):
        return None
    label, _, path = place[len(tree.mountpoint) :].lstrip("/").partition("/")
    subtree = _SUBTREES.get(label)
    return None if subtree is None else _tree_path(subtree, path, text)


def _tree_path(subtree: SubtreeName, path: str, text: str) -> TreePath:
    names_directory = text.rpartition("/")[2] in ("", ".", "..")
    return TreePath(subtree, path, bool(path) and names_directory)


def place_of(text: str, mountpoints: Collection[str]) -> str:
    """Return where a path leads on this machine, without a system call in a mount.

    The servent of a mount may be stuck, and would block the call.

    Raises:
        NotFoundError: the path cannot be walked.
    """

    def is_local(place: str) -> bool:
        return not any(holds(one, place) for one in mountpoints)

    return _walk(text, here(), is_local, follow_last=True)


def _walk_tree(text: str, start: str, tree: TreePlaces, *, follow_last: bool) -> str:
    """Return where a path leads, as `rm` or `cat` would have it.

    There is no system call below `network/`, `search/` and `peers/`: they hold no links, and a
    lookup may ask the whole network.
    """
    return _walk(text, start, lambda place: _is_local(place, tree), follow_last=follow_last)


def _walk(text: str, start: str, may_look: Callable[[str], bool], *, follow_last: bool) -> str:
    """Return where a path leads from `start`, without symbolic links."""
    at, links = "/", 0
    pending = os.path.join(start, text).split("/")[::-1]
    while pending:
        label = pending.pop()
        if label in ("", "."):
            continue
        if label == "..":
            if may_look(at) and not os.path.isdir(at):
                raise NotFoundError(f"{text}: no such file")
            at = os.path.dirname(at)
            continue
        at = os.path.join(at, label)
        target = _link_at(at) if (pending or follow_last) and may_look(at) else None
        if target is not None:
            links += 1
            if links > MAX_SYMLINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), text)
            at = "/" if target.startswith("/") else os.path.dirname(at)
            pending += target.split("/")[::-1]
    return at


def _is_local(place: str, tree: TreePlaces) -> bool:
    """Return whether system calls are harmless there: outside the mount, or below `shared/`."""
    if tree.mountpoint is None or not holds(tree.mountpoint, place):
        return True
    return holds(os.path.join(tree.mountpoint, SubtreeName.SHARED), place)


def _link_at(place: str) -> str | None:
    with contextlib.suppress(OSError):
        return os.readlink(place)
    return None


def holds(directory: str | None, place: str) -> bool:
    """Return whether a place is a directory or lies in it, by their names alone."""
    if directory is None:
        return False
    return place == directory or place.startswith(directory.rstrip("/") + "/")


def here() -> str:
    """Return the working directory; `/` if it is gone."""
    try:
        return os.getcwd()
    except OSError:  # below a mount that is gone
        return "/"
