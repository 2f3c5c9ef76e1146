"""Hosts with wires between them: network namespaces of the kernel, for servents that are processes.

    with open_wires() as wires:
        street = wires.switch()
        a = wires.host(street, "10.50.0.1")
        a.run("ip address del 10.50.0.1/24 dev eth0")
        servents.start("a", "--listen", "4774", inside=a.inside)

Root makes them, nothing in them leads out of this machine, and they are gone with the test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.mounted import until

_ROUTER = """
table ip home {
    chain out { type nat hook postrouting priority 100; oifname "eth0" masquerade; }
    chain to_router {
        type filter hook input priority 0;
        iifname "eth0" ct state established,related accept
        iifname "eth0" drop
    }
    chain to_home {
        type filter hook forward priority 0;
        iifname "eth0" ct state established,related accept
        iifname "eth0" drop
    }
}
"""

_HOLD = ("unshare", "--net", "--fork", "--kill-child", "sleep", "infinity")


@dataclass(frozen=True)
class Host:
    """A network namespace, as long as its process lives."""

    pid: int

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with that is run there."""
        return ("nsenter", "--net", "--target", str(self.pid), "--")

    def run(self, script: str) -> str:
        """Run a script there, and return what it prints."""
        done = subprocess.run(
            [*self.inside, "sh", "-ec", script], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


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

    def host(self, switch: Host, address: str, *, router: str | None = None) -> Host:
        """Make a host with an address (of /24 or /64) on a switch, and maybe a way out."""
        host = self._namespace()
        self.plug(host, switch, address)
        if router is not None:
            host.run(f"ip route add default via {router}")
        return host

    def router(self, outside: Host, address: str, inside: str) -> Host:
        """Make a home: return its switch, behind a router that lets in only what was let out.

        The router has `address` on the switch `outside` and `inside` at home, and puts its own
        address in the place of those of the home, as all do. Skips the test without nft.
        """
        if shutil.which("nft") is None:
            pytest.skip("a router needs nft")
        home = self.switch()
        router = self.host(outside, address)
        self.plug(router, home, inside, "eth1")
        router.run("echo 1 >/proc/sys/net/ipv4/ip_forward")
        router.run(f"nft -f - <<'END'\n{_ROUTER}\nEND")
        return home

    def plug(self, host: Host, switch: Host, address: str, interface: str = "eth0") -> None:
        """Lead a wire from a switch to a new interface of a host."""
        self._ends += 1
        end = f"end{self._ends}"
        switch.run(f"ip link add {end} type veth peer name {interface} netns {host.pid}")
        switch.run(f"ip link set {end} master br0 up")
        width, flag = (64, "nodad") if ":" in address else (24, "")
        host.run(f"ip address add {address}/{width} dev {interface} {flag}")
        host.run(f"ip link set {interface} up")


@contextlib.contextmanager
def open_wires() -> Iterator[Wires]:
    """Give an empty world; skip the test where none can be made."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        pytest.skip("hosts with wires between them need root, unshare, nsenter and ip")
    with ExitStack() as stack:
        yield Wires(stack)


@contextlib.contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(_HOLD, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()  # and the kernel kills what it has started, with its namespace
