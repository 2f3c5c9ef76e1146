"""A machine whose network changes when a test says so."""

from __future__ import annotations

from p2pfs.journal import Journal
from p2pfs.reach import NetworkChanges
from tests.helpers.memnet import MemoryHost, MemoryNetwork


def watched_machine() -> tuple[MemoryHost, NetworkChanges]:
    """Give a host in memory, and the watch over it, which has to be run."""
    host = MemoryNetwork().host("10.0.0.1")
    return host, NetworkChanges(host, lambda: (), lambda: None, Journal(lambda: 0.0))
