"""Very many verbs and open files at once: what has no room is told so, everything else goes on."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.control import client
from p2pfs.control.opening import SourceFile
from tests.helpers.frugalservent import MAY_OPEN
from tests.helpers.mounted import PATIENCE_S, Servent, Servents, errno_name, until

pytestmark = pytest.mark.fuse

BLOCK = 256 * 1024
VERBS = 45
OPEN_FILES = 10_000
FOREIGN_FILES = 200

SHARED = {"anna": {f"copied/{number}": os.urandom(2 * BLOCK + 7) for number in range(VERBS)}}


@pytest.mark.usefixtures("anna")
def test_many_verbs_that_read_our_own_mount_stop_nothing(ben: Servent) -> None:
    until(lambda: len(os.listdir(ben.network / "copied")) == VERBS)
    running = client.choose_servent(str(ben.state))
    failures = []

    def publish(number: int) -> None:
        try:
            with SourceFile(str(ben.network / f"copied/{number}")) as source:
                client.publish(running, source, f"copy {number}", lambda *_: None)
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(VERBS)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert ben.status()["name"] == "ben"
        assert "shared" in os.listdir(ben.mountpoint)
        for thread in threads:
            thread.join(PATIENCE_S / VERBS / 10)

    assert failures == []
    for number in range(VERBS):
        copy = ben.shared / f"copy {number}"
        assert copy.read_bytes() == SHARED["anna"][f"copied/{number}"]


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open as many files as the test holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * OPEN_FILES:
        pytest.skip("this machine does not allow so many open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_ten_thousand_open_files_stop_nothing(anna: Servent, ben: Servent) -> None:
    for number in range(FOREIGN_FILES):
        (anna.shared / f"many-{number}").write_bytes(b"%d" % number)
    until(
        lambda: sum(name.startswith("many-") for name in os.listdir(ben.network)) == FOREIGN_FILES
    )
    foreign = [ben.network / f"many-{number % FOREIGN_FILES}" for number in range(OPEN_FILES // 2)]
    (ben.shared / "own").mkdir()
    own = [ben.shared / f"own/{number}" for number in range(OPEN_FILES // 2)]

    held = [os.open(path, os.O_RDONLY) for path in foreign]
    held += [os.open(path, os.O_RDWR | os.O_CREAT) for path in own]

    for number in range(FOREIGN_FILES):
        assert os.pread(held[number], 100, 0) == b"%d" % number
    assert_answers(anna, ben, "while many are open")
    for descriptor in held:
        os.close(descriptor)


def assert_answers(source: Servent, reader: Servent, marker: str) -> None:
    """Let a servent do all that it does."""
    assert "shared" in os.listdir(reader.mountpoint)
    assert reader.status()["neighbours"]
    source.share(marker, marker.encode())
    assert reader.sees(marker).read_bytes() == marker.encode()
    reader.share(f"by {reader.name}", b"published")
    source.sees(f"by {reader.name}")
    assert reader.p2pfs("search", marker).returncode == 0


@pytest.fixture
def frugal(servents: Servents, anna: Servent) -> Servent:
    """A servent that may open few files, and cannot change that."""
    return servents.start("frugal", joins=[anna], program="tests.helpers.frugalservent")


def test_without_room_for_more_files_that_is_told_and_the_rest_goes_on(
    servents: Servents, anna: Servent, frugal: Servent
) -> None:
    held: list[int] = []
    told = open_all(frugal.shared, held)

    assert told == errno.EMFILE
    assert len(held) > MAY_OPEN // 2
    anna.share("wanted", b"wanted")
    until(lambda: frugal.shows("wanted"))
    assert errno_name(os.open, frugal.network / "wanted", os.O_RDONLY) == "EMFILE"
    assert frugal.p2pfs("get", "wanted", "-o", servents.directory / "got").returncode == 0
    assert frugal.status()["neighbours"]
    assert len(os.listdir(frugal.shared)) == len(held)
    for descriptor in held[:10]:
        os.write(descriptor, b"written")
    for descriptor in held:
        os.close(descriptor)  # none of which fails
    until(lambda: "0" in os.listdir(anna.network))
    assert_answers(anna, frugal, "afterwards")


def open_all(directory: Path, held: list[int]) -> int | None:
    """Open files until one is refused; return its errno."""
    for number in range(2 * MAY_OPEN):
        try:
            held.append(os.open(directory / str(number), os.O_RDWR | os.O_CREAT))
        except OSError as error:
            return error.errno
    return None
