"""Which directories lie behind `shared/`."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import pytest

from p2pfs import roots as module
from p2pfs.config import SharedDirectory, load_config, shared_directory
from p2pfs.errors import NotFoundError, UsageError
from p2pfs.roots import Roots, open_roots

BEN, CLEO = "b" * 32, "c" * 32


@pytest.fixture
def music(tmp_path: Path) -> Path:
    (tmp_path / "Music").mkdir()
    return tmp_path / "Music"


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    return opened(tmp_path)


def opened(base: Path, *fixed: SharedDirectory, mountpoint: str | None = None) -> Roots:
    (base / "state" / "shared").mkdir(parents=True, exist_ok=True)
    roots = Roots(
        base / "state" / "shared",
        fixed=fixed,
        file=base / "shares.json",
        state=str(base / "state"),
        mountpoint=mountpoint,
    )
    roots.look()
    return roots


def test_what_is_shared_is_known_by_its_name_and_by_nothing_else(roots: Roots, music: Path) -> None:
    roots.add(shared_directory(music))

    assert roots.locate("Music/a/b") == (str(music), "a/b")
    assert roots.locate("Music") == (str(music), "")
    assert roots.locate("Musi/a") == (roots.directory, "Musi/a")
    assert roots.locate("") == (roots.directory, "")
    assert roots.listed(["own"]) == ["own", "Music"]


def test_it_is_known_at_the_next_start(roots: Roots, music: Path, tmp_path: Path) -> None:
    roots.add(shared_directory(music, "songs", is_read_only=True))

    (root,) = opened(tmp_path)

    assert root.shared == SharedDirectory("songs", str(music), is_read_only=True)
    assert not root.away


def test_what_is_shared_no_more_is_not_known_at_the_next_start(
    roots: Roots, music: Path, tmp_path: Path
) -> None:
    roots.add(shared_directory(music))

    roots.remove("Music")

    assert not roots
    assert not opened(tmp_path)
    with pytest.raises(NotFoundError):
        roots.remove("Music")


def test_what_the_configuration_shares_stays(music: Path, tmp_path: Path) -> None:
    roots = opened(tmp_path, shared_directory(music))

    with pytest.raises(UsageError, match=r"config\.toml"):
        roots.remove("Music")

    assert roots.locate("Music/x") == (str(music), "x")


def test_what_cannot_be_shared_is_refused(roots: Roots, music: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "state" / "cache").mkdir()
    (tmp_path / "state" / "shared" / "mine").mkdir()
    (tmp_path / "other").mkdir()
    roots.add(shared_directory(music))
    refused = {
        tmp_path / "absent": "No such file",
        tmp_path / "file": "no directory",
        tmp_path / "state": "in the state directory",
        tmp_path / "state" / "cache": "in the state directory",
        tmp_path / "state" / "shared" / "mine": "in shared/ already",
        music: "already, as Music",
    }

    for place, reason in refused.items():
        with pytest.raises(UsageError, match=reason):
            roots.add(shared_directory(place, "new"))
    for name in ("Music", "mine"):
        with pytest.raises(UsageError, match="already: give another"):
            roots.add(shared_directory(tmp_path / "other", name))
    assert [root.name for root in roots] == ["Music"]


def test_what_holds_the_mountpoint_is_not_shared(tmp_path: Path, music: Path) -> None:
    roots = opened(tmp_path, mountpoint=str(music / "p2p"))

    with pytest.raises(UsageError, match="mountpoint"):
        roots.add(shared_directory(music))


@pytest.mark.parametrize("place", ["/proc", "/proc/self", "/sys", "/dev/pts"])
def test_what_the_kernel_makes_up_is_not_shared(roots: Roots, place: str) -> None:
    with pytest.raises(UsageError, match="the kernel makes up what is in it"):
        roots.add(shared_directory(Path(place), "made-up"))


@pytest.mark.parametrize("name", ["", ".", "..", ".music", "a/b"])
def test_some_names_are_none(music: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name"):
        shared_directory(music, name)


def test_what_goes_away_is_away_until_it_is_back(roots: Roots, music: Path, tmp_path: Path) -> None:
    roots.add(shared_directory(music))
    music.rename(tmp_path / "elsewhere")

    assert roots.look() == ["Music"]
    assert roots.is_away("Music/song")
    assert roots.listed([]) == []
    with pytest.raises(FileNotFoundError):
        roots.locate("Music/song")
    assert roots.look() == []

    (tmp_path / "elsewhere").rename(music)
    assert roots.look() == ["Music"]
    assert roots.listed([]) == ["Music"]


def test_what_does_not_answer_is_away_until_it_does(
    roots: Roots, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server has gone: a call waits for it, and one call is enough."""
    (tmp_path / "Films").mkdir()
    roots.add(shared_directory(music))
    roots.add(shared_directory(tmp_path / "Films"))
    answers, real, asked = threading.Event(), os.lstat, []

    def silent(path: str | Path) -> os.stat_result:
        if str(path) == str(music):
            asked.append(path)
            answers.wait()
        return real(path)

    monkeypatch.setattr(os, "lstat", silent)
    monkeypatch.setattr(module, "DISK_ANSWERS_S", 0.01)
    monkeypatch.setattr(module, "LEAST_ANSWER_S", 0.01)
    assert roots.look() == ["Music"]
    assert [root.away for root in roots] == ["its disk does not answer", ""]
    with pytest.raises(FileNotFoundError):
        roots.locate("Music/song")
    assert roots.look() == []
    assert len(asked) == 1

    answers.set()
    monkeypatch.setattr(module, "DISK_ANSWERS_S", 60.0)
    while roots.is_away("Music"):
        roots.look()
    assert roots.listed([]) == ["Music", "Films"]


