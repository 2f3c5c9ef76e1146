"""The seven use cases, through real mounts and through the command.

The seventh, a download that fails, is in `test_failures`.
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import json
import mmap
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pfs.control import ExitStatus
from tests.helpers.mounted import (
    PATIENCE_S,
    Rogue,
    Servent,
    Servents,
    errno_name,
    is_mounted,
    until,
)

pytestmark = pytest.mark.fuse

BLOCK = 256 * 1024

FORGOTTEN_S = 20.0
"""Who leaves says so, and is no longer shown; who is only silent is for longer than this."""


@pytest.fixture(scope="module")
def anna(servents: Servents) -> Rogue:
    """Who shares. She keeps account of the blocks that she is asked for."""
    return servents.start_rogue("anna")


@pytest.fixture(scope="module")
def ben(servents: Servents, anna: Rogue) -> Servent:
    """Who shares some of the same."""
    return servents.start("ben", joins=[anna])


@pytest.fixture(scope="module")
def cleo(servents: Servents, anna: Rogue, ben: Servent) -> Servent:
    """Who searches and downloads."""
    return servents.start("cleo", joins=[anna, ben])


def content(name: str, size: int) -> bytes:
    """Return bytes that no other name has: the same would come from the cache."""
    return random.Random(name).randbytes(size)


def run(*command: str | Path) -> str:
    """Run a program that must succeed, and return what it prints."""
    done = subprocess.run(
        command, env=os.environ | {"LC_ALL": "C.UTF-8"}, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


# 1. Join.


@dataclass
class Doors:
    """Addresses where nobody can be joined through."""

    refusing: str
    silent: str
    web: str
    private: str
    own: str
    unknown: str = "no-such-host.invalid:4774"


@pytest.fixture(scope="module")
def stranger(servents: Servents, anna: Rogue) -> Servent:
    return servents.start("stranger", mounted=False)


@pytest.fixture(scope="module")
def doors(servents: Servents, stranger: Servent) -> Iterator[Doors]:
    key = servents.directory / "key"
    key.write_text("correct horse battery staple")
    private = servents.start("private", "--network-key-file", key, mounted=False)
    with contextlib.ExitStack() as stack:
        refusing = stack.enter_context(socket.socket())
        refusing.bind(("127.0.0.1", 0))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        web = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=answer_as_web_server, args=(web,), daemon=True).start()
        addresses = (f"127.0.0.1:{one.getsockname()[1]}" for one in (refusing, silent, web))
        yield Doors(*addresses, private=private.address, own=stranger.address)


def answer_as_web_server(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture(scope="module")
def attempts(
    doors: Doors, stranger: Servent
) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """Try to join everywhere at once, since some take their time; ask by the door's name."""
    with ThreadPoolExecutor() as pool:
        tries = {
            door: pool.submit(stranger.p2pfs, "join", address)
            for door, address in vars(doors).items()
        }
        yield lambda door: tries[door].result()


@pytest.mark.parametrize(
    ("door", "reason"),
    [
        ("refusing", "refused"),
        ("silent", "no answer"),
        ("web", "HTTP"),
        ("private", "network key"),
        ("own", "itself"),
        ("unknown", "resolve"),
    ],
)
def test_a_join_that_fails_says_why_in_one_line(attempts, stranger, door, reason) -> None:
    done = attempts(door)

    assert done.returncode == ExitStatus.UNREACHABLE
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr
    assert stranger.neighbours() == []


def test_join_and_leave_by_the_command(anna: Rogue, stranger: Servent) -> None:
    joined = stranger.p2pfs("join", anna.address)

    assert (joined.returncode, joined.stderr) == (0, "")
    assert joined.stdout == f"joined through anna at {anna.address}\n"
    assert "anna" in stranger.neighbours()
    until(lambda: "stranger" in anna.neighbours())

    assert stranger.p2pfs("leave").returncode == 0
    assert stranger.neighbours() == []
    until(lambda: "stranger" not in anna.neighbours(), within_s=FORGOTTEN_S)


def test_mount_goes_on_trying_until_the_address_comes_up(servents: Servents) -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        early = servents.start("early", "--join", address, wait=False)
        until(lambda: f"cannot join yet: connection refused by {address}" in early.output())

    late = servents.start("late", "--listen", address, mounted=False)

    early.wait_ready()
    until(lambda: early.neighbours() == ["late"])
    early.remove()
    late.remove()


