"""Small files of a directory that is read in order are fetched before they are asked for."""

from __future__ import annotations

import os

import pytest

from p2pfs.filesystem.network import NetworkTree
from p2pfs.filesystem.siblings import (
    AHEAD_BYTES,
    AHEAD_FILES,
    LARGEST_STEP,
    MAX_AHEAD_FILES,
    MAX_DIRECTORY,
    OPENED_IN_ORDER,
    SIBLING_BYTES,
)
from tests.helpers.faketree import FakeNetwork
from tests.helpers.files import now

COUNT = 100


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture
def tree(network: FakeNetwork) -> NetworkTree:
    return NetworkTree(network, network)


def fill(network: FakeNetwork, count: int = COUNT, size: int = 10) -> list[str]:
    paths = [f"small/{number:05}" for number in range(count)]
    for path in paths:
        network.add(path, path.encode().ljust(size))
    return paths


def open_all(tree: NetworkTree, paths: list[str]) -> None:
    for path in paths:
        now(tree.open(path, os.O_RDONLY)).release()


def by_inode(tree: NetworkTree, paths: list[str]) -> list[str]:
    return sorted(paths, key=lambda path: now(tree.getattr(path)).inode)


@pytest.mark.parametrize("arrange", [lambda _tree, paths: paths, by_inode])
def test_who_reads_in_order_finds_each_further_file_fetched_once(network, tree, arrange) -> None:
    paths = arrange(tree, fill(network))

    open_all(tree, paths)

    assert network.fetched_ahead == paths[OPENED_IN_ORDER:]


def test_no_more_is_fetched_than_a_little_ahead(network, tree) -> None:
    paths = fill(network)

    open_all(tree, paths[:AHEAD_FILES])

    assert set(network.fetched_ahead) <= set(paths[: 2 * AHEAD_FILES])
    assert len(network.fetched_ahead) >= AHEAD_FILES


def test_who_goes_on_reading_in_order_has_more_ready_up_to_a_bound(network, tree) -> None:
    paths = fill(network, count=1_200)

    open_all(tree, paths[:100])
    after_100 = len(network.fetched_ahead)
    open_all(tree, paths[100:800])

    assert 100 + AHEAD_FILES < after_100 <= 2 * 100
    assert 800 + MAX_AHEAD_FILES // 2 < len(network.fetched_ahead) <= 800 + MAX_AHEAD_FILES


def test_no_more_bytes_are_fetched_than_a_little_ahead(network, tree) -> None:
    paths = fill(network, count=30, size=SIBLING_BYTES)

    open_all(tree, paths[:10])

    assert len(network.fetched_ahead) <= 10 + AHEAD_BYTES // SIBLING_BYTES


def test_a_few_may_be_left_out(network, tree) -> None:
    paths = fill(network)

    open_all(tree, paths[::LARGEST_STEP])

    assert network.fetched_ahead


def test_who_reads_here_and_there_gets_nothing_ahead(network, tree) -> None:
    paths = fill(network)
    chosen = [paths[(number * 37) % COUNT] for number in range(COUNT)]

    open_all(tree, chosen)

    assert network.fetched_ahead == []


def test_one_file_opened_again_and_again_is_no_order(network, tree) -> None:
    paths = fill(network)

    open_all(tree, [paths[3]] * 20)

    assert network.fetched_ahead == []


def test_large_files_are_neither_noticed_nor_fetched(network, tree) -> None:
    films = [f"films/{number}" for number in range(9)]
    for path in films:
        network.add(path, path.encode().ljust(SIBLING_BYTES + 1))

    open_all(tree, films)

    assert network.fetched_ahead == []


def test_a_directory_with_too_many_names_is_left_alone(network) -> None:
    paths = fill(network)
    nodes = [network.node(path) for path in paths]
    network.known_children = lambda _path: nodes * (MAX_DIRECTORY // COUNT) + nodes

    open_all(NetworkTree(network, network), paths)

    assert network.fetched_ahead == []


def test_a_directory_that_was_never_listed_is_left_alone(network, tree) -> None:
    paths = fill(network)
    network.unlisted.add("small")

    open_all(tree, paths)

    assert network.fetched_ahead == []


def test_two_directories_are_followed_at_once(network, tree) -> None:
    one = fill(network)
    two = [path.replace("small", "other") for path in one]
    for path in two:
        network.add(path, path.encode())

    open_all(tree, [path for pair in zip(one, two, strict=True) for path in pair])

    assert {path[:5] for path in network.fetched_ahead} == {"small", "other"}


def test_a_directory_that_has_changed_is_looked_at_anew(network, tree) -> None:
    paths = fill(network)
    open_all(tree, paths[:10])
    network.fetched_ahead.clear()
    further = fill(network, count=2 * COUNT)[COUNT:]

    open_all(tree, further)

    assert set(network.fetched_ahead) <= set(further)
    assert len(network.fetched_ahead) > COUNT // 2


async def test_names_that_a_program_was_given_are_in_order_though_they_are_listed_anew(
    network, tree
) -> None:
    paths = fill(network)
    network.unlisted.add("small")
    answer = tree.readdir("small")
    answer.finish(await answer.fetch())

    open_all(tree, paths)

    assert network.fetched_ahead == paths[OPENED_IN_ORDER:]


def test_names_that_were_given_before_they_are_listed_anew_are_in_order_too(network, tree) -> None:
    paths = fill(network)
    now(tree.readdir("small"))
    network.unlisted.add("small")

    open_all(tree, paths)

    assert network.fetched_ahead == paths[OPENED_IN_ORDER:]


def test_a_directory_that_is_known_again_is_read_in_order_from_then_on(network, tree) -> None:
    paths = fill(network)
    network.unlisted.add("small")
    open_all(tree, paths[:10])
    network.unlisted.clear()

    open_all(tree, paths[10:])

    assert network.fetched_ahead == paths[-len(network.fetched_ahead) :]
    assert len(network.fetched_ahead) >= len(paths) - 10 - 2 * OPENED_IN_ORDER


def test_a_file_that_came_after_the_names_were_given_is_opened_as_any(network, tree) -> None:
    paths = fill(network)
    now(tree.readdir("small"))
    network.unlisted.add("small")
    network.add("small/later", b"later")

    open_all(tree, [*paths[:5], "small/later", *paths[5:10], "small/later"])

    assert "small/later" not in network.fetched_ahead
