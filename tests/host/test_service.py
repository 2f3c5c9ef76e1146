"""Servents that systemd runs: what they tell it, the unit, its coming and going."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from p2pfs.errors import UsageError
from p2pfs.host import service
from p2pfs.host.manager import Manager
from p2pfs.host.service import UserService, program, unit_text
from tests.helpers.managers import notify_socket, user_manager
from tests.helpers.mounted import until

# What a servent tells its manager.


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Be the service manager; return what is told next, or None if nothing was."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with notify_socket(str(tmp_path / "notify")) as listener:

        def told(*, wait: bool = True) -> str | None:
            listener.setblocking(wait)
            try:
                return listener.recv(4096).decode()
            except BlockingIOError:
                return None

        yield told


def test_a_manager_is_told_and_nobody_that_we_start_speaks_for_us(told):
    manager = Manager()

    manager.ready("as you see")

    assert manager.is_listening
    assert told() == "READY=1\nSTATUS=as you see"
    assert "NOTIFY_SOCKET" not in os.environ


def test_the_same_is_told_once_and_a_line_stays_one_line(told):
    manager = Manager()

    manager.ready("up\nMAINPID=1")
    manager.ready("up\nMAINPID=1")

    assert told() == "READY=1\nSTATUS=up\\nMAINPID=1"
    assert told(wait=False) is None


def test_abstract_names_are_names_too(monkeypatch):
    name = f"@p2pfs-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with notify_socket(name) as listener:
        Manager().ready("up")

        assert listener.recv(4096) == b"READY=1\nSTATUS=up"


def test_a_manager_that_is_gone_is_no_trouble(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone" / "notify"))

    assert Manager().ready("up") is None


def test_without_a_manager_nothing_is_told(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    assert not Manager().is_listening
    assert Manager().ready("up") is None


@pytest.mark.parametrize(
    "verb", [["serve"], pytest.param(["mount", "p2p"], marks=pytest.mark.fuse)]
)
def test_ready_is_told_when_it_answers_and_stopping_when_it_begins_to_end(processes, told, verb):
    place = processes.directory / "p2p" / "shared"
    command = [sys.executable, "-m", "p2pfs", *verb, "--foreground", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--state", "state"], cwd=processes.directory, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as servent:  # fmt: skip
        first = told()

        assert first.startswith("READY=1\nSTATUS=")
        assert "listening on 127.0.0.1:" in first
        assert processes.status()["pid"] == servent.pid
        assert place.is_dir() == (verb[0] == "mount")
        servent.send_signal(signal.SIGTERM)
        assert told() == "STOPPING=1\nSTATUS=saying goodbye"
        assert servent.wait(30) == 0


def test_why_it_does_not_start_is_told(processes, told):
    processes.start("serve", "--foreground", state="/proc/nowhere")

    assert told().startswith("STOPPING=1\nSTATUS=cannot use the state directory /proc/nowhere")


# The unit.

HARD = ["p2pfs", "--name", 'a "b"  c', "100%", "$HOME", r"back\slash", "tab\tnl\n", "%h", "é*", "'"]


def test_the_program_is_whole_wherever_it_was_called_from(tmp_path, monkeypatch):
    script = tmp_path / "p2pfs"
    script.write_text("")
    script.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["./p2pfs"])
    assert program() == [str(script)]

    monkeypatch.setattr(sys, "argv", ["/somewhere/p2pfs/__main__.py"])
    assert program() == [sys.executable, "-P", "-m", "p2pfs"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_finds_nothing_amiss_in_the_unit(tmp_path, monkeypatch):
    (tmp_path / "p2pfs.service").write_text(unit_text(["mount", *HARD]))

    with tempfile.TemporaryDirectory() as runtime:  # short: units of others have sockets there
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        done = subprocess.run(
            ["systemd-analyze", "--user", "verify", tmp_path / "p2pfs.service"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    if "Failed to" in done.stderr and "manager" in done.stderr:
        pytest.skip(f"systemd-analyze cannot look: {done.stderr}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_unit_that_somebody_else_wrote_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    unit = tmp_path / "systemd" / "user" / "p2pfs.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\n")

    with pytest.raises(UsageError, match="not of p2pfs"):
        UserService().install(["serve"])

    assert unit.read_text() == "[Service]\n"
    assert not UserService().is_installed


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", "x" * 65, "x\n"])
def test_a_name_that_cannot_be_a_units_is_refused(name):
    with pytest.raises(UsageError, match="cannot be the name of a unit"):
        UserService(name)


def test_without_systemd_install_says_so_and_leaves_nothing(processes, monkeypatch):
    monkeypatch.setenv("PATH", str(processes.directory))
    monkeypatch.setenv("HOME", str(processes.directory))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    done = processes.p2pfs("service", "install", "--no-mount")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "p2pfs: systemd is not here: there is no `systemctl`\n"
    assert not (processes.directory / ".config").exists()


def test_who_does_not_wait_for_the_servent_to_come_up_has_no_service(tmp_path, monkeypatch):
    """It may take a minute and a half, and the user interrupt it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    asked = []

    def systemctl(*arguments: str) -> str:
        asked.append(arguments[0])
        if arguments[0] == "restart":
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(service, "_systemctl", systemctl)

    with pytest.raises(KeyboardInterrupt):
        UserService().install(["serve"])

    assert not UserService().is_installed
    assert asked[asked.index("restart") :].count("disable") == 1


