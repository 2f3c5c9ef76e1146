"""What the router decides, for its owner to do (PROTOCOL.md, "Flooding" and "Walks").

Decisions come in lists and are carried out in order: a hit stands before the DONE that
covers it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

from p2pfs.protocol import (
    Done,
    Enough,
    Filter,
    Guid,
    Introduce,
    News,
    PeerInfo,
    Query,
    QueryHit,
    Walk,
)

LinkId = NewType("LinkId", int)
"""One neighbour link of this servent; never used again for another."""


class DropReason(enum.StrEnum):
    """Why something that a neighbour sent went no further."""

    NO_LINK = "the link is not open"
    OVER_BUDGET = "over budget"
    TOO_FAR = "crossed too many links"
    COLLISION = "another question under a known GUID"
    NOT_ASKED = "not asked for, or too late"
    TOO_MANY_HITS = "too many hits"
    NO_ROOM = "the asker reads too slowly"
    CAME_HOME = "our own walk came home"


@dataclass(frozen=True, slots=True)
class Send:
    """Send this message on this link."""

    link: LinkId
    message: Query | QueryHit | Done | Enough | Filter | News | Walk | Introduce


@dataclass(frozen=True, slots=True)
class Rest:
    """Read nothing more of this link for a while: its address asks more than anybody should."""

    link: LinkId
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Look this query up in the own share, then call `Router.answered` with its GUID and TTL.

    The query's `deadline_ms` says how long that may take; a later answer is not sent.
    """

    query: Query


@dataclass(frozen=True, slots=True)
class Deliver:
    """A hit for a search of our own."""

    hit: QueryHit


@dataclass(frozen=True, slots=True)
class Finished:
    """A ring of a search of our own is over; all its hits were delivered before."""

    guid: Guid
    ttl: int
    servents: int
    """How many servents saw the query for the first time, ourselves not counted."""
    hits: int
    """How many hits were delivered while the ring ran."""
    is_complete: bool
    """False if a deadline, a lost link or a budget cut the ring short."""
    skipped: int = 0
    """Over how many links the query did not go, as filters say that nothing is there."""
    refusals: int = 0
    """Over how many links it did not go, or was not taken, because a budget is spent."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A search of our own was not begun: as many as neighbours accept have begun lately."""

    guid: Guid
    wait_s: float
    """In how many seconds one as urgent may begin."""


@dataclass(frozen=True, slots=True)
class OfferSelf:
    """A walk ends here: to offer ourselves, send an Introduce with its GUID on this link."""

    link: LinkId
    guid: Guid


@dataclass(frozen=True, slots=True)
class Introduced:
    """A walk of our own ended at this peer."""

    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class ShareChanged:
    """The share of a servent within the horizon has changed."""

    news: News


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing to do: it was dropped. The reason is for tests and for `Router.statistics`."""

    link: LinkId
    reason: DropReason


@dataclass(frozen=True, slots=True)
class Ban:
    """End this link and talk to the peer no more for a while; the reason is fit for people."""

    link: LinkId
    reason: str


Decision = (
    Send
    | Answer
    | Deliver
    | Finished
    | Refused
    | OfferSelf
    | Introduced
    | ShareChanged
    | Drop
    | Ban
    | Rest
)
