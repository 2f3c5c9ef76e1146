"""Whole servents, started, asked and ended by the command."""

from __future__ import annotations

import errno
import json
import os
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from p2pfs.mount.mountpoint import fusermount
from tests.helpers.mounted import PATIENCE_S, until
from tests.suites.filesystem_suite import errno_of

STATUS_KEYS = {
    "id", "name", "version", "pid", "mountpoint", "listen", "uptime_s", "sharing", "neighbours",
    "addresses", "join_commands", "reachable", "directory_nodes", "directory_keys",
    "shared_files", "shared_bytes", "cache_bytes",
    "cache_limit_bytes", "upload_limit_bytes_s", "download_limit_bytes_s", "transfers", "uploads",
    "downloaded_bytes", "uploaded_bytes", "relays", "circuits", "relayed_bytes",
    "messages_in", "messages_out", "queries_seen", "messages_dropped",
    "horizon", "look_s", "partial", "partial_directories", "names_left_out",
    "bad_blocks", "bad_hits", "filters", "filter_age_s", "filter_percent",
}  # fmt: skip


@pytest.fixture
def leftovers(processes):
    """Tell what a servent that ended should not have left behind."""

    def leftovers() -> list[str]:
        runtime = processes.directory / "runtime"
        files = [path.name for path in runtime.rglob("*") if not path.is_dir()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return files + [line for line in mounts if str(processes.directory) in line]

    return leftovers


def test_serve_returns_when_it_can_be_asked_and_unmount_when_it_is_gone(processes, leftovers):
    started = processes.start("serve", "--name", "attic", "--cache-size", "100M")

    assert started.returncode == 0, started.stderr
    assert started.stdout.startswith("serving, listening on 127.0.0.1:")
    status = processes.status()
    assert set(status) == STATUS_KEYS
    assert (status["name"], status["cache_limit_bytes"]) == ("attic", 100 * 2**20)
    assert str(status["listen"]) in started.stdout

    process = os.pidfd_open(int(status["pid"]))
    assert processes.p2pfs("unmount", "state").returncode == 0
    assert select.select([process], [], [], 0)[0]
    os.close(process)
    assert leftovers() == []


@pytest.mark.parametrize(
    "verb", [["serve"], pytest.param(["mount", "p2p"], marks=pytest.mark.fuse)]
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_a_servent_and_nothing_stays(processes, leftovers, number, verb):
    processes.start(*verb)

    processes.kill(processes.status()["pid"], number)

    assert leftovers() == []


def test_a_servent_in_the_foreground_greets_and_ends_with_0(processes):
    command = [sys.executable, "-m", "p2pfs", "serve", "--foreground", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--state", str(processes.directory / "state")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as servent:
        assert servent.stdout.readline().startswith("serving, ")
        servent.send_signal(signal.SIGINT)

        assert servent.wait(PATIENCE_S) == 0
        assert "signal received" in servent.stderr.read()


def test_a_second_servent_on_the_same_state_directory_says_so(processes):
    processes.start("serve")

    second = processes.start("serve")

    assert (second.returncode, second.stdout) == (1, "")
    assert "another servent is running with the state directory" in second.stderr


def test_who_starts_a_servent_once_more_to_join_is_told_how_the_first_one_does(processes):
    """The line that the other machine has printed is typed where a servent runs already."""
    processes.start("serve")

    joining = processes.start("serve", "--join", "127.0.0.1:9")
    again = processes.start("serve")

    state = processes.directory / "state"
    assert joining.stderr.splitlines()[1] == "to have that one join: p2pfs join 127.0.0.1:9"
    assert again.stderr.splitlines()[1] == f"to end that one: p2pfs unmount {state}"


def test_a_second_servent_keeps_what_the_first_has_printed(processes):
    processes.start("serve")
    output = processes.directory / "state" / "output"
    output.write_text("something burns")

    processes.start("serve")
    assert output.read_text() == "something burns"

    assert processes.p2pfs("unmount", "state").returncode == 0
    processes.start("serve")
    assert output.read_text() == ""


def test_what_a_servent_writes_about_its_user_is_the_users_alone(processes):
    """Whatever the umask, and also where a backup or an older version was generous."""
    state = processes.directory / "state"
    state.mkdir(mode=0o755)
    (state / "shared").mkdir()
    (state / "shared" / "f").write_text("x")
    umask = os.umask(0)
    try:
        processes.start("serve")
    finally:
        os.umask(umask)
    until(lambda: processes.status()["shared_files"])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    assert modes.pop("shared") & 0o077  # behind the state directory, which nobody else enters
    assert modes.pop("cache") == 0o700
    assert modes == dict.fromkeys(modes, 0o600)
    assert {"identity.key", "index.sqlite", "index.sqlite-wal", "output", "p2pfs.log"} <= set(modes)
    assert stat.S_IMODE(state.stat().st_mode) == 0o700

    processes.p2pfs("unmount", "state")
    state.chmod(0o755)
    written = [state / name for name in ("index.sqlite", "output", "p2pfs.log", "lock")]
    for path in written:
        path.chmod(0o644)
    processes.start("serve")

    def modes_of_written() -> list[int]:
        return [stat.S_IMODE(path.stat().st_mode) for path in (state, *written)]

    until(lambda: modes_of_written() == [0o700] + [0o600] * 4)


def test_a_directory_that_others_can_enter_is_refused_with_what_to_do(processes):
    state = processes.directory / "state"
    state.mkdir()
    state.chmod(0o755)
    (state / "thesis.odt").touch()

    for foreground in ([], ["--foreground"]):
        refused = processes.start("serve", *foreground)

        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"chmod 700 {state}" in refused.stderr
        assert os.listdir(state) == ["thesis.odt"]


def test_a_pause_outlives_a_servent_that_was_killed(processes):
    processes.start("serve")
    assert processes.p2pfs("pause").returncode == 0
    processes.kill(processes.status()["pid"])

    again = processes.start("serve")

    assert "sharing is paused" in again.stderr
    assert processes.status()["sharing"] is False
    assert processes.p2pfs("resume").returncode == 0
    assert processes.p2pfs("unmount", "state").returncode == 0
    assert processes.start("serve").stderr == ""
    assert processes.status()["sharing"] is True


def test_a_network_key_is_made_and_a_bad_one_warned_of(processes):
    made = processes.p2pfs("newkey", "key")
    good = processes.start("serve", "--network-key-file", "key")
    assert made.returncode == 0
    assert "--network-key-file key" in made.stdout
    assert (good.returncode, good.stderr) == (0, "")
    assert processes.p2pfs("newkey", "key").returncode == 2
    processes.p2pfs("unmount", "state")

    bad_key = processes.directory / "bad"
    bad_key.write_text("swing")
    bad_key.chmod(0o644)
    (processes.directory / "state" / "config.toml").write_text('network-key-file = "../bad"')
    bad = processes.start("serve")

    assert bad.returncode == 0
    assert "others can read the network key: chmod 600" in bad.stderr
    assert "can be guessed" in bad.stderr
    assert "swing" not in bad.stderr
    doctor = processes.p2pfs("doctor", "--state", "state")
    assert doctor.returncode == 1
    assert "!!  network key: others can read" in doctor.stdout


def test_a_restart_waits_for_the_peers_that_it_knows(processes):
    processes.start("serve", "--name", "a", state="a")
    address = processes.status()["listen"]
    first = processes.start("serve", "--join", address, state="b")
    assert ", 1 peer\n" in first.stdout
    doctor = processes.p2pfs("doctor", "--state", "a").stdout
    assert "a: no router was asked to pass the port on; relays for neighbours" in doctor
    assert "it asks nobody beyond the horizon" in doctor
    assert processes.p2pfs("unmount", "b").returncode == 0

    again = processes.start("serve", state="b")

    assert ", 1 peer\n" in again.stdout
    assert again.stderr == ""


def test_what_is_said_at_the_start_joins_when_it_is_typed(processes):
    started = processes.start("serve", state="a")
    (command,) = [line.strip() for line in started.stdout.splitlines() if "--join" in line]
    program, verb, place, *options = shlex.split(command)
    assert (program, verb, place) == ("p2pfs", "mount", "~/p2p")

    joined = processes.start("serve", *options, state="b")

    assert ", 1 peer\n" in joined.stdout
    as_json = json.loads(processes.start("serve", "--json", state="c").stdout)
    assert as_json["warnings"] == []
    assert as_json["neighbours"] == 0
    assert len(as_json["join_commands"]) == 1


def test_a_port_that_is_taken_is_one_line_and_status_1(processes, leftovers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = processes.p2pfs("serve", "--listen", f"127.0.0.1:{port}", "--state", "state")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "cannot listen on" in done.stderr
    assert leftovers() == []


def test_a_state_directory_that_cannot_be_made_is_one_line_and_status_1(processes):
    done = processes.start("serve", state="/proc/nowhere")

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_options_may_stand_in_config_toml(processes):
    (processes.directory / "state").mkdir()
    (processes.directory / "state" / "config.toml").write_text('name = "from file"')

    processes.start("serve")

    assert processes.status()["name"] == "from file"


def test_settings_change_while_it_runs_and_each_tells_where_it_comes_from(processes):
    p2pfs = processes.p2pfs
    processes.start("serve", "--ttl", "3", "--download-limit", "1M")

    done = p2pfs("set", "upload-limit", "08:00 512KiB, 23:00 off")
    assert (done.returncode, done.stdout) == (0, "upload-limit: 08:00 512K, 23:00 off (set)\n")
    done = p2pfs("set", "download-limit", "2M")
    assert done.stderr == (
        "p2pfs: until the next start: --download-limit stands on the command line of this servent\n"
    )
    rows = {row["name"]: row for row in json.loads(p2pfs("config", "--json").stdout)}
    told = {name: (row["value"], row["source"]) for name, row in rows.items()}
    assert told["upload-limit"] == ("08:00 512K, 23:00 off", "set")
    assert told["download-limit"] == ("2M", "set")
    assert told["ttl"] == (3, "command line")
    assert told["stall-timeout"] == (30.0, "default")
    assert "ttl\t3\tcommand line\tno\n" in p2pfs("config").stdout
    for words, complaint in (
        (["ttl", "3"], "'ttl' is not one of"),
        (["upload-limit"], "give a value, or --unset"),
        (["upload-limit", "fast"], "upload-limit: 'fast' is not a rate"),
    ):
        done = p2pfs("set", *words)
        assert done.returncode == 2
        assert complaint in done.stderr


def test_join_get_and_leave_between_two_servents(processes):
    """One publishes, the other joins, searches, downloads; leaving is seen at once."""
    content = os.urandom(600_000)
    (processes.directory / "blue whale.bin").write_bytes(content)
    processes.start("serve", "--name", "a", state="a")
    processes.start("serve", "--name", "b", state="b")
    p2pfs = processes.p2pfs

    assert p2pfs("publish", "-m", "a", "blue whale.bin").stdout == "blue whale.bin: published\n"
    joined = p2pfs("join", "-m", "b", str(processes.status("-m", "a")["listen"]))
    assert joined.returncode == 0, joined.stderr
    found = p2pfs("search", "-m", "b", "whale").stdout.split("\t")
    assert (found[0], found[3]) == ("blue whale.bin", "a\n")
    got = p2pfs("get", "-m", "b", "blue whale.bin", "-o", "copy")
    assert got.returncode == 0, got.stderr
    assert (processes.directory / "copy").read_bytes() == content
    assert p2pfs("leave", "-m", "b").returncode == 0
    assert p2pfs("peers", "-m", "a", "--json").stdout == "[]\n"


def test_joins_that_come_to_nothing_are_warnings_that_say_why(processes):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = f"127.0.0.1:{listener.getsockname()[1]}"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            closed = f"127.0.0.1:{taken.getsockname()[1]}"

        started = processes.start("serve", "--join", closed, "--join", silent)

    assert started.returncode == 0
    refused, unanswered = started.stderr.splitlines()
    assert f"cannot join yet: connection refused by {closed}" in refused
    assert f"no answer yet from {silent}" in unanswered


@pytest.mark.fuse
def test_mount_returns_when_the_mount_answers_and_unmount_when_it_is_gone(processes, leftovers):
    started = processes.start("mount", "p2p")

    assert started.returncode == 0, started.stderr
    assert started.stdout.startswith(f"mounted on {processes.directory}/p2p, listening on ")
    assert sorted(os.listdir(processes.directory / "p2p")) == [
        ".p2pfs",
        "network",
        "peers",
        "search",
        "shared",
    ]
    assert processes.status("-m", "p2p")["mountpoint"] == str(processes.directory / "p2p")

    assert processes.p2pfs("unmount", "p2p").returncode == 0
    assert leftovers() == []


@pytest.mark.fuse
def test_after_kill_9_unmount_removes_the_dead_mount_and_mount_mounts_again(processes, leftovers):
    processes.start("mount", "p2p")
    (processes.directory / "p2p" / "shared" / "x").write_text("kept")
    processes.kill(processes.status()["pid"])

    assert "p2pfs unmount" in processes.p2pfs("doctor", "--state", "state").stdout
    assert processes.start("mount", "p2p").returncode == 0
    assert (processes.directory / "p2p" / "shared" / "x").read_text() == "kept"

    processes.kill(processes.status()["pid"])
    assert processes.p2pfs("unmount", "p2p").returncode == 0
    assert leftovers() == []
    assert processes.p2pfs("unmount", "p2p").returncode == 6


@pytest.mark.fuse
@pytest.mark.parametrize("command", ["fusermount -u", "fusermount -u -z", "umount", "umount -l"])
def test_unmounting_from_outside_ends_the_servent(processes, leftovers, command):
    if command.startswith("umount") and os.geteuid() != 0:
        pytest.skip("only root may use umount")
    processes.start("mount", "p2p")
    process = os.pidfd_open(int(processes.status()["pid"]))

    program, *options = command.split()
    program = fusermount() if program == "fusermount" else program
    subprocess.run([program, *options, str(processes.directory / "p2p")], check=True)

    assert select.select([process], [], [], PATIENCE_S)[0]
    os.close(process)
    assert leftovers() == []


@pytest.mark.fuse
def test_a_mount_that_stays_is_an_error_with_fusermounts_words(processes, leftovers):
    fake = processes.directory / "programs" / "fusermount"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'fusermount: today not' >&2; exit 1\n")
    fake.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
        processes.start("mount", "p2p")

        done = processes.p2pfs("unmount", "p2p")

    assert done.returncode != 0
    assert f"cannot unmount {processes.directory}/p2p: fusermount: today not\n" in done.stderr
    assert len(leftovers()) == 1
    assert processes.p2pfs("unmount", "p2p").returncode == 0
    assert leftovers() == []


@pytest.mark.fuse
def test_to_unmount_one_asks_no_other_mount(processes):
    """Another is not known to be alive where its sockets lie elsewhere; here it is stopped."""
    processes.start("mount", "p2p")
    elsewhere = processes.directory / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(elsewhere))
        processes.start("mount", "other", state="other-state")
        other = int(processes.status()["pid"])
    os.kill(other, signal.SIGSTOP)
    try:
        command = [sys.executable, "-m", "p2pfs", "unmount", "p2p"]
        unmounting = subprocess.Popen(command, cwd=processes.directory)
        assert unmounting.wait(PATIENCE_S) == 0
    finally:
        os.kill(other, signal.SIGCONT)
        processes.kill(other, signal.SIGTERM)


@pytest.mark.fuse
def test_a_mountpoint_that_is_not_empty_is_refused(processes, leftovers):
    (processes.directory / "p2p").mkdir()
    (processes.directory / "p2p" / "precious").write_text("")

    done = processes.start("mount", "p2p")

    assert (done.returncode, done.stdout) == (1, "")
    assert "is not empty" in done.stderr
    assert leftovers() == []


@pytest.mark.fuse
def test_a_second_mount_on_the_same_place_says_so_and_the_first_goes_on(processes):
    processes.start("mount", "p2p")

    second = processes.start("mount", "p2p", state="other")

    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr == (
        f"p2pfs: {processes.directory}/p2p is already mounted by a running p2pfs\n"
    )
    (processes.directory / "p2p" / "shared" / "f").write_text("still there")
    assert processes.p2pfs("unmount", "p2p").returncode == 0


@pytest.mark.fuse
def test_a_place_that_cannot_be_made_is_one_line_and_status_1(processes, leftovers):
    done = processes.start("mount", "/proc/nowhere")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("p2pfs: cannot mount on /proc/nowhere: ")
    assert done.stderr.count("\n") == 1
    assert leftovers() == []


@pytest.mark.fuse
def test_unmount_waits_for_no_program_that_sits_in_the_mount(processes, leftovers):
    processes.start("mount", "p2p")
    place = processes.directory / "p2p" / "shared"
    (place / "f").write_text("text")
    with subprocess.Popen(["tail", "-f", "f"], cwd=place, stdout=subprocess.PIPE) as sitter:
        assert sitter.stdout.read(4) == b"text"

        assert processes.p2pfs("unmount", "p2p").returncode == 0

        assert leftovers() == []
        sitter.kill()


@pytest.mark.fuse
def test_a_state_directory_that_is_removed_is_told_of_and_the_servent_can_be_ended(
    processes, leftovers
):
    processes.start("mount", "p2p")
    shared = processes.directory / "p2p" / "shared"
    (shared / "f").write_text("lost")
    process = os.pidfd_open(int(processes.status()["pid"]))

    shutil.rmtree(processes.directory / "state")

    until(lambda: "was removed: unmount, and mount again" in processes.p2pfs("events").stdout)
    assert errno_of((shared / "g").touch) == errno.ENOENT
    assert os.listdir(shared) == []
    doctor = processes.p2pfs("doctor", "--state", "other")
    assert f"{processes.directory}/state was removed under a running servent" in doctor.stdout
    assert doctor.returncode == 1
    assert processes.p2pfs("unmount", "p2p").returncode == 0
    assert select.select([process], [], [], PATIENCE_S)[0]
    os.close(process)
    assert leftovers() == []
    assert not (processes.directory / "state").exists()
    assert processes.start("mount", "p2p").returncode == 0


# What a machine may lack, as far as it can be taken away here.


@pytest.mark.fuse
def test_without_fusermount_mount_says_what_to_install(processes, leftovers, monkeypatch):
    monkeypatch.setenv("PATH", str(processes.directory))

    done = processes.start("mount", "p2p")

    assert (done.returncode, done.stdout) == (1, "")
    assert "fusermount is missing: install the package fuse3" in done.stderr
    assert "!!  FUSE: fusermount is missing" in processes.p2pfs("doctor").stdout
    assert leftovers() == []


@pytest.mark.fuse
def test_without_the_device_mount_says_what_to_do(processes, leftovers):
    bare = 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@"'
    apart = ["unshare", "--mount", "sh", "-ec", bare, "sh"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a /dev of its own cannot be given to a process here")

    done = subprocess.run(
        [*apart, sys.executable, "-m", "p2pfs", "mount", "p2p", "--state", "state"],
        cwd=processes.directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "p2pfs: /dev/fuse is missing: load the kernel module with `modprobe fuse`\n"
    )
    assert leftovers() == []


@pytest.mark.fuse
def test_a_servent_that_is_stuck_is_found_and_what_to_do_is_said(processes, leftovers):
    processes.start("mount", "p2p")
    pid = int(processes.status()["pid"])
    os.kill(pid, signal.SIGSTOP)

    doctor = processes.p2pfs("doctor", "--state", "state")

    place = processes.directory / "p2p"
    advice = f"{place} gives no answer: kill -9 {pid}, then p2pfs unmount {place}"
    assert advice in doctor.stdout
    processes.kill(pid)
    assert processes.p2pfs("unmount", "p2p").returncode == 0
    assert leftovers() == []
    after = processes.p2pfs("doctor", "--state", "state").stdout
    assert str(place) not in after  # of other mounts on this machine it may have to tell


def test_an_interrupt_while_the_command_is_being_loaded_shows_no_traceback(tmp_path):
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": os.fspath(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "p2pfs", "status"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
