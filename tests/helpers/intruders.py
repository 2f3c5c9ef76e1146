"""Strangers who become neighbours of the first servent of a world, from any host."""

from __future__ import annotations

from p2pfs.protocol import Address, Identity, LinkKind
from p2pfs.protocol.messages import Hello
from tests.helpers.rogues import RawPeer
from tests.helpers.world import PORT, World, host


async def intrude(
    world: World, from_host: str, identity: Identity | None = None, listen_port: int = PORT
) -> RawPeer:
    """Become a neighbour that says it listens at a port of the host where it is seen."""
    there, own = Address(host(0), PORT), Address(from_host, listen_port)
    network = world.net.host(from_host)
    peer = await RawPeer.dial(network, there, LinkKind.NEIGHBOUR, identity=identity, hello=False)
    await peer.send(Hello(LinkKind.NEIGHBOUR, "liar", listen_port, there, (own,), "liar"))
    await peer.receive()
    return peer
