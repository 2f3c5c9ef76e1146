"""`search/` without a kernel: what is a folder, when it searches, what is kept."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from p2pfs.filesystem.answers import Later
from p2pfs.filesystem.search import SearchTree
from p2pfs.namespace.nodes import RemoteFile
from tests.helpers.faketree import MTIME_NS, FakeCaller, FakeNetwork
from tests.helpers.files import bytes_of, now
from tests.suites.filesystem_suite import errno_of

NOW_NS = MTIME_NS + 1_000_000_000


@pytest.fixture
def network() -> FakeNetwork:
    network = FakeNetwork()
    file = network.add("films/whale.mkv", b"0123456789")
    shown = RemoteFile("blue wha/whale.mkv", file.size, file.mtime_ns, file.file_id, file.sources)
    network.results.found["blue wha"] = [shown]
    return network


@pytest.fixture
def caller() -> FakeCaller:
    return FakeCaller()


@pytest.fixture
def tree(network, caller) -> SearchTree:
    return SearchTree(network.results, network, caller, now_ns=lambda: NOW_NS)


async def later(answer):
    """Return an answer that needs the network."""
    assert isinstance(answer, Later)
    return answer.finish(await answer.fetch())


def names(tree: SearchTree, path: str = "") -> list[str]:
    return [listed.name for listed in now(tree.readdir(path))]


def test_any_text_that_can_be_searched_is_a_folder_and_costs_nothing(network, tree) -> None:
    for text in ("blue wha", '"exact phrase" -not', "ext:pdf size:>10M"):
        attributes = now(tree.getattr(text))
        assert stat.S_ISDIR(attributes.mode)
        assert stat.S_IMODE(attributes.mode) == 0o555

    assert network.results.asked == []
    assert names(tree) == []


async def test_results_have_their_attributes_beside_their_names_and_searches_have_not(tree) -> None:
    await later(tree.readdir("blue wha"))

    assert tree.beside_name("blue wha/whale.mkv") == now(tree.getattr("blue wha/whale.mkv"))
    assert tree.beside_name("blue wha") is None


@pytest.mark.parametrize("text", ["&", "-", "a", "size:1M"])
def test_what_asks_for_nothing_is_not_there(tree, text) -> None:
    assert errno_of(tree.getattr, text) == errno.ENOENT


async def test_listing_a_folder_searches_once_and_shows_files(network, tree) -> None:
    assert [listed.name for listed in await later(tree.readdir("blue wha"))] == ["whale.mkv"]

    attributes = now(tree.getattr("blue wha/whale.mkv"))
    assert (attributes.size, attributes.mtime_ns) == (10, MTIME_NS)
    assert stat.S_ISREG(attributes.mode)
    assert names(tree, "blue wha") == ["whale.mkv"]
    assert network.results.asked == ["blue wha"]


async def test_a_result_is_read_as_in_the_network(network, tree) -> None:
    file = await later(tree.open("blue wha/whale.mkv", os.O_RDONLY))

    assert bytes_of(await later(file.read(4, 3))) == b"3456"
    assert now(tree.getxattr("blue wha/whale.mkv", "user.p2pfs.sources")) == b"1"
    assert now(tree.listxattr("blue wha/whale.mkv")) == []
    assert network.opened == ["search/blue wha/whale.mkv"]
    file.release()


async def test_what_is_not_among_the_results_is_not_there(network, tree) -> None:
    await later(tree.readdir("blue wha"))

    assert errno_of(tree.getattr, "blue wha/other.mkv") == errno.ENOENT
    assert errno_of(tree.getattr, "blue wha/.hidden") == errno.ENOENT
    assert network.results.asked == ["blue wha"]


def test_a_search_is_kept_until_it_is_dropped(tree) -> None:
    tree.mkdir("blue wha")
    tree.mkdir("ext:pdf")

    assert names(tree) == ["blue wha", "ext:pdf"]
    for listed in now(tree.readdir("")):
        assert now(tree.getattr(listed.name)).inode == listed.inode
    assert errno_of(tree.mkdir, "ext:pdf") == errno.EEXIST
    tree.rmdir("ext:pdf")
    assert names(tree) == ["blue wha"]
    assert errno_of(tree.rmdir, "ext:pdf") == errno.ENOENT


def test_only_who_makes_a_directory_is_told_that_a_search_is_not_there(tree, caller) -> None:
    """The kernel looks before it creates, and would say EEXIST."""
    caller.is_making_directory = True

    assert errno_of(tree.getattr, "blue wha") == errno.ENOENT
    tree.mkdir("blue wha")
    assert stat.S_ISDIR(now(tree.getattr("blue wha")).mode)


def test_what_is_no_search_cannot_be_kept(network, tree) -> None:
    assert errno_of(tree.mkdir, "&") == errno.EINVAL
    assert errno_of(tree.mkdir, "blue wha/below") == errno.EROFS
    assert errno_of(tree.rmdir, "blue wha/below") == errno.EROFS
    network.results.is_full = True
    assert errno_of(tree.mkdir, "one more") == errno.ENOSPC


def test_the_top_can_be_written_so_that_the_kernel_lets_mkdir_through(tree) -> None:
    assert stat.S_IMODE(now(tree.getattr("")).mode) == 0o755
    assert now(tree.getattr("")).mtime_ns == NOW_NS


def test_nothing_here_is_a_link_or_opened_as_a_file(tree) -> None:
    assert errno_of(tree.open, "blue wha", os.O_RDONLY) == errno.EISDIR
    assert errno_of(tree.readlink, "blue wha") == errno.EINVAL
    assert now(tree.listxattr("blue wha")) == []
