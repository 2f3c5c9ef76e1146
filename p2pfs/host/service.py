"""A servent that systemd keeps running for a user: its unit is installed and removed here.

The unit holds whole paths and no variables, so that it means the same wherever systemd
reads it. While the servent runs, `p2pfs.host.manager` reports to systemd.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from p2pfs.errors import P2pfsError, UsageError

DEFAULT_UNIT: Final = "p2pfs"

UNIT_START_S: Final = 100.0
"""systemd itself gives a service 90 s to say that it is up."""

_MARK: Final = "# Written by `p2pfs service install`; `p2pfs service remove` takes it away."

_UNIT: Final = """\
{mark}
# What stands in config.toml of the state directory holds too.

[Unit]
Description=p2pfs, a peer-to-peer file-sharing network that looks like a folder
# Five failures within five minutes, and it stays down: `systemctl --user status` says why.
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
ExecStart={command}
Restart=on-failure
RestartSec=5
# A wrong option is as wrong the next time.
RestartPreventExitStatus=2
# It says goodbye, unmounts and ends within seconds.
TimeoutStopSec=30
# No sandbox: in a mount namespace of its own, nobody would see the mount; without new
# privileges, fusermount could not make it.

[Install]
WantedBy=default.target
"""

_ESCAPES: Final = {"\\": r"\\", '"': r"\"", "%": "%%"}


class ServiceError(P2pfsError):
    """The service did not start or end; the text says why."""


def parse_unit(text: str) -> str:
    """Return a text that can be the name of a unit, without `.service`.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", text):
        raise ValueError(f"{text!r} cannot be the name of a unit")
    return text


class UserService:
    """The unit of one servent, for the user's own systemd."""

    def __init__(self, name: str = DEFAULT_UNIT) -> None:
        """Take the unit's name, without `.service`.

        Raises:
            UsageError: it cannot be one.
        """
        try:
            self.unit = f"{parse_unit(name)}.service"
        except ValueError as error:
            raise UsageError(str(error)) from error
        self.path = _unit_directory() / self.unit

    @property
    def is_installed(self) -> bool:
        """Whether `install` has written it; another's unit of the same name does not count."""
        try:
            return self.path.read_text(errors="replace").startswith(_MARK)
        except FileNotFoundError:
            return False

    def install(self, arguments: Sequence[str]) -> None:
        """Run `p2pfs ARGUMENTS` now and from each login on; return when the servent is up.

        One that this unit runs already is started anew. Where the servent does not come up,
        all is as it was before.

        Raises:
            UsageError: there is no systemd for this user, or the name is taken.
            ServiceError: the servent did not come up.
        """
        if not self.is_installed and os.path.lexists(self.path):
            raise UsageError(f"{self.path} is there and not of p2pfs: choose another --unit")
        _check_systemd()
        former = self.path.read_text() if self.is_installed else None
        try:
            self._run(unit_text(arguments))
        except BaseException as error:  # it may take as long as the user does not wait
            reason = self.status() or str(error)
            with contextlib.suppress(P2pfsError):
                self.remove() if former is None else self._run(former)
            if not isinstance(error, ServiceError):
                raise
            raise ServiceError(f"{self.unit} did not start: {reason}") from error

    def remove(self) -> None:
        """End the servent and take the unit away.

        Raises:
            UsageError: there is no systemd for this user.
            ServiceError: the servent did not end.
        """
        _check_systemd()
        _systemctl("disable", "--now", self.unit)
        self.path.unlink(missing_ok=True)
        _systemctl("daemon-reload")
        self._forget_failures()

    def main_pid(self) -> int:
        """Return the process that runs now, or 0."""
        return int(self._shown("MainPID") or 0)

    def status(self) -> str:
        """Return the last status text of the servent; empty if there is none."""
        return self._shown("StatusText")

    def _run(self, text: str) -> None:
        """Make this the unit, and start it or start it anew."""
        _write(self.path, text)
        _systemctl("daemon-reload")
        _systemctl("enable", self.unit)
        self._forget_failures()
        _systemctl("restart", self.unit)

    def _forget_failures(self) -> None:
        """Let it be started again, however often it has failed."""
        with contextlib.suppress(ServiceError):  # it never failed
            _systemctl("reset-failed", self.unit)

    def _shown(self, name: str) -> str:
        with contextlib.suppress(ServiceError):
            return _systemctl("show", "--property", name, "--value", self.unit)
        return ""


def unit_text(arguments: Sequence[str]) -> str:
    """Return the unit that runs `p2pfs ARGUMENTS`."""
    words = [quoted(word) for word in (*program(), *arguments)]
    # With a colon in front, a dollar is a dollar.
    return _UNIT.format(mark=_MARK, command=":" + " ".join(words))


def program() -> list[str]:
    """Return the words that start this p2pfs, for any user and in any directory."""
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "p2pfs" and os.access(script, os.X_OK):
        return [script]
    return [sys.executable, "-P", "-m", "p2pfs"]


def quoted(word: str) -> str:
    """Return a word as a unit's command line has it (systemd.service(5), "Command lines")."""
    if re.fullmatch(r"[\w@+=:,./-]+", word, re.ASCII):
        return word
    escaped = "".join(_ESCAPES.get(c) or _escaped(c) for c in word)
    return f'"{escaped}"'


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    data = character.encode("utf-8", "surrogateescape")
    return "".join(f"\\x{byte:02x}" for byte in data)


def will_outlive_logout() -> bool:
    """Return whether the user's systemd runs on after the last logout."""
    with contextlib.suppress(OSError):
        output = _run("loginctl", "show-user", str(os.geteuid()), "--property", "Linger")
        return output.stdout.strip() == "Linger=yes"
    return False


def _unit_directory() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base, "systemd", "user")


def _check_systemd() -> None:
    try:
        _systemctl("show", "--property", "Version")
    except ServiceError as error:
        raise UsageError(
            f"your systemd cannot be asked ({error}): run this as yourself, "
            "logged in at a desktop or by ssh, not by way of su or sudo; "
            "for a mount of the whole machine, a line in /etc/fstab does it"
        ) from error


def _systemctl(*arguments: str) -> str:
    try:
        done = _run("systemctl", "--user", *arguments)
    except FileNotFoundError:
        raise UsageError("systemd is not here: there is no `systemctl`") from None
    except subprocess.TimeoutExpired:
        raise ServiceError(f"systemctl {arguments[0]}: no answer") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"systemctl {arguments[0]} failed"]
        raise ServiceError(lines[0])
    return done.stdout.strip()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=UNIT_START_S,
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
