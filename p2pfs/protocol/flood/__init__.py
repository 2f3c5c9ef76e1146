"""The flood, sans-IO: queries, hits, walks and the budgets that bound them.

    routing     what to do with each message of a neighbour; the front door is `Router`
    spreading   what each neighbour may send, and which of them get a copy
    waves       what each copy of a query waits for, and the echo that ends it
    decisions   what the owner of the router is to do
    news        NEWS: which shares have changed
    filters     what neighbours say that they have
    seen        GUIDs that were seen, and the way back of their answers
    walks       random walks that introduce servents to each other
    budgets     token buckets
    askers      what each address has others do

The router never waits: its owner gives it messages and the time, and it returns decisions.
"""

from p2pfs.protocol.flood.budgets import SENDING_SHARE, TokenBucket, Urgency
from p2pfs.protocol.flood.decisions import (
    Answer,
    Ban,
    Decision,
    Deliver,
    Drop,
    DropReason,
    Finished,
    Introduced,
    LinkId,
    OfferSelf,
    Refused,
    Rest,
    Send,
    ShareChanged,
)
from p2pfs.protocol.flood.filters import (
    ALL,
    FILTER_BITS,
    OWN,
    Bits,
    FilterState,
    Keys,
    with_positions,
)
from p2pfs.protocol.flood.news import NEWS_OF_ONE_BURST, NEWS_OF_ONE_PER_S
from p2pfs.protocol.flood.routing import WIDE_TTL, Router
from p2pfs.protocol.flood.spreading import SEARCH_BURST, SEARCHES_PER_S

__all__ = [
    "ALL",
    "FILTER_BITS",
    "NEWS_OF_ONE_BURST",
    "NEWS_OF_ONE_PER_S",
    "OWN",
    "SEARCHES_PER_S",
    "SEARCH_BURST",
    "SENDING_SHARE",
    "WIDE_TTL",
    "Answer",
    "Ban",
    "Bits",
    "Decision",
    "Deliver",
    "Drop",
    "DropReason",
    "FilterState",
    "Finished",
    "Introduced",
    "Keys",
    "LinkId",
    "OfferSelf",
    "Refused",
    "Rest",
    "Router",
    "Send",
    "ShareChanged",
    "TokenBucket",
    "Urgency",
    "with_positions",
]
