"""Hosts with wires between them: network namespaces of the kernel, for servents that are processes.

    with open_wires() as wires:
        street = wires.switch()
        a = wires.host(street, "10.50.0.1")
        a.run("ip address del 10.50.0.1/24 dev eth0")
        servents.start("a", "--listen", "4774", inside=a.inside)

        internet = wires.wan(delay_ms=50, loss_percent=3)
        home = wires.router(internet, "93.184.216.11", "192.168.1.1", Router.SYMMETRIC)

Root makes them, nothing in them leads out of this machine, and they are gone with the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from tests.helpers.mounted import PROJECT, until

_ROUTER = """
table ip home {{
    chain out {{ type nat hook postrouting priority 100; oifname "eth0" {nat}; }}
    chain to_router {{
        type filter hook input priority 0;
        iifname "eth0" ct state established,related accept
        iifname "eth0" {others}
    }}
    chain to_home {{
        type filter hook forward priority 0;
        iifname "eth0" ct state established,related accept
        iifname "eth0" {others}
    }}
}}
"""


class Router(enum.Enum):
    """How a router shows connections from within, and treats what nobody within has asked for."""

    CONE = ("masquerade", "drop")
    """The port stays what it is. Only who was written to may answer (port-restricted cone)."""
    REFUSING = ("masquerade", "reject with tcp reset")
    """The same, and it says no."""
    SHIFTING = ("ip protocol tcp tcp sport 4774 snat to {outside}:14774", "drop")
    """Another port, the same one for everybody."""
    SYMMETRIC = ("masquerade random", "drop")
    """Another port for each connection."""

    def rules(self, outside: str) -> str:
        """Return what nft is told, for a router with such an address outside."""
        nat, others = self.value
        nat = nat.format(outside=outside)
        if "snat" in nat:
            nat = f'{nat}; oifname "eth0" masquerade'
        return _ROUTER.format(nat=nat, others=others)


_CLONE_NEWNET = 0x40000000  # linux/sched.h; os.setns comes with Python 3.12

_HOLD = ("unshare", "--net", "--fork", "--kill-child", "sleep", "infinity")


@dataclass(frozen=True)
class Host:
    """A network namespace, as long as its process lives."""

    pid: int

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with that is run there."""
        return ("nsenter", "--net", "--target", str(self.pid), "--")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be there with this thread, and those that it starts, for the length of the block."""
        with open("/proc/thread-self/ns/net") as home, open(f"/proc/{self.pid}/ns/net") as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())

    def run(self, script: str) -> str:
        """Run a script there, and return what it prints."""
        done = subprocess.run(
            [*self.inside, "sh", "-ec", script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def _set_namespace(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Wan:
    """An Internet in a process; see `tests.helpers.wan`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def plug(self, host: Host, address: str, interface: str) -> None:
        """Give a host a device that leads there."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{host.pid} {interface} {address}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "plugged in\n"


class Wires:
    """Makes hosts and connects them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._ends = 0

    def _namespace(self) -> Host:
        process = self._stack.enter_context(_process())
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until(lambda: children.read_text().split())
        host = Host(int(children.read_text()))
        host.run("ip link set lo up")
        return host

    def switch(self) -> Host:
        """Make a switch, which has no address."""
        switch = self._namespace()
        switch.run("ip link add br0 type bridge mcast_snooping 0; ip link set br0 up")
        return switch

    def host(self, switch: Host | Wan, address: str, *, router: str | None = None) -> Host:
        """Make a host with an address (of /24 or /64) on a switch, and maybe a way out."""
        host = self._namespace()
        self.plug(host, switch, address)
        if router is not None:
            host.run(f"ip route add default via {router}")
        return host

    def wan(self, *, delay_ms: float = 0, jitter_ms: float = 0, loss_percent: float = 0) -> Wan:
        """Make an Internet: each way takes so long, and loses so many packets."""
        if not Path("/dev/net/tun").exists():
            cannot("an Internet with delay needs /dev/net/tun")
        return self._stack.enter_context(_wan(delay_ms, jitter_ms, loss_percent))

    def router(
        self, outside: Host | Wan, address: str, inside: str, kind: Router = Router.CONE
    ) -> Host:
        """Make a home: return its switch, behind a router that lets in only what was let out.

        The router has `address` on the switch `outside` and `inside` at home, and puts its own
        address in the place of those of the home, as all do.
        """
        if shutil.which("nft") is None:
            cannot("a router needs nft")
        home = self.switch()
        router = self.host(outside, address)
        self.plug(router, home, inside, "eth1")
        router.run("echo 1 >/proc/sys/net/ipv4/ip_forward")
        router.run(f"nft -f - <<'END'\n{kind.rules(address)}\nEND")
        return home

    def plug(self, host: Host, switch: Host | Wan, address: str, interface: str = "eth0") -> None:
        """Lead a wire from a switch to a new interface of a host."""
        if isinstance(switch, Wan):
            switch.plug(host, address, interface)
            return
        self._ends += 1
        end = f"end{self._ends}"
        switch.run(f"ip link add {end} type veth peer name {interface} netns {host.pid}")
        switch.run(f"ip link set {end} master br0 up")
        width, flag = (64, "nodad") if ":" in address else (24, "")
        host.run(f"ip address add {address}/{width} dev {interface} {flag}")
        host.run(f"ip link set {interface} up")


def cannot(reason: str) -> NoReturn:
    """Skip the test, because this machine cannot make a world for it; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"worlds of namespaces must be there in CI: {reason}", pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def open_wires() -> Iterator[Wires]:
    """Give an empty world; see `cannot` for where none can be made."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        cannot("hosts with wires between them need root, unshare, nsenter and ip")
    with ExitStack() as stack:
        yield Wires(stack)


@contextlib.contextmanager
def _wan(delay_ms: float, jitter_ms: float, loss_percent: float) -> Iterator[Wan]:
    numbers = map(str, (delay_ms, jitter_ms, loss_percent))
    command = [sys.executable, "-m", "tests.helpers.wan", *numbers]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=PROJECT, text=True, **pipes) as process:
        try:
            yield Wan(process)
        finally:
            process.kill()


@contextlib.contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(_HOLD, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()  # and the kernel kills what it has started, with its namespace
