"""Names that are listed with their attributes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.filesystem import BELIEVED_S
from p2pfs.mount import plus
from p2pfs.mount.table import Segment, _find
from tests.helpers.mounted import until
from tests.helpers.mountedtree import LISTED, MountedTree, mounted_tree
from tests.suites.filesystem_suite import errno_of

ROW = struct.Struct("@PP")
NAMED = {1: b"LOOKUP", 2: b"FORGET", 28: b"READDIR", 43: b"FALLOCATE"}


def record(name: bytes) -> bytes:
    """Return a name in a page as libfuse has it."""
    content = struct.pack("=QQII", 7, 100, len(name), 8) + name
    return content + bytes(-len(content) % 8)


def test_a_page_has_as_many_names_as_fit_with_their_attributes() -> None:
    listed = record(b"a") + record(b"bcdefghi") + record(b"c")

    def names(room: int, listed: bytes = listed) -> list[bytes]:
        return [one.name for one in plus._records(listed, room)]

    assert names(3 * 128 + len(listed)) == [b"a", b"bcdefghi", b"c"]
    assert names(3 * 128 + len(listed) - 1) == [b"a", b"bcdefghi"]
    assert names(159) == []
    assert names(1_000, listed[:-8]) == [b"a", b"bcdefghi"]
    assert names(1_000, b"") == []


def test_each_name_stands_behind_its_attributes_or_none() -> None:
    records = [plus._Record(name, record(name)) for name in (b".", b"..", b"a", b"b", b"c")]
    entries = [struct.pack("=Q", 5) + bytes(120), plus._NO_ENTRY]

    page, nodes = plus._joined(records, entries)

    assert len(page) == 5 * 128 + sum(len(one.content) for one in records)
    told = [at for at in range(0, len(page), 160) if page[at : at + 8] != bytes(8)]
    assert told == [2 * 160]
    assert nodes == [5]


def test_attributes_are_good_for_as_long_as_names() -> None:
    entry = struct.pack("=QQQQII", 5, 1, BELIEVED_S, 0, 0, 1_000_000) + bytes(88)
    reply = struct.pack("=IiQ", 144, 0, 0) + entry
    refused = struct.pack("=IiQ", 16, -errno.EAGAIN, 0)

    told = list(plus._entries(reply + refused))

    assert struct.unpack("=QQQQII", told[0][:40]) == (5, 1, BELIEVED_S, BELIEVED_S, 0, 0)
    assert told[1] == plus._NO_ENTRY


def library(*, shift: int = 0, taken: bool = False, last: int = 44) -> list[Segment]:
    """Return the data of a libfuse with names and a table."""
    text = b"".join(b"x" + name + b"\0" for name in NAMED.values())
    at = {number: 0x1000 + text.index(name) for number, name in NAMED.items()}
    rows = [(9, at[n - shift]) if n - shift in at else (0, 0) for n in range(last + 1)]
    if taken:
        rows[44] = (9, 0)
    table = b"".join(ROW.pack(*row) for row in rows)
    return [Segment(0x1000, text, False), Segment(0x9000, bytes(24) + table, False)]


def test_only_a_table_with_the_right_names_is_written_into() -> None:
    found = _find(library(), 44)

    assert found is not None
    assert found[0] == 0x9000 + 24 + 44 * ROW.size
    assert _find(library(shift=1), 44) is None
    assert _find(library(taken=True), 44) is None
    assert _find(library(last=43), 44) is None
    assert _find(library()[:1], 44) is None


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[MountedTree]:
    with mounted_tree(tmp_path) as mounted:
        yield mounted


def sizes(directory: int) -> Iterator[int]:
    """Yield the size of each file of an open directory, until one is refused."""
    for name in os.listdir(directory):
        yield os.stat(name, dir_fd=directory).st_size


def told_at_once(directory: int) -> bool:
    """Return whether sizes came with the names, and were believed until they were asked for."""
    with contextlib.suppress(OSError):
        return list(itertools.islice(sizes(directory), 20)) == [1] * 20
    return False  # on a busy machine more than BELIEVED_S may pass before


@pytest.mark.fuse
def test_what_others_have_is_told_at_once_and_what_we_have_when_it_is_asked_for(
    mounted: MountedTree,
) -> None:
    (mounted.shared / "file").write_bytes(b"abc")
    network = os.open(mounted.network / "many", os.O_RDONLY)
    shared = os.open(mounted.shared, os.O_RDONLY)
    mounted.ask("fault", "getattr", "an errno", False)

    until(lambda: told_at_once(network))
    code = errno_of(lambda: list(sizes(shared)))
    mounted.ask("fault", "", "", False)

    os.close(network)
    os.close(shared)
    assert code == errno.ENOLINK


@pytest.mark.fuse
def test_every_name_of_a_long_directory_is_listed_once(mounted: MountedTree) -> None:
    with os.scandir(mounted.network / "many") as entries:
        found = [entry.name for entry in entries if entry.stat().st_size == 1]

    assert sorted(found) == sorted(str(number) for number in range(LISTED))


@pytest.mark.fuse
@pytest.mark.parametrize("text", ["shorter", "much longer " * 50_000])
def test_a_new_version_has_its_size_though_the_old_one_was_just_listed(
    mounted: MountedTree, text: str
) -> None:
    path = mounted.network / "versions" / "version.txt"
    assert mounted.ask("replace", "versions/version.txt", "old " * 20_000)
    with os.scandir(path.parent) as entries:
        assert [entry.stat().st_size for entry in entries] == [80_000]

    assert mounted.ask("replace", "versions/version.txt", text)

    with path.open("rb") as file:
        assert os.fstat(file.fileno()).st_size == len(text)
        assert file.read() == text.encode()


_REMOUNT = 32
"""MS_REMOUNT of <linux/mount.h>."""


def forget_all(mountpoint: Path) -> None:
    """Have the kernel forget every name of a mount that nobody uses, as it does for want of memory.

    A mount that is changed, in nothing here, is such a reason, and concerns no other.
    """
    assert ctypes.CDLL(None).mount(None, bytes(mountpoint), None, _REMOUNT, None) == 0


@pytest.mark.fuse
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have the kernel forget")
def test_what_the_kernel_forgets_is_forgotten_however_the_listings_ended(
    mounted: MountedTree,
) -> None:
    many = mounted.network / "many"
    forget_all(mounted.mountpoint)
    before = mounted.ask("nodes")

    for moment in range(25):
        with subprocess.Popen(["ls", "-l", many], stdout=subprocess.DEVNULL) as listing:
            with contextlib.suppress(subprocess.TimeoutExpired):
                listing.wait(moment / 1_000)
            listing.send_signal(signal.SIGINT if moment % 2 else signal.SIGKILL)
    for _ in range(5):
        with os.scandir(many) as entries:
            assert sum(entry.stat().st_size for entry in entries) == LISTED
        assert mounted.ask("nodes") >= LISTED
        forget_all(mounted.mountpoint)

    until(lambda: mounted.ask("nodes") == before)
