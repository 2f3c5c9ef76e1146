"""The work shared with other readers of one content: for which of them we wait, and how long.

Each block is assigned to one reader (see `rendezvous`), and we ask that reader for it.

Theory. That a servent is a reader is a claim as free as any other, and a promise to have a block
soon costs nothing. So our readers wait for other readers on credit. The credit is small beside
what the sources take for the same blocks, all that have given nothing share it, and only blocks
that were given renew it. A reader that has given blocks is waited for longer, by how many it
gave; one that is late is waited for half as long each time. When its time is over, a block is
asked of the sources as if there were no other readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from p2pfs.download.known import KnownSources
from p2pfs.download.rendezvous import Rendezvous
from p2pfs.download.source import Source
from p2pfs.protocol import ServentId

CREDIT_S: Final = 0.9
"""How long our readers may wait, in all, for other readers that have given nothing yet."""

CREDIT_BLOCKS: Final = 2
"""Or as long as the quickest source takes for so many blocks, if that is longer, up to
ASSIGNED_PATIENCE_S.
Where ten share a line of 2 MB/s, each has its next block after 1.3 s: on 0.9 s most of them gave
each other up before anything could be given, and took 1.4 to 1.7 times the content from the source.
With this they take 1.28 to 1.38 times."""

EARNED_S: Final = 3.0
"""How much longer they wait for another reader for each block that it has given, and what each
such block adds to the credit. With 0.1 ten readers took 1.9 times the content from its source."""

ASSIGNED_PATIENCE_S: Final = 3.0
"""How long a reader waits, at most, for a block that is assigned to another reader, before we fetch
it; half as long for one that was late, and so on: its line may be slower than ours."""

_WAS_LATE: Final = -math.inf
# In place of the time since when a reader waits for a block: it waited long enough.


class Sharing:
    """The blocks that are left to other readers to fetch, each for a while."""

    def __init__(self, own_id: ServentId, sources: KnownSources, block_bytes: int) -> None:
        """Share with nobody yet; other readers are among `sources`."""
        self._sources = sources
        self._block_bytes = block_bytes
        self._rendezvous = Rendezvous(own_id)
        self._withheld: dict[int, float] = {}  # since when a reader waits for another reader
        self._credit_s = CREDIT_S  # how long those that have given nothing may be waited for
        self._spent_s = 0.0  # how long they were
        self.look_at = math.inf
        """When others may be asked for a block decided on since this was set to infinity."""

    def __bool__(self) -> bool:
        """Return whether there are other readers."""
        return bool(self._rendezvous)

    def update(self) -> None:
        """Share with those that are to be trusted now."""
        self._credit_s = min(max(CREDIT_S, CREDIT_BLOCKS * self._pace_s), ASSIGNED_PATIENCE_S)
        self._rendezvous.update(
            ServentId(source.peer.id)
            for source in self._sources
            if source.is_reader and self.is_trusted(source)
        )

    def is_trusted(self, reader: Source) -> bool:
        """Return whether a reader is one that the work is shared with."""
        return not reader.is_dropped and (reader.given > 0 or self._left_s > 0)

    @property
    def _pace_s(self) -> float:
        """Seconds that a block takes at the quickest source; 0 if no rate is known."""
        sources = (s for s in self._sources if s.may_have_all and not s.is_reader)
        rate = max((s.meter.rate or 0.0 for s in sources), default=0.0)
        return self._block_bytes / rate if rate else 0.0

    @property
    def _left_s(self) -> float:
        """The rest of the credit of readers that have given nothing."""
        return self._credit_s - self._spent_s

    def is_ours(self, index: int) -> bool:
        """Return whether a block is ours to fetch from the sources."""
        return self._rendezvous.reader_of(index) is None

    def is_awaited(self, index: int) -> bool:
        """Return whether our readers wait for a block from another reader."""
        return self._withheld.get(index, _WAS_LATE) > _WAS_LATE

    def arrived(self, index: int, source: Source) -> None:
        """Note that a source gave a block."""
        self._withheld.pop(index, None)
        if source.is_reader:
            self._spent_s = max(0.0, self._spent_s - EARNED_S)

    def may_be_asked(
        self, index: int, sources: Sequence[Source], now: float, *, is_demanded: bool
    ) -> Sequence[Source]:
        """Return which of `sources` may be asked for a block that nobody was asked for."""
        whole = [source for source in sources if not source.is_partial] or sources
        reader = self._assigned(index, now)
        if reader is None:
            return whole
        if is_demanded and not self._is_waited_for(reader, index, whole, now):
            return whole
        if now < reader.again_at:  # what it lacks is the first of its blocks, so it lacks this too
            self.look_at = min(self.look_at, reader.again_at)
            return ()
        # The source is asked instead only where a reader waits, and the other reader is known to
        # be slower. One whose rate is not known is asked alone: it is quick, or has it not yet.
        may_be_slow = is_demanded and reader.rate(now) is not None
        return [s for s in sources if s is reader or (may_be_slow and not s.is_partial)]

    def look_again(self, index: int, sources: Sequence[Source], now: float) -> None:
        """Note when one of these is to be asked again for a block that it promised."""
        promised = (source.lacks.get(index, now) for source in sources)
        self.look_at = min((self.look_at, *(at for at in promised if at > now)))

    def _assigned(self, index: int, now: float) -> Source | None:
        """Return the other reader that a block is assigned to, if it may have it."""
        reader_id = self._rendezvous.reader_of(index)
        if reader_id is None:
            return None
        reader = self._sources[reader_id]
        is_able = reader.is_available(now) and not reader.will_lack(index)
        return reader if is_able else None

    def _is_waited_for(
        self, reader: Source, index: int, whole: Sequence[Source], now: float
    ) -> bool:
        """Return whether our readers go on waiting for another one."""
        patience_s = self._patience_s(reader, whole)
        give_up_at = self._withheld.setdefault(index, now) + patience_s
        if give_up_at <= now:
            self._was_late(reader, index, now)
            return False
        self.look_at = min(self.look_at, give_up_at)
        return True

    def _patience_s(self, reader: Source, whole: Sequence[Source]) -> float:
        pace_s = min(source.eta_s(self._block_bytes) for source in whole)
        earned_s = reader.given * EARNED_S if reader.given else self._left_s
        return min(max(ASSIGNED_PATIENCE_S, 2 * pace_s), earned_s) / 2.0 ** min(reader.lates, 10)

    def _was_late(self, reader: Source, index: int, now: float) -> None:
        """Note, once for each block, that a reader did not have it in time."""
        since = self._withheld[index]
        if since > _WAS_LATE:
            reader.lates += 1
            self._withheld[index] = _WAS_LATE
            if not reader.given:
                self._spent_s += now - since
