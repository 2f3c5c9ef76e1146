"""The lines that a user sees when a servent is up: where it is, and how others join it."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from typing import Final

from p2pfs import report
from p2pfs.host.background import Welcome
from p2pfs.journal import printable
from p2pfs.keys import weaknesses_of
from p2pfs.protocol import Address
from p2pfs.servent import Servent

MAX_SHOWN: Final = 4
"""Join commands that are shown for each reach; `p2pfs status` has them all."""

_REACHES: Final = (
    "to join from this machine:",
    "to join from your network:",
    "to join from elsewhere, if router and firewall let port {port} in:",
)


def welcome_of(servent: Servent) -> Welcome:
    """Describe a servent that has just come up."""
    status = servent.report.status()
    keys = ("mountpoint", "listen", "addresses", "join_commands", "neighbours", "sharing")
    record = {key: status[key] for key in keys}
    record["state"] = os.fspath(servent.config.state_directory)
    warnings = [printable(text) for text in _warnings(servent)]
    lines = [state_of(servent), *_ways_in(servent), *_ways_out(servent)]
    return Welcome([printable(line) for line in lines], warnings, record)


def state_of(servent: Servent) -> str:
    """Return in one line how a servent is."""
    config, peers = servent.config, len(servent.report.peers())
    place = f"mounted on {config.mountpoint}" if config.mountpoint else "serving"
    count = "1 peer" if peers == 1 else f"{peers} peers"
    return f"{place}, listening on {_door(servent.whereabouts.listen_address)}, {count}"


def _door(address: Address) -> str:
    if ipaddress.ip_address(address.host).is_unspecified:
        return f"port {address.port} of every interface"
    return str(address)


def _ways_in(servent: Servent) -> Iterator[str]:
    """Yield the command that joins through each address, by how far the address reaches."""
    addresses, key = servent.whereabouts.addresses(), servent.config.network_key_file
    if not addresses:
        yield "this machine has no network: nobody can join it now"
    for reach, heading in enumerate(_REACHES):
        there = [address for address in addresses if _reach_of(address) == reach]
        if there:
            yield heading.format(port=there[0].port)
            yield from (f"  {report.join_command(one, key)}" for one in there[:MAX_SHOWN])
        if len(there) > MAX_SHOWN:
            yield f"  and {len(there) - MAX_SHOWN} more: `p2pfs status` has them all"


def _reach_of(address: Address) -> int:
    host = ipaddress.ip_address(address.host)
    return 0 if host.is_loopback else 2 if host.is_global else 1


def _ways_out(servent: Servent) -> Iterator[str]:
    """Yield advice for a servent that knows nobody to join through."""
    if not servent.report.peers() and not servent.knows_peers:
        yield "nobody is here yet: send somebody such a line, or join with `p2pfs join HOST:PORT`"


def _warnings(servent: Servent) -> Iterator[str]:
    yield from (f"warning: {line}" for line in servent.inviting.refused)
    if not servent.report.peers():
        failing = servent.overlay.failing_joins()
        yield from (f"warning: {line}; it is tried again and again" for line in failing)
        if servent.knows_peers and not failing:
            yield "warning: no peer that it knows answers yet; they are tried again and again"
    for root in servent.roots:
        if root.away:
            yield f"warning: {root.shared.directory} is not shared: {root.away}"
    if servent.library.is_paused:
        yield "warning: sharing is paused: `p2pfs resume` offers your files again"
    key = servent.config.network_key_file
    if key is not None:
        yield from (f"warning: {line}" for line in weaknesses_of(key))
