"""Which block from which source next.

A `Picker` knows the sources of one content, how quick each has been, and what is on its way.
It is told what happened and is asked what to do; it neither waits nor looks at a clock.

The rules, in order of weight. A block that a reader waits for goes first, to whoever has it
here soonest. Read-ahead fills the rest of the pipelines, so that all sources end together. A
source from which nothing came for its patience is stuck: it gets nothing new, and what it
holds is asked of another too. A source that lied is never asked again. A source that lacks
a block is a reader as we are, and so one whom the work is shared with: see `rendezvous`.

Theory. That a peer is a source is a claim, and claims are free: any number of servents may
promise a content and never give it. So a source is proven by giving, and what is not proven
costs no reader more than a moment. The best proven ones are used, one place is for trying
others. While nothing has been given for a block that a reader waits for, it is asked of more
and more of those who promise it, twice as many in each PROBE_S; who gives first gets the work.
Who was asked and gave nothing makes room for those who are found later. Other readers are
waited for on credit, which is small, and only what they give renews it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from p2pfs.download.rendezvous import Fellows
from p2pfs.download.source import (
    MANIFEST,
    MAX_PAUSE_S,
    REFILL_BLOCKS,
    UNPROVEN_BYTES_PER_S,
    Event,
    RateMeter,
    Request,
    Source,
    Standing,
    Trouble,
)
from p2pfs.protocol import (
    MIB,
    PeerInfo,
    ServentId,
    block_bytes_for,
    block_count_for,
    block_span,
    manifest_bytes_for,
    who_gives_way,
)
from p2pfs.rates import RateLimit

MAX_SOURCES: Final = 8
"""Sources that are asked at one time; more only cost links."""

TRIED: Final = 1
"""Of these, those whose rate is not known: a better one may be among them."""

PROBE_AFTER_S: Final = 0.25
"""How long a block that a reader waits for may be with one source that has given nothing yet."""

PROBE_S: Final = 0.1
"""In each such time after that, twice as many sources are asked for it."""

ROUNDING: Final = 1e-6
"""The part of a step that may be missing: who is woken at the time of a step makes it."""

FELLOW_CREDIT_S: Final = 0.9
"""How long our readers may wait, in all, for other readers who have given nothing yet."""

EARNED_S: Final = 3.0
"""How much longer they wait for another reader for each block that it has given, and what each
such block adds to the credit. With 0.1 ten readers took 1.9 times the content from its source."""

MAX_FELLOWS: Final = 24
"""Most partial sources (other downloaders) asked at one time, beside the complete ones."""

FELLOW_PATIENCE_S: Final = 3.0
"""How long a reader waits, at most, for a block that is another reader's to fetch, before we fetch
it; half as long for one who was late, and so on: its line may be slower than ours."""

MAX_KNOWN_SOURCES: Final = 64
"""Sources remembered for one content. Who gave nothing makes room for others."""

MAX_IN_FLIGHT_BYTES: Final = 16 * MIB
"""Asked for and not yet kept, in all: what a fast link needs, and bounded memory."""

MAX_AHEAD_IN_FLIGHT_BYTES: Final = 12 * MIB
"""Of these, what read-ahead may take: a reader that seeks always finds room."""

ENDGAME_BLOCKS: Final = 16
"""The last blocks of a content: asked of a second source when that one is quicker."""

ENDGAME_GAIN_S: Final = 0.1
"""What a second request must gain to be worth a block."""


class Picker:
    """The sources of one content, and what is on its way from each."""

    def __init__(self, size: int, own_id: ServentId, limit: RateLimit | None = None) -> None:
        """Start without sources, for a content of `size` bytes that `own_id` reads.

        Nothing is asked for while `limit`, which others may share, is not open.
        """
        self._size = size
        self._limit = limit
        self._block_bytes = block_bytes_for(size)
        self._last_blocks = block_count_for(size) - ENDGAME_BLOCKS
        self._sources: dict[ServentId, Source] = {}
        self._gone: dict[ServentId, Source] = {}  # of those that have made room, still asked
        self._liars: set[ServentId] = set()  # of those that have made room
        self._holders: dict[int, list[Request]] = {}
        self._received: dict[int, list[Request]] = {}
        self._pending_bytes = 0
        self._fellows = Fellows(own_id)
        self._withheld: dict[int, float] = {}  # since when a reader waits for another reader
        self._credit_s = FELLOW_CREDIT_S
        self._demanded_at: dict[int, float] = {}  # since when a block is asked for, and not given
        self._look_at = math.inf

    # Facts

    def add_sources(self, peers: Iterable[PeerInfo], *, are_readers: bool = False) -> None:
        """Learn of sources, or of readers, who may have all of it or a part.

        One that is known is tried anew at once, unless it lied, or asked for a pause.
        """
        for peer in peers:
            source = self._sources.get(ServentId(peer.id)) or self._gone.get(ServentId(peer.id))
            if source is not None:
                source.peer = peer
                if source.trouble is not Trouble.BUSY:
                    source.forgive()
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
        if self._is_in_use(victim):
            self._gone[ServentId(victim.peer.id)] = victim
        if victim.standing is Standing.LIAR:
            self._liars.add(ServentId(victim.peer.id))
        return True

    def _who_gives_way(self, newcomer: PeerInfo) -> Source | None:
        """Return a source that gave nothing when asked, or a mere promise of the largest crowd.

        The last choice is who was asked longest ago and has not answered.
        """
        idle = [source for source in self._sources.values() if not self._is_in_use(source)]
        failed = [source for source in idle if source.has_nothing_to_show]
        if failed:
            return max(failed, key=lambda source: (source.is_dropped, source.failures))
        promises = [source for source in idle if source.standing is Standing.NEW]
        host = newcomer.addresses[0].host if newcomer.addresses else ""
        victim = who_gives_way(
            promises, host, host_of=lambda source: source.host, weight=lambda _: 0.0
        )
        asked = (s for s in self._sources.values() if s.requests and not s.given)
        return victim or min(asked, key=lambda source: source.tried_at, default=None)

    def _is_in_use(self, source: Source) -> bool:
        """Return whether something of it is on its way, or is being verified."""
        return bool(source.requests) or any(
            request.source.id == source.peer.id
            for requests in self._received.values()
            for request in requests
        )

    def _source_of(self, peer: PeerInfo) -> Source:
        """Return a source that was asked for something; it may have made room since."""
        known = self._sources.get(ServentId(peer.id))
        return known or self._gone[ServentId(peer.id)]

    def _come_back(self, source: Source) -> None:
        """Remember a source again that had made room, and then gave something."""
        if self._gone.pop(ServentId(source.peer.id), None) is not None:
            self._sources[ServentId(source.peer.id)] = source

    def rates(self, now: float) -> list[tuple[PeerInfo, float]]:
        """Return who gives or is asked for something, and the bytes a second. Any thread."""
        return [
            (source.peer, rate)
            for source in list(self._sources.values())
            if (rate := source.meter.rate_after(now - source.progress_at)) >= 1 or source.requests
        ]

    def forgive(self) -> None:
        """Try every source anew, but for the liars."""
        for source in self._sources.values():
            source.forgive()

    def received(self, request: Request, now: float) -> None:
        """Note that a block has come; until `ended` it is being verified and kept."""
        source = self._take_back(request)
        self._withheld.pop(request.index, None)
        self._demanded_at.clear()  # patience begins anew
        self._received.setdefault(request.index, []).append(request)
        self._pending_bytes += request.length
        source.gave(request, now)
        self._come_back(source)
        if source.is_reader:
            self._credit_s = min(FELLOW_CREDIT_S, self._credit_s + EARNED_S)

    def failed(
        self, request: Request, trouble: Trouble, now: float, pause_s: float | None = None
    ) -> None:
        """Note that a source did not give a block, and why."""
        source = self._take_back(request)
        self._refund(request)
        source.pause(trouble, now, pause_s)

    def lacked(self, request: Request, now: float, again_s: float = 0.0) -> None:
        """Note that a source does not have this one block; it may have it in `again_s`."""
        source = self._take_back(request)
        self._refund(request)
        source.again_at = now + min(again_s, MAX_PAUSE_S)
        source.lacks[request.index] = source.again_at if again_s else math.inf
        source.is_reader = source.is_partial = True
        source.progress_at, source.silent_s = now, 0.0
        if not self._is_trusted(source):
            source.back_off(now)

    def lied(self, peer: PeerInfo) -> Sequence[Request]:
        """Note that a block was wrong; return what is still asked of that source."""
        source = self._source_of(peer)
        source.happened(Event.LIED)
        return tuple(source.requests)

    def ended(self, request: Request, now: float) -> None:
        """Forget a request, whatever became of it."""
        if request in self._received.get(request.index, ()):
            self._forget(self._received, request)
        elif request in self._holders.get(request.index, ()):
            source = self._source_of(request.source)
            was_stuck, was_in_doubt = now >= source.stuck_at(), now >= source.doubtful_at()
            self._take_back(request)
            source.silent_s = now - source.progress_at if was_in_doubt else 0.0
            if was_stuck and not source.requests and not source.is_dropped:
                # Others were quicker with all that it held. Without this pause it would be
                # trusted with a full pipeline again, and each time a reader would wait.
                source.pause(Trouble.SILENT, now)
                source.meter = RateMeter()
        gone = self._gone.get(ServentId(request.source.id))
        if gone is not None and not self._is_in_use(gone):
            del self._gone[ServentId(request.source.id)]

    # Questions

    def has_lied(self, peer: PeerInfo) -> bool:
        """Return whether a source gave a wrong block."""
        return self._source_of(peer).standing is Standing.LIAR

    def rivals(self, request: Request) -> Sequence[Request]:
        """Return the requests for the same block that others have not answered."""
        return tuple(self._holders.get(request.index, ()))

    def next_requests(
        self, now: float, demanded: Iterable[int], ahead: Iterable[int]
    ) -> list[Request]:
        """Return what to ask for now; it counts as asked.

        `demanded` are the blocks that readers wait for, in order, `ahead` those that they
        will want; neither holds a block that is in the cache.
        """
        sources = self._enlisted(now)
        self._fellows.update(
            peer for peer, s in self._sources.items() if s.is_reader and self._is_trusted(s)
        )
        self._look_at = math.inf
        demanded = tuple(demanded)
        asked = (self._ask(index, sources, now, is_demanded=True) for index in demanded)
        requests = [request for request in asked if request is not None]
        requests += self._probe(demanded[:1], now)
        requests += self._fill(sources, now, ahead)
        return requests

    def next_deadline(self, now: float) -> float:
        """Return when time alone will change an answer; infinity if never."""
        times = [
            time
            for s in self._sources.values()
            for time in (s.doubtful_at(), s.stuck_at(), s.retry_at)
        ]
        times.append(self._look_at)
        if self._limit is not None:
            times.append(now + self._limit.wait_s(now))
        return min((time for time in times if time > now), default=math.inf)

    def is_held_back(self, now: float) -> bool:
        """Return whether the limit lets nothing be asked for."""
        return self._limit is not None and self._limit.wait_s(now) > 0

    def is_starved(self, now: float, demanded: Iterable[int]) -> bool:
        """Return whether no source can be expected to give one of these blocks soon."""
        available = [s for s in self._sources.values() if s.is_available(now)]
        return any(all(s.will_lack(index) for s in available) for index in demanded)

    def is_ours(self, index: int) -> bool:
        """Return whether a block, if it is wanted, will be asked of one who has the whole."""
        is_there_one = any(not (s.is_dropped or s.is_partial) for s in self._sources.values())
        return is_there_one and self._fellows.keeper_of(index) is None

    def is_hopeless(self, index: int, *, is_late: bool = False) -> bool:
        """Return whether there are sources and none of them will ever give this block.

        When it is late, those that could never be reached are not hoped for any more.
        """
        return bool(self._sources) and all(
            source.is_dropped or source.will_lack(index) or (is_late and source.is_out_of_reach)
            for source in self._sources.values()
        )

    def verdict(self, demanded: Sequence[int]) -> Trouble:
        """Return why these blocks do not come, seen over all sources."""
        troubles = {source.trouble_with(demanded) for source in self._sources.values()}
        return next((t for t in Trouble if t in troubles), Trouble.UNREACHABLE)

    @property
    def source_count(self) -> int:
        """Sources that may still be asked. Any thread."""
        return sum(not source.is_dropped for source in tuple(self._sources.values()))

    def has_enough(self, now: float) -> bool:
        """Return whether further sources would not be asked anyway."""
        whole = (s for s in self._sources.values() if not (s.is_dropped or s.is_partial))
        return sum(source.rate(now) is not None for source in whole) >= MAX_SOURCES

    # How it is decided

    def _enlisted(self, now: float) -> list[Source]:
        """Return who may be asked: the quickest of the proven, some to try, some readers."""
        available = [s for s in self._sources.values() if s.is_available(now)]
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
        places = len(known) + 1 if known else MAX_SOURCES
        places = max(TRIED, min(places, MAX_SOURCES - len(known)))
        by_rate = sorted(known, key=lambda source: -(source.rate(now) or 0.0))
        best = by_rate[: MAX_SOURCES - min(TRIED, len(tried))]
        known = [source for source in known if source in best]
        return known + tried[:places] + [s for s in available if s.is_partial][:MAX_FELLOWS]

    def _is_trusted(self, fellow: Source) -> bool:
        """Return whether a reader is one whom the work is shared with."""
        return not fellow.is_dropped and (fellow.given > 0 or self._credit_s > 0)

    def _probe(self, demanded: Sequence[int], now: float) -> Iterator[Request]:
        """Ask more and more sources for what a reader waits for, while none has given anything.

        Of a large block no more are asked than may be on their way.
        """
        self._demanded_at = {i: at for i, at in self._demanded_at.items() if i in demanded}
        for index in demanded if not self.is_held_back(now) else ():
            is_awaited = self._withheld.get(index, -math.inf) > -math.inf  # from another reader
            if index in self._received or index not in self._holders or is_awaited:
                continue
            length = self._length_of(index)
            promising = self._promising(index, now)
            most = max(1, MAX_IN_FLIGHT_BYTES // length)
            most = min(self._probes(index, now), most) if promising else 0
            for source in promising:
                holders = self._holders_of(index)
                if len(holders) >= most or any(holder.given for holder in holders):
                    break
                yield self._give(source, Request(source.peer, index, length), now)

    def _probes(self, index: int, now: float) -> int:
        """Return how many sources a block that a reader waits for may be asked of by now."""
        waited_s = now - self._demanded_at.setdefault(index, now)
        if waited_s < PROBE_AFTER_S:
            self._look_at = min(self._look_at, self._demanded_at[index] + PROBE_AFTER_S)
            return 1
        steps = int((waited_s - PROBE_AFTER_S) / PROBE_S + ROUNDING) + 1
        at = self._demanded_at[index] + PROBE_AFTER_S + steps * PROBE_S
        self._look_at = min(self._look_at, at)
        return int(min(2.0**steps, MAX_KNOWN_SOURCES))

    def _promising(self, index: int, now: float) -> list[Source]:
        """Return who may have a block and was not asked for it, the least tried first."""
        asked = {request.source.id for request in self._holders.get(index, ())}
        able = [
            source
            for source in self._sources.values()
            if source.peer.id not in asked
            and source.is_available(now)
            and not source.is_partial
            and source.may_have(index, now)
        ]
        return sorted(able, key=lambda source: (source.failures > 0, source.tried_at))

    def _fill(
        self, sources: Sequence[Source], now: float, ahead: Iterable[int]
    ) -> Iterator[Request]:
        """Ask for read-ahead as long as there is room; called for each block that comes."""
        is_stuck = any(now >= source.stuck_at() for source in self._sources.values())
        sources = [source for source in sources if source.is_low(self._block_bytes, now)]
        proven = next((source for source in sources if source.given), None)
        for index in ahead if sources and self._is_low() else ():
            if self._pending_bytes >= MAX_AHEAD_IN_FLIGHT_BYTES or self.is_held_back(now):
                return
            if index in self._received:
                continue
            is_lost = is_stuck and self._are_stuck(index, now)
            is_lost = is_lost or (
                proven is not None
                and self._has_more_to_show(proven, self._holders_of(index), now, is_demanded=False)
            )
            if index in self._holders and index < self._last_blocks and not is_lost:
                continue
            request = self._ask(index, sources, now, is_demanded=False)
            if request is not None:
                yield request
                if not any(source.has_room(self._block_bytes, now) for source in sources):
                    return

    def _ask(
        self, index: int, sources: Sequence[Source], now: float, *, is_demanded: bool
    ) -> Request | None:
        length = self._length_of(index)
        if index in self._received or self.is_held_back(now):
            return None
        holders = self._holders.get(index, ())
        if not holders and not self._has_room(length, is_demanded=is_demanded):
            return None
        if self._fellows and index != MANIFEST:
            sources = self._sharing(index, sources, now, is_demanded=is_demanded)
        source = self._best(index, length, sources, now, is_demanded=is_demanded)
        if source is None or not self._is_worth_while(source, index, length, now, is_demanded):
            return None
        return self._give(source, Request(source.peer, index, length), now)

    def _is_low(self) -> bool:
        """Return whether enough may be asked for to be worth a look."""
        refill_bytes = min(REFILL_BLOCKS * self._block_bytes, MAX_AHEAD_IN_FLIGHT_BYTES)
        return self._pending_bytes + refill_bytes <= MAX_AHEAD_IN_FLIGHT_BYTES

    def _has_room(self, length: int, *, is_demanded: bool) -> bool:
        limit = MAX_IN_FLIGHT_BYTES if is_demanded else MAX_AHEAD_IN_FLIGHT_BYTES
        return not self._pending_bytes or self._pending_bytes + length <= limit

    def _sharing(
        self, index: int, sources: Sequence[Source], now: float, *, is_demanded: bool
    ) -> Sequence[Source]:
        """Return who may be asked for a block, since other readers fetch their share."""
        whole = [source for source in sources if not source.is_partial] or sources
        keeper = self._fellows.keeper_of(index)
        if keeper is None or index in self._holders:
            return whole
        fellow = self._sources[keeper]
        if fellow.will_lack(index) or not fellow.is_available(now):
            return whole
        if is_demanded:
            pace_s = min(source.eta_s(self._block_bytes) for source in whole)
            earned_s = fellow.given * EARNED_S if fellow.given else self._credit_s
            patience_s = min(max(FELLOW_PATIENCE_S, 2 * pace_s), earned_s)
            patience_s /= 2 ** min(fellow.lates, 10)
            give_up_at = self._withheld.setdefault(index, now) + patience_s
            if give_up_at <= now:
                self._was_late(fellow, index, now)
                return whole
            self._look_at = min(self._look_at, give_up_at)
        if now < fellow.again_at:  # what it lacks is the first of its blocks, so it lacks this too
            self._look_at = min(self._look_at, fellow.again_at)
            return ()
        # The source is asked instead only where a reader waits, and the fellow is known to be
        # slower. Who is not known is asked alone: it is quick, or has it not yet.
        may_be_slow = is_demanded and fellow.rate(now) is not None
        return [s for s in sources if s is fellow or (may_be_slow and not s.is_partial)]

    def _was_late(self, fellow: Source, index: int, now: float) -> None:
        """Note, once for each block, that a reader did not have it in time."""
        since = self._withheld[index]
        if since > -math.inf:
            fellow.lates += 1
            self._withheld[index] = -math.inf
            if not fellow.given:
                self._credit_s -= now - since

    def _best(
        self,
        index: int,
        length: int,
        sources: Iterable[Source],
        now: float,
        *,
        is_demanded: bool,
    ) -> Source | None:
        asked = {request.source.id for request in self._holders.get(index, ())}
        able = (
            source
            for source in sources
            if source.peer.id not in asked
            and source.may_have(index, now)
            and source.has_room(length, now)
        )
        # An unproven source is tried with read-ahead, which can wait. The order in which the
        # sources are known settles the rest, so that a small file needs one link alone.
        unproven_s = length / UNPROVEN_BYTES_PER_S if is_demanded else 0.0
        return min(
            able,
            key=lambda s: (
                unproven_s if s.rate(now) is None else s.eta_s(length),
                s.standing is not Standing.PROVEN,
            ),
            default=None,
        )

    def _is_worth_while(
        self, source: Source, index: int, length: int, now: float, is_demanded: bool
    ) -> bool:
        """Return whether to ask `source` too, if others have been asked already."""
        if self._are_stuck(index, now):
            return True
        holders = self._holders_of(index)
        if self._has_more_to_show(source, holders, now, is_demanded=is_demanded):
            return True
        if is_demanded and all(now >= holder.doubtful_at() for holder in holders):
            return True
        if len(holders) > 1 or not (is_demanded or index >= self._last_blocks):
            return False
        if source.requests or source.rate(now) is None or holders[0].meter.rate is None:
            return False
        left_s = holders[0].eta_of_s(index) - (now - holders[0].progress_at)
        return left_s > 2 * source.eta_s(length) + ENDGAME_GAIN_S

    def _holders_of(self, index: int) -> list[Source]:
        return [self._source_of(r.source) for r in self._holders.get(index, ())]

    def _are_stuck(self, index: int, now: float) -> bool:
        """Return whether all that were asked for a block are; so if none was."""
        return all(now >= holder.stuck_at() for holder in self._holders_of(index))

    def _has_more_to_show(
        self, source: Source, holders: Sequence[Source], now: float, *, is_demanded: bool
    ) -> bool:
        """Return whether a block was asked of those alone who have given less than `source`.

        For read-ahead they must be in doubt.
        """
        if source.standing is not Standing.PROVEN or any(holder.given for holder in holders):
            return False
        if not source.given and any(one.standing is Standing.PROVEN for one in holders):
            return False
        return is_demanded or all(now >= holder.doubtful_at() for holder in holders)

    def _give(self, source: Source, request: Request, now: float) -> Request:
        if not source.requests:
            if source.rate(now) is None:
                source.meter = RateMeter()
                source.tried_at = now
            source.progress_at = now - source.silent_s
        source.requests.append(request)
        source.queued_bytes += request.length
        self._holders.setdefault(request.index, []).append(request)
        self._pending_bytes += request.length
        if self._limit is not None:
            self._limit.charge(request.length, now)
        return request

    def _refund(self, request: Request) -> None:
        if self._limit is not None:
            self._limit.refund(request.length)

    def _take_back(self, request: Request) -> Source:
        source = self._source_of(request.source)
        source.requests.remove(request)
        source.queued_bytes -= request.length
        self._forget(self._holders, request)
        return source

    def _forget(self, requests: dict[int, list[Request]], request: Request) -> None:
        self._pending_bytes -= request.length
        requests[request.index].remove(request)
        if not requests[request.index]:
            del requests[request.index]

    def _length_of(self, index: int) -> int:
        if index == MANIFEST:
            return manifest_bytes_for(self._size)
        return block_span(self._size, index)[1]
