"""The sources of one content that are remembered, and which of them are asked at one time.

Theory. That a peer is a source is a claim, and claims are free: any number of servents may
promise a content and never give it. So the number remembered is bounded, a source that gave
nothing when it was asked makes room for those that are found later, and among mere promises
those of the largest crowd give way. A liar is never remembered anew. The best of the proven
sources are asked, and one place is for trying others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from p2pfs.download.source import UNPROVEN_BYTES_PER_S, Request, Source
from p2pfs.download.standing import Standing, Trouble
from p2pfs.protocol import PeerInfo, ServentId, who_gives_way

MAX_SOURCES: Final = 8
"""Sources that are asked at one time; more only cost links."""

TRIED: Final = 1
"""Of these, those whose rate is not known: a better one may be among them."""

MAX_CO_READERS: Final = 24
"""Most partial sources (other downloaders) asked at one time, beside the complete ones."""

MAX_KNOWN_SOURCES: Final = 64
"""Sources remembered for one content. One that gave nothing makes room for others."""


class KnownSources:
    """The sources of one content, by servent id."""

    def __init__(self) -> None:
        """Start without any."""
        self._sources: dict[ServentId, Source] = {}
        self._gone: dict[ServentId, Source] = {}  # of those that have made room, still asked
        self._liars: set[ServentId] = set()  # of those that have made room

    def __iter__(self) -> Iterator[Source]:
        """Yield those that are remembered."""
        return iter(self._sources.values())

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._sources)

    def __contains__(self, servent: str) -> bool:
        """Return whether a servent is one of them."""
        return servent in self._sources

    def __getitem__(self, servent: ServentId) -> Source:
        """Return one that is remembered."""
        return self._sources[servent]

    def of(self, peer: PeerInfo) -> Source:
        """Return a source that was asked for something; it may have made room since."""
        known = self._sources.get(ServentId(peer.id))
        return known or self._gone[ServentId(peer.id)]

    def holders(self, requests: Iterable[Request]) -> list[Source]:
        """Return the sources that were asked for these."""
        return [self.of(request.source) for request in requests]

    # Remembered sources

    def add(self, peers: Iterable[PeerInfo], *, are_readers: bool = False) -> None:
        """Learn of sources, or of readers, which may have all of the content or a part.

        One that is known is tried anew at once, unless it lied, or asked for a pause.
        """
        for peer in peers:
            source = self._sources.get(ServentId(peer.id)) or self._gone.get(ServentId(peer.id))
            if source is not None:
                source.peer = peer
                if source.trouble is not Trouble.BUSY:
                    source.found_again()
            elif self._has_place(peer):
                self._sources[ServentId(peer.id)] = Source(peer, is_reader=are_readers)

    def _has_place(self, peer: PeerInfo) -> bool:
        """Return whether another source is remembered, if need be in the place of one."""
        if ServentId(peer.id) in self._liars:
            return False
        if len(self._sources) < MAX_KNOWN_SOURCES:
            return True
        victim = self._who_gives_way(peer)
        if victim is None:
            return False
        del self._sources[ServentId(victim.peer.id)]
        if victim.is_in_use:
            self._gone[ServentId(victim.peer.id)] = victim
        if victim.standing is Standing.LIAR:
            self._liars.add(ServentId(victim.peer.id))
        return True

    def _who_gives_way(self, newcomer: PeerInfo) -> Source | None:
        """Return a source that gave nothing when asked, or a mere promise of the largest crowd.

        The last choice is the source that was asked longest ago and has not answered.
        """
        idle = [source for source in self if not source.is_in_use]
        failed = [source for source in idle if source.has_nothing_to_show]
        if failed:
            return max(failed, key=lambda source: (source.is_dropped, source.failures))
        promises = [source for source in idle if source.standing is Standing.NEW]
        host = newcomer.addresses[0].host if newcomer.addresses else ""
        victim = who_gives_way(
            promises, host, host_of=lambda source: source.host, weight=lambda _: 0.0
        )
        asked = (s for s in self if s.requests and not s.given)
        return victim or min(asked, key=lambda source: source.tried_at, default=None)

    def came_back(self, source: Source) -> None:
        """Remember a source again that had made room, and then gave something."""
        if self._gone.pop(ServentId(source.peer.id), None) is not None:
            self._sources[ServentId(source.peer.id)] = source

    def let_go(self, peer: PeerInfo) -> None:
        """Forget a source that has made room, once nothing of it is on its way."""
        gone = self._gone.get(ServentId(peer.id))
        if gone is not None and not gone.is_in_use:
            del self._gone[ServentId(peer.id)]

    def forgive(self) -> None:
        """Try every source anew, but for the liars."""
        for source in self:
            source.forgive()

    # Sources that are asked

    def enlisted(self, now: float) -> list[Source]:
        """Return which may be asked: the quickest of the proven, some to try, some readers."""
        available = self.available(now)
        whole = [source for source in available if not source.is_partial]
        known = [source for source in whole if source.rate(now) is not None]
        tried = sorted(
            (source for source in whole if source.rate(now) is None),
            key=lambda source: (
                source.standing is not Standing.PROVEN,
                not source.requests,
                source.failures > 0,
                source.tried_at,
            ),
        )
        by_rate = sorted(known, key=lambda source: -(source.rate(now) or 0.0))
        places = max(TRIED, min(len(known) + 1, MAX_SOURCES - len(known)))
        if not known or (by_rate[0].rate(now) or 0.0) < UNPROVEN_BYTES_PER_S:
            places = MAX_SOURCES  # any other is likely to be quicker
        best = by_rate[: MAX_SOURCES - min(TRIED, len(tried))]
        known = [source for source in known if source in best]
        return known + tried[:places] + [s for s in available if s.is_partial][:MAX_CO_READERS]

    def available(self, now: float) -> list[Source]:
        """Return those that are neither dropped nor stuck nor in a pause."""
        return [source for source in self if source.is_available(now)]

    def next_change(self) -> Iterator[float]:
        """Yield the times at which time alone changes how a source is judged; some are past."""
        for source in self:
            yield source.doubtful_at()
            yield source.stuck_at()
            yield source.retry_at

    @property
    def are_tried(self) -> bool:
        """Whether something is asked of one that has given nothing yet."""
        all_of_them = itertools.chain(self._sources.values(), self._gone.values())
        return any(source.requests and not source.given for source in all_of_them)

    # All sources together

    def rates(self, now: float) -> list[tuple[PeerInfo, float]]:
        """Return which give or are asked for something, and the bytes a second. Any thread."""
        return [
            (source.peer, rate)
            for source in list(self._sources.values())
            if (rate := source.meter.rate_after(now - source.progress_at)) >= 1 or source.requests
        ]

    @property
    def count(self) -> int:
        """Sources that may still be asked. Any thread."""
        return sum(not source.is_dropped for source in tuple(self._sources.values()))

    def are_enough(self, now: float) -> bool:
        """Return whether further sources would not be asked anyway."""
        whole = (source for source in self if source.may_have_all)
        return sum(source.rate(now) is not None for source in whole) >= MAX_SOURCES

    def are_starved(self, now: float, demanded: Iterable[int]) -> bool:
        """Return whether no source can be expected to give one of these blocks soon."""
        available = self.available(now)
        return any(all(s.will_lack(index) for s in available) for index in demanded)

    def are_hopeless(self, index: int, *, is_late: bool) -> bool:
        """Return whether there are sources and none of them will ever give this block.

        When it is late, those that could never be reached are not hoped for any more.
        """
        return bool(self._sources) and all(
            source.is_dropped or source.will_lack(index) or (is_late and source.is_out_of_reach)
            for source in self
        )

    def verdict(self, demanded: Sequence[int], now: float) -> Trouble:
        """Return why these blocks do not come, seen over all sources."""
        troubles = {source.trouble_with(demanded, now) for source in self}
        return next((t for t in Trouble if t in troubles), Trouble.UNREACHABLE)
