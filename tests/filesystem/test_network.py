"""`network/` without a kernel: what it shows, when it asks the network, and what it refuses."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from msgspec.structs import replace

from p2pfs import errors
from p2pfs.filesystem import Later
from p2pfs.filesystem.absences import BELIEVED_S, MARGIN_S, MAX_KERNEL_ABSENT, Absences
from p2pfs.filesystem.answers import ERRNO_OF
from p2pfs.filesystem.justlisted import LISTED_S
from p2pfs.filesystem.network import LOOKED_S, NetworkTree
from p2pfs.namespace.nodes import Knowledge, RemoteFile, version_name
from p2pfs.protocol.manifest import FileId
from p2pfs.protocol.messages import PeerInfo
from tests.helpers.faketree import MTIME_NS, FakeLinks, FakeNetwork
from tests.helpers.files import bytes_of, now
from tests.suites.filesystem_suite import errno_of

NOW_NS = MTIME_NS + 1_000_000_000


@pytest.fixture
def network() -> FakeNetwork:
    network = FakeNetwork()
    network.add("films/x.mkv", b"0123456789" * 1000)
    network.add("cached.txt", b"hello", cached=True)
    return network


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def tree(network: FakeNetwork) -> NetworkTree:
    return NetworkTree(network, network, now_ns=lambda: NOW_NS, clock=FakeClock())


async def later(answer):
    """Return an answer that needs the network."""
    assert isinstance(answer, Later)
    return answer.finish(await answer.fetch())


async def refusal(answer) -> int | None:
    """Return the errno with which the network answers."""
    try:
        await later(answer)
    except OSError as error:
        return error.errno
    return None


# What is shown.


def test_a_known_file_is_shown_from_memory(tree) -> None:
    attributes = now(tree.getattr("films/x.mkv"))

    assert stat.S_ISREG(attributes.mode)
    assert stat.S_IMODE(attributes.mode) == 0o444
    assert (attributes.size, attributes.sectors, attributes.links) == (10_000, 20, 1)
    assert (attributes.uid, attributes.gid) == (os.getuid(), os.getgid())
    assert attributes.mtime_ns == MTIME_NS


@pytest.mark.parametrize("path", ["", "films"])
def test_a_directory_is_shown_from_memory(tree, path) -> None:
    attributes = now(tree.getattr(path))

    assert stat.S_ISDIR(attributes.mode)
    assert stat.S_IMODE(attributes.mode) == 0o555
    assert attributes.links == 1


@pytest.mark.parametrize("told_ns", [-(2**63), -1, 0, MTIME_NS, 2**63 - 1])
def test_a_time_is_shown_as_it_is_known_at_every_look(network, tree, told_ns) -> None:
    node = replace(network.node("cached.txt"), mtime_ns=told_ns)

    assert tree.attributes(node).mtime_ns == tree.attributes(node).ctime_ns == told_ns


def test_an_inode_number_stays_with_a_path_and_its_content(network, tree) -> None:
    before = now(tree.getattr("cached.txt")).inode

    assert now(NetworkTree(network, network).getattr("cached.txt")).inode == before
    assert before != now(tree.getattr("films/x.mkv")).inode
    assert before >= 1 << 63
    network.add("cached.txt", b"other")
    assert now(tree.getattr("cached.txt")).inode != before


def test_an_inode_number_stays_when_a_version_loses_or_gets_the_plain_name(tree) -> None:
    plain = RemoteFile("d/x.mkv", 1, 1, FileId(b"\x0a" * 32), ())
    shown = version_name(plain.path, plain.file_id)
    other = RemoteFile("d/x.mkv", 1, 1, FileId(b"\x0b" * 32), ())

    inode = tree.attributes(plain).inode
    assert tree.attributes(replace(plain, path=shown)).inode == inode
    assert tree.attributes(other).inode != inode


def test_a_listing_agrees_with_stat(tree) -> None:
    listed = now(tree.readdir(""))

    assert [entry.name for entry in listed] == ["cached.txt", "films"]
    for entry in listed:
        attributes = now(tree.getattr(entry.name))
        assert (attributes.mode, attributes.inode) == (entry.mode, entry.inode)


async def test_a_directory_is_listed_by_the_network_only_the_first_time(network, tree) -> None:
    network.unlisted.add("films")

    assert [entry.name for entry in await later(tree.readdir("films"))] == ["x.mkv"]
    network.unlisted.clear()
    assert [entry.name for entry in now(tree.readdir("films"))] == ["x.mkv"]
    assert network.listed == ["films"]


# Searching.


async def test_a_name_that_is_not_known_is_searched(network, tree) -> None:
    network.add("hidden/deep.txt", b"found")
    network.hidden.add("hidden/deep.txt")

    attributes = await later(tree.getattr("hidden/deep.txt"))

    assert attributes.size == 5
    assert network.searched == ["hidden/deep.txt"]


async def test_a_name_that_nobody_has_is_absent(tree) -> None:
    assert await refusal(tree.getattr("nowhere")) == errno.ENOENT


def test_a_name_known_to_be_absent_is_not_searched(network, tree, monkeypatch) -> None:
    monkeypatch.setattr(network, "known", lambda path: Knowledge.ABSENT)

    assert errno_of(tree.getattr, "nowhere") == errno.ENOENT


@pytest.mark.parametrize(
    "path",
    [".hidden", ".Trash-1000", "films/.git", "Desktop.ini", "films/Thumbs.db",
     "a/.x/b", "e\N{COMBINING ACUTE ACCENT}", "new\nline", "\udcff", "a" * 256,
     "/".join("a" * 20), "\N{RIGHT-TO-LEFT OVERRIDE}x"],
)  # fmt: skip
def test_a_name_that_nobody_may_publish_is_never_searched(network, tree, path) -> None:
    assert errno_of(tree.getattr, path) == errno.ENOENT
    assert errno_of(tree.open, path, os.O_RDONLY) == errno.ENOENT
    assert network.searched == []


@pytest.mark.parametrize("path", ["HEAD", "films/cover.jpg", "films/Folder.jpg"])
async def test_whether_a_name_that_is_looked_up_anywhere_is_searched_is_left_to_the_view(
    network, tree, path
) -> None:
    assert await refusal(tree.getattr(path)) == errno.ENOENT
    assert network.searched == [path]


async def test_a_listing_waits_for_the_kernel_to_forget_that_a_name_was_absent(
    network, tree
) -> None:
    clock = FakeClock()
    tree._absences = Absences(clock)
    assert await refusal(tree.getattr("films/new.mkv")) == errno.ENOENT
    clock.now = 0.4
    assert isinstance(tree.readdir("films"), list)  # it is not there
    network.add("films/new.mkv", b"new")

    answer = tree.readdir("films")
    assert "new.mkv" in [each.name for each in await later(answer)]
    assert answer.held_s(await answer.fetch()) == pytest.approx(BELIEVED_S + MARGIN_S - 0.4)

    network.unlisted.add("films")
    answer = tree.readdir("films")
    assert answer.held_s(await answer.fetch()) == pytest.approx(BELIEVED_S + MARGIN_S - 0.4)

    network.unlisted.clear()
    assert isinstance(tree.readdir(""), list)
    clock.now = BELIEVED_S + MARGIN_S
    assert isinstance(tree.readdir("films"), list)


def test_what_the_kernel_was_told_is_remembered_in_bounds() -> None:
    absences = Absences(FakeClock())
    for number in range(MAX_KERNEL_ABSENT + 10):
        absences.told(f"d/{number}")

    assert absences.left_s("d", ["0"]) == 0
    assert absences.left_s("d", [str(MAX_KERNEL_ABSENT)]) > 0
    assert absences.left_s("", [str(MAX_KERNEL_ABSENT)]) == 0


async def test_opening_a_name_that_is_not_known_searches_and_opens(network, tree) -> None:
    network.add("new.txt", b"new", cached=True)
    network.hidden.add("new.txt")

    file = await later(tree.open("new.txt", os.O_RDONLY))

    assert bytes_of(now(file.read(10, 0))) == b"new"
    file.release()


# Reading.


def test_cached_bytes_are_read_without_the_network(tree) -> None:
    file = now(tree.open("cached.txt", os.O_RDONLY))

    assert bytes_of(now(file.read(100, 0))) == b"hello"
    assert bytes_of(now(file.read(2, 1))) == b"el"
    assert bytes_of(now(file.read(10, 5))) == b""
    assert bytes_of(now(file.read(10, 10**15))) == b""
    file.release()


async def test_missing_bytes_are_read_later(tree) -> None:
    file = now(tree.open("films/x.mkv", os.O_RDONLY))

    assert bytes_of(await later(file.read(4, 9_998))) == b"89"
    assert bytes_of(await later(file.read(12, 5))) == b"567890123456"
    file.release()


def test_every_kind_of_failed_transfer_has_its_errno() -> None:
    kinds = set(errors.TransferError.__subclasses__())

    assert kinds == set(ERRNO_OF)


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (errors.NotFoundError("gone"), errno.ENOENT),
        (errors.NoSourceError("nobody answers"), errno.EHOSTUNREACH),
        (errors.StalledError("nothing for 30 s"), errno.ETIMEDOUT),
        (errors.CorruptError("lies"), errno.EIO),
        (errors.StaleError("changed"), errno.ESTALE),
        (errors.BusyError("paused"), errno.EBUSY),
        (errors.CacheFullError("disk full"), errno.ENOSPC),
        (errors.ShutdownError("bye"), errno.ESHUTDOWN),
    ],
)
async def test_a_failed_transfer_reaches_the_reader(network, tree, failure, code) -> None:
    network.failures["films/x.mkv"] = failure
    file = now(tree.open("films/x.mkv", os.O_RDONLY))

    assert await refusal(file.read(10, 0)) == code
    assert tree.getxattr("films/x.mkv", "user.p2pfs.error") == str(failure).encode()
    file.release()


# What stays the same while a file is open.


def test_every_reader_is_closed_once(network, tree) -> None:
    files = [now(tree.open("cached.txt", os.O_RDONLY)) for _ in range(3)]

    assert network.open_readers == 3
    for file in files:
        file.release()
    assert network.open_readers == 0


def test_an_open_file_keeps_its_content_and_its_path_shows_it(network, tree) -> None:
    old = now(tree.open("cached.txt", os.O_RDONLY))

    network.add("cached.txt", b"a longer content", cached=True)

    assert old.getattr().size == 5
    assert now(tree.getattr("cached.txt")).size == 5
    old.release()
    assert now(tree.getattr("cached.txt")).size == 16


def test_an_open_file_stays_when_its_path_is_gone(network, tree) -> None:
    file = now(tree.open("cached.txt", os.O_RDONLY))

    del network.contents["cached.txt"]

    assert now(tree.getattr("cached.txt")).size == 5
    assert bytes_of(now(file.read(5, 0))) == b"hello"
    file.release()
    assert isinstance(tree.getattr("cached.txt"), Later)


def test_the_kernels_pages_are_kept_for_the_same_content_alone(network, tree) -> None:
    def keeps_cache() -> bool:
        tree.getattr("cached.txt")
        file = now(tree.open("cached.txt", os.O_RDONLY))
        file.release()
        return file.keep_cache

    assert [keeps_cache(), keeps_cache()] == [False, True]
    network.add("cached.txt", b"other", cached=True)
    assert [keeps_cache(), keeps_cache()] == [False, True]


def test_what_was_looked_up_a_moment_ago_is_what_is_opened(network, tree) -> None:
    """The program was told its size, and may have chosen it by that."""
    tree.getattr("cached.txt")
    network.add("cached.txt", b"a longer content", cached=True)

    file = now(tree.open("cached.txt", os.O_RDONLY))

    assert bytes_of(now(file.read(100, 0))) == b"hello"
    assert not file.direct_io
    file.release()
    again = now(tree.open("cached.txt", os.O_RDONLY))
    assert bytes_of(now(again.read(100, 0))) == b"a longer content"
    again.release()


def test_a_version_whose_size_the_kernel_does_not_know_goes_past_its_cache(network) -> None:
    """Else the reader of a longer version would be cut off at the size of the older one."""
    clock = FakeClock()
    tree = NetworkTree(network, network, clock=clock)
    tree.getattr("cached.txt")
    network.add("cached.txt", b"a longer content", cached=True)

    clock.now += LOOKED_S
    file = now(tree.open("cached.txt", os.O_RDONLY))

    assert file.direct_io
    file.release()
    tree.getattr("cached.txt")
    again = now(tree.open("cached.txt", os.O_RDONLY))
    assert not again.direct_io
    assert not again.keep_cache
    again.release()


def test_a_name_that_is_listed_has_its_attributes_beside_it_if_they_are_known(network, tree):
    network.add("films/hidden.mkv", b"hidden")
    network.hidden.add("films/hidden.mkv")

    assert tree.beside_name("films/x.mkv") == now(tree.getattr("films/x.mkv"))
    assert tree.beside_name("films") == now(tree.getattr("films"))
    assert tree.beside_name("films/hidden.mkv") is None
    assert network.searched == []


def test_what_was_listed_a_moment_ago_is_shown_beside_its_name(network, monkeypatch) -> None:
    clock = FakeClock()
    tree = NetworkTree(network, network, clock=clock)
    listed = now(tree.getattr("films/x.mkv"))
    now(tree.readdir("films"))
    with monkeypatch.context() as blind:
        blind.setattr(network, "known", lambda _path: Knowledge.UNKNOWN)

        assert tree.beside_name("films/x.mkv") == listed
        assert tree.beside_name("films/other.mkv") is None
        clock.now += LISTED_S
        assert tree.beside_name("films/x.mkv") is None

    network.add("cached.txt", b"a longer content", cached=True)
    file = now(tree.open("cached.txt", os.O_RDONLY))
    now(tree.readdir(""))
    network.add("cached.txt", b"other", cached=True)
    assert tree.beside_name("cached.txt").size == len(b"a longer content")
    file.release()


def test_what_is_listed_and_must_be_asked_for_is_not_shown_beside_its_name(network, tree) -> None:
    network.add("films/disputed.mkv", b"content")
    now(tree.readdir("films"))
    network.hidden.add("films/disputed.mkv")

    assert tree.beside_name("films/disputed.mkv") is None
    assert tree.beside_name("films/x.mkv") is not None


async def test_a_version_is_opened_when_the_kernel_shows_that_of_no_other(network) -> None:
    """It believes what came with a listing for a while, and `fstat` would show another's size."""
    clock = FakeClock()
    tree = NetworkTree(network, network, clock=clock)
    tree.beside_name("cached.txt")
    now(tree.open("cached.txt", os.O_RDONLY)).release()
    network.add("cached.txt", b"a longer content", cached=True)

    clock.now += 0.4
    answer = tree.open("cached.txt", os.O_RDONLY)
    assert answer.held_s(await answer.fetch()) == pytest.approx(BELIEVED_S + MARGIN_S - 0.4)
    file = await later(answer)
    assert file.direct_io
    assert bytes_of(now(file.read(100, 0))) == b"a longer content"
    file.release()

    network.hidden.add("cached.txt")
    searched = tree.open("cached.txt", os.O_RDONLY)
    assert searched.held_s(await searched.fetch()) == pytest.approx(BELIEVED_S + MARGIN_S - 0.4)

    network.hidden.clear()
    clock.now += BELIEVED_S + MARGIN_S
    now(tree.open("cached.txt", os.O_RDONLY)).release()