def test_another_directory_of_the_name_counts_as_a_change(
    roots: Roots, music: Path, tmp_path: Path
) -> None:
    roots.add(shared_directory(music))
    music.rename(tmp_path / "elsewhere")
    music.mkdir()

    assert roots.look() == ["Music"]


def test_the_way_in_leads_to_no_other_file_system(
    roots: Roots, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk was pulled out a moment ago: below it lies the directory that it was mounted on."""
    roots.add(shared_directory(music))
    real = os.fstat

    def another_device(descriptor: int) -> os.stat_result:
        status = list(real(descriptor))
        status[2] += 1
        return os.stat_result(status)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", another_device)
        with pytest.raises(FileNotFoundError), roots.opened("Music/song"):
            pass
    with roots.opened("Music/song") as (_, rest):
        assert rest == "song"


def test_what_was_on_a_disk_is_not_what_lies_below_its_mountpoint(
    music: Path, tmp_path: Path
) -> None:
    kept = {
        "shares": [{"name": "Music", "directory": str(music), "read_only": False}],
        "places": {str(music): str(music)},
    }
    (tmp_path / "shares.json").write_text(json.dumps(kept))

    (root,) = opened(tmp_path)

    assert root.away == f"nothing is mounted at {music}"


def test_a_table_that_cannot_be_read_shares_nothing(tmp_path: Path, expect_log) -> None:
    expect_log("not known any more")
    (tmp_path / "shares.json").write_text("{")

    assert not opened(tmp_path)


def test_what_cannot_be_noted_is_not_shared(roots: Roots, music: Path, tmp_path: Path) -> None:
    (tmp_path / "shares.json.new").mkdir()

    with pytest.raises(OSError, match="directory"):
        roots.add(shared_directory(music))

    assert not roots


def test_what_others_see_does_not_hold_what_is_for_some_alone(
    roots: Roots, music: Path, tmp_path: Path
) -> None:
    """Neither may be there first: config.toml is read at each start."""
    (music / "letters").mkdir()
    letters = shared_directory(music / "letters", to=[BEN])
    roots.add(shared_directory(music))

    outer, inner = sorted(opened(tmp_path, letters), key=lambda root: root.shared.directory)
    assert outer.away == f"{music}/letters, for some alone, is in it"
    assert not inner.away

    both = opened(tmp_path, shared_directory(music, "all"), letters)
    assert {root.name: bool(root.away) for root in both} == {
        "all": True, "letters": False, "Music": True,
    }  # fmt: skip


@pytest.mark.parametrize("place", ["", "cache"])
def test_the_state_of_another_servent_is_not_shared(roots: Roots, music: Path, place: str) -> None:
    for name in ("identity.key", "lock"):
        (music / name).touch()
    for name in ("cache", "shared"):
        (music / name).mkdir()

    with pytest.raises(UsageError, match="the state directory"):
        roots.add(shared_directory(music / place, "state"))
    roots.add(shared_directory(music / "shared", "other"))
    assert [root.away for root in roots] == [""]


def test_who_is_put_into_a_group_or_out_of_it_sees_more_or_less(
    music: Path, tmp_path: Path, expect_log
) -> None:
    file = tmp_path / "state" / "config.toml"
    opened(tmp_path)
    file.write_text(f"[groups]\nfamily = ['{BEN}']\n")
    config = load_config({}, state_directory=str(tmp_path / "state"))
    config.state_directory.chmod(0o700)
    roots = open_roots(config)
    roots.add(shared_directory(music, to=["family"]))
    assert [roots.audiences.may_see("Music/a", peer) for peer in (BEN, CLEO)] == [True, False]

    file.write_text(f"[groups]\nfamily = ['{CLEO}']\nfriends = ['{BEN}']\n")
    roots.look()
    assert [roots.audiences.may_see("Music/a", peer) for peer in (BEN, CLEO)] == [False, True]

    expect_log("groups stay as they were")
    file.write_text("[groups]\nfamily = [")
    roots.look()
    assert [roots.audiences.may_see("Music/a", peer) for peer in (BEN, CLEO)] == [False, True]

    file.unlink()
    roots.look()
    assert [roots.audiences.may_see("Music/a", peer) for peer in (BEN, CLEO, None)] == [False] * 3


def test_what_is_read_only_is_not_written(roots: Roots, music: Path) -> None:
    roots.add(shared_directory(music, is_read_only=True))

    roots.check_writable("own/file")
    with pytest.raises(OSError, match="Read-only") as raised:
        roots.check_writable("Music/song")
    assert raised.value.errno == errno.EROFS
