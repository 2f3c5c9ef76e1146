"""A machine on which little is installed, as far as contrib/setup.sh can see.

Its programs are those of a directory: a few of this machine, and stand-ins for what installs
and for what is installed. What apt installed is a list of names in a file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from contrib.baremachines.terminal import Terminal, at_a_terminal

PROJECT: Final = Path(__file__).parents[2]

PASSWORD: Final = "correct horse"

NOBODY: Final = 65_534

PATIENCE_S: Final = 60.0

_OF_THIS_MACHINE: Final = (
    "basename", "bash", "cat", "chmod", "cut", "date", "dirname", "env", "flock", "grep", "ln",
    "mkdir", "mv", "readlink", "rm", "sed", "sh", "sha256sum", "sleep", "tail", "touch", "tr",
)  # fmt: skip

_STAND_INS: Final = {
    "apt-get": """
        echo "apt-get $*" >>"$MACHINE/asked"
        [ -e "$MACHINE/root" ] || { echo "E: are you root?"; exit 100; }
        case " $* " in
            *" update "*) touch "$MACHINE/updated"; exit ;;
        esac
        for one in "$@"; do
            case $one in -*|install) continue ;; esac
            [ -e "$MACHINE/updated" ] || { echo "E: Unable to locate package $one"; exit 100; }
            [ ! -e "$MACHINE/broken" ] || { echo "Get:1 $one"; echo "E: broken mirror"; exit 100; }
            echo "Unpacking $one"
            while [ -e "$MACHINE/slow" ]; do sleep 0.05; done
            echo "$one" >>"$MACHINE/installed"
            case $one in
                fuse3) ln -s "$(command -v true)" "$MACHINE/bin/fusermount" ;;
                python3) mv "$MACHINE/uninstalled/python3" "$MACHINE/bin/python3" ;;
                rsync|tmux|unzip) ln -s "$(command -v true)" "$MACHINE/bin/$one" ;;
            esac
        done
        """,
    "ldconfig": """
        if grep -qx libfuse2 "$MACHINE/installed"; then echo "libfuse.so.2 (libc6) => /lib/x"; fi
        """,
    "sudo": """
        if [ "$1" = -n ]; then
            shift
            [ -e "$MACHINE/may-sudo" ] || { echo "sudo: a password is required" >&2; exit 1; }
        fi
        if [ "$1" = -v ]; then
            printf '[sudo] password: ' >/dev/tty
            read -r given </dev/tty
            [ "$given" = "$PASSWORD" ] || { echo "sudo: not in the sudoers file" >&2; exit 1; }
            touch "$MACHINE/may-sudo"
            exit
        fi
        [ -e "$MACHINE/may-sudo" ] || { echo "sudo: a password is required" >&2; exit 1; }
        touch "$MACHINE/root"
        "$@"; status=$?
        rm "$MACHINE/root"
        exit $status
        """,
    "true": "",
}

_PYTHON: Final = """
case "$*" in
    *ensurepip*) grep -qx python3-venv "$MACHINE/installed" ;;
    "-m venv --clear "*)
        for place in "$@"; do :; done
        mkdir -p "$place/bin"
        ln -s "$MACHINE/bin/python3" "$place/bin/python"
        ;;
    "-m pip install "*)
        [ ! -e "$MACHINE/no-index" ] || { echo "ERROR: no index"; exit 1; }
        ln -sf "$MACHINE/bin/ran" "${0%/*}/p2pfs"
        ;;
    "-I -c import p2pfs") [ -e "${0%/*}/p2pfs" ] ;;
    "-I -c import pip"*) ;;
    *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


def program(name: str) -> str:
    """Return where a program of this machine is."""
    path = shutil.which(name)
    assert path is not None, name
    return path


class BareMachine:
    """A checkout on such a machine, and who works there: root, or an ordinary user."""

    def __init__(self, directory: Path, *, is_root: bool) -> None:
        self.directory = directory
        self.checkout = directory / "p2pfs"
        self._is_root = is_root
        self._make_programs()
        shutil.copytree(PROJECT / "contrib", self.checkout / "contrib")
        shutil.copy(PROJECT / "pyproject.toml", self.checkout)
        (directory / "installed").write_text("")
        if is_root:
            (directory / "root").write_text("")
        elif os.geteuid() == 0:
            for path in (directory, *directory.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

    def _make_programs(self) -> None:
        for place in (self.directory / "bin", self.directory / "uninstalled"):
            place.mkdir()
        for name in _OF_THIS_MACHINE:
            (self.directory / "bin" / name).symlink_to(program(name))
        for name, script in _STAND_INS.items():
            self.add_program(name, script)
        self.add_program("ran", 'echo "ran p2pfs $*"')
        self.add_program("../uninstalled/python3", _PYTHON)

    def add_program(self, name: str, script: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)

    def mark(self, name: str) -> Path:
        """Make something so: `may-sudo`, `broken`, `slow`, `no-index`."""
        path = self.directory / name
        path.touch()
        return path

    @property
    def asked(self) -> list[str]:
        """What apt-get was run with."""
        asked = self.directory / "asked"
        return asked.read_text().splitlines() if asked.exists() else []

    @property
    def log(self) -> str:
        return (self.checkout / ".set-up.log").read_text()

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the checkout, without a terminal."""
        return subprocess.run(
            [*self._become(), *words], cwd=self.checkout, env=self._environment(),
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=PATIENCE_S, check=False,
        )  # fmt: skip

    def at_a_terminal(self, *words: str) -> AbstractContextManager[Terminal]:
        """Run a command in the checkout, at a terminal of its own."""
        command = [*self._become(), program("setsid"), "--ctty", "--wait", *words]
        return at_a_terminal(command, cwd=self.checkout, env=self._environment())

    def _become(self) -> list[str]:
        if self._is_root or os.geteuid() != 0:
            return []
        return [program("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": str(self.directory / "bin"), "HOME": str(self.directory),
            "MACHINE": str(self.directory), "PASSWORD": PASSWORD,
            "TERM": "xterm", "LC_ALL": "C.UTF-8",
        }  # fmt: skip
