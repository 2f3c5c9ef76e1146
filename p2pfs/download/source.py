"""One source of a content: its rate, the requests that it has, and how long it may be silent.

Like the picker, which keeps one `Source` for each peer, it learns from its caller what happened and
at what time; it asks nobody anything.

How it stands is the table of `standing`. Time adds what the table does not say: a source that was
asked and is silent for a part of its patience is in doubt, and after all of it it is stuck.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from p2pfs.download.standing import DROPPED, STANDINGS, SourceEvent, Standing, Trouble, event_of
from p2pfs.protocol import MIB, PeerInfo

MANIFEST: Final = -1
"""The index under which the manifest is asked for, as if it were a block."""

FIRST_BLOCKS: Final = 2
"""Blocks asked of a source that has shown nothing yet, and at least of any."""

PIPELINE_S: Final = 1.0
"""Time's worth of blocks asked of a source. Longer gains nothing below a second of round
trip, and a seek waits behind it."""

UNPROVEN_PATIENCE_S: Final = 2.0
"""How long a source may be silent before its rate is known; it may have to be dialled."""

UNPROVEN_BYTES_PER_S: Final = 1 * MIB
"""The rate assumed of a source whose rate is not known: at this rate a large block may take so
long before the source counts as stuck, and a block that a reader waits for is rather asked of it
than of a proven source that is slower than this."""

MIN_PATIENCE_S: Final = 0.5
"""How long a source of known rate may be silent: below it, jitter would look like a stop.
A needless second request costs one block; a reader's standstill costs more."""

MAX_PATIENCE_S: Final = 20.0
"""Beyond this a source is stuck however slow it was before."""

PATIENCE_FACTOR: Final = 4.0
"""How much slower than measured a source may get before it counts as stuck."""

DOUBT: Final = 0.5
UNPROVEN_DOUBT: Final = 0.25
"""After this fraction of the patience, a block that a reader waits for is requested from a second
source as well: a duplicate block costs less than a pause."""

RATE_WINDOW_S: Final = 3.0
"""Time over which a rate is averaged."""

RATE_MEMORY_S: Final = 10.0
"""After this long without work a source's rate is forgotten, so that it is tried anew."""

BACK_OFF_S: Final = (1.0, 2.0, 4.0, 8.0)
"""Pauses of a source that failed once, twice, ... in a row."""

CLOSED_PAUSE_S: Final = 0.05
"""Pause of a source whose link ended, the first time. Idle links end; the next is dialled."""

MAX_PAUSE_S: Final = 60.0
"""The longest pause that a source may ask for itself."""

MIN_AGAIN_S: Final = 0.2
AGAIN_OFTEN: Final = 20
"""A source that may have a block soon is asked again no earlier, whatever it says; one that has
given nothing after so many times in a row half as often each time. Where ten share a line of 2 MB/s
a reader has nothing to give for some seconds: after 5 times they took 37 s for 32 MiB, which is
more than twice what one takes."""

SAID_S: Final = 5.0
"""What a source has said counts for so long while it is asked again: a dial ends after 3.5 s, and a
refusal takes a moment more. After that it is there, and silent."""

_LACKED_BEFORE: Final = -math.inf
# In place of the time when to ask again: it lacked the block, and was found again since.

_LACKED: Final = frozenset({math.inf, _LACKED_BEFORE})
# Of a block that it lacked, and was not fetching.

REFILL_BLOCKS: Final = 16
"""A source with a long pipeline is asked for so many blocks at once, any other for half of what its
pipeline has: to look for blocks to ask for, and to ask for one alone, costs as much as to receive
it."""


@dataclass(eq=False, slots=True)
class Request:
    """One block asked of one source."""

    source: PeerInfo
    index: int
    length: int


class RateMeter:
    """Bytes per second, recent ones counting more."""

    def __init__(self) -> None:
        """Start without an opinion."""
        self._bytes = 0.0
        self._seconds = 0.0
        self.rate: float | None = None
        """Bytes per second, or None if nothing was counted."""

    def add(self, count: int, elapsed_s: float) -> None:
        """Count bytes that took so long."""
        decay = math.exp(-elapsed_s / RATE_WINDOW_S)
        self._bytes = self._bytes * decay + count
        self._seconds = self._seconds * decay + elapsed_s
        self.rate = self._bytes / max(self._seconds, 0.001)

    def rate_after(self, idle_s: float) -> float:
        """Return bytes per second if nothing was counted for the last `idle_s`; 0 at first."""
        decay = math.exp(-idle_s / RATE_WINDOW_S)
        return self._bytes * decay / max(self._seconds * decay + idle_s, 0.001)