def test_a_reader_that_cannot_be_opened_pins_nothing(network, tree, monkeypatch) -> None:
    def fail(file):
        raise errors.CacheFullError("no room")

    with monkeypatch.context() as broken:
        broken.setattr(network, "open", fail)
        assert errno_of(tree.open, "cached.txt", os.O_RDONLY) == errno.ENOSPC

    network.add("cached.txt", b"other", cached=True)
    assert now(tree.open("cached.txt", os.O_RDONLY)).getattr().size == 5


def test_a_directory_is_not_opened_as_a_file(tree) -> None:
    assert errno_of(tree.open, "films", os.O_RDONLY) == errno.EISDIR


# Extended attributes.


def test_the_attributes_of_a_file_tell_its_state(network, tree) -> None:
    network.sources = (PeerInfo("a" * 32, "anna", ()), PeerInfo("b" * 32, "b\x1b[31mad", ()))

    assert now(tree.getxattr("cached.txt", "user.p2pfs.sources")) == b"2"
    assert now(tree.getxattr("cached.txt", "user.p2pfs.peers")) == rb"anna, b\x1b[31mad"
    assert now(tree.getxattr("cached.txt", "user.p2pfs.cached")) == b"100"
    assert len(now(tree.getxattr("cached.txt", "user.p2pfs.id"))) == 64
    assert errno_of(tree.getxattr, "cached.txt", "user.p2pfs.link") == errno.ENODATA


