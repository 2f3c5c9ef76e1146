"""Machines with a network between them, as documents tell of: namespaces of the kernel.

Each has a name, an address, somebody who works there, a home, and a systemd for them. Root
makes them, and they are gone with the test.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.helpers.managers import SYSTEMD
from tests.helpers.mounted import until

PATIENCE_S: Final = 60.0

COLUMNS: Final = "100"

_NAMESPACES: Final = ("--mount", "--pid", "--net", "--uts")

_ESCAPE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

_SET_UP: Final = """
hostname {host}
mount --bind {directory}/home /home
mount -t tmpfs run /run
mkdir -p /run/systemd/system /run/user
mkdir -m 700 /run/user/0
mount --bind {directory}/hosts /etc/hosts
touch {directory}/fstab
mount --bind {directory}/fstab /etc/fstab
mkdir -p {directory}/sbin {directory}/tmp
mount -t tmpfs sbin {directory}/sbin
mkdir {directory}/sbin/old {directory}/sbin/new
mount --bind /usr/sbin {directory}/sbin/old
ln -s {directory}/sbin/old/* {directory}/sbin/new/
mount --bind {directory}/sbin/new /usr/sbin
mount -t tmpfs mnt /mnt
touch {directory}/up
exec sleep infinity
"""


@dataclass(frozen=True)
class Plan:
    """What a machine is to be."""

    host: str
    user: str
    address: str
    others: str = ""
    """Further names of the machine."""


class Machine:
    """One machine, and the terminal of who works there."""

    def __init__(self, plan: Plan, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.plan = plan
        self.home = f"/home/{plan.user}"
        self._process = process
        self._directory = directory
        self._here = self.home
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def pid(self) -> int:
        """The first process of the machine, as it is known outside."""
        task = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int(task.read_text())

    def file(self, name: str) -> Path:
        """Return the path, outside, of a file in the home of who works there."""
        return self._directory / "home" / self.plan.user / name

    def type(self, command: str) -> str:
        """Give a command at the terminal, and return what it shows there."""
        place = self._directory / "here"
        script = f"cd {self._here}\n{command}\nstatus=$?\npwd >{place}\nexit $status\n"
        shown = _at_a_terminal([*self._inside(), "bash", "-c", script], self._environment())
        self._here = place.read_text().strip()
        return shown

    def start(self, *command: str) -> None:
        """Start something that goes on."""
        process = subprocess.Popen(
            [*self._inside(), "setsid", "--wait", *command],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._started.append(process)

    def wait(self) -> None:
        """Wait until all that was started has ended."""
        for process in self._started:
            process.wait(PATIENCE_S)

    def _inside(self) -> list[str]:
        return ["nsenter", "--target", str(self.pid), *_NAMESPACES, "--"]

    def _environment(self) -> dict[str, str]:
        return {
            "HOME": self.home,
            "LANG": "C.UTF-8",
            "LOGNAME": self.plan.user,
            "PATH": f"{self._directory}/bin:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TERM": "dumb",
            "TMPDIR": f"{self._directory}/tmp",  # else verbs find servents of the real machine
            "COLUMNS": COLUMNS,
            "USER": self.plan.user,
            "XDG_RUNTIME_DIR": "/run/user/0",
        }


@contextmanager
def machines(directory: Path, plans: Mapping[str, Plan]) -> Iterator[dict[str, Machine]]:
    """Make machines that can reach each other. Skip the test where that cannot be done."""
    needed = ("unshare", "nsenter", "ip", "systemctl")
    if os.geteuid() != 0 or SYSTEMD is None or not all(map(shutil.which, needed)):
        pytest.skip("machines need root, namespaces, `ip` and systemd")
    with ExitStack() as stack:
        switch = stack.enter_context(_process(["unshare", "--net", "--fork", "--kill-child",
                                               "sleep", "infinity"]))  # fmt: skip
        until(lambda: _children(switch))
        _net(_children(switch)[0], "ip link add br0 type bridge; ip link set br0 up")
        hosts = "127.0.0.1 localhost\n" + "".join(
            f"{plan.address} {plan.host} {plan.others}\n" for plan in plans.values()
        )
        made = {}
        for number, (name, plan) in enumerate(plans.items()):
            machine = stack.enter_context(_machine(directory / name, plan, hosts))
            _plug_in(machine, _children(switch)[0], number)
            machine.start(SYSTEMD, "--user")
            made[name] = machine
        for machine in made.values():
            until(lambda machine=machine: "Version=" in machine.type(_ASK_SYSTEMD))
        yield made


_ASK_SYSTEMD: Final = "systemctl --user show --property Version"


@contextmanager
def _machine(directory: Path, plan: Plan, hosts: str) -> Iterator[Machine]:
    home = directory / "home" / plan.user
    home.mkdir(parents=True)
    (directory / "hosts").write_text(hosts)
    _put_programs(directory / "bin")
    (home / "contrib").symlink_to(directory / "bin")
    command = ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "--kill-child"]
    script = _SET_UP.format(directory=directory, host=plan.host)
    with _process([*command, "sh", "-ec", script]) as process:
        until((directory / "up").exists)
        machine = Machine(plan, process, directory)
        try:
            yield machine
        finally:
            process.kill()
            machine.wait()


def _put_programs(place: Path) -> None:
    """Let `p2pfs` be found, and let everybody be who may use sudo."""
    place.mkdir(parents=True)
    program = Path(sys.executable).with_name("p2pfs")
    assert program.exists(), "p2pfs is not installed beside this Python"
    (place / "p2pfs").symlink_to(program)
    (place / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (place / "sudo").chmod(stat.S_IRWXU)


def _plug_in(machine: Machine, switch: int, number: int) -> None:
    pid = machine.pid
    _net(switch, f"ip link add m{number} type veth peer name eth0 netns {pid}")
    _net(switch, f"ip link set m{number} master br0 up")
    address = machine.plan.address
    _net(pid, f"ip link set lo up; ip address add {address}/24 dev eth0; ip link set eth0 up; "
         "ip route add default dev eth0")  # fmt: skip


def _net(pid: int, script: str) -> None:
    command = ["nsenter", "--target", str(pid), "--net", "--", "sh", "-ec", script]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()  # and the kernel kills all that it has started


def _children(process: subprocess.Popen[bytes]) -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(word) for word in text.split()]


def _at_a_terminal(command: list[str], environment: Mapping[str, str]) -> str:
    """Run a command to its end, with a terminal of its own."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
            start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(theirs)
    with process, open(ours, "rb", buffering=0) as terminal:
        return _shown(terminal.fileno(), process)


def _shown(terminal: int, process: subprocess.Popen[bytes]) -> str:
    shown, ends_at = b"", time.monotonic() + PATIENCE_S
    while time.monotonic() < ends_at:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                data = os.read(terminal, 65_536)
            except OSError:  # everybody has closed it
                break
            shown += data
        elif process.poll() is not None:
            break
    else:
        process.kill()
        raise AssertionError(f"it did not end; it has shown {shown!r}")
    return _ESCAPE.sub("", shown.decode().replace("\r\n", "\n"))
