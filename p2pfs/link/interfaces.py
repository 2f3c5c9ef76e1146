"""The addresses of this machine at which others may dial it.

Addresses of no use to them are left out: loopback, link-local IPv6 (it needs the name of an
interface of the other machine), those of interfaces that are down and of bridges that join
containers or virtual machines alone, and addresses of IPv6 that are meant for dialling out or on
their way out (RFC 8981).
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ifaddr

_INTERFACES: Final = Path("/sys/class/net")
_IPV6: Final = Path("/proc/net/if_inet6")

_ROUTES: Final = Path("/proc/net/route")
_THROUGH_ROUTER: Final = 0x2
"""The flag of a route that leads through a router (linux/route.h)."""

_PASSING: Final = 0x01 | 0x20 | 0x40 | 0x08
"""Flags of IPv6 addresses: temporary, deprecated, tentative, found twice (linux/if_addr.h)."""

_SOMEWHERE: Final = {socket.AF_INET: "198.51.100.1", socket.AF_INET6: "2001:db8::1"}
"""Addresses that nobody has, to ask the kernel from where it would dial the Internet."""

_DISCARD: Final = 9


_SIOCGIFFLAGS: Final = 0x8913
_IFF_RUNNING: Final = 0x40
_REQUEST: Final = struct.Struct("16sH14x")
"""Asks for the flags of an interface: netdevice(7)."""


@dataclass(frozen=True)
class Surroundings:
    """How this machine is connected at one instant."""

    hosts: frozenset[str]
    """All its addresses, those of interfaces that are down too. Links from others lead nowhere."""
    running: frozenset[str]
    """The interfaces that have a cable, or the like."""
    sources: tuple[str | None, ...] = ()
    """From where it would dial the Internet."""


def surroundings_of_machine() -> Surroundings:
    """Return how this machine is connected now; takes some 0.2 ms."""
    with contextlib.suppress(OSError):
        hosts = frozenset(_text_of(one) for a in ifaddr.get_adapters() for one in a.ips)
        return Surroundings(hosts, frozenset(_running()), tuple(map(_source_of, _SOMEWHERE)))
    return Surroundings(frozenset(), frozenset())


def _running() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                told = fcntl.ioctl(probe, _SIOCGIFFLAGS, _REQUEST.pack(name.encode(), 0))
                if _REQUEST.unpack(told)[1] & _IFF_RUNNING:
                    yield name


def hosts_of_machine(*, ipv4: bool = True, ipv6: bool = True) -> Sequence[str]:
    """Return the addresses at which others may dial this machine now, the likeliest first.

    Any thread; takes some 0.2 ms. Empty without a network, or where the system does not tell.
    """
    passing = _passing_ipv6()
    found: dict[str, None] = {}
    with contextlib.suppress(OSError):
        for adapter in ifaddr.get_adapters():
            if _may_be_dialled(_INTERFACES / str(adapter.name)):
                found |= dict.fromkeys(_text_of(one) for one in adapter.ips)
    wanted = [host for host in found if host not in passing and _is_wanted(host, ipv4, ipv6)]
    preferred = [_source_of(family) for family in _SOMEWHERE]
    return sorted(wanted, key=lambda host: (":" in host, host not in preferred))


def router_of_machine() -> str | None:
    """Return the router through which IPv4 leaves this machine, if there is one."""
    with contextlib.suppress(OSError, ValueError):
        for line in _ROUTES.read_text().splitlines()[1:]:
            _, destination, router, flags, *_ = line.split()
            if int(destination, 16) == 0 and int(flags, 16) & _THROUGH_ROUTER:
                return str(ipaddress.IPv4Address(int(router, 16).to_bytes(4, sys.byteorder)))
    return None


def is_behind_router(host: str) -> bool:
    """Return whether we reach an IP address of the Internet from one that is not of it."""
    with contextlib.suppress(ValueError, OSError):
        there = ipaddress.ip_address(host.partition("%")[0])
        family = socket.AF_INET if there.version == 4 else socket.AF_INET6
        here = _source_towards(family, str(there)) if there.is_global else None
        return here is not None and not ipaddress.ip_address(here).is_global
    return False


def _text_of(address: ifaddr.IP) -> str:
    return address.ip if isinstance(address.ip, str) else address.ip[0]


def _is_wanted(host: str, ipv4: bool, ipv6: bool) -> bool:
    address = ipaddress.ip_address(host)
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return False
    if address.version == 4:
        return ipv4
    return ipv6 and not address.is_link_local


def _may_be_dialled(interface: Path) -> bool:
    """Return whether an interface is up and leads out of this machine."""
    with contextlib.suppress(OSError):
        if (interface / "operstate").read_text().strip() == "down":
            return False
        if (interface / "bridge").exists():
            ports = (interface / "brif").iterdir()
            return any((port / "device").exists() or (port / "bonding").exists() for port in ports)
    return True


def _passing_ipv6() -> set[str]:
    """Return the addresses of IPv6 that are not for being dialled: RFC 8981 and its kin."""
    found = set()
    with contextlib.suppress(OSError, ValueError):
        for line in _IPV6.read_text().splitlines():
            digits, _, _, _, flags, _ = line.split()
            if int(flags, 16) & _PASSING:
                found.add(str(ipaddress.IPv6Address(bytes.fromhex(digits))))
    return found


def _source_of(family: socket.AddressFamily) -> str | None:
    """Return from where the kernel would dial the Internet."""
    return _source_towards(family, _SOMEWHERE[family])


def _source_towards(family: socket.AddressFamily, host: str) -> str | None:
    """Return from where the kernel would dial a host; no packet is sent for it."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, _DISCARD))
        return str(probe.getsockname()[0])
    return None
