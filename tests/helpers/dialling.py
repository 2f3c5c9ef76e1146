"""Dial one address: what a peer of a servent under test does."""

from __future__ import annotations

from p2pfs.link import Link, LocalServent, Network
from p2pfs.link.greeting import greet
from p2pfs.protocol import Address, LinkKind, ServentId


async def dial_link(
    network: Network,
    address: Address,
    local: LocalServent,
    kind: LinkKind,
    expected_id: ServentId | None = None,
) -> Link:
    """Open a link to the servent at `address`; errors as those of `Network.dial` and `greet`."""
    return await greet(await network.dial(address), str(address), local, kind, expected_id)