# 2. Leave.


@pytest.mark.parametrize("how", ["unmount", "SIGTERM"])
def test_who_leaves_is_forgotten_and_leaves_nothing(
    servents: Servents, anna: Rogue, how: str
) -> None:
    sockets = servents.directory / "runtime" / "p2pfs"
    others = set(os.listdir(sockets))
    leaver = servents.start(f"leaver-{how}", joins=[anna])
    until(lambda: leaver.name in anna.neighbours())

    if how == "unmount":
        leaver.unmount()
    else:
        leaver.send(signal.SIGTERM)
        assert leaver.wait() == 0

    until(lambda: leaver.name not in anna.neighbours(), within_s=FORGOTTEN_S)
    assert not is_mounted(leaver.mountpoint)
    assert os.listdir(leaver.mountpoint) == []
    assert set(os.listdir(sockets)) == others


def test_after_kill_9_the_next_mount_has_all_that_was_shared_and_cached(
    servents: Servents, anna: Rogue
) -> None:
    large = content("large", 40 * BLOCK)
    anna.share("large", large)
    victim = servents.start("victim", joins=[anna])
    victim.share("mine", b"kept")
    assert victim.sees("large").read_bytes() == large
    assert anna.sees("mine").read_bytes() == b"kept"
    victim.wait_cache_closed()

    victim.kill()
    until(lambda: "victim" not in anna.neighbours())
    assert is_mounted(victim.mountpoint)
    assert errno_name(os.statvfs, victim.mountpoint) == "ENOTCONN"
    anna.forget_served()
    again = servents.start("victim", joins=[anna])

    assert (again.shared / "mine").read_bytes() == b"kept"
    assert anna.sees("mine").read_bytes() == b"kept"
    again.sees("large")
    assert again.attribute("large", "cached") == "100"
    assert (again.network / "large").read_bytes() == large
    assert anna.served() == []
    again.unmount()


# 3. Search.


def test_search_lists_path_size_id_and_every_peer(anna: Rogue, ben: Servent, cleo: Servent) -> None:
    for servent in (anna, ben):
        servent.share("nature/Blue Whale.mkv", content("whale", 1000))
    whale = cleo.sees("nature/Blue Whale.mkv", sources=2)

    done = cleo.p2pfs("search", "whale", "BLUE", "--json")

    assert done.returncode == 0
    (row,) = json.loads(done.stdout)
    assert set(row) == {"path", "size", "id", "peers"}
    assert (row["path"], row["size"]) == ("nature/Blue Whale.mkv", 1000)
    assert row["id"] == os.getxattr(whale, "user.p2pfs.id").decode()
    peers = {peer["name"]: (peer["id"], peer["address"]) for peer in row["peers"]}
    assert peers == {one.name: (one.status()["id"], one.address) for one in (anna, ben)}
    assert sorted(cleo.attribute("nature/Blue Whale.mkv", "peers").split(", ")) == ["anna", "ben"]
    shown = cleo.p2pfs("search", "whale").stdout.strip().split("\t")
    assert shown[:3] == ["nature/Blue Whale.mkv", "1000 B", row["id"]]


def test_a_search_that_finds_nothing_says_so(cleo: Servent) -> None:
    done = cleo.p2pfs("search", "unicorn")

    assert done.returncode == ExitStatus.NOT_FOUND
    assert (done.stdout, done.stderr) == ("", "p2pfs: nothing found\n")


def test_a_path_is_found_without_a_listing(anna: Rogue, cleo: Servent) -> None:
    anna.share("deep/down/below.txt", b"below")

    until((cleo.network / "deep/down/below.txt").exists)

    assert (cleo.network / "deep/down/below.txt").read_bytes() == b"below"


# 4 and 5. Publish, unpublish.


def by_cp(source: Path, servent: Servent) -> None:
    run("cp", source, servent.shared)


def by_mv(source: Path, servent: Servent) -> None:
    run("mv", source, servent.shared)


def by_rsync(source: Path, servent: Servent) -> None:
    run("rsync", "-a", source, servent.shared)


def by_an_editor(source: Path, servent: Servent) -> None:
    """Save it as editors do: a backup, a new file under another name, a rename over the old."""
    target = servent.shared / source.name
    target.write_bytes(b"what was there before")
    shutil.copy2(target, f"{target}~")
    temporary = target.with_name(f".{source.name}.new")
    with temporary.open("wb") as file:
        file.write(source.read_bytes())
        os.fsync(file.fileno())
    temporary.rename(target)


