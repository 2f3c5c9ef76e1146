"""Every message type, once: its number, its links, its limits, and what answers it.

A type that is missing here cannot be sent, and a frame of it is ignored. All other tables of
types are made of this one (PROTOCOL.md, "List of messages" and "Budgets").
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from p2pfs.protocol.fields import MAX_FILTER_BYTES, MAX_NEWS_BYTES, MAX_QUERY_BYTES, Message
from p2pfs.protocol.inbox import MAX_BODY_BYTES
from p2pfs.protocol.manifest import KIB
from p2pfs.protocol.messages import (
    Announce,
    Bye,
    Cancel,
    Changed,
    Data,
    Done,
    Enough,
    Filter,
    GetBlocks,
    GetContents,
    GetManifest,
    GetPeers,
    Guide,
    Hello,
    Introduce,
    List,
    Listing,
    Match,
    News,
    Peers,
    Ping,
    Pong,
    Punch,
    Push,
    Pushed,
    Query,
    QueryHit,
    Reject,
    Relay,
    Unknown,
    Walk,
)

BARE_BYTES: Final = 128
"""Of a body with fixed fields only. The rest is room for fields that a later version adds."""


class LinkScope(enum.Enum):
    """The kinds of link that a type belongs on."""

    NEIGHBOUR = "neighbour"
    TRANSFER = "transfer"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Rate:
    """How many messages are read from one link in a second, and how many at once."""

    per_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class MessageType:
    """A row of the table."""

    number: int
    """The first byte of its frames."""
    struct: type[Message]
    links: LinkScope
    limit: int
    """The most bytes of MessagePack in its body, both ways."""
    rate: Rate
    """A link that brings more is read no quicker. No servent ever sends nearly as many."""
    answer: type[Message | Data] | None = None
    """What answers it; REJECT does too. None for what asks nothing of its receiver."""


_N, _T, _B = LinkScope.NEIGHBOUR, LinkScope.TRANSFER, LinkScope.BOTH

REGISTRY: Final = (
    MessageType(0x01, Hello, _B, 4 * KIB, Rate(1, 1)),
    MessageType(0x02, Bye, _B, 16 * KIB, Rate(1, 1)),  # ten alternatives, four addresses each
    MessageType(0x03, Ping, _B, BARE_BYTES, Rate(5, 50), Pong),
    MessageType(0x04, Pong, _B, BARE_BYTES, Rate(5, 50)),
    MessageType(0x05, GetPeers, _N, BARE_BYTES, Rate(1, 20), Peers),
    MessageType(0x06, Peers, _N, 24 * KIB, Rate(1, 20)),  # sixteen peers at their longest
    MessageType(0x07, Walk, _N, BARE_BYTES, Rate(50, 200)),
    MessageType(0x08, Introduce, _N, 2 * KIB, Rate(20, 200)),
    MessageType(0x09, Query, _N, MAX_QUERY_BYTES, Rate(200, 1_000)),
    MessageType(0x0A, QueryHit, _N, MAX_BODY_BYTES, Rate(200, 2_000)),
    MessageType(0x0B, Done, _N, BARE_BYTES, Rate(200, 2_000)),
    MessageType(0x0C, Changed, _N, BARE_BYTES, Rate(5, 200)),
    MessageType(0x0D, Filter, _N, MAX_FILTER_BYTES + BARE_BYTES, Rate(50, 1_000)),
    MessageType(0x0E, News, _N, MAX_NEWS_BYTES, Rate(100, 1_000)),
    MessageType(0x0F, Enough, _N, BARE_BYTES, Rate(200, 1_000)),
    MessageType(0x10, GetManifest, _T, BARE_BYTES, Rate(500, 1_000), Data),
    MessageType(0x11, GetBlocks, _T, BARE_BYTES, Rate(2_000, 4_000), Data),
    MessageType(0x12, List, _T, 4 * KIB, Rate(100, 400), Listing),  # two paths at their longest
    MessageType(0x13, Listing, _T, MAX_BODY_BYTES, Rate(500, 4_000)),
    MessageType(0x14, Reject, _T, KIB, Rate(2_000, 4_000)),
    MessageType(0x15, Cancel, _T, BARE_BYTES, Rate(2_000, 4_000)),
    MessageType(0x16, Match, _T, 4 * KIB, Rate(20, 100), Listing),  # a query, and a path
    MessageType(0x17, Push, _N, 2 * KIB, Rate(50, 200)),
    MessageType(0x18, Pushed, _T, BARE_BYTES, Rate(50, 200)),
    MessageType(0x19, Punch, _N, KIB, Rate(50, 200)),  # two addresses at their longest
    MessageType(0x1A, Relay, _N, KIB, Rate(50, 200)),
    MessageType(0x1B, Announce, _N, KIB, Rate(1, 20)),  # seventeen keys
    MessageType(0x1C, Guide, _N, 2 * KIB, Rate(50, 200)),
    MessageType(0x1D, GetContents, _T, KIB, Rate(200, 400), Data),  # sixteen ids
)

UNKNOWN_RATE: Final = Rate(10, 100)
"""That of all types together that are not in the table."""

MESSAGE_TYPES: Final[Mapping[int, type[Message]]] = {row.number: row.struct for row in REGISTRY}

BODY_LIMITS: Final[Mapping[type[Message], int]] = {row.struct: row.limit for row in REGISTRY}

LINKS: Final[Mapping[type[Message], LinkScope]] = {row.struct: row.links for row in REGISTRY}

RATES: Final[Mapping[type[Message | Unknown], Rate]] = {
    **{row.struct: row.rate for row in REGISTRY},
    Unknown: UNKNOWN_RATE,
}
"""At these rates together a link takes some hundredths of a processor. DATA is bounded by what
was asked for."""

ANSWERS: Final[Mapping[type[Message], type[Message | Data]]] = {
    row.struct: row.answer for row in REGISTRY if row.answer is not None
}

ANSWER_TYPES: Final[tuple[type[Message], ...]] = (
    *dict.fromkeys(a for a in ANSWERS.values() if issubclass(a, Message)),
    Reject,
)
"""Messages that answer a request if their frame has a request id."""
