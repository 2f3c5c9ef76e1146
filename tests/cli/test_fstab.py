"""`-o`, and what mount(8) and fstab say to p2pfs."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfs.cli.fstab import KERNEL_OPTION, USER, become, command_of, is_helper_call, mount_options
from p2pfs.cli.servents import mount as mount_command
from p2pfs.errors import UsageError
from tests.helpers.managers import user_manager
from tests.helpers.mounted import until

FLAGS = {"allow-other", "no-reshare", "no-lan", "no-port-mapping", "no-relay", "no-dht", "mainline"}
VALUED = {"join", "cache-size", "state"}


def told(*texts: str):
    return mount_options(texts, FLAGS, VALUED)


# Options.


def test_options_are_ours_with_either_dash_the_kernels_or_the_users():
    assert told(
        "join=a:1,ro,allow_other,cache-size=1G,setuid=ann", "join=[::1]:2,cache_size=2G"
    ) == {
        "join": ["a:1", "[::1]:2"],
        "allow-other": [True],
        "cache-size": ["1G", "2G"],
        KERNEL_OPTION: ["ro"],
        USER: ["ann"],
    }


def test_what_is_for_other_readers_of_fstab_is_let_pass():
    line = "defaults,rw,noauto,user=ann,nofail,_netdev,x-systemd.automount,X-mount.mkdir=0700"

    assert told(line, "comment=x,nosuid,nodev,dev,suid,noatime") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ro,frob", "there is no option 'frob'"),
        ("cach-size=1G", "there is no option 'cach-size'; did you mean cache-size?"),
        ("allow-othr", "did you mean allow-other?"),
        ("uid=1000", "there is no option 'uid'"),
        ("remount,ro", "there is no option 'remount'"),
        ("join", "join needs a value"),
        ("join=", "join needs a value"),
        ("allow_other=yes", "allow_other takes no value"),
        ("ro=1", "ro takes no value"),
        ("=x", "there is no option ''"),
    ],
)
def test_what_cannot_be_is_named(text, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        told(text)


def test_autofs_may_be_sloppy():
    assert told("sloppy,frob,ro") == {KERNEL_OPTION: ["ro"]}


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), max_size=4))
def test_any_value_can_be_said(values):
    """With backslashes before what has a meaning, every value comes through as it is."""
    text = ",".join("state=" + re.sub(r'([\\,"])', r"\\\1", value) for value in values)

    assert told(text).get("state", []) == values


def test_quotes_keep_commas_together_too():
    assert told('state="/a,b",ro') == {"state": ["/a,b"], KERNEL_OPTION: ["ro"]}


def test_a_hostile_text_takes_no_time():
    assert told("ro," + '"' * 50_000 + "\\" + ",", "sloppy") == {KERNEL_OPTION: ["ro"]}


# Calls.


@pytest.mark.parametrize(
    "argv",
    [
        ["/sbin/mount.fuse.p2pfs", "none", "/mnt", "-o", "rw"],
        ["/sbin/mount.p2pfs", "none", "/mnt"],
        ["/usr/bin/p2pfs", "x", "/mnt", "-o", "ro,allow_other,dev,suid"],
        ["p2pfs", "host:4774", "/mnt", "-o", "rw,join=a:1"],
    ],
)
def test_mount_is_told_from_a_person(argv):
    assert is_helper_call(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["p2pfs"],
        ["p2pfs", "mount", "/mnt"],
        ["p2pfs", "mount", "/mnt", "-o", "join=a:1"],
        ["p2pfs", "gte", "/mnt/network/x", "-o", "/tmp/x"],
        ["p2pfs", "get", "x"],
    ],
)
def test_a_person_is_told_from_mount(argv):
    assert not is_helper_call(argv)


def test_a_source_with_a_port_is_joined_through_and_is_the_name_of_the_mount():
    words = command_of(["a,b:4774", "/mnt", "-n", "-v", "-o", "rw,ro", "-t", "fuse.p2pfs"])

    assert words == ["mount", r"-ofsname=a\,b:4774", r"-ojoin=a\,b:4774", "-orw,ro", "--", "/mnt"]
    assert told(*(word[2:] for word in words if word.startswith("-o"))) == {
        KERNEL_OPTION: ["fsname=a,b:4774", "ro"],
        "join": ["a,b:4774"],
    }


@pytest.mark.parametrize("source", ["none", "p2pfs", "my music", "-x"])
def test_any_other_source_is_only_a_name(source):
    assert command_of(["-s", "--", source, "/mnt"]) == [
        "mount", "--quiet", f"-ofsname={source}", "-osloppy", "--", "/mnt"
    ]  # fmt: skip


@pytest.mark.parametrize("words", [[], ["x"], ["x", "y", "z"], ["x", "/mnt", "-f"], ["x", "-q"]])
def test_what_mount_never_says_is_refused(words):
    with pytest.raises(UsageError):
        command_of(words)


# Whole commands.


def test_what_the_command_line_says_itself_is_stronger(processes, monkeypatch):
    monkeypatch.setenv("P2PFS_REPORT_FD", "")
    context = mount_command.make_context(
        "mount", ["-o", "join=a:1,join=b:2,name=of-o,ttl=3,no_notify", "--name", "own", "p2p"]
    )

    assert context.params["join"] == ("a:1", "b:2")
    assert context.params["name"] == "own"
    assert str(context.params["ttl"]) == "3"
    assert context.params["no_notify"] is True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("frob", "-o: there is no option 'frob'"),
        ("foreground", "-o: there is no option 'foreground'"),
        ("ttl=99", "99"),
        ("setuid=nobody-of-that-name", "-o: setuid: there is no user 'nobody-of-that-name'"),
    ],
)
def test_a_wrong_option_is_named_and_the_exit_status_is_mounts(processes, options, words):
    person = processes.p2pfs("mount", "p2p", "-o", options)
    helper = processes.p2pfs("none", str(processes.directory / "p2p"), "-o", f"rw,{options}")

    assert (person.returncode, helper.returncode) == (2, 1)
    assert words in person.stderr
    assert words in helper.stderr
    assert not (processes.directory / "p2p").exists()


# mount(8) itself, with helpers of ours in /sbin, which only root can show it.


def sbin_with(directory: Path, names: list[str]) -> str:
    """Return a script that lets mount(8) find p2pfs in /sbin by these names."""
    sbin = directory / "sbin"
    return "\n".join(
        [
            f"mkdir {sbin}; mount -t tmpfs sbin {sbin}; mkdir {sbin}/old {sbin}/new",
            f"mount --bind /usr/sbin {sbin}/old",
            f"ln -s {sbin}/old/* {sbin}/new/",
            *(f"ln -s {shutil.which('p2pfs', path=BESIDE)} {sbin}/new/{name}" for name in names),
            f"mount --bind {sbin}/new /usr/sbin",
            f"cd {directory}",
            "",
        ]
    )


def apart(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script whose mounts are its own."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


BESIDE = os.path.dirname(sys.executable)

WITH_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.islink("/sbin") or shutil.which("p2pfs", path=BESIDE) is None,
    reason="mount(8) cannot be shown a helper of ours",
)

LINE = (
    "none {0}/p2p fuse.p2pfs ro,allow_other,cache-size=100M,state={0}/state,"
    "listen=127.0.0.1:0,_netdev,x-systemd.automount,nofail 0 0\n"
)


@WITH_ROOT
@pytest.mark.fuse
@pytest.mark.parametrize("names", [["mount.fuse.p2pfs"], ["p2pfs"]], ids=["helper", "mount.fuse"])
def test_a_line_of_fstab_is_mounted_once_and_unmounted(processes, names):
    """Either mount(8) finds our helper, or mount.fuse(8) finds p2pfs."""
    if names == ["p2pfs"] and not os.path.exists("/sbin/mount.fuse"):
        pytest.skip("there is no mount.fuse(8)")
    place = processes.directory / "p2p"
    place.mkdir()
    (processes.directory / "fstab").write_text(LINE.format(processes.directory))
    script = """
    mount --all --fstab fstab
    mount --all --fstab fstab
    grep "$PWD/p2p " /proc/mounts
    ls p2p
    touch p2p/shared/x 2>&1 || true
    umount p2p
    ls p2p
    """

    done = apart(sbin_with(processes.directory, names) + script)

    assert (done.returncode, done.stderr) == (0, "")
    mount, *rest = done.stdout.splitlines()
    assert mount.startswith(f"none {place} fuse.p2pfs ro,nosuid,nodev,")
    assert "allow_other" in mount
    assert rest == [
        *("network", "peers", "search", "shared"),
        "touch: cannot touch 'p2p/shared/x': Read-only file system",
    ]
    until(lambda: processes.p2pfs("status").returncode == 6)


@WITH_ROOT
@pytest.mark.fuse
def test_mount_fails_as_mount_does(processes):
    script = "mount -t p2pfs none p2p -o state=state,frob || echo $?"
    (processes.directory / "p2p").mkdir()

    done = apart(sbin_with(processes.directory, ["mount.p2pfs"]) + script)

    assert done.stdout == "1\n"
    assert done.stderr == "p2pfs: -o: there is no option 'frob'\n"


@WITH_ROOT
@pytest.mark.fuse
@pytest.mark.slow
def test_systemd_mounts_when_somebody_looks(tmp_path):
    """The units that systemd makes of a line with x-systemd.automount, with its own mount."""
    place = tmp_path / "p2p"
    units = tmp_path / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    name = subprocess.run(
        ["systemd-escape", "--path", place], capture_output=True, text=True, check=True
    ).stdout.strip()
    where = f"Where={place}\n"
    (units / f"{name}.automount").write_text(f"[Automount]\n{where}")
    options = LINE.format(tmp_path).split()[3]
    (units / f"{name}.mount").write_text(
        f"[Mount]\nWhat=none\n{where}Type=fuse.p2pfs\nOptions={options}\n"
    )
    with user_manager(tmp_path) as manager:
        done = manager.run("sh", "-ec", sbin_with(tmp_path, ["mount.fuse.p2pfs"]))
        assert done.returncode == 0, done.stderr
        started = manager.run("systemctl", "--user", "start", f"{name}.automount")
        if started.returncode:
            pytest.skip(f"no automount here: {started.stderr}")

        looked = manager.run("ls", str(place))

        assert looked.stdout.split() == ["network", "peers", "search", "shared"]
        assert manager.run("systemctl", "--user", "stop", f"{name}.mount").returncode == 0
        manager.run("systemctl", "--user", "stop", f"{name}.automount")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_who_is_to_run_it_runs_it():
    script = "import os; from p2pfs.cli.fstab import become; become('nobody')\n" + (
        "print(os.getresuid(), os.getgroups(), os.environ['HOME'], os.environ.get('XDG_DATA_HOME'))"
    )
    entry = pwd.getpwnam("nobody")

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"XDG_DATA_HOME": "/root"}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    uid, gid = entry.pw_uid, entry.pw_gid
    assert done.stdout == f"({uid}, {uid}, {uid}) [{gid}] {entry.pw_dir} None\n"


def test_only_root_can_become_another(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "initgroups", refuse)
    other = next(one.pw_name for one in pwd.getpwall() if one.pw_uid != os.geteuid())

    with pytest.raises(UsageError, match=f"only root can become '{other}'"):
        become(other)
