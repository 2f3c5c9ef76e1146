"""The state directory: whose it is, who may look into it, and what a power cut leaves in it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pfs.config import Config, load_config
from p2pfs.errors import UsageError
from p2pfs.state import (
    Leftovers,
    lock_state,
    make_directory,
    make_state,
    open_private,
    remove_file,
    replace_file,
)
from tests.helpers.powercut import check_cuts, power_may_fail


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def config(state: Path) -> Config:
    return load_config({}, state_directory=str(state))


@pytest.fixture
def leftovers(state: Path) -> Leftovers:
    return Leftovers(state / "leftovers")


@pytest.fixture
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Whose it is.


@pytest.mark.usefixtures("_no_umask")
def test_a_new_state_directory_is_its_owners_alone(config: Config):
    with lock_state(config):
        assert mode(config.state_directory) == 0o700
        assert mode(config.state_directory / "lock") == 0o600


@pytest.mark.parametrize("names", [[], ["config.toml"], ["config.toml", "shared", "lost+found"]])
def test_one_that_the_user_prepared_is_closed_to_others(config: Config, state: Path, names):
    state.mkdir(mode=0o755)
    for name in names:
        (state / name).mkdir()

    make_state(config)

    assert mode(state) == 0o700


def test_one_from_a_backup_is_closed_to_others(config: Config, state: Path):
    state.mkdir(mode=0o755)
    for name in ("identity.key", "index.sqlite", "notes.txt"):
        (state / name).touch()

    make_state(config)

    assert mode(state) == 0o700


@pytest.mark.parametrize("others", [0o755, 0o750, 0o701, 0o1777])
def test_a_directory_of_the_users_that_others_can_enter_is_refused_and_left_alone(
    config: Config, state: Path, others: int
):
    state.mkdir()
    state.chmod(others)
    (state / "thesis.odt").touch()

    with pytest.raises(UsageError, match=f"chmod 700 {state}"):
        make_state(config)

    assert mode(state) == others
    assert os.listdir(state) == ["thesis.odt"]


def test_a_private_directory_of_the_users_may_hold_a_servent(config: Config, state: Path):
    state.mkdir(mode=0o700)
    (state / "thesis.odt").touch()

    make_state(config)

    assert os.listdir(state) == ["thesis.odt"]


@pytest.mark.parametrize(
    "name",
    ["cache", "index.sqlite", "leftovers", "peers.json", "pins.json", "searches", "shares.json"],
)
def test_what_is_somebody_elses_is_not_taken_for_a_servents(config: Config, state: Path, name: str):
    """It would be emptied, replaced or removed as our own."""
    state.mkdir(mode=0o700)
    (state / name).touch()

    with pytest.raises(UsageError, match=f"{name} in it would be taken for one's own"):
        make_state(config)


def test_a_file_system_that_cannot_keep_others_out_is_refused(
    config: Config, state: Path, monkeypatch: pytest.MonkeyPatch
):
    state.mkdir(mode=0o755)
    monkeypatch.setattr(os, "chmod", lambda *_arguments, **_options: None)

    with pytest.raises(UsageError, match="its file system cannot keep them out"):
        make_state(config)


# What is written there.


@pytest.mark.usefixtures("_no_umask")
def test_a_private_file_is_private_whatever_the_umask(tmp_path: Path):
    (tmp_path / "old").write_text("x")
    (tmp_path / "old").chmod(0o666)
    for name in ("old", "new"):
        with open(tmp_path / name, "a", opener=open_private) as file:
            file.write("y")
        assert mode(tmp_path / name) == 0o600
    assert (tmp_path / "old").read_text() == "xy"


@pytest.mark.usefixtures("_no_umask")
def test_a_private_file_is_private_from_its_first_moment(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "fchmod", lambda _descriptor, _mode: None)

    os.close(open_private(str(tmp_path / "new"), os.O_WRONLY | os.O_CREAT))

    assert mode(tmp_path / "new") == 0o600


@pytest.mark.usefixtures("_no_umask")
def test_a_replaced_file_is_its_owners_alone(tmp_path: Path):
    replace_file(tmp_path / "f", b"secret")

    assert mode(tmp_path / "f") == 0o600
    assert os.listdir(tmp_path) == ["f"]


def test_what_cannot_be_written_leaves_the_old(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f.new").mkdir()

    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "f", b"new")

    assert (tmp_path / "f").read_bytes() == b"old"


def content_of(disk: Path) -> bytes | None:
    return (disk / "f").read_bytes() if (disk / "f").exists() else None


def test_what_a_full_disk_took_of_it_does_not_stay(tmp_path: Path, monkeypatch):
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    replace_file(tmp_path / "f", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        replace_file(tmp_path / "f", b"new")

    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("old", [None, b"", b"before", b"before" * 50_000])
@pytest.mark.parametrize("new", [b"", b"now", b"now" * 100_000])
def test_a_power_cut_leaves_the_old_content_or_the_new(tmp_path: Path, old, new):
    directory = tmp_path / "d"
    directory.mkdir()
    if old is not None:
        (directory / "f").write_bytes(old)

    with power_may_fail(directory) as cuts:
        replace_file(directory / "f", new)

    check_cuts(cuts, tmp_path / "disks", content_of, old, new)


def test_a_power_cut_leaves_a_file_or_none_after_its_removal(tmp_path: Path):
    directory = tmp_path / "d"
    directory.mkdir()
    (directory / "f").write_bytes(b"x")

    with power_may_fail(directory) as cuts:
        remove_file(directory / "f")

    check_cuts(cuts, tmp_path / "disks", content_of, b"x", None)
    remove_file(directory / "f")  # it may be gone already


@pytest.mark.usefixtures("_no_umask")
def test_a_new_directory_is_its_owners_alone_from_its_first_moment(tmp_path: Path):
    make_directory(tmp_path / "share" / "p2pfs")

    assert mode(tmp_path / "share" / "p2pfs") == 0o700


def test_a_new_directory_is_there_after_a_power_cut_with_all_above_it(tmp_path: Path):
    above = tmp_path / "home"
    above.mkdir()

    with power_may_fail(above) as cuts:
        make_directory(above / "share" / "p2pfs")

    check_cuts(cuts, tmp_path / "disks", lambda disk: (disk / "share/p2pfs").is_dir(), False, True)


def test_a_file_system_that_syncs_no_directories_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    replace_file(tmp_path / "f", b"x")

    assert (tmp_path / "f").read_bytes() == b"x"


# What is ours among the user's files.


def test_what_was_left_is_removed_at_the_next_start(state: Path, leftovers: Leftovers, tmp_path):
    file = tmp_path / "left \udcff"
    file.touch()
    leftovers.note(str(file), file.stat().st_ino)

    Leftovers(state / "leftovers").remove()

    assert not file.exists()
    assert os.listdir(state / "leftovers") == []


def test_what_is_not_noted_or_is_noted_no_more_stays(leftovers: Leftovers, tmp_path: Path):
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        file.touch()
    leftovers.note(str(files[0]), files[0].stat().st_ino)
    leftovers.forget(str(files[0]), files[0].stat().st_ino)

    leftovers.remove()

    assert all(file.exists() for file in files)


def test_another_file_of_that_name_is_the_users(leftovers: Leftovers, tmp_path: Path):
    file = tmp_path / "f"
    file.touch()
    leftovers.note(str(file), file.stat().st_ino + 1)

    leftovers.remove()

    assert file.exists()


@pytest.mark.parametrize("note", ["x", "1-x", "-", "1"])
def test_a_torn_note_removes_nothing(state: Path, leftovers: Leftovers, tmp_path: Path, note: str):
    (state / "leftovers").mkdir(parents=True)
    (state / "leftovers" / note).write_bytes(os.fsencode(tmp_path))

    leftovers.remove()

    assert tmp_path.exists()
    assert os.listdir(state / "leftovers") == []


def test_without_notes_there_is_nothing_to_remove(state: Path, leftovers: Leftovers):
    leftovers.remove()

    assert not state.exists()