def by_the_verb(source: Path, servent: Servent) -> None:
    done = servent.p2pfs("publish", source)
    assert done.stdout == f"{source.name}: published\n", done.stderr


@pytest.mark.parametrize("publish", [by_cp, by_mv, by_rsync, by_an_editor, by_the_verb])
def test_what_is_published_is_seen_and_what_is_unpublished_is_not(
    anna: Rogue, cleo: Servent, tmp_path: Path, publish: Callable[[Path, Servent], None]
) -> None:
    name = f"{publish.__name__}.bin"
    data = content(name, BLOCK + 1000)
    (tmp_path / name).write_bytes(data)

    publish(tmp_path / name, anna)

    anna.wait_published(name)
    assert cleo.sees(name).read_bytes() == data
    assert [shown for shown in os.listdir(cleo.network) if name in shown] == [name]

    if publish is by_the_verb:
        assert anna.p2pfs("unpublish", name).returncode == 0
    else:
        run("rm", anna.shared / name)

    until(lambda: not cleo.shows(name))
    until(lambda: errno_name(os.stat, cleo.network / name) == "ENOENT")


def test_a_renamed_file_is_seen_under_its_new_name(anna: Rogue, cleo: Servent) -> None:
    anna.share("old name", b"renamed")
    cleo.sees("old name")

    run("mv", anna.shared / "old name", anna.shared / "new name")

    assert cleo.sees("new name").read_bytes() == b"renamed"
    until(lambda: not cleo.shows("old name"))


NFC = unicodedata.normalize("NFC", "Käse é")
NFD = unicodedata.normalize("NFD", "Brötchen é")
LONGEST = "ü" * 127 + "x"

NAMES = {
    "blanks": "  two  words .txt",
    "form C": NFC,
    "form D": NFD,
    "255 bytes": LONGEST,
    "another script": "青い鯨.mkv",
    "quotes": 'it\'s "$HOME" `id`\\;*?[x]',
}

SIZES = {"nothing": 0, "one byte": 1, "one block": BLOCK, "a block and a byte": BLOCK + 1}


@pytest.fixture(scope="module")
def oddities(anna: Rogue) -> None:
    """Publish all of them at once."""
    for directory, sizes in {"names": dict.fromkeys(NAMES.values(), 10), "sizes": SIZES}.items():
        (anna.shared / directory).mkdir()
        for name, size in sizes.items():
            (anna.shared / directory / name).write_bytes(content(name, size))


@pytest.mark.usefixtures("oddities")
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_arrive_as_they_are_or_in_form_c(anna: Rogue, cleo: Servent, name: str) -> None:
    assert name in os.listdir(anna.shared / "names")

    seen = cleo.sees("names/" + unicodedata.normalize("NFC", name))

    assert seen.read_bytes() == content(name, 10)


@pytest.mark.usefixtures("oddities")
@pytest.mark.parametrize("name", SIZES)
def test_files_of_every_size_arrive(cleo: Servent, name: str) -> None:
    seen = cleo.sees(f"sizes/{name}")

    assert seen.stat().st_size == SIZES[name]
    assert seen.read_bytes() == content(name, SIZES[name])


def test_five_gibibytes_are_published_and_read_at_their_end(anna: Rogue, cleo: Servent) -> None:
    size, end = 5 * 1024**3, b"the end of five gibibytes"
    with (anna.shared / "sparse").open("wb") as file:
        file.seek(size - len(end))
        file.write(end)
    anna.wait_published("sparse")

    with cleo.sees("sparse").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == size
        file.seek(-100, os.SEEK_END)
        assert file.read() == bytes(100 - len(end)) + end
        file.seek(2**32 + 5)
        assert file.read(1000) == bytes(1000)
    (anna.shared / "sparse").unlink()


