"""NEWS: a change of a share reaches everybody within the horizon once (PROTOCOL.md, "News").

Each servent numbers its NEWS, each higher than the last. A servent that receives a higher number
than before passes it on to its other neighbours, so each link carries it once each way at most.
The signature is checked first: a number that somebody else made up would silence the servent.

The numbers are times by its clock, which may have run ahead for a day and been set right since. So
numbers that are ahead of our own clock are compared with each other alone: what it says when its
clock is right is new, and what it said before is not new again.

NEWS are charged to the neighbour that brings them, and the NEWS of one servent are bounded too, by
whatever way they come. NEWS above that are dropped; listings show the change when they are next
refreshed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from p2pfs.latest import Latest
from p2pfs.protocol import News, ServentId, check_news
from p2pfs.protocol.flood.budgets import SENDING_SHARE, Budget, Charge, TokenBucket
from p2pfs.protocol.flood.decisions import Decision, Drop, DropReason, LinkId, Send, ShareChanged

NEWS_PER_S: Final = 2.0
NEWS_BURST: Final = 300
"""NEWS that a neighbour may bring, of all servents together."""

NEWS_OF_ONE_PER_S: Final = 0.1
NEWS_OF_ONE_BURST: Final = 10
"""NEWS that one servent may send."""

ARRIVALS_PER_S: Final = 1 / 800
ARRIVAL_BURST: Final = 150
"""NEWS of servents that come or leave which are passed on of those that one neighbour brings. A
third of a full hall may leave and come back at once. In the long run those of twelve neighbours
cost half of what an idle servent may."""

AHEAD_MS: Final = 60_000
"""How far a number may be ahead of our clock and count as one that is not: clocks differ."""

MAX_TELLERS: Final = 10_000
"""Servents whose last NEWS are remembered; the oldest make room. 4 MB."""


@dataclass(slots=True)
class _Teller:
    version: int = -1
    """The highest number so far that was not ahead of our clock."""
    ahead: int = -1
    """The highest that was."""
    pace: TokenBucket = field(
        default_factory=lambda: TokenBucket(NEWS_OF_ONE_PER_S, NEWS_OF_ONE_BURST)
    )

    def is_new(self, version: int, *, is_ahead: bool) -> bool:
        return version > (self.ahead if is_ahead else self.version)

    def note(self, version: int, *, is_ahead: bool) -> None:
        if is_ahead:
            self.ahead = version
        else:
            self.version = version


@dataclass(slots=True)
class _Pace:
    """The NEWS that a neighbour may bring, and those that it may be sent."""

    brought: Budget = field(default_factory=lambda: Budget(NEWS_PER_S, NEWS_BURST))
    arrivals: TokenBucket = field(
        default_factory=lambda: TokenBucket(ARRIVALS_PER_S, ARRIVAL_BURST)
    )
    told: TokenBucket = field(
        default_factory=lambda: TokenBucket(
            NEWS_PER_S * SENDING_SHARE, int(NEWS_BURST * SENDING_SHARE)
        )
    )


class NewsTable:
    """The number of the latest NEWS of each servent, and the pace of all neighbours."""

    def __init__(self) -> None:
        self._tellers: Latest[ServentId, _Teller] = Latest(MAX_TELLERS)
        self._neighbours: dict[LinkId, _Pace] = {}

    def link_opened(self, link: LinkId) -> None:
        """Note a new neighbour."""
        self._neighbours[link] = _Pace()

    def link_lost(self, link: LinkId) -> None:
        """Forget a neighbour."""
        self._neighbours.pop(link, None)

    def charge(self, link: LinkId, now: float) -> Charge:
        """Charge a neighbour for NEWS that it brings."""
        return self._neighbours[link].brought.charge(now)

    def got_news(self, link: LinkId, news: News, now: float, now_ms: float) -> list[Decision]:
        """Take in NEWS that a neighbour brings, and pass them on if they are new.

        Raises:
            RemoteProtocolError: their provider has not signed them.
        """
        teller, is_ahead = self._tellers.get(news.provider.id), news.version > now_ms + AHEAD_MS
        if teller is not None and not teller.is_new(news.version, is_ahead=is_ahead):
            return []
        check_news(news)
        teller = self._teller(news.provider.id)
        teller.note(news.version, is_ahead=is_ahead)
        if not teller.pace.take(now):
            return [Drop(link, DropReason.OVER_BUDGET)]
        if _is_of_coming(news) and not self._neighbours[link].arrivals.take(now):
            return [ShareChanged(news), Drop(link, DropReason.OVER_BUDGET)]
        return [ShareChanged(news), *self._passed_on(news, link, now)]

    def originate(self, news: News, now: float) -> list[Decision]:
        """Send NEWS of our own to all neighbours."""
        for is_ahead in (False, True):  # nobody brings it back to us
            self._teller(news.provider.id).note(news.version, is_ahead=is_ahead)
        return list(self._sends(self._neighbours, news, now))

    def _teller(self, servent: ServentId) -> _Teller:
        return self._tellers.renew(servent, _Teller)

    def _passed_on(self, news: News, came_from: LinkId, now: float) -> Iterable[Decision]:
        if news.ttl <= 1:
            return ()
        others = [link for link in self._neighbours if link != came_from]
        return self._sends(others, replace(news, ttl=news.ttl - 1), now)

    def _sends(self, links: Iterable[LinkId], news: News, now: float) -> Iterable[Send]:
        return (Send(link, news) for link in links if self._neighbours[link].told.take(now))


def _is_of_coming(news: News) -> bool:
    """Return whether a servent says that it comes or leaves, and not what has changed."""
    return news.directories == ("",) if news.is_all else not news.directories
