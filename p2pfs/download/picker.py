"""Which block from which source next.

A `Picker` knows the sources of one content, how quick each has been, and which requests are
on their way. Its owner reports every event to it and asks it for the next requests; it neither
waits nor reads a clock.

The rules, in order of weight. A block that a reader waits for goes first, to the source that has
it here soonest. Read-ahead fills the rest of the pipelines, so that all sources end together. A
source from which nothing came for its patience is stuck: it gets nothing new, and what it
holds is asked of another too. A source that lied is never asked again. A source that lacks
a block is another downloader; downloads are divided among such peers.

Theory. That a peer is a source is a claim, so a source is proven by giving, and one that is not
proven costs no reader more than a moment. Four things change for reasons of their own, and each has
its rules beside it: which sources are remembered and used (`known`), which requests are on their
way and how many may be (`outstanding`), of how many a block is asked that nobody has given
(`probing`), and which blocks are left to other readers (`sharing`). The picker joins them, and
nothing else asks: a block is asked of one source, and of a further one only if that gains more than
a block costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from p2pfs.download.choosing import Choice
from p2pfs.download.known import KnownSources
from p2pfs.download.outstanding import MAX_IN_FLIGHT_BYTES, Outstanding
from p2pfs.download.probing import Probes
from p2pfs.download.sharing import Sharing
from p2pfs.download.source import MANIFEST, MAX_PAUSE_S, Request, Source
from p2pfs.download.standing import SourceEvent, Standing, Trouble
from p2pfs.protocol import PeerInfo, ServentId, block_bytes_for
from p2pfs.rates import RateLimit


class Picker:
    """The sources of one content, and the requests that are on their way to each."""

    def __init__(self, size: int, own_id: ServentId, limit: RateLimit | None = None) -> None:
        """Start without sources, for a content of `size` bytes that `own_id` reads.

        Nothing is asked for while `limit`, which others may share, is not open.
        """
        self._block_bytes = block_bytes_for(size)
        self._sources = KnownSources()
        self._outstanding = Outstanding(size, limit)
        self._choice = Choice(size, self._sources, self._outstanding)
        self._probes = Probes()
        self._sharing = Sharing(own_id, self._sources, self._block_bytes)

    # Facts

    def add_sources(self, peers: Iterable[PeerInfo], *, are_readers: bool = False) -> None:
        """Learn of sources, or of readers, which may have all of the content or a part.

        One that is known is tried anew at once, unless it lied, or asked for a pause.
        """
        self._sources.add(peers, are_readers=are_readers)

    def forgive(self) -> None:
        """Try every source anew, but for the liars."""
        self._sources.forgive()

    def received(self, request: Request, now: float) -> None:
        """Note that a block has come; until `ended` it is being verified and kept."""
        source = self._sources.of(request.source)
        self._outstanding.arrived(request)
        self._probes.begin_anew(request.index)
        source.take_back(request)
        source.verifying += 1
        source.gave(request, now)
        self._sources.came_back(source)
        self._sharing.arrived(request.index, source)

    def failed(
        self, request: Request, trouble: Trouble, now: float, pause_s: float | None = None
    ) -> None:
        """Note that a source did not give a block, and for what reason."""
        self._refused(request).pause(trouble, now, pause_s)

    def lacked(self, request: Request, now: float, again_s: float = 0.0) -> None:
        """Note that a source does not have this one block; it may have it in `again_s`."""
        source = self._refused(request)
        source.lacked(request, now, min(again_s, MAX_PAUSE_S))
        if not self._sharing.is_trusted(source):
            source.back_off(now)

    def lied(self, peer: PeerInfo) -> Sequence[Request]:
        """Note that a block was wrong; return the requests that are still with that source."""
        source = self._sources.of(peer)
        source.happened(SourceEvent.LIED)
        return tuple(source.requests)

    def ended(self, request: Request, now: float) -> None:
        """Forget a request that is over, in whatever way."""
        if self._outstanding.kept(request):
            self._sources.of(request.source).verifying -= 1
        elif self._outstanding.is_with_source(request):
            self._withdraw(request).was_relieved(request, now)
        self._sources.let_go(request.source)

    def _refused(self, request: Request) -> Source:
        source = self._withdraw(request)
        source.take_back(request)
        self._outstanding.refund(request)
        return source

    def _withdraw(self, request: Request) -> Source:
        self._outstanding.withdraw(request)
        return self._sources.of(request.source)

    # Questions

    def has_lied(self, peer: PeerInfo) -> bool:
        """Return whether a source gave a wrong block."""
        return self._sources.of(peer).standing is Standing.LIAR

    def rivals(self, request: Request) -> Sequence[Request]:
        """Return the requests for the same block that others have not answered."""
        return self._outstanding.asked_for(request.index)

    def next_requests(
        self, now: float, demanded: Iterable[int], ahead: Iterable[int]
    ) -> list[Request]:
        """Return the requests to send now; they count as sent.

        `demanded` are the blocks that readers wait for, in order, `ahead` those that they
        will want; neither holds a block that is in the cache.
        """
        sources = self._sources.enlisted(now)
        self._sharing.update()
        self._sharing.look_at = self._probes.look_at = math.inf
        demanded = tuple(demanded)
        asked = (self._ask(index, sources, now, is_demanded=True) for index in demanded)
        requests = [request for request in asked if request is not None]
        requests += self._probe(demanded[: 1 + demanded[:1].count(MANIFEST)], now)
        requests += self._fill(sources, now, ahead)
        return requests

    def next_deadline(self, now: float) -> float:
        """Return when time alone will change an answer; infinity if never."""
        times = (
            *self._sources.next_change(),
            self._sharing.look_at,
            self._probes.look_at,
            self._outstanding.open_at(now),
        )
        return min((time for time in times if time > now), default=math.inf)

    def is_held_back(self, now: float) -> bool:
        """Return whether the limit lets nothing be asked for."""
        return self._outstanding.is_held_back(now)

    def is_ours(self, index: int) -> bool:
        """Return whether a block, if it is wanted, will be asked of a source that has the whole."""
        return any(s.may_have_all for s in self._sources) and self._sharing.is_ours(index)

    def is_starved(self, now: float, demanded: Iterable[int]) -> bool:
        """Return whether no source can be expected to give one of these blocks soon."""
        return self._sources.are_starved(now, demanded)

    def is_hopeless(self, index: int, *, is_late: bool = False) -> bool:
        """Return whether there are sources and none of them will ever give this block.

        When it is late, those that could never be reached are not hoped for any more.
        """
        return self._sources.are_hopeless(index, is_late=is_late)

    def verdict(self, demanded: Sequence[int], now: float) -> Trouble:
        """Return why these blocks do not come, seen over all sources."""
        return self._sources.verdict(demanded, now)

    def rates(self, now: float) -> list[tuple[PeerInfo, float]]:
        """Return the sources that give or are asked, and their bytes a second. Any thread."""
        return self._sources.rates(now)

    @property
    def source_count(self) -> int:
        """Sources that may still be asked. Any thread."""
        return self._sources.count

    def has_enough(self, now: float) -> bool:
        """Return whether further sources would not be asked anyway."""
        return self._sources.are_enough(now)

    # How it is decided

    def _probe(self, demanded: Sequence[int], now: float) -> Iterator[Request]:
        """Ask more and more sources for the first block that is needed, while none has given any.

        For the manifest too, if that is missing: small as it is, it says little of how quick a
        source is. Of a large block no more are asked than may be on their way.
        """
        self._probes.keep_only(demanded)
        for index in demanded if not self.is_held_back(now) else ():
            is_asked = self._outstanding.is_asked_for(index)
            if not is_asked or self._outstanding.has_arrived(index):
                continue
            promising = [] if self._sharing.is_awaited(index) else self._promising(index, now)
            if promising:
                yield from self._probe_one(index, promising, now)

    def _probe_one(self, index: int, promising: Sequence[Source], now: float) -> Iterator[Request]:
        length = self._outstanding.length_of(index)
        most = min(self._probes.count(index, now), max(1, MAX_IN_FLIGHT_BYTES // length))
        for source in promising:
            holders = self._choice.holders(index)
            if len(holders) >= most or any(holder.given for holder in holders):
                return
            yield self._give(source, Request(source.peer, index, length), now)

    def _promising(self, index: int, now: float) -> list[Source]:
        """Return sources that may have a block and were not asked for it, the least tried first."""
        asked = self._choice.holders(index)
        able = [
            source
            for source in self._sources.available(now)
            if source not in asked and not source.is_partial and source.may_have(index, now)
        ]
        return sorted(able, key=lambda source: (source.failures > 0, source.tried_at))

    def _fill(
        self, sources: Sequence[Source], now: float, ahead: Iterable[int]
    ) -> Iterator[Request]:
        """Ask for read-ahead as long as there is room; called for each block that comes."""
        is_stuck = any(now >= source.stuck_at() for source in self._sources)
        sources = [source for source in sources if source.is_low(self._block_bytes, now)]
        if not sources or not self._outstanding.is_low:
            return
        proven = None
        if self._sources.are_tried:
            proven = next((source for source in sources if source.given), None)
        for index in ahead:
            if self._outstanding.is_full_of_read_ahead:
                return
            if self._is_on_its_way(index, proven, now, may_be_stuck=is_stuck):
                continue
            request = self._ask(index, sources, now, is_demanded=False)
            if request is not None:
                yield request
                if not any(source.has_room(self._block_bytes, now) for source in sources):
                    return
            elif self.is_held_back(now):
                return

    def _is_on_its_way(
        self, index: int, proven: Source | None, now: float, *, may_be_stuck: bool
    ) -> bool:
        """Return whether a block of read-ahead need not be asked for."""
        if self._outstanding.has_arrived(index):
            return True
        if not self._outstanding.is_asked_for(index) or self._choice.is_last(index):
            return False
        if may_be_stuck and self._choice.are_stuck(index, now):
            return False
        return proven is None or not self._choice.has_more_to_show(
            proven, self._choice.holders(index), now, is_demanded=False
        )

    def _ask(
        self, index: int, sources: Sequence[Source], now: float, *, is_demanded: bool
    ) -> Request | None:
        if self._outstanding.has_arrived(index) or self.is_held_back(now):
            return None
        length = self._outstanding.length_of(index)
        is_asked = self._outstanding.is_asked_for(index)
        if not is_asked and not self._outstanding.has_room(length, is_demanded=is_demanded):
            return None
        if self._sharing and index != MANIFEST:
            if is_asked:
                sources = [s for s in sources if not s.is_partial] or sources
            else:
                sources = self._sharing.may_be_asked(index, sources, now, is_demanded=is_demanded)
        source = self._choice.best(index, length, sources, now, is_demanded=is_demanded)
        if source is None:
            if is_demanded:
                self._sharing.look_again(index, sources, now)
            return None
        return self._give(source, Request(source.peer, index, length), now)

    def _give(self, source: Source, request: Request, now: float) -> Request:
        source.asked(request, now)
        self._outstanding.add(request, now)
        return request
