"""How much of each message is read from one link.

A message costs its receiver little, but a stranger can send any number. So each type has
a rate, and how many may come at once. Nothing is refused here: a link that sends more is read
no quicker, so its own messages wait, and nobody else's. The rates are far above what a servent
ever sends. The router judges how much of the network's work queries and walks may cost.

Identities are free and addresses are not, so what the links of one address send is counted
together too: thirty of them, each within its rates, would take all of a processor.
"""

from __future__ import annotations

from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import (
    RATES,
    Data,
    GetBlocks,
    GetContents,
    GetManifest,
    List,
    Match,
    Message,
    Unknown,
    groups_of,
)
from p2pfs.protocol.flood import TokenBucket

FULL_DATA_BYTES: Final = 4_096
SMALL_DATA_PER_S: Final = 500.0
SMALL_DATA_BURST: Final = 1_000
"""Parts of answers that are shorter, and not the last, which are read in a second, and at once: one
costs as much as a full one. A servent sends one in a megabyte."""

REQUESTS_PER_S: Final = 5_000.0
REQUEST_BURST: Final = 10_000
"""Requests on the transfer links of one address: two for a small file, 2,500 of which are as many
as a servent gives a second. Each content of a GET_CONTENTS is one."""

MESSAGES_PER_S: Final = 1_000.0
MESSAGE_BURST: Final = 10_000
"""All other messages on the links of one address: each costs a tenth of a millisecond. Forty busy
neighbours on one machine send half as many."""

MAX_ADDRESSES: Final = 1_024
"""Addresses whose messages are counted; the one that dialled longest ago is forgotten first."""

_REQUESTS: Final = (GetBlocks, GetManifest, List, Match)


class AddressAllowance:
    """What all links of one address may still send."""

    def __init__(self) -> None:
        """Start with all bursts unspent."""
        self._requests = TokenBucket(REQUESTS_PER_S, REQUEST_BURST)
        self._messages = TokenBucket(MESSAGES_PER_S, MESSAGE_BURST)

    def wait_s(self, message: Message | Unknown, now: float) -> float:
        """Charge a message, and return how long nothing more is to be read of its link."""
        if isinstance(message, GetContents):
            return self._requests.take_ahead(now, len(message.file_ids))
        bucket = self._requests if isinstance(message, _REQUESTS) else self._messages
        return bucket.take_ahead(now)


class AddressAllowances:
    """What each address that has dialled us may still send."""

    def __init__(self) -> None:
        """Begin with no address known."""
        self._addresses: Latest[str, AddressAllowance] = Latest(MAX_ADDRESSES)

    def of(self, host: str) -> AddressAllowance:
        """Return that of the address, or /64, of a host."""
        return self._addresses.renew(groups_of(host)[1], AddressAllowance)


class Allowance:
    """What one link may still send."""

    def __init__(self) -> None:
        """Start with all bursts unspent, and count the link for no address."""
        self.of_address: AddressAllowance | None = None
        """What all links of its address may, if that is counted."""
        self._buckets: dict[type[Message | Unknown], TokenBucket] = {}
        self._small_data = TokenBucket(SMALL_DATA_PER_S, SMALL_DATA_BURST)

    def wait_s(self, message: Message | Unknown, now: float) -> float:
        """Charge a message, and return how long nothing more is to be read."""
        kind = type(message)
        bucket = self._buckets.get(kind)
        if bucket is None:
            rate = RATES[kind]
            bucket = self._buckets[kind] = TokenBucket(rate.per_s, rate.burst)
        wait_s = bucket.take_ahead(now)
        if self.of_address is None:
            return wait_s
        return max(wait_s, self.of_address.wait_s(message, now))

    def wait_after_data_s(self, data: Data, now: float) -> float:
        """Charge a part of an answer if it is short, and return how long nothing is to be read."""
        if data.is_last or data.size >= FULL_DATA_BYTES:
            return 0.0
        return self._small_data.take_ahead(now)