def test_what_is_not_installed_cannot_be_removed(processes, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(processes.directory))

    done = processes.p2pfs("service", "remove")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.endswith("/systemd/user/p2pfs.service is not there\n")


# Under a real systemd.


@pytest.fixture
def manager(tmp_path):
    with user_manager(tmp_path) as manager:
        yield manager


def p2pfs_of(manager):
    return lambda *words: manager.run(sys.executable, "-m", "p2pfs", *words)


def shown(manager, name: str) -> str:
    done = manager.run("systemctl", "--user", "show", "--property", name, "--value", "p2pfs")
    return done.stdout.strip()


def test_words_reach_the_program_as_they_were(manager, tmp_path, monkeypatch):
    heard = tmp_path / "heard"
    script = tmp_path / "p2pfs"
    script.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{heard}.new\nmv {heard}.new {heard}\n')
    script.chmod(0o700)
    monkeypatch.setattr(sys, "argv", [str(script)])
    unit = tmp_path / ".config" / "systemd" / "user" / "p2pfs.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(unit_text(HARD))

    manager.run("systemctl", "--user", "daemon-reload")
    manager.run("systemctl", "--user", "start", "--no-block", "p2pfs")

    until(heard.exists)
    assert heard.read_text().split("\0")[:-1] == HARD


@pytest.mark.fuse
@pytest.mark.slow
def test_a_service_is_up_when_it_is_installed_comes_back_and_goes(manager, tmp_path):
    """The whole life of a unit: installed, killed, up again, written anew, removed."""
    p2pfs, place = p2pfs_of(manager), tmp_path / "p2p"
    install = ["service", "install", "--listen=127.0.0.1:0"]

    installed = p2pfs(*install)

    assert installed.returncode == 0, installed.stderr
    assert f"p2pfs.service: mounted on {place}, listening on 127.0.0.1:" in installed.stdout
    assert manager.run("ls", str(place)).stdout.split() == ["network", "peers", "search", "shared"]
    assert shown(manager, "UnitFileState") == "enabled"

    first = shown(manager, "MainPID")
    manager.run("kill", "-9", first)
    until(lambda: shown(manager, "MainPID") not in ("0", first))
    until(lambda: shown(manager, "ActiveState") == "active")
    assert manager.run("ls", str(place / "shared")).returncode == 0

    assert p2pfs(*install, "--name", "zoe").returncode == 0
    assert "name: zoe\n" in p2pfs("status").stdout

    failed = p2pfs("service", "install", "--no-mount", "--state", "/proc/nowhere")
    assert "p2pfs.service did not start: " in failed.stderr
    assert manager.run("ls", str(place / "shared")).returncode == 0, "the former one is back"
    assert "name: zoe\n" in p2pfs("status").stdout

    assert p2pfs("service", "remove").stdout == "p2pfs.service: removed\n"
    assert manager.run("ls", str(place)).stdout == ""
    assert [one for one in (tmp_path / ".config").rglob("*") if not one.is_dir()] == []
    assert p2pfs("status").returncode == 6


@pytest.mark.slow
def test_a_service_that_does_not_start_says_why_and_leaves_no_unit(manager, tmp_path):
    done = p2pfs_of(manager)("service", "install", "--no-mount", "--state", "/proc/nowhere")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "p2pfs: p2pfs.service did not start: cannot use the state directory /proc/nowhere"
    )
    assert [one for one in (tmp_path / ".config").rglob("*") if not one.is_dir()] == []


def test_a_service_is_not_put_beside_a_servent_in_the_same_place(manager, tmp_path):
    p2pfs, state = p2pfs_of(manager), str(tmp_path / "state")
    assert p2pfs("serve", "--listen=127.0.0.1:0", "--state", state).returncode == 0

    done = p2pfs("service", "install", "--no-mount", "--state", state)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"p2pfs: a servent runs there already; end it with: p2pfs unmount {state}\n"
    )
