"""Which addresses that strangers name may be dialled or passed on (PROTOCOL.md, "Joining").

Strangers can name any address to a servent. Without a rule it becomes a tool for knocking at other
people's doors: web servers, routers, what listens on this machine only.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from collections.abc import Iterable
from typing import Final

from p2pfs.protocol.fields import Address

MIN_PORT: Final = 1024
"""Below it are other people's services: a stranger that names one names no servent."""


class Scope(enum.IntEnum):
    """How far an address reaches."""

    MACHINE = 0
    SITE = 1
    WORLD = 2


def scope_of(host: str) -> Scope | None:
    """Return the reach of an IP address, or None for what nobody can dial or is no IP address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if address.is_loopback:
        return Scope.MACHINE
    if address.is_multicast or address.is_unspecified or address.is_reserved:
        return None
    return Scope.SITE if address.is_private or address.is_link_local else Scope.WORLD


@functools.lru_cache(maxsize=4_096)
def groups_of(host: str) -> tuple[str, str]:
    """Return the network that an address belongs to, and the part of it that one machine has.

    That is /24 and the address itself, or /48 and /64 of IPv6. A person with one address of a
    network may have them all, so servents are counted by network first. A host that is no IP
    address stands for itself.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host, host
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    wide, narrow = (24, 32) if address.version == 4 else (48, 64)
    return _network(address, wide), _network(address, narrow)


def _network(address: ipaddress.IPv4Address | ipaddress.IPv6Address, bits: int) -> str:
    return str(ipaddress.ip_network((address, bits), strict=False))


def zone_of(host: str) -> str:
    """Return the interface of this machine that a link-local address is behind, or nothing."""
    return host.partition("%")[2]


def without_zone(address: Address) -> Address:
    """Return an address as others get it: they have interfaces of their own."""
    host, percent, _ = address.host.partition("%")
    return Address(host, address.port) if percent else address


def may_dial(address: Address, told_by: Address) -> bool:
    """Return whether an address is worth a dial, given the link on which it was named.

    An address that reaches less far than the link is somebody else's machine or site: a peer
    across the Internet must not send us to our own loopback or our neighbour's printer.
    """
    return reaches(address, scope_of(told_by.host) or Scope.MACHINE)


def reaches(address: Address, least: Scope) -> bool:
    """Return whether a named address may be dialled at all, and reaches so far."""
    scope = scope_of(address.host)
    return scope is not None and scope >= least and address.port >= MIN_PORT


def dialable(addresses: Iterable[Address], told_by: Address) -> tuple[Address, ...]:
    """Return those addresses that may be dialled, in order, each once.

    A link-local address of IPv6 is dialled on the interface of the link that named it, and never
    on one that a stranger names. A peer farther away is on another line, and is not believed.
    """
    here = (_on_our_line(a, told_by) for a in addresses if may_dial(a, told_by))
    return tuple(dict.fromkeys(a for a in here if a is not None))


def _on_our_line(address: Address, told_by: Address) -> Address | None:
    address = without_zone(address)
    if ":" not in address.host or not ipaddress.ip_address(address.host).is_link_local:
        return address
    zone = zone_of(told_by.host)
    return Address(f"{address.host}%{zone}", address.port) if zone else None
