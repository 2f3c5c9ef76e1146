"""Where others may dial this machine: what is told, and what is of no use to them."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import ifaddr
import pytest

from p2pfs.link import TcpNetwork, interfaces
from p2pfs.link.interfaces import hosts_of_machine


class Machine:
    """A machine with the interfaces that a test gives it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._adapters: list[ifaddr.Adapter] = []
        self.interfaces = place / "net"
        self.ipv6 = place / "if_inet6"
        self.interfaces.mkdir()
        self.ipv6.write_text("")

    def adapters(self) -> Sequence[ifaddr.Adapter]:
        return self._adapters

    def add(self, name: str, *hosts: str, state: str = "up") -> Path:
        """Add an interface with addresses; return its place in /sys."""
        ips = [
            ifaddr.IP((host, 0, 0) if ":" in host else host, 64 if ":" in host else 24, name)
            for host in hosts
        ]
        self._adapters.append(ifaddr.Adapter(name, name, ips))
        place = self.interfaces / name
        place.mkdir()
        (place / "operstate").write_text(f"{state}\n")
        return place

    def add_bridge(self, name: str, host: str, *, port: str) -> None:
        """Add a bridge of one port, which is a `device` or, of a container, is none."""
        bridge = self.add(name, host)
        (bridge / "bridge").mkdir()
        (bridge / "brif" / "port" / port).mkdir(parents=True)

    def flag(self, host: str, flags: int) -> None:
        """Give an address of IPv6 flags, as the kernel tells them."""
        digits = ipaddress.IPv6Address(host).packed.hex()
        with self.ipv6.open("a") as table:
            table.write(f"{digits} 02 40 00 {flags:02x}     eth0\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(ifaddr, "get_adapters", machine.adapters)
    monkeypatch.setattr(interfaces, "_INTERFACES", machine.interfaces)
    monkeypatch.setattr(interfaces, "_IPV6", machine.ipv6)
    return machine


def test_addresses_of_all_reaches_are_told_ipv4_first(machine: Machine):
    machine.add("lo", "127.0.0.1", "::1")
    machine.add("eth0", "fd00::5", "2a00::5", "fe80::5", "10.0.0.5")
    machine.add("ppp0", "203.0.113.5", state="unknown")

    assert hosts_of_machine() == ["10.0.0.5", "203.0.113.5", "fd00::5", "2a00::5"]
    assert hosts_of_machine(ipv6=False) == ["10.0.0.5", "203.0.113.5"]
    assert hosts_of_machine(ipv4=False) == ["fd00::5", "2a00::5"]


def test_what_the_kernel_would_dial_from_comes_first(machine: Machine, monkeypatch):
    monkeypatch.setattr(interfaces, "_source_of", lambda _family: "10.0.0.5")
    machine.add("eth1", "10.1.0.5")
    machine.add("eth0", "10.0.0.5")

    assert hosts_of_machine() == ["10.0.0.5", "10.1.0.5"]


def test_interfaces_that_lead_nowhere_are_left_out(machine: Machine):
    machine.add("eth1", "10.1.0.5", state="down")
    machine.add_bridge("docker0", "172.17.0.1", port="none")
    machine.add_bridge("br0", "10.0.0.5", port="device")

    assert hosts_of_machine() == ["10.0.0.5"]


@pytest.mark.parametrize("flags", [0x01, 0x20, 0x40, 0x08, 0x81])
def test_addresses_of_ipv6_that_pass_are_left_out(machine: Machine, flags: int):
    machine.add("eth0", "2a00::5", "2a00::6")
    machine.flag("2a00::5", 0x80)
    machine.flag("2a00::6", flags)

    assert hosts_of_machine() == ["2a00::5"]


def test_without_a_network_there_are_none(machine: Machine):
    machine.add("lo", "127.0.0.1", "::1")

    assert hosts_of_machine() == []


def test_a_system_that_does_not_tell_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def refuse() -> None:
        raise OSError

    monkeypatch.setattr(ifaddr, "get_adapters", refuse)
    monkeypatch.setattr(interfaces, "_IPV6", tmp_path / "none")

    assert hosts_of_machine() == []


async def test_whatever_is_told_can_be_dialled() -> None:
    listener = await TcpNetwork().listen(None, 0)

    for address in listener.addresses():
        assert address.port == listener.address.port
        dialled = await TcpNetwork().dial(address)
        accepted = await listener.accept()
        await dialled.stream.aclose()
        await accepted.stream.aclose()
    await listener.aclose()


@pytest.mark.parametrize(
    ("listen", "told"),
    [("127.0.0.1", ["127.0.0.1"]), ("0.0.0.0", ["10.0.0.5"]), ("::", ["2a00::5"]),
     (None, ["10.0.0.5", "2a00::5"])],
)  # fmt: skip
async def test_no_address_is_told_that_is_not_listened_on(machine: Machine, listen, told) -> None:
    machine.add("eth0", "10.0.0.5", "2a00::5")
    listener = await TcpNetwork().listen(listen, 0)

    assert [address.host for address in listener.addresses()] == told
    await listener.aclose()


IN_A_NAMESPACE = """
mount -t sysfs sysfs /sys
ip link set lo up
for pair in eth7 off port; do ip link add $pair type veth peer name $pair-end; done
for end in eth7 eth7-end port port-end; do ip link set $end up; done
ip addr add 192.0.2.7/24 dev eth7; ip addr add 198.51.100.7/24 dev off
ip -6 addr add 2001:db8::7/64 dev eth7 nodad
ip link add box type bridge; ip link set port master box; ip link set box up
ip addr add 172.17.0.1/16 dev box
exec "$0" -c 'from p2pfs.link.interfaces import hosts_of_machine; print(*hosts_of_machine())'
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")),
    reason="only root may make a network namespace, with ip and unshare",
)
def test_what_linux_tells_is_understood() -> None:
    command = ["unshare", "--net", "--mount", "sh", "-ec"]
    done = subprocess.run(
        [*command, IN_A_NAMESPACE, sys.executable], capture_output=True, text=True, check=False
    )

    assert done.stdout.split() == ["192.0.2.7", "2001:db8::7"], done.stderr
