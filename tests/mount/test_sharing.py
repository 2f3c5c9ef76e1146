"""Directories that are shared where they lie, by the command and through the mount."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.control.statuses import VerbError
from tests.helpers.disks import far_disk, mounted_disk
from tests.helpers.mounted import Servents, errno_name, open_servents, until

pytestmark = pytest.mark.fuse

FILM_BYTES = 16_000_000
"""Far more than what is read to start a program in Python, or to see the ends of a file."""


@pytest.fixture
def servents(tmp_path: Path) -> Iterator[Servents]:
    with open_servents(tmp_path) as servents:
        yield servents


@pytest.fixture
def music(tmp_path: Path) -> Path:
    (tmp_path / "Music" / "jazz").mkdir(parents=True)
    (tmp_path / "Music" / "jazz" / "song").write_bytes(b"la la")
    return tmp_path / "Music"


def test_a_directory_is_shared_where_it_lies_and_stays_shared(
    servents: Servents, music: Path
) -> None:
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])

    said = anna.p2pfs("share", music).stdout

    assert said == f"{music}: shared as Music\n"
    assert ben.sees("Music/jazz/song").read_bytes() == b"la la"
    assert (anna.shared / "Music" / "jazz" / "song").read_bytes() == b"la la"
    assert os.listdir(anna.state / "shared") == []
    (music / "new").write_bytes(b"from outside")
    (anna.shared / "Music" / "newer").write_bytes(b"through the mount")
    assert ben.sees("Music/new").read_bytes() == b"from outside"
    assert ben.sees("Music/newer").read_bytes() == b"through the mount"
    assert (music / "newer").read_bytes() == b"through the mount"

    anna.kill()
    anna = servents.start("anna", joins=[ben])

    until(lambda: anna.status()["shared_files"] == 3)
    (row,) = anna.rows("shares")
    assert (row["name"], row["directory"], row["files"], row["away"]) == (
        "Music", str(music), 3, "",
    )  # fmt: skip
    assert anna.p2pfs("unshare", "Music").stdout == f"{music}: shared no more\n"
    until(lambda: not ben.shows("Music"))
    assert os.listdir(anna.shared) == []
    assert sorted(os.listdir(music)) == ["jazz", "new", "newer"]
    assert anna.rows("shares") == []


def test_what_is_shared_to_be_read_cannot_be_written(servents: Servents, music: Path) -> None:
    anna = servents.start("anna")
    (music / "jazz" / "song").chmod(0o666)

    anna.p2pfs("share", music, "--read-only", "--as", "songs")

    song = anna.shared / "songs" / "jazz" / "song"
    assert song.read_bytes() == b"la la"
    assert errno_name(song.write_bytes, b"!") == "EROFS"
    assert errno_name(song.unlink) == "EROFS"
    assert errno_name((anna.shared / "songs" / "new").mkdir) == "EROFS"
    assert errno_name((anna.shared / "songs").rmdir) == "EROFS"
    done = anna.p2pfs("publish", __file__)
    assert done.returncode == 0
    refused = anna.p2pfs("unpublish", "songs/jazz/song")
    assert refused.returncode == 1
    assert "Read-only" in refused.stderr


def test_the_verbs_work_below_it(servents: Servents, music: Path) -> None:
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])
    anna.p2pfs("share", music)
    ben.sees("Music/jazz/song")

    got = ben.p2pfs("get", "Music/jazz/song", "-o", servents.directory / "got")
    gone = anna.p2pfs("unpublish", "Music/jazz/song")

    assert got.returncode == gone.returncode == 0
    assert (servents.directory / "got").read_bytes() == b"la la"
    assert os.listdir(music / "jazz") == []
    until(lambda: not ben.shows("Music/jazz/song"))


def test_it_is_shared_no_more_by_its_name_its_place_or_its_path(
    servents: Servents, music: Path
) -> None:
    anna = servents.start("anna")
    shared = anna.shared / "songs"
    for name in ("songs", f"{music}/", f"{shared}/", "shared/songs", "songs/"):
        anna.p2pfs("share", music, "--as", "songs")

        assert anna.p2pfs("unshare", name).stdout == f"{music}: shared no more\n"
    assert anna.p2pfs("unshare", f"{shared}/").returncode == 3


def test_what_cannot_be_shared_is_told(servents: Servents, music: Path) -> None:
    anna = servents.start("anna")
    anna.p2pfs("share", music)
    (music / ".dot").mkdir()

    for words, status, text in (
        (["share", music], 2, "shared already, as Music"),
        (["share", music / "none"], 2, "No such file"),
        (["share", music / "jazz", "--as", "Music"], 2, "give another name with --as"),
        (["share", music / ".dot"], 2, "no name for a directory"),
        (["share", anna.state / "shared"], 2, "in shared/ already"),
        (["share", anna.shared], 2, "in a mount of p2pfs"),
        (["share", servents.directory], 2, "the mountpoint"),
        (["unshare", "none"], 3, "no directory is shared as none"),
    ):
        done = anna.p2pfs(*words)
        assert (done.returncode, text in done.stderr) == (status, True), done.stderr


def test_config_toml_shares_too(servents: Servents, music: Path) -> None:
    state = servents.directory / "anna.state"
    state.mkdir(mode=0o700)
    (state / "config.toml").write_text(f'[[share]]\ndirectory = "{music}"\nread-only = true\n')

    anna = servents.start("anna")

    until(lambda: anna.status()["shared_files"] == 1)
    assert errno_name((anna.shared / "Music" / "jazz").rmdir) == "EROFS"
    refused = anna.p2pfs("unshare", "Music")
    assert (refused.returncode, "config.toml" in refused.stderr) == (2, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount disks")
def test_a_disk_that_is_pulled_out_is_withdrawn_and_back_when_it_is_back(
    servents: Servents, tmp_path: Path
) -> None:
    content, stick = tmp_path / "content", tmp_path / "stick"
    content.mkdir()
    stick.mkdir()
    with mounted_disk(content):
        (content / "f").write_bytes(b"on the stick")
        bind = ["mount", "--bind", content, stick]
        subprocess.run(bind, check=True)
        anna = servents.start("anna")
        ben = servents.start("ben", joins=[anna])
        anna.p2pfs("share", stick)
        assert ben.sees("stick/f").read_bytes() == b"on the stick"

        subprocess.run(["umount", stick], check=True)  # nothing of ours keeps it busy

        until(lambda: not ben.shows("stick"))
        assert os.listdir(anna.shared) == []
        assert errno_name((anna.shared / "stick" / "new").write_bytes, b"x") == "ENOENT"
        (row,) = anna.rows("shares")
        assert (row["files"], row["away"]) == (1, f"nothing is mounted at {stick}")

        subprocess.run(bind, check=True)
        assert ben.sees("stick/f").read_bytes() == b"on the stick"
        told = [row["text"] for row in anna.rows("events") if row["path"] == "shared/stick"]
        assert told == [f"{stick} is not shared now: nothing is mounted at {stick}", "shared again"]
        subprocess.run(["umount", stick], check=True)
    assert os.listdir(stick) == []


def test_a_disk_that_is_silent_is_withdrawn_and_holds_up_nothing_else(
    servents: Servents, music: Path, tmp_path: Path
) -> None:
    """Its server was stopped, or the network to it is gone: a call waits as long as that is so."""
    place = tmp_path / "nas"
    place.mkdir()
    with far_disk(music, place) as server:
        anna = servents.start("anna")
        ben = servents.start("ben", joins=[anna])
        anna.p2pfs("share", place)
        assert ben.sees("nas/jazz/song").read_bytes() == b"la la"

        server.send_signal(signal.SIGSTOP)

        until(lambda: not ben.shows("nas"))
        (row,) = anna.rows("shares")
        assert (row["files"], row["away"]) == (1, "its disk does not answer")
        assert errno_name((anna.shared / "nas" / "jazz" / "song").read_bytes) == "ENOENT"
        anna.share("own", b"own")
        assert ben.sees("own").read_bytes() == b"own"
        assert anna.p2pfs("share", music).returncode == 0
        assert ben.sees("Music/jazz/song").read_bytes() == b"la la"
        anna.kill()
        anna = servents.start("anna", joins=[ben])
        assert ben.sees("own").read_bytes() == b"own"

        server.send_signal(signal.SIGCONT)

        assert ben.sees("nas/jazz/song").read_bytes() == b"la la"
        anna.unmount()


def test_a_disk_that_keeps_no_inode_numbers_is_not_hashed_again(
    servents: Servents, music: Path, tmp_path: Path
) -> None:
    """As no stick with FAT does: each mount gives other ones."""
    place = tmp_path / "stick"
    place.mkdir()
    (music / "film").write_bytes(os.urandom(FILM_BYTES))
    anna = servents.start("anna")
    with far_disk(music, place):
        anna.p2pfs("share", place)
        anna.wait_published("stick/film")
        anna.wait_published("stick/jazz/song")
        former = (place / "film").stat().st_ino
    until(lambda: anna.status()["shared_files"] == 0)
    with far_disk(music, place) as server:
        assert (place / "film").stat().st_ino != former
        until(lambda: anna.status()["shared_files"] == 2)
        anna.share("later", b"later")

        anna.wait_published("stick/film")
        read = Path(f"/proc/{server.pid}/io").read_text().split()
        assert int(read[read.index("rchar:") + 1]) < FILM_BYTES
        anna.unmount()


def test_what_is_asked_of_our_own_mount_holds_up_nothing(servents: Servents) -> None:
    """The kernel asks us for it, and we must be free to answer."""
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])
    ben.send(signal.SIGSTOP)  # who is asked for a name that is not known, and does not answer

    for path in ("network/nowhere/x", "peers/nobody/x"):
        with pytest.raises(VerbError, match="it is in a mount of p2pfs"):
            anna.ask("share", directory=str(anna.mountpoint / path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount disks")
def test_another_file_system_in_it_is_not_shared_with_it(servents: Servents, music: Path) -> None:
    (music / "stick").mkdir()
    with mounted_disk(music / "stick"):
        (music / "stick" / "f").write_bytes(b"f")
        anna = servents.start("anna")
        anna.p2pfs("share", music)
        until(lambda: anna.status()["shared_files"] == 1)

        reason = os.getxattr(anna.shared / "Music" / "stick", "user.p2pfs.reason").decode()
        assert "on another file system" in reason

        anna.p2pfs("share", music / "stick")
        until(lambda: anna.status()["shared_files"] == 2)
        anna.p2pfs("unshare", "stick")


def test_a_file_of_patterns_keeps_things_private(servents: Servents, music: Path) -> None:
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])
    (music / ".p2pfsignore").write_text("*.wip\n")
    (music / "draft.wip").write_bytes(b"not yet")
    anna.p2pfs("share", music)
    ben.sees("Music/jazz/song")
    assert not ben.shows("Music/draft.wip")

    (anna.shared / "Music" / ".p2pfsignore").write_text("jazz/\n")

    assert ben.sees("Music/draft.wip").read_bytes() == b"not yet"
    until(lambda: not ben.shows("Music/jazz"))
    reason = os.getxattr(anna.shared / "Music" / "jazz", "user.p2pfs.reason")
    assert reason == b"a .p2pfsignore says so"


def test_what_is_for_some_alone_is_seen_by_them_alone(servents: Servents, music: Path) -> None:
    anna = servents.start("anna")
    ben = servents.start("ben", joins=[anna])
    cleo = servents.start("cleo", joins=[anna])
    ben_id = str(ben.status()["id"])

    said = anna.p2pfs("share", music, "--to", ben_id).stdout

    assert said == f"{music}: shared as Music, with 1 peer and nobody else\n"
    (row,) = anna.rows("shares")
    assert row["to"] == [ben_id]
    (anna.shared / "open.txt").write_text("for all")
    song = ben.mountpoint / "peers" / "anna" / "Music" / "jazz" / "song"
    until(song.exists)
    assert song.read_bytes() == b"la la"
    assert cleo.sees("open.txt").read_text() == "for all"
    assert os.listdir(cleo.mountpoint / "peers" / "anna") == ["open.txt"]
    for one in (ben, cleo):
        assert "Music" not in os.listdir(one.mountpoint / "network")
    link = anna.p2pfs("link", anna.shared / "Music" / "jazz" / "song").stdout.strip()
    assert "nobody within the horizon has it" in cleo.p2pfs("open", link).stderr


def test_what_a_killed_holder_showed_to_some_alone_cannot_be_reached_and_is_not_absent(
    servents: Servents, music: Path
) -> None:
    anna = servents.start("anna")
    cleo = servents.start("cleo", joins=[anna])
    ben = servents.start("ben", "--stall-timeout", "2", joins=[anna, cleo])
    anna.p2pfs("share", music, "--to", str(ben.status()["id"]))
    (cleo.shared / "open.txt").write_text("for all")
    jazz = ben.mountpoint / "peers" / "anna" / "Music" / "jazz"
    until((jazz / "song").exists)
    ben.sees("open.txt")

    anna.kill()

    until(lambda: ben.neighbours() == ["cleo"])
    until(lambda: errno_name((jazz / "another").read_bytes) == "EHOSTUNREACH")
    for _look in range(3):
        assert errno_name((jazz / "song").read_bytes) == "EHOSTUNREACH"
        assert errno_name((jazz / "another").read_bytes) == "EHOSTUNREACH"
        assert os.listdir(ben.network) == ["open.txt"]
        assert sorted(os.listdir(ben.mountpoint / "peers")) == ["anna", "cleo"]