@dataclass(eq=False, slots=True)
class Source:
    """One source, as far as it is known."""

    peer: PeerInfo
    meter: RateMeter = field(default_factory=RateMeter)
    requests: list[Request] = field(default_factory=list)  # oldest first
    queued_bytes: int = 0  # of these requests
    progress_at: float = 0.0  # something came, or the first request went out
    silent_s: float = 0.0  # silence carried over when others served all its requests
    retry_at: float = 0.0
    failures: int = 0  # in a row
    standing: Standing = Standing.NEW
    trouble: Trouble | None = None  # the last that it had, till it answers or a reader comes anew
    given: int = 0  # blocks
    tried_at: float = -math.inf  # when it was asked last though it had no rate
    lacks: dict[int, float] = field(default_factory=dict)  # block -> when to ask for it again
    is_reader: bool = False  # it has the content in its cache alone, as we have
    is_partial: bool = False  # it once lacked a block
    again_at: float = 0.0  # when to ask it again for a block that it promised
    lacked_in_row: int = 0  # requests for a block that it lacked, since it gave one
    lates: int = 0  # blocks that it promised and did not have in time, less those that it gave
    verifying: int = 0  # blocks that it gave and that are being verified

    @property
    def is_dropped(self) -> bool:
        """Whether it is asked for nothing any more."""
        return self.standing in DROPPED

    def happened(self, event: SourceEvent, trouble: Trouble | None = None) -> None:
        """Take the step of the table that an event is."""
        self.standing = STANDINGS[self.standing][event]
        if self.standing is Standing.LIAR:
            self.trouble = Trouble.CORRUPT
        elif event is not SourceEvent.FORGIVEN:
            self.trouble = trouble

    def asked(self, request: Request, now: float) -> None:
        """Note that it is asked for a block."""
        if not self.requests:
            if self.rate(now) is None:
                self.meter = RateMeter()
                self.tried_at = now
            self.progress_at = now - self.silent_s
        self.requests.append(request)
        self.queued_bytes += request.length

    def take_back(self, request: Request) -> None:
        """Note that a request is not with it any more."""
        self.requests.remove(request)
        self.queued_bytes -= request.length

    def gave(self, request: Request, now: float) -> None:
        """Note that it has answered a request."""
        if request.index != MANIFEST:  # so few bytes in that time would look like a slow line
            self.meter.add(request.length, now - self.progress_at)
            self.given += 1
            self.lacked_in_row = 0
        self.lacks.pop(request.index, None)
        self.progress_at, self.silent_s = now, 0.0
        self.failures, self.retry_at = 0, 0.0
        self.lates = max(0, self.lates - 1)
        self.happened(SourceEvent.GAVE)

    def lacked(self, request: Request, now: float, again_s: float) -> None:
        """Note that it lacks a block, and may have it in `again_s`; never, if that is 0."""
        self.lacked_in_row += 1
        if again_s:
            often = 0 if self.given else max(0, self.lacked_in_row - AGAIN_OFTEN)
            again_s = max(again_s, min(MIN_AGAIN_S * 2.0 ** min(often, 10), MAX_PAUSE_S))
        self.again_at = now + again_s
        self.lacks[request.index] = self.again_at if again_s else math.inf
        self.is_reader = self.is_partial = True
        self.progress_at, self.silent_s = now, 0.0
        if not self.is_dropped:  # it has answered: what was in the way before is not any more
            self.trouble = None

    def was_relieved(self, request: Request, now: float) -> None:
        """Note that a request to it has ended unanswered, since others were quicker."""
        was_stuck, was_in_doubt = now >= self.stuck_at(), now >= self.doubtful_at()
        self.take_back(request)
        self.silent_s = now - self.progress_at if was_in_doubt else 0.0
        if was_stuck and not self.requests and not self.is_dropped:
            # Others were quicker with all that it held. Without this pause it would be
            # trusted with a full pipeline again, and each time a reader would wait.
            self.pause(Trouble.SILENT, now)
            self.meter = RateMeter()

    @property
    def is_in_use(self) -> bool:
        """Whether something of it is on its way, or is being verified."""
        return bool(self.requests) or self.verifying > 0

    @property
    def may_have_all(self) -> bool:
        """Whether it is asked as a source that has the whole content."""
        return not (self.is_dropped or self.is_partial)

    @property
    def has_nothing_to_show(self) -> bool:
        """Whether it gave nothing when it was asked, so that others may have its place."""
        return self.standing not in (Standing.NEW, Standing.PROVEN)

    @property
    def host(self) -> str:
        """The first of its addresses; empty if it has none."""
        return self.peer.addresses[0].host if self.peer.addresses else ""

    @property
    def is_out_of_reach(self) -> bool:
        """Whether no way leads to it, and it never gave a block."""
        return self.trouble is Trouble.UNREACHABLE and not self.given

    def trouble_with(self, indexes: Iterable[int], now: float) -> Trouble:
        """Return why it does not give these blocks.

        What it said last counts until it answers otherwise, or is silent though it is there. A
        source that said nothing is silent.
        """
        if self.is_dropped and self.trouble is not None:
            return self.trouble
        lacked = {self.lacks[index] for index in indexes if index in self.lacks}
        if now >= self.silent_at() and math.inf not in lacked:
            return Trouble.SILENT
        if self.trouble is not None:
            return self.trouble
        if not lacked:
            return Trouble.SILENT
        return Trouble.BUSY if lacked.isdisjoint(_LACKED) else Trouble.STALE

    def may_have(self, index: int, now: float) -> bool:
        """Return whether to ask it for a block now, as far as its having it goes."""
        return self.lacks.get(index, now) <= now

    def will_lack(self, index: int) -> bool:
        """Return whether it has said that it does not have a block, and is not fetching it."""
        return self.lacks.get(index) == math.inf

    def rate(self, now: float) -> float | None:
        """Return its bytes a second; None if nothing is known of that any more."""
        if not self.requests and now - self.progress_at > RATE_MEMORY_S:
            return None
        return self.meter.rate

    def patience_s(self) -> float:
        """Return how long it may be silent while something is asked of it."""
        length, rate = self.requests[0].length, self.meter.rate
        if rate is not None:
            wait_s = max(MIN_PATIENCE_S, PATIENCE_FACTOR * length / rate)
        elif self.failures:
            wait_s = MIN_PATIENCE_S  # it was stuck before, and this only tries it again
        else:
            wait_s = max(UNPROVEN_PATIENCE_S, length / UNPROVEN_BYTES_PER_S)
        return min(wait_s, MAX_PATIENCE_S)

    def stuck_at(self) -> float:
        """Return when it counts as stuck if nothing comes; never without requests."""
        return self.progress_at + self.patience_s() if self.requests else math.inf

    def silent_at(self) -> float:
        """Return when it is silent, whatever it has said before; never without requests."""
        return max(self.stuck_at(), self.progress_at + SAID_S)

    def doubtful_at(self) -> float:
        """Return when a block that readers need is asked of others too, if nothing comes."""
        share = UNPROVEN_DOUBT if self.meter.rate is None else DOUBT
        return self.progress_at + share * self.patience_s() if self.requests else math.inf

    def is_available(self, now: float) -> bool:
        """Return whether it may be asked now: neither dropped, nor resting, nor stuck."""
        return not self.is_dropped and self.retry_at <= now < self.stuck_at()

    def has_room(self, length: int, now: float) -> bool:
        """Return whether a block of `length` fits its pipeline."""
        first = 1 if self.failures else FIRST_BLOCKS
        if len(self.requests) <= first:
            blocks = sum(request.index != MANIFEST for request in self.requests)
            if blocks < first:
                return True
        return self.queued_bytes + length <= (self.rate(now) or 0.0) * PIPELINE_S

    def is_low(self, length: int, now: float) -> bool:
        """Return whether a pipeline of blocks of `length` is short, or has room for some."""
        refill = min(max(1, len(self.requests) // 2), REFILL_BLOCKS)
        return self.has_room(refill * length, now)

    def pause(self, trouble: Trouble, now: float, pause_s: float | None = None) -> None:
        """Ask nothing of it for a while, of its own choice or by how often it has failed.

        Requests that fail together, because their link ended, count as one failure.
        """
        if self.standing is Standing.LIAR:
            return
        self.back_off(now, trouble)
        if pause_s is not None:
            self.retry_at = now + min(pause_s, MAX_PAUSE_S)
        self.happened(event_of(trouble), trouble)
        self.silent_s = 0.0

    def back_off(self, now: float, trouble: Trouble = Trouble.BUSY) -> None:
        """Ask nothing of it for a while, longer each time that it gave nothing."""
        if self.retry_at <= now:
            self.failures += 1
            self.retry_at = now + self._back_off_s(trouble)

    def _back_off_s(self, trouble: Trouble) -> float:
        if trouble is Trouble.CLOSED and self.failures == 1:
            return CLOSED_PAUSE_S
        return BACK_OFF_S[min(self.failures, len(BACK_OFF_S)) - 1]

    def found_again(self) -> None:
        """Try it anew at once, unless it lied.

        To be found is no sign that it can be reached, nor that it has what it lacked.
        """
        again = {i: _LACKED_BEFORE if at == math.inf else 0.0 for i, at in self.lacks.items()}
        self.lacks = again
        self.retry_at = 0.0
        self.happened(SourceEvent.FORGIVEN)

    def forgive(self) -> None:
        """Try it anew at once, and forget what it said, unless it lied."""
        self.found_again()
        self.lacks.clear()
        if self.standing is not Standing.LIAR:
            self.trouble = None

    def eta_s(self, length: int) -> float:
        """Return how long a further block of `length` would take, behind the queued ones."""
        return (self.queued_bytes + length) / (self.meter.rate or math.inf)

    def eta_of_s(self, index: int) -> float:
        """Return how long after its last progress it should give a block that it was asked."""
        queued = 0
        for request in self.requests:
            queued += request.length
            if request.index == index:
                break
        return queued / (self.meter.rate or math.inf)
