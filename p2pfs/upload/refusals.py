"""How many refusals an address and a network may draw before they are read more slowly.

To ask for a content that is not here costs the asker a frame, and us some work that gives nobody
anything. An answer with data is no refusal: `turns` bounds how much of that a peer gets.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from p2pfs.latest import Latest
from p2pfs.protocol import groups_of
from p2pfs.protocol.flood import TokenBucket

REFUSALS_PER_S: Final = 200.0
REFUSAL_BURST: Final = 1_000
"""Refusals of one address in a second, and at once: a directory of files that have just gone."""

NETWORK_REFUSALS_PER_S: Final = 1_000.0
NETWORK_REFUSAL_BURST: Final = 5_000
"""The same of one network, in which a hall full of people may be."""

LONGEST_REST_S: Final = 1.0
"""How long a link is not read, at most, because of one refusal: it also says that it is there."""

MAX_COUNTED: Final = 1_024
"""Addresses and networks whose refusals are counted; the latest ones."""


class Refusals:
    """What each address and network has been refused lately."""

    def __init__(self) -> None:
        """Begin with all bursts unspent."""
        self._addresses: Latest[str, TokenBucket] = Latest(MAX_COUNTED)
        self._networks: Latest[str, TokenBucket] = Latest(MAX_COUNTED)

    def wait_s(self, host: str, now: float) -> float:
        """Charge a refusal, and return how long nothing more is to be read of its asker."""
        network, address = groups_of(host)
        most_s = 0.0
        for counted, group, per_s, burst in (
            (self._addresses, address, REFUSALS_PER_S, REFUSAL_BURST),
            (self._networks, network, NETWORK_REFUSALS_PER_S, NETWORK_REFUSAL_BURST),
        ):
            bucket = counted.renew(group, partial(TokenBucket, per_s, burst))
            most_s = max(most_s, bucket.take_ahead(now))
        return min(most_s, LONGEST_REST_S)
