"""What a path that has travelled means to a servent: the file or directory that is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import trio

from p2pfs.control.asked import Args, text_of
from p2pfs.control.paths import Id, Subtree, TreePath, received_target
from p2pfs.errors import NotAskedError, NotFoundError, UsageError
from p2pfs.namespace import Node, RemoteDirectory, RemoteFile
from p2pfs.protocol import FileId

TURN_S: Final = 10.0
"""How long a verb waits for its turn when too many searches have begun lately."""

T = TypeVar("T")


class Tree(Protocol):
    """One of the sub-trees that others fill. Paths start at the sub-tree."""

    async def find(self, path: str) -> Node | None:
        """Search for exactly this path."""

    async def list(self, path: str) -> Sequence[Node]:
        """Return what is in a directory, asked for now."""

    def partial(self, path: str) -> str | None:
        """Return what keeps the last listing of a directory from being whole, for people."""


class Results(Tree, Protocol):
    """What is below `search/`."""

    def published_path(self, path: str) -> str:
        """Return the path in `network/` of a result that is known, or raise NotFoundError."""


class OwnFile(Protocol):
    """A file that we offer."""

    @property
    def local_path(self) -> str:
        """Where it is in `shared/`."""

    @property
    def size(self) -> int:
        """In bytes."""


class Share(Protocol):
    """What finding needs of the library."""

    def find_id(self, file_id: FileId) -> OwnFile | None:
        """Return a file of ours with this content."""


class Servent(Protocol):
    """What finding needs of the servent."""

    @property
    def library(self) -> Share:
        """Its share."""

    @property
    def browser(self) -> Tree:
        """What is below `network/`."""

    async def find_content(self, file_id: FileId) -> RemoteFile | None:
        """Search for a file by its id; its path is the one in `network/`, or the id."""

    @property
    def results(self) -> Results:
        """What is below `search/`."""

    @property
    def shares(self) -> Tree:
        """What is below `peers/`."""


def target_of(args: Args) -> tuple[TreePath | Id, str]:
    """Return what is wanted, and how the user named it."""
    target = received_target(text_of(args, "path"))
    if isinstance(target, Id):
        return target, str(args.get("typed", target.digits))
    if target.subtree is Subtree.SHARED:
        raise UsageError(f"{target} is not a path in the network")
    is_network = target.subtree is Subtree.NETWORK
    typed = args.get("typed", target.path if is_network else str(target))
    return target, str(typed)


async def find_node(servent: Servent, target: TreePath | Id, typed: str) -> Node:
    """Return what the user means who has typed so; its name is the one in its sub-tree.

    Raises:
        NotFoundError: nobody within the horizon has it.
        UsageError: it was written as a directory, and is none; it is our own.
    """
    own = _own_file(servent, target) if isinstance(target, Id) else None
    if own is not None:
        raise UsageError(f"{typed} is on this machine, not in the network: shared/{own.local_path}")
    if not isinstance(target, Id) and not target.path:
        return RemoteDirectory("", 0, ())
    node = await in_turn(lambda: _find(servent, target))
    if node is None:
        raise NotFoundError(f"{typed}: nobody within the horizon has it")
    if (
        not isinstance(target, Id)
        and target.must_be_directory
        and not isinstance(node, RemoteDirectory)
    ):
        raise UsageError(f"{typed} is a file, not a directory")
    return node


async def find_file(servent: Servent, target: TreePath | Id, typed: str) -> RemoteFile:
    """Return the file that is meant; its name is the one in `network/`.

    Raises:
        NotFoundError: nobody within the horizon has it.
        UsageError: it is a directory.
    """
    node = await find_node(servent, target, typed)
    if isinstance(node, RemoteDirectory):
        raise UsageError(f"{typed} is a directory")
    if isinstance(target, Id):
        return node
    return replace(node, path=network_path(servent, target))


async def network_paths(servent: Servent, target: TreePath) -> Sequence[str]:
    """Return the paths in `network/` of what was named: of a search those of all its results."""
    if target.subtree is Subtree.SEARCH and "/" not in target.path:
        found, _partial = await list_directory(servent, target, target.path)
        return [servent.results.published_path(node.path) for node in found]
    return [network_path(servent, target)]


async def list_directory(
    servent: Servent, target: TreePath | Id, typed: str
) -> tuple[Sequence[Node], str | None]:
    """Return what is in a directory, by name, and what keeps that from being all.

    Raises:
        NotFoundError: nobody within the horizon has it.
        UsageError: it is a file.
    """
    is_directory = isinstance(await find_node(servent, target, typed), RemoteDirectory)
    if isinstance(target, Id) or not is_directory:
        raise UsageError(f"{typed} is a file, not a directory")
    tree = _tree_of(servent, target)
    nodes = await in_turn(lambda: tree.list(target.path))
    return sorted(nodes, key=lambda node: node.path), tree.partial(target.path)


async def in_turn(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and ask again while the budget of searches will soon allow it.

    So a script that searches for one thing after the other gets all its answers.
    """
    give_up_at = trio.current_time() + TURN_S
    while True:
        try:
            return await ask()
        except NotAskedError as error:
            if trio.current_time() + error.wait_s > give_up_at:
                raise
            await trio.sleep(error.wait_s)


def _own_file(servent: Servent, target: Id) -> OwnFile | None:
    """Return what we offer with this content. No search finds it: others are asked, not we."""
    return servent.library.find_id(FileId(bytes.fromhex(target.digits)))


async def _find(servent: Servent, target: TreePath | Id) -> Node | None:
    if isinstance(target, Id):
        return await servent.find_content(FileId(bytes.fromhex(target.digits)))
    return await _tree_of(servent, target).find(target.path)


def _tree_of(servent: Servent, target: TreePath) -> Tree:
    trees: Mapping[Subtree, Tree] = {
        Subtree.NETWORK: servent.browser,
        Subtree.SEARCH: servent.results,
        Subtree.PEERS: servent.shares,
    }
    return trees[target.subtree]


def network_path(servent: Servent, target: TreePath) -> str:
    """Return the path in `network/` of what was named below any sub-tree."""
    if target.subtree is Subtree.PEERS:
        return target.path.partition("/")[2]
    if target.subtree is Subtree.SEARCH:
        return servent.results.published_path(target.path)
    return target.path
