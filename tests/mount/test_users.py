"""Whose mount it is: made by an ordinary user, used by others only if he says so."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from p2pfs.errors import UsageError
from p2pfs.mount import check_fuse, mountpoint
from p2pfs.mount.mountpoint import fusermount
from tests.helpers.mounted import PATIENCE_S, PROJECT, Servents, is_mounted, open_servents

pytestmark = pytest.mark.fuse

NOBODY = 65_534

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user; here all runs as an ordinary one"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody reaches, unlike pytest's own."""
    place = Path(tempfile.mkdtemp(prefix="p2pfs-users-"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def servents(place: Path) -> Iterator[Servents]:
    with open_servents(place) as servents:
        yield servents


def as_nobody(
    *command: str | Path, home: Path | None = None, apart: Sequence[str | Path] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program as a user who may do nothing; `apart` is a command of root's that starts it."""
    become = [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--inh-caps=-all",
    ]
    packages = os.pathsep.join([str(PROJECT), sysconfig.get_path("purelib")])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": packages}
    if home is not None:
        environment |= {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "runtime")}
    return subprocess.run(
        [*map(str, (*apart, *become, *command))], cwd=home or "/", env=environment,
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


def runs_for_nobody(python: str) -> bool:
    # A shell in between: the first program still gets by directories that are root's alone.
    command = ("sh", "-c", '"$0" -c "import p2pfs.servent, fuse"', python)
    return as_nobody(*command).returncode == 0


@needs_root
def test_what_another_user_makes_is_his(servents: Servents) -> None:
    anna = servents.start("anna", "--allow-other")
    anna.shared.chmod(0o1777)

    script = 'umask 027; cd "$1"; echo text > file; mkdir d; ln -s file link; mkfifo fifo; cat file'
    done = as_nobody("sh", "-ec", script, "sh", anna.shared)

    assert (done.stdout, done.stderr) == ("text\n", "")
    for name, mode in [("file", 0o640), ("d", 0o750), ("link", 0o777), ("fifo", 0o640)]:
        status = (anna.shared / name).lstat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (
            NOBODY,
            NOBODY,
            mode,
        )
    anna.wait_published("file")
    (anna.shared / "private").write_text("root's")
    (anna.shared / "private").chmod(0o600)
    assert as_nobody("cat", anna.shared / "private").returncode != 0
    assert as_nobody("rm", "-f", anna.shared / "private").returncode != 0


@needs_root
def test_nobody_else_gets_in_unless_he_is_let(servents: Servents) -> None:
    anna = servents.start("anna")

    done = as_nobody("ls", anna.mountpoint)

    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_letting_others_in_needs_the_administrators_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = tmp_path / "fuse.conf"
    configuration.write_text("# user_allow_other\nmount_max = 1000\n")
    monkeypatch.setattr(mountpoint, "_FUSE_CONF", str(configuration))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(UsageError, match="needs a line `user_allow_other` in"):
        check_fuse(allow_other=True)
    configuration.write_text("user_allow_other\n")
    check_fuse(allow_other=True)


def test_who_cannot_unmount_does_not_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mountpoint, "_MTAB", str(tmp_path / "mtab"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(UsageError, match="mtab is missing, and without it fusermount unmounts"):
        check_fuse()
    (tmp_path / "mtab").touch()
    check_fuse()


@pytest.fixture
def p2pfs() -> tuple[str, ...]:
    """The command, as an ordinary user can run it."""
    python = next(filter(runs_for_nobody, (sys.executable, "/usr/bin/python3")), None)
    if python is None:
        pytest.skip("an ordinary user can run neither this Python nor the system's with p2pfs")
    return (python, "-m", "p2pfs")


@pytest.fixture
def home(place: Path) -> Path:
    """The home of an ordinary user."""
    home = place / "home"
    (home / "runtime").mkdir(mode=0o700, parents=True)
    for directory in (home, home / "runtime"):
        os.chown(directory, NOBODY, NOBODY)
    return home


@needs_root
@pytest.mark.parametrize("mode", [(), ("--foreground",)], ids=["background", "foreground"])
def test_fusermounts_refusal_is_said_in_every_mode(
    p2pfs: tuple[str, ...], home: Path, mode: tuple[str, ...]
) -> None:
    """Here it is not set-user, as in a system that was copied without that."""
    if as_nobody("sh", "-c", "exec 3<>/dev/fuse").returncode != 0:
        pytest.skip("/dev/fuse is not open to ordinary users here")
    program = os.path.realpath(fusermount())
    shutil.copyfile(program, home / "fusermount")
    (home / "fusermount").chmod(0o755)
    script = 'mount --bind "$0" "$1"; shift; exec "$@"'
    apart = ("unshare", "--mount", "sh", "-ec", script, home / "fusermount", program)
    options = ("--state", home / "state", "--listen", "127.0.0.1:0", *mode)

    refused = as_nobody(*p2pfs, "mount", home / "mnt", *options, home=home, apart=apart)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"p2pfs: cannot mount on {home}/mnt: fusermount: " in refused.stderr
    assert refused.stderr.splitlines()[-1].endswith("Operation not permitted")


@needs_root
def test_an_ordinary_user_mounts_works_and_unmounts(p2pfs: tuple[str, ...], home: Path) -> None:
    options = ("--state", home / "state", "--listen", "127.0.0.1:0")
    started = as_nobody(*p2pfs, "mount", home / "mnt", *options, home=home)
    if as_nobody("sh", "-c", "exec 3<>/dev/fuse").returncode != 0:
        assert started.returncode == 1
        assert "no permission to use /dev/fuse: ask the administrator" in started.stderr
        assert not is_mounted(home / "mnt")
        pytest.skip("/dev/fuse is not open to ordinary users here, and p2pfs says so")
    assert started.returncode == 0, started.stderr
    try:
        assert is_mounted(home / "mnt")
        script = 'cd "$1"; echo text > file; chmod 600 file; mv file new; stat -c %U:%a new'
        worked = as_nobody("sh", "-ec", script, "sh", home / "mnt" / "shared", home=home)
        assert (worked.stdout, worked.stderr) == ("nobody:600\n", "")
        script = 'cd "$1"; ls "a film"; mkdir "a film" "ext:pdf"; rmdir "ext:pdf"; ls'
        kept = as_nobody("sh", "-ec", script, "sh", home / "mnt" / "search", home=home)
        assert (kept.stdout, kept.stderr) == ("a film\n", "")
        with pytest.raises(PermissionError):  # root too: it is his
            os.listdir(home / "mnt")
        assert as_nobody(*p2pfs, "doctor", "--state", home / "state", home=home).returncode == 0
    finally:
        ended = as_nobody(*p2pfs, "unmount", home / "mnt", home=home)
    assert ended.returncode == 0, ended.stderr
    assert not is_mounted(home / "mnt")
    assert not list((home / "runtime").rglob("*.sock"))
