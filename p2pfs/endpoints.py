"""A host and a port, and how the two are written in one text."""

from __future__ import annotations

from dataclasses import dataclass


def host_and_port(host: str, port: int) -> str:
    """Return `host:port`, with IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class Endpoint:
    """A host (name or address) and a port, as the user or an invitation named them."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return `host:port`, with IPv6 addresses in brackets."""
        return host_and_port(self.host, self.port)
