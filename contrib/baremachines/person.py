"""Who works in a bare system: a user with a home, with or without sudo, at a terminal or not."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from typing import Final

from contrib.baremachines.system import System
from contrib.baremachines.terminal import at_a_terminal

PASSWORD: Final = "correct horse"

PATIENCE_S: Final = 900.0
"""How long a command may take where nobody sees how far it is."""

SILENCE_S: Final = 600.0
"""How long a command may show nothing. A test of contrib/check may take as long."""


@dataclass(frozen=True)
class Done:
    """How a command ended, and all that it showed."""

    status: int
    output: str

    def good(self) -> str:
        """Return what it showed, if it did not fail."""
        assert self.status == 0, f"status {self.status}:\n{self.output}"
        return self.output


class Person:
    """A user of a system, on one of its networks."""

    def __init__(
        self, system: System, name: str, *, has_sudo: bool = False, network: int = 0
    ) -> None:
        self.system = system
        self.name = name
        self.has_sudo = has_sudo
        self.home = "/root" if name == "root" else f"/home/{name}"
        self.at = "~"
        """Where the commands are given."""
        self.aliases = ""
        """Lines that each of this person's shells begins with."""
        self._network = network

    @classmethod
    def added(
        cls, system: System, name: str, *, has_sudo: bool = False, network: int = 0
    ) -> Person:
        """Make a user; with sudo it asks for the password."""
        system.run(f"useradd --create-home --shell /bin/bash {name}")
        system.run(f"echo {shlex.quote(f'{name}:{PASSWORD}')} | chpasswd")
        if has_sudo:
            system.run(f"usermod --append --groups sudo {name}")
        return cls(system, name, has_sudo=has_sudo, network=network)

    def run(self, script: str) -> Done:
        """Run some lines of the shell without a terminal; the first that fails ends it."""
        done = subprocess.run(
            self._command(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout)

    def type(self, script: str) -> Done:
        """Run some lines of the shell at a terminal; if sudo wants the password, it is given."""
        with at_a_terminal(
            self._command(script, "setsid", "--ctty", "--wait"), silence_s=SILENCE_S
        ) as terminal:
            status = terminal.wait({"[sudo] password for ": f"{PASSWORD}\n"})
        return Done(status, terminal.seen.replace("\r\n", "\n"))

    def _command(self, script: str, *before: str) -> list[str]:
        become = [
            "setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--init-groups",
            "env", "-i", *self.system.environment(self.name, self.home),
        ]  # fmt: skip
        lines = f"cd {self.at}\n{self.aliases}set -e\n{script}"
        return self.system.command(*before, *become, "bash", "-c", lines, network=self._network)