def test_a_name_that_is_not_utf8_is_refused_with_a_message(anna: Rogue, tmp_path: Path) -> None:
    name = b"caf\xe9"
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    source.write_bytes(b"latin 1")
    target = os.fsencode(anna.shared) + b"/" + name

    assert errno_name(os.open, target, os.O_CREAT | os.O_WRONLY) == "EILSEQ"
    copied = subprocess.run(
        ["cp", source, anna.shared],
        env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert copied.returncode == 1
    assert "Invalid or incomplete multibyte or wide character" in copied.stderr
    verb = anna.p2pfs("publish", source)
    assert verb.returncode in (ExitStatus.FAILED, ExitStatus.USAGE)
    assert verb.stderr.count("\n") == 1
    assert "refused a name that is not UTF-8" in anna.output()
    assert name not in os.listdir(os.fsencode(anna.shared))


@pytest.mark.parametrize("name", [".hidden", "~$letter.docx", "film.mkv.part", ".git/config"])
def test_what_is_private_stays_so(anna: Rogue, cleo: Servent, name: str) -> None:
    private = anna.shared / name
    private.parent.mkdir(exist_ok=True)
    private.write_bytes(b"private")
    assert private.read_bytes() == b"private"
    marker = f"after {name.replace('/', '-').lstrip('.')}.txt"
    anna.share(marker, b"published later")

    cleo.sees(marker)

    assert os.getxattr(private, "user.p2pfs.state") == b"private"
    assert name.partition("/")[0] not in os.listdir(cleo.network)
    assert errno_name(os.stat, cleo.network / name) == "ENOENT"


# 6. Download.


def test_a_file_of_two_sources_comes_whole(
    anna: Rogue, ben: Servent, cleo: Servent, tmp_path: Path
) -> None:
    data = content("common", 40 * BLOCK)
    for servent in (anna, ben):
        servent.share("common", data)

    run("cp", cleo.sees("common", sources=2), tmp_path)

    assert (tmp_path / "common").read_bytes() == data


def test_the_command_downloads(anna: Rogue, cleo: Servent, tmp_path: Path) -> None:
    data = content("got", 3 * BLOCK + 5)
    anna.share("got", data)
    cleo.sees("got")

    done = cleo.p2pfs("get", "got", "-o", tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/got\n"
    assert (tmp_path / "got").read_bytes() == data


def test_two_readers_of_one_file_share_its_transfers(anna: Rogue, cleo: Servent) -> None:
    data = content("read twice", 16 * BLOCK)
    anna.share("read twice", data)
    path = cleo.sees("read twice")
    anna.forget_served()
    anna.be("slow")

    with ThreadPoolExecutor() as pool:
        read = [pool.submit(path.read_bytes), pool.submit(path.read_bytes)]
        results = [one.result() for one in read]
    anna.be("honest")

    assert results == [data, data]
    assert sorted(anna.served()) == list(range(16))


def test_twenty_files_are_read_at_once(anna: Rogue, cleo: Servent) -> None:
    contents = {f"twenty/{number}": content(f"twenty/{number}", 300_000) for number in range(20)}
    for path, data in contents.items():
        (anna.shared / path).parent.mkdir(exist_ok=True)
        (anna.shared / path).write_bytes(data)
    until(lambda: all(map(cleo.shows, contents)))

    with ThreadPoolExecutor(20) as pool:
        read = list(pool.map(lambda path: (cleo.network / path).read_bytes(), contents))

    assert read == list(contents.values())


def test_seeks_back_and_forth_get_the_bytes_of_their_place(anna: Rogue, cleo: Servent) -> None:
    data = content("sought", 100 * BLOCK + 7)
    anna.share("sought", data)
    places = random.Random(1)

    with cleo.sees("sought").open("rb", buffering=0) as file:
        for _ in range(60):
            offset, length = places.randrange(len(data)), places.randrange(1, 70_000)
            assert os.pread(file.fileno(), length, offset) == data[offset : offset + length]
        file.seek(-1, os.SEEK_END)
        assert file.read(10) == data[-1:]
        assert file.read(10) == b""


def test_a_file_can_be_mapped_into_memory(anna: Rogue, cleo: Servent) -> None:
    data = content("mapped", 10 * BLOCK + 3)
    anna.share("mapped", data)

    with (
        cleo.sees("mapped").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert mapped[-10:] == data[-10:]
        assert mapped.find(data[5 * BLOCK : 5 * BLOCK + 50]) == 5 * BLOCK
        assert mapped[:] == data


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of a hundred files with real names, sizes and times: parts of Python itself."""
    original = tmp_path_factory.mktemp("original") / "python"
    for package in (email, json, asyncio):
        assert package.__file__ is not None
        source = Path(package.__file__).parent
        no_caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, original / source.name, ignore=no_caches)
    os.utime(original, (10**9, 10**9))  # rsync leaves a time alone that is right to the second
    return original


@pytest.fixture(scope="module")
def seen(anna: Rogue, cleo: Servent, original: Path) -> Path:
    """The same, where others see it."""
    run("cp", "-a", original, anna.shared)
    until(lambda: cleo.shows("python") and entries(cleo.network / "python") == entries(original))
    return cleo.network / "python"


def entries(tree: Path) -> list[str]:
    """Return what `find` tells: the path and time of everything, and the size of files."""
    times = ["-printf", r"%P\t%T@\n"]
    sizes = ["-type", "f", "-printf", r"%P\t%s\n"]
    return sorted((run("find", tree, *times) + run("find", tree, *sizes)).splitlines())


def test_find_ls_and_du_tell_sizes_and_times_and_fetch_nothing(
    anna: Rogue, cleo: Servent, original: Path, seen: Path
) -> None:
    anna.forget_served()

    assert entries(seen) == entries(original)
    listed, wanted = (
        [line.split()[4:] for line in run("ls", "-lR", tree).splitlines() if line[0:1] == "-"]
        for tree in (seen, original)
    )
    assert listed == wanted
    total = sum(file.stat().st_size for file in original.rglob("*.py"))
    assert run("du", "-cb", *seen.rglob("*.py")).splitlines()[-1] == f"{total}\ttotal"
    assert anna.served() == []


def test_rsync_copies_bytes_sizes_and_times_and_then_has_nothing_to_do(
    original: Path, seen: Path, tmp_path: Path
) -> None:
    rsync = ["rsync", "-a", "--itemize-changes", f"{seen.parent}/", tmp_path / "elsewhere"]
    rsync += ["--include=/python/***", "--exclude=*"]

    assert run(*rsync)

    copy = tmp_path / "elsewhere" / "python"
    assert run("diff", "-r", original, copy) == ""
    assert entries(copy) == entries(original)
    assert run(*rsync) == ""
    assert run("rsync", "-a", "--checksum", "-n", "-i", f"{original}/", f"{copy}/", "--no-p") == ""


def test_programs_read_what_others_share(original: Path, seen: Path) -> None:
    file = "email/message.py"

    assert run("cmp", seen / file, original / file) == ""
    assert run("sha256sum", seen / file).split()[0] == run("sha256sum", original / file).split()[0]
    assert run("head", "-c", "1000", seen / file) == run("head", "-c", "1000", original / file)
    blocks = ["bs=1000", "skip=7", "count=3", "status=none"]
    assert run("dd", f"if={seen / file}", *blocks) == run("dd", f"if={original / file}", *blocks)


# All of it in a chain: A knows B, B knows C, C knows D, and nobody has room for others.


def test_a_chain_finds_within_its_horizon_and_copies_directly(servents: Servents) -> None:
    data = content("far", 10 * BLOCK)
    (servents.directory / "far.bin").write_bytes(data)
    first = servents.start("first", "--max-neighbours", "1", mounted=False)
    assert first.p2pfs("publish", servents.directory / "far.bin").returncode == 0
    middle = [first]
    for name in ("second", "third"):
        joins = [middle[-1]]
        middle.append(servents.start(name, "--max-neighbours", "2", mounted=False, joins=joins))
    near = servents.start("fourth", "--max-neighbours", "1", "--ttl", "2", joins=[middle[-1]])
    assert near.neighbours() == ["third"]

    assert near.p2pfs("search", "far").returncode == ExitStatus.NOT_FOUND
    assert errno_name(os.stat, near.network / "far.bin") == "ENOENT"
    assert os.listdir(near.network) == []

    near.unmount()
    until(lambda: middle[-1].neighbours() == ["second"])
    far = servents.start("fourth", "--max-neighbours", "1", "--ttl", "4", joins=[middle[-1]])
    assert far.p2pfs("search", "far").returncode == 0
    assert far.sees("far.bin").stat().st_size == len(data)

    with far.sees("far.bin").open("rb") as file:
        for servent in middle[1:]:
            servent.send(signal.SIGSTOP)
        assert file.read() == data
        for servent in middle[1:]:
            servent.send(signal.SIGCONT)
    assert far.neighbours() == ["third"]