def test_a_link_to_a_file_is_an_attribute_of_it(network) -> None:
    tree = NetworkTree(network, network, links=FakeLinks())
    node = network.known("cached.txt")

    made = f"p2pfs:file/{node.file_id.hex()}?of=anna&name=cached.txt&size={node.size}"
    assert now(tree.getxattr("cached.txt", "user.p2pfs.link")).decode() == made
    assert errno_of(tree.getxattr, "films", "user.p2pfs.link") == errno.ENODATA


def test_attributes_are_not_listed_so_that_no_copy_carries_them(network, tree) -> None:
    assert now(tree.listxattr("cached.txt")) == []


def test_a_directory_says_what_its_listing_lacks(network, tree) -> None:
    network.partials = {"": "anna is slow", "films": "anna is gone"}

    assert now(tree.getxattr("", "user.p2pfs.partial")) == b"anna is slow"
    assert now(tree.getxattr("films", "user.p2pfs.partial")) == b"anna is gone"
    assert now(tree.listxattr("films")) == []

    network.partials.clear()
    assert errno_of(tree.getxattr, "films", "user.p2pfs.partial") == errno.ENODATA


def test_a_directory_has_no_attributes_of_ours(tree) -> None:
    assert now(tree.listxattr("films")) == []
    assert errno_of(tree.getxattr, "films", "user.p2pfs.id") == errno.ENODATA


@pytest.mark.parametrize("name", ["user.p2pfs.error", "user.p2pfs.nonsense", "user.colour"])
def test_an_attribute_that_is_not_there_is_said_so(tree, name) -> None:
    assert errno_of(tree.getxattr, "cached.txt", name) == errno.ENODATA


def test_nothing_in_the_network_is_a_link(tree) -> None:
    assert errno_of(tree.readlink, "cached.txt") == errno.EINVAL
