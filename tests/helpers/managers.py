"""Service managers for tests: a socket that hears what a service says, and a real systemd."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.helpers.mounted import until

PATIENCE_S = 60

SYSTEMD = next(filter(os.path.exists, ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")), None)


@contextmanager
def notify_socket(name: str) -> Iterator[socket.socket]:
    """Listen where NOTIFY_SOCKET=`name` says, as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        listener.settimeout(PATIENCE_S)
        yield listener


class UserManager:
    """A `systemd --user` that sees processes and mounts of its own."""

    def __init__(self, process: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
        self.process = process
        self.environment = environment

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command beside it, to its end."""
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}")
        (child,) = (task / "children").read_text().split()
        return subprocess.run(
            ["nsenter", "--target", child, "--mount", "--pid", "--", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def is_up(self) -> bool:
        return self.run("systemctl", "--user", "show", "--property", "Version").returncode == 0


# systemctl asks /run/systemd/system whether systemd runs here at all. The shell stays: as
# process 1, systemd takes itself for the machine's. Automounts need a process group that can
# be seen from in there.
_ALONE = 'mount -t tmpfs run /run && mkdir -p /run/systemd/system && setsid --wait "$@"; exit'

_APART = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]


@contextmanager
def user_manager(directory: Path) -> Iterator[UserManager]:
    """Start a systemd for a user whose home is `directory`; skip the test where none starts."""
    if SYSTEMD is None or shutil.which("systemctl") is None:
        pytest.skip("no systemd")
    shell = [*_APART, "sh", "-ec", _ALONE, "sh"]
    if subprocess.run([*shell, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a process cannot be given mounts and processes of its own here")
    runtime = directory / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    environment = os.environ | {"HOME": str(directory), "XDG_RUNTIME_DIR": str(runtime)}
    for name in ("DBUS_SESSION_BUS_ADDRESS", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "NOTIFY_SOCKET"):
        environment.pop(name, None)
    with (directory / "systemd.log").open("wb") as output:
        process = subprocess.Popen(
            [*shell, SYSTEMD, "--user", "--log-target=console"],
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:
        manager = UserManager(process, environment)
        until((runtime / "systemd" / "private").exists)
        until(manager.is_up)
        yield manager
    finally:
        process.send_signal(signal.SIGKILL)  # and the kernel kills all that it has started
        process.wait()
