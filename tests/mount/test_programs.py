"""Real programs live in `shared/`, and whoever looks on gets whole versions or nothing.

Each test works in a directory of its own, while another servent reads all that it sees of
it. What was read must be, byte for byte, a version that a program had finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.mounted import PATIENCE_S, Servent
from tests.helpers.onlooker import Onlooker

pytestmark = pytest.mark.fuse

MANY = 2000
"""Files in an archive."""

Place = Callable[[str], tuple[Path, Onlooker]]


@pytest.fixture
def place(anna: Servent, ben: Servent) -> Iterator[Place]:
    """Make a directory in Anna's share, and let Ben look on."""
    onlookers: list[Onlooker] = []

    def start(name: str) -> tuple[Path, Onlooker]:
        (anna.shared / name).mkdir()
        onlookers.append(Onlooker(ben.network / name).__enter__())
        return anna.shared / name, onlookers[-1]

    yield start
    for onlooker in onlookers:
        onlooker.__exit__(None, None, None)


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=PATIENCE_S,
        env=os.environ | {"HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def tree_of(directory: Path) -> dict[str, bytes]:
    """Return the contents of all files, by path; dotfiles, which nobody else sees, left out."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("[!.]*")
        if path.is_file() and not any(part[0] == "." for part in path.relative_to(directory).parts)
    }


def make_tree(directory: Path, count: int, size: int) -> dict[str, bytes]:
    """Fill a directory with files of random bytes in sub-directories."""
    chance = random.Random(count)
    for number in range(count):
        file = directory / f"d{number % 7}" / f"file {number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(chance.randrange(size)))
    return tree_of(directory)


def assert_whole(onlooker: Onlooker, *versions: dict[str, bytes], below: str = "") -> None:
    """Check that every file that was seen, and that is known, had one of these contents."""
    seen = onlooker.seen()
    prefix = f"{below}/" if below else ""
    known = {prefix + path: set() for version in versions for path in version}
    for version in versions:
        for path, content in version.items():
            known[prefix + path].add(content)
    for path in known.keys() & seen.keys():
        assert seen[path] <= known[path], path
    path = next(iter(known))
    onlooker.wait_for(path, versions[-1][path.removeprefix(prefix)])


@needs("git")
def test_git_clones_checks_and_commits(place: Place, tmp_path: Path) -> None:
    shared, onlooker = place("git")
    origin = tmp_path / "origin"
    files = make_tree(origin, 60, 20_000)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    run("git", "init", "-q", cwd=origin)
    run("git", "add", ".", cwd=origin)
    run("git", *identity, "commit", "-q", "-m", "one", cwd=origin)

    run("git", "clone", "-q", f"file://{origin}", shared / "clone")
    run("git", "fsck", "--full", "--strict", cwd=shared / "clone")
    assert tree_of(shared / "clone") == files
    assert run("git", "status", "--porcelain", cwd=shared / "clone") == ""
    (shared / "clone" / "new").write_text("two")
    run("git", "add", ".", cwd=shared / "clone")
    run("git", *identity, "commit", "-q", "-m", "two", cwd=shared / "clone")
    run("git", "gc", "-q", cwd=shared / "clone")
    run("git", "fsck", "--full", "--strict", cwd=shared / "clone")

    assert_whole(onlooker, files | {"new": b"two"}, below="clone")
    assert not [path for path in onlooker.seen() if "/.git/" in path]


@needs("rsync")
def test_rsync_by_temporary_names_and_in_place(place: Place, tmp_path: Path) -> None:
    shared, onlooker = place("rsync")
    source = tmp_path / "source"
    old = make_tree(source, 40, 100_000)
    run("rsync", "-a", f"{source}/", f"{shared}/")
    assert tree_of(shared) == old

    for file in source.rglob("file *"):
        with file.open("r+b") as opened:
            opened.seek(file.stat().st_size // 2)
            opened.write(b"changed" * 100)
        os.utime(file, (2_000_000_000, 2_000_000_000))  # rsync goes by size and second
    new = tree_of(source)
    run("rsync", "-a", "--inplace", "--no-whole-file", f"{source}/", f"{shared}/")

    assert tree_of(shared) == new
    assert run("rsync", "-ai", f"{source}/", f"{shared}/") == ""
    assert_whole(onlooker, old, new)


@needs("tar")
def test_tar_unpacks_and_finds_no_difference(place: Place, tmp_path: Path) -> None:
    shared, onlooker = place("tar")
    files = make_tree(tmp_path / "source", MANY, 2_000)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "source", "source")

    run("tar", "-xf", tmp_path / "a.tar", cwd=shared)

    assert run("tar", "-df", tmp_path / "a.tar", cwd=shared) == ""
    assert_whole(onlooker, files, below="source")


@needs("unzip")
def test_unzip_unpacks_what_was_packed(place: Place, tmp_path: Path) -> None:
    shared, onlooker = place("unzip")
    files = make_tree(tmp_path / "source", 100, 20_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)

    run("unzip", "-q", tmp_path / "a.zip", cwd=shared)

    assert tree_of(shared) == files
    assert_whole(onlooker, files)


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "WAL"])
def test_sqlite_commits_and_rolls_back(place: Place, tmp_path: Path, mode: str) -> None:
    """Each connection that closes leaves a version, with whole transactions in it."""
    shared, onlooker = place(f"sqlite {mode}")
    path = shared / "data.sqlite"
    for number in range(12):
        database = sqlite3.connect(path)
        assert database.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0] == mode.lower()
        with database:
            database.execute("CREATE TABLE IF NOT EXISTS t (number INTEGER, filler BLOB)")
        with database:
            rows = [(number, os.urandom(200)) for _ in range(100)]
            database.executemany("INSERT INTO t VALUES (?, ?)", rows)
        database.execute("BEGIN")
        database.execute("DELETE FROM t")
        database.rollback()
        database.close()

    onlooker.wait_for("data.sqlite", path.read_bytes())
    for rows_seen in rows_of(onlooker.seen()["data.sqlite"], tmp_path):
        assert rows_seen % 100 == 0


def rows_of(databases: set[bytes], directory: Path) -> Iterator[int]:
    """Yield how many rows each has, if it has its table; each must be sound."""
    for number, content in enumerate(databases):
        copy = directory / str(number)
        copy.write_bytes(content)
        with sqlite3.connect(copy) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                yield database.execute("SELECT count(*) FROM t").fetchone()[0]
        database.close()


def test_two_processes_write_one_database(place: Place, tmp_path: Path) -> None:
    shared, onlooker = place("sqlite two")
    path = shared / "data.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE t (who INTEGER)")
    program = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], timeout=60)\n"
        "for _ in range(100):\n"
        "    with database: database.execute('INSERT INTO t VALUES (?)', (sys.argv[2],))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path), str(who)]) for who in (1, 2)
    ]

    assert [writer.wait(PATIENCE_S) for writer in writers] == [0, 0]
    counts = database.execute("SELECT who, count(*) FROM t GROUP BY who").fetchall()
    assert counts == [(1, 100), (2, 100)]
    database.close()
    onlooker.wait_for("data.sqlite", path.read_bytes())
    assert max(rows_of(onlooker.seen()["data.sqlite"], tmp_path)) == 200


@needs("vim")
def test_vim_saves(place: Place) -> None:
    shared, onlooker = place("vim")
    text = shared / "text.txt"
    versions = [b"".join(b"line %d\n" % n for n in range(3000 + edit)) for edit in range(4)]
    text.write_bytes(versions[0])

    for number in range(1, len(versions)):
        line = f"line {3000 + number - 1}"
        run("vim", "-es", "-u", "NONE", "-i", "NONE", "-c", f"$put ='{line}'", "-c", "wq", text)
        assert text.read_bytes() == versions[number]

    onlooker.wait_for("text.txt", versions[-1])
    assert onlooker.seen()["text.txt"] <= set(versions)
    assert set(onlooker.seen()) == {"text.txt"}


def test_saving_by_a_new_file_and_a_rename(place: Place) -> None:
    shared, onlooker = place("rename")
    versions = [bytes([number]) * 70_000 for number in range(30)]

    for version in versions:
        temporary = shared / "document.part"
        temporary.write_bytes(version)
        temporary.rename(shared / "document")

    onlooker.wait_for("document", versions[-1])
    assert onlooker.seen()["document"] <= set(versions)
    assert set(onlooker.seen()) == {"document"}


@needs("dd")
def test_dd_writes_into_the_middle_slowly(place: Place) -> None:
    shared, onlooker = place("dd")
    old = b"a" * 1_000_000
    (shared / "f").write_bytes(old)
    onlooker.wait_for("f", old)

    dd = subprocess.Popen(
        ["dd", f"of={shared / 'f'}", "bs=4096", "seek=10", "conv=notrunc", "iflag=fullblock"],
        stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert dd.stdin is not None
    for _ in range(10):
        dd.stdin.write(b"b" * 40_960)
        dd.stdin.flush()
        time.sleep(0.05)
    dd.stdin.close()

    assert dd.wait(PATIENCE_S) == 0
    new = old[:40_960] + b"b" * 409_600 + old[450_560:]
    assert (shared / "f").read_bytes() == new
    onlooker.wait_for("f", new)
    assert onlooker.seen()["f"] == {old, new}


@needs("cp", "du")
def test_cp_makes_holes(place: Place, tmp_path: Path) -> None:
    shared, onlooker = place("holes")
    content = b"begin" + bytes(8_000_000) + b"end"
    (tmp_path / "full").write_bytes(content)

    run("cp", "--sparse=always", tmp_path / "full", shared / "sparse")

    assert (shared / "sparse").read_bytes() == content
    assert int(run("du", "-k", shared / "sparse").split()[0]) < 1000
    onlooker.wait_for("sparse", content)
    assert onlooker.seen()["sparse"] == {content}


@pytest.mark.parametrize("lock", ["flock", "lockf"])
def test_a_lock_excludes_another_process(place: Place, lock: str) -> None:
    shared, _ = place(f"lock {lock}")
    (shared / "f").touch()
    program = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'r+') as file:\n"
        f"    fcntl.{lock}(file, fcntl.LOCK_EX)\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(shared / "f")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert other.stdin is not None
    assert other.stdout is not None
    assert other.stdout.readline() == b"locked\n"

    with (shared / "f").open("r+") as file:
        with pytest.raises(BlockingIOError):
            getattr(fcntl, lock)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        other.stdin.close()
        assert other.wait(PATIENCE_S) == 0
        getattr(fcntl, lock)(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other.stdout.close()


FIO_BYTES = 8 * 1024 * 1024


@needs("fio")
@pytest.mark.parametrize("engine", ["psync", "mmap"])
def test_fio_reads_what_it_wrote(place: Place, engine: str) -> None:
    shared, onlooker = place(f"fio {engine}")

    run(
        "fio", "--name=verify", f"--ioengine={engine}", "--rw=randwrite", "--bsrange=4k-64k",
        f"--size={FIO_BYTES}", "--numjobs=2", "--verify=crc32c", "--verify_fatal=1",
        "--do_verify=1", "--fallocate=none", cwd=shared,
    )  # fmt: skip

    for job in range(2):
        name = f"verify.{job}.0"
        content = (shared / name).read_bytes()
        onlooker.wait_for(name, content)
        # fio makes a file and closes it, maybe fills it and closes it, and then begins.
        seen = sorted(map(len, onlooker.seen()[name] - {content, b""}))
        assert seen in ([], [FIO_BYTES])


@needs("sha256sum")
def test_a_copy_while_others_read_it_is_whole(place: Place, tmp_path: Path) -> None:
    """A large file: it takes a while to come, to be hashed and to be fetched."""
    shared, onlooker = place("large")
    content = random.Random(1).randbytes(1_000_000) * 24
    (tmp_path / "large").write_bytes(content)

    run("cp", tmp_path / "large", shared / "large")

    onlooker.wait_for("large", content)
    assert onlooker.seen()["large"] == {content}
    assert run("sha256sum", shared / "large").startswith(hashlib.sha256(content).hexdigest())
