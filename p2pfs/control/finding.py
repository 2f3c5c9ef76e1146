"""Find the file or directory that a received path means."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import trio
from msgspec import structs

from p2pfs.control.asked import Args, text_of
from p2pfs.control.paths import Id, SubtreeName, TreePath, received_target
from p2pfs.errors import NotAskedError, NotFoundError, UsageError
from p2pfs.namespace import Node, RemoteDirectory, RemoteFile
from p2pfs.protocol import FileId

BUDGET_WAIT_S: Final = 10.0
"""The longest time that a verb waits while the budget of searches is spent."""

T = TypeVar("T")


class Tree(Protocol):
    """One of the sub-trees that others fill. Paths start at the sub-tree."""

    async def find(self, path: str) -> Node | None:
        """Search for exactly this path."""

    async def list(self, path: str) -> Sequence[Node]:
        """Ask for a directory, and return its entries."""

    def partial(self, path: str) -> str | None:
        """Return the reason why the last listing of a directory lacks entries, for people."""


class Results(Tree, Protocol):
    """The tree below `search/`."""

    def published_path(self, path: str) -> str:
        """Return the path in `network/` of a known result, or raise NotFoundError."""


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
        """The tree below `network/`."""

    async def find_content(self, file_id: FileId) -> RemoteFile | None:
        """Search for a file by its id; its path is the one in `network/`, or the id."""

    @property
    def results(self) -> Results:
        """The tree below `search/`."""

    @property
    def shares(self) -> Tree:
        """The tree below `peers/`."""


def target_of(args: Args) -> tuple[TreePath | Id, str]:
    """Return the target of a request, and the text that the user typed for it."""
    target = received_target(text_of(args, "path"))
    if isinstance(target, Id):
        return target, str(args.get("typed", target.digits))
    if target.subtree is SubtreeName.SHARED:
        raise UsageError(f"{target} is not a path in the network")
    is_network = target.subtree is SubtreeName.NETWORK
    typed = args.get("typed", target.path if is_network else str(target))
    return target, str(typed)


async def locate(servent: Servent, target: TreePath | Id, typed: str) -> tuple[TreePath | Id, Node]:
    """Return the place that a target means, maybe in another sub-tree, and the node there.

    The name of the node is the one in its sub-tree.

    Raises:
        NotFoundError: nobody within the horizon has it.
        UsageError: it was written as a directory, and is none; it is our own.
    """
    own = _own_file(servent, target) if isinstance(target, Id) else None
    if own is not None:
        raise UsageError(f"{typed} is on this machine, not in the network: shared/{own.local_path}")
    if not isinstance(target, Id) and not target.path:
        return target, RemoteDirectory("", 0, ())
    for place in meanings(target):
        node = await in_turn(functools.partial(_find, servent, place))
        if node is not None:
            break
    else:
        raise NotFoundError(f"{typed}: nobody within the horizon has it")
    if (
        not isinstance(target, Id)
        and target.must_be_directory
        and not isinstance(node, RemoteDirectory)
    ):
        raise UsageError(f"{typed} is a file, not a directory")
    if isinstance(place, TreePath):  # a result may be named by its path in network/
        place = replace(place, path=node.path)
    return place, node


def meanings(target: TreePath | Id) -> Iterator[TreePath | Id]:
    """Yield the places that a target may mean, the likeliest first.

    A path that begins with the name of a sub-tree may mean that sub-tree, if `network/` has no
    such directory.
    """
    yield target
    if isinstance(target, TreePath) and target.subtree is SubtreeName.NETWORK:
        label, _, rest = target.path.partition("/")
        if rest and label in (SubtreeName.NETWORK, SubtreeName.SEARCH, SubtreeName.PEERS):
            yield TreePath(SubtreeName(label), rest, target.must_be_directory)


async def find_file(servent: Servent, target: TreePath | Id, typed: str) -> RemoteFile:
    """Return the file that a target means; its name is the one in `network/`.

    Raises:
        NotFoundError: nobody within the horizon has it.
        UsageError: it is a directory.
    """
    place, node = await locate(servent, target, typed)
    if isinstance(node, RemoteDirectory):
        raise UsageError(f"{typed} is a directory")
    if isinstance(place, Id):
        return node
    return structs.replace(node, path=network_path(servent, place))


async def network_paths(servent: Servent, target: TreePath) -> Sequence[str]:
    """Return the path in `network/` that a target means; of a search, those of all its results.

    Raises:
        NotFoundError: there is no such result.
    """
    if target.subtree is not SubtreeName.SEARCH:
        return [network_path(servent, target)]
    _words, _, result = target.path.partition("/")
    if not result:
        found, _partial = await list_directory(servent, target, target.path)
        return [servent.results.published_path(node.path) for node in found]
    if "/" in result:  # as `p2pfs search` prints it
        return [result]
    return [network_path(servent, target)]


async def list_directory(
    servent: Servent, target: TreePath | Id, typed: str
) -> tuple[Sequence[Node], str | None]:
    """Return the entries of a directory, by name, and the reason if some are missing.

    Raises:
        NotFoundError: nobody within the horizon has it.
        UsageError: it is a file.
    """
    place, node = await locate(servent, target, typed)
    if isinstance(place, Id) or not isinstance(node, RemoteDirectory):
        raise UsageError(f"{typed} is a file, not a directory")
    tree = _tree_of(servent, place)
    nodes = await in_turn(lambda: tree.list(place.path))
    return sorted(nodes, key=lambda node: node.path), tree.partial(place.path)


async def in_turn(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask, and ask again while the budget of searches will soon allow it.

    So a script that searches for one thing after the other gets all its answers.
    """
    give_up_at = trio.current_time() + BUDGET_WAIT_S
    while True:
        try:
            return await ask()
        except NotAskedError as error:
            if trio.current_time() + error.wait_s > give_up_at:
                raise
            await trio.sleep(error.wait_s)


def _own_file(servent: Servent, target: Id) -> OwnFile | None:
    """Return our own file with this content. Searches ask other servents alone."""
    return servent.library.find_id(FileId(bytes.fromhex(target.digits)))


async def _find(servent: Servent, target: TreePath | Id) -> Node | None:
    if isinstance(target, Id):
        return await servent.find_content(FileId(bytes.fromhex(target.digits)))
    node = await _tree_of(servent, target).find(target.path)
    if node is None and target.subtree is SubtreeName.SEARCH:
        return await _result_at(servent, target.path)
    return node


async def _result_at(servent: Servent, path: str) -> Node | None:
    """Return a result of a search by its whole path in `network/`.

    `p2pfs search` prints that path; `search/` shows results by their last names.
    """
    words, _, published = path.partition("/")
    if "/" not in published:
        return None
    found = await servent.results.list(words)
    return next((one for one in found if _published(servent, one.path) == published), None)


def _published(servent: Servent, path: str) -> str | None:
    try:
        return servent.results.published_path(path)
    except NotFoundError:  # it has gone from the results meanwhile
        return None


def _tree_of(servent: Servent, target: TreePath) -> Tree:
    trees: Mapping[SubtreeName, Tree] = {
        SubtreeName.NETWORK: servent.browser,
        SubtreeName.SEARCH: servent.results,
        SubtreeName.PEERS: servent.shares,
    }
    return trees[target.subtree]


def network_path(servent: Servent, target: TreePath) -> str:
    """Return the path in `network/` of a place in any sub-tree."""
    if target.subtree is SubtreeName.PEERS:
        return target.path.partition("/")[2]
    if target.subtree is SubtreeName.SEARCH:
        return servent.results.published_path(target.path)
    return target.path
