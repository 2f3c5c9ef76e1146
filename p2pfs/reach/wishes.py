"""What a router is asked for and what it grants, in whatever way it is asked.

A router's answer is a stranger's word. What it says of where it passes our port on from is one more
address at which we may be dialled; that somebody has dialled us proves it, and nothing else does.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Protocol

from p2pfs.protocol import MIN_PORT, Address, Scope, scope_of

LEASE_S: Final = 3600
"""How long a mapping is asked for: a servent that was killed leaves no door open for longer."""


class NotMappedError(Exception):
    """A router does not pass a port on; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class Wish:
    """The mapping that a router is asked for."""

    router: str
    """Its address on our side."""
    own: Address
    """Where it is to pass connections on to."""
    nonce: bytes
    """Says that the mapping is ours, when it is renewed or ended."""
    lease_s: int = LEASE_S
    """0 ends the mapping."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """The mapping that a router has granted."""

    outside: Address
    by: str
    lease_s: int


class Way(Protocol):
    """One way of asking a router."""

    async def __call__(self, wish: Wish) -> Mapping:
        """Return what was granted.

        Raises:
            NotMappedError: the router does not know this way, or refuses.
        """


def checked(mapping: Mapping, wish: Wish) -> Mapping:
    """Return a mapping as far as it can be one that leads to us from everywhere.

    A router behind a router grants others. None is believed for longer than was asked for.

    Raises:
        NotMappedError: it leads nowhere, or grants no time.
    """
    host, port = mapping.outside.host, mapping.outside.port
    if not wish.lease_s:
        return mapping
    if not mapping.lease_s:
        raise NotMappedError(f"the router grants no time ({mapping.by})")
    if ":" in host or scope_of(host) is not Scope.WORLD:
        raise NotMappedError(f"the router is behind another one: its own address is {host}")
    if port < MIN_PORT and port != wish.own.port:
        raise NotMappedError(f"the router passes on port {port}, where nobody dials a servent")
    return dataclasses.replace(mapping, lease_s=min(mapping.lease_s, wish.lease_s))
